"""How near texts are to a query in meaning, by a vector for each token: for the first stage.

    text ─ words ─ the sum of the vectors of their tokens ─ its cosine with the query's

The vectors come with the model that ships (`static.npz`; scripts/train/static.py makes them). All
sums are of integers, so that a text has the same cosine on every machine. Common words, as how and
my, have no vector: in a question they would count more than its subject.
"""

import hashlib
import io
import re
import threading
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
import tokenizers

from rerank_cli.errors import ModelError
from rerank_cli.models import find
from rerank_cli.models.folder import CHECKSUMS
from rerank_cli.words import COMMON_WORDS, STOP_WORDS

FILE_NAME = "static.npz"
# The components of the largest variance are about the same in all words, and are left out (Mu and
# Viswanath 2018, "All-but-the-Top").
_FIRST_COMPONENTS = 1
_LEFT_OUT = COMMON_WORDS | STOP_WORDS
_MAX_WORDS = 50_000  # of several tokens, whose vectors are kept
_LARGEST = 4095  # of a token's vector: several make a word, and many words a text
_LARGEST_WORD = (1 << 15) - 1
_SAFE_SUM = 1 << 27  # the squares of hundreds of such components have a sum of 63 bits
_SLICE_TOKENS = 4096  # that are unpacked at once
_LEAST_STRETCHES = 8  # that are summed together
_LEAST_KNOWN_SHARE = 0.5  # of a query's words
_MARK = "\0"  # before each text; no other word
_MARKED = f" {_MARK} "
_NO_ASCII = re.compile(r"[^\x00-\x7f]+")
# Words have letters alone: numbers say little, and logs have many. Bytes beyond ASCII are left.
_LETTERS = bytes(
    code if code >= 128 or chr(code).isalpha() or chr(code) == _MARK else ord(" ")
    for code in range(256)
)


class StaticVectors:
    """The vectors of words: a row for each token, and for each word of several when it comes up.

    Row 0 is zero, and so is that of words that are left out. Any thread may use it. Raises
    `ModelError` for a file that is damaged, or does not fit the vocabulary.
    """

    def __init__(self, folder: Path) -> None:
        self._lock = threading.Lock()
        path = folder / FILE_NAME
        try:
            self._tokenizer = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
            self._vocabulary = self._tokenizer.get_vocab()
            self._rows = _unpack(_read_checked(path), len(self._vocabulary))
        except Exception as error:  # numpy and tokenizers raise many
            reason = " ".join(str(error).split()) or type(error).__name__
            raise ModelError(
                f"{path}: cannot be read: {reason}", hint="install rerank-cli again"
            ) from error
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._tokens = self._count = len(self._rows)  # rows of tokens, and of all known words
        self._row_of: dict[str, int] = {}
        self._forget_words()

    def knows_words(self, text: str) -> bool:
        """Whether at least half of the words of a text are in the vocabulary, as most English ones.

        The pieces of others mean little by themselves, and so do single characters. Words that
        are left out do not count.
        """
        words = {*_cut([text])} - _LEFT_OUT - {_MARK}
        known = [word for word in words if len(word) > 1 and word in self._vocabulary]
        return bool(words) and len(known) >= _LEAST_KNOWN_SHARE * len(words)

    def sums(self, texts: Sequence[str]) -> np.ndarray:
        """The sum of the vectors of each text's words, in the order of the texts."""
        words = _cut(texts)
        with self._lock:
            self._learn({*words})
            rows = np.fromiter(map(self._row_of.__getitem__, words), np.int32, len(words))
            return _sum_rows(self._rows, rows, np.flatnonzero(rows == 0))

    def _learn(self, words: set[str]) -> None:
        """Give each word a row. Those of earlier words are forgotten if they become many."""
        unknown = words.difference(self._row_of)
        if len(self._row_of) + len(unknown) > len(self._vocabulary) + _MAX_WORDS:
            self._forget_words()
            unknown = words.difference(self._row_of)
        if not unknown:
            return
        names = sorted(unknown)
        encodings = self._tokenizer.encode_batch_fast(names, add_special_tokens=False)
        tokens = [[0, *encoding.ids] for encoding in encodings]
        starts = np.cumsum([0, *map(len, tokens[:-1])])
        vectors = _sum_rows(
            self._rows, np.array([token for ids in tokens for token in ids]), starts
        )
        first, end = self._count, self._count + len(names)
        if end > len(self._rows):
            room = np.zeros((max(end, len(self._rows) + _SLICE_TOKENS), vectors.shape[1]), np.int16)
            room[:first] = self._rows[:first]
            self._rows = room
        self._rows[first:end] = np.clip(vectors, -_LARGEST_WORD, _LARGEST_WORD)
        self._row_of.update(zip(names, range(first, end), strict=True))
        self._count = end

    def _forget_words(self) -> None:
        left_out = dict.fromkeys(_LEFT_OUT, self._tokens - 1)
        self._row_of = {**self._vocabulary, **left_out, _MARK: 0}
        self._rows = self._rows[: self._tokens]
        self._count = self._tokens


class QueryMeaning:
    """Compares texts with one query."""

    def __init__(self, query: str, vectors: StaticVectors) -> None:
        self._vectors = vectors
        (self._query,) = _bound(vectors.sums([query]))
        self._length = np.sqrt(float(self._query @ self._query))

    def score(self, texts: Sequence[str]) -> Sequence[float]:
        """The cosine of each text with the query; 0 for one without words."""
        if not texts:
            return []
        sums = _bound(self._vectors.sums(texts))
        lengths = np.sqrt((sums * sums).sum(1).astype(np.float64)) * self._length
        products = (sums @ self._query).astype(np.float64)
        cosines = np.divide(products, lengths, out=np.zeros_like(lengths), where=lengths > 0)
        scores: list[float] = cosines.tolist()
        return scores


def open_query_meaning(query: str) -> QueryMeaning | None:
    """Compare texts with a query by the vectors that ship; raises `ModelError`.

    Returns None for a query of which most words are not in their vocabulary.
    """
    vectors = _open_vectors()
    return QueryMeaning(query, vectors) if vectors.knows_words(query) else None


@cache
def _open_vectors() -> StaticVectors:
    return StaticVectors(find(None).tokenizer.parent)


def _read_checked(path: Path) -> bytes:
    """The content of a file; raises `ValueError` if it has not the hash that is noted beside it."""
    content = path.read_bytes()
    noted = (path.parent / CHECKSUMS).read_text(encoding="utf-8").split()
    hashes = dict(zip(noted[1::2], noted[::2], strict=False))
    if hashes.get(path.name) != hashlib.sha256(content).hexdigest():
        raise ValueError(f"damaged, or not the one of {CHECKSUMS}")
    return content


def _unpack(content: bytes, vocabulary: int) -> np.ndarray:
    """The vectors of tokens as integers of 16 bits, and a row of zeros behind them.

    Raises `ValueError` if they do not fit the vocabulary.
    """
    with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        packed, scales = arrays["vectors"], arrays["scales"].astype(np.float32)
    if packed.dtype != np.int8 or packed.ndim != 2 or len(packed) != vocabulary:
        raise ValueError(f"not a vector of 8-bit integers for each of {vocabulary:,} tokens")
    if scales.shape != (vocabulary,) or not np.isfinite(scales).all():
        raise ValueError(f"not a scale for each of {vocabulary:,} tokens")
    packed = packed[:, _FIRST_COMPONENTS:]
    if not packed.any():
        raise ValueError("all are zero")
    largest = (np.abs(packed.astype(np.int16)).max(1) * scales).max()
    rows = np.zeros((vocabulary + 1, packed.shape[1]), np.int16)
    for start in range(0, vocabulary, _SLICE_TOKENS):
        part = slice(start, start + _SLICE_TOKENS)
        vectors = packed[part] * scales[part, None]
        rows[start : start + len(vectors)] = np.rint(vectors * (_LARGEST / largest))
    if rows[0].any():
        raise ValueError("the first token has a vector, and must have none")
    return rows


def _cut(texts: Sequence[str]) -> list[str]:
    """The words of texts, with a mark before those of each text."""
    parts = [""]
    for text in texts:
        lower = text.lower()
        if not lower.isascii():
            lower = _NO_ASCII.sub(_blank_symbols, lower)
        parts.append(lower.replace(_MARK, " ") if _MARK in lower else lower)
    return _MARKED.join(parts).encode().translate(_LETTERS).decode().split()


def _blank_symbols(match: re.Match[str]) -> str:
    """Characters with a blank for each that is no letter."""
    return "".join([character if character.isalpha() else " " for character in match[0]])


def _sum_rows(table: np.ndarray, rows: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """The sums of the rows of a table that each stretch of `rows` names; stretches have `starts`.

    Adds the first row of all stretches, then the second, and so on. That takes a quarter of the
    time of `np.add.reduceat`. Of the longest few the rest is summed for each by itself.
    """
    counts = np.diff(starts, append=len(rows))
    order = np.argsort(-counts, kind="stable")
    starts, counts = starts[order], counts[order]
    ordered = np.zeros((len(order), table.shape[1]), np.int64)
    place, stretches = 0, len(order)
    while stretches >= _LEAST_STRETCHES:
        ordered[:stretches] += table[rows[starts[:stretches] + place]]
        place += 1
        stretches = int(np.searchsorted(-counts, -place))
    for number in range(stretches):
        rest = rows[starts[number] + place : starts[number] + counts[number]]
        ordered[number] += table[rest].sum(0, dtype=np.int64)
    sums = np.empty_like(ordered)
    sums[order] = ordered
    return sums


def _bound(sums: np.ndarray) -> np.ndarray:
    """The same with those of very long texts divided, so that products do not overflow."""
    largest = np.abs(sums).max(1, initial=0)
    while (is_large := largest > _SAFE_SUM).any():
        sums[is_large] >>= 8
        largest[is_large] >>= 8
    return sums
