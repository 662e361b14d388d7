"""ReadOptions in one line, and standard input and FIFOs that have what a test says."""

import io
import os
import select
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from rerank_cli import Document
from rerank_cli.inputs.documents import Inputs
from rerank_cli.inputs.source import ReadOptions
from rerank_cli.inputs.text import HEAD_BYTES, TextSource
from rerank_cli.types import Envelope


def source_of(content: bytes, encoding: str = "utf-8", **rest: Any) -> TextSource:
    """The text of some bytes, which are not compressed."""
    name = rest.pop("name", "x")
    return TextSource(
        io.BytesIO(content), name, Envelope(encoding), head=content[:HEAD_BYTES], **rest
    )


def inputs_of(
    *paths: Path | str, listed_paths: Sequence[str] = (), recursive: bool = False, **options: Any
) -> Inputs:
    """The inputs of some paths, found and ready to be gone through."""
    inputs = Inputs(
        paths=[str(path) for path in paths],
        listed_paths=listed_paths,
        recursive=recursive,
        options=ReadOptions(**options),
    )
    inputs.check()
    return inputs


def read(*paths: Path | str, **options: Any) -> list[Document]:
    return list(inputs_of(*paths, **options))


def give_stdin(monkeypatch: pytest.MonkeyPatch, content: bytes) -> None:
    """Make standard input some bytes that can be gone through once, as those of a pipe."""
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BufferedReader(OneWay(content))))


class OneWay(io.RawIOBase):
    """Bytes without a way back."""

    def __init__(self, content: bytes) -> None:
        self._content = io.BytesIO(content)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        return self._content.readinto(buffer)


def names(documents: Sequence[Document], root: Path) -> list[str]:
    """Where documents came from, below a folder, with slashes."""
    return [os.path.relpath(str(d.source), root).replace(os.sep, "/") for d in documents]


_PAUSE_SECONDS = 0.002


@contextmanager
def feed_fifo(path: Path, content: bytes) -> Iterator[Path]:
    """Make a FIFO that gives some bytes to whoever reads it first, and nothing to the next."""
    os.mkfifo(path)
    is_over = threading.Event()

    def feed() -> None:
        remainder = content
        while not is_over.wait(_PAUSE_SECONDS):
            with suppress(OSError):  # nobody reads it yet
                descriptor = os.open(path, os.O_WRONLY | os.O_NONBLOCK)
                os.set_blocking(descriptor, True)
                with suppress(BrokenPipeError), open(descriptor, "wb") as stream:
                    stream.write(remainder)
                remainder = b""

    feeder = threading.Thread(target=feed, daemon=True)
    feeder.start()
    try:
        yield path
    finally:
        is_over.set()
        feeder.join(10)
        path.unlink()


def wait_until_full(writing: int, process: "subprocess.Popen[bytes]") -> None:
    """Wait until a process has filled a pipe that nobody reads; the caller has its end too."""
    while select.select([], [writing], [], 0)[1]:
        assert process.poll() is None, "it ended before the pipe was full"
        time.sleep(0.01)
