"""Turns a ranking into bytes: one writer for each `Format`.

Decides nothing about order or content, and knows no stream: `terminal` does.
"""

import json
from collections.abc import Iterator
from enum import StrEnum
from typing import Any

from rerank_cli.terminal import Terminal
from rerank_cli.types import Ranked, Ranking

SCHEMA = 1


class Format(StrEnum):
    """How results are written."""

    TABLE = "table"
    TEXT = "text"
    JSON = "json"


def text(ranking: Ranking, *, passages: bool) -> Iterator[bytes]:
    """The records' own bytes in their new order; of a ranking of passages, their texts."""
    for result in ranking.results:
        if passages or result.document.raw is None:
            yield _passage_bytes(result) + b"\n"
        else:
            yield result.document.raw


def _passage_bytes(result: Ranked) -> bytes:
    """A passage's own bytes: where some were not UTF-8, one by one replaced in the text."""
    passage, raw = result.passage, result.document.raw
    if raw is None or "\ufffd" not in passage.text:
        return passage.text.encode("utf-8", "replace")
    original = raw.decode("utf-8", "surrogateescape")
    return original[passage.start : passage.end].encode("utf-8", "surrogateescape")


def as_json(ranking: Ranking, *, passages: bool) -> Iterator[bytes]:
    """One JSON object, the same for the same input."""
    body = json.dumps(payload(ranking, passages=passages), ensure_ascii=False, indent=2)
    # A lone surrogate, which UTF-8 cannot hold, becomes the escape that JSON has for it.
    yield body.encode("utf-8", "backslashreplace") + b"\n"


def payload(ranking: Ranking, *, passages: bool) -> dict[str, Any]:
    """A ranking in the shape of the rerank APIs: `id, model, results, usage` and what we add.

    In a ranking of passages, each is a document of its own. Numbers have seven significant digits,
    which is what a model's float32 holds. `id` is a hash of all the rest.
    """
    body = {
        "schema": SCHEMA,
        "model": ranking.info.model,
        "scale": ranking.info.scale,
        "query": ranking.query,
        "results": [_result(result, passages=passages) for result in ranking.results],
        "counts": {
            "documents": ranking.documents,
            "empty": ranking.empty,
            "truncated": ranking.cut,
            "dropped_tokens": ranking.dropped,
        },
        "usage": dict(ranking.usage),
    }
    import hashlib  # which loads all of OpenSSL

    digest = hashlib.sha256(json.dumps(body).encode()).hexdigest()
    return {"id": f"rerank-{digest[:16]}", **body}


def _result(result: Ranked, *, passages: bool) -> dict[str, Any]:
    document, passage = result.document, result.passage
    described = {
        "id": document.id,
        "text": passage.text if passages else document.text,
        "source": document.source,
        "line": passage.line if passages else document.line,
        "fields": document.fields,
    }
    return {
        "index": result.index,
        "relevance_score": _number(result.relevance),
        "raw_score": _number(result.score),
        "document": {key: value for key, value in described.items() if value is not None},
        "passage": {
            "text": passage.text,
            "start": passage.start,
            "end": passage.end,
            **({} if passage.line is None else {"line": passage.line}),
            "raw_score": _number(result.passage_score),
        },
        "tokens": result.tokens,
        "chunks": result.chunks,
        "truncated": result.truncated,
    }


def _number(value: float) -> float:
    return float(f"{value:.7g}")


def render(
    ranking: Ranking, form: Format, terminal: Terminal, *, passages: bool, full: bool
) -> Iterator[bytes]:
    """Render in a format; `full` shows whole passages in a table rather than extracts."""
    if form is Format.TABLE:
        from rerank_cli.render.table import (
            table,  # rich is slow to import, and a pipe needs none of it
        )

        return table(ranking, terminal, full=full)
    return (as_json if form is Format.JSON else text)(ranking, passages=passages)
