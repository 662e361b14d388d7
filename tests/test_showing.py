"""The options that say which results are shown, and what is said of them."""

import re
from pathlib import Path

import pytest

from tests.conftest import Run

FAQ = ("how do I get a refund", "examples/faq.txt")


def test_within_keeps_what_is_near_the_best(rerank: Run) -> None:
    ran = rerank(*FAQ, "--within", "0.02", "--scores")
    scores = [float(line.split("\t")[0]) for line in ran.out.splitlines()]
    assert len(scores) == 2
    assert scores[0] - scores[1] <= 0.02
    assert rerank(*FAQ, "--within", "1").out == rerank(*FAQ).out
    assert rerank(*FAQ, "--within", "-1").code == 2


def test_empty_documents_come_last_if_they_are_kept(rerank: Run) -> None:
    stdin = b"\nstocks fell\n \ncats\n"
    assert rerank("markets", stdin=stdin).out == "stocks fell\ncats\n"
    assert rerank("markets", "--keep-empty", stdin=stdin).out == "stocks fell\ncats\n\n \n"
    few = rerank("markets", "--keep-empty", "-n", "3", stdin=stdin)
    assert few.out == "stocks fell\ncats\n\n"


def test_passages_of_several_files_are_ranked_by_themselves(rerank: Run, tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text("Slugs eat lettuce at night.\n\n" + "Filler text. " * 200)
    arguments = ["slugs", str(tmp_path / "a.md"), "examples/garden.md"]
    documents = rerank(*arguments, "-f", "tsv").out.splitlines()
    passages = rerank(*arguments, "-f", "tsv", "--passages").out.splitlines()
    assert len(documents) == 3
    assert len(passages) > 10
    own = rerank(*arguments, "--passages", "-n", "1").out
    assert "lugs" in own
    assert len(own) < 2000


def test_a_passages_score_and_bytes(rerank: Run) -> None:
    (line,) = rerank("x", "-d", "a fox", "-m", "bm25", "--passages", "--scores").out.splitlines()
    assert re.fullmatch(r"0\ta fox", line)


def test_a_summary_is_three_lines_on_stderr(rerank: Run) -> None:
    ran = rerank("markets", "-v", stdin=b"stocks\n\nstocks\n" + b"word " * 600)
    first, second, third = ran.err.splitlines()
    assert first == "4 documents, 1 empty, 1 duplicate, 0 cut"
    assert re.fullmatch(r"\d+ chunks, \d{3} tokens in \d+\.\d\d s by mini@2", second)
    assert re.fullmatch(r"\d+ pairs on \d+ threads? took \d+\.\d\d s in all; .*", third)
    assert rerank(*FAQ).err == ""


def test_a_summary_is_said_where_there_are_no_results(rerank: Run) -> None:
    ran = rerank("x", "-v", stdin=b"")
    assert ran.code == 1
    assert ran.err.startswith("0 documents, 0 empty, 0 duplicates, 0 cut\n0 chunks, 0 tokens in ")


@pytest.mark.parametrize("null", ["-0", "--null"])
def test_nul_ends_paths_and_records(null: str, rerank: Run) -> None:
    assert rerank(*FAQ, "-f", "paths", null).out == "examples/faq.txt\0"
    assert rerank("x", "-d", "x y", "-m", "bm25", null).out == "x y\0"
