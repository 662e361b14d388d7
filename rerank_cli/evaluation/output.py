"""Evaluations as JSON, as TREC runs, and as a line for each query."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rerank_cli.errors import OutputError
from rerank_cli.evaluation.collection import ordered
from rerank_cli.evaluation.comparison import Comparison
from rerank_cli.evaluation.report import Cost, Overall, Row, Set
from rerank_cli.evaluation.statistics import DRAWS, Difference
from rerank_cli.render.rows import one_word

_BLANKS = re.compile(r"[\t\r\n]")
_UNSAFE = re.compile(r"[^\w.@+-]+")


def as_json(
    sets: Sequence[Set], means: Sequence[Overall], comparison: Comparison | None, seed: int
) -> dict[str, Any]:
    """All figures, for programs."""
    return {
        "sets": [
            {
                "name": one.task.name,
                "first_stage": one.task.first,
                "queries": len(one.task.queries),
                "candidates": one.task.pairs,
                "depth": one.task.depth,
                "notes": list(one.task.notes),
                "systems": [_row(row) for row in one.rows],
            }
            for one in sets
        ],
        "mean": [
            {
                "system": one.system,
                "depth": one.depth,
                "measures": {
                    name: {"mean": value, **_difference(one.against.get(name))}
                    for name, value in one.means.items()
                },
            }
            for one in means
        ],
        **({"comparison": _comparison(comparison)} if comparison else {}),
        "seed": seed,
        "draws": DRAWS,
    }


def write_runs(folder: Path, sets: Sequence[Set]) -> None:
    """Write each row's run as `SET.SYSTEM.trec`; raises `OutputError`."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        taken: set[str] = set()
        for one in sets:
            for row in one.rows:
                depth = "" if row.depth in (None, one.task.depth) else f".{row.depth}"
                tag = _UNSAFE.sub("_", f"{row.system}{depth}").strip("_")
                name = f"{_UNSAFE.sub('_', one.task.name)}.{tag}"
                while name in taken:  # of two models whose names differ in other characters
                    name += "+"
                taken.add(name)
                (folder / f"{name}.trec").write_text(
                    "".join(_run(row, tag)), encoding="utf-8", newline="\n"
                )
    except OSError as error:
        raise OutputError(f"cannot write runs to {folder}: {error.strerror}") from error


def write_per_query(path: Path, sets: Sequence[Set]) -> None:
    """Write a line for each set, system, query and measure; raises `OutputError`."""
    lines = ["set\tsystem\tdepth\tquery\tmeasure\tvalue\n"]
    for one in sets:
        for row in one.rows:
            for measure, values in row.figures.items():
                for query, value in values.items():
                    cells = (one.task.name, row.system, row.depth or "", query, measure)
                    escaped = (_BLANKS.sub(" ", str(cell)) for cell in cells)
                    lines.append("\t".join([*escaped, f"{value:.6g}"]) + "\n")
    try:
        path.write_text("".join(lines), encoding="utf-8", newline="\n")
    except OSError as error:
        raise OutputError(f"{path}: {error.strerror}") from error


def _run(row: Row, tag: str) -> Iterator[str]:
    for query, scores in row.run.items():
        for rank, name in enumerate(ordered(scores), 1):
            yield f"{one_word(query)} Q0 {one_word(name)} {rank} {scores[name]!r} {tag}\n"


def _row(row: Row) -> dict[str, Any]:
    return {
        "system": row.system,
        "depth": row.depth,
        "measures": {
            name: {"mean": row.mean(name), **_difference(row.against.get(name))}
            for name in row.figures
        },
        "unjudged_in_10": row.unjudged,
        **({"cost": _cost(row.cost)} if row.cost else {}),
    }


def _cost(cost: Cost) -> dict[str, Any]:
    rate = cost.chunks / cost.seconds if cost.seconds else None
    return {**asdict(cost), "chunks_per_second": rate}


def _difference(one: Difference | None) -> Mapping[str, Any]:
    if one is None:
        return {}
    interval = {"low": one.low, "high": one.high}
    rest = {
        name: value for name, value in asdict(one).items() if name not in ("mean", "low", "high")
    }
    return {
        "difference": {
            "mean": one.mean,
            "interval_95": interval,
            **rest,
            "verdict": one.verdict.value,
        }
    }


def _comparison(one: Comparison) -> dict[str, Any]:
    return {**asdict(one), "gained": _difference(one.gained)["difference"]}


def dumped(content: Any) -> bytes:
    """JSON as this program writes it."""
    return (json.dumps(content, ensure_ascii=False, indent=2) + "\n").encode()
