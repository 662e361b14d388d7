"""Finds, for training questions, the passages that look most like an answer.

BM25 finds those that share a question's words, and a bi-encoder those that mean alike: a reranker
has to tell them from the right one.
"""

from pathlib import Path

import bm25s
import numpy as np
import torch
from teachers import Vectors
from texts import Corpus

from rerank_cli.words import Words

BEST = 16


def neighbours(corpus: Corpus, vectors: Vectors, work: Path) -> tuple[np.ndarray, np.ndarray]:
    """Places of passages (questions, BEST), best first: BM25's, and the bi-encoder's."""
    path = work / f"{corpus.name}-neighbours.npz"
    if not path.exists():
        texts = [f"{passage.title} {passage.text}" for passage in corpus.passages]
        words = by_words(texts, [question.text for question in corpus.questions])
        making = path.with_suffix(".making.npz")
        np.savez(making, words=words, meaning=by_meaning(vectors))
        making.rename(path)
    kept = np.load(path)
    return kept["words"], kept["meaning"]


def by_words(texts: list[str], questions: list[str]) -> np.ndarray:
    """BM25 over the terms that `rerank -m bm25` has, of all scripts."""
    words = Words()
    index = bm25s.BM25(k1=1.2, b=0.75)
    index.index([words.terms(text) for text in texts], show_progress=False)
    wanted = [list(words.query_terms(question).terms) for question in questions]
    found, _ = index.retrieve(wanted, k=min(BEST, len(texts)), show_progress=False)
    places: np.ndarray = found.astype(np.int32)
    return places


def by_meaning(vectors: Vectors) -> np.ndarray:
    passages = torch.from_numpy(vectors.passages.astype(np.float32))
    found = []
    for start in range(0, len(vectors.questions), 1024):
        questions = torch.from_numpy(vectors.questions[start : start + 1024].astype(np.float32))
        found.append((questions @ passages.T).topk(min(BEST, len(passages))).indices)
    places: np.ndarray = torch.cat(found).numpy().astype(np.int32)
    return places
