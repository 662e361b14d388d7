"""The query and sources that a command line names, and which results are shown."""

import gzip
import io
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from rerank_cli.cli.app import app
from rerank_cli.cli.option_values import query_and_inputs
from rerank_cli.errors import InputError, UsageError
from tests.conftest import Run
from tests.support.reading import give_stdin

OPTIONS = {"query": "-q", "query_file": "--query-file", "files_from": "--files-from"}


def parse_command_line(
    *arguments: str,
    documents: Sequence[str] = (),
    null: bool = False,
    recursive: bool = False,
    **options: str,
) -> tuple[str, list[str]]:
    """The query, and the texts of the documents, of a command line."""
    line = [word for name, value in options.items() for word in (OPTIONS[name], value)]
    line += [word for text in documents for word in ("-d", text)]
    line += [*["-0"] * null, *["-r"] * recursive, *arguments]
    group = get_command(app)
    command = group.get_command(None, "rank")  # type: ignore[attr-defined]
    query, inputs = query_and_inputs(command.make_context("rank", line))
    inputs.check()
    assert isinstance(query, str)
    return query, [document.text for document in inputs]


@pytest.fixture(autouse=True)
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    give_stdin(monkeypatch, b"stdin\n")
    for name, content in {
        "a.txt": b"from a\n",
        "b.txt": b"from b\n",
        "query": "\ufeff the\nquery \r\n".encode("utf-16-le"),
        "list": b"b.txt\n\na.txt\n",
        "nul": b"b.txt\0a.txt\0",
    }.items():
        Path(name).write_bytes(content)


def test_the_query_comes_first() -> None:
    assert parse_command_line("q", "a.txt", "b.txt") == ("q", ["from a", "from b"])
    assert parse_command_line("q", "a.txt", "-") == ("q", ["from a", "stdin"])


def test_standard_input_is_read_where_nothing_is_named() -> None:
    assert parse_command_line("q") == ("q", ["stdin"])


def test_with_a_query_elsewhere_every_argument_is_a_file() -> None:
    assert parse_command_line("a.txt", "b.txt", query="q") == ("q", ["from a", "from b"])
    assert parse_command_line("a.txt", query_file="query") == ("the\nquery", ["from a"])
    assert parse_command_line("a.txt", query_file="-") == ("stdin", ["from a"])


def test_with_a_query_and_no_argument_standard_input_is_read() -> None:
    assert parse_command_line(query="q") == ("q", ["stdin"])


def test_documents_and_lists() -> None:
    assert parse_command_line("q", documents=["one", "two"]) == ("q", ["one", "two"])
    assert parse_command_line("q", "a.txt", documents=["one"]) == ("q", ["one", "from a"])
    assert parse_command_line("q", files_from="list") == ("q", ["from b", "from a"])
    assert parse_command_line("q", "a.txt", files_from="list") == (
        "q",
        ["from a", "from b", "from a"],
    )


def test_with_a_list_nul_ends_names_and_lines_are_lines() -> None:
    Path("b.txt").write_bytes(b"from b\nmore\n")
    assert parse_command_line("q", files_from="nul", null=True) == (
        "q",
        ["from b", "more", "from a"],
    )


def test_a_list_that_is_piped_in(monkeypatch: pytest.MonkeyPatch) -> None:
    give_stdin(monkeypatch, b"a.txt\n")
    assert parse_command_line("q", files_from="-") == ("q", ["from a"])


def test_an_empty_list_is_no_reason_to_read_standard_input() -> None:
    Path("list").write_bytes(b"")
    assert parse_command_line("q", files_from="list") == ("q", [])


def test_recursion_without_a_file_begins_here() -> None:
    for name in ("query", "list", "nul"):
        Path(name).unlink()
    assert parse_command_line("q", recursive=True) == ("q", ["from a", "from b"])


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ([], {}, "there is no query"),
        (["q"], {"query": "q", "query_file": "query"}, "both give a query"),
        (["q", "-", "-"], {}, "can be read only once"),
        (["-"], {"query_file": "-"}, "can be read only once"),
        (["q", "-"], {"files_from": "-"}, "can be read only once"),
        ([], {"query_file": "-"}, "can be read only once"),
        (["a.txt"], {"query_file": "-", "files_from": "-"}, "can be read only once"),
    ],
)
def test_what_makes_no_sense(arguments: list[str], options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse_command_line(*arguments, **options)


@pytest.mark.parametrize("option", ["query_file", "files_from"])
def test_a_file_of_names_or_of_a_query_that_is_not_there(option: str) -> None:
    with pytest.raises(InputError, match="missing: no such file"):
        parse_command_line("q", **dict[str, Any]({option: "missing"}))
    with pytest.raises(InputError):
        parse_command_line("q", **dict[str, Any]({option: os.curdir}))


def test_nothing_is_waited_for_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.TextIOWrapper):
        def isatty(self) -> bool:
            return True

    for stdin in (None, Terminal(io.BytesIO())):
        monkeypatch.setattr(sys, "stdin", stdin)
        with pytest.raises(UsageError, match="no documents to rank") as error_info:
            parse_command_line("q")
        assert "FILE" in str(error_info.value.hint)
        with pytest.raises(UsageError, match=r"and a\.txt is a file"):
            parse_command_line("a.txt")


def test_standard_input_that_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(InputError, match="standard input is closed"):
        parse_command_line("a.txt", query_file="-")
    with pytest.raises(InputError, match="standard input is closed"):
        parse_command_line("q", "-")


@pytest.mark.skipif(os.name == "nt", reason="arguments are text there")
def test_arguments_are_utf_8_whatever_the_locale() -> None:
    assert parse_command_line(os.fsdecode(b"caf\xe9"), "a.txt")[0] == "caf\ufffd"
    assert parse_command_line("q", documents=[os.fsdecode("é".encode())])[1] == ["é"]


FAQ = ("how do I get a refund", "examples/faq.txt")


@pytest.mark.slow
def test_within_keeps_what_is_near_the_best(rerank: Run) -> None:
    outcome = rerank(*FAQ, "--within", "0.02", "--scores")
    scores = [float(line.split("\t")[0]) for line in outcome.out.splitlines()]
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


@pytest.mark.slow
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
    (line,) = rerank("fox", "-d", "a fox", "-m", "bm25", "--passages", "--scores").out.splitlines()
    assert re.fullmatch(r"0\.\d+\ta fox", line)


def test_a_summary_is_three_lines_on_stderr(rerank: Run) -> None:
    outcome = rerank("markets", "-v", stdin=b"stocks\n\nstocks\n" + b"word " * 600)
    first, second, third = outcome.err.splitlines()
    assert first == "4 documents, 1 empty, 1 duplicate, 0 cut"
    assert re.fullmatch(r"\d+ passages, \d{3} tokens in \d+\.\d\d s by mini@3", second)
    assert re.fullmatch(r"\d+ pairs on \d+ threads?; the model is .*", third)
    assert rerank(*FAQ).err == ""


def test_a_summary_is_said_where_there_are_no_results(rerank: Run) -> None:
    outcome = rerank("x", "-v", stdin=b"")
    assert outcome.code == 1
    assert outcome.err.startswith(
        "0 documents, 0 empty, 0 duplicates, 0 cut\n0 passages, 0 tokens in "
    )


@pytest.mark.parametrize("null", ["-0", "--null"])
def test_nul_ends_paths_and_records(null: str, rerank: Run) -> None:
    assert rerank(*FAQ, "-f", "paths", null).out == "examples/faq.txt\0"
    assert rerank("x", "-d", "x y", "-m", "bm25", null).out == "x y\0"


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["-f", "csv"], "-f csv does not write records as they came"),
        (["-f", "paths"], "-f paths does not"),
        (["--json"], "-f json does not"),
        (["-d", "text"], "other documents are ranked with it"),
        (["b.txt"], "other documents are ranked with it"),
        (["--passages"], "its passages are ranked, and not its records"),
        (["--unit", "file"], "its passages are ranked, and not its records"),
        (["--scores"], "--scores changes its records"),
        (["--files-from", "list", "-0"], "-0 changes its records"),
        (["-0", "--unit", "paragraph"], "rerank cannot write a file of its kind"),
        (["--grep"], "rerank cannot write a file of its kind"),
        (["--input-format", "json"], "rerank cannot write a file of its kind"),
        (["--input-format", "html", "--unit", "line"], "rerank cannot write a file of its kind"),
        (["-n", "1"], "--top-n leaves records out"),
        (["--min-score", "0.1"], "--min-score leaves records out"),
        (["--within", "1"], "--within leaves records out"),
        (["--candidates", "5"], "--candidates leaves records out"),
    ],
)
def test_no_file_that_is_ranked_is_replaced_by_less(
    rerank: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: list[str], reason: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("list").write_text("a.txt")
    file = [] if "list" in options else ["a.txt"]
    ran = rerank("from", *file, *options, "-o", "a.txt", "-m", "./no such model")
    assert (ran.code, ran.out) == (2, "")
    assert f"-o a.txt: cannot sort this file in place: {reason}" in ran.err
    assert "hint: -o another file" in ran.err
    assert Path("a.txt").read_text() == "from a\n"


def test_a_compressed_file_is_not_replaced(
    rerank: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    content = gzip.compress(b"a fox\n")
    Path("a.txt").write_bytes(content)
    ran = rerank("fox", "a.txt", "-o", "a.txt", "-m", "bm25")
    assert (ran.code, Path("a.txt").read_bytes()) == (2, content)
    assert "the results are not compressed" in ran.err


def test_a_file_whose_content_is_not_what_its_name_says_is_not_replaced(
    rerank: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    content = '[{"text": "dog"},\n {"text": "fox"}]\n'
    Path("a.jsonl").write_text(content)
    ran = rerank("fox", "a.jsonl", "-o", "a.jsonl", "-m", "bm25")
    assert (ran.code, Path("a.jsonl").read_text()) == (2, content)
    assert "not replaced, because the results are not all that it has" in ran.err


@pytest.mark.parametrize(
    ("lines", "count"),
    [("error\n" * 3, "2 of 3"), ("error\n" * 2, ""), ("error a\nerror b\nerror c\n", "")],
)
def test_a_person_is_told_of_lines_that_come_again(lines: str, count: str, rerank: Run) -> None:
    ran = rerank("error", "-m", "bm25", stdin=lines.encode(), terminal=80)
    hint = "results repeat a line: sort -u FILE | rerank ranks each line once\n"
    assert ("repeat a line" in ran.err) == bool(count)
    assert not count or f"hint: {count} {hint}" in ran.err
    assert len(ran.out.splitlines()) == len(lines.splitlines())  # and they stay
    assert rerank("error", "-m", "bm25", stdin=lines.encode()).err == ""
