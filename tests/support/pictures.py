"""Pictures made by hand, and a scorer that reads them."""

import struct
import zlib
from collections.abc import Sequence
from pathlib import Path

from rerank_cli import Media
from rerank_cli.types import Pair, Scored
from tests.support.fakes import OverlapScorer, words_info

URL = "https://example.org/fox.png"
DATA = "data:image/png;base64,iVBORw0KGgo="


def _chunk(kind: bytes, data: bytes) -> bytes:
    check = zlib.crc32(kind + data)
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", check)


def png(width: int = 1, height: int = 1) -> bytes:
    """A black picture."""
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    lines = zlib.compress(b"\0" * (width + 1) * height)
    chunks = [_chunk(b"IHDR", header), _chunk(b"IDAT", lines), _chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


class Viewer(OverlapScorer):
    """Reads images and videos, as a service does; a fox is what it looks for."""

    def __init__(self, *kinds: str) -> None:
        media = frozenset(kinds or {"image", "video"})
        info = words_info(100, remote=True, media=media, mixed=media)
        super().__init__(info, lambda _query, text: float("fox" in text))
        self.media_log: list[Media | None] = []

    def score(self, pairs: Sequence[Pair], keep: int | None = None) -> Scored:
        self.media_log += [pair.chunk.document.media for pair in pairs]
        return super().score(pairs, keep)


def draw(folder: Path) -> Path:
    """A folder with pictures, texts, and what is a picture by name only."""
    folder.mkdir()
    for name in ("dog.png", "fox.JPG"):
        (folder / name).write_bytes(png())
    (folder / "broken.png").write_bytes(b"\0\1\2")
    (folder / "pointer.png").write_text("version 1\nfox\n")
    (folder / "note.md").write_text("a fox\n")
    return folder
