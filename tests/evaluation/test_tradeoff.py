"""`rerank eval --candidates`: quality against seconds, with the loss against all passages."""

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("ir_measures", reason="needs the extra eval")

from rerank_cli.errors import UsageError
from rerank_cli.evaluation.datasets import ALL_DOCUMENTS, Collection, task_of
from rerank_cli.evaluation.run import EvalJob, System, SystemJobs, read_candidates, read_system
from rerank_cli.evaluation.tradeoff import curves_of, expand, read_variants
from rerank_cli.ranking import MIN_AUTO_CANDIDATES, CandidateRule, ChunkOptions, Selection
from rerank_cli.ranking.reranker import Reranker
from rerank_cli.runtimes import RuntimeOptions
from rerank_cli.types import Document
from tests.conftest import MODELS, Run
from tests.support.fakes import OverlapScorer

SMALL = str(MODELS / "bert")
WORDS = ["soil", "leaf", "water", "worm", "frost", "slug", "seed", "root"]


def make_folder(to: Path, *, documents: int = 12) -> Path:
    """A BEIR folder with a query for each word; the right document has the word twice."""
    (to / "qrels").mkdir(parents=True)
    texts = [f"The {word} and the {word} in the garden" for word in WORDS]
    texts += [f"Nothing of note, number {number}" for number in range(documents - len(WORDS))]
    rows = [json.dumps({"_id": f"d{n}", "text": text}) for n, text in enumerate(texts)]
    (to / "corpus.jsonl").write_text("\n".join(rows))
    rows = [json.dumps({"_id": f"q{n}", "text": f"of {word}"}) for n, word in enumerate(WORDS)]
    (to / "queries.jsonl").write_text("\n".join(rows))
    grades = [f"q{number}\td{number}\t1" for number in range(len(WORDS))]
    (to / "qrels" / "test.tsv").write_text("\n".join(["query\tdocument\tgrade", *grades]))
    return to


def evaluate(rerank: Run, *arguments: str) -> dict[str, Any]:
    outcome = rerank("eval", *arguments, "--json")
    assert outcome.code == 0, outcome.err
    content: dict[str, Any] = json.loads(outcome.out)
    return content


def test_each_number_is_a_system_that_is_compared_with_all(tmp_path: Path, rerank: Run) -> None:
    folder = str(make_folder(tmp_path / "garden"))
    stage = ("--first-stage", "bm25")
    content = evaluate(rerank, folder, "-m", SMALL, "--candidates", "1,5,all", *stage)
    names = [f"{SMALL} --candidates 1", f"{SMALL} --candidates 5", SMALL]
    (figures,) = content["sets"]
    assert figures["depth"] == "all"
    assert figures["candidates"] == 8 * 12  # of a query those without a word of it too
    assert [row["system"] for row in figures["systems"]] == ["bm25", *names, "oracle"]
    (curve,) = content["tradeoff"]
    assert (curve["set"], curve["system"], curve["reference"]) == ("garden", SMALL, "all")
    points = curve["settings"]
    assert [point["system"] for point in points] == names
    assert [point["candidates"] for point in points] == [1, 5, "all"]
    assert [point["read_per_query"] for point in points] == [1, 5, 12]
    assert [point["passages_per_query"] for point in points] == [12, 12, 12]
    assert points[0]["recall_of_top_10"] == pytest.approx(0.1, abs=0.1)
    assert points[2]["recall_of_top_10"] is None
    assert "change" not in points[2]["measures"]["nDCG@10"]
    whole = points[2]["measures"]["nDCG@10"]["mean"]
    for point in points[:2]:
        figure = point["measures"]["nDCG@10"]
        assert figure["change"]["mean"] == pytest.approx(figure["mean"] - whole)
        assert figure["change"]["low"] <= figure["change"]["mean"] <= figure["change"]["high"]
        assert point["seconds_per_query"] > 0


def test_a_table_has_what_there_is_room_for(tmp_path: Path, rerank: Run) -> None:
    folder = str(make_folder(tmp_path / "garden"))
    outcome = rerank("eval", folder, "-m", SMALL, "--candidates", "5,all")
    lines = outcome.out.splitlines()
    assert max(map(len, lines)) <= 80
    heads = next(line for line in lines if line.startswith("candidates"))
    assert heads.split() == [
        "candidates", "nDCG@10", "s", "change", "95", "%", "interval", "top", "10", "read"
    ]  # fmt: skip
    assert "change: of nDCG@10, against all." in " ".join(lines)
    assert f"{SMALL} --candidates 5" not in outcome.out  # it has no verdict over the first order


def test_without_all_the_largest_number_is_what_the_others_are_compared_with(
    tmp_path: Path, rerank: Run
) -> None:
    folder = str(make_folder(tmp_path / "garden"))
    outcome = rerank("eval", folder, "-m", SMALL, "--candidates", "2,4")
    assert "against 4." in outcome.out
    assert "seen with --candidates all" in " ".join(outcome.out.split())


def test_settings_are_read() -> None:
    settings = read_variants("all,200,50,200", "bm25,input")
    assert [setting.name for setting in settings] == [
        "50 by bm25", "50 by input", "200 by bm25", "200 by input", "all",
    ]  # fmt: skip
    assert settings[1].selection == Selection(candidates=50, first_stage="input")
    assert [setting.options for setting in settings][3:] == [
        "--candidates 200 --first-stage input", ""
    ]  # fmt: skip
    assert read_candidates("auto") == MIN_AUTO_CANDIDATES
    for text in ("0", "-1", "many", "", "²", "1.5", "9" * 30):
        with pytest.raises(UsageError, match="--candidates"):
            read_candidates(text)
    with pytest.raises(UsageError, match="first stage"):
        read_variants("5", "bm26")


def test_limits_of_time_come_between_numbers_and_all() -> None:
    times = {"2s": 2.0, "500ms": 0.5}
    settings = read_variants("all,50", "hybrid,input", times)
    assert [setting.name for setting in settings] == [
        "50 by hybrid", "50 by input", "500ms by hybrid", "500ms by input", "2s by hybrid",
        "2s by input", "all",
    ]  # fmt: skip
    assert [setting.max_time for setting in settings] == [None, None, 0.5, 0.5, 2, 2, None]
    assert settings[3].selection == Selection(first_stage="input")
    system = read_system("mini@3", RuntimeOptions(), ChunkOptions())
    short, long = expand(system, read_variants("", max_times=times))
    assert (short.name, short.setting, short.base) == ("mini@3 --max-time 500ms", "500ms", "mini@3")
    assert (short.reads_all, long.max_time) == (False, 2.0)


def test_quality_by_time_is_a_curve(tmp_path: Path, rerank: Run) -> None:
    folder = str(make_folder(tmp_path / "garden"))
    arguments = ("-m", SMALL, "--first-stage", "bm25", "--max-time", "1m,1us")
    outcome = rerank("eval", folder, *arguments)
    assert (outcome.code, "1us" in outcome.err) == (2, True)
    content = evaluate(rerank, folder, *arguments[:-1], "1m", "--candidates", "5,all")
    (curve,) = content["tradeoff"]
    points = curve["settings"]
    assert [point["max_time"] for point in points] == [None, 60.0, None]
    assert [point["read_per_query"] for point in points] == [5, 12, 12]  # a minute is enough
    assert points[1]["measures"]["nDCG@10"]["change"]["mean"] == 0
    outcome = rerank("eval", folder, *arguments[:-1], "1m", "--candidates", "5")
    assert next(line for line in outcome.out.splitlines() if line.startswith("limit")), outcome.out


def test_a_query_without_time_keeps_its_first_order(tmp_path: Path) -> None:
    task = task_of(make_collection(), ALL_DOCUMENTS, None, 0)
    system = System("words", "words", RuntimeOptions(), ChunkOptions(), max_time=1e-9)
    job = EvalJob(task, system, Reranker(OverlapScorer()), tmp_path)
    list(job.run())
    assert [query_scores.scores for query_scores in job.scores.values()] == [{}] * 4
    notes = {note for query_scores in job.scores.values() for note in query_scores.notes}
    assert "query q0 of small was left in its first order: time was over before" in str(notes)
    job.close()
    unlimited = System("words", "words", RuntimeOptions(), ChunkOptions())
    assert EvalJob(task, unlimited, Reranker(OverlapScorer()), tmp_path).resumed == 0


def test_what_scores_lists_keeps_to_no_limit_of_time() -> None:
    system = System("bm25", "bm25", RuntimeOptions(), ChunkOptions(), max_time=1.0)
    with Reranker("bm25") as reranker, pytest.raises(UsageError, match="limit of time"):
        system.check_limit(reranker)


def test_a_model_with_candidates_of_its_own_and_bm25_stay_themselves() -> None:
    settings = read_variants("5,all")

    def names(text: str) -> list[str]:
        system = read_system(text, RuntimeOptions(), ChunkOptions())
        return [each.name for each in expand(system, settings)]

    assert names("mini@3") == ["mini@3 --candidates 5", "mini@3"]
    assert names("bm25") == ["bm25"]
    assert names("mini@3 --candidates 7 --first-stage bm25") == [
        "mini@3 --candidates 7 --first-stage bm25"
    ]
    own = read_system("mini@3 --candidates 7 --first-stage bm25", RuntimeOptions(), ChunkOptions())
    assert own.selection == Selection(candidates=7, first_stage="bm25")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--candidates", "some"), "--candidates some: neither a whole number"),
        (("--candidates", "5", "--first-stage", "x"), "no first stage is called 'x'"),
        (("--depth", "5,some"), "--depth 5,some: neither a number nor all"),
        (("--candidates", "5", "--compare", "bm25", SMALL), "--candidates makes several of each"),
        (("--max-time", "5s", "--compare", "bm25", SMALL), "--max-time makes several of each"),
        (("--max-time", "5s,soon"), "--max-time: 'soon' is not a duration"),
        (("--max-time", "5s", "--cache"), "--cache spares it the reading"),
    ],
)
def test_what_is_wrong_is_said(
    arguments: tuple[str, ...], message: str, tmp_path: Path, rerank: Run
) -> None:
    outcome = rerank("eval", str(make_folder(tmp_path / "garden")), *arguments)
    assert (outcome.code, message in outcome.err) == (2, True), outcome.err


def make_collection() -> Collection:
    """Of each query the model has all documents first that have its word."""
    corpus = {f"d{n}": Document(f"{WORDS[n % 4]} {n}", id=f"d{n}") for n in range(40)}
    queries = {f"q{n}": f"{WORDS[n]} {n}" for n in range(4)}
    qrels = {f"q{n}": {f"d{n}": 1} for n in range(4)}
    return Collection("small", queries, qrels, corpus)


def test_recall_is_the_share_of_the_best_documents_of_all_that_are_read() -> None:
    from rerank_cli.evaluation.measures import parse_measures
    from rerank_cli.evaluation.report import RowBuilder, SetRows

    task = task_of(make_collection(), ALL_DOCUMENTS, None, 0)
    assert all(len(candidates) == 40 for candidates in task.candidates.values())
    scorer = OverlapScorer()
    system = System("words", "words", RuntimeOptions(), ChunkOptions())
    systems = [
        SystemJobs(task, each, Reranker(scorer), [ALL_DOCUMENTS], "stamp")
        for each in expand(system, read_variants("5,10,all", "bm25"))
    ]
    for jobs in systems:
        job = jobs.job(ALL_DOCUMENTS)
        assert list(job.run()) == [None] * 4
        job.close()
    rows = RowBuilder(task, parse_measures(["nDCG@10"]), 0, condensed=False)
    table = [rows.system_row(jobs.job(ALL_DOCUMENTS), ALL_DOCUMENTS) for jobs in systems]
    (curve,) = curves_of(SetRows(task, [rows.first, *table]), systems, 0)
    assert [point.setting for point in curve.points] == ["5", "10", "all"]
    assert [point.recall for point in curve.points] == [0.5, 1.0, None]
    assert [point.read for point in curve.points] == [5, 10, 40]
    assert curve.points[0].changes["nDCG@10"].mean == 0
    assert curve.reference.selection.candidates == CandidateRule.ALL


def test_systems_that_read_less_are_other_systems(tmp_path: Path) -> None:
    """What was scored with other candidates is not taken for their scores."""
    task = task_of(make_collection(), ALL_DOCUMENTS, None, 0)
    system = System("words", "words", RuntimeOptions(), ChunkOptions())
    first, second = expand(system, read_variants("5,6"))
    list(EvalJob(task, first, Reranker(OverlapScorer()), tmp_path).run())
    assert EvalJob(task, first, Reranker(OverlapScorer()), tmp_path).resumed == 4
    assert EvalJob(task, second, Reranker(OverlapScorer()), tmp_path).resumed == 0
