"""`--plan`: estimates what a job would take, from a sample of its records."""

import random
import time
from collections.abc import Iterable, Sequence
from contextlib import closing
from typing import NamedTuple

from rerank_cli import machine
from rerank_cli.batch.options import BatchOptions
from rerank_cli.batch.records import Item, Record
from rerank_cli.batch.sources import open_source
from rerank_cli.errors import ExitCode, UsageError
from rerank_cli.ranking.reranker import Reranker
from rerank_cli.terminal import Terminal, format_duration
from rerank_cli.types import Pair, PricedScorer, Scorer, SurveyingScorer

_MEASURING_SECONDS = 4.0
_STEP_PAIRS = 64  # that are scored in one call
_CLUSTER_CORES = (16, 64, 256)
_DIGITS = 3  # of an estimate


class _Sample(NamedTuple):
    """What was found in a sample: pairs to score, documents, tokens, and items without results."""

    pairs: list[Pair]
    documents: int
    tokens: int
    refused: int


def report_plan(options: BatchOptions, terminal: Terminal) -> ExitCode:
    """Sample the input, measure the model, and write what the whole job would take."""
    with options.open_reranker() as reranker, closing(open_source(options)) as source:
        count, items = source.sample(reranker.info)
        sample = _examine(items, reranker)
        rate = None if reranker.info.remote else _measure_rate(reranker.scorer, sample.pairs)
    scorer = reranker.scorer
    factor = count / len(items) if items else 0.0

    def estimate(value: float) -> str:
        """The figure of the whole input, for one of the sample."""
        if count == len(items):
            return f"{value:,}"
        return f"about {float(f'{value * factor:.{_DIGITS}g}'):,.0f}"

    lines = [
        f"records   {count:,}",
        f"documents {estimate(sample.documents)}",
        f"pairs     {estimate(len(sample.pairs))}",
        f"tokens    {estimate(sample.tokens)}, the queries not counted",
    ]
    if sample.refused:
        lines.append(f"errors    {estimate(sample.refused)} records are none")
    pairs = len(sample.pairs) * factor
    if scorer.info.remote:
        lines += _describe_requests(options, scorer, count, sample.tokens * factor)
    elif rate is None:
        lines.append("time      too few pairs to measure")
    else:
        cores = options.runtime.threads or machine.core_count()
        core_rate = rate / cores
        lines.append(f"measured  {rate:,.0f} pairs/s on {cores} cores, {core_rate:,.1f} a core")
        lines.append(f"here      {format_duration(pairs / rate)}")
        clusters = [
            f"{format_duration(pairs / core_rate / cores)} on {cores} cores"
            for cores in _CLUSTER_CORES
        ]
        lines.append(f"ray       {', '.join(clusters)} like these")
    terminal.write(f"{line}\n".encode() for line in lines)
    return ExitCode.OK


def _examine(items: Iterable[Item], reranker: Reranker) -> _Sample:
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
    return _Sample(pairs, documents, tokens, refused)


def _measure_rate(scorer: Scorer, pairs: Sequence[Pair]) -> float | None:
    """The pairs that a scorer scores in a second on this machine; None for too few pairs."""
    if len(pairs) < 2 * _STEP_PAIRS:
        return None
    random.Random(0).shuffle(pairs := list(pairs))  # noqa: S311 - no secret
    if isinstance(scorer, SurveyingScorer):
        scorer = scorer.over(pairs)
    scorer.score(pairs[:_STEP_PAIRS])  # to warm up
    began = time.perf_counter()
    done = _STEP_PAIRS
    while done < len(pairs) and time.perf_counter() - began < _MEASURING_SECONDS:
        step = pairs[done : done + _STEP_PAIRS]
        scorer.score(step)
        done += len(step)
    return (done - _STEP_PAIRS) / (time.perf_counter() - began)


def _describe_requests(
    options: BatchOptions, scorer: object, records: int, tokens: float
) -> list[str]:
    """The requests to a provider, their time and their cost."""
    lines = [f"requests  {records:,} or more, one a record and --concurrency at once"]
    if rpm := options.remote.rpm:
        lines.append(
            f"time      {format_duration(records / rpm * 60)} or more, at {rpm:,} requests a minute"
        )
    if isinstance(scorer, PricedScorer) and (price := scorer.price_of(records, round(tokens))):
        lines.append(f"cost      {price} ({price.source})")
    return lines
