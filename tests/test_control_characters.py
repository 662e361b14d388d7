"""What goes to a terminal can neither move its cursor nor turn the order of characters.

Every command is given texts that would, wherever it takes one, and is watched by a person.
"""

import os
import re
import sys
import unicodedata
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.conftest import Outcome, Run

# A title, a cleared screen, a link, a bell, a C1 control, and characters that turn the line.
HOSTILE = "x\x1b]0;title\x07\x1b[2J\x1b]8;;http://x\x1b\\\x08\x7f\x9b31m\u202e\u2066\u200f\u061cy"
NAME = HOSTILE.replace("/", "")
QUERY = f"late {HOSTILE}"
# What this program writes itself: colours, and the wiping of the line of progress.
_OWN = re.compile(r"\x1b\[[0-9;]*m|\r\x1b\[K")


def hostile_characters(text: str) -> set[str]:
    """The characters in a text that a terminal obeys."""
    rest = _OWN.sub("", text).replace("\n", "").replace("\t", "")
    bidirectional = set("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
    return {c for c in rest if unicodedata.category(c) == "Cc" or c in bidirectional}


def check(outcome: Outcome, *, shows: bool = True) -> None:
    assert outcome.code != 70, outcome.err
    assert not hostile_characters(outcome.out + outcome.err), repr(outcome.out + outcome.err)
    if shows:
        assert "␛" in outcome.out + outcome.err or "\\u001b" in outcome.out + outcome.err


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Files whose names and content are hostile."""
    (tmp_path / f"{NAME}.txt").write_text(f"it is late {HOSTILE}\nthe cat {HOSTILE}\n")
    (tmp_path / f"{NAME}.md").write_text(f"# {HOSTILE}\n\nit is late {HOSTILE}\n")
    (tmp_path / f"{NAME}.csv").write_text(f'text,"{HOSTILE}"\n"late {HOSTILE}",1\n')
    record = '{"id": "%s", "query": "late %s", "documents": ["late %s", "cat"]}\n'
    # Only the first may stand in JSON as it is.
    plain = "\x7f\x9b31m\u202e\u2066y"
    (tmp_path / "queries.jsonl").write_text(record % (plain, plain, plain))
    (tmp_path / "bad.jsonl").write_text(f"{HOSTILE}\n")
    return tmp_path


FORMATS = ("table", "text", "tsv", "csv", "json", "jsonl", "trec", "paths", "md")


@pytest.mark.parametrize("format_", FORMATS)
def test_results(format_: str, folder: Path, rerank: Run) -> None:
    for pattern in ("*.txt", "*.md", "*.csv"):
        paths = [str(path) for path in folder.glob(pattern)]
        check(rerank(QUERY, *paths, "-m", "bm25", "-f", format_, "-v", terminal=80))


def test_a_batch(folder: Path, rerank: Run) -> None:
    for name in ("queries.jsonl", "bad.jsonl", f"{NAME}.txt"):
        check(rerank("batch", str(folder / name), "-m", "bm25", "-v", terminal=80), shows=False)


@pytest.mark.skipif(sys.platform == "win32", reason="no terminals that have a path")
@pytest.mark.parametrize(
    ("first", "name", "more"),
    [
        ("late", f"{NAME}.txt", ()),
        ("late", f"{NAME}.txt", ("-f", "md")),
        ("batch", "queries.jsonl", ()),
    ],
    ids=["text", "md", "batch"],
)
def test_a_terminal_that_is_named(
    first: str, name: str, more: Sequence[str], folder: Path, rerank: Run
) -> None:
    ours, theirs = os.openpty()
    path = str(folder / name)
    outcome = rerank(first, path, "-m", "bm25", *more, "-o", os.ttyname(theirs))
    assert outcome.code == 0, outcome.err
    output = os.read(ours, 1 << 16).decode().replace("\r\n", "\n")
    assert "late" in output
    assert not hostile_characters(output)


DRY = ("-m", "tei/m", "--base-url", "http://localhost", "--dry-run", "-v")


def test_a_dry_run(rerank: Run) -> None:
    for more in ((), ("-f", "json")):
        outcome = rerank(
            "\x9b31m \u202e \x7f", "-d", "late \x9b31m \u202e \x7f", *DRY, *more, terminal=80
        )
        assert outcome.code == 0
        check(outcome, shows=False)
        assert "\ufffd31m" in outcome.out or "\\u009b31m" in outcome.out


@pytest.mark.parametrize(
    "arguments",
    [
        (HOSTILE,),
        (HOSTILE, HOSTILE),
        ("q", "-m", HOSTILE),
        ("q", "-d", "x", "-m", f"./{HOSTILE}"),
        ("q", "-d", "x", "-m", f"cohere/{HOSTILE}"),
        ("q", "-d", "x", "-m", "tei/m", "--base-url", HOSTILE),
        ("q", "-d", "x", "-m", "tei/m", "--base-url", f"http://{HOSTILE}"),
        ("q", "-d", "x", "-m", "tei/m", "--base-url", f"http://localhost:1/{HOSTILE}"),
        ("q", "-d", "x", "-m", "bm25", "-o", f"{HOSTILE}/{HOSTILE}"),
        ("q", "-d", "x", f"--{HOSTILE}"),
        ("q", "-d", "x", "-n", HOSTILE),
        ("q", "-d", "x", "--unit", HOSTILE),
        ("q", "--files-from", HOSTILE),
        ("help", HOSTILE),
        ("batch", HOSTILE),
        ("batch", HOSTILE, "-o", HOSTILE),
        ("eval", HOSTILE),
        ("models", "show", HOSTILE),
        ("models", "pull", HOSTILE),
        ("models", "rm", f"hf:{HOSTILE}"),
        ("models", "use", HOSTILE),
        ("models", "use", f"./{HOSTILE}"),
        ("models", "path", HOSTILE),
        ("models", "export", HOSTILE, HOSTILE),
        ("models", HOSTILE),
        ("providers", "show", HOSTILE),
        ("providers", "check", f"tei/{HOSTILE}", "--base-url", "http://localhost:1"),
        ("config", "get", HOSTILE),
        ("config", "set", HOSTILE, "x"),
        ("config", "set", "top-n", HOSTILE),
        ("config", "unset", HOSTILE),
        ("config", "set-key", HOSTILE),
        ("doctor", "-m", HOSTILE),
        ("doctor", "-m", f"./{HOSTILE}"),
    ],
    ids=lambda arguments: " ".join(map(ascii, arguments))[:60],
)
def test_messages(arguments: Sequence[str], rerank: Run) -> None:
    check(rerank(*arguments, stdin=b"x\n", terminal=80), shows=False)


def test_settings_and_providers(home: Path, rerank: Run) -> None:
    check(rerank("config", "set", "model", HOSTILE, terminal=80), shows=False)
    for command in ("config", "config get model", "config list --json", "models", "doctor"):
        check(rerank(*command.split(), terminal=80), shows=command != "models")
    (home / "config.toml").write_text(
        f'"{ascii(HOSTILE)[1:-1].replace(chr(92) + "x", chr(92) + "u00")}" = 1\n'
    )
    check(rerank("q", "-d", "x", terminal=80))
    (home / "config.toml").unlink()
    own = (
        '[own]\nlike = "tei"\ntitle = "\\u001b[2J\\u202e"\ndocs = "\\u009b31m"\n'
        'example = "\\u001b]0;x"\n'
        'url = "http://localhost/\\u001b[2J"\n'
    )
    (home / "providers.toml").write_text(own)
    for command in (
        "providers",
        "providers show own",
        "providers show own --json",
        "providers show own --toml",
        "providers list --json",
    ):
        check(rerank(*command.split(), terminal=80))
    (home / "providers.toml").write_text('["\\u001b[2J"]\nurl = 1\n')
    check(rerank("providers", terminal=80))
    check(rerank("q", "-d", "x", "-m", "\x1b[2J/x", terminal=80))


def test_variables(rerank: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RERANK_TOP_N", "RERANK_MODEL", "RERANK_HOME", "HTTP_PROXY", "SSL_CERT_FILE"):
        with monkeypatch.context() as patch:
            patch.setenv(name, HOSTILE)
            outcome = rerank("q", "-d", "x", "-m", "tei/m", "--base-url", "https://example.invalid:1",
                         "--retries", "0", terminal=80)  # fmt: skip
            check(outcome, shows=False)
            check(rerank("config", "path", terminal=80), shows=False)


def test_in_a_pipe_nothing_is_changed(folder: Path, rerank: Run) -> None:
    path = folder / f"{NAME}.txt"
    assert rerank(QUERY, str(path), "-m", "bm25").raw == path.read_bytes()
