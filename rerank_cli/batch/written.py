"""What a record becomes: the line that it was with its results, or lines of a run.

Pure: the same outcome gives the same bytes, on whichever machine.
"""

import json
from collections.abc import Mapping
from enum import StrEnum
from typing import Any

from rerank_cli.batch.items import Given, Outcome, Problem
from rerank_cli.render import decimal, number
from rerank_cli.render.json_results import result_object
from rerank_cli.render.rows import one_word
from rerank_cli.types import Ranked, Ranking

RESULTS, SCORE, RAW_SCORE, ERROR = "results", "relevance_score", "raw_score", "error"


class Shape(StrEnum):
    """How much of each result is written."""

    FULL = "full"  # as `rerank --json` has it
    SCORES = "scores"  # its index, id and scores
    IDS = "ids"  # its document's id, or the index of one without


def line_of(outcome: Outcome, shape: Shape, *, pairs: bool) -> bytes:
    """The line that stands for an item: all that came in, and what came of it."""
    if outcome.problem is not None:
        return _encoded(problem_object(outcome.given, outcome.problem))
    if outcome.ranking is None:
        return outcome.given.raw + b"\n"
    added = pair_of(outcome.ranking) if pairs else {RESULTS: results_of(outcome.ranking, shape)}
    return _with(outcome.given, added)


def problem_object(given: Given, problem: Problem) -> dict[str, Any]:
    """An error record: the id of what it stands for, and why that has no results."""
    return {"id": given.name, ERROR: {"code": problem.code, "message": problem.message}}


def error_line(given: Given, problem: Problem) -> bytes:
    return _encoded(problem_object(given, problem))


def results_of(ranking: Ranking, shape: Shape) -> list[Any]:
    """A ranking's results, best first."""
    if shape is Shape.IDS:
        return [_name(one) for one in ranking.results]
    if shape is Shape.SCORES:
        return [_scores(one) for one in ranking.results]
    return [result_object(one) for one in ranking.results]


def run_of(outcome: Outcome) -> bytes:
    """A record's lines of a TREC run; one with a problem has none."""
    if outcome.ranking is None:
        return b""
    query, tag = one_word(str(outcome.given.name)), one_word(outcome.ranking.info.model)
    return "".join(
        f"{query} Q0 {one_word(str(_name(one)))} {one.rank} {decimal(one.score)} {tag}\n"
        for one in outcome.ranking.results
    ).encode()


def pair_of(ranking: Ranking) -> dict[str, Any]:
    """The scores of the one document of a pair; null where it is blank."""
    for one in ranking.results:
        return {SCORE: number(one.relevance), RAW_SCORE: number(one.score)}
    return {SCORE: None, RAW_SCORE: None}


def _name(result: Ranked) -> str | int:
    return result.index if result.document.id is None else result.document.id


def _scores(result: Ranked) -> dict[str, Any]:
    named = {} if result.document.id is None else {"id": result.document.id}
    return {
        "index": result.index,
        **named,
        SCORE: number(result.relevance),
        RAW_SCORE: number(result.score),
    }


def _with(given: Given, added: Mapping[str, Any]) -> bytes:
    """An object with more fields: its own bytes as they came, unless it had fields of that name."""
    raw = given.raw.strip()
    if raw.endswith(b"}") and not added.keys() & given.fields.keys():
        more = json.dumps(added, ensure_ascii=False)[1:]
        joint = ", " if given.fields else ""
        return raw[:-1].rstrip() + f"{joint}{more}\n".encode("utf-8", "backslashreplace")
    return _encoded({**given.fields, **added})


def _encoded(value: Any) -> bytes:
    # A lone surrogate, which UTF-8 cannot hold, becomes the escape that JSON has for it.
    text = json.dumps(value, ensure_ascii=False, default=str)  # Parquet has dates and more
    return f"{text}\n".encode("utf-8", "backslashreplace")
