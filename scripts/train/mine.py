"""Finds, for training questions, the passages that look most like an answer.

BM25 finds passages that share a question's words, and a bi-encoder passages with a similar meaning:
a reranker has to distinguish them from the right passage.
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
    """The places of passages (questions, BEST), best first: by BM25, and by the bi-encoder."""
    path = work / f"{corpus.name}-neighbours.npz"
    if not path.exists():
        texts = [f"{passage.title} {passage.text}" for passage in corpus.passages]
        words = by_words(texts, [question.text for question in corpus.questions])
        partial_path = path.with_suffix(".making.npz")
        np.savez(partial_path, words=words, meaning=by_meaning(vectors))
        partial_path.rename(path)
    arrays = np.load(path)
    return arrays["words"], arrays["meaning"]


def by_words(texts: list[str], questions: list[str]) -> np.ndarray:
    """BM25 over the same terms as `rerank -m bm25`, for all scripts."""
    words = Words()
    index = bm25s.BM25(k1=1.2, b=0.75)
    index.index([words.terms(text) for text in texts], show_progress=False)
    term_lists = [list(words.query_terms(question).terms) for question in questions]
    results, _ = index.retrieve(term_lists, k=min(BEST, len(texts)), show_progress=False)
    places: np.ndarray = results.astype(np.int32)
    return places


def by_meaning(vectors: Vectors) -> np.ndarray:
    passages = torch.from_numpy(vectors.passages.astype(np.float32))
    batches = []
    for start in range(0, len(vectors.questions), 1024):
        questions = torch.from_numpy(vectors.questions[start : start + 1024].astype(np.float32))
        batches.append((questions @ passages.T).topk(min(BEST, len(passages))).indices)
    places: np.ndarray = torch.cat(batches).numpy().astype(np.int32)
    return places
