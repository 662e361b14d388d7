"""The table that bench_local.py prints."""

from collections.abc import Sequence
from dataclasses import dataclass

HEADS = ("model", "what", "figure", "bound", "", "ours / theirs")
DIGITS = {"x": 2, "s": 3, "MB": 0, "": 3}


@dataclass(frozen=True, slots=True)
class Row:
    """One line: a `figure` and its `bound`, which is the least or, with `at_most`, the most."""

    model: str
    what: str
    figure: float
    bound: float | None = None
    detail: str = ""
    at_most: bool = False
    unit: str = "x"

    @property
    def met(self) -> bool:
        if self.bound is None:
            return True
        return self.figure <= self.bound if self.at_most else self.figure >= self.bound

    def cells(self) -> tuple[str, ...]:
        figure = f"{self.figure:.{DIGITS[self.unit]}f} {self.unit}".rstrip()
        if self.bound is None:
            return self.model, self.what, figure, "", "", self.detail
        bound = f"at {'most' if self.at_most else 'least'} {self.bound:g}"
        return self.model, self.what, figure, bound, "met" if self.met else "MISSED", self.detail


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
