"""Tasks for child processes of tests; this imports little, and so they begin soon."""

import os
import time
from pathlib import Path

from rerank_cli.errors import ModelError
from rerank_cli.runtimes.network import Trial, allow_more
from rerank_cli.runtimes.prepared_cache import PreparationError


def refuse(path: Path) -> None:
    raise ModelError(f"{path}: refused", hint="try another")


def put_off(path: Path) -> None:
    raise PreparationError(f"{path}: not now")


def fail(_path: Path) -> None:
    raise LookupError("line one\nline two")


def crash(_path: Path) -> None:
    os.abort()


def wait(_path: Path) -> None:
    time.sleep(60)


def ask_for_more(_path: Path) -> None:
    allow_more(60)
    time.sleep(5)


def fill_memory(_path: Path) -> None:
    _ = b"x" * (8 << 30)


def print_much(_path: Path) -> None:
    for stream in (1, 2):
        os.write(stream, b"no line of JSON\n" * 100_000)


def note_process(_path: Path, to: Path) -> None:
    to.write_text(str(os.getpid()))


def leave_and_wait(_path: Path, to: Path) -> None:
    note_process(_path, to)
    time.sleep(60)


class FileMaker:
    """Makes two files of a source, and counts how often."""

    def __init__(self, source: Path) -> None:
        self.source = source
        self.times = 0

    def __call__(self, folder: Path) -> None:
        self.times += 1
        (folder / "first").write_bytes(self.source.read_bytes().upper())
        (folder / "second").write_bytes(b"second" * 1000)


def trial(*, is_trusted: bool = False) -> Trial:
    return Trial(Path("some.file"), lambda: 0, 1, is_trusted=is_trusted)
