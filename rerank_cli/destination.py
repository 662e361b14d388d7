"""The file that results go to with --output: there whole, or as it was before.

Devices, pipes and what else is no file are written as results come.
"""

import os
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from rerank_cli.errors import OutputError
from rerank_cli.replacing import replaced
from rerank_cli.terminal import write_all

# Names of streams that are open already. Where one is a file, it may be neither replaced, which
# would leave the stream with the old one, nor emptied.
_OPEN = ("/dev/stdout", "/dev/stderr", "/dev/fd/", "/proc/self/fd/")


@dataclass(frozen=True, slots=True)
class Destination:
    """A file that is named for the results; it may be one of those that are ranked."""

    path: str

    def check(self) -> None:
        """Find what cannot be written before anything is scored; raises `OutputError`."""
        if not self.path:
            raise OutputError("the output file has no name", hint="is a shell variable not set?")
        mode = self._mode()
        if self.path.endswith(os.sep) or (mode is not None and stat.S_ISDIR(mode)):
            raise OutputError(f"{self.path}: is a directory", hint="name a file in it")
        if mode is not None and not os.access(self.path, os.W_OK):
            raise OutputError(f"{self.path}: Permission denied")
        if self._is_special(mode):
            return
        folder = Path(os.path.realpath(self.path)).parent
        if not folder.is_dir():
            raise OutputError(f"{self.path}: there is no directory {folder}")
        if not os.access(folder, os.W_OK | os.X_OK):
            raise OutputError(f"{self.path}: nothing can be written in {folder}: Permission denied")

    def write(self, pieces: Iterable[bytes]) -> None:
        """Write the results: all of them, or an error and the file as it was."""
        mode = self._mode()
        try:
            if self._is_special(mode):
                with open(self.path, "ab") as stream:
                    write_all(stream, pieces, self.path)
                return
            with replaced(Path(self.path)) as stream:
                write_all(stream, pieces, self.path)
        except OSError as error:
            raise OutputError(f"cannot write {self.path}: {error.strerror}") from error

    def _mode(self) -> int | None:
        """What is there, and what may be done with it; None for nothing."""
        try:
            return Path(self.path).stat().st_mode
        except FileNotFoundError:
            return None
        except OSError as error:
            raise OutputError(f"{self.path}: {error.strerror}") from error

    def _is_special(self, mode: int | None) -> bool:
        return mode is not None and (not stat.S_ISREG(mode) or self.path.startswith(_OPEN))
