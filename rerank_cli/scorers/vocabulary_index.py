"""Tokenises short texts with a large Unigram vocabulary without loading all of it.

Loading the 250,002 pieces of an XLM-RoBERTa tokenizer takes longer than scoring ten documents. But
a text's tokens depend only on the pieces that are parts of the text. An index of the pieces is made
once from tokenizer.json, and mapped into memory. To split a text, its parts are looked up in the
index, and a tokenizer is made of the pieces found. It gives the same tokens as the whole one,
because it chooses the best segmentation (Kudo 2018) among the same candidates.
"""

import json
from collections.abc import Iterable, Sequence
from itertools import chain
from mmap import ACCESS_READ, mmap
from pathlib import Path
from threading import Lock
from typing import Any
from zlib import crc32

import numpy as np
import tokenizers

from rerank_cli.types import Tokens

# Looking up more parts of texts would take longer than loading all pieces.
MAX_PARTS = 200_000
MAX_CHARACTERS = MAX_PARTS // 4  # of a text, whose parts are all in memory at once
_MIN_PIECES = 50_000  # fewer are loaded as fast as they are looked up
_MAX_PIECE_CHARACTERS = 256  # a text has as many parts, for each of its characters
_SKELETON_FILE = "skeleton.json"
_UNKNOWN_PIECE = "<unk>"


class Vocabulary:
    """An index that `make_index` wrote; `lookups` counts the parts of texts looked up so far."""

    def __init__(self, folder: Path) -> None:
        saved = json.loads((folder / _SKELETON_FILE).read_bytes())
        about = saved["about"]
        self.is_usable: bool = about["worth"]
        self.lookups = 0
        self._count_lock = Lock()
        if not self.is_usable:
            return
        self._skeleton = tokenizers.Tokenizer.from_str(json.dumps(saved["tokenizer"]))
        self._unknown_id: int = about["unknown"]
        self._always: Sequence[int] = about["always"]
        self._longest: int = about["longest"]
        self._byte_fallback: bool = about["byte_fallback"]
        self._hashes = _map_array(folder / "hashes.npy")
        self._ids = _map_array(folder / "places.npy")  # in the order of their hashes
        # Reading a number of a memoryview takes a fifth of the time of one of an array.
        self._ends = _map_array(folder / "ends.npy").data
        self._scores = _map_array(folder / "scores.npy").data
        with (folder / "pieces.bin").open("rb") as stream:
            self._pieces = mmap(stream.fileno(), 0, access=ACCESS_READ)
        self._word_pieces: dict[str, Sequence[int]] = {}  # the ids of the pieces in each word
        self._entries: dict[int, tuple[str, float]] = {}  # pieces and their scores, by id

    def encode(self, text: str) -> Tokens:
        """Split a text into tokens; their ids are those of the whole vocabulary."""
        tokenizer, ids = self.tokenizer_for(text)
        encoding = tokenizer.encode(text, add_special_tokens=False)
        return Tokens([ids[token] for token in encoding.ids], encoding.offsets)

    def tokenizer_for(self, text: str) -> tuple[tokenizers.Tokenizer, Sequence[int]]:
        """A tokenizer of a text's pieces only, and the ids of these in the whole vocabulary."""
        words = self._words(text)
        self._look_up(words)
        piece_ids = set(self._always)
        for word in words:
            piece_ids.update(self._word_pieces[word])
        ids = sorted(piece_ids)
        model = tokenizers.models.Unigram(
            [self._entry(piece_id) for piece_id in ids],
            unk_id=ids.index(self._unknown_id),
            byte_fallback=self._byte_fallback,
        )
        tokenizer = tokenizers.Tokenizer(model)
        for part in ("normalizer", "pre_tokenizer", "post_processor"):
            if (value := getattr(self._skeleton, part)) is not None:
                setattr(tokenizer, part, value)
        tokenizer.encode_special_tokens = True
        return tokenizer, ids

    def _words(self, text: str) -> set[str]:
        """The words that the tokenizer splits separately, after it has normalised the text."""
        normalizer, splitter = self._skeleton.normalizer, self._skeleton.pre_tokenizer
        normal = normalizer.normalize_str(text) if normalizer is not None else text
        if splitter is None:
            return {normal}
        return {word for word, _ in splitter.pre_tokenize_str(normal)}

    def _look_up(self, words: Iterable[str]) -> None:
        """Find and remember the pieces inside new words."""
        parts = {word: self._parts(word) for word in words if word not in self._word_pieces}
        unique = list(set(chain.from_iterable(parts.values())))
        with self._count_lock:
            self.lookups += len(unique)
        ids = self._find_ids(unique)
        for word, word_parts in parts.items():
            self._word_pieces[word] = [ids[part] for part in word_parts if part in ids]

    def _parts(self, word: str) -> Sequence[str]:
        """All parts of a word that are short enough to be pieces."""
        length, longest = len(word), self._longest
        return [
            word[start:end]
            for start in range(length)
            for end in range(start + 1, min(length, start + longest) + 1)
        ]

    def _find_ids(self, parts: Sequence[str]) -> dict[str, int]:
        """Find the ids of the parts that are pieces, by their hashes and then by their bytes."""
        contents = [part.encode("utf-8", "surrogatepass") for part in parts]
        hashes = np.fromiter(map(crc32, contents), np.uint32, len(contents))
        starts = np.searchsorted(self._hashes, hashes)
        ends = np.searchsorted(self._hashes, hashes, side="right")
        ids = {}
        for number in np.flatnonzero(starts < ends).tolist():
            for candidate in self._ids[starts[number] : ends[number]].tolist():
                if self._piece(candidate) == contents[number]:
                    ids[parts[number]] = candidate
        return ids

    def _entry(self, piece_id: int) -> tuple[str, float]:
        """A piece and its score."""
        if (entry := self._entries.get(piece_id)) is None:
            text = self._piece(piece_id).decode("utf-8", "surrogatepass")
            entry = self._entries[piece_id] = (text, self._scores[piece_id])
        return entry

    def _piece(self, piece_id: int) -> bytes:
        start = self._ends[piece_id - 1] if piece_id else 0
        return self._pieces[start : self._ends[piece_id]]


def open_vocabulary(folder: Path) -> Vocabulary | None:
    """Open the index that `make_index` wrote; None if it is of no use."""
    try:
        vocabulary = Vocabulary(folder)
    except (KeyboardInterrupt, SystemExit):
        raise
    # Loading all of the file will do.
    except BaseException:  # noqa: BLE001 - the library raises anything, and panics
        return None
    return vocabulary if vocabulary.is_usable else None


def make_index(content: dict[str, Any], folder: Path) -> None:
    """Write the index of a tokenizer.json's content into a folder.

    It is empty if it cannot be made, or if loading the whole vocabulary is fast enough.
    """
    try:
        if _can_be_indexed(content):
            _write_index(content, folder)
            return
    except (ArithmeticError, LookupError, TypeError, ValueError):
        pass  # the library has read the file, so all of it may be of use
    _write_skeleton(folder, {"worth": False}, None)


def _write_index(content: dict[str, Any], folder: Path) -> None:
    model = content["model"]
    vocabulary = model["vocab"]
    # The arrays are in the order of ids, but hashes and places (ids) in the order of hashes.
    pieces = [piece.encode("utf-8", "surrogatepass") for piece, _ in vocabulary]
    scores = np.array([score for _, score in vocabulary], np.float64)
    hashes = np.array([crc32(piece) for piece in pieces], np.uint32)
    order = np.argsort(hashes, kind="stable")
    ends = np.cumsum([len(piece) for piece in pieces], dtype=np.int64)
    np.save(folder / "hashes.npy", hashes[order])
    np.save(folder / "places.npy", order.astype(np.int32))
    np.save(folder / "ends.npy", ends)
    np.save(folder / "scores.npy", scores)
    (folder / "pieces.bin").write_bytes(b"".join(pieces))
    unknown_id, byte_fallback = int(model["unk_id"]), bool(model.get("byte_fallback"))
    # The tokenizer derives the score of unknown text from the lowest score of all pieces.
    always = {unknown_id, int(scores.argmin())}
    if byte_fallback:
        always |= {number for number, piece in enumerate(pieces) if _is_byte(piece)}
    about = {
        "worth": True,
        "unknown": unknown_id,
        "always": sorted(always),
        "longest": max(len(piece) for piece, _ in vocabulary),
        "byte_fallback": byte_fallback,
    }
    model = {**model, "vocab": [[_UNKNOWN_PIECE, 0.0]], "unk_id": 0}
    changed: dict[str, Any] = {
        "added_tokens": [],
        "truncation": None,
        "padding": None,
        "model": model,
    }
    _write_skeleton(folder, about, content | changed)


def _write_skeleton(folder: Path, about: dict[str, Any], tokenizer: dict[str, Any] | None) -> None:
    content = {"about": about, "tokenizer": tokenizer}
    (folder / _SKELETON_FILE).write_text(json.dumps(content), encoding="utf-8")


def _can_be_indexed(content: dict[str, Any]) -> bool:
    """Whether a tokenizer.json has a large Unigram vocabulary, and nothing else that splits texts.

    Its added tokens must all be special ones: in a text, these are ordinary text.
    """
    model = content.get("model")
    return (
        isinstance(model, dict)
        and model.get("type") == "Unigram"
        and len(vocabulary := model.get("vocab") or ()) >= _MIN_PIECES
        and max(len(piece) for piece, _ in vocabulary) <= _MAX_PIECE_CHARACTERS
        and isinstance(unknown_id := model.get("unk_id"), int)
        and 0 <= unknown_id < len(vocabulary)
        and all(added.get("special") for added in content.get("added_tokens") or ())
    )


def _map_array(path: Path) -> np.ndarray[Any, Any]:
    """Map an array into memory, as a plain `ndarray`: a `memmap` is slower to index."""
    array: np.ndarray[Any, Any] = np.load(path, mmap_mode="r").view(np.ndarray)
    return array


def _is_byte(piece: bytes) -> bool:
    """Whether a piece stands for one byte, as `<0x0A>` does."""
    return len(piece) == len("<0x00>") and piece.startswith(b"<0x") and piece.endswith(b">")
