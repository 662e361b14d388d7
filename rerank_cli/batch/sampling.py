"""What a job would take, by a sample of its records."""

import random
import time
from collections.abc import Iterable, Sequence

from rerank_cli.batch.flow import Sizes
from rerank_cli.batch.items import Item, Record
from rerank_cli.errors import UsageError
from rerank_cli.ranking import chunking
from rerank_cli.ranking.results import Selection
from rerank_cli.types import Pair, Scorer, SurveyingScorer

_SECONDS = 4.0  # that are spent on measuring
_LEAST = 64  # pairs, the first of which warm up


def pairs_of(
    items: Iterable[Item], scorer: Scorer, selection: Selection, sizes: Sizes
) -> tuple[list[Pair], int, int, int]:
    """The pairs of some records, with their documents and tokens, and how many are none."""
    pairs: list[Pair] = []
    documents = tokens = refused = 0
    for item in items:
        if not isinstance(item, Record):
            refused += 1
            continue
        try:
            plan = sizes.plan(item.query, scorer.info, selection)
        except UsageError:
            refused += 1
            continue
        for document in item.documents:
            split = chunking.split(document, scorer.info.tokenizer, plan)
            documents += 1
            tokens += split.tokens
            pairs += [Pair(plan.query, chunk) for chunk in split.chunks]
    return pairs, documents, tokens, refused


def rate_of(scorer: Scorer, pairs: Sequence[Pair]) -> float | None:
    """The pairs a second that a scorer makes here; None where there are too few to tell."""
    if len(pairs) < 2 * _LEAST:
        return None
    random.Random(0).shuffle(pairs := list(pairs))  # noqa: S311 - no secret
    if isinstance(scorer, SurveyingScorer):
        scorer = scorer.over(pairs)
    scorer.score(pairs[:_LEAST])
    began = time.perf_counter()
    done = _LEAST
    while done < len(pairs) and time.perf_counter() - began < _SECONDS:
        some = pairs[done : done + _LEAST]
        scorer.score(some)
        done += len(some)
    return (done - _LEAST) / (time.perf_counter() - began)
