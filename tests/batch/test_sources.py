"""What a batch reads beside JSONL: texts by their ids, and runs with their corpus."""

import gzip
import json
from pathlib import Path

import pytest

from rerank_cli.batch import sources
from rerank_cli.batch.sources import TextLookup
from rerank_cli.errors import InputError
from rerank_cli.user_files import parse_sealed_json
from tests.conftest import Run
from tests.support.batches import write


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
    assert {key: found.text for key in texts if (found := lookup.find(key))} == {
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
    ran = rerank("batch", *options, "-m", "bm25", "--errors", str(errors))
    assert [line.split()[:4] for line in ran.out.splitlines()] == [
        ["1", "Q0", "d0", "1"], ["1", "Q0", "d4", "2"],
        ["2", "Q0", "d3", "1"], ["2", "Q0", "d0", "2"],
    ]  # fmt: skip
    assert ran.code == 3
    assert [json.loads(line)["id"] for line in errors.read_text().splitlines()] == ["3", "4"]
    assert "2 documents of the run not in the corpus" in ran.err


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
    ran = rerank("batch", *options, "-m", "bm25")
    assert ran.code == 2
    assert "query 1 appears again after other queries" in ran.err


def test_a_plan_of_a_run(rerank: Run, tmp_path: Path) -> None:
    ran = rerank("batch", *run_files(tmp_path), "-m", "bm25", "--plan")
    assert "records   4\n" in ran.out
    assert "documents 4\n" in ran.out
    assert "errors    2 records are none" in ran.out


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
