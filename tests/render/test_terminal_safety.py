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
def nasty_path(tmp_path: Path) -> str:
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
    outcome = rerank(*arguments, *options, terminal=80)
    is_refused = "--explain" in options and format_ not in EXPLAIN_FORMATS
    is_refused |= "--scores" in options and format_ in (Format.PATHS, Format.GREP)
    assert (outcome.code, bool(outcome.out)) == ((2, False) if is_refused else (0, True))
    assert not ACTIVE.search(outcome.out)


@pytest.mark.parametrize("format_", Format)
def test_nor_do_records_and_their_ids(format_: Format, nasty_path: str, rerank: Run) -> None:
    outcome = rerank(
        "fox", nasty_path, "-f", format_, "-m", "bm25", "--color", "never", terminal=80
    )
    assert outcome.code == 0, outcome.err
    assert outcome.out
    assert not ACTIVE.search(outcome.out)


def test_json_on_a_terminal_is_still_the_same_json(rerank: Run) -> None:
    arguments = ["fox", "-d", NASTY.replace("\0", ""), "-m", "bm25"]
    for format_ in ("json", "jsonl"):
        pipe_outcome, terminal_output = (
            rerank(*arguments, "-f", format_),
            rerank(*arguments, "-f", format_, terminal=80),
        )
        assert pipe_outcome.out != terminal_output.out
        assert json.loads(pipe_outcome.out) == json.loads(terminal_output.out)


def test_a_pipe_gets_every_byte(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(NASTY.encode() + b"\r\n")
    outcome = process("fox", str(tmp_path / "a.txt"), "-m", "bm25")
    assert outcome.stdout == NASTY.encode() + b"\r\n"
