"""`rerank batch`: one line out for one line in, in order, right or with what is wrong with it."""

import gzip
import json
import re
from pathlib import Path
from typing import Any

import pytest

from rerank_cli import open_scorer, rank
from rerank_cli.inputs.streams import import_zstandard
from rerank_cli.runtimes import RuntimeOptions
from tests.conftest import Run
from tests.support.batches import SMALL, read, record, write
from tests.support.folders import in_parts

BM25 = ("-m", "bm25")


def test_each_line_comes_out_with_the_results_that_rank_gives(rerank: Run, tmp_path: Path) -> None:
    records = [record(number, documents=number % 7 + 1) for number in range(40)]
    source = write(tmp_path / "in.jsonl", records)
    outcome = rerank("batch", str(source), "-o", str(tmp_path / "out.jsonl"), "-m", SMALL)
    assert (outcome.code, outcome.out, outcome.err) == (0, "", "")
    scorer = open_scorer(SMALL)
    for record_read, row in zip(records, read(tmp_path / "out.jsonl"), strict=True):
        results = row.pop("results")
        assert row == record_read
        ranking = rank(record_read["query"], record_read["documents"], scorer)
        assert [result["index"] for result in results] == [result.index for result in ranking]
        assert [result["raw_score"] for result in results] == pytest.approx(
            [o.raw_score for o in ranking]
        )


def test_a_result_is_what_ranks_json_has(rerank: Run) -> None:
    documents = ["a slug eats lettuce", {"id": "x", "text": "water", "page": 3}]
    line = json.dumps({"query": "slug", "documents": documents})
    outcome = rerank("batch", "-m", SMALL, stdin=line.encode())
    alone = rerank(
        "-q", "slug", "-m", SMALL, "--json", "--input-format", "jsonl", "--unit", "record",
        stdin="".join(f"{json.dumps(document)}\n" for document in documents).encode(),
    )  # fmt: skip
    expected = json.loads(alone.out)["results"]
    for result in expected:
        for name in ("source", "line"):
            result["document"].pop(name, None)
        result["passage"].pop("line", None)
        del result["passage"]["sentence"]  # which a batch leaves out
        result["document"].setdefault("fields", {})
    results = json.loads(outcome.out)["results"]
    for result in results:
        result["document"].setdefault("fields", {})
    assert results == expected


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ("ids", ["b", 0, "c"]),
        ("scores", [{"index", "id"}, {"index"}, {"index", "id"}]),
        ("full", [{"index", "document", "passage", "tokens", "chunks", "truncated"}] * 3),
    ],
)
def test_shapes(shape: str, expected: list[Any], rerank: Run) -> None:
    documents = ["fox", {"id": "b", "text": "red fox"}, {"id": "c", "text": "x"}]
    line = json.dumps({"query": "red fox", "documents": documents})
    results = json.loads(rerank("batch", *BM25, "--results", shape, stdin=line.encode()).out)[
        "results"
    ]
    if shape == "ids":
        assert results == expected
    else:
        scores = {"relevance_score", "raw_score"}
        assert [result.keys() - scores for result in results] == expected


def test_what_came_in_comes_out_byte_for_byte(rerank: Run) -> None:
    line = (
        b'  {"query" : "x",  "n": 1.500, "big": 123456789012345678901234567890, '
        b'"documents":["x"], "e":"\\u00e9\xc3\xa9"  }\r\n'
    )
    outcome = rerank("batch", *BM25, "--results", "ids", stdin=line)
    assert outcome.raw == line.strip()[:-1].rstrip() + b', "results": [0]}\n'


def test_results_that_were_there_give_way(rerank: Run) -> None:
    line = b'{"results": 5, "query": "x", "documents": ["x"]}'
    out = rerank("batch", *BM25, "--results", "ids", stdin=line).out
    assert json.loads(out) == {"query": "x", "documents": ["x"], "results": [0]}
    assert out.count("results") == 1


def test_a_blank_line_stays_one(rerank: Run) -> None:
    line = b'{"query": "x", "documents": ["x"]}'
    outcome = rerank("batch", *BM25, "--results", "ids", stdin=b"\n" + line + b"\n\n" + line)
    assert (outcome.code, [bool(output_line) for output_line in outcome.out.split("\n")]) == (
        0,
        [0, 1, 0, 1, 0],
    )


BAD = {
    "not_json": (b"{", b'{"query": "x", "documents": ["x"]} x', b"\xff\xfe"),
    "not_an_object": (b"[1]", b'"x"', b"7"),
    "no_query": (b"{}", b'{"query": " ", "documents": ["x"]}', b'{"query": 3, "documents": ["x"]}'),
    "no_documents": (
        b'{"query": "x"}', b'{"query": "x", "documents": []}', b'{"query": "x", "documents": "x"}',
    ),
    "bad_document": (
        b'{"query": "x", "documents": [1]}', b'{"query": "x", "documents": [{"n": 1}]}',
    ),
    "bad_option": (
        b'{"query": "x", "documents": ["x"], "top_n": 0}',
        b'{"query": "x", "documents": ["x"], "min_score": "high"}',
        b'{"query": "x", "documents": ["x"], "instruction": "find it"}',
    ),
}  # fmt: skip


@pytest.mark.parametrize(
    ("code", "line"), [(code, line) for code, lines in BAD.items() for line in lines]
)
def test_a_bad_line_is_an_error_in_its_place(code: str, line: bytes, rerank: Run) -> None:
    good = b'{"query": "x", "documents": ["x"]}\n'
    outcome = rerank("batch", *BM25, stdin=good + line + b"\n" + good)
    first, error, last = map(json.loads, outcome.out.splitlines())
    assert outcome.code == 3
    assert first["results"] == last["results"] != []
    assert error.keys() == {"id", "line", "error"}
    assert error["line"] == 2
    assert (error["error"]["code"], bool(error["error"]["message"])) == (code, True)
    assert f"1 record of 3 failed ({code}: 1)" in outcome.err


def test_a_record_that_is_too_large_is_not_read(rerank: Run) -> None:
    lines = [{"id": 1, "query": "x", "documents": ["x" * size]} for size in (10, 5000, 10)]
    stdin = "".join(f"{json.dumps(line_record)}\n" for line_record in lines).encode()
    outcome = rerank("batch", *BM25, "--max-record", "1kB", stdin=stdin)
    rows = [json.loads(line) for line in outcome.out.splitlines()]
    assert [row.get("error", {}).get("code") for row in rows] == [None, "too_large", None]
    assert "5.05 kB" in rows[1]["error"]["message"]


def test_an_error_has_the_records_id(rerank: Run) -> None:
    stdin = b'{"id": 7, "query": "x"}\n{"_id": "a", "query": "x"}'
    outcome = rerank("batch", *BM25, "--no-fail-fast", stdin=stdin)
    assert [json.loads(line)["id"] for line in outcome.out.splitlines()] == [7, "a"]


def test_errors_apart(rerank: Run, tmp_path: Path) -> None:
    apart = tmp_path / "errors.jsonl"
    stdin = b'x\n{"query": "x", "documents": ["x"]}\n{"id": 3}\n'
    outcome = rerank("batch", *BM25, "--errors", str(apart), stdin=stdin)
    assert (outcome.code, len(outcome.out.splitlines())) == (3, 1)
    assert [row["id"] for row in read(apart)] == [None, 3]


def test_fail_fast_stops_at_the_first(rerank: Run, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    source = write(tmp_path / "in.jsonl", [record(1), {"id": "bad"}, record(2)])
    outcome = rerank("batch", str(source), "-o", str(out), *BM25, "--fail-fast")
    assert outcome.code == 3
    assert "record 2 (bad): no field called query" in outcome.err
    assert [row["id"] for row in read(out)] == ["r1"]


def test_a_line_has_options_of_its_own(rerank: Run) -> None:
    base = {"query": "red fox", "documents": ["red fox", "fox", "dog", ""]}
    lines = [base, {**base, "top_n": 1}, {**base, "min_score": 0.3}, {**base, "min_score": 9}]
    stdin = "".join(f"{json.dumps(row)}\n" for row in lines).encode()
    outcome = rerank("batch", *BM25, "-n", "2", "--results", "ids", stdin=stdin)
    assert [json.loads(line)["results"] for line in outcome.out.splitlines()] == [
        [0, 1],
        [0],
        [0],
        [],
    ]
    assert outcome.code == 0


def test_other_fields(rerank: Run) -> None:
    line = {"ask": {"q": "fox"}, "hits": [{"t": "a fox", "u": "red"}], "key": 5, "id": 6}
    options = ("--query-field", "ask.q", "--documents-field", "hits", "--text-field", "t")
    outcome = rerank("batch", *BM25, *options, "--id-field", "key", stdin=json.dumps(line).encode())
    (result,) = json.loads(outcome.out)["results"]
    assert result["document"] == {"text": "a fox", "fields": {"u": "red"}}
    more = ("--id-field", "key", "--no-fail-fast")
    second_outcome = rerank("batch", *BM25, *options[2:], *more, stdin=b'{"key": 5}')
    assert json.loads(second_outcome.out)["id"] == 5


def test_pairs_get_a_score(rerank: Run) -> None:
    lines: list[dict[str, Any]] = [
        {"query": "fox", "document": "a fox", "n": 1},
        {"query": "fox", "document": {"text": "a dog"}},
        {"query": "fox", "document": " "},
        {"query": "fox"},
    ]
    stdin = "".join(f"{json.dumps(row)}\n" for row in lines).encode()
    outcome = rerank("batch", "--pairs", "-m", SMALL, stdin=stdin)
    rows = [json.loads(line) for line in outcome.out.splitlines()]
    assert outcome.code == 3
    assert all(0 < row["relevance_score"] < 1 for row in rows[:2])
    assert {name: rows[0][name] for name in lines[0]} == lines[0]
    assert rows[2]["relevance_score"] is None
    assert rows[3]["error"]["code"] == "no_documents"


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_compressed_in_and_out(suffix: str, rerank: Run, tmp_path: Path) -> None:
    unpack = gzip.decompress if suffix == ".gz" else import_zstandard().decompress
    pack = gzip.compress if suffix == ".gz" else import_zstandard().compress
    lines = "".join(f"{json.dumps(record(number))}\n" for number in range(30)).encode()
    source, out = tmp_path / f"in.jsonl{suffix}", tmp_path / f"out.jsonl{suffix}"
    source.write_bytes(pack(lines))
    assert rerank("batch", str(source), "-o", str(out), *BM25).code == 0
    assert unpack(out.read_bytes()) == rerank("batch", *BM25, stdin=lines).raw


def test_an_output_that_is_there_is_refused(rerank: Run, tmp_path: Path) -> None:
    source, out = write(tmp_path / "in.jsonl", [record(1)]), tmp_path / "out.jsonl"
    out.write_text("mine\n")
    outcome = rerank("batch", str(source), "-o", str(out), *BM25)
    assert (outcome.code, out.read_text()) == (2, "mine\n")
    assert "exists already" in outcome.err
    errors = rerank("batch", str(source), "--errors", str(out), *BM25)
    assert (errors.code, out.read_text()) == (2, "mine\n")


def test_a_report_does_not_replace_what_is_read(rerank: Run, tmp_path: Path) -> None:
    source = write(tmp_path / "in.jsonl", [record(1)])
    content = source.read_text()
    link = tmp_path / "link.jsonl"
    link.symlink_to(source)
    for report in (source, link):
        outcome = rerank("batch", str(source), "--report", str(report), *BM25)
        assert (outcome.code, outcome.out, source.read_text()) == (2, "", content)
        assert f"the input {source} and --report name one file" in outcome.err


def test_nor_a_file_of_a_run(rerank: Run, tmp_path: Path) -> None:
    run, queries, corpus = (tmp_path / name for name in ("run", "queries", "corpus"))
    for path in (run, queries, corpus):
        path.write_text("mine\n")
    inputs = ["--run", str(run), "--queries", str(queries), "--corpus", str(corpus)]
    for path in (run, queries, corpus):
        outcome = rerank("batch", *inputs, "--report", str(path), *BM25)
        assert (outcome.code, path.read_text()) == (2, "mine\n")
        assert f"the input {path} and --report name one file" in outcome.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--resume"], "--resume continues a file"),
        (["nothing.jsonl"], "nothing.jsonl: no such file"),
        (["--window", "much"], "'--window': 'much' is not a size"),
        (["--run", "a"], "--run, --queries and --corpus make up an input"),
        (["--address", "auto"], "--address and --ordered are for --engine ray"),
        (["s3://bucket/in"], "s3://bucket/in: only Ray reads and writes URLs"),
        (["-o", "gs://bucket/out"], "gs://bucket/out: only Ray reads and writes URLs"),
        (["-m", "nothing"], "no model is called"),
        (["-o", "no/such/out.jsonl"], "no/such/out.jsonl: there is no directory"),
        (["--errors", "no/such/e.jsonl"], "no/such/e.jsonl: there is no directory"),
        (["--report", "no/such/r.json"], "no/such/r.json: there is no directory"),
        (["--report", ""], "the output file has no name"),
        (["--report", "r", "--errors", "./r"], "--errors and --report name one file"),
    ],
)
def test_what_cannot_be(arguments: list[str], message: str, rerank: Run) -> None:
    outcome = rerank("batch", *arguments, stdin=b"")
    assert (outcome.code, outcome.out) == (2, "")
    assert message in outcome.err


def test_the_help_shows_options_in_groups_with_its_own_first(rerank: Run) -> None:
    groups = re.findall(r"^(\w+):$", rerank("batch", "--help").out, re.MULTILINE)
    own = ["Common", "Input", "Output", "Engine"]
    assert groups == [*own, "Model", "Chunking", "Providers", "Other"]


def test_a_terminal_is_not_waited_for(rerank: Run) -> None:
    outcome = rerank("batch")
    assert (outcome.code, "rerank batch IN.jsonl" in outcome.err) == (2, True)


def test_nothing_in_is_nothing_out(rerank: Run, tmp_path: Path) -> None:
    for stdin in (b"", b"\n \n", b"[]"):
        outcome = rerank("batch", *BM25, stdin=stdin)
        assert (outcome.out.strip(), outcome.code) == ("", 1)
        assert outcome.err == "rerank: nothing to rank: the input is empty\n"
    source, out = write(tmp_path / "in.jsonl", []), tmp_path / "out.jsonl.gz"
    options = ("batch", str(source), "-o", str(out), *BM25)
    assert rerank(*options).code == 1
    assert gzip.decompress(out.read_bytes()) == b""
    assert rerank(*options, "--resume").code == 1


def test_equal_pairs_are_scored_once(rerank: Run, tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    base = record(1)
    lines = [base, base, {**base, "query": "other"}]
    stdin = "".join(f"{json.dumps(row)}\n" for row in lines).encode()
    outcome = rerank("batch", "-m", SMALL, "--report", str(report), stdin=stdin)
    first, second, _ = [json.loads(line)["results"] for line in outcome.out.splitlines()]
    assert first == second
    figures = json.loads(report.read_text())
    assert figures["pairs"] == {"scored": 8, "reused": 4, "cached": 0}
    assert (figures["records"], figures["documents"], figures["done"]) == (3, 12, True)
    assert figures["latency"]["p50"] <= figures["latency"]["max"]


def test_strict_says_what_was_cut(rerank: Run) -> None:
    line = json.dumps({"query": "slug", "documents": ["slug " * 500]}).encode()
    options = ("-m", SMALL, "--chunk-tokens", "16", "--max-chunks", "1")
    assert rerank("batch", *options, stdin=line).code == 0
    outcome = rerank("batch", *options, "--strict", stdin=line)
    assert outcome.code == 4
    assert "not scored whole: 1 of the documents and queries" in outcome.err


def test_a_plan_counts_and_measures(rerank: Run, tmp_path: Path) -> None:
    source = write(tmp_path / "in.jsonl", [record(number) for number in range(300)] + [{}])
    outcome = rerank("batch", str(source), "--plan", "-m", SMALL)
    figures = dict(line.split(None, 1) for line in outcome.out.splitlines())
    assert figures["records"] == "301"
    assert figures["pairs"].startswith("about 1,")
    assert {"documents", "tokens", "measured", "here", "ray"} <= figures.keys()
    few = rerank("batch", "--plan", "-m", SMALL, stdin=json.dumps(record(1)).encode())
    assert "pairs     4\n" in few.out
    assert "too few pairs to measure" in few.out


def test_a_plan_says_and_returns_what_the_job_would(rerank: Run, tmp_path: Path) -> None:
    lines = [record(1), {"id": 1}, {"query": "slug", "documents": ["slug " * 500]}]
    source = tmp_path / "in.jsonl"
    source.write_text("\n".join(json.dumps(line) for line in lines) + "\n\n")
    options = ("-m", SMALL, "--chunk-tokens", "16", "--max-chunks", "1", "--strict")
    out = tmp_path / "out.jsonl"
    for arguments in [(*options, "-o", str(out), "--plan"), options]:
        outcome = rerank("batch", str(source), *arguments)
        assert outcome.code == 3
        assert re.search(r"1 record of 3 (would fail|failed) \(no_query: 1\)", outcome.err)
        assert re.search(r"not (be )?scored whole: 1 of the documents and queries", outcome.err)
    assert list(tmp_path.iterdir()) == [source]
    source.write_text(json.dumps(lines[2]) + "\n")
    for arguments in [(*options, "--plan"), options]:
        assert rerank("batch", str(source), *arguments).code == 4
        assert rerank("batch", str(source), *arguments[:6], *arguments[7:]).code == 0
    note = "chunks overlap by 4 tokens, not 9: a quarter at most"
    for arguments in [(*options, "--plan"), options]:
        assert note in rerank("batch", str(source), *arguments, "--overlap-tokens", "9").err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["-o", "{source}"], "-o"),
        (["--resume"], "--resume continues a file"),
        (["-o", "out.parquet"], "Parquet output needs Parquet input"),
        (["-o", "s3://bucket/out"], "only Ray reads and writes URLs"),
        (["--ordered"], "for --engine ray"),
    ],
)
def test_a_plan_refuses_what_the_job_would(
    options: list[str], message: str, rerank: Run, tmp_path: Path
) -> None:
    source = write(tmp_path / "in.jsonl", [record(1)])
    options = [option.format(source=source) for option in options]
    plan = rerank("batch", str(source), *BM25, *options, "--plan")
    outcome = rerank("batch", str(source), *BM25, *options)
    assert (plan.code, plan.out, plan.err) == (2, "", outcome.err)
    assert message in outcome.err


def test_where_the_first_hundred_all_fail_the_job_stops_and_leaves_no_trace(
    rerank: Run, tmp_path: Path
) -> None:
    source = write(tmp_path / "in.jsonl", [record(number) for number in range(150)])
    out, errors = tmp_path / "out.jsonl", tmp_path / "errors.jsonl"
    wrong = ("batch", str(source), "-o", str(out), *BM25, "--query-field", "ask")
    outcome = rerank(*wrong, "--errors", str(errors))
    assert (outcome.code, list(tmp_path.iterdir())) == (3, [source])
    assert "the first 100 records all failed in the same way: no field called ask" in outcome.err
    assert "--query-field names the field" in outcome.err
    pipe_outcome = rerank("batch", *BM25, "--query-field", "ask", stdin=source.read_bytes())
    assert (pipe_outcome.code, pipe_outcome.out) == (3, "")
    assert rerank(*wrong, "--no-fail-fast").code == 3
    assert [line["error"]["code"] for line in read(out)] == ["no_query"] * 150


@pytest.mark.parametrize("good", [0, 50, 99])
def test_one_that_does_not_fail_or_fails_otherwise_lets_it_go_on(
    good: int, rerank: Run, tmp_path: Path
) -> None:
    for other in (record(1), {"query": "x"}, 5):
        records: list[Any] = [{"id": number} for number in range(150)]
        records[good] = other
        lines = write(tmp_path / "in.jsonl", records).read_bytes().replace(b"\n", b"\n\n")
        outcome = rerank("batch", *BM25, stdin=lines)
        assert (outcome.code, len(outcome.out.split("\n"))) == (3, 301)
        rows = [json.loads(line) for line in outcome.out.splitlines()[::2]]
        lines_of_errors = [line["line"] for line in rows if line.get("error")]
        assert lines_of_errors == [2 * n + 1 for n in range(150) if "error" in rows[n]]


@pytest.mark.parametrize(
    ("line", "problem", "option"),
    [
        ({"id": 1, "q": "x"}, "no field called query: it has id, q", "--query-field"),
        ({"query": "x", "d": []}, "no field called documents: it has qu", "--documents-field"),
        (
            {"query": "x", "documents": [{"t": "y"}]},
            "content, body, passage, document: it has t",
            "--text-fi",
        ),
    ],
)
@pytest.mark.parametrize("count", [1, 2, 99])
def test_what_no_record_has_is_said_and_nothing_is_written(
    count: int, line: Any, problem: str, option: str, rerank: Run, tmp_path: Path
) -> None:
    source, out = write(tmp_path / "in.jsonl", [line] * count), tmp_path / "out.jsonl"
    options = ("batch", str(source), "-o", str(out), *BM25)
    outcome = rerank(*options)
    assert (outcome.code, list(tmp_path.glob("out.*"))) == (3, [])
    message = f"all {count} records failed in the same way"
    assert f"{message if count > 1 else 'the only record failed'}: " in outcome.err
    assert problem in outcome.err
    assert f"hint: {option}" in outcome.err
    assert rerank(*options, "--no-fail-fast").code == 3
    assert len(read(out)) == count


def test_records_inside_of_an_object_are_told(rerank: Run) -> None:
    for indent in (None, 2):
        records = json.dumps({"meta": {}, "data": [record(1), record(2)]}, indent=indent)
        outcome = rerank("batch", *BM25, stdin=records.encode())
        assert (outcome.code, outcome.out) == (3, "")
        assert "hint: jq -c '.data[]' IN | rerank batch" in outcome.err


def test_lines_that_are_no_json_are_no_records_and_one_is_an_error(rerank: Run) -> None:
    for line, problem in ((b"a,b\n", "not JSON: "), (b"5\n", "a record is a JSON object")):
        outcome = rerank("batch", *BM25, stdin=line * 3)
        assert (outcome.code, outcome.out) == (3, "")
        assert f"all 3 records failed in the same way: {problem}" in outcome.err
        assert len(rerank("batch", *BM25, stdin=line).out.splitlines()) == 1


def test_few_that_all_fail_by_themselves_are_written(rerank: Run) -> None:
    outcome = rerank("batch", *BM25, stdin=b'{"query": "x", "documents": []}\n' * 99)
    assert (outcome.code, len(outcome.out.splitlines())) == (3, 99)
    assert "99 records of 99 failed (no_documents: 99)" in outcome.err
    assert "the first that failed: the field documents is empty" in outcome.err


@pytest.mark.parametrize("results", ["full", "scores", "ids"])
def test_documents_can_be_dropped(results: str, rerank: Run, tmp_path: Path) -> None:
    records = [record(n, more=n) for n in range(5)]
    records[2] = {"id": 2, "query": "x", "documents": []}
    source, out = write(tmp_path / "in.jsonl", records), tmp_path / "out.jsonl"
    options = ("batch", str(source), *BM25, "--results", results)
    whole = [json.loads(line) for line in rerank(*options).out.splitlines()]
    assert rerank(*options, "--drop-documents", "-o", str(out)).code == 3
    for row in whole:
        row.pop("documents", None)
    assert read(out) == whole
    assert all(
        "text" in row["results"][0]["document"]
        for row in whole
        if results == "full" and "results" in row
    )
    for more in ((), ("--drop-documents",)):
        outcome = rerank(*options, "-o", str(out), "--resume", *more)
        assert outcome.code == (3 if more else 2)
    assert (
        "drop_documents was on and is not set" in rerank(*options, "-o", str(out), "--resume").err
    )


def test_a_field_that_is_dropped_may_be_nested_or_of_a_pair(rerank: Run) -> None:
    line = {"query": "fox", "hits": {"a": 1, "docs": ["a fox"]}, "document": "a fox"}
    stdin = json.dumps(line).encode()
    options = ("--results", "ids", "--drop-documents")
    outcome = rerank("batch", *BM25, "--documents-field", "hits.docs", *options, stdin=stdin)
    assert json.loads(outcome.out) == {**line, "hits": {"a": 1}, "results": [0]}
    outcome = rerank("batch", *BM25, "--pairs", *options, stdin=stdin)
    assert json.loads(outcome.out).keys() == {"query", "hits", "relevance_score", "raw_score"}


def test_a_run_has_no_documents_to_drop(rerank: Run) -> None:
    run = ("--run", "r", "--queries", "q", "--corpus", "c", "--drop-documents")
    assert "a run has no documents in it" in rerank("batch", *run, *BM25).err


@pytest.mark.parametrize(
    ("options", "owner"),
    [
        (("--report", "-"), "the results and --report"),
        (("--errors", "-"), "the results and --errors"),
        (("-o", "x", "--errors", "-", "--report", "-"), "--errors and --report"),
    ],
)
def test_who_shares_standard_output_is_said(
    options: tuple[str, ...], owner: str, rerank: Run
) -> None:
    outcome = rerank("batch", *BM25, *options, stdin=b"")
    assert f"{owner} both go to standard output\n\nhint: name a file" in outcome.err
    assert outcome.code == 2


def test_large_records_that_all_fail_are_not_all_held(rerank: Run, tmp_path: Path) -> None:
    records = [{"id": number, "text": "x" * 1000} for number in range(150)]
    out = tmp_path / "out.jsonl"
    source = write(tmp_path / "in.jsonl", records)
    outcome = rerank("batch", str(source), "-o", str(out), *BM25, "--window", "10kB")
    assert outcome.code == 3
    assert "the first 100 records all failed" in outcome.err
    assert 0 < len(read(out)) < 100
    assert rerank("batch", str(source), "-o", str(out), *BM25, "--resume").code == 3
    assert [line["id"] for line in read(out)] == list(range(150))


@pytest.mark.parametrize("depth", [150, 900, 5000, 100_000])
@pytest.mark.parametrize(
    "name", ["query", "documents", "min_score", "top_n", "instruction", "id", "n"]
)
def test_a_record_of_any_depth_is_a_line(name: str, depth: int, rerank: Run) -> None:
    for begin, end in (("[", "]"), ('{"a":', "}")):
        nested = f"{begin * depth}1{end * depth}"
        fields = {"query": '"x"', "documents": '["x"]'} | {name: nested}
        line = "{" + ", ".join(f'"{key}": {value}' for key, value in fields.items()) + "}"
        outcome = rerank("batch", *BM25, stdin=line.encode())
        row = json.loads(outcome.out)
        good = depth < 200 and name in ("id", "n")
        assert (outcome.code, "error" in row) == (0 if good else 3, not good)


@pytest.mark.parametrize("name", ["min_score", "top_n", "instruction"])
@pytest.mark.parametrize(
    "value", ["1e999", "-1e999", "NaN", "Infinity", "1" + "0" * 400, "1" * 5000]
)
def test_a_number_out_of_range_is_not_taken_for_none(name: str, value: str, rerank: Run) -> None:
    line = f'{{"query": "x", "documents": ["x"], "{name}": {value}}}'
    outcome = rerank("batch", *BM25, stdin=line.encode())
    error = json.loads(outcome.out).get("error", {})
    if name == "top_n" and value.startswith("10"):
        assert outcome.code == 0  # all of them
    else:
        assert (outcome.code, error["code"]) == (
            3,
            "not_json" if len(value) > 4300 else "bad_option",
        )


def test_pairs_are_counted_whatever_their_instruction(rerank: Run, tmp_path: Path) -> None:
    instructions = [None, "Find gardens.", "Find slugs.", "Find gardens."]
    records = [
        record(n) | ({"instruction": text} if text else {}) for n, text in enumerate(instructions)
    ]
    source = write(tmp_path / "in.jsonl", records)
    outcome = rerank("batch", str(source), "-m", "./tests/support/families/qwen3", "-v")
    assert outcome.code == 0, outcome.err
    assert "4 records, 16 pairs scored" in outcome.err
    assert "\n16 pairs on " in outcome.err


def test_a_job_that_is_whole_writes_its_report_too(rerank: Run, tmp_path: Path) -> None:
    source = write(tmp_path / "in.jsonl", [record(1), {"id": 2}, record(3)])
    out, first, second = (tmp_path / name for name in ("out.jsonl", "first", "second"))
    job = ("batch", str(source), "-o", str(out), *BM25)
    assert rerank(*job, "--report", str(first)).code == 3
    whole = out.read_bytes()
    outcome = rerank(*job, "--resume", "--report", str(second))
    assert (outcome.code, "nothing to do" in outcome.err, out.read_bytes()) == (3, True, whole)
    old, new = (json.loads(path.read_text()) for path in (first, second))
    assert (old["runs"], new["runs"], new["done"]) == (1, 2, True)
    assert {**new, "runs": 0, "seconds": 0, "rates": 0, "latency": 0} == {
        **old, "runs": 0, "seconds": 0, "rates": 0, "latency": 0,
    }  # fmt: skip
    assert rerank(*job, "--resume").code == 3


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model in two parts, which can remember passages."""
    return in_parts(tmp_path_factory.mktemp("model"))


@pytest.mark.parametrize(
    ("memory", "expected", "words"),
    [
        ([], {"read": 4, "remembered": 8}, "4 passages read, 8 remembered from other queries"),
        (
            ["--passage-memory", "1MiB"],
            {"read": 4, "remembered": 8},
            "4 passages read, 8 remembered",
        ),
        (["--passage-memory", "0"], None, ""),
    ],
)
def test_passages_of_several_queries_are_read_once(
    memory: list[str], expected: dict[str, int] | None, words: str,
    parts: Path, rerank: Run, tmp_path: Path,
) -> None:  # fmt: skip
    documents = ["a slug eats lettuce", "water", "soil and roots", "frost"]
    queries = ["slug", "water", "what of roots"]
    lines = [json.dumps({"query": query, "documents": documents}) for query in queries]
    report = tmp_path / "report.json"
    outcome = rerank(
        "batch", "-m", str(parts), "-v", "--report", str(report), "--results", "scores", *memory,
        stdin="\n".join(lines).encode(),
    )  # fmt: skip
    assert outcome.code == 0
    assert words in outcome.err
    assert ("passages read" in outcome.err) == bool(words)
    assert json.loads(report.read_bytes()).get("passages") == expected
    scorer = open_scorer(str(parts), runtime=RuntimeOptions(passage_memory=0))
    for line, query in zip(outcome.out.splitlines(), queries, strict=True):
        for first_result, other in zip(
            json.loads(line)["results"], rank(query, documents, scorer), strict=True
        ):
            assert first_result["index"] == other.index
            assert first_result["raw_score"] == float(f"{other.raw_score:.7g}")


def test_a_passage_memory_is_a_setting(
    parts: Path, rerank: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = b'{"query": "slug", "documents": ["a slug"]}'
    monkeypatch.setenv("RERANK_PASSAGE_MEMORY", "0")
    outcome = rerank("batch", "-m", str(parts), "-v", stdin=line)
    assert "passages read" not in outcome.err
    # As a setting it is for other models too, and nothing is said where it has no effect.
    assert rerank("batch", "-m", SMALL, stdin=line).err == ""
    monkeypatch.setenv("RERANK_PASSAGE_MEMORY", "much")
    outcome = rerank("batch", "-m", str(parts), stdin=line)
    assert outcome.code == 2
    assert "RERANK_PASSAGE_MEMORY: 'much' is not a size, such as 64MB, 1GB or 500kB" in outcome.err
    assert "RERANK_PASSAGE_MEMORY is a size, such as 64MB, 1GB or 500kB, or 0" in outcome.err


@pytest.mark.parametrize("model", [SMALL, "bm25"])
def test_a_passage_memory_without_effect_is_said(model: str, rerank: Run) -> None:
    line = b'{"query": "slug", "documents": ["a slug"]}'
    outcome = rerank("batch", "-m", model, "--passage-memory", "1GB", stdin=line)
    assert outcome.code == 0
    assert "--passage-memory has no effect: it is for models in two parts" in outcome.err
    assert model in outcome.err
    assert rerank("batch", "-m", model, "--passage-memory", "0", stdin=line).err == ""
    outcome = rerank(
        "batch", "-m", model, "--passage-memory", "1GB", "--candidates", "9", stdin=line
    )
    assert (outcome.code, outcome.err) == (0, "")
    outcome = rerank("batch", "-m", model, "--passage-memory", "-1", stdin=line)
    assert outcome.code == 2
    assert "'-1' is not a size" in outcome.err
