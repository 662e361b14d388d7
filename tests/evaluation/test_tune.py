"""`rerank tune`: chooses on one half of the queries, measures on the other, and says so."""

import json
import random
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("ir_measures", reason="needs the extra eval")

import numpy as np

from rerank_cli.evaluation.statistics import difference
from rerank_cli.evaluation.tune import MIN_QUERIES, Loss, TunedSetting, Tuning, describe, loss_of
from rerank_cli.user_files import config_file
from tests.conftest import MODELS, Run
from tests.support.batches import write

SMALL = str(MODELS / "bert")
WORDS = ["soil", "leaf", "water", "worm", "frost", "slug", "seed", "root"]


def make_set(to: Path, *, queries: int = 40, documents: int = 30) -> str:
    """Queries whose right document is the only one of several passages' length."""
    draw = random.Random(0)
    rows = []
    for number in range(queries):
        texts = [" ".join(draw.choices(WORDS, k=4)) for _ in range(documents)]
        rows.append(
            {"query": draw.choice(WORDS), "documents": texts, "relevant": [number % documents]}
        )
    return str(write(to / "set.jsonl", rows))


def loss(ours: list[float], theirs: list[float], allowed: float = 0.5) -> Loss:
    gains = [np.subtract(ours, theirs)]
    return loss_of(difference(ours, theirs), gains, allowed)


def make_tuning(loss_found: Loss, *, chosen: bool = True, check: Loss | None = None) -> Tuning:
    def trial(own: Loss) -> TunedSetting:
        return TunedSetting("50 passages by words", {"candidates": 50}, 0.8, 0.1, 50, own)

    full = {"measure": 0.8, "seconds": 1.0, "read": 300.0}
    return Tuning(
        "mini@3", "nDCG@10", 0.5, [trial(loss_found)], full,
        trial(loss_found) if chosen else None, None if check is None else trial(check), full,
    )  # fmt: skip


def words_of(tuning: Tuning) -> str:
    return b" ".join(describe(tuning, 80)).decode().replace("\n", " ")


def test_a_loss_is_in_points_and_positive_where_something_is_lost() -> None:
    loss_found = loss([0.5, 0.7, 0.9] * 10, [0.6, 0.8, 0.9] * 10)
    assert loss_found.mean == pytest.approx(100 * 0.2 / 3)
    assert loss_found.low < loss_found.mean < loss_found.high
    assert (loss_found.queries, loss_found.changed) == (30, 20)
    assert loss_found.queries_needed is None  # it is larger than what is allowed
    assert str(loss_found).startswith("lost 6.67 points")
    assert str(loss([0.9], [0.5])).startswith("gained 40.00 points")


def test_the_queries_needed_grow_with_the_spread_and_shrink_with_the_room() -> None:
    even = [0.5] * 50
    few = loss([0.5, 0.5, 0.5, 0.5, 0.49] * 10, even).queries_needed
    query_count = loss([0.7, 0.3, 0.5, 0.5, 0.49] * 10, even).queries_needed
    assert few is not None
    assert query_count is not None
    assert MIN_QUERIES <= few < query_count
    wide = loss([0.7, 0.3, 0.5, 0.5, 0.49] * 10, even, allowed=2.0).queries_needed
    assert wide is not None
    assert wide < query_count


def test_what_was_found_is_said_in_words() -> None:
    none = loss([0.5] * 30, [0.5] * 30)
    wide = loss([0.6, 0.4] * 15, [0.5] * 30)
    large = loss([0.4] * 30, [0.5] * 30)
    text = words_of(make_tuning(none, check=none))
    assert "Chosen on 30 queries: 50 passages by words" in text
    assert "On the other 30 queries, which had no part in the choice, it lost 0.00 points" in text
    assert "10.0 times as fast" in text
    assert "up to 10% of all queries may have some" in text
    assert "So it holds: the loss is below 0.5 points of nDCG@10." in text
    text = words_of(make_tuning(none, check=wide))
    assert "So whether it loses less than 0.5 points of nDCG@10 cannot be told." in text
    assert "queries would decide it, in two halves" in text
    text = words_of(make_tuning(large, chosen=False))
    assert "No setting is sure to lose less than 0.5 points" in text
    assert "More queries would not help" in text
    text = words_of(make_tuning(none, chosen=False))  # each that loses nothing takes as long
    assert text.endswith("It is no faster than all passages: more queries would not help. ")


@pytest.fixture
def measured_queries(monkeypatch: pytest.MonkeyPatch) -> list[frozenset[str]]:
    """The queries of each job, in order; a setting that reads less is faster and loses nothing."""
    from rerank_cli.evaluation import tune
    from rerank_cli.evaluation.labels import QueryScores
    from rerank_cli.evaluation.run import EvalJob

    query_sets: list[frozenset[str]] = []

    def score_all(jobs: list[EvalJob], _terminal: object) -> None:
        for job in jobs:
            query_sets.append(frozenset(job.task.queries))
            count = job.system.selection.candidates
            read_count = count if isinstance(count, int) else 30
            for query, candidates in job.task.candidates.items():
                names = [candidate.id for candidate in candidates]
                relevant = max(job.task.qrels[query], key=lambda name: job.task.qrels[query][name])
                scores = {name: float(name == relevant) for name in names}
                ones = dict.fromkeys(names, 1)
                own = QueryScores(
                    scores, ones, ones, seconds=read_count / 100, read=read_count, total=30
                )
                job._journal.scores[query] = own

    monkeypatch.setattr(tune, "run_jobs", score_all)
    return query_sets


def test_one_half_chooses_and_the_other_measures(
    measured_queries: list[frozenset[str]], rerank: Run, tmp_path: Path
) -> None:
    outcome = rerank("tune", make_set(tmp_path), "-m", SMALL, "--json")
    assert outcome.code == 0, outcome.err
    content: dict[str, Any] = json.loads(outcome.out)
    assert [trial["preset"] for trial in content["trials"]] == [
        {"candidates": 20, "first-stage": stage} for stage in ("hybrid", "bm25", "input")
    ]
    assert content["confirmed"] is True
    assert content["check"]["loss"]["mean"] == 0
    assert content["check"]["loss"]["queries"] == 20
    first, second, *trials, check = measured_queries
    assert not first & second
    assert len(first | second) == 40
    assert set(trials) == {first}  # no setting was tried on the queries that measure it
    assert check == second
    settings = {"model": SMALL, "candidates": 20, "first-stage": "hybrid"}
    assert content["preset"] == {"name": "tuned", "settings": settings}
    assert rerank("config", "get", "preset.tuned.candidates").out == "20\n"


@pytest.mark.usefixtures("measured_queries")
def test_a_preset_is_written_once_it_holds(rerank: Run, tmp_path: Path) -> None:
    source = make_set(tmp_path)
    outcome = rerank("tune", source, "-m", SMALL, "--dry-run")
    assert "As a preset: model = " in outcome.out
    assert not config_file().exists()
    outcome = rerank("tune", source, "-m", SMALL, "--name", "fast")
    assert f"Written to {config_file()} as the preset fast" in outcome.out
    assert "rerank --preset fast QUERY FILE" in outcome.out
    lines = tmp_path / "lines.txt"
    lines.write_text("".join(f"soil {number}\n" for number in range(50)))
    body = json.loads(rerank("soil", str(lines), "--preset", "fast", "--json").out)
    assert body["candidates"]["read"] == 20
    outcome = rerank("tune", source, "-m", SMALL, "--name", "fast")
    assert "the preset fast that was there is replaced" in outcome.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--max-loss", "0"), "--max-loss 0: a loss of more than 0 points"),
        (("-m", "bm25"), "bm25 always reads all"),
        (("-m", "mini@3 --max-chunks 1"), "tune itself tries options of a model"),
        (("--name", "a b"), "'a b' is no name of a preset"),
        (("--depth", "5,6"), "--depth 5,6: one number, or all"),
        (("--sample", "30"), "too few to decide anything: 30 queries"),
    ],
)
def test_what_is_wrong_is_said(
    arguments: tuple[str, ...], message: str, rerank: Run, tmp_path: Path
) -> None:
    model = () if "-m" in arguments else ("-m", SMALL)
    outcome = rerank("tune", make_set(tmp_path), *model, *arguments)
    assert (outcome.code, message in outcome.err) == (2, True), outcome.err
    assert not config_file().exists()


def test_a_dataset_is_needed_and_the_word_can_be_searched_for(rerank: Run) -> None:
    outcome = rerank("tune")
    assert (outcome.code, "tune needs a DATASET" in outcome.err) == (2, True)
    assert "rerank -q tune" in outcome.err


@pytest.mark.parametrize("command", ["tune", "eval"])
def test_a_missing_extra_is_not_told_as_that_of_another_command(
    command: str, tmp_path: Path, rerank: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ir_measures", None)
    outcome = rerank(command, make_set(tmp_path, queries=2), "-m", SMALL)
    assert outcome.code == 2
    assert outcome.err.startswith(
        "rerank: evaluation needs the extra eval, and it is not installed\n"
    )
