"""`--plan`: estimates what a job would take, from a sample of its records."""

import random
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace

from rerank_cli import machine
from rerank_cli.batch.flow import problem_of, selection_of
from rerank_cli.batch.options import BatchOptions
from rerank_cli.batch.records import BadRecord, BlankLine, Item
from rerank_cli.batch.sources import open_source
from rerank_cli.costs import Price
from rerank_cli.errors import ExitCode, UsageError
from rerank_cli.ranking import CandidateRule, Selection
from rerank_cli.ranking.cascade import Cascade, Ranker, rerankers_of
from rerank_cli.ranking.powers import PricedScorer, SurveyingScorer
from rerank_cli.ranking.reranker import Reranker
from rerank_cli.terminal import Terminal, format_count, format_duration
from rerank_cli.types import Pair, Scorer

_MEASURING_SECONDS = 4.0
_STEP_PAIRS = 64  # the pairs of one call of the scorer
_CLUSTER_CORES = (16, 64, 256)
_DIGITS = 3  # of an estimate


class _Sample:
    """The part of a sample that one model would read.

    A later model of a cascade reads `keep` documents of each record. Any documents stand for those
    that the model before it would choose.

    batches             the pairs to score, of each record
    cached_pairs        the number of other pairs, whose scores are in the cache
    passages            the number of all passages; more than the pairs if only some passages are
                        read
    is_estimate         whether `passages` is an estimate
    choosing_seconds    the time that their choice took
    records, documents  their numbers; blank lines are not records
    tokens              the tokens of all documents
    cut                 the documents and queries that would not be scored whole
    errors              records that would fail, by their code
    notes               the notes that the job would print, with the number of records
    """

    def __init__(self, reranker: Reranker, keep: int | None = None) -> None:
        self.reranker = reranker
        self._keep = keep
        self._draw = random.Random(0)  # noqa: S311 - no secret
        self.batches: list[list[Pair]] = []
        self.records = self.documents = self.tokens = self.cut = self.cached_pairs = (
            self.passages
        ) = 0
        self.is_estimate = False
        self.choosing_seconds = 0.0
        self.errors: Counter[str] = Counter()
        self.notes: Counter[str] = Counter()

    def see(self, item: Item, selection: Selection) -> None:
        """Take an item of the input."""
        reranker = self.reranker
        if isinstance(item, BlankLine):
            return
        self.records += 1
        if isinstance(item, BadRecord):
            self.errors[item.problem.code] += 1
            return
        try:
            plan = reranker.plan(item.query)
        except UsageError as error:
            self.errors[problem_of(error).code] += 1
            return
        notes = dict.fromkeys(plan.notes)
        self.cut += plan.query != item.query
        start = time.perf_counter()
        documents = item.documents
        if self._keep is not None:
            documents = self._draw.sample(documents, min(self._keep, len(documents)))
        choice = reranker.choose(plan, documents, selection_of(item, selection))
        if choice is not None:
            self.choosing_seconds += time.perf_counter() - start
        pairs: list[Pair] = []
        for split in map(plan.split, documents) if choice is None else choice.splits:
            self.tokens += split.tokens
            self.cut += split.dropped > 0
            pairs += [Pair(plan.query, chunk) for chunk in split.chunks]
            notes.update(dict.fromkeys(split.notes))
        candidates = None if choice is None else choice.candidates
        self.passages += len(pairs) if candidates is None else candidates.total
        self.is_estimate = self.is_estimate or (candidates is not None and candidates.is_estimate)
        self.documents += len(documents)
        self.batches.append(pairs)
        self.notes.update(notes.keys())

    def describe_cached_pairs(self, estimate: Callable[[float], str]) -> str:
        """Words on the scores that are in the cache; empty for none."""
        return (
            f", and {estimate(self.cached_pairs)} more are in the cache"
            if self.cached_pairs
            else ""
        )

    def describe_unread_passages(self, estimate: Callable[[float], str]) -> str:
        """Words on the number of passages, if the model reads only some; else empty."""
        if self.passages == len(self.pairs) + self.cached_pairs:
            return ""
        total = estimate(self.passages)
        about = "about " if self.is_estimate and not total.startswith("about") else ""
        return f", as the model reads these of {about}{total} passages"

    @property
    def pairs(self) -> list[Pair]:
        """The pairs of all records."""
        return [pair for batch in self.batches for pair in batch]


def report_plan(options: BatchOptions, terminal: Terminal) -> ExitCode:
    """Sample the input, measure the models, and write what the whole job would take.

    Messages and exit code are those of a job over the sample.
    """
    with options.open_ranker() as ranker, closing(open_source(options)) as source:
        count, items = source.sample(ranker.info)
        samples = list(_look_at(items, ranker, options.selection))
        scorers = [_remove_cached_pairs(sample.reranker.scorer, sample) for sample in samples]
        rates = [
            None if scorer.info.remote else _measure_rate(scorer, sample.pairs)
            for scorer, sample in zip(scorers, samples, strict=True)
        ]
    factor = count / len(items) if items else 0.0

    def estimate(value: float) -> str:
        """Estimate a figure of the whole input from that of the sample."""
        if count == len(items):
            return f"{value:,}"
        return f"about {float(f'{value * factor:.{_DIGITS}g}'):,.0f}"

    first = samples[0]
    records = f"{count:,}" if first.records == len(items) else estimate(first.records)
    lines = [f"records   {records}", f"documents {estimate(first.documents)}"]
    failures = first.errors.total()
    for sample, scorer, rate in zip(samples, scorers, rates, strict=True):
        if len(samples) > 1:
            documents = f", which reads {_count_words(estimate(sample.documents), 'document')}"
            lines += ["", f"model     {scorer.info.model}{documents}"]
        of_pairs = sample.describe_cached_pairs(estimate) + sample.describe_unread_passages(
            estimate
        )
        lines.append(f"pairs     {estimate(len(sample.pairs))}{of_pairs}")
        lines.append(f"tokens    {estimate(sample.tokens)}, the queries not counted")
        if failures and sample is first:
            lines.append(f"errors    {_count_words(estimate(failures), 'record')}")
        if isinstance(scorer, PricedScorer):
            requests, price = scorer.estimate(sample.batches)
            lines.append(f"requests  {estimate(requests)}, --concurrency at once")
            lines += _describe_cost(requests * factor, options.remote.rpm, price, factor)
        else:
            times = _describe_time(sample, rate, factor, options.runtime.threads)
            lines += times if len(samples) == 1 else times[:2]  # Ray runs one model
    terminal.write(f"{line}\n".encode() for line in lines)
    for note, number in first.notes.items():
        terminal.warn(note if number == 1 else f"{note} (of {estimate(number)} records)")
    if cut := max(sample.cut for sample in samples):
        terminal.warn(f"would not be scored whole: {estimate(cut)} of the documents and queries")
    if failures:
        codes = ", ".join(f"{code}: {estimate(number)}" for code, number in first.errors.items())
        terminal.warn(
            f"{_count_words(estimate(failures), 'record')} of {records} would fail ({codes})"
        )
        return ExitCode.SCORER
    return ExitCode.TRUNCATED if options.strict and cut else ExitCode.OK


def _count_words(number: str, noun: str) -> str:
    """An estimate as a number of things."""
    return f"{number} {noun}{'' if number == '1' else 's'}"


def _look_at(items: Sequence[Item], ranker: Ranker, selection: Selection) -> Iterator[_Sample]:
    """The parts of a sample that each model would read."""
    keep: Sequence[int] = ()
    if isinstance(ranker, Cascade):
        keep = ranker.keep
    for reranker, count in zip(rerankers_of(ranker), [None, *keep], strict=True):
        sample = _Sample(reranker, count)
        most = ranker.max_candidates(selection) if count is None else None
        own = replace(selection, candidates=most or CandidateRule.ALL)
        for item in items:
            sample.see(item, own if keep else selection)
        yield sample


def _describe_time(
    sample: _Sample, rate: float | None, factor: float, threads: int | None
) -> list[str]:
    """How long a model of this machine takes for `factor` times a sample."""
    if rate is None:
        return ["time      too few pairs to measure"]
    cores = threads or machine.core_count()
    core_rate = rate / cores
    core_seconds = sample.choosing_seconds * factor + len(sample.pairs) * factor / core_rate
    clusters = [
        f"{format_duration(core_seconds / cores)} on {cores} cores" for cores in _CLUSTER_CORES
    ]
    return [
        f"measured  {rate:,.0f} pairs/s on {format_count(cores, 'core')}, {core_rate:,.1f} a core",
        f"here      {format_duration(core_seconds / cores)}",
        f"ray       {', '.join(clusters)} like these",
    ]


def _remove_cached_pairs(scorer: Scorer, sample: _Sample) -> Scorer:
    """Remove the pairs whose scores are known from a sample; return the scorer without its cache.

    Only the other pairs take time, and have a price.
    """
    from rerank_cli.scorers.cached import CachedScorer  # few runs need it

    if not isinstance(scorer, CachedScorer):
        return scorer
    pairs = len(sample.pairs)
    sample.batches = [scorer.find_missing_pairs(batch) for batch in sample.batches]
    sample.cached_pairs = pairs - len(sample.pairs)
    return scorer.scorer


def _measure_rate(scorer: Scorer, pairs: Sequence[Pair]) -> float | None:
    """The pairs that a scorer scores in a second on this machine; None for too few pairs."""
    if len(pairs) < 2 * _STEP_PAIRS:
        return None
    random.Random(0).shuffle(pairs := list(pairs))  # noqa: S311 - no secret
    if isinstance(scorer, SurveyingScorer):
        scorer = scorer.over(pairs)
    scorer.score(pairs[:_STEP_PAIRS])  # to warm up
    start = time.perf_counter()
    pair_count = _STEP_PAIRS
    while pair_count < len(pairs) and time.perf_counter() - start < _MEASURING_SECONDS:
        step = pairs[pair_count : pair_count + _STEP_PAIRS]
        scorer.score(step)
        pair_count += len(step)
    return (pair_count - _STEP_PAIRS) / (time.perf_counter() - start)


def _describe_cost(
    requests: float, rpm: int | None, price: Price | None, factor: float
) -> Iterator[str]:
    """The time that requests take at `rpm` a minute, and `factor` times a price."""
    if rpm:
        span = format_duration(requests / rpm * 60)
        yield f"time      {span} or more, at {format_count(rpm, 'request')} a minute"
    if price is not None:
        whole = price._replace(amount=price.amount * factor)
        yield f"cost      {whole} ({price.source}; prices change)"
