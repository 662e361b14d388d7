"""Finds texts of a large file by their ids: holds where each of them is, and not themselves.

Sixteen bytes an entry. A compressed file is unpacked once, to a file that has no name.
"""

import shutil
import tempfile
import weakref
from array import array
from hashlib import blake2b
from pathlib import Path
from typing import BinaryIO

import numpy as np

from rerank_cli.errors import InputError, OutputError
from rerank_cli.inputs.text import opened
from rerank_cli.inputs.trec import is_jsonl, text_of
from rerank_cli.terminal import encodable
from rerank_cli.types import Document

_HASH = 8  # bytes


class Lookup:
    """The texts of one file, JSONL or TSV; `what` they are is for messages.

    Of several with one id the first counts. Raises `InputError` for a line that has no text, and
    `OutputError` where a compressed file finds no room in `folder`.
    """

    def __init__(self, path: Path, what: str, folder: Path) -> None:
        self.path = path
        self._what = what
        self._jsonl = is_jsonl(path)
        try:
            self._stream = self._plain(path, folder)
        except OSError as error:
            raise InputError(f"{path}: {error.strerror or error}") from error
        weakref.finalize(self, self._stream.close)
        hashes, places = self._read()
        order = np.argsort(hashes, kind="stable")
        self._hashes, self._places = hashes[order], places[order]

    def __len__(self) -> int:
        return len(self._hashes)

    def find(self, name: str) -> Document | None:
        """The text of this id, with its title before it."""
        wanted = _hash(name)
        first = int(np.searchsorted(self._hashes, wanted))
        while first < len(self._hashes) and self._hashes[first] == wanted:
            self._stream.seek(int(self._places[first]))
            found, title, text = self._told(self._stream.readline(), "a line")
            if found == name:
                return Document(f"{title} {text}".strip() if title else text, id=name)
            first += 1
        return None

    def close(self) -> None:
        self._stream.close()

    def _read(self) -> tuple[np.ndarray, np.ndarray]:
        """Where every text is, by the hash of its id."""
        hashes, places = array("Q"), array("Q")
        place = self._stream.tell()
        for number, line in enumerate(self._stream, 1):
            if line.strip():
                name, _, _ = self._told(line, f"{self.path}:{number}")
                hashes.append(_hash(name))
                places.append(place)
            place += len(line)
        return np.frombuffer(hashes, np.uint64), np.frombuffer(places, np.uint64)

    def _told(self, line: bytes, where: str) -> tuple[str, str, str]:
        try:
            text = line.decode()
        except UnicodeDecodeError:
            text = encodable(line.decode("utf-8", "surrogateescape"))
        return text_of(text.rstrip("\r\n"), where, self._what, jsonl=self._jsonl)

    def _plain(self, path: Path, folder: Path) -> BinaryIO:
        """The file as it is, or unpacked."""
        stream = path.open("rb")
        head, _ = opened(stream, str(path))
        stream.seek(0)
        if head == stream.read(len(head)):  # as it is
            stream.seek(3 if head.startswith(b"\xef\xbb\xbf") else 0)
            return stream
        try:
            folder.mkdir(parents=True, exist_ok=True)
            copy = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - it lives as long as we do
            with stream:
                stream.seek(0)
                shutil.copyfileobj(opened(stream, str(path))[1], copy, 1 << 20)
            copy.seek(0)
        except OSError as error:
            raise OutputError(
                f"{path}: cannot be unpacked in {folder}: {error.strerror}",
                hint="unpack it yourself, or set RERANK_HOME to a directory with room",
            ) from error
        return copy


def _hash(name: str) -> int:
    content = name.encode("utf-8", "surrogatepass")
    return int.from_bytes(blake2b(content, digest_size=_HASH).digest(), "little")
