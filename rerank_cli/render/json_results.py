"""A ranking as JSON: one object in the shape of the rerank APIs, or one line a result.

The same input gives the same bytes.
"""

import json
import re
from collections.abc import Iterator
from typing import Any

from rerank_cli.media import is_url
from rerank_cli.render import Style, number, shown
from rerank_cli.terminal import printable
from rerank_cli.types import Blank, Chunk, Document, Ranked, Ranking

SCHEMA = 1
# What JSON need not escape and a terminal may act on, though `printable` shows all of it.
_UNESCAPED = re.compile("[^\x00-\x7e]")


def as_json(ranking: Ranking, style: Style) -> Iterator[bytes]:
    """One JSON object."""
    yield _encoded(payload(ranking, passages=style.passages), style, indent=2)


def as_jsonl(ranking: Ranking, style: Style) -> Iterator[bytes]:
    """One JSON object a line: a result with its rank, or a blank document without."""
    for result in ranking.results:
        yield _encoded(
            {"rank": result.rank, **result_object(result, passages=style.passages)}, style
        )
    unscored: dict[str, Any] = {"rank": None, "relevance_score": None}
    if not ranking.reranked:
        unscored["reranked"] = False
    for blank in ranking.blanks:
        yield _encoded({**unscored, **_blank(blank)}, style)


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
        "reranked": ranking.reranked,
        **_listed(ranking, passages=passages),
        "counts": {
            "documents": ranking.documents,
            "empty": ranking.empty,
            "duplicates": ranking.duplicates,
            "chunks": ranking.chunks,
            "tokens": ranking.tokens,
            "truncated": ranking.cut,
            "dropped_tokens": ranking.dropped,
            **({"missing": ranking.missing} if ranking.missing else {}),
        },
        "usage": dict(ranking.usage),
    }
    import hashlib  # which loads all of OpenSSL

    digest = hashlib.sha256(json.dumps(body).encode()).hexdigest()
    return {"id": f"rerank-{digest[:16]}", **body}


def _listed(ranking: Ranking, *, passages: bool) -> dict[str, Any]:
    """The results, and those without a score: all of them, where nothing was reranked."""
    unscored = [_blank(blank) for blank in ranking.blanks]
    if not ranking.reranked:
        return {"results": [{"relevance_score": None, **blank} for blank in unscored]}
    results = [result_object(result, passages=passages) for result in ranking.results]
    return {"results": results, **({"empty": unscored} if unscored else {})}


def _encoded(value: Any, style: Style, indent: int | None = None) -> bytes:
    text = json.dumps(value, ensure_ascii=False, indent=indent)
    if style.interactive:
        text = _UNESCAPED.sub(_escape, text)
    # A lone surrogate, which UTF-8 cannot hold, becomes the escape that JSON has for it.
    return text.encode("utf-8", "backslashreplace") + b"\n"


def _escape(match: re.Match[str]) -> str:
    character = match.group()
    return character if printable(character) == character else f"\\u{ord(character):04x}"


def result_object(result: Ranked, *, passages: bool = False) -> dict[str, Any]:
    """A result as JSON has it: its score, its document, and the passage that decided."""
    document = result.document
    body = {
        "index": result.index,
        "relevance_score": number(result.relevance_score),
        "raw_score": number(result.raw_score),
        "document": _document(document, *shown(result, passages=passages)),
        "passage": {**_chunk(result.passage), "raw_score": number(result.passage_score)},
        "tokens": result.tokens,
        "chunks": result.chunks,
        "truncated": result.truncated,
    }
    if result.explanation:
        body["passages"] = [
            {
                **_chunk(chunk),
                "raw_score": number(score),
                "relevance_score": number(relevance),
            }
            for chunk, score, relevance in result.explanation
        ]
    return body


def _blank(blank: Blank) -> dict[str, Any]:
    document = blank.document
    return {"index": blank.index, "document": _document(document, document.text, document.line)}


def _document(document: Document, text: str, line: int | None) -> dict[str, Any]:
    described = {
        "id": document.id,
        **_content(document, text),
        "source": document.source,
        "line": line,
        "fields": document.fields,
    }
    return {key: value for key, value in described.items() if value is not None}


def _content(document: Document, text: str) -> dict[str, Any]:
    """What a document is, as a record has it: its text, or its image or video.

    That is the URL or path as it came; only of a data URL the text is not all.
    """
    if document.media is None:
        return {"text": text}
    kind, place = document.media.kind, document.media.place
    return {kind: place if is_url(place) else document.text}


def _chunk(chunk: Chunk) -> dict[str, Any]:
    media = chunk.document.media
    span = {"start": chunk.start, "end": chunk.end} if media is None else {}
    return {
        **({"title": chunk.title} if chunk.title else {}),
        "text" if media is None else media.kind: chunk.text,
        **span,
        **({} if chunk.line is None else {"line": chunk.line}),
    }
