"""A ranking as JSON: one object in the shape of the rerank APIs, or a line for each result.

The same input gives the same bytes.
"""

import json
import re
from collections.abc import Iterator
from typing import Any

from rerank_cli.costs import ServiceRequest
from rerank_cli.ranking.surveys import FUSION_RANK
from rerank_cli.render import Style, json_score, ranked_part, shown_sentence
from rerank_cli.terminal import encodable, printable
from rerank_cli.types import Blank, Chunk, Document, Ranked, Ranking, ScorerInfo, Stage
from rerank_cli.words import QueryWords

SCHEMA = 1
_MAX_SENTENCES = 1000  # sentences to find: finding one takes longer than the rest of a result
# JSON does not escape these characters, and some of them can change a terminal.
_UNESCAPED = re.compile("[^\x00-\x7e]")


def write_json(ranking: Ranking, style: Style) -> Iterator[bytes]:
    """Yield one JSON object."""
    yield _encode(_ranking_object(ranking, style), style, indent=2)


def write_jsonl(ranking: Ranking, style: Style) -> Iterator[bytes]:
    """Yield a line for each result, with its rank, and for each blank document."""
    mark = {"incomplete": True} if ranking.incomplete else {}
    sentences = _SentencePlaces(ranking, style)
    for result in ranking.results:
        body = result_object(result, sentences.of(result), passages=style.passages)
        yield _encode({"rank": result.rank, **mark, **body, **judge_fields(ranking, result)}, style)
    unscored: dict[str, Any] = {"rank": None, "relevance_score": None}
    if not ranking.reranked:
        unscored["reranked"] = False
    for blank in ranking.blanks:
        yield _encode({**unscored, **_blank_object(blank)}, style)


def _ranking_object(ranking: Ranking, style: Style) -> dict[str, Any]:
    """A ranking in the shape of the rerank APIs: `id`, `model`, `results`, `usage`, and more.

    In a ranking of passages, each passage is a document. `id` is a hash of the fields up to
    `usage`: `requests` differ each time, and their cost may. `weak` is only there if the model's
    scores show it.
    """
    body = {
        "schema": SCHEMA,
        "model": ranking.info.model,
        "scale": ranking.info.scale,
        **_calibration_fields(ranking.info),
        **({} if ranking.prior is None else {"prior": ranking.prior}),
        "query": ranking.query,
        "reranked": ranking.reranked,
        **({"incomplete": True} if ranking.incomplete else {}),
        **({"blend": _blend_object(ranking)} if ranking.is_blended else {}),
        **stage_fields(ranking),
        **_result_lists(ranking, style),
        "counts": {
            "documents": ranking.documents,
            "empty": ranking.empty,
            "duplicates": ranking.duplicates,
            "chunks": ranking.chunks,
            "tokens": ranking.tokens,
            "truncated": ranking.cut,
            "dropped_tokens": ranking.dropped,
            **({"missing": ranking.missing} if ranking.missing else {}),
            **({"unscored": ranking.unscored} if ranking.incomplete else {}),
            **({"unmatched": ranking.unmatched} if ranking.unmatched else {}),
        },
        "usage": dict(ranking.usage),
    }
    import hashlib  # loads all of OpenSSL

    digest = hashlib.sha256(json.dumps(body).encode()).hexdigest()
    requests = [request_object(request) for request in ranking.requests]
    if requests:
        body["requests"] = requests
    if ranking.cost is not None:
        body["cost"] = ranking.cost._asdict()
    if ranking.weak is not None:
        body["weak"] = ranking.weak
    if ranking.absent:
        body["absent"] = ranking.absent
    if ranking.candidates is not None:
        body["candidates"] = ranking.candidates._asdict()
    if ranking.unread is not None:
        body["unread"] = ranking.unread._asdict()
    return {"id": f"rerank-{digest[:16]}", **body}


def _calibration_fields(info: ScorerInfo) -> dict[str, Any]:
    """The calibration, if relevance scores are probabilities; else nothing."""
    if info.calibration is None or not info.is_calibrated:
        return {}
    return {"calibration": dict(info.calibration.summary())}


def _result_lists(ranking: Ranking, style: Style) -> dict[str, Any]:
    """The results, and the documents without a score. If scoring failed, these are the results."""
    unscored = [_blank_object(blank) for blank in ranking.blanks]
    if not ranking.reranked:
        return {"results": [{"relevance_score": None, **blank} for blank in unscored]}
    sentences = _SentencePlaces(ranking, style)
    results = [
        {
            **result_object(result, sentences.of(result), passages=style.passages),
            **judge_fields(ranking, result),
        }
        for result in ranking.results
    ]
    return {"results": results, **({"empty": unscored} if unscored else {})}


def _blend_object(ranking: Ranking) -> dict[str, Any]:
    """The order that is joined with the model's: scores in a field, or the order of the input."""
    return {"k": FUSION_RANK, "prior_field": ranking.prior_field}


def stage_fields(ranking: Ranking) -> dict[str, Any]:
    """The results of each model of a cascade; nothing for one model."""
    return {"stages": [*map(_stage_object, ranking.stages)]} if ranking.stages else {}


def _stage_object(stage: Stage) -> dict[str, Any]:
    info = stage.info
    result_count = {} if stage.results is None else {"results": stage.results}
    return {"model": info.model, "scale": info.scale, "pairs": stage.pairs, **result_count}


def judge_fields(ranking: Ranking, result: Ranked) -> dict[str, str]:
    """The model of a cascade whose scores a result has, and their scale."""
    if not ranking.stages:
        return {}
    info = ranking.stages[result.stage].info
    return {"model": info.model, "scale": info.scale}


def _encode(value: Any, style: Style, indent: int | None = None) -> bytes:
    text = json.dumps(value, ensure_ascii=False, indent=indent)
    if style.interactive:
        text = _UNESCAPED.sub(_escape, text)
    # UTF-8 cannot hold a lone surrogate: it becomes an escape, which is valid JSON.
    return text.encode("utf-8", "backslashreplace") + b"\n"


def _escape(match: re.Match[str]) -> str:
    character = match.group()
    return character if printable(character) == character else f"\\u{ord(character):04x}"


class _SentencePlaces:
    """The sentences of a ranking's passages, each as a chunk."""

    def __init__(self, ranking: Ranking, style: Style) -> None:
        self._words = QueryWords(ranking.query)
        self._style = style

    def of(self, result: Ranked) -> Chunk | None:
        """The sentence of a result; None if it is not text, or is not among the first results."""
        if result.document.text_is_label or result.rank > _MAX_SENTENCES:
            return None
        return shown_sentence(result, self._words, self._style)


def result_object(
    result: Ranked, sentence: Chunk | None = None, *, passages: bool = False
) -> dict[str, Any]:
    """A result as an object: its scores, its document, and the passage that decided.

    With a sentence, the passage has its place.
    """
    document = result.document
    where = {} if sentence is None else {"sentence": _place_object(sentence)}
    body = {
        "index": result.index,
        "relevance_score": json_score(result.relevance_score),
        "raw_score": json_score(result.raw_score),
        "document": _document_object(document, ranked_part(result, passages=passages)),
        "passage": {
            **_chunk_object(result.passage),
            **where,
            "raw_score": json_score(result.passage_score),
        },
        "tokens": result.tokens,
        "chunks": result.chunks,
        "truncated": result.truncated,
    }
    if result.blend is not None:
        blend = result.blend
        earlier = {} if blend.prior_score is None else {"prior_score": blend.prior_score}
        ranks = {"rank": blend.rank, "prior_rank": blend.prior_rank}
        body["blend"] = {"score": json_score(blend.score), **ranks, **earlier}
    if result.prior is not None:
        body["prior"] = {
            "total": json_score(result.prior.total),
            "parts": {part: json_score(value) for part, value in result.prior.parts.items()},
        }
    if result.explanation:
        body["passages"] = [
            {
                **_chunk_object(chunk),
                "raw_score": json_score(score),
                "relevance_score": json_score(relevance),
            }
            for chunk, score, relevance in result.explanation
        ]
    return body


def request_object(request: ServiceRequest) -> dict[str, Any]:
    """A request to a service as an object: the fields of `ServiceRequest` that are not empty."""
    fields = {name: value for name, value in vars(request).items() if value or name == "cost"}
    fields.pop("price", None)  # the ranking has the price of all requests
    if request.cost is None:
        del fields["cost"]
    return {
        **fields,
        "documents": request.documents,
        "statuses": list(request.statuses),
        "seconds": round(request.seconds, 3),
    }


def _blank_object(blank: Blank) -> dict[str, Any]:
    document = _document_object(blank.document, blank.document)
    return {"index": blank.index, "document": document}


def _document_object(document: Document, part: Chunk | Document) -> dict[str, Any]:
    body = {
        "id": document.id,
        **_content_fields(document, part.text),
        "source": document.source,
        "line": part.line,
        "page": part.page,
        "fields": document.fields,
    }
    return {key: value for key, value in body.items() if value is not None}


def _content_fields(document: Document, text: str) -> dict[str, Any]:
    """The fields that hold a document's text, and the whole URL or the path of its media."""
    texts = {} if document.text_is_label else {"text": text}
    media = document.media
    return texts if media is None else {**texts, media.kind: encodable(media.name or media.place)}


def _chunk_object(chunk: Chunk) -> dict[str, Any]:
    media, is_label = chunk.document.media, chunk.document.text_is_label
    return {
        **({"title": chunk.title} if chunk.title else {}),
        **({"heading": chunk.heading} if chunk.heading else {}),
        media.kind if media is not None and is_label else "text": chunk.text,
        **_place_object(chunk),
    }


def _place_object(chunk: Chunk) -> dict[str, int]:
    """The place of a chunk: its characters in the document's text, and its line or page."""
    span = {"start": chunk.start, "end": chunk.end}
    return {
        **({} if chunk.document.text_is_label else span),
        **({} if chunk.line is None else {"line": chunk.line}),
        **({} if chunk.page is None else {"page": chunk.page}),
    }
