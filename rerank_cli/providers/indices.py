"""Which document each result of a rerank API's answer is about: by index, by text, or in order."""

from collections.abc import Iterator, Sequence
from typing import Any

from rerank_cli.errors import AnswerError
from rerank_cli.providers.bodies import as_number, at, shown

_INDICES = ("index", "document_index")
_ECHOES = ("document.text", "document", "text")


def indices_of(
    items: Sequence[Any],
    documents: int,
    texts: Sequence[str] = (),
    *,
    path: str | None = None,
    first: int = 0,
    own_ids: bool = False,
) -> Sequence[int]:
    """The places of so many documents that results are about; raises `AnswerError`.

    An index is at `path`, or where it usually is, and that of the first document is `first`. Where
    there is none, results are told by `texts`, or are one for each document in order.
    """
    stated = [_stated_index(item, path, own_ids=own_ids) for item in items]
    if all(index is None for index in stated):
        return _unstated(items, documents, texts)
    seen: dict[int, str] = {}
    for place, value in counted(stated):
        if value is None:
            raise AnswerError(f"{place} has no index, and others have one")
        index = _whole(value)
        if index is None:
            raise AnswerError(f"{place} has {shown(value)} for an index, not a whole number")
        if not first <= index < first + documents:
            raise AnswerError(
                f"{place} has index {shown(value)}, and documents have {_range(first, documents)}",
                hint=_counting_hint(stated, documents) if not first else None,
            )
        if index in seen:
            raise AnswerError(f"{seen[index]} and {place} have the same index {shown(value)}")
        seen[index] = place
    return [index - first for index in seen]


def _unstated(items: Sequence[Any], documents: int, texts: Sequence[str]) -> Sequence[int]:
    """The places of documents where results say none: by their texts, or one for each in order."""
    echoes = [_echo(item) for item in items]
    if texts and all(echo is not None for echo in echoes):
        places: dict[str, list[int]] = {}
        for place in reversed(range(len(texts))):
            places.setdefault(texts[place], []).append(place)
        found = [places[str(echo)].pop() if places.get(str(echo)) else None for echo in echoes]
        if known := [place for place in found if place is not None]:
            if len(known) == len(found):
                return known
            raise AnswerError("the server's results have no indices, and texts that were not sent")
    if len(items) != documents:
        raise AnswerError(
            "the server's results have no indices, and are not one for each document: "
            f"results {len(items)}, documents {documents}"
        )
    return range(documents)


def _echo(item: Any) -> str | None:
    """The document's text, where a result gives it back."""
    found = (at(item, path) for path in _ECHOES)
    return next((text for text in found if isinstance(text, str)), None)


def _stated_index(item: Any, path: str | None, *, own_ids: bool) -> Any:
    """What a result says of its document's place, or None."""
    if path is not None:
        return at(item, path)
    if not isinstance(item, dict):
        return None
    stated = next((item[name] for name in _INDICES if item.get(name) is not None), None)
    # Some give the place as an id; where documents were sent with ids it is their name.
    is_place = stated is None and not own_ids and _whole(item.get("id")) is not None
    return item["id"] if is_place else stated


def _whole(value: Any) -> int | None:
    """A whole number, be it as 2.0 or "2"."""
    if isinstance(value, str) and not value.strip().removeprefix("-").isdecimal():
        return None
    number = as_number(value)
    return int(number) if number is not None and number.is_integer() else None


def _range(first: int, documents: int) -> str:
    return f"{first} to {first + documents - 1}" if documents else "none"


def _counting_hint(stated: Sequence[Any], documents: int) -> str | None:
    indices = {_whole(value) for value in stated}
    if indices <= set(range(1, documents + 1)):
        return "the server seems to count from 1; its provider's entry can say first_index = 1"
    return None


def counted(items: Sequence[Any]) -> Iterator[tuple[str, Any]]:
    """Each item, and which it is as a message says it."""
    return ((f"result {place} of {len(items)}", item) for place, item in enumerate(items, 1))
