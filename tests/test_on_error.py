"""Where scoring fails and the order of the input is to be kept: said, marked, and exit 3."""

import json

import pytest

from tests.conftest import Outcome, Run
from tests.loopback import Status, every, serve

LINES = b"one\ntwo\n\nthree\n"
FAILS = Status(503, {"message": "no available channel for model m"})
SAID = (
    "rerank: not reranked, in the order they came: tei: answered 503: "
    "no available channel for model m\n\nhint: check the model's name\n"
)


def kept(rerank: Run, *more: str, stdin: bytes = LINES) -> Outcome:
    with serve("tei", faults=FAILS) as server:
        arguments = ["-m", "tei/m", "--base-url", server.url, "two", "--on-error", "keep"]
        return rerank(*arguments, *more, stdin=stdin)


def test_nothing_comes_out_unless_that_is_asked(rerank: Run) -> None:
    with serve("tei", faults=FAILS) as server:
        ran = rerank("-m", "tei/m", "--base-url", server.url, "two", stdin=LINES)
    assert (ran.code, ran.out) == (3, "")
    assert "answered 503: no available channel" in ran.err


def test_records_come_as_they_came_from_a_pipe_too(rerank: Run) -> None:
    ran = kept(rerank)
    assert (ran.code, ran.raw, ran.err) == (3, LINES, SAID)
    assert kept(rerank, "-n", "2").raw == b"one\ntwo\n"


def test_json_says_that_it_was_not_reranked(rerank: Run) -> None:
    ran = kept(rerank, "--json", "-n", "2")
    assert ran.code == 3
    body = json.loads(ran.out)
    assert body["reranked"] is False
    assert [(one["index"], one["relevance_score"]) for one in body["results"]] == [
        (0, None),
        (1, None),
    ]
    assert body["results"][1]["document"] == {"text": "two", "source": "-", "line": 2}
    rows = [json.loads(row) for row in kept(rerank, "-f", "jsonl").out.splitlines()]
    assert [row["reranked"] for row in rows] == [False] * 4


@pytest.mark.parametrize("form", ["csv", "tsv", "trec", "md"])
def test_every_format_has_all_of_them(form: str, rerank: Run) -> None:
    ran = kept(rerank, "-f", form)
    assert ran.code == 3
    if form == "md":
        assert ran.out.startswith("Not scored, in the order they came:\n")
    if form != "trec":
        assert ran.out.index("one") < ran.out.index("two") < ran.out.index("three")


def test_a_table_shows_their_texts(rerank: Run) -> None:
    with serve("tei", faults=FAILS) as server:
        documents = ["-d", "one", "-d", "two"]
        arguments = ["-m", "tei/m", "--base-url", server.url, "q", "--on-error", "keep"]
        ran = rerank(*arguments, *documents, "--color", "never", terminal=80)
    assert [line.split() for line in ran.out.splitlines()] == [["\u2013", "one"], ["\u2013", "two"]]


def test_some_scores_are_never_mixed_with_none(rerank: Run) -> None:
    lines = "".join(f"{number}\n" for number in range(200)).encode()
    with serve("tei", faults=every(3, FAILS)) as server:
        arguments = ["-m", "tei/m", "--base-url", server.url, "7", "--on-error", "keep"]
        ran = rerank(*arguments, stdin=lines)
    assert (ran.code, ran.raw) == (3, lines)


def test_a_local_model_ranks_as_ever(rerank: Run) -> None:
    assert rerank("two", "--on-error", "keep", "-m", "bm25", "-n", "1", stdin=LINES).out == "two\n"
