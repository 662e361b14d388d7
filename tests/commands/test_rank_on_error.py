"""--on-error keep: where scoring fails the input comes out as it came, and is marked as that."""

import csv
import io
import json
from pathlib import Path

import pytest

from tests.conftest import Outcome, Run, process
from tests.support.loopback import Fault, Html200, Plan, Request, Server, Status, serve
from tests.support.loopback.samples import TEXTS
from tests.support.remote_commands import documents, lines, model_options

LINES = b"one\ntwo\n\nthree\n"
FAILS = Status(503, {"message": "no available channel for model m"})
MESSAGE = (
    "rerank: not reranked, in input order: tei: answered 503: "
    "no available channel for model m\n\nhint: check the model's name\n"
)


def run_pipe(rerank: Run, *more: str, stdin: bytes = LINES) -> Outcome:
    with serve("tei", faults=FAILS) as server:
        arguments = ["-m", "tei/m", "--base-url", server.url, "two", "--on-error", "keep"]
        return rerank(*arguments, *more, stdin=stdin)


def run_keep(rerank: Run, server: Server, *more: str, stdin: bytes | None = None) -> Outcome:
    return rerank(*model_options(server), "refund", "--on-error", "keep", *more, stdin=stdin)


def test_nothing_comes_out_unless_that_is_asked(rerank: Run) -> None:
    with serve("tei", faults=FAILS) as server:
        outcome = rerank("-m", "tei/m", "--base-url", server.url, "two", stdin=LINES)
    assert (outcome.code, outcome.out) == (3, "")
    assert "answered 503: no available channel" in outcome.err


@pytest.mark.parametrize("more", [[], ["--on-error", "keep"]])
def test_records_that_are_left_out_are_named_if_scoring_fails(rerank: Run, more: list[str]) -> None:
    records = b'{"text": "one"}\n{"text": \n{"text": "two"}\n'
    with serve("tei", faults=FAILS) as server:
        arguments = ["-m", "tei/m", "--base-url", server.url, "two", "--input-format", "jsonl"]
        outcome = rerank(*arguments, *more, stdin=records)
    assert outcome.code == 3
    assert outcome.err.count("left out") == 1
    assert outcome.err.index("left out") < outcome.err.index("answered 503") or more


def test_records_come_as_they_came_from_a_pipe_too(rerank: Run) -> None:
    outcome = run_pipe(rerank)
    assert (outcome.code, outcome.raw, outcome.err) == (3, LINES, MESSAGE)
    assert run_pipe(rerank, "-n", "2").raw == b"one\ntwo\n"


def test_json_says_that_it_was_not_reranked(rerank: Run) -> None:
    outcome = run_pipe(rerank, "--json", "-n", "2")
    assert outcome.code == 3
    body = json.loads(outcome.out)
    assert body["reranked"] is False
    assert [(result["index"], result["relevance_score"]) for result in body["results"]] == [
        (0, None),
        (1, None),
    ]
    assert body["results"][1]["document"] == {"text": "two", "source": "-", "line": 2}
    rows = [json.loads(row) for row in run_pipe(rerank, "-f", "jsonl").out.splitlines()]
    assert [row["reranked"] for row in rows] == [False] * 4


def test_a_table_shows_their_texts(rerank: Run) -> None:
    with serve("tei", faults=FAILS) as server:
        documents = ["-d", "one", "-d", "two"]
        arguments = ["-m", "tei/m", "--base-url", server.url, "q", "--on-error", "keep"]
        outcome = rerank(*arguments, *documents, "--color", "never", terminal=80)
    assert [line.split() for line in outcome.out.splitlines()] == [
        ["\u2013", "one"],
        ["\u2013", "two"],
    ]


@pytest.mark.parametrize("form", ["text", "table", "md", "csv", "trec", "json", "jsonl", "paths"])
@pytest.mark.parametrize("more", [[], ["--scores"], ["-n", "2"], ["--explain"], ["--full"], ["-v"]])
def test_every_format_has_a_way_to_show_it(
    form: str, more: list[str], rerank: Run, tmp_path: Path
) -> None:
    for name, text in zip("abc", TEXTS, strict=True):
        (tmp_path / f"{name}.md").write_text(text)
    files = [str(tmp_path / f"{name}.md") for name in "abc"]
    with serve("openai-like", faults=FAILS) as server:
        outcome = run_keep(rerank, server, "-f", form, *more, *files)
        if outcome.code == 2:  # the format has no place for it, whether scoring fails or not
            assert rerank("refund", "-f", form, *more, *files).code == 2
            return
    assert outcome.code == 3
    assert "Traceback" not in outcome.err
    assert "not reranked" in outcome.err
    own = [text for text in TEXTS if text in outcome.out] if form != "paths" else []
    names = [name for name in "abc" if f"{name}.md" in outcome.out]
    assert max(len(own), len(names)) == (2 if "-n" in more else 3)
    if form == "csv":
        rows = list(csv.reader(io.StringIO(outcome.out)))
        assert len({len(row) for row in rows}) == 1


@pytest.mark.slow
def test_a_pipe_gives_back_what_went_in() -> None:
    raw = b"one\r\n\n  two\xff\nrefund\nlast"
    with serve("openai-like", faults=FAILS) as server:
        outcome = process(*model_options(server), "refund", "--on-error", "keep", stdin=raw)
        assert (outcome.returncode, outcome.stdout) == (3, raw + b"\n")
        assert outcome.stderr.count(b"bytes that are not text") == 1
        first = process(
            *model_options(server), "refund", "--on-error", "keep", "-n", "2", stdin=raw
        )
    assert first.stdout == b"one\r\n\n"


@pytest.mark.slow
def test_nothing_is_half_reranked(rerank: Run, tmp_path: Path) -> None:
    """The last of many requests fails, from a file and from a pipe."""
    texts = [f"document {number}" for number in range(5000)]
    path = tmp_path / "many.txt"
    path.write_bytes(lines(texts))

    def fail_late(_request: Request, number: int) -> Fault | None:
        return Html200() if number == 150 else None

    plans: list[Plan] = [fail_late, fail_late]
    for plan, source in zip(plans, ([str(path)], []), strict=True):
        with serve("tei", faults=plan) as server:
            outcome = rerank(
                *model_options(server, "tei/m"), "document", "--on-error", "keep", *source,
                stdin=None if source else lines(texts),
            )  # fmt: skip
        assert outcome.code == 3
        assert outcome.raw == path.read_bytes()


def test_a_table_keeps_its_header(rerank: Run, tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text('id,text\n2,"b ""quoted"""\n1,a\n')
    with serve("openai-like", faults=FAILS) as server:
        outcome = run_keep(rerank, server, str(path))
        assert (outcome.code, outcome.out) == (3, path.read_text())


def test_the_passages_of_a_file_are_not_taken_apart(rerank: Run, tmp_path: Path) -> None:
    path = tmp_path / "long.md"
    path.write_text("word " * 900)
    with serve("openai-like", faults=FAILS) as server:
        for form in ("text", "json", "table", "csv", "md"):
            outcome = run_keep(rerank, server, str(path), "-f", form)
            assert (outcome.code, "Traceback" in outcome.err) == (3, False)


def test_what_is_wrong_before_anything_is_sent_is_no_reason_to_go_on(rerank: Run) -> None:
    with serve("openai-like") as server:
        for more in (["--set", "x"], ["--insecure", "--base-url", "https://example.org"]):
            outcome = rerank(
                *model_options(server), "refund", "--on-error", "keep", *documents(), *more
            )
            assert (outcome.code, outcome.out) == (2, "")


def test_a_local_model_ranks_as_ever(rerank: Run) -> None:
    assert rerank("two", "--on-error", "keep", "-m", "bm25", "-n", "1", stdin=LINES).out == "two\n"
