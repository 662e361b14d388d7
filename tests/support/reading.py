"""ReadOptions in one line, and standard input that is what a test says."""

import io
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from rerank_cli import Document
from rerank_cli.inputs.documents import Inputs
from rerank_cli.inputs.source import ReadOptions


def inputs_of(
    *paths: Path | str, listed: Sequence[str] = (), recursive: bool = False, **options: Any
) -> Inputs:
    """The inputs of some paths, found and ready to be gone through."""
    inputs = Inputs(
        paths=[str(path) for path in paths],
        listed_paths=listed,
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
