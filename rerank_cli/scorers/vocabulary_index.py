"""Large Unigram vocabularies by the piece: a short text is tokenised without reading all of one.

To read the 250,002 pieces of an XLM-RoBERTa tokenizer takes longer than to score ten documents, and
a text's tokens depend on no other pieces than those that are parts of it. These are looked up in
an index, once made of the tokenizer.json and mapped into memory, and a tokenizer of them alone is
given the text: it splits it as the whole one does, for the best segmentation (Kudo 2018) is sought
among the same candidates.
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

from rerank_cli.runtimes.prepared_cache import PreparationError, PreparedCache
from rerank_cli.types import Tokens

# So many parts of texts are looked up: for more, all pieces are read in as much time.
MAX_PARTS = 200_000
_RECIPE = "vocabulary 1"
_MIN_FILE_BYTES = 4_000_000  # bytes: smaller ones are read at once
_MIN_PIECES = 50_000  # pieces; fewer are read as fast as they are looked up
_SKELETON_FILE = "skeleton.json"
_UNKNOWN_PIECE = "<unk>"


def can_be_indexed(content: Any) -> bool:
    """Whether a tokenizer.json has such a vocabulary, and nothing besides that splits texts.

    Its own added tokens are all special ones, which in a text are text like any other.
    """
    model = content.get("model") if isinstance(content, dict) else None
    return (
        isinstance(model, dict)
        and model.get("type") == "Unigram"
        and len(model.get("vocab") or ()) >= _MIN_PIECES
        and model.get("unk_id") is not None
        and all(added.get("special") for added in content.get("added_tokens") or ())
    )


def make_index(source: Path, folder: Path) -> None:
    """Make a tokenizer.json's index; of one that is not worth it, an empty one."""
    content = json.loads(source.read_bytes())
    worth = can_be_indexed(content)
    model = content["model"] if worth else {"vocab": []}
    vocabulary = model["vocab"]
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
    about: dict[str, Any] = {"worth": worth}
    if worth:
        unknown = int(model["unk_id"])
        # The score of what is unknown is made of the least one there is.
        always = {unknown, int(scores.argmin())}
        if model.get("byte_fallback"):
            always |= {n for n, piece in enumerate(pieces) if _is_byte(piece)}
        about |= {
            "unknown": unknown,
            "always": sorted(always),
            "longest": max(len(piece) for piece, _ in vocabulary),
            "byte_fallback": bool(model.get("byte_fallback")),
        }
        content |= {"added_tokens": [], "truncation": None, "padding": None}
        content["model"] = {**model, "vocab": [[_UNKNOWN_PIECE, 0.0]], "unk_id": 0}
    (folder / _SKELETON_FILE).write_text(
        json.dumps({"about": about, "tokenizer": content if worth else None}), encoding="utf-8"
    )


class Vocabulary:
    """An index that `make_index` made. `looked_up` counts the parts of texts that were sought."""

    def __init__(self, folder: Path) -> None:
        saved = json.loads((folder / _SKELETON_FILE).read_bytes())
        about = saved["about"]
        self.is_usable: bool = about["worth"]
        self.lookups = 0
        self._counting = Lock()
        if not self.is_usable:
            return
        self.skeleton = tokenizers.Tokenizer.from_str(json.dumps(saved["tokenizer"]))
        self._unknown: int = about["unknown"]
        self._always: Sequence[int] = about["always"]
        self._longest: int = about["longest"]
        self._byte_fallback: bool = about["byte_fallback"]
        self._hashes = _map_array(folder / "hashes.npy")
        self._places = _map_array(folder / "places.npy")
        # A memoryview's numbers cost a fifth of what an array's do.
        self._ends = _map_array(folder / "ends.npy").data
        self._scores = _map_array(folder / "scores.npy").data
        with (folder / "pieces.bin").open("rb") as stream:
            self._pieces = mmap(stream.fileno(), 0, access=ACCESS_READ)
        self._word_pieces: dict[str, Sequence[int]] = {}  # the pieces of words
        self._entries: dict[int, tuple[str, float]] = {}  # pieces and their scores

    def encode(self, text: str) -> Tokens:
        """Split a text into tokens, with their ids in the whole vocabulary."""
        tokenizer, ids = self.tokenizer_for(text)
        encoding = tokenizer.encode(text, add_special_tokens=False)
        return Tokens([ids[place] for place in encoding.ids], encoding.offsets)

    def tokenizer_for(self, text: str) -> tuple[tokenizers.Tokenizer, Sequence[int]]:
        """A tokenizer with a text's pieces alone, and the ids of these in the whole vocabulary."""
        words = self._words(text)
        self._look_up(words)
        found = set(self._always)
        for word in words:
            found.update(self._word_pieces[word])
        ids = sorted(found)
        model = tokenizers.models.Unigram(
            [self._entry(place) for place in ids],
            unk_id=ids.index(self._unknown),
            byte_fallback=self._byte_fallback,
        )
        tokenizer = tokenizers.Tokenizer(model)
        for part in ("normalizer", "pre_tokenizer", "post_processor"):
            if (value := getattr(self.skeleton, part)) is not None:
                setattr(tokenizer, part, value)
        tokenizer.encode_special_tokens = True
        return tokenizer, ids

    def _words(self, text: str) -> set[str]:
        """What is split by itself, as the tokenizer's own first steps have it."""
        normalizer, splitter = self.skeleton.normalizer, self.skeleton.pre_tokenizer
        normal = normalizer.normalize_str(text) if normalizer is not None else text
        if splitter is None:
            return {normal}
        return {word for word, _ in splitter.pre_tokenize_str(normal)}

    def _look_up(self, words: Iterable[str]) -> None:
        """Find the pieces within words that were not seen before."""
        parts = {word: self._parts(word) for word in words if word not in self._word_pieces}
        sought = list(set(chain.from_iterable(parts.values())))
        with self._counting:
            self.lookups += len(sought)
        places = self._find_places(sought)
        for word, own in parts.items():
            self._word_pieces[word] = [places[part] for part in own if part in places]

    def _parts(self, word: str) -> Sequence[str]:
        length, longest = len(word), self._longest
        return [
            word[start:end]
            for start in range(length)
            for end in range(start + 1, min(length, start + longest) + 1)
        ]

    def _find_places(self, parts: Sequence[str]) -> dict[str, int]:
        """The ids of those that are pieces: equal by their hash, and then by their bytes."""
        encoded = [part.encode("utf-8", "surrogatepass") for part in parts]
        hashes = np.fromiter(map(crc32, encoded), np.uint32, len(encoded))
        starts = np.searchsorted(self._hashes, hashes)
        ends = np.searchsorted(self._hashes, hashes, side="right")
        places = {}
        for number in np.flatnonzero(starts < ends).tolist():
            for candidate in self._places[starts[number] : ends[number]].tolist():
                if self._piece(candidate) == encoded[number]:
                    places[parts[number]] = candidate
        return places

    def _entry(self, place: int) -> tuple[str, float]:
        if (entry := self._entries.get(place)) is None:
            text = self._piece(place).decode("utf-8", "surrogatepass")
            entry = self._entries[place] = (text, self._scores[place])
        return entry

    def _piece(self, place: int) -> bytes:
        start = self._ends[place - 1] if place else 0
        return self._pieces[start : self._ends[place]]


def open_vocabulary(path: Path, store: PreparedCache | None) -> Vocabulary | None:
    """Open a tokenizer.json's index, made if need be; None where there is nothing to gain by it."""
    if store is None or path.stat().st_size < _MIN_FILE_BYTES:
        return None
    try:
        folder = store.prepare(path, _RECIPE, lambda making: make_index(path, making))
        vocabulary = Vocabulary(folder)
    except (PreparationError, OSError, ValueError, LookupError, TypeError):
        return None  # what is wrong with the file is told by who reads all of it
    return vocabulary if vocabulary.is_usable else None


def _map_array(path: Path) -> np.ndarray[Any, Any]:
    mapped: np.ndarray[Any, Any] = np.load(path, mmap_mode="r").view(np.ndarray)
    return mapped


def _is_byte(piece: bytes) -> bool:
    return len(piece) == len("<0x00>") and piece.startswith(b"<0x") and piece.endswith(b">")
