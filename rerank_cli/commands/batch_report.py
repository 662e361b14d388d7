"""What there is to say of a batch when it is over: to a person, and to a program."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from rerank_cli.batch.figures import Figures
from rerank_cli.terminal import counted
from rerank_cli.types import PricedScorer, Scorer, StreamingScorer

if TYPE_CHECKING:
    from rerank_cli.batch.job import Job

_SHARES = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "max": 1.0}
_NOTES = 5


def report_of(job: "Job", scorer: Scorer, asked: Mapping[str, Any], *, done: bool) -> dict[str, Any]:
    """All figures; those of `latency` are seconds a record took, in this run."""
    figures = job.figures
    seconds = max(figures.seconds, 1e-9)
    report = {
        "model": scorer.info.model,
        "done": done,
        "runs": figures.runs,
        "records": figures.records,
        "errors": {"total": figures.failed, "by_code": dict(figures.errors)},
        "documents": figures.documents,
        "empty": figures.empty,
        "pairs": {"scored": figures.pairs, "reused": figures.reused},
        "tokens": figures.tokens,
        "truncated": figures.truncated,
        "missing": figures.missing + job.source.missing,
        "usage": dict(figures.usage),
        "seconds": round(figures.seconds, 3),
        "rates": {
            "records_per_second": round(figures.records / seconds, 3),
            "pairs_per_second": round(figures.pairs / seconds, 3),
            "tokens_per_second": round(figures.tokens / seconds, 3),
        },
        "latency": {name: job.latencies.at(share) for name, share in _SHARES.items()},
        "asked": asked,
    }
    if isinstance(scorer, PricedScorer):
        report["requests"] = scorer.requests
        price = scorer.cost(figures.usage.get("total_tokens", figures.tokens))
        report["cost"] = None if price is None else price._asdict()
    return report


def failed_line(figures: Figures) -> str:
    """How many records failed, and why."""
    codes = ", ".join(f"{code}: {count:,}" for code, count in figures.errors.most_common())
    return f"{counted(figures.failed, 'record')} of {figures.records:,} failed ({codes})"


def cost_of(scorer: Scorer, usage: Mapping[str, int]) -> str:
    """What a provider asks for so far, for a person; empty where nobody knows."""
    if not isinstance(scorer, PricedScorer):
        return ""
    price = scorer.cost(usage.get("total_tokens", 0))
    return "" if price is None else f"about {price.amount:g} {price.currency}"


def remarks_on(job: "Job", scorer: Scorer) -> Iterator[str]:
    """What should be known of what came out, each in a sentence."""
    figures = job.figures
    notes = sorted(figures.notes.items(), key=lambda one: -one[1])
    for note, count in notes[:_NOTES]:
        yield note if count == 1 else f"{note} (of {count:,} records)"
    if len(notes) > _NOTES:
        yield f"and {counted(len(notes) - _NOTES, 'more remark')}: --report FILE has all figures"
    if job.source.missing:
        yield f"{counted(job.source.missing, 'document')} of the run not in the corpus: left out"
    if figures.missing:
        yield f"{counted(figures.missing, 'score')} not given by {scorer.info.model}"
    if figures.truncated:
        yield f"{counted(figures.truncated, 'document')} or queries not scored whole"
    if figures.failed:
        yield failed_line(figures)


def account_of(job: "Job", scorer: Scorer) -> Iterator[str]:
    """What it took, for --verbose."""
    figures = job.figures
    yield (
        f"{counted(figures.records, 'record')}, {counted(figures.pairs, 'pair')} scored, "
        f"{figures.reused:,} reused, {counted(figures.tokens, 'token')} in {figures.seconds:.1f} s"
    )
    if isinstance(scorer, StreamingScorer):
        yield scorer.account()
