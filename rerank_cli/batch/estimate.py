"""What a job would take, by a sample of its records."""

import random
import time
from collections.abc import Iterable, Sequence
from contextlib import closing

from rerank_cli import machine
from rerank_cli.batch.flow import Sizes
from rerank_cli.batch.options import BatchOptions
from rerank_cli.batch.records import Item, Record
from rerank_cli.batch.sources import source_of
from rerank_cli.errors import ExitCode, UsageError
from rerank_cli.ranking import chunking
from rerank_cli.ranking.results import Selection
from rerank_cli.scorers import open_scorer
from rerank_cli.terminal import Terminal
from rerank_cli.types import Pair, PricedScorer, Scorer, SurveyingScorer

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


_CLUSTER = (16, 64, 256)  # cores
_DIGITS = 3


def planned(asked: BatchOptions, terminal: Terminal) -> ExitCode:
    """Sample the input, measure the model, and say what that comes to."""
    scorer = open_scorer(asked.model, engine=asked.engine, remote=asked.remote)
    with closing(source_of(asked)) as source:
        count, items = source.sample(scorer.info)
    pairs, documents, tokens, refused = pairs_of(items, scorer, asked.selection, asked.sizes)
    share = count / len(items) if items else 0.0
    lines = [
        f"records   {count:,}",
        f"documents {_about(documents * share, count, items)}",
        f"pairs     {_about(len(pairs) * share, count, items)}",
        f"tokens    {_about(tokens * share, count, items)}, the queries not counted",
    ]
    if refused:
        lines.append(f"errors    {_about(refused * share, count, items)} records are none")
    total = len(pairs) * share
    if scorer.info.remote:
        lines += _of_requests(asked, scorer, count, tokens * share)
    elif (rate := rate_of(scorer, pairs)) is None:
        lines.append("time      too few pairs to measure")
    else:
        cores = asked.engine.threads or machine.cores()
        each = rate / cores
        lines.append(f"measured  {rate:,.0f} pairs/s on {cores} cores, {each:,.1f} a core")
        lines.append(f"here      {_time(total / rate)}")
        on = [f"{_time(total / each / some)} on {some} cores" for some in _CLUSTER]
        lines.append(f"ray       {', '.join(on)} like these")
    terminal.write(f"{line}\n".encode() for line in lines)
    return ExitCode.OK


def _of_requests(asked: BatchOptions, scorer: object, records: int, tokens: float) -> list[str]:
    """What a provider would be sent, and what it asks for that."""
    lines = [f"requests  {records:,} or more, one a record and --concurrency at once"]
    if rpm := asked.remote.calling.requests_per_minute:
        lines.append(f"time      {_time(records / rpm * 60)} or more, at {rpm:,} requests a minute")
    if isinstance(scorer, PricedScorer) and (price := scorer.cost(round(tokens))) is not None:
        lines.append(f"cost      about {price.amount:g} {price.currency} ({price.source})")
    return lines


def _about(value: float, count: int, items: object) -> str:
    whole = count == len(items) if isinstance(items, list) else False
    if whole:
        return f"{round(value):,}"
    return f"about {float(f'{value:.{_DIGITS}g}'):,.0f}"


def _time(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.2g} s"
    if seconds < 6000:
        return f"{seconds / 60:.2g} min"
    return f"{seconds / 3600:,.3g} h"
