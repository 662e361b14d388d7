"""Makes a query and documents of Python's values: strings, mappings, and `Document`s.

item… ─ prepare_documents ─ Document…, as the scorer reads them
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from os import PathLike
from typing import Any

from rerank_cli.errors import InputError, UsageError, check_several, check_type
from rerank_cli.media import MEDIA_FIELDS, find_record_media, is_url, media_label, with_article
from rerank_cli.ranking import ChunkOptions, Selection
from rerank_cli.ranking.blending import check_priors
from rerank_cli.ranking.budget import Budget
from rerank_cli.ranking.results import RankingBuilder
from rerank_cli.types import Document, Media, Pair, ScorerInfo


def read_query(query: str | Document) -> tuple[str, Media | None, bool]:
    """The text of a query, its image or video, and whether the text is only the label of that."""
    if not isinstance(query, Document):
        return query, None, False
    if query.media is not None and not query.text.strip():
        return media_label(query.media.place), query.media, True
    return query.text, query.media, query.text_is_label


def check_arguments(
    query: object, documents: object, selection: object, budget: object, watch: object
) -> None:
    """Raise `UsageError` for an argument of a wrong type, and for an empty query."""
    check_type("selection", selection, Selection, None)
    check_type("budget", budget, Budget, None)
    if watch is not None and not callable(watch):
        raise UsageError(f"watch is a function, and not of type {type(watch).__name__}")
    if not isinstance(query, str):
        raise UsageError(f"the query is a string, and not of type {type(query).__name__}")
    if not query.strip():
        raise UsageError("the query is empty", hint="say what to look for")
    check_several("documents", documents, Document)


def read_pairs(pairs: Iterable[Pair | tuple[str, str]]) -> list[Pair]:
    """The pairs that are to be scored; raises `UsageError` for what is no pair of strings."""
    check_several("pairs", pairs)
    return [
        pair if isinstance(pair, Pair) else _as_pair(pair, place)
        for place, pair in enumerate(pairs)
    ]


def _as_pair(item: object, place: int) -> Pair:
    texts = list(item) if isinstance(item, Sequence) and not isinstance(item, str | bytes) else []
    if len(texts) != 2 or not all(isinstance(text, str) for text in texts):
        raise UsageError(
            f"pair {place} must be a query and a text, two strings",
            hint="as in [(query, text), (query, other_text)]",
        )
    return Pair.from_texts(*texts)


def check_model(model: object, chunks: object, media_root: object) -> None:
    """Raise `UsageError` for arguments of a `Reranker` that are of a wrong type."""
    check_type("chunks", chunks, ChunkOptions, None)
    check_type("media_root", media_root, str, PathLike, None)
    is_scorer = hasattr(model, "info") and callable(getattr(model, "score", None))
    if isinstance(model, type) or not (is_scorer or isinstance(model, str | None)):
        hint = "all but the first arguments are given by their names, as in n=5"
        if isinstance(model, PathLike):
            hint = 'the path of a folder is a string, as in "./model"'
        raise UsageError(
            f"a model is a name or a Scorer, and not of type {type(model).__name__}", hint=hint
        )


def check_words(*, is_label: bool, may_be_all: bool) -> None:
    """Raise `UsageError` if a query has no words, by which passages could be compared."""
    if is_label:
        raise UsageError(
            "words choose the candidates, and the query has none",
            hint="--first-stage input" + (", or all candidates" if may_be_all else ""),
        )


def prepare_documents(
    documents: Iterable[str | Document | Mapping[str, Any]],
    *,
    info: ScorerInfo,
    root: str | None,
    builder: RankingBuilder,
    selection: Selection,
) -> Iterator[Document]:
    """The documents as the scorer reads them, each with its earlier score if that counts."""
    stream = builder.watch_documents(read_documents(documents, info, root, builder.notes))
    field = selection.prior_field
    return iter(stream) if field is None else check_priors(stream, field)


def read_documents(
    documents: Iterable[str | Document | Mapping[str, Any]],
    info: ScorerInfo,
    root: str | None,
    notes: dict[str, None],
) -> Iterator[Document]:
    """The documents as the scorer reads them; raises `InputError` for one that it cannot read.

    `notes` get a sentence for the user if part of some documents is left out.
    """
    for document in _as_documents(documents, info, root):
        media = document.media
        if media is None:
            yield document
        elif document.text_is_label or not document.text.strip():
            if media.kind not in info.media:
                raise _unread_error(document, media, info)
            yield (
                document
                if document.text_is_label
                else replace(document, text=media_label(media.place), text_is_label=True)
            )
        elif media.kind in info.mixed:
            yield document
        else:
            kind = media.kind
            reads = f"reads a text or {with_article(kind)}, and not both at once"
            reads = reads if kind in info.media else f"reads no {kind}s"
            notes[f"{info.model} {reads}: of documents with both, only the text was scored"] = None
            yield replace(document, media=None)


def _as_documents(
    documents: Iterable[str | Document | Mapping[str, Any]], info: ScorerInfo, root: str | None
) -> Iterator[Document]:
    for place, item in enumerate(documents):
        document = item if isinstance(item, Document) else _as_document(item, place, info, root)
        if not isinstance(document.text, str):
            check_type(f"the text of document {place}", document.text, str)
        yield document


def _as_document(item: object, place: int, info: ScorerInfo, root: str | None) -> Document:
    """Make a document of a string, or of a mapping as records have it; raises `UsageError`.

    Raises `InputError` for an image or a video that cannot be read.
    """
    if isinstance(item, str):
        return Document(item)
    if not isinstance(item, Mapping):
        raise UsageError(
            f"document {place} is of type {type(item).__name__}",
            hint="a document is a string, a Document, or a mapping with text",
        )
    text, name = item.get("text"), item.get("id")
    media = _media_in(item, place, info, root) if info.media else None
    if not isinstance(text, str) and (text is not None or media is None):
        keys = ", ".join(map(str, item)) or "none"
        raise UsageError(
            f"document {place}: its text is of type {type(text).__name__}, and not a string"
            if "text" in item
            else f"document {place} has no text: its keys are {keys}",
            hint="a mapping has text, and may have id, title and metadata",
        )
    if isinstance(name, bool) or not isinstance(name, str | int | None):
        raise UsageError(f"document {place}: an id is a string or an integer, not {name!r}")
    is_used = media is not None and (not text or media.kind in info.mixed)
    used_keys = ("text", media.kind) if media is not None and is_used else ("text",)
    return Document(
        text or "",
        id=None if name is None else str(name),
        fields={key: value for key, value in item.items() if key not in used_keys},
        media=media,
    )


def _media_in(
    item: Mapping[str, Any], place: int, info: ScorerInfo, root: str | None
) -> Media | None:
    """The image or video of a mapping, if the scorer reads such; raises `UsageError`.

    Raises `InputError` for a file that cannot be read.
    """
    media_values = {kind: item.get(kind) for kind in MEDIA_FIELDS if kind in info.media}
    media_values = {kind: value for kind, value in media_values.items() if value not in (None, "")}
    if not media_values:
        return None
    ((kind, value), *others) = media_values.items()
    if others:
        raise UsageError(f"document {place} has an image and a video: make two documents of it")
    if isinstance(value, Media):
        return value
    if not isinstance(value, str):
        raise UsageError(
            f"document {place}: the {kind} is of type {type(value).__name__}",
            hint="it is a URL, a path in the Reranker's media_root, or a Media",
        )
    if item.get("text") and kind not in info.mixed:
        return Media(kind, value, root)  # which is not sent
    if root is None and not is_url(value):
        raise UsageError(
            f"document {place}: the {kind} {media_label(value)} is no URL",
            hint=f'Reranker(…, media_root="DIR") reads files in DIR, Media("{kind}", path) any',
        )
    return find_record_media(value, kind, root)


def _unread_error(document: Document, media: Media, info: ScorerInfo) -> InputError:
    where = ":".join(str(part) for part in (document.source, document.line) if part)
    return InputError(
        f"{where or media_label(media.place)}: {info.model} reads no {media.kind}s",
        hint="rerank providers show NAME says which models do; of a record --field names one with "
        "text",
    )
