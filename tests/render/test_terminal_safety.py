"""Nothing that a document holds moves a terminal's cursor or sets its title; pipes get it all."""

import json
import re
from pathlib import Path

import pytest

from rerank_cli.render import EXPLAIN_FORMATS, Format
from tests.conftest import Run, process

NASTY = (
    "fox \x1b]0;title\x07 \x1b[2J \x1b]8;;http://x\x1b\\ \x9b31m \x9d0;t\x9c \x85 "
    "\u202e\u2066\u200f\u061c \x08\x7f\ttab \rover"
)
ACTIVE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")


@pytest.fixture
def nasty(tmp_path: Path) -> str:
    path = tmp_path / "a\x1b[2J\x9b\u202e.jsonl"
    path.write_text(json.dumps({"id": NASTY, "text": NASTY, NASTY: NASTY}) + "\n")
    return str(path)


@pytest.mark.parametrize("options", [[], ["--explain", "--full"], ["--scores", "-0"]])
@pytest.mark.parametrize("format_", Format)
def test_no_format_lets_a_control_character_through(
    format_: Format, options: list[str], rerank: Run, tmp_path: Path
) -> None:
    path = tmp_path / "a\x1b[2J\x9b\u202e.txt"
    path.write_bytes(NASTY.encode() + b"\r\n \x1b\x9b\xff fox\r\n")
    arguments = ["fox", str(path), "-f", format_, "-m", "bm25", "--color", "never"]
    arguments += ["--unit", "line", "--keep-empty"]
    ran = rerank(*arguments, *options, terminal=80)
    refused = "--explain" in options and format_ not in EXPLAIN_FORMATS
    refused |= "--scores" in options and format_ in (Format.PATHS, Format.GREP)
    assert (ran.code, bool(ran.out)) == ((2, False) if refused else (0, True))
    assert not ACTIVE.search(ran.out)


@pytest.mark.parametrize("format_", Format)
def test_nor_do_records_and_their_ids(format_: Format, nasty: str, rerank: Run) -> None:
    ran = rerank("fox", nasty, "-f", format_, "-m", "bm25", "--color", "never", terminal=80)
    assert ran.code == 0, ran.err
    assert ran.out
    assert not ACTIVE.search(ran.out)


def test_json_on_a_terminal_is_still_the_same_json(rerank: Run) -> None:
    arguments = ["fox", "-d", NASTY.replace("\0", ""), "-m", "bm25"]
    for format_ in ("json", "jsonl"):
        piped, shown = (
            rerank(*arguments, "-f", format_),
            rerank(*arguments, "-f", format_, terminal=80),
        )
        assert piped.out != shown.out
        assert json.loads(piped.out) == json.loads(shown.out)


def test_a_pipe_gets_every_byte(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(NASTY.encode() + b"\r\n")
    ran = process("fox", str(tmp_path / "a.txt"), "-m", "bm25")
    assert ran.stdout == NASTY.encode() + b"\r\n"
