"""The command line by example: every case of tests/cases, from standard input and from a file.

A case has a `name`, `args`, what is read (`input`, or `input_hex` for bytes that are no text) and
what must come of it: `out` exactly, `err` as a pattern for all of stderr (nothing, if it is not
given) and `code`. Its input is read from a file called `file`, whose path stands for {file} in
`args`, or at their end; and then from standard input, with the options in
`stdin` besides. In `out` and `err` {file} is the file's path, or - for standard input. `files` are
others that lie beside it (`files_hex` those that are no text), `config` is what config.toml says,
`env` are variables, and `terminal` is the width of one. `written` are files that must be there
afterwards, and what they hold. `ways` may leave one of the two out.
"""

import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Run

FOLDER = Path(__file__).parent / "cases"


@dataclass(frozen=True)
class Case:
    """One case, as its table has it."""

    name: str
    args: list[str]
    out: str | None = None
    out_hex: str | None = None
    input: str | None = None
    input_hex: str | None = None
    file: str = "input.txt"
    stdin: list[str] = field(default_factory=list)
    ways: list[str] = field(default_factory=lambda: ["file", "stdin"])
    files: dict[str, str] = field(default_factory=dict)
    files_hex: dict[str, str] = field(default_factory=dict)
    written: dict[str, str] = field(default_factory=dict)
    config: str | None = None
    env: dict[str, str] = field(default_factory=dict)
    terminal: int | None = None
    err: str = ""
    code: int = 0

    @property
    def content(self) -> bytes | None:
        if self.input_hex is not None:
            return bytes.fromhex(self.input_hex)
        return None if self.input is None else self.input.encode()

    @property
    def others(self) -> dict[str, bytes]:
        """What lies beside the input, by name."""
        texts = {name: text.encode() for name, text in self.files.items()}
        return texts | {name: bytes.fromhex(text) for name, text in self.files_hex.items()}

    def expected(self, place: str) -> bytes:
        if self.out_hex is not None:
            return bytes.fromhex(self.out_hex)
        return (self.out or "").replace("{file}", place).encode()


def cases() -> Iterator[tuple[str, Case]]:
    """Every case, with its subject."""
    for path in sorted(FOLDER.glob("*.toml")):
        for table in tomllib.loads(path.read_text(encoding="utf-8"))["case"]:
            yield path.stem, Case(**table)


def runs() -> Iterator[Any]:
    """Every case as often as it can be run."""
    for subject, case in cases():
        for way in ["file"] if case.content is None else case.ways:
            yield pytest.param(case, way, id=f"{subject}: {case.name} ({way})")


@pytest.mark.parametrize(("case", "way"), [*runs()])
def test_case(
    case: Case, way: str, rerank: Run, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, content in case.others.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content)
    if case.config is not None:
        (home / "config.toml").write_text(case.config, encoding="utf-8")
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    for variable, value in case.env.items():
        monkeypatch.setenv(variable, value)
    place, arguments, stdin = case.file, list(case.args), None
    if way == "stdin":
        place, stdin = "-", case.content
        arguments += case.stdin
    elif case.content is not None:
        (tmp_path / case.file).write_bytes(case.content)
        if not any("{file}" in argument for argument in arguments):
            arguments.append("{file}")
    arguments = [argument.replace("{file}", place) for argument in arguments]
    outcome = rerank(*arguments, stdin=stdin, terminal=case.terminal)
    assert outcome.raw == case.expected(place)
    assert re.fullmatch(case.err.replace("{file}", re.escape(place)), outcome.err), outcome.err
    assert outcome.code == case.code
    for name, text in case.written.items():
        assert (tmp_path / name).read_bytes() == text.encode()


def test_there_are_enough_cases_and_no_two_have_one_name() -> None:
    names = [case.name for _, case in cases()]
    assert len(names) >= 80
    assert len(names) == len(set(names))
