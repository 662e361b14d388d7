"""What commands list, as lines of columns or as JSON."""

import json
from typing import Any

from rerank_cli.characters import printable


def as_bytes(value: Any) -> bytes:
    """A value as JSON, for people and programs."""
    return (json.dumps(value, ensure_ascii=False, indent=2) + "\n").encode()


def lines(rows: list[list[str]], *, aligned: bool, width: int | None = None) -> bytes:
    """Rows as lines: in columns for a person, of a terminal's width; tabs between for a program."""
    rows = [[printable(cell).replace("\n", " ") for cell in row] for row in rows]
    if not aligned:
        return "".join("\t".join(row) + "\n" for row in rows).encode()
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]) - 1)]
    made = (
        "  ".join(
            [*(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=False)), row[-1]]
        )
        for row in rows
    )
    return "".join(_cut(line.rstrip(), width) + "\n" for line in made).encode()


def _cut(line: str, width: int | None) -> str:
    return line if width is None or len(line) <= width else line[: width - 1] + "…"
