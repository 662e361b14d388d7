"""Tasks for the child process of a trial; it imports little, and so begins soon."""

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


def trial(*, is_trusted: bool = False) -> Trial:
    return Trial(Path("some.file"), lambda: 0, 1, is_trusted=is_trusted)
