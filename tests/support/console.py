"""The commands that a page shows, and whether what they print is what it says.

A block that is marked `console` is what a reader sees on a terminal of 80 columns: commands behind
`$`, and below each what it prints. All blocks of a page run in their order, in one folder that has
a copy of examples/. A file that is shown by `cat` before it exists is made of what is shown.

`…` stands for any text in a line, and for any lines where it is alone in one. Numbers with a
decimal point may differ by 0.05, because scores are not the same on every processor.
Progress that is written over does not count. `rerank` runs in this process, the rest in bash.
"""

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import Run

WIDTH = 80
TOLERANCE = 0.05
_BARS = re.compile(r"[█▉▊▋▌▍▎▏]+")
_DECIMAL = re.compile(r"\d+\.\d+")
_COMPLETION = re.compile(r"[\d,]+ [a-z]+ in \d.*")
_ESCAPES = re.compile(r"\x1b\][^\x1b\x07]*(?:\x1b\\|\x07)|\x1b\[[0-9;?]*[A-Za-z]")


def blocks(text: str, language: str) -> list[list[str]]:
    """The lines of a page's blocks that are marked with a language."""
    bodies = re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    return [block.splitlines() for block in bodies]


def steps(block: list[str]) -> Iterator[tuple[str, list[str]]]:
    """The commands of a console block, each with the lines that it prints."""
    command, output = "", list[str]()
    for line in [*block, "$ "]:
        if line.startswith("$ "):
            if command:
                yield command, output
            command, output = line[2:].partition("  #")[0].strip(), []
        else:
            output.append(line)


class Shell:
    """Runs the commands of one page, in a folder of its own."""

    def __init__(self, rerank: Run, folder: Path) -> None:
        self._rerank = rerank
        self._folder = folder
        self._code = 0

    def run(self, command: str, output: list[str]) -> str:
        """Run a command and return its output. Makes the file for `cat` if it is missing."""
        if command == "echo $?":
            return f"{self._code}\n"
        cat_match = re.fullmatch(r"cat ([\w./-]+)", command)
        if cat_match and not (path := self._folder / cat_match[1]).exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("".join(f"{line}\n" for line in output), encoding="utf-8")
        data: bytes | None = None
        messages = ""
        parts = _stages(command)
        for number, part in enumerate(parts, 1):
            if part.split()[0] == "rerank":
                data, err = self._run_rerank(part, data, is_last=number == len(parts))
            else:
                data, err = self._run_program(part, data)
            messages += err
        return messages + (data or b"").decode()

    def _run_rerank(self, part: str, data: bytes | None, *, is_last: bool) -> tuple[bytes, str]:
        part, _, target = part.partition(" > ")
        part, _, source = part.partition(" < ")
        if source:
            data = (self._folder / source.strip()).read_bytes()
        words = self._bash(f"printf '%s\\0' {part}", None).stdout.decode().split("\0")[1:-1]
        on_terminal = WIDTH if is_last and not target else None
        outcome = self._rerank(*words, stdin=data, terminal=on_terminal)
        self._code = outcome.code
        if target:
            (self._folder / target.strip()).write_bytes(outcome.raw)
        return (b"" if target else outcome.raw), outcome.err

    def _run_program(self, part: str, data: bytes | None) -> tuple[bytes, str]:
        if shutil.which(name := part.split()[0]) is None:
            pytest.skip(f"needs {name}")
        process = self._bash(part, data)
        self._code = process.returncode
        return process.stdout, process.stderr.decode()

    def _bash(self, command: str, data: bytes | None) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            ["bash", "-c", command], input=data or b"", capture_output=True, cwd=self._folder
        )


def _stages(command: str) -> list[str]:
    """The parts of a pipeline: cut at each | that is outside of quotes."""
    quote, parts = "", [""]
    for character in command:
        if quote:
            quote = "" if character == quote else quote
        elif character in "'\"":
            quote = character
        elif character == "|":
            parts.append("")
            continue
        parts[-1] += character
    return [part.strip() for part in parts]


def visible(text: str) -> str:
    """The text that stays on a terminal: no colours, and no progress that was written over."""
    lines = _ESCAPES.sub("", text).replace("\r\n", "\n").split("\n")
    parts = (line.rpartition("\r") for line in lines)
    # Of progress that a slow machine shows stays one line: `12 documents in 1 s`.
    return "\n".join(last for _, mark, last in parts if not (mark and _COMPLETION.fullmatch(last)))


def is_printed(expected_lines: list[str], text: str) -> bool:
    """Whether a text is the one that a page shows."""
    lines = [_words(line) for line in visible(text).splitlines()]
    pattern, numbers = "", list[float]()
    for line in expected_lines:
        if line.strip() == "…":
            pattern += r"(?:.*\n)*?"
            continue
        parts = (re.escape(part).replace("…", ".*") for part in _DECIMAL.split(_words(line)))
        pattern += r"(\d+\.\d+)".join(parts) + r"\n"
        numbers += map(float, _DECIMAL.findall(line))
    match = re.fullmatch(pattern, "".join(f"{line}\n" for line in lines))
    return match is not None and all(
        abs(float(number) - expected_number) <= TOLERANCE
        for number, expected_number in zip(match.groups(), numbers, strict=True)
    )


def _words(line: str) -> str:
    """A line without bars, and with single spaces."""
    return " ".join(_BARS.sub("", line).split())
