"""Candidates of each query: those that came with the data, or the best that BM25 finds.

BM25 is bm25s's with the English Snowball stemmer and stop words, k1 1.2 and b 0.75, over title and
text: always the same, so that figures of one day can stand beside those of another.
"""

import random
from collections.abc import Mapping, Sequence

from rerank_cli.errors import InputError, MissingExtra
from rerank_cli.evaluation.collection import Candidate, Collection, Task

K1, B = 1.2, 0.75


def task_of(collection: Collection, depth: int, sample: int | None, seed: int) -> Task:
    """Choose the queries that can be evaluated, all or a sample, and find their candidates.

    Raises `InputError` where there are none.
    """
    notes = list(collection.notes)
    judged = [name for name in collection.queries if name in collection.qrels]
    if left := len(collection.queries) - len(judged):
        notes.append(f"{left:,} queries have no judgements: they are left out")
    if blank := [name for name in judged if not collection.queries[name].strip()]:
        notes.append(f"{len(blank):,} queries are blank: they are left out")
        judged = [name for name in judged if name not in set(blank)]
    if strangers := len(collection.qrels.keys() - collection.queries.keys()):
        notes.append(f"{strangers:,} queries of the judgements have no text: they are left out")
    given = collection.candidates
    if given is not None:
        without = [name for name in judged if not given.get(name)]
        if without:
            notes.append(f"{len(without):,} queries have no candidates: their figures are 0")
    if not judged:
        raise InputError(f"{collection.name}: no query has judgements, so nothing can be measured")
    if sample is not None and sample < len(judged):
        judged = random.Random(seed).sample(judged, sample)  # noqa: S311 - not for a secret
    queries = {name: collection.queries[name] for name in judged}
    qrels = {name: collection.qrels[name] for name in judged}
    hopeless = sum(not any(grade > 0 for grade in of.values()) for of in qrels.values())
    if hopeless:
        notes.append(
            f"{hopeless:,} queries have nothing relevant: their figures are 0, as trec_eval has it"
        )
    if given is not None:
        candidates: Mapping[str, Sequence[Candidate]] = {
            name: list(given.get(name, ()))[:depth] for name in judged
        }
    else:
        candidates = retrieved(collection, queries, depth)
    first = "bm25" if given is None else "input"
    return Task(collection.name, first, depth, queries, qrels, candidates, notes)


def retrieved(
    collection: Collection, queries: Mapping[str, str], depth: int
) -> dict[str, list[Candidate]]:
    """BM25's best documents for each query, best first; those without a shared word are none."""
    try:
        import bm25s
        import Stemmer
    except ImportError as error:
        raise MissingExtra("rerank eval", "eval") from error
    if not collection.corpus:
        raise InputError(f"{collection.name}: the corpus is empty")
    stemmer = Stemmer.Stemmer("english")
    documents = list(collection.corpus.values())

    def terms(texts: list[str]) -> object:
        return bm25s.tokenize(texts, stopwords="en", stemmer=stemmer, show_progress=False)

    index = bm25s.BM25(k1=K1, b=B)
    index.index(terms([f"{one.title} {one.text}" for one in documents]), show_progress=False)
    found, scores = index.retrieve(
        terms(list(queries.values())), k=min(depth, len(documents)), show_progress=False
    )
    return {
        name: [
            Candidate(str(documents[place].id), float(score), documents[place])
            for place, score in zip(places, values, strict=True)
            if score > 0
        ]
        for name, places, values in zip(queries, found, scores, strict=True)
    }
