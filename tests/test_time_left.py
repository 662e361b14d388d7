"""The time left: within a factor of 1.5 of the truth, whatever the order of lengths."""

import json
import math
import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from rerank_cli import Reranker, progress
from rerank_cli.batch import job as job_module
from rerank_cli.batch import report
from rerank_cli.batch.flow import Bounds, Flow
from rerank_cli.batch.job import BatchJob
from rerank_cli.batch.records import Outcome, RecordFields
from rerank_cli.batch.sources import JsonLinesSource
from rerank_cli.commands.rank import RankRequest, _ranking_state
from rerank_cli.inputs.documents import Inputs
from rerank_cli.progress import Progress, RankingState
from rerank_cli.providers import OnError
from rerank_cli.providers.client import RateLimiter
from rerank_cli.ranking import Selection
from rerank_cli.types import Pair, Scored
from tests.support.fakes import OverlapScorer, words_info
from tests.test_progress import Clock

FACTOR, FIRST_SHARE, LAST_SHARE = 1.5, 0.05, 0.02
WORDS = ("soil", "leaf", "water", "worm", "slug", "lettuce", "garden", "eats", "night")
DOCUMENTS = 2500

Length = Callable[[float, random.Random], int]
# The words of a document, by its place among all, 0 to 1.
SHAPES: dict[str, Length] = {
    "equal": lambda _place, _draw: 20,
    "growing": lambda place, _draw: 2 + int(150 * place),
    "shrinking": lambda place, _draw: 152 - int(150 * place),
    "mixed": lambda _place, draw: draw.choice((2, 5, 20, 100, 400)),
    "short first": lambda place, _draw: 3 if place < 0.8 else 200,
    "long first": lambda place, _draw: 200 if place < 0.2 else 3,
    "long in the middle": lambda place, _draw: 150 if 0.4 < place < 0.6 else 3,
    "a few giants": lambda place, _draw: 20_000 if place > 0.999 else 4,
}


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    for module in (progress, report, job_module):
        monkeypatch.setattr(module, "time", clock)
    return clock


SOME_SHAPES = [
    pytest.param(name, marks=[] if name in ("short first", "a few giants") else pytest.mark.slow)
    for name in SHAPES
]


def write(path: Path, length: Length) -> Path:
    draw = random.Random(0)
    lines = (
        f"{number} {' '.join(draw.choices(WORDS, k=length(number / DOCUMENTS, draw)))}\n"
        for number in range(DOCUMENTS)
    )
    path.write_text("".join(lines))
    return path


class TimedScorer(OverlapScorer):
    """A scorer for which time passes: so much for a pair and for each token of it.

    A pair of the models that were measured takes what 20 to 25 tokens take, beside its own.
    """

    def __init__(self, clock: Clock, pair_seconds: float, token_seconds: float) -> None:
        super().__init__(words_info(60), score=lambda _query, _text: 0.0)
        self._clock = clock
        self._seconds = pair_seconds, token_seconds

    def score(self, pairs: Sequence[Pair], keep: int | None = None) -> Scored:
        tokens = sum(pair.chunk.tokens + 3 for pair in pairs)
        self._clock.now += self._seconds[0] * len(pairs) + self._seconds[1] * tokens
        return super().score(pairs, keep)


def times_left(
    clock: Clock, scorer: OverlapScorer, inputs: Inputs
) -> Iterator[tuple[float, float | None]]:
    """When how much was said to be left."""
    inputs.check()
    request = RankRequest("slug lettuce", Selection(), None, OnError.FAIL, None)
    with Reranker(scorer) as reranker:
        state: RankingState = _ranking_state(request, inputs, reranker)
        estimates: list[tuple[float, float | None]] = []

        def watch(progress_state: Progress) -> None:
            state.see(progress_state)
            estimates.append((clock.now, state.describe().seconds_left))

        reranker.submit("slug lettuce", inputs, watch=watch).result()
    yield from estimates


def check(estimates: Sequence[tuple[float, float | None]], start: float, end: float) -> None:
    """But for the first 5 % and the last batch, whose documents are scored in one step here."""
    line_count = 0
    for now, left in estimates:
        truth, whole = end - now, end - start
        if now - start >= FIRST_SHARE * whole and truth > LAST_SHARE * whole:
            assert left is not None
            assert truth / FACTOR <= left <= truth * FACTOR
            line_count += 1
    assert line_count > 10


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [(0.015, 0.001), (0.024, 0.001)], ids=["less", "more"])
@pytest.mark.parametrize("shape", SOME_SHAPES)
def test_of_lines_of_any_lengths(
    shape: str,
    seconds: tuple[float, float],
    tmp_path: Path,
    clock: Clock,
) -> None:
    path = write(tmp_path / "many.txt", SHAPES[shape])
    start = clock.now
    estimates = [*times_left(clock, TimedScorer(clock, *seconds), Inputs(paths=[str(path)]))]
    check(estimates, start, clock.now)


@pytest.mark.slow
def test_of_files_of_any_sizes(tmp_path: Path, clock: Clock) -> None:
    draw = random.Random(0)
    for number in range(1500):
        length = 3 if number < 1000 else 10_000 if number == 1200 else 100
        (tmp_path / f"{number:04}.md").write_text(
            f"{number} {' '.join(draw.choices(WORDS, k=length))}"
        )
    start = clock.now
    inputs = Inputs(paths=[str(tmp_path)], recursive=True)
    check([*times_left(clock, TimedScorer(clock, 0.02, 0.001), inputs)], start, clock.now)


class NullWriter:
    """Takes outcomes."""

    tail = ""

    def add(self, outcome: Outcome) -> None: ...

    def mark(self, *, synced: bool = False, final: bool = False) -> int | None: ...

    def close(self) -> None: ...


@pytest.mark.slow
@pytest.mark.parametrize("shape", SOME_SHAPES)
def test_of_records_with_documents_of_any_lengths(shape: str, tmp_path: Path, clock: Clock) -> None:
    lines = write(tmp_path / "many.txt", SHAPES[shape]).read_text().splitlines()
    with (tmp_path / "in.jsonl").open("w") as stream:
        for start in range(0, len(lines), 10):
            row = {"query": "slug lettuce", "documents": lines[start : start + 10]}
            stream.write(json.dumps(row) + "\n")
    reranker = Reranker(TimedScorer(clock, 0.02, 0.001))
    source = JsonLinesSource(str(tmp_path / "in.jsonl"), RecordFields(), 1 << 30)
    job = BatchJob(source, Flow(reranker, Selection(), Bounds()), NullWriter())
    pace, estimates = report.Pace(job), list[tuple[float, float | None]]()

    def watch() -> None:
        pace.see()
        estimates.append((clock.now, pace.describe().seconds_left))

    start_time = clock.now
    job.run(watch=watch)
    check(estimates, start_time, clock.now)


def test_of_a_service_with_a_limit_of_requests_the_limit_counts(clock: Clock) -> None:
    """Sixty requests a minute go at once, and then none for a minute."""
    estimates, start = list[tuple[float, float | None]](), clock.now

    def sleep(seconds: float) -> None:
        for _ in range(int(seconds)):
            clock.now += 1
            estimates.append((clock.now, state.describe().seconds_left))
        clock.now += seconds % 1

    limiter = RateLimiter(60, clock=clock.monotonic, sleep=sleep)

    class LimitedScorer:
        def limit_seconds(self, share: float, seconds: float, *, is_read: bool) -> float:
            return limiter.limit_seconds(300 * (1 - share), 0, seconds)

    state = RankingState(lambda: 1.0, scorer=LimitedScorer())
    for number in range(300):
        assert limiter.wait_until(math.inf)
        clock.now += 0.02
        state.see(Progress(number, number, 300, work=number + 1, read_work=300))
    check(estimates, start, clock.now)
