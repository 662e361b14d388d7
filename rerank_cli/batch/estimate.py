"""What a job would take, by a sample of its records."""

import random
import time
from collections.abc import Iterable, Sequence
from contextlib import closing

from rerank_cli import machine
from rerank_cli.batch.options import BatchOptions
from rerank_cli.batch.records import Item, Record
from rerank_cli.batch.sources import open_source
from rerank_cli.errors import ExitCode, UsageError
from rerank_cli.ranking.reranker import Reranker
from rerank_cli.terminal import Terminal, format_duration
from rerank_cli.types import Pair, PricedScorer, Scorer, SurveyingScorer

_MEASURING_SECONDS = 4.0
_STEP_PAIRS = 64


def collect_pairs(items: Iterable[Item], reranker: Reranker) -> tuple[list[Pair], int, int, int]:
    """The pairs of some records, with their documents and tokens, and how many are none."""
    pairs: list[Pair] = []
    documents = tokens = refused = 0
    for item in items:
        if not isinstance(item, Record):
            refused += 1
            continue
        try:
            plan = reranker.plan(item.query)
        except UsageError:
            refused += 1
            continue
        for document in item.documents:
            split = plan.split(document)
            documents += 1
            tokens += split.tokens
            pairs += [Pair(plan.query, chunk) for chunk in split.chunks]
    return pairs, documents, tokens, refused


def measure_rate(scorer: Scorer, pairs: Sequence[Pair]) -> float | None:
    """The pairs a second that a scorer makes here; None where there are too few to tell."""
    if len(pairs) < 2 * _STEP_PAIRS:
        return None
    random.Random(0).shuffle(pairs := list(pairs))  # noqa: S311 - no secret
    if isinstance(scorer, SurveyingScorer):
        scorer = scorer.over(pairs)
    scorer.score(pairs[:_STEP_PAIRS])  # which warms up
    began = time.perf_counter()
    done = _STEP_PAIRS
    while done < len(pairs) and time.perf_counter() - began < _MEASURING_SECONDS:
        step = pairs[done : done + _STEP_PAIRS]
        scorer.score(step)
        done += len(step)
    return (done - _STEP_PAIRS) / (time.perf_counter() - began)


_CLUSTER_CORES = (16, 64, 256)
_DIGITS = 3


def report_plan(options: BatchOptions, terminal: Terminal) -> ExitCode:
    """Sample the input, measure the model, and say what that comes to."""
    with options.open_reranker() as reranker, closing(open_source(options)) as source:
        count, items = source.sample(reranker.info)
        sample = collect_pairs(items, reranker)
        rate = None if reranker.info.remote else measure_rate(reranker.scorer, sample[0])
    pairs, documents, tokens, refused = sample
    scorer = reranker.scorer
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
        lines += _describe_requests(options, scorer, count, tokens * share)
    elif rate is None:
        lines.append("time      too few pairs to measure")
    else:
        cores = options.runtime.threads or machine.core_count()
        each = rate / cores
        lines.append(f"measured  {rate:,.0f} pairs/s on {cores} cores, {each:,.1f} a core")
        lines.append(f"here      {format_duration(total / rate)}")
        clusters = [
            f"{format_duration(total / each / cores)} on {cores} cores" for cores in _CLUSTER_CORES
        ]
        lines.append(f"ray       {', '.join(clusters)} like these")
    terminal.write(f"{line}\n".encode() for line in lines)
    return ExitCode.OK


def _describe_requests(
    options: BatchOptions, scorer: object, records: int, tokens: float
) -> list[str]:
    """What a provider would be sent, and what it asks for that."""
    lines = [f"requests  {records:,} or more, one a record and --concurrency at once"]
    if rpm := options.remote.rpm:
        lines.append(
            f"time      {format_duration(records / rpm * 60)} or more, at {rpm:,} requests a minute"
        )
    if isinstance(scorer, PricedScorer) and (price := scorer.price_of(records, round(tokens))):
        lines.append(f"cost      {price} ({price.source})")
    return lines


def _about(value: float, count: int, items: object) -> str:
    whole = count == len(items) if isinstance(items, list) else False
    if whole:
        return f"{round(value):,}"
    return f"about {float(f'{value:.{_DIGITS}g}'):,.0f}"
