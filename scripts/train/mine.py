"""Finds, for training questions, the passages that look most like an answer.

BM25 finds those that share a question's words, the bi-encoder those that mean alike, and the model
of the round before those that it takes for answers: a reranker has to tell them from the right one.
"""

import random
from collections.abc import Callable
from pathlib import Path

import bm25s
import numpy as np
import Stemmer
import torch
from pools import Pool, Source
from teachers import BiEncoder
from texts import Corpus

BEST = 16
MINED = 8


def neighbours(corpus: Corpus, encoder: BiEncoder, cache: Path) -> tuple[np.ndarray, np.ndarray]:
    """Places of passages (questions, BEST), best first: BM25's, and the bi-encoder's."""
    path = cache / f"{corpus.name}-neighbours.npz"
    if path.exists():
        kept = np.load(path)
        return kept["words"], kept["meaning"]
    texts = [f"{passage.title} {passage.text}" for passage in corpus.passages]
    questions = [question.text for question in corpus.questions]
    words, meaning = by_words(texts, questions), by_meaning(texts, questions, encoder)
    making = path.with_suffix(".making.npz")
    np.savez(making, words=words, meaning=meaning)
    making.rename(path)
    return words, meaning


def by_words(texts: list[str], questions: list[str]) -> np.ndarray:
    stemmer = Stemmer.Stemmer("english")

    def terms(some: list[str]) -> object:
        return bm25s.tokenize(some, stopwords="en", stemmer=stemmer, show_progress=False)

    index = bm25s.BM25(k1=1.2, b=0.75)
    index.index(terms(texts), show_progress=False)
    found, _ = index.retrieve(terms(questions), k=BEST, show_progress=False)
    places: np.ndarray = found.astype(np.int32)
    return places


def by_meaning(texts: list[str], questions: list[str], encoder: BiEncoder) -> np.ndarray:
    passages = torch.from_numpy(encoder.embed_passages(texts))
    asked = torch.from_numpy(encoder.embed_queries(questions))
    found = [
        (asked[start : start + 1024] @ passages.T).topk(BEST).indices
        for start in range(0, len(asked), 1024)
    ]
    places: np.ndarray = torch.cat(found).numpy().astype(np.int32)
    return places


def by_model(
    source: Source, score: Callable[[Pool], torch.Tensor], count: int, seed: int
) -> dict[int, list[int]]:
    """The MINED passages that a model ranks best for each of `count` questions drawn by `seed`."""
    draw = random.Random(f"{seed}-{source.name}")
    found = {}
    for place in draw.sample(source.kept, min(count, len(source.kept))):
        candidates = source.near(place)
        pool = source.plain(place, candidates)
        with torch.no_grad():
            order = score(pool)[0].argsort(descending=True)[:MINED]
        found[place] = [candidates[one] for one in order.tolist()]
    return found
