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


def make_set(to: Path, *, queries: int = 12, documents: int = 8, name: str = "garden") -> Path:
    """Queries of one word, whose relevant document has it and comes last of those that came in."""
    path = to / f"{name}.jsonl"
    lines = []
    for number in range(queries):
        word = WORDS[number % len(WORDS)]
        others = [other_word for other_word in WORDS if other_word != word] * 3
        texts = [
            f"A note on {others[(number + place) % len(others)]}, number {place}."
            for place in range(documents - 1)
        ]
        texts.append(f"All there is to know of {word} in the garden.")
        record = {"query": f"what of {word}", "documents": texts, "relevant": [documents - 1]}
        lines.append(json.dumps(record))
    path.write_text("\n".join(lines) + "\n")
    return path


def evaluate(rerank: Run, *arguments: str) -> dict[str, Any]:
    outcome = rerank("eval", *arguments, "--json")
    assert outcome.code == 0, outcome.err
    content: dict[str, Any] = json.loads(outcome.out)
    return content


def test_a_table_says_what_helped_and_how_sure_that_is(tmp_path: Path, rerank: Run) -> None:
    outcome = rerank("eval", str(make_set(tmp_path)), "-m", "bm25", "-m", str(MODELS / "bert"))
    assert (outcome.code, outcome.err) == (0, "")
    lines = outcome.out.splitlines()
    assert max(len(line) for line in lines) <= 80
    assert re.match(r"system +nDCG@10 +change +95 % interval", lines[0])
    systems = [line.split()[0] for line in lines[1:5]]
    assert systems[::3] == ["input", "oracle"]
    assert systems[1] == "bm25"
    assert re.search(r"oracle +1\.0000", lines[4])
    text = " ".join(outcome.out.split())
    assert re.search(
        r"bm25 helped: nDCG@10 \+0\.\d+ over input \(95 % interval \+0\.\d+ to \+0\.\d+, "
        r"p 0\.0\d+\); of 12 queries 12 better, 0 worse\.",
        text,
    )


def test_a_table_says_what_its_counts_are(tmp_path: Path, rerank: Run) -> None:
    legend = "+ = - counts the queries that became better, stayed the same or became worse."
    arguments = ("eval", str(make_set(tmp_path)), "-m", "bm25")
    assert legend in rerank(*arguments).out.splitlines()
    assert "+ = -" not in rerank(*arguments, terminal=60).out


def test_of_equal_gains_of_few_queries_no_interval_is_shown(tmp_path: Path, rerank: Run) -> None:
    outcome = rerank(
        "eval", str(make_set(tmp_path)), "-m", "bm25", "--sample", "2", "--measure", "P@1"
    )
    text = " ".join(outcome.out.split())
    assert "(95 % interval unknown, p 0.5)" in text
    assert not re.search(r"(\+\d\.\d+) to \1", text)


def test_json_has_every_figure(tmp_path: Path, rerank: Run) -> None:
    content = evaluate(
        rerank,
        str(make_set(tmp_path)),
        *("-m", "bm25", "--measure", "RR", "--measure", "P@1", "--depth", "2,8"),
    )
    (eval_set,) = content["sets"]
    assert (eval_set["name"], eval_set["first_stage"], eval_set["queries"]) == (
        "garden",
        "input",
        12,
    )
    assert (eval_set["candidates"], eval_set["depth"]) == (96, 8)
    systems = [(row["system"], row["depth"]) for row in eval_set["systems"]]
    assert systems == [
        ("input", None), ("bm25", 2), ("bm25", 8), ("oracle", None),
    ]  # fmt: skip
    shallow, deep = eval_set["systems"][1:3]
    assert set(deep["measures"]) == {"RR", "P@1"}
    assert shallow["measures"]["RR"]["mean"] == pytest.approx(1 / 8)
    assert deep["measures"]["RR"]["mean"] == 1.0
    difference = deep["measures"]["P@1"]["difference"]
    assert (difference["verdict"], difference["wins"], difference["losses"]) == ("helped", 12, 0)
    assert difference["interval_95"] == {"low": 1.0, "high": 1.0}
    assert shallow["cost"]["chunks"] == 24
    assert deep["cost"]["chunks"] == 96
    assert content["draws"] == 10_000


def test_depths_share_their_scores_and_cost_what_they_need(tmp_path: Path, rerank: Run) -> None:
    content = evaluate(
        rerank, str(make_set(tmp_path)), "--depth", "1,4,8", "-m", str(MODELS / "bert")
    )
    rows = [row for row in content["sets"][0]["systems"] if row["depth"]]
    assert [row["cost"]["chunks"] for row in rows] == [12, 48, 96]
    seconds = [row["cost"]["seconds"] for row in rows]
    assert seconds == sorted(seconds)
    assert rows[0]["measures"]["nDCG@10"]["difference"]["verdict"] == "changed nothing"


def test_several_sets_make_one_table_with_their_mean(tmp_path: Path, rerank: Run) -> None:
    paths = [str(make_set(tmp_path, name=name, queries=9)) for name in ("one", "two")]
    outcome = rerank("eval", *paths, "-m", "bm25")
    rows = [line for line in outcome.out.splitlines() if line and not line.startswith(" ")]
    assert [row.split()[0] for row in rows[:4]] == ["set", "one", "two", "mean"]
    assert "in the mean of 2 sets" in " ".join(outcome.out.split())
    content = evaluate(rerank, *paths, "-m", "bm25")
    means = {
        (mean_row["system"], mean_row["depth"]): mean_row["measures"]
        for mean_row in content["mean"]
    }
    each = [figures["systems"][1]["measures"]["AP"]["mean"] for figures in content["sets"]]
    assert means["bm25", 100]["AP"]["mean"] == pytest.approx(sum(each) / 2)
    assert means["bm25", 100]["AP"]["difference"]["wins"] == 18


def test_files_have_every_run_and_every_querys_figures(tmp_path: Path, rerank: Run) -> None:
    path, runs, figures = make_set(tmp_path), tmp_path / "runs", tmp_path / "figures.tsv"
    options = ["--runs", str(runs), "--per-query", str(figures), "--measure", "AP"]
    content = evaluate(rerank, str(path), "-m", "bm25", *options)
    assert sorted(path_found.name for path_found in runs.iterdir()) == [
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
    again = evaluate(
        rerank,
        *("--queries", str(tmp_path / "q.tsv"), "--corpus", str(tmp_path / "corpus.tsv")),
        *("--qrels", str(tmp_path / "qrels"), "--run", str(runs / "garden.bm25.trec")),
        *("-m", "bm25", "--measure", "AP"),
    )
    mean = content["sets"][0]["systems"][1]["measures"]["AP"]["mean"]
    assert again["sets"][0]["systems"][0]["measures"]["AP"]["mean"] == mean
    rows = [line.split("\t") for line in figures.read_text().splitlines()]
    assert rows[0] == ["set", "system", "depth", "query", "measure", "value"]
    own = [float(row[5]) for row in rows if row[1:3] == ["bm25", "100"]]
    assert sum(own) / len(own) == pytest.approx(mean)


def test_results_may_go_to_a_file_and_figures_to_standard_output(
    tmp_path: Path, rerank: Run
) -> None:
    arguments = ["eval", str(make_set(tmp_path)), "-m", "bm25"]
    table = rerank(*arguments).out
    out = tmp_path / "table.txt"
    outcome = rerank(*arguments, "-o", str(out), "--per-query", "-")
    assert outcome.code == 0
    # But for the columns of what it took, every line is the same.
    figures_text, file_text = (text.partition("\n\n")[2] for text in (table, out.read_text()))
    assert file_text == figures_text != ""
    assert outcome.out.startswith("set\tsystem\tdepth\tquery\tmeasure\tvalue\n")


@pytest.mark.parametrize("option", ["--output", "--per-query"])
def test_a_file_that_cannot_be_written_is_said_before_scoring(
    option: str, tmp_path: Path, rerank: Run
) -> None:
    path = tmp_path / "missing" / "out.txt"
    outcome = rerank("eval", str(make_set(tmp_path)), "-m", "./no such model", option, str(path))
    assert (outcome.code, outcome.out) == (2, "")
    assert f"{path}: there is no directory" in outcome.err


@pytest.mark.slow
def test_two_models_are_compared_in_a_sentence(tmp_path: Path, rerank: Run) -> None:
    models = [str(MODELS / name) for name in ("bert", "xlmr")]
    outcome = rerank("eval", str(make_set(tmp_path)), "--compare", *models)
    text = " ".join(outcome.out.split())
    assert re.search(
        r"have the same document first for \d+% of 12 queries and share \d+% of their best 10 "
        r"\(Kendall.s tau -?\d\.\d+, rank-biased overlap \d\.\d+\); from the one to the other "
        r"nDCG@10 changes by [+-]\d\.\d+ \(95 % interval ",
        text,
    )
    assert "Least alike: garden, query: what of " in text
    content = evaluate(
        rerank, str(make_set(tmp_path)), "--compare", models[0], f"{models[0]} --threads 1"
    )
    comparison = content["comparison"]
    assert (comparison["tau"], comparison["same"], comparison["worst"]) == (
        pytest.approx(1.0),
        1.0,
        [],
    )
    assert comparison["gained"]["verdict"] == "changed nothing"


@pytest.mark.slow
def test_a_model_may_have_options_of_its_own(tmp_path: Path, rerank: Run) -> None:
    path = make_set(tmp_path)
    models = ["mini@3", "mini@3 --max-chunks 1 --chunk-tokens 64 --prepend title"]
    content = evaluate(
        rerank, str(path), *(word for model_line in models for word in ("-m", model_line))
    )
    assert [row["system"] for row in content["sets"][0]["systems"]][2:4] == models
    with pytest.raises(UsageError, match="invalid choice: 'median'"):
        read_system("mini@3 --aggregate median", RuntimeOptions(), ChunkOptions())
    with pytest.raises(UsageError, match="unrecognized arguments"):
        read_system("mini@3 --query x", RuntimeOptions(), ChunkOptions())


@pytest.mark.parametrize("command", ["eval", "tune", "calibrate"])
def test_the_usage_names_what_a_command_needs(command: str, rerank: Run) -> None:
    needed = re.search(r"needs (?:a )?([A-Z]+)\n", rerank(command).err)
    assert needed
    usage, _, examples = rerank(command, "-h").out.partition("\n")
    assert f"[{needed[1]}]" in usage
    assert f"rerank {command} mine.jsonl" in examples


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
    path = str(make_set(tmp_path))
    outcome = rerank("eval", *(path if argument == "SET" else argument for argument in arguments))
    assert (outcome.code, outcome.out) == (2, "")
    assert message in outcome.err


def test_where_the_extra_is_not_installed_it_is_named(
    tmp_path: Path, rerank: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ir_measures", None)
    outcome = rerank("eval", str(make_set(tmp_path)))
    assert outcome.code == 2
    assert "hint: pip install 'rerank-cli[eval]'" in outcome.err
    for mark, command in (("uv-receipt.toml", "uv tool install"), ("pipx_metadata.json", "pipx")):
        monkeypatch.setattr(sys, "prefix", str(tmp_path))
        (tmp_path / mark).touch()
        assert f"hint: {command} " in rerank("eval", str(make_set(tmp_path))).err


@pytest.mark.slow
def test_an_evaluation_that_is_killed_goes_on_and_comes_to_the_same(tmp_path: Path) -> None:
    path = make_set(tmp_path, queries=60, documents=40)
    command = [sys.executable, "-m", "rerank_cli", "eval", str(path), "--json", "-m", "mini@3"]

    def figures(completed_process: "subprocess.CompletedProcess[bytes]") -> Any:
        assert completed_process.returncode == 0, completed_process.stderr
        content = json.loads(completed_process.stdout)
        for row in content["sets"][0]["systems"]:
            row.pop("cost", None)
        content.pop("passages")  # what this run has read
        return content

    def run(home: str) -> "subprocess.CompletedProcess[bytes]":
        environment = {**os.environ, "RERANK_HOME": str(tmp_path / home)}
        return subprocess.run(command, capture_output=True, cwd=ROOT, env=environment, check=False)

    plain_figures = figures(run("whole"))
    home = tmp_path / "cut"
    environment = {**os.environ, "RERANK_HOME": str(home)}
    process = subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    journals = home / "cache" / "eval"
    for _ in range(3000):
        lines = sum(
            journal_path.read_bytes().count(b"\n") for journal_path in journals.glob("*.jsonl")
        )
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
    assert figures(again) == plain_figures
    assert list(journals.glob("*.jsonl")) == []


@pytest.mark.slow
def test_models_that_cut_documents_differently_are_told_of(tmp_path: Path, rerank: Run) -> None:
    path, bert = str(make_set(tmp_path)), str(MODELS / "bert")
    outcome = rerank("eval", path, "--compare", bert, "mini@3")
    assert f"the two split documents differently: {bert} of 64" in outcome.err
    same = [f"{bert} --chunk-tokens 40", "mini@3 --chunk-tokens 40"]
    assert "differently" not in rerank("eval", path, "--compare", *same).err


def test_a_provider_stands_beside_a_model_and_goes_on_where_it_failed(
    tmp_path: Path, rerank: Run
) -> None:
    path = str(make_set(tmp_path))
    with serve("tei") as server:
        models = ["-m", "tei/m", "-m", str(MODELS / "bert"), "--base-url", server.url]
        content = evaluate(rerank, path, *models)
    rows = {row["system"]: row for row in content["sets"][0]["systems"]}
    assert rows["tei/m"]["cost"]["chunks"] == 96
    assert rows["tei/m"]["measures"]["nDCG@10"]["difference"]["wins"] > 0
    with serve("tei", faults=[*[None] * 5, Status(503)]) as server:
        models = ["-m", "tei/m", "--base-url", server.url, "--retries", "0"]
        outcome = rerank("eval", path, *models)
        assert (outcome.code, outcome.out) == (3, "")
        again = rerank("eval", path, *models, "--json")
    assert again.err.splitlines() == [
        "continuing an interrupted run: 5 queries scored before",
        "tei/m: 7 requests to tei",
    ]
    systems = {row["system"]: row for row in json.loads(again.out)["sets"][0]["systems"]}
    assert systems["tei/m"]["measures"] == rows["tei/m"]["measures"]


@pytest.mark.parametrize("option", ["-o", "--per-query"])
def test_a_dataset_is_never_overwritten(option: str, tmp_path: Path, rerank: Run) -> None:
    path = make_set(tmp_path)
    before = path.read_bytes()
    outcome = rerank("eval", str(path), option, str(path))
    assert (outcome.code, outcome.out) == (2, "")
    assert f"the input {path} and {option} name one file" in outcome.err
    assert path.read_bytes() == before


def test_an_address_is_for_a_provider(tmp_path: Path, rerank: Run) -> None:
    outcome = rerank(
        "eval", str(make_set(tmp_path)), "-m", "bm25", "--base-url", "http://127.0.0.1:9"
    )
    assert outcome.code == 2
    assert "--base-url is for a provider's model, and none is measured" in outcome.err


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
    outcome = rerank("eval", str(tmp_path), "-m", "bm25", "-o", str(path))
    if before is None:
        assert (outcome.code, path.exists()) == (0, True)
    else:
        assert (outcome.code, path.read_bytes()) == (2, before)
        assert f"-o would replace a file of the input {tmp_path}" in outcome.err


def test_passages_of_several_queries_are_read_once(tmp_path: Path, rerank: Run) -> None:
    texts = ["All of soil.", "All of water.", "All of slugs."]
    lines = [
        {"query": f"what of {word}", "documents": texts, "relevant": [place]}
        for place, word in enumerate(("soil", "water", "slug"))
    ]
    path = tmp_path / "garden.jsonl"
    path.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    model = str(in_parts(tmp_path))
    outcome = rerank("eval", str(path), "-m", f"{model} --max-chunks 1", "--json")
    assert outcome.code == 0
    assert (
        "3 passages read, 6 remembered from other queries; a single query takes longer"
        in outcome.err
    )
    report = json.loads(outcome.out)
    assert report["passages"] == {f"{model} --max-chunks 1": {"read": 3, "remembered": 6}}
    outcome = rerank("eval", str(path), "-m", model, "--json", "--passage-memory", "0")
    assert (outcome.code, outcome.err) == (0, "")
    other = json.loads(outcome.out)
    assert "passages" not in other
    assert other["sets"][0]["systems"][2]["measures"] == report["sets"][0]["systems"][2]["measures"]
    outcome = rerank("eval", str(path), "-m", "bm25", "--passage-memory", "1GB")
    assert "--passage-memory has no effect: it is for models in two parts, and not for bm25" in (
        outcome.err
    )


def test_thresholds_are_below_the_table_and_in_json(tmp_path: Path, rerank: Run) -> None:
    path = str(make_set(tmp_path, queries=120))
    outcome = rerank("eval", path, "-m", "bm25", "--thresholds", "--keep-recall", "0.9")
    assert outcome.code == 0
    assert "rerank:" not in outcome.err  # a slow machine says how long it will take
    assert max(map(len, outcome.out.splitlines())) <= 80
    words = " ".join(outcome.out.split())
    assert "Cuts of bm25 on garden: 960 labels of 120 queries, 120 relevant." in words
    assert re.search(r"--min-score [\d.]+ keeps 100 % of the relevant and 0 % of the rest", words)
    assert "-n 1 keeps 100 % of the relevant." in words
    assert "Scores of bm25 depend on the other documents of a query: a cut says little" in words
    (threshold,) = evaluate(rerank, path, "-m", "bm25", "--thresholds")["thresholds"]
    assert (threshold["system"], threshold["labels"], threshold["relevant"]) == ("bm25", 960, 120)
    recall, precision = threshold["choices"]
    assert (recall["goal"], recall["target"], recall["cut"]["recall"]["value"]) == (
        "recall", 0.95, 1.0
    )  # fmt: skip
    assert precision["expected"]["high"] == 1.0
    assert "thresholds" not in evaluate(rerank, path, "-m", "bm25")
    (threshold,) = evaluate(rerank, path, "-m", "bm25", "--keep-recall", "0.8")["thresholds"]
    assert threshold["choices"][0]["target"] == 0.8, "a share to keep asks for cuts"


def test_a_share_to_keep_is_checked_before_anything_is_scored(rerank: Run) -> None:
    outcome = rerank("eval", "nothing.jsonl", "--thresholds", "--keep-recall", "95")
    assert (outcome.code, outcome.out) == (2, "")
    assert "--keep-recall 95: not between 0 and 1" in outcome.err


def test_all_measures_that_were_asked_for_are_shown(tmp_path: Path, rerank: Run) -> None:
    names = ["nDCG@10", "RR@10", "AP", "P@1", "P@5", "R@1", "R@5", "Success@1", "Judged@10"]
    options = [part for name in names for part in ("--measure", name)]
    path = str(make_set(tmp_path))
    outcome = rerank("eval", path, "-m", "bm25", *options)
    lines = outcome.out.splitlines()
    assert max(map(len, lines)) <= 80
    heads = [line.split() for line in lines if line.startswith("system")]
    assert len(heads) > 1
    assert all(sum(name in head for head in heads) == 1 for name in names)
    assert sum(line.startswith("oracle") for line in lines) == len(heads)
    usual = rerank("eval", path, "-m", "bm25").out.splitlines()
    assert sum(line.startswith("system") for line in usual) == 1
