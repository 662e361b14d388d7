"""How near texts are to a query in meaning, by a vector for each token: for the first stage.

    text ─ words ─ the sum of the vectors of their tokens ─ its cosine with the query's

The vectors come with the model that ships (`static.npz`; scripts/train/static.py makes them). All
sums are of integers, so that a text has the same cosine on every machine.
"""

import math
import re
import threading
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
import tokenizers

from rerank_cli.errors import ModelError
from rerank_cli.models import find

FILE_NAME = "static.npz"
_WORD = re.compile(r"[^\W\d_]+")  # numbers say little, and logs have many
_MAX_WORDS = 50_000  # whose vectors are kept
_LARGEST = 4095  # of a token's vector: several make a word, and many words a text


class StaticVectors(dict[str, int]):
    """The vectors of words: each word's row, made when it is first looked up. Row 0 is zero.

    Any thread may use it.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__()
        path = folder / FILE_NAME
        try:
            with np.load(path, allow_pickle=False) as content:
                vectors = content["vectors"] * content["scales"].astype(np.float32)[:, None]
            self._tokenizer = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
        except Exception as error:  # numpy and tokenizers raise many
            raise ModelError(
                f"{path}: cannot be read: {error}", hint="install rerank-cli again"
            ) from error
        self._lock = threading.Lock()
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._tokens = np.rint(vectors * (_LARGEST / np.abs(vectors).max())).astype(np.int16)
        self._rows = np.zeros((1024, vectors.shape[1]), np.int16)
        self._count = 1

    def sums(self, texts: Sequence[str]) -> np.ndarray:
        """The sum of the vectors of each text's words, in the order of the texts."""
        with self._lock:
            return self._sums(texts)

    def _sums(self, texts: Sequence[str]) -> np.ndarray:
        if len(self) > _MAX_WORDS:
            self.clear()
            self._count = 1
        rows: list[int] = []
        starts: list[int] = []
        for text in texts:
            starts.append(len(rows))
            rows.append(0)  # a text without words has a sum too
            rows += [self[word] for word in _WORD.findall(text.lower())]
        found: np.ndarray = np.add.reduceat(self._rows[rows], starts, axis=0, dtype=np.int64)
        return found

    def __missing__(self, word: str) -> int:
        if self._count == len(self._rows):
            self._rows = np.concatenate([self._rows, np.zeros_like(self._rows)])
        ids = self._tokenizer.encode(word, add_special_tokens=False).ids
        total = self._tokens[ids].sum(0, dtype=np.int64)
        self._rows[self._count] = np.clip(total, -32767, 32767)
        self[word] = self._count
        self._count += 1
        return self._count - 1


class QueryMeaning:
    """Compares texts with one query."""

    def __init__(self, query: str, vectors: StaticVectors) -> None:
        self._vectors = vectors
        (self._query,) = vectors.sums([query])
        self._length = math.sqrt(int(self._query @ self._query))

    def score(self, texts: Sequence[str]) -> Sequence[float]:
        """The cosine of each text with the query; 0 for one without words."""
        sums = self._vectors.sums(texts)
        lengths = np.sqrt((sums * sums).sum(1).astype(np.float64)) * self._length
        products = (sums @ self._query).astype(np.float64)
        cosines = np.divide(products, lengths, out=np.zeros_like(lengths), where=lengths > 0)
        return [float(cosine) for cosine in cosines]


def open_query_meaning(query: str) -> QueryMeaning:
    """Compare texts with a query by the vectors that ship; raises `ModelError`."""
    return QueryMeaning(query, _open_vectors())


@cache
def _open_vectors() -> StaticVectors:
    return StaticVectors(find(None).tokenizer.parent)
