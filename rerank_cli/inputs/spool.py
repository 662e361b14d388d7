"""Makes standard input readable more than once: a pipe is copied when it is first read.

A small copy is held in memory; a larger one is on disk, has no name, and is gone with the process,
however that ends.
"""

import io
import shutil
import tempfile
import weakref
from pathlib import Path
from typing import BinaryIO

from rerank_cli.errors import OutputError

MEMORY = 1 << 20  # bytes


class Replayed:
    """A stream that can be gone through again: one with a place to go back to, or a copy of it.

    `spooled` is the size of the copy on disk in bytes, and 0 where none was needed. Raises
    `OutputError` where there is no room for it.
    """

    def __init__(self, stream: BinaryIO, directory: Path) -> None:
        self.spooled = 0
        self._stream = stream
        if stream.seekable():
            self._start = stream.tell()
            return
        self._start = 0
        first = stream.read(MEMORY)
        if len(first) < MEMORY:
            self._stream = io.BytesIO(first)
            return
        try:
            directory.mkdir(parents=True, exist_ok=True)
            copy = tempfile.TemporaryFile(dir=directory)  # noqa: SIM115 - it lives as long as we do
            weakref.finalize(self, copy.close)
            copy.write(first)
            shutil.copyfileobj(stream, copy, MEMORY)
            copy.flush()
        except OSError as error:
            raise OutputError(
                f"cannot keep a copy of the input in {directory}: {error.strerror}",
                hint="BM25 goes through it twice: give it a file, or set RERANK_HOME to a directory"
                " with room",
            ) from error
        self.spooled = copy.tell()
        self._stream = copy

    def again(self) -> BinaryIO:
        """The stream, at its beginning."""
        self._stream.seek(self._start)
        return self._stream
