"""Words for sizes and durations, columns, and JSON: each made in one way."""

import io
import json
import os
import re
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from rerank_cli.terminal import (
    Terminal,
    find_links,
    format_columns,
    format_count,
    format_duration,
    format_json,
    format_size,
    say,
    warn,
)
from tests.conftest import ROOT

UNITS = {"bytes": 1, "byte": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}


class FakeTerminal(io.StringIO):
    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


@given(st.lists(st.text("ab-/", min_size=1, max_size=30), min_size=1), st.integers(20, 100))
def test_what_a_terminal_is_told_is_broken_between_words(words: list[str], columns: int) -> None:
    terminal, file = FakeTerminal(), io.StringIO()
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("COLUMNS", str(columns))
        for stream in (terminal, file):
            say(stream, " ".join(words))
    assert terminal.getvalue().split() == words
    for line in terminal.getvalue().splitlines():
        assert len(line) <= columns or " " not in line
    assert file.getvalue() == f"{' '.join(words)}\n"


def test_a_hint_stays_on_one_line_to_be_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "20")
    terminal = FakeTerminal()
    warn(terminal, "the model is not here", "rerank models pull bge-reranker-base")
    assert terminal.getvalue() == (
        "rerank: the model is\nnot here\n\nhint: rerank models pull bge-reranker-base\n"
    )


@pytest.mark.parametrize(
    ("size", "words"),
    [
        (0, "0 bytes"), (1, "1 byte"), (999, "999 bytes"), (1000, "1 kB"), (5041, "5.05 kB"),
        (64_000_000, "64 MB"), (64_000_001, "64.1 MB"), (999_001, "1 MB"), (296_400_000, "297 MB"),
        (2_271_000_000, "2.28 GB"), (1234 * 10**12, "1240 TB"),
    ],
)  # fmt: skip
def test_a_size_in_words(size: int, words: str) -> None:
    assert format_size(size) == words


@given(st.integers(0, 10**16))
def test_a_size_is_rounded_up_by_less_than_a_hundredth(size: int) -> None:
    number, unit = format_size(size).split()
    assert size <= float(number) * UNITS[unit] * (1 + 1e-9)
    assert float(number) * UNITS[unit] <= size * 1.01 * (1 + 1e-9)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "0 s"), (0.2, "1 s"), (45, "45 s"), (60, "1 min"), (199.5, "3 min 20 s"),
        (3599.5, "1 h"), (7261, "2 h 2 min"), (86_400, "1 d"), (100_000, "1 d 4 h"),
    ],
)  # fmt: skip
def test_a_duration_in_words(seconds: float, words: str) -> None:
    assert format_duration(seconds) == words


@pytest.mark.parametrize(
    ("number", "noun", "words"),
    [
        (0, "query", "0 queries"),
        (1, "query", "1 query"),
        (1_204, "document", "1,204 documents"),
        (2, "key", "2 keys"),
    ],
)
def test_a_count_in_words(number: int, noun: str, words: str) -> None:
    assert format_count(number, noun) == words


COUNTED_TEXTS = (
    "document", "query", "passage", "record", "label", "result", "pair", "score", "file", "model",
    "request", "grade", "judgement", "candidate",
)  # fmt: skip
# What is two at least wherever it stands so, or no number of these.
MANY = {
    "broken", "count", "estimate(number)", "expected", "least", "len(files)", "len(graphs)",
    "len(rows)", "len(scored.values)", "model", "models", "most", "tariff.documents", "total",
    "totals.answered",
}  # fmt: skip


def test_counts_agree_with_their_nouns() -> None:
    """No message has a number and a plural noun that `format_count` has not put together."""
    nouns = "|".join(format_count(2, noun)[2:] for noun in COUNTED_TEXTS)
    counts = re.compile(rf"\{{([^{{}}]+?)(?::[^{{}}]*)?\}} (?:{nouns})\b(?!/)")
    names = [
        f"{path.name}: {match[0]}"
        for path in (ROOT / "rerank_cli").rglob("*.py")
        for match in counts.finditer(path.read_text(encoding="utf-8"))
        if not match[1].isupper() and match[1] not in MANY
    ]
    assert names == []


def test_columns_are_as_wide_as_their_cells() -> None:
    rows = [("a", "one\nline", "x"), ("longer", "", ""), ("\x1b[2J", "b", "c")]
    assert format_columns(rows).decode().splitlines() == [
        "a       one line  x",
        "longer",
        "␛[2J    b         c",
    ]
    assert format_columns([]) == b""


WIDE = [
    ("NAME", "STATE", "SERVICE"),
    ("short", "here", "One of the services"),
    ("a-name-that-is-longer-than-others", "away", "Two"),
]


@pytest.mark.parametrize(
    ("width", "lines"),
    [
        (
            60,
            [
                "NAME                               STATE  SERVICE",
                "short                              here   One of the",
                "                                          services",
                "a-name-that-is-longer-than-others  away   Two",
            ],
        ),
        (
            46,
            [
                "NAME                STATE  SERVICE",
                "short               here   One of the services",
                "a-name-that-is-longer-than-others",
                "                    away   Two",
            ],
        ),
        (
            28,
            [
                "NAME", "  STATE  SERVICE",
                "short", "  here  One of the services",
                "a-name-that-is-longer-than-others", "  away  Two",
            ],
        ),
    ],
)  # fmt: skip
def test_columns_that_are_too_wide_lose_nothing(width: int, lines: list[str]) -> None:
    assert format_columns(WIDE, width=width).decode().splitlines() == lines


@example(rows=[("a" * 15, "", "", "")], width=20)
@given(
    rows=st.lists(
        st.tuples(*[st.text(st.sampled_from("ab c"), max_size=30).map(str.strip)] * 4),
        min_size=1, max_size=6,
    ),
    width=st.integers(20, 130),
)  # fmt: skip
def test_columns_of_any_width_have_every_word_in_its_row(
    rows: list[tuple[str, ...]], width: int
) -> None:
    text = format_columns(rows, width=width).decode()
    assert text.split() == " ".join(cell for row in rows for cell in row).split()
    longest = max(len(cell) for row in rows for cell in row)
    assert all(len(line) <= max(width, longest + 2) for line in text.splitlines())


def table(*, interactive: bool) -> str:
    stdout = io.BytesIO()
    terminal = Terminal(stdout, io.StringIO(), interactive=interactive, color=False, width=8)
    terminal.write_table([("a", "b\tb"), ("aa", "long text")], heads=("N", "TEXT"))
    return stdout.getvalue().decode()


def test_a_person_gets_heads_and_columns_and_a_program_tabs() -> None:
    assert table(interactive=True) == "N\n  TEXT\na\n  b␉b\naa\n  long\n  text\n"
    assert table(interactive=False) == "a\tb␉b\naa\tlong text\n"


def test_json_holds_any_text() -> None:
    value = {"ü": ["\udcff", None, 1.5]}
    content = format_json(value)
    assert content.startswith('{\n  "ü": [\n'.encode())
    assert content.endswith(b"]\n}\n")
    assert json.loads(content) == value


@pytest.mark.parametrize(
    ("width", "lines"),
    [
        (36, ["name   one two three four five six", "       seven eight", "other  x"]),
        (30, ["name", "  one two three four five six", "  seven eight", "other  x"]),
        (None, ["name   one two three four five six seven eight", "other  x"]),  # for a program
    ],
)
def test_facts_are_wrapped_beside_their_names(width: int | None, lines: list[str]) -> None:
    stdout = io.BytesIO()
    terminal = Terminal(stdout, io.StringIO(), width is not None, False, width or 20)
    terminal.write_facts([("name", "one two three four five six seven eight"), ("other", "x")])
    assert stdout.getvalue().decode().splitlines() == lines


@pytest.mark.parametrize(
    ("variables", "url"),
    [
        ({}, ""),
        ({"TERM": "xterm-256color"}, ""),
        ({"TERM": "xterm-256color", "VTE_VERSION": "7603"}, "file://{host}{path}"),
        ({"TERM": "xterm-256color", "VTE_VERSION": "4601"}, ""),
        ({"VTE_VERSION": "5000"}, ""),
        ({"VTE_VERSION": "7603", "FORCE_HYPERLINK": "0"}, ""),
        ({"TERM": "xterm", "FORCE_HYPERLINK": "1"}, "file://{host}{path}"),
        ({"TERM": "xterm-kitty"}, "file://{host}{path}#{line}"),
        ({"TERM_PROGRAM": "vscode", "TERM_PROGRAM_VERSION": "1.72.0"}, "file://{path}#{line}"),
        ({"TERM_PROGRAM": "vscode", "TERM_PROGRAM_VERSION": "1.60.0"}, ""),
        ({"TERM_PROGRAM": "iTerm.app", "TERM_PROGRAM_VERSION": "3.4.1"}, "file://{host}{path}"),
        ({"TERM_PROGRAM": "iTerm.app", "TERM_PROGRAM_VERSION": "3.0.15"}, ""),
        ({"TERM_PROGRAM": "Apple_Terminal", "TERM_PROGRAM_VERSION": "455"}, ""),
        ({"TERM_PROGRAM": "ghostty", "TERM": "xterm-ghostty"}, "file://{host}{path}"),
        ({"TERM": "foot"}, "file://{host}{path}"),
        ({"KONSOLE_VERSION": "220401"}, "file://{host}{path}"),
        ({"KONSOLE_VERSION": "190800"}, ""),
        (
            {"TMUX": "/tmp/x", "TERM": "tmux-256color", "TERM_PROGRAM": "tmux",
             "TERM_PROGRAM_VERSION": "3.4"},
            "file://{host}{path}",
        ),
        (
            {"TMUX": "/tmp/x", "TERM": "screen", "TERM_PROGRAM": "tmux",
             "TERM_PROGRAM_VERSION": "3.3a", "VTE_VERSION": "7603"},
            "",
        ),
        ({"TERM": "screen.xterm-256color", "VTE_VERSION": "7603"}, ""),
        ({"VTE_VERSION": "many", "KONSOLE_VERSION": ""}, ""),
    ],
)  # fmt: skip
def test_only_known_terminals_get_links(variables: dict[str, str], url: str) -> None:
    assert find_links(variables) == url


def test_the_handler_of_a_signal_may_write_while_something_is_written() -> None:
    """As that of a batch does at Ctrl-C: Python lets no thread into a buffer that it is in."""
    reading, writing = os.pipe()
    interruptions = ["finishing"]

    class InterruptingStream(io.FileIO):
        def write(self, content: Any) -> int:
            if interruptions:
                terminal.wipe_line()
                terminal.say(interruptions.pop())
            return super().write(content)

    stderr = io.TextIOWrapper(
        io.BufferedWriter(InterruptingStream(writing, "w")), "utf-8", line_buffering=True
    )
    terminal = Terminal(
        io.BytesIO(), stderr, interactive=False, color=False, width=80, watched=True
    )
    terminal.show("1 record")
    stderr.close()
    assert os.read(reading, 100) == b"\r\x1b[Kfinishing\n1 record"
    os.close(reading)
