"""Scores that have been made, kept while an evaluation runs: one that is cut off goes on there.

A file for a model on a collection, a line a query. Gone when the evaluation is over: scores of
another day would be told as if they had been made.
"""

import json
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Entry:
    """What scoring a query's candidates gave: scores by id, and what each of them took.

    `tokens` and `chunks` are by id too; `seconds`, the tokens `spent` in all, what was not scored
    whole, scores that `missing` are and `notes` are those of the whole query.
    """

    scores: Mapping[str, float]
    tokens: Mapping[str, int]
    chunks: Mapping[str, int]
    seconds: float = 0.0
    spent: int = 0
    truncated: int = 0
    missing: int = 0
    notes: Sequence[str] = ()


class Journal:
    """The entries of one system on one collection; `of` says of what, and must be equal."""

    def __init__(self, folder: Path, of: Any) -> None:
        digest = blake2b(json.dumps(of, sort_keys=True).encode(), digest_size=16).hexdigest()
        self._path = folder / f"{digest}.jsonl"
        self.entries = self._read()

    def add(self, query: str, entry: Entry) -> None:
        """Keep an entry, on the disk too if there is room."""
        self.entries[query] = entry
        line = json.dumps({"query": query, **asdict(entry)}) + "\n"
        with suppress(OSError):  # without it the evaluation is what it is, and begins anew if cut
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("a", encoding="utf-8") as stream:
                stream.write(line)

    def close(self) -> None:
        """Forget all of it: the evaluation is over."""
        self._path.unlink(missing_ok=True)

    def _read(self) -> dict[str, Entry]:
        try:
            content = self._path.read_bytes()
        except FileNotFoundError:
            return {}
        whole = content[: content.rfind(b"\n") + 1]
        if whole != content:  # the process died while it wrote
            os.truncate(self._path, len(whole))
        entries = {}
        for line in whole.splitlines():
            with suppress(ValueError, TypeError, KeyError):  # of a disk that was full, or old
                record = json.loads(line)
                name = record.pop("query")
                entries[name] = Entry(**record)
        return entries
