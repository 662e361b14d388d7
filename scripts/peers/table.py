"""The table that bench_local.py prints."""

from collections.abc import Sequence
from dataclasses import dataclass

HEADS = ("model", "what", "figure", "bound", "", "ours / theirs")
DIGITS = {"x": 2, "s": 3, "MB": 0, "": 3}


@dataclass(frozen=True, slots=True)
class Row:
    """One line: a `figure` and its `limit`, which is the least or, with `at_most`, the most."""

    model: str
    description: str
    figure: float
    limit: float | None = None
    detail: str = ""
    at_most: bool = False
    unit: str = "x"

    @property
    def is_met(self) -> bool:
        if self.limit is None:
            return True
        return self.figure <= self.limit if self.at_most else self.figure >= self.limit

    def cells(self) -> tuple[str, ...]:
        figure = f"{self.figure:.{DIGITS[self.unit]}f} {self.unit}".rstrip()
        if self.limit is None:
            return self.model, self.description, figure, "", "", self.detail
        limit = f"at {'most' if self.at_most else 'least'} {self.limit:g}"
        return (
            self.model,
            self.description,
            figure,
            limit,
            "met" if self.is_met else "MISSED",
            self.detail,
        )


def print_table(rows: Sequence[Row], *, markdown: bool) -> None:
    table = [HEADS, *(row.cells() for row in rows)]
    if markdown:
        table.insert(1, ("---",) * len(HEADS))
        for cells in table:
            print("| " + " | ".join(cells) + " |")
        print()
        return
    widths = [max(len(cells[place]) for cells in table) for place in range(len(HEADS))]
    for cells in table:
        padded = (f"{cell:{width}}" for cell, width in zip(cells, widths, strict=True))
        print("  ".join(padded).rstrip())
