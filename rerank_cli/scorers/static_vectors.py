"""How near texts are to a query in meaning, by a vector for each token: for the first stage.

    text ─ words ─ the cosine of each with each of the query's ─ the nearest ones

The vectors come with the model that ships (`static.npz`; scripts/train/static.py makes them). Each
word is compared with the query once, and its cosines are looked up in each text. All sums are of
integers, so that a text has the same score on every machine. Common words, as how and my, have no
vector: in a question they would count more than its subject.
"""

import hashlib
import io
import re
import threading
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tokenizers

from rerank_cli.errors import ModelError
from rerank_cli.models import find
from rerank_cli.models.folder import CHECKSUMS
from rerank_cli.ranking.text_memory import NO_MEMORY, TextGroup, TextMemory, text_size
from rerank_cli.words import COMMON_WORDS, STOP_WORDS

FILE_NAME = "static.npz"
# The components of the largest variance are about the same in all words, and are left out (Mu and
# Viswanath 2018, "All-but-the-Top").
_FIRST_COMPONENTS = 1
_LEFT_OUT = COMMON_WORDS | STOP_WORDS
_MAX_WORDS = 50_000  # of several tokens, whose vectors are kept
_LARGEST = 4095  # of a token's vector: several make a word, and many words a text
_LARGEST_WORD = (1 << 15) - 1
_SAFE_SUM = 1 << 22  # squares of such components have a sum that doubles hold exactly
_MAX_QUERY_WORDS = 32  # that are looked for in texts: the rarest ones
_COSINE_SCALE = (1 << 15) - 1  # cosines are kept as integers of 16 bits
# What the mean word of a text counts, beside the nearest ones. Chosen on nfcorpus, nl2bash and
# questions about documentation and code, among 0 to 2.
_MEAN_WEIGHT = 0.25
_SLICE_TOKENS = 4096  # that are unpacked at once
_LEAST_STRETCHES = 8  # that are summed together
_LEAST_KNOWN_SHARE = 0.5  # of a query's words
# In English prose and code 0.60 to 0.84 of the words are known, in German, French and Spanish 0.41
# to 0.50.
_LEAST_KNOWN_SHARE_OF_TEXTS = 0.55
_MARK = "\0"  # before each text; no other word
_MARKED = f" {_MARK} "
_DIGIT = re.compile(r"\d")
_NO_ASCII = re.compile(r"[^\x00-\x7f]+")
# Words have letters alone: numbers say little, and logs have many. Bytes beyond ASCII are left.
_LETTERS = bytes(
    code if code >= 128 or chr(code).isalpha() or chr(code) == _MARK else ord(" ")
    for code in range(256)
)


class TextRows(NamedTuple):
    """The words of texts as rows of a table of vectors.

    vectors     the table, in which rows that are not named here may still change
    rows        those of all words, with row 0 before the words of each text
    generation  of the table: in another one words of several tokens have other rows
    """

    vectors: np.ndarray
    rows: np.ndarray
    generation: int


class _WordRows(dict[str, int]):
    """The row of each word. A word that is not there gets the next one, and is noted in `new`."""

    def __init__(self, rows: Mapping[str, int], end: int) -> None:
        super().__init__(rows)
        self.new: list[str] = []
        self._end = end

    def __missing__(self, word: str) -> int:
        row = self[word] = self._end + len(self.new)
        self.new.append(word)
        return row


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
        self._generation = 0
        self._forget_words()

    def known_share(self, text: str) -> float | None:
        """The share of the words of a text that are in the vocabulary, as most English ones are.

        The pieces of others mean little by themselves, and so do single characters. Words that
        are left out do not count; None if there are no others.
        """
        words = {*_cut([text])} - _LEFT_OUT - {_MARK}
        known = [word for word in words if len(word) > 1 and word in self._vocabulary]
        return len(known) / len(words) if words else None

    def count_known(self, found: TextRows) -> tuple[int, int]:
        """How many words of texts are in the vocabulary, and how many are not."""
        known = np.count_nonzero(found.rows < self._tokens - 1) - np.count_nonzero(found.rows == 0)
        return int(known), int(np.count_nonzero(found.rows >= self._tokens))

    def find_rows(
        self,
        texts: Sequence[str],
        memory: TextMemory = NO_MEMORY,
        groups: Sequence[TextGroup] = (),
    ) -> TextRows:
        """The rows of the words of texts, in the order of the texts.

        Those of groups of texts are kept; without groups each text is one. What was kept of an
        earlier generation of the table is not found.
        """
        if not memory.max_bytes:
            return self._look_up(texts)
        groups, generation = groups or [*map(TextGroup, texts)], self._generation
        kept, missing, start = list[np.ndarray | None](), list[str](), 0
        for group in groups:
            is_kept = memory.takes(group.text)
            kept.append(memory.get((self, generation, group)) if is_kept else None)
            if kept[-1] is None:
                missing += texts[start : start + group.parts]
            start += group.parts
        found = self._look_up(missing)
        if found.generation != generation:
            return found if len(missing) == len(texts) else self._look_up(texts)
        starts = [*np.flatnonzero(found.rows == 0).tolist(), len(found.rows)]
        place, parts = 0, list[np.ndarray]()
        for group, known in zip(groups, kept, strict=True):
            rows = known
            if rows is None:
                rows = found.rows[starts[place] : starts[place + group.parts]]
                place += group.parts
                if memory.takes(group.text):
                    rows = rows.astype(np.int32)
                    size = rows.nbytes + text_size(group.text) + text_size(group.title)
                    memory.put((self, generation, group), rows, size)
            parts.append(rows)
        return found._replace(rows=np.concatenate(parts)) if len(missing) < len(texts) else found

    def _look_up(self, texts: Sequence[str]) -> TextRows:
        """The rows of the words of texts, each looked up."""
        words = _cut(texts) if texts else []
        with self._lock:
            if len(self._row_of) > len(self._vocabulary) + _MAX_WORDS:
                self._forget_words()
            rows = np.fromiter(map(self._row_of.__getitem__, words), np.intp, len(words))
            if new := self._row_of.new[self._count - self._tokens :]:
                self._learn(new)
            return TextRows(self._rows, rows, self._generation)

    def _learn(self, names: Sequence[str]) -> None:
        """Give the next rows the vectors of words: the sums of those of their tokens."""
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
        self._count = end

    def _forget_words(self) -> None:
        left_out = dict.fromkeys(_LEFT_OUT, self._tokens - 1)
        rows = {**self._vocabulary, **left_out, _MARK: 0}
        self._row_of = _WordRows(rows, self._tokens)
        self._rows = self._rows[: self._tokens]  # what was given away keeps the words
        self._count = self._tokens
        self._generation += 1


class QueryMeaning:
    """Compares texts with one query, in one thread at a time.

    A text has two parts of its score. The first one says whether it has something near to each word
    of the query, as the late interaction of ColBERT does (Khattab and Zaharia 2020): the mean over
    these words of the largest cosine with a word of the text, 0 at least. The second one says how
    near all of it is: the mean over its words of the cosine with the query. In both, words count by
    the lengths of their vectors, and rare ones have long vectors.

    `knows_query` says whether the vocabulary has enough of the query's words.
    """

    def __init__(
        self,
        query: str,
        vectors: StaticVectors,
        memory: TextMemory = NO_MEMORY,
        *,
        knows_query: bool = True,
    ) -> None:
        self._vectors = vectors
        self._knows_query = knows_query
        self._known = self._unknown = 0  # words of texts, where it does not
        self._memory = memory
        found = vectors.find_rows([query])
        rows, places, counts = np.unique(found.rows, return_index=True, return_counts=True)
        words = found.vectors[rows].astype(np.int64)
        self._query = _bound(counts @ words).astype(np.float64)
        # Words of several tokens have rows in the order in which they come up in any text.
        words = words[np.argsort(places)].astype(np.float64)
        lengths = _lengths_of(words)
        rarest = np.argsort(-lengths, kind="stable")[:_MAX_QUERY_WORDS]
        rarest = rarest[lengths[rarest] > 0]
        self._words, self._word_lengths = words[rarest], lengths[rarest]
        self._weights: list[int] = np.rint(lengths[rarest]).astype(np.int64).tolist()
        self._generation = found.generation
        # Of each row of the table of vectors, once it comes up in a text:
        self._is_compared = np.zeros(0, np.bool_)
        self._cosines = np.zeros((len(rarest), 0), np.int16)  # with the words of the query
        self._nearness = np.zeros(0, np.int32)  # its cosine with the query, times its length
        self._lengths = np.zeros(0, np.int32)

    def score(self, texts: Sequence[str], groups: Sequence[TextGroup] = ()) -> Sequence[float]:
        """How near each text is to the query; 0 for one without words."""
        if not texts or not self._weights:
            return [0.0] * len(texts)
        found = self._vectors.find_rows(texts, self._memory, groups)
        if not self._knows_query:
            known, unknown = self._vectors.count_known(found)
            self._known, self._unknown = self._known + known, self._unknown + unknown
        self._compare(found)
        starts = np.flatnonzero(found.rows == 0)  # row 0 has a cosine of 0 with all words
        nearest = np.zeros(len(starts), np.int64)
        for weight, cosines in zip(self._weights, self._cosines, strict=True):
            nearest += weight * np.maximum.reduceat(cosines[found.rows], starts).astype(np.int64)
        nearness, lengths = (
            np.add.reduceat(table[found.rows], starts, dtype=np.int64)
            for table in (self._nearness, self._lengths)
        )
        means = nearness / np.maximum(lengths, 1)
        scores = nearest / (_COSINE_SCALE * sum(self._weights)) + _MEAN_WEIGHT * means
        listed: list[float] = scores.tolist()
        return listed

    @property
    def knows_language(self) -> bool:
        """Whether the query, or what was scored so far, is in the language of the vocabulary.

        In a text of that a word of several tokens, such as the name of a drug or of a program, is
        rather like others with some of these.
        """
        words = self._known + self._unknown
        return self._knows_query or self._known > _LEAST_KNOWN_SHARE_OF_TEXTS * words

    def _compare(self, found: TextRows) -> None:
        """Compare the rows that were not compared before.

        All are integers in doubles, so that their sums are exact in any order. `einsum` takes less
        time than products of matrices, for which threads are woken up.
        """
        if found.generation != self._generation:
            self._is_compared[:] = False
            self._generation = found.generation
        if (room := len(found.vectors) - len(self._is_compared)) > 0:
            self._is_compared = np.pad(self._is_compared, (0, room))
            self._cosines = np.pad(self._cosines, ((0, 0), (0, room)))
            self._nearness = np.pad(self._nearness, (0, room))
            self._lengths = np.pad(self._lengths, (0, room))
        new = np.unique(found.rows[~self._is_compared[found.rows]])
        for start in range(0, len(new), _SLICE_TOKENS):
            rows = new[start : start + _SLICE_TOKENS]
            vectors = found.vectors[rows].astype(np.float64)
            lengths = _lengths_of(vectors)
            products = self._word_lengths[:, None] * np.maximum(lengths, 1)
            cosines = np.einsum("wc,rc->wr", self._words, vectors) / products
            self._cosines[:, rows] = np.rint(cosines * _COSINE_SCALE)
            query_length = max(1.0, float(_lengths_of(self._query)))
            self._nearness[rows] = np.rint(
                np.einsum("rc,c->r", vectors, self._query) / query_length
            )
            self._lengths[rows] = np.rint(lengths)
            self._is_compared[rows] = True


def open_query_meaning(query: str, memory: TextMemory = NO_MEMORY) -> QueryMeaning | None:
    """Compare texts with a query by the vectors that ship; raises `ModelError`.

    Returns None for a query without words, and for one of which most are not in their vocabulary if
    it is in another script, or has digits, as codes do. The rows of texts are kept in a memory.
    """
    vectors = _open_vectors()
    share = vectors.known_share(query)
    may_be_english = query.isascii() and _DIGIT.search(query) is None
    if share is None or (share < _LEAST_KNOWN_SHARE and not may_be_english):
        return None
    return QueryMeaning(query, vectors, memory, knows_query=share >= _LEAST_KNOWN_SHARE)


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


def _bound(total: np.ndarray) -> np.ndarray:
    """A sum of vectors, divided if it is of very many, so that products do not overflow."""
    while np.abs(total).max() > _SAFE_SUM:
        total = total >> 1
    return total


def _lengths_of(vectors: np.ndarray) -> np.ndarray:
    """The lengths of vectors of integers, in the last axis."""
    lengths: np.ndarray = np.sqrt(np.einsum("...c,...c->...", vectors, vectors))
    return lengths
