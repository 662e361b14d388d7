"""What a batch reads beside JSONL: texts by their ids, and runs with their corpus."""

import gzip
import json
import os
from pathlib import Path

import pytest

from rerank_cli.batch import sources
from rerank_cli.batch.records import RecordFields
from rerank_cli.batch.sources import JsonLinesSource, TextLookup
from rerank_cli.errors import InputError
from rerank_cli.types import ScorerInfo
from rerank_cli.user_files import parse_sealed_json
from tests.conftest import Run
from tests.support.batches import read, record, write
from tests.support.loopback import serve
from tests.support.remote_commands import model_options


@pytest.mark.parametrize("name", ["c.jsonl", "c.tsv", "c.jsonl.gz", "c.tsv.gz"])
def test_a_lookup_finds_texts_by_their_ids(name: str, tmp_path: Path) -> None:
    texts = {f"d{n}": f"text {n} é" for n in range(500)}
    rows = [
        json.dumps({"_id": key, "title": "T", "text": text})
        if "jsonl" in name
        else f"{key}\t{text}"
        for key, text in texts.items()
    ]
    content = "\n".join([*rows[:250], "", *rows[250:], rows[0]]).encode()
    path = tmp_path / name
    path.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    lookup = TextLookup(path, "document", lambda: tmp_path)
    title = "T " if "jsonl" in name else ""
    assert {key: entry.text for key in texts if (entry := lookup.find(key))} == {
        key: title + text for key, text in texts.items()
    }
    assert lookup.find("d500") is None
    lookup.close()


def run_files(folder: Path) -> list[str]:
    """A run, its queries and its corpus, which is compressed."""
    corpus = "".join(
        f"{json.dumps({'_id': f'd{n}', 'title': '', 'text': f'fox {n} ' + 'dog ' * n})}\n"
        for n in range(5)
    )
    (folder / "corpus.jsonl.gz").write_bytes(gzip.compress(corpus.encode()))
    (folder / "q.tsv").write_text("1\tfox\n2\tdog\n3\tcat\n")
    run = [
        ("1", "d4"),
        ("1", "d0"),
        ("2", "d0"),
        ("2", "d3"),
        ("2", "gone"),
        ("3", "no"),
        ("4", "d1"),
    ]
    (folder / "bm25.trec").write_text(
        "".join(f"{q} Q0 {d} {n} {9 - n} first\n" for n, (q, d) in enumerate(run))
    )
    names = {"--run": "bm25.trec", "--queries": "q.tsv", "--corpus": "corpus.jsonl.gz"}
    return [word for name, file in names.items() for word in (name, str(folder / file))]


def test_a_run_comes_out_as_a_run(rerank: Run, tmp_path: Path) -> None:
    errors = tmp_path / "errors.jsonl"
    options = run_files(tmp_path)
    outcome = rerank("batch", *options, "-m", "bm25", "--errors", str(errors))
    assert [line.split()[:4] for line in outcome.out.splitlines()] == [
        ["1", "Q0", "d0", "1"], ["1", "Q0", "d4", "2"],
        ["2", "Q0", "d3", "1"], ["2", "Q0", "d0", "2"],
    ]  # fmt: skip
    assert outcome.code == 3
    assert [json.loads(line)["id"] for line in errors.read_text().splitlines()] == ["3", "4"]
    assert "2 documents of the run not in the corpus" in outcome.err


def test_a_run_resumes(rerank: Run, tmp_path: Path) -> None:
    options = ["batch", *run_files(tmp_path), "-m", "bm25", "-o", str(tmp_path / "o.trec")]
    rerank(*options)
    whole = (tmp_path / "o.trec").read_bytes()
    journal = tmp_path / "o.trec.journal"
    identity, *_, mark = journal.read_bytes().splitlines()
    position = len(b"".join(whole.splitlines(keepends=True)[:2]))
    half = {
        **parse_sealed_json(mark),
        "done": False,
        "items": 1,
        "position": position,
        "tails": ["", ""],
    }
    journal.write_bytes(identity + b"\n" + json.dumps(half).encode() + b"\n")
    assert rerank(*options, "--resume").code == 3
    assert (tmp_path / "o.trec").read_bytes() == whole


def test_a_query_that_comes_back_in_a_run_is_an_error(rerank: Run, tmp_path: Path) -> None:
    options = run_files(tmp_path)
    with (tmp_path / "bm25.trec").open("a") as stream:
        stream.write("1 Q0 d1 1 1 x\n")
    outcome = rerank("batch", *options, "-m", "bm25")
    assert outcome.code == 2
    assert "query 1 appears again after other queries" in outcome.err


def test_a_plan_of_a_run(rerank: Run, tmp_path: Path) -> None:
    outcome = rerank("batch", *run_files(tmp_path), "-m", "bm25", "--plan")
    assert "records   4\n" in outcome.out
    assert "documents 4\n" in outcome.out
    assert "errors    2 records" in outcome.out


def test_a_line_of_a_corpus_that_is_none_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "c.jsonl", [{"_id": "a", "text": "x"}, {"_id": "b"}])
    with pytest.raises(InputError, match=r"c\.jsonl:2: no document"):
        TextLookup(path, "document", lambda: tmp_path)


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="needs /dev/zero")
def test_what_does_not_end_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "_MAX_SKIPPED_BYTES", 5_000_000)
    with open("/dev/zero", "rb") as stream, pytest.raises(InputError, match="zero:1: a line of mo"):
        list(sources.read_lines(stream, "zero", 1000))
    monkeypatch.setattr(sources, "DEFAULT_MAX_DOCUMENT_BYTES", 1000)
    path = tmp_path / "corpus.tsv"
    path.write_bytes(b"1\tone\n2\t" + b"two" * 1000)
    with pytest.raises(InputError, match=r"corpus\.tsv:2: a line larger than 1 kB"):
        sources.TextLookup(path, "document", lambda: tmp_path)


ROWS = [record(1), {"id": 2}, record(3, text='a ] , { " }'), "no object", record(5, top_n=1)]
ARRAYS = {
    "compact": json.dumps(ROWS, separators=(",", ":")),
    "indented": json.dumps(ROWS, indent=2),
    "a row a line": "[\n" + ",\n".join(map(json.dumps, ROWS)) + "\n]\n",
    "mark and blanks": "\ufeff \n\t[" + " , ".join(map(json.dumps, ROWS)) + " ] \n",
}


@pytest.mark.parametrize("content", ARRAYS.values(), ids=ARRAYS.keys())
def test_an_array_is_read_as_lines_are(content: str, tmp_path: Path, rerank: Run) -> None:
    lines = rerank("batch", str(write(tmp_path / "in.jsonl", ROWS)), "-m", "bm25")
    path = tmp_path / "in.json"
    path.write_text(content, encoding="utf-8")
    outcome = rerank("batch", str(path), "-m", "bm25")
    rows_read, expected = (
        list(map(json.loads, out.splitlines())) for out in (outcome.out, lines.out)
    )
    errors = [row for row in rows_read if "error" in row]
    assert [row.pop("element") for row in errors] == [2, 4]
    for row in (*errors, *expected):
        row.pop("line", None)
    assert (rows_read, outcome.code) == (expected, 3)
    pipe_outcome = rerank("batch", "-m", "bm25", stdin=content.encode())
    assert pipe_outcome.out == outcome.out


def test_objects_over_several_lines_are_read_one_after_the_other(rerank: Run) -> None:
    rows = [record(1), {"id": 2}, record(3)]
    spread = "".join(f"{json.dumps(row, indent=2)}\n" for row in rows).encode()
    lines = "".join(f"{json.dumps(row)}\n" for row in rows).encode()
    options = ("batch", "-m", "bm25", "--results", "ids")
    rows_read, expected = (
        [json.loads(line) for line in rerank(*options, stdin=stdin).out.splitlines()]
        for stdin in (spread, lines)
    )
    assert (rows_read[1].pop("line"), rows_read[1].pop("element"), expected[1].pop("line")) == (
        11,
        2,
        2,
    )
    assert rows_read == expected


def test_an_array_goes_on_where_it_was(tmp_path: Path, rerank: Run) -> None:
    rows = [record(n) if n % 3 else {"id": n} for n in range(9)]
    (tmp_path / "in.json").write_text(json.dumps(rows))  # all begin in one line
    out, errors = tmp_path / "out.jsonl", tmp_path / "errors.jsonl"
    options = ["batch", str(tmp_path / "in.json"), "-o", str(out), "--errors", str(errors)]
    assert rerank(*options, "-m", "bm25").code == 3
    whole = out.read_bytes(), errors.read_bytes()
    journal = tmp_path / "out.jsonl.journal"
    identity, *_, mark = journal.read_bytes().splitlines()
    first = [len(content.splitlines(keepends=True)[0]) for content in whole]
    half = {**parse_sealed_json(mark), "done": False, "items": 2, "tails": ["", ""]}
    half |= {"position": first[0], "errors": first[1]}
    journal.write_bytes(identity + b"\n" + json.dumps(half).encode() + b"\n")
    assert rerank(*options, "-m", "bm25", "--resume").code == 3
    assert (out.read_bytes(), errors.read_bytes()) == whole
    assert [row["element"] for row in read(errors)] == [1, 4, 7]


@pytest.mark.parametrize(
    ("tail", "problem"),
    [
        (b"", "a , is missing before the end"),
        (b", ]", "a value is missing before ']'"),
        (b"] {}", "there is more text after the end of the array"),
        (b", {'a'}]", "not a JSON record: Expecting property name enclosed in double quotes"),
        (b", {", "not a JSON record"),
    ],
)
def test_an_array_that_breaks_off_ends_the_job_and_keeps_what_is_done(
    tail: bytes, problem: str, tmp_path: Path, rerank: Run
) -> None:
    path, out = tmp_path / "in.json", tmp_path / "out.jsonl"
    path.write_bytes(b"[" + json.dumps(record(1), indent=1).encode() + tail)
    outcome = rerank("batch", str(path), "-o", str(out), "-m", "bm25")
    assert (outcome.code, len(read(out))) == (2, 1)
    assert f"{path}:10: {problem}" in outcome.err


def test_records_before_the_break_of_an_array_are_written(tmp_path: Path, rerank: Run) -> None:
    """Also those that were being scored, and those that failed, where no other has come yet."""
    path = tmp_path / "in.json"
    path.write_text(json.dumps([{"id": 1}, {"id": 2}, record(3)])[:-1])
    with serve("openai-like") as server:
        outcome = rerank("batch", str(path), *model_options(server))
    assert (outcome.code, len(outcome.out.splitlines())) == (2, 3)
    path.write_text(json.dumps([{"id": 1}, {"id": 2}])[:-1])
    outcome = rerank("batch", str(path), "-m", "bm25")
    assert (outcome.code, len(outcome.out.splitlines())) == (2, 2)
    assert "in.json:1: a , is missing before the end" in outcome.err


def test_an_element_that_is_too_large_is_an_error_and_memory_stays_small(tmp_path: Path) -> None:
    path = tmp_path / "in.json"
    path.write_text(json.dumps([record(1), record(2, more="x" * 500), record(3)]))
    source = JsonLinesSource(str(path), RecordFields(), max_bytes=300)
    items = source.items(ScorerInfo("m", "", "logit"))
    assert [getattr(item, "problem", ("",))[0] for item in items] == ["", "too_large", ""]
    path.write_text(json.dumps([record(1), {"more": "x" * 200_000}]))
    source = JsonLinesSource(str(path), RecordFields(), max_bytes=300)
    with pytest.raises(InputError, match="an element of the array is larger than 300 bytes") as e:
        list(source.items(ScorerInfo("m", "", "logit")))
    assert "--max-record" in str(e.value.hint)


def test_a_run_has_its_texts_in_arrays(tmp_path: Path, rerank: Run) -> None:
    options = run_files(tmp_path)
    expected = rerank("batch", *options, "-m", "bm25")
    for name in ("queries", "corpus"):
        place = options.index(f"--{name}") + 1
        source = Path(options[place])
        content = source.read_bytes()
        lines = (gzip.decompress(content) if source.suffix == ".gz" else content).decode()
        rows = [
            json.loads(line)
            if line.startswith("{")
            else dict(zip(("id", "text"), line.split("\t"), strict=True))
            for line in lines.splitlines()
        ]
        (tmp_path / f"{name}.json").write_text(json.dumps(rows, indent=1))
        options[place] = str(tmp_path / f"{name}.json")
    outcome = rerank("batch", *options, "-m", "bm25")
    assert (outcome.out, outcome.code) == (expected.out, expected.code)


def test_an_element_of_a_corpus_that_is_none_is_named(tmp_path: Path) -> None:
    path = tmp_path / "c.json"
    path.write_text('[{"_id": "a", "text": "x"}, {"_id": "b"}]')
    with pytest.raises(InputError, match=r"c\.json: element 2: no document"):
        TextLookup(path, "document", lambda: tmp_path)


def test_a_file_that_shrinks_meanwhile_does_not_stop_the_estimate(tmp_path: Path) -> None:
    path = write(tmp_path / "in.jsonl", [record(0)] * 100)
    source = JsonLinesSource(str(path), RecordFields(), 10_000)
    os.truncate(path, 0)
    assert source.work_ahead(ScorerInfo("m", "", "logit"), lambda _: 1.0) is None
    source.close()
