"""`rerank eval`: one command, a table with intervals, and the same figures after a kill."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("ir_measures", reason="needs the extra eval")

from rerank_cli.errors import UsageError
from rerank_cli.evaluation.run import read_system
from rerank_cli.ranking import ChunkOptions
from rerank_cli.runtimes import RuntimeOptions
from tests.conftest import MODELS, ROOT, Run
from tests.support.folders import in_parts
from tests.support.loopback import Status, serve

WORDS = ["soil", "leaf", "water", "worm", "frost", "slug", "seed", "root"]


def a_set(to: Path, *, queries: int = 12, documents: int = 8, name: str = "garden") -> Path:
    """Queries of one word, whose relevant document has it and comes last of those that came in."""
    path = to / f"{name}.jsonl"
    lines = []
    for number in range(queries):
        word = WORDS[number % len(WORDS)]
        others = [one for one in WORDS if one != word] * 3
        texts = [
            f"A note on {others[(number + place) % len(others)]}, number {place}."
            for place in range(documents - 1)
        ]
        texts.append(f"All there is to know of {word} in the garden.")
        record = {"query": f"what of {word}", "documents": texts, "relevant": [documents - 1]}
        lines.append(json.dumps(record))
    path.write_text("\n".join(lines) + "\n")
    return path


def evaluated(rerank: Run, *arguments: str) -> dict[str, Any]:
    ran = rerank("eval", *arguments, "--json")
    assert ran.code == 0, ran.err
    content: dict[str, Any] = json.loads(ran.out)
    return content


def test_a_table_says_what_helped_and_how_sure_that_is(tmp_path: Path, rerank: Run) -> None:
    ran = rerank("eval", str(a_set(tmp_path)), "-m", "bm25", "-m", str(MODELS / "bert"))
    assert (ran.code, ran.err) == (0, "")
    lines = ran.out.splitlines()
    assert max(len(line) for line in lines) <= 80
    assert re.match(r"system +nDCG@10 +change +95 % interval", lines[0])
    systems = [line.split()[0] for line in lines[1:5]]
    assert systems[::3] == ["input", "oracle"]
    assert systems[1] == "bm25"
    assert re.search(r"oracle +1\.0000", lines[4])
    text = " ".join(ran.out.split())
    assert re.search(
        r"bm25 helped: nDCG@10 \+0\.\d+ over input \(95 % interval \+0\.\d+ to \+0\.\d+, "
        r"p 0\.0\d+\); of 12 queries 12 better, 0 worse\.",
        text,
    )


def test_json_has_every_figure(tmp_path: Path, rerank: Run) -> None:
    content = evaluated(
        rerank,
        str(a_set(tmp_path)),
        *("-m", "bm25", "--measure", "RR", "--measure", "P@1", "--depth", "2,8"),
    )
    (one,) = content["sets"]
    assert (one["name"], one["first_stage"], one["queries"]) == ("garden", "input", 12)
    assert (one["candidates"], one["depth"]) == (96, 8)
    found = [(row["system"], row["depth"]) for row in one["systems"]]
    assert found == [
        ("input", None), ("bm25", 2), ("bm25", 8), ("oracle", None),
    ]  # fmt: skip
    shallow, deep = one["systems"][1:3]
    assert set(deep["measures"]) == {"RR", "P@1"}
    assert shallow["measures"]["RR"]["mean"] == pytest.approx(1 / 8)
    assert deep["measures"]["RR"]["mean"] == 1.0
    told = deep["measures"]["P@1"]["difference"]
    assert (told["verdict"], told["wins"], told["losses"]) == ("helped", 12, 0)
    assert told["interval_95"] == {"low": 1.0, "high": 1.0}
    assert shallow["cost"]["chunks"] == 24
    assert deep["cost"]["chunks"] == 96
    assert content["draws"] == 10_000


def test_depths_share_their_scores_and_cost_what_they_need(tmp_path: Path, rerank: Run) -> None:
    content = evaluated(
        rerank, str(a_set(tmp_path)), "--depth", "1,4,8", "-m", str(MODELS / "bert")
    )
    rows = [row for row in content["sets"][0]["systems"] if row["depth"]]
    assert [row["cost"]["chunks"] for row in rows] == [12, 48, 96]
    seconds = [row["cost"]["seconds"] for row in rows]
    assert seconds == sorted(seconds)
    assert rows[0]["measures"]["nDCG@10"]["difference"]["verdict"] == "changed nothing"


def test_several_sets_make_one_table_with_their_mean(tmp_path: Path, rerank: Run) -> None:
    paths = [str(a_set(tmp_path, name=name, queries=9)) for name in ("one", "two")]
    ran = rerank("eval", *paths, "-m", "bm25")
    rows = [line for line in ran.out.splitlines() if line and not line.startswith(" ")]
    assert [row.split()[0] for row in rows[:4]] == ["set", "one", "two", "mean"]
    assert "in the mean of 2 sets" in " ".join(ran.out.split())
    content = evaluated(rerank, *paths, "-m", "bm25")
    means = {(one["system"], one["depth"]): one["measures"] for one in content["mean"]}
    each = [one["systems"][1]["measures"]["AP"]["mean"] for one in content["sets"]]
    assert means["bm25", 100]["AP"]["mean"] == pytest.approx(sum(each) / 2)
    assert means["bm25", 100]["AP"]["difference"]["wins"] == 18


def test_files_have_every_run_and_every_querys_figures(tmp_path: Path, rerank: Run) -> None:
    path, runs, figures = a_set(tmp_path), tmp_path / "runs", tmp_path / "figures.tsv"
    options = ["--runs", str(runs), "--per-query", str(figures), "--measure", "AP"]
    content = evaluated(rerank, str(path), "-m", "bm25", *options)
    assert sorted(one.name for one in runs.iterdir()) == [
        "garden.bm25.trec", "garden.input.trec", "garden.oracle.trec",
    ]  # fmt: skip
    lines = (runs / "garden.bm25.trec").read_text().splitlines()
    assert len(lines) == 96
    assert re.fullmatch(r"1 Q0 7 1 \S+ bm25", lines[0])
    # What was written is what was measured.
    queries = [json.loads(line)["query"] for line in path.read_text().splitlines()]
    (tmp_path / "q.tsv").write_text("".join(f"{n}\t{q}\n" for n, q in enumerate(queries, 1)))
    texts = sorted({str(place) for place in range(8)})
    (tmp_path / "corpus.tsv").write_text("".join(f"{name}\ttext {name}\n" for name in texts))
    (tmp_path / "qrels").write_text("".join(f"{n} 0 7 1\n" for n in range(1, 13)))
    again = evaluated(
        rerank,
        *("--queries", str(tmp_path / "q.tsv"), "--corpus", str(tmp_path / "corpus.tsv")),
        *("--qrels", str(tmp_path / "qrels"), "--run", str(runs / "garden.bm25.trec")),
        *("-m", "bm25", "--measure", "AP"),
    )
    measured = content["sets"][0]["systems"][1]["measures"]["AP"]["mean"]
    assert again["sets"][0]["systems"][0]["measures"]["AP"]["mean"] == measured
    rows = [line.split("\t") for line in figures.read_text().splitlines()]
    assert rows[0] == ["set", "system", "depth", "query", "measure", "value"]
    own = [float(row[5]) for row in rows if row[1:3] == ["bm25", "100"]]
    assert sum(own) / len(own) == pytest.approx(measured)


def test_results_may_go_to_a_file_and_figures_to_standard_output(
    tmp_path: Path, rerank: Run
) -> None:
    arguments = ["eval", str(a_set(tmp_path)), "-m", "bm25"]
    table = rerank(*arguments).out
    out = tmp_path / "table.txt"
    ran = rerank(*arguments, "-o", str(out), "--per-query", "-")
    assert ran.code == 0
    # But for the columns of what it took, every line is the same.
    told, written = (text.partition("\n\n")[2] for text in (table, out.read_text()))
    assert written == told != ""
    assert ran.out.startswith("set\tsystem\tdepth\tquery\tmeasure\tvalue\n")


@pytest.mark.parametrize("option", ["--output", "--per-query"])
def test_a_file_that_cannot_be_written_is_said_before_scoring(
    option: str, tmp_path: Path, rerank: Run
) -> None:
    path = tmp_path / "missing" / "out.txt"
    ran = rerank("eval", str(a_set(tmp_path)), "-m", "./no such model", option, str(path))
    assert (ran.code, ran.out) == (2, "")
    assert f"{path}: there is no directory" in ran.err


@pytest.mark.slow
def test_two_models_are_compared_in_a_sentence(tmp_path: Path, rerank: Run) -> None:
    models = [str(MODELS / name) for name in ("bert", "xlmr")]
    ran = rerank("eval", str(a_set(tmp_path)), "--compare", *models)
    text = " ".join(ran.out.split())
    assert re.search(
        r"have the same document first for \d+% of 12 queries and share \d+% of their best 10 "
        r"\(Kendall.s tau -?\d\.\d+, rank-biased overlap \d\.\d+\); from the one to the other "
        r"nDCG@10 changes by [+-]\d\.\d+ \(95 % interval ",
        text,
    )
    assert "Least alike: garden, query: what of " in text
    content = evaluated(
        rerank, str(a_set(tmp_path)), "--compare", models[0], f"{models[0]} --threads 1"
    )
    found = content["comparison"]
    assert (found["tau"], found["same"], found["worst"]) == (pytest.approx(1.0), 1.0, [])
    assert found["gained"]["verdict"] == "changed nothing"


@pytest.mark.slow
def test_a_model_may_have_options_of_its_own(tmp_path: Path, rerank: Run) -> None:
    path = a_set(tmp_path)
    models = ["mini@3", "mini@3 --max-chunks 1 --chunk-tokens 64 --prepend title"]
    content = evaluated(rerank, str(path), *(word for one in models for word in ("-m", one)))
    assert [row["system"] for row in content["sets"][0]["systems"]][2:4] == models
    with pytest.raises(UsageError, match="invalid choice: 'median'"):
        read_system("mini@3 --aggregate median", RuntimeOptions(), ChunkOptions())
    with pytest.raises(UsageError, match="unrecognized arguments"):
        read_system("mini@3 --query x", RuntimeOptions(), ChunkOptions())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "eval needs a DATASET"),
        (["no such"], "no such: no such file or folder"),
        (["SET", "--depth", "ten"], "--depth ten: neither a number nor all"),
        (["SET", "--depth", "0"], "--depth 0: at least one candidate"),
        (["SET", "--measure", "luck"], "--measure luck: "),
        (["SET", "--qrels", "SET"], "--qrels and --run are for folders"),
        (["--queries", "SET"], "--queries, --corpus and --qrels make up a set"),
        (["SET", "-m", "no-model"], "no model is called 'no-model'"),
        (["SET", "-m", "mini@3 --luck 1"], "unrecognized arguments: --luck 1"),
        (["SET", "--compare", "mini@3"], "--compare"),
    ],
)
def test_what_is_wrong_is_said_at_once(
    arguments: list[str], message: str, tmp_path: Path, rerank: Run
) -> None:
    path = str(a_set(tmp_path))
    ran = rerank("eval", *(path if one == "SET" else one for one in arguments))
    assert (ran.code, ran.out) == (2, "")
    assert message in ran.err


def test_where_the_extra_is_not_installed_it_is_named(
    tmp_path: Path, rerank: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ir_measures", None)
    ran = rerank("eval", str(a_set(tmp_path)))
    assert ran.code == 2
    assert "hint: pip install 'rerank-cli[eval]'" in ran.err
    for mark, command in (("uv-receipt.toml", "uv tool install"), ("pipx_metadata.json", "pipx")):
        monkeypatch.setattr(sys, "prefix", str(tmp_path))
        (tmp_path / mark).touch()
        assert f"hint: {command} " in rerank("eval", str(a_set(tmp_path))).err


@pytest.mark.slow
def test_an_evaluation_that_is_killed_goes_on_and_comes_to_the_same(tmp_path: Path) -> None:
    path = a_set(tmp_path, queries=60, documents=40)
    command = [sys.executable, "-m", "rerank_cli", "eval", str(path), "--json", "-m", "mini@3"]

    def figures(ran: "subprocess.CompletedProcess[bytes]") -> Any:
        assert ran.returncode == 0, ran.stderr
        content = json.loads(ran.stdout)
        for row in content["sets"][0]["systems"]:
            row.pop("cost", None)
        content.pop("passages")  # what this run has read
        return content

    def run(home: str) -> "subprocess.CompletedProcess[bytes]":
        environment = {**os.environ, "RERANK_HOME": str(tmp_path / home)}
        return subprocess.run(command, capture_output=True, cwd=ROOT, env=environment, check=False)

    undisturbed = figures(run("whole"))
    home = tmp_path / "cut"
    environment = {**os.environ, "RERANK_HOME": str(home)}
    process = subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    journals = home / "cache" / "eval"
    for _ in range(3000):
        lines = sum(one.read_bytes().count(b"\n") for one in journals.glob("*.jsonl"))
        if lines >= 5 or process.poll() is not None:
            break
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    (journal,) = journals.glob("*.jsonl")
    with journal.open("ab") as stream:  # what a write that is cut off leaves
        stream.write(b'{"query": "x", "sco')
    again = run("cut")
    assert b"continuing an interrupted run: " in again.stderr
    assert figures(again) == undisturbed
    assert list(journals.glob("*.jsonl")) == []


@pytest.mark.slow
def test_models_that_cut_documents_differently_are_told_of(tmp_path: Path, rerank: Run) -> None:
    path, bert = str(a_set(tmp_path)), str(MODELS / "bert")
    ran = rerank("eval", path, "--compare", bert, "mini@3")
    assert f"the two split documents differently: {bert} of 64" in ran.err
    same = [f"{bert} --chunk-tokens 40", "mini@3 --chunk-tokens 40"]
    assert "differently" not in rerank("eval", path, "--compare", *same).err


def test_a_provider_stands_beside_a_model_and_goes_on_where_it_failed(
    tmp_path: Path, rerank: Run
) -> None:
    path = str(a_set(tmp_path))
    with serve("tei") as server:
        models = ["-m", "tei/m", "-m", str(MODELS / "bert"), "--base-url", server.url]
        content = evaluated(rerank, path, *models)
    rows = {row["system"]: row for row in content["sets"][0]["systems"]}
    assert rows["tei/m"]["cost"]["chunks"] == 96
    assert rows["tei/m"]["measures"]["nDCG@10"]["difference"]["wins"] > 0
    with serve("tei", faults=[*[None] * 5, Status(503)]) as server:
        models = ["-m", "tei/m", "--base-url", server.url, "--retries", "0"]
        ran = rerank("eval", path, *models)
        assert (ran.code, ran.out) == (3, "")
        again = rerank("eval", path, *models, "--json")
    assert again.err.splitlines() == [
        "continuing an interrupted run: 5 queries scored before",
        "tei/m: 7 requests to tei",
    ]
    found = {row["system"]: row for row in json.loads(again.out)["sets"][0]["systems"]}
    assert found["tei/m"]["measures"] == rows["tei/m"]["measures"]


@pytest.mark.parametrize("option", ["-o", "--per-query"])
def test_a_dataset_is_never_overwritten(option: str, tmp_path: Path, rerank: Run) -> None:
    path = a_set(tmp_path)
    before = path.read_bytes()
    ran = rerank("eval", str(path), option, str(path))
    assert (ran.code, ran.out) == (2, "")
    assert f"the input {path} and {option} name one file" in ran.err
    assert path.read_bytes() == before


def test_an_address_is_for_a_provider(tmp_path: Path, rerank: Run) -> None:
    ran = rerank("eval", str(a_set(tmp_path)), "-m", "bm25", "--base-url", "http://127.0.0.1:9")
    assert ran.code == 2
    assert "--base-url is for a provider's model, and none is measured" in ran.err


def test_a_run_that_is_read_is_not_replaced_by_one_that_is_written(
    tmp_path: Path, rerank: Run
) -> None:
    folder, runs = tmp_path / "set", tmp_path / "runs"
    for path in (folder / "qrels", runs):
        path.mkdir(parents=True)
    (folder / "corpus.jsonl").write_text('{"_id": "d1", "text": "a"}\n{"_id": "d2", "text": "b"}\n')
    (folder / "queries.jsonl").write_text('{"_id": "q", "text": "a"}\n')
    (folder / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\nq\td1\t1\n")
    run = runs / "set.bm25.trec"
    run.write_text("q Q0 d1 1 2.0 mine\n")
    line = ["eval", str(folder), "--run", str(run), "-m", "bm25", "--runs", str(runs)]
    assert rerank(*line, "-o", str(runs / "set.oracle.trec")).code == 0
    assert run.read_text() == "q Q0 d1 1 2.0 mine\n"
    assert (runs / "set.bm25+.trec").exists()
    assert "nDCG" in (runs / "set.oracle.trec").read_text()
    assert (runs / "set.oracle+.trec").exists()


@pytest.mark.parametrize("name", ["corpus.jsonl", "qrels/test.tsv", "new.txt"])
def test_a_file_of_a_dataset_is_not_replaced(name: str, tmp_path: Path, rerank: Run) -> None:
    (tmp_path / "qrels").mkdir()
    (tmp_path / "corpus.jsonl").write_text('{"_id": "d1", "text": "a"}\n')
    (tmp_path / "queries.jsonl").write_text('{"_id": "q", "text": "a"}\n')
    (tmp_path / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\nq\td1\t1\n")
    path = tmp_path / name
    before = path.read_bytes() if path.exists() else None
    ran = rerank("eval", str(tmp_path), "-m", "bm25", "-o", str(path))
    if before is None:
        assert (ran.code, path.exists()) == (0, True)
    else:
        assert (ran.code, path.read_bytes()) == (2, before)
        assert f"-o would replace a file of the input {tmp_path}" in ran.err


def test_passages_of_several_queries_are_read_once(tmp_path: Path, rerank: Run) -> None:
    texts = ["All of soil.", "All of water.", "All of slugs."]
    lines = [
        {"query": f"what of {word}", "documents": texts, "relevant": [place]}
        for place, word in enumerate(("soil", "water", "slug"))
    ]
    path = tmp_path / "garden.jsonl"
    path.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    model = str(in_parts(tmp_path))
    ran = rerank("eval", str(path), "-m", f"{model} --max-chunks 1", "--json")
    assert ran.code == 0
    assert "3 passages read, 6 known from memory: its times are shorter" in ran.err
    found = json.loads(ran.out)
    assert found["passages"] == {f"{model} --max-chunks 1": {"read": 3, "remembered": 6}}
    ran = rerank("eval", str(path), "-m", model, "--json", "--passage-memory", "0")
    assert (ran.code, ran.err) == (0, "")
    other = json.loads(ran.out)
    assert "passages" not in other
    assert other["sets"][0]["systems"][2]["measures"] == found["sets"][0]["systems"][2]["measures"]
    ran = rerank("eval", str(path), "-m", "bm25", "--passage-memory", "1GB")
    assert "--passage-memory has no effect: it is for models in two parts, and not for bm25" in (
        ran.err
    )


def test_thresholds_are_below_the_table_and_in_json(tmp_path: Path, rerank: Run) -> None:
    path = str(a_set(tmp_path, queries=120))
    ran = rerank("eval", path, "-m", "bm25", "--thresholds", "--keep-recall", "0.9")
    assert ran.code == 0
    assert "rerank:" not in ran.err  # a slow machine says how long it will take
    assert max(map(len, ran.out.splitlines())) <= 80
    words = " ".join(ran.out.split())
    assert "Cuts of bm25 on garden: 960 labels of 120 queries, 120 relevant." in words
    assert re.search(r"--min-score [\d.]+ keeps 100 % of the relevant and 0 % of the rest", words)
    assert "-n 1 keeps 100 % of the relevant." in words
    assert "Scores of bm25 depend on the other documents of a query: a cut says little" in words
    (found,) = evaluated(rerank, path, "-m", "bm25", "--thresholds")["thresholds"]
    assert (found["system"], found["labels"], found["relevant"]) == ("bm25", 960, 120)
    recall, precision = found["choices"]
    assert (recall["goal"], recall["target"], recall["cut"]["recall"]["value"]) == (
        "recall", 0.95, 1.0
    )  # fmt: skip
    assert precision["expected"]["high"] == 1.0
    assert "thresholds" not in evaluated(rerank, path, "-m", "bm25")
    (found,) = evaluated(rerank, path, "-m", "bm25", "--keep-recall", "0.8")["thresholds"]
    assert found["choices"][0]["target"] == 0.8, "a share to keep asks for cuts"


def test_a_share_to_keep_is_checked_before_anything_is_scored(rerank: Run) -> None:
    ran = rerank("eval", "nothing.jsonl", "--thresholds", "--keep-recall", "95")
    assert (ran.code, ran.out) == (2, "")
    assert "--keep-recall 95: not between 0 and 1" in ran.err


def test_all_measures_that_were_asked_for_are_shown(tmp_path: Path, rerank: Run) -> None:
    names = ["nDCG@10", "RR@10", "AP", "P@1", "P@5", "R@1", "R@5", "Success@1", "Judged@10"]
    wanted = [part for name in names for part in ("--measure", name)]
    path = str(a_set(tmp_path))
    ran = rerank("eval", path, "-m", "bm25", *wanted)
    lines = ran.out.splitlines()
    assert max(map(len, lines)) <= 80
    heads = [line.split() for line in lines if line.startswith("system")]
    assert len(heads) > 1
    assert all(sum(name in head for head in heads) == 1 for name in names)
    assert sum(line.startswith("oracle") for line in lines) == len(heads)
    usual = rerank("eval", path, "-m", "bm25").out.splitlines()
    assert sum(line.startswith("system") for line in usual) == 1
