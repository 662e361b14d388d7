"""The query and the sources that a command line names, in every way that it can."""

import io
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from rerank_cli.commands.rank import gather
from rerank_cli.errors import InputError, UsageError
from rerank_cli.inputs.source import Reading
from tests.support.reading import give_stdin


def gathered(*arguments: str, null: bool = False, **options: Any) -> tuple[str, list[str]]:
    """The query, and the texts of the documents."""
    query, inputs = gather(arguments, Reading(), null=null, **options)
    inputs.check()
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
    assert gathered("q", "a.txt", "b.txt") == ("q", ["from a", "from b"])
    assert gathered("q", "a.txt", "-") == ("q", ["from a", "stdin"])


def test_standard_input_is_read_where_nothing_is_named() -> None:
    assert gathered("q") == ("q", ["stdin"])


def test_with_a_query_elsewhere_every_argument_is_a_file() -> None:
    assert gathered("a.txt", "b.txt", query="q") == ("q", ["from a", "from b"])
    assert gathered("a.txt", query_file="query") == ("the\nquery", ["from a"])
    assert gathered("a.txt", query_file="-") == ("stdin", ["from a"])


def test_with_a_query_and_no_argument_standard_input_is_read() -> None:
    assert gathered(query="q") == ("q", ["stdin"])


def test_documents_and_lists() -> None:
    assert gathered("q", documents=["one", "two"]) == ("q", ["one", "two"])
    assert gathered("q", "a.txt", documents=["one"]) == ("q", ["one", "from a"])
    assert gathered("q", files_from="list") == ("q", ["from b", "from a"])
    assert gathered("q", "a.txt", files_from="list") == ("q", ["from a", "from b", "from a"])


def test_with_a_list_nul_ends_names_and_lines_are_lines() -> None:
    Path("b.txt").write_bytes(b"from b\nmore\n")
    assert gathered("q", files_from="nul", null=True) == ("q", ["from b", "more", "from a"])


def test_a_list_that_is_piped_in(monkeypatch: pytest.MonkeyPatch) -> None:
    give_stdin(monkeypatch, b"a.txt\n")
    assert gathered("q", files_from="-") == ("q", ["from a"])


def test_an_empty_list_is_no_reason_to_read_standard_input() -> None:
    Path("list").write_bytes(b"")
    assert gathered("q", files_from="list") == ("q", [])


def test_recursion_without_a_file_begins_here() -> None:
    for name in ("query", "list", "nul"):
        Path(name).unlink()
    assert gathered("q", recursive=True) == ("q", ["from a", "from b"])


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
        gathered(*arguments, **options)


@pytest.mark.parametrize("option", ["query_file", "files_from"])
def test_a_file_of_names_or_of_a_query_that_is_not_there(option: str) -> None:
    with pytest.raises(InputError, match="missing: no such file"):
        gathered("q", **dict[str, Any]({option: "missing"}))
    with pytest.raises(InputError):
        gathered("q", **dict[str, Any]({option: os.curdir}))


def test_nothing_is_waited_for_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.TextIOWrapper):
        def isatty(self) -> bool:
            return True

    for stdin in (None, Terminal(io.BytesIO())):
        monkeypatch.setattr(sys, "stdin", stdin)
        with pytest.raises(UsageError, match="no documents to rank") as raised:
            gathered("q")
        assert "FILE" in str(raised.value.hint)
        with pytest.raises(UsageError, match=r"and a\.txt is a file"):
            gathered("a.txt")


def test_standard_input_that_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(InputError, match="standard input is closed"):
        gathered("a.txt", query_file="-")
    with pytest.raises(InputError, match="standard input is closed"):
        gathered("q", "-")


@pytest.mark.skipif(os.name == "nt", reason="arguments are text there")
def test_arguments_are_utf_8_whatever_the_locale() -> None:
    assert gathered(os.fsdecode(b"caf\xe9"), "a.txt")[0] == "caf\ufffd"
    assert gathered("q", documents=[os.fsdecode("é".encode())])[1] == ["é"]
