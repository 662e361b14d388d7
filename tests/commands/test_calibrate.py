"""`rerank calibrate`: from labels to probabilities, for this model's files and no other's."""

import json
import random
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("ir_measures", reason="needs the extra eval")

from rerank_cli.errors import ConfigError
from rerank_cli.ranking.calibration import Calibration
from rerank_cli.ranking.reranker import Reranker
from rerank_cli.scorers.calibrations import (
    forget_calibrations,
    info_with_calibration,
    read_calibrations,
    write_calibration,
)
from rerank_cli.types import ScorerInfo
from rerank_cli.user_files import calibrations_file
from tests.conftest import MODELS, Run

WORDS = ["soil", "leaf", "water", "worm", "frost", "slug", "seed", "root", "rain", "bed"]
CALIBRATION = Calibration(
    "service/model", 2.0, -1.0, cut=0.07, rule="keeps 95 % of the relevant in set", data="set"
)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A small model whose files a test may change."""
    return Path(shutil.copytree(MODELS / "bert", tmp_path / "model"))


@pytest.fixture
def labels(tmp_path: Path, model: Path) -> Path:
    """Labels that mostly agree with the model: of each query two documents of its best three."""
    generator = random.Random(0)
    path = tmp_path / "garden.jsonl"
    lines = []
    with Reranker(str(model)) as reranker:
        for number in range(60):
            query = f"what of {WORDS[number % len(WORDS)]} {number}"
            documents = [" ".join(generator.sample(WORDS, 4)) for _ in range(6)]
            best = [result.index for result in reranker.rank(query, documents)][:3]
            record = {"query": query, "documents": documents, "relevant": sorted(best[:2])}
            if generator.random() < 0.3:
                record["relevant"] = sorted(best[1:])
            lines.append(json.dumps(record))
    path.write_text("\n".join(lines) + "\n")
    return path


def scores(rerank: Run, model: Path, *more: str) -> tuple[Sequence[int], Sequence[float], str]:
    """The order of three documents, their relevance scores, and what was said."""
    texts = [part for word in WORDS[:3] for part in ("-d", f"All of {word}")]
    outcome = rerank("what of soil", *texts, "-m", str(model), "--json", *more)
    assert outcome.code == 0, outcome.err
    results = json.loads(outcome.out)["results"]
    return (
        [result["index"] for result in results],
        [result["relevance_score"] for result in results],
        outcome.err,
    )


def test_scores_become_probabilities_in_the_same_order(
    rerank: Run, model: Path, labels: Path
) -> None:
    order, before, _ = scores(rerank, model)
    outcome = rerank("calibrate", str(labels), "-m", str(model), "--keep-recall", "0.9")
    assert outcome.code == 0, outcome.err
    assert "360 labels of 60 queries, 120 relevant" in " ".join(outcome.out.split())
    assert "calibrations.toml written" in outcome.err
    same_order, after, _ = scores(rerank, model)
    assert same_order == order
    assert after != before
    assert all(0 <= score <= 1 for score in after)
    (own,) = read_calibrations().values()
    body = json.loads(rerank("water", "-d", "water", "-m", str(model), "--json").out)
    assert body["calibration"] == {
        "data": "garden", "labels": 360, "relevant": 120, "date": own.date,
    }  # fmt: skip


def test_auto_is_the_cut_and_is_said(rerank: Run, model: Path, labels: Path) -> None:
    outcome = rerank("soil", "-d", "soil", "-m", str(model), "--min-score", "auto")
    assert outcome.code == 2
    assert "is not calibrated" in outcome.err
    assert "rerank calibrate LABELS -m" in outcome.err
    batch = rerank("batch", str(labels), "-m", str(model), "--min-score", "auto")
    assert (batch.code, batch.out) == (2, ""), "it is said once, and not for each record"
    assert "is not calibrated" in batch.err
    rerank("calibrate", str(labels), "-m", str(model), "--keep-recall", "0.9")
    (own,) = read_calibrations().values()
    assert own.cut is not None
    _, kept_places, message = scores(rerank, model, "--min-score", "auto")
    assert all(score >= own.cut for score in kept_places)
    assert f"--min-score {own.cut:g}, by calibration: it keeps" in message


def test_a_changed_model_is_not_calibrated_and_that_is_said(
    rerank: Run, model: Path, labels: Path
) -> None:
    _, before, _ = scores(rerank, model)
    rerank("calibrate", str(labels), "-m", str(model))
    tokenizer = model / "tokenizer.json"
    tokenizer.write_text(tokenizer.read_text() + "\n")
    _, after, message = scores(rerank, model)
    assert after == before
    assert "the model has changed since" in message


def test_what_is_calibrated_is_shown_and_forgotten(rerank: Run, model: Path, labels: Path) -> None:
    assert "no model is calibrated" in rerank("calibrate", "--show").err
    rerank("calibrate", str(labels), "-m", str(model))
    shown_outcome = rerank("calibrate", "--show")
    assert str(model) in shown_outcome.out
    assert "garden, 360 labels, 120 relevant" in shown_outcome.out
    (row,) = json.loads(rerank("calibrate", "--show", "--json").out)["calibrations"]
    assert (row["model"], row["labels"]) == (str(model), 360)
    assert rerank("calibrate", "--forget", "-m", str(model)).code == 0
    assert read_calibrations() == {}
    again = rerank("calibrate", "--forget", "-m", str(model))
    assert (again.code, "hint: no model is calibrated" in again.err) == (2, True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "calibrate needs LABELS"),
        (["--show", "labels.jsonl"], "stand alone"),
        (["labels.jsonl", "--keep-recall", "0.9", "--keep-precision", "0.9"], "two cuts"),
        (["labels.jsonl", "--keep-recall", "2"], "not between 0 and 1"),
        (["labels.jsonl", "--keep-recall", "0"], "not between 0 and 1"),
        (["nothing.jsonl"], "no such file"),
        (["labels.jsonl", "-m", "bm25"], "bm25 cannot be calibrated"),
    ],
)
def test_what_makes_no_sense_is_refused(
    rerank: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    record = {"query": "soil", "documents": ["soil", "leaf"], "relevant": [0]}
    Path("labels.jsonl").write_text(json.dumps(record) + "\n")
    outcome = rerank("calibrate", *arguments)
    assert (outcome.code, outcome.out) == (2, "")
    assert message in outcome.err


def test_too_few_labels_write_nothing(rerank: Run, tmp_path: Path) -> None:
    path = tmp_path / "few.jsonl"
    record = {"query": "soil", "documents": ["soil", "leaf"], "relevant": [0]}
    path.write_text(json.dumps(record) + "\n")
    outcome = rerank("calibrate", str(path), "-m", str(MODELS / "bert"))
    assert outcome.code == 2
    assert (
        "too few to calibrate by: 2 labels of 1 query, 1 of them relevant; it takes" in outcome.err
    )
    assert not calibrations_file().exists()


DAMAGED_TEMPERATURE = """
[a]
model = "m"
rule = ""
data = ""
date = ""
queries = 1
labels = 1
relevant = 1
error = 0.1
bias = 0.0
temperature = -1.0
transform = "identity"
"""


class Service:
    """A scorer of a service: its key is its name."""

    info = ScorerInfo("service/model", "", scale="unknown", remote=True)


def test_a_service_of_unknown_scale_has_probabilities() -> None:
    from rerank_cli.scorers.calibrations import model_key

    service = Service()
    key = model_key(service)  # type: ignore[arg-type]
    write_calibration(key, CALIBRATION)
    write_calibration(
        "other", replace(CALIBRATION, model="other/model", points=[(0, 0.1), (2, 0.4)])
    )
    info = info_with_calibration(service)  # type: ignore[arg-type]
    assert info.calibration is not None
    assert info.is_bounded
    assert info.calibration.probability(2.0) == pytest.approx(0.5)
    assert info.calibration.cut == 0.07
    assert read_calibrations()["other"].probability(1.0) == pytest.approx(0.25)
    assert forget_calibrations("service/model") == 1
    assert [*read_calibrations()] == ["other"]


@pytest.mark.parametrize(
    "content",
    [
        "not toml",
        "a = 1",
        "[a]\nmodel = 1",
        DAMAGED_TEMPERATURE,
    ],
)
def test_a_damaged_file_is_named(content: str) -> None:
    calibrations_file().parent.mkdir(parents=True, exist_ok=True)
    calibrations_file().write_text(content)
    with pytest.raises(ConfigError, match=r"calibrations.toml: no calibrations"):
        read_calibrations()
