"""Faults in the results themselves; each leaves a reply alone that has no results."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from tests.support.loopback.dialect import Shape
from tests.support.loopback.faults import Manner
from tests.support.loopback.wire import Reply


def items_in(reply: Reply, shape: Shape) -> list[Any] | None:
    """The results of a reply, where there are any."""
    value = reply.body
    for name in shape.at:
        value = value.get(name) if isinstance(value, dict) else None
    return value if reply.code == 200 and isinstance(value, list) and value else None


def put(reply: Reply, shape: Shape, value: Any, name: str | None = None) -> None:
    """Put another value where the results are, under another name if one is given."""
    if not shape.at:
        reply.body = value if name is None else {name: value}
        return
    holder = reply.body
    for step in shape.at[:-1]:
        holder = holder[step]
    if name is not None:
        del holder[shape.at[-1]]
    holder[name or shape.at[-1]] = value


ABSENT = object()
WrongIndexKind = Literal[
    "out of range",
    "negative",
    "duplicate",
    "one-based",
    "digits",
    "float",
    "missing",
    "none",
    "null",
]


@dataclass(frozen=True)
class WrongIndex:
    """Indexes that point wrong or are written oddly.

    The first result alone is wrong where that is enough; of "one-based", "digits", "float" and
    "none" (no result has any) all are.
    """

    kind: WrongIndexKind

    def spoil(self, reply: Reply, manner: Manner) -> None:
        items, name = items_in(reply, manner.shape), manner.shape.index
        if items is None or not isinstance(items[0], dict):
            return
        wrong = INDEXES[self.kind]
        if self.kind == "duplicate":
            items[0][name] = items[-1][name]
        elif self.kind in ("one-based", "digits", "float", "none"):
            for item in items:
                replace_field(item, name, wrong(int(item[name]), len(reply.texts)))
        else:
            replace_field(items[0], name, wrong(int(items[0][name]), len(reply.texts)))


INDEXES: dict[str, Callable[[int, int], Any]] = {
    "out of range": lambda _index, count: count,
    "negative": lambda _index, _count: -1,
    "duplicate": lambda index, _count: index,
    "one-based": lambda index, _count: index + 1,
    "digits": lambda index, _count: str(index),
    "float": lambda index, _count: float(index),
    "missing": lambda _index, _count: ABSENT,
    "none": lambda _index, _count: ABSENT,
    "null": lambda _index, _count: None,
}


def replace_field(item: dict[str, Any], name: str, value: Any) -> None:
    if value is ABSENT:
        item.pop(name, None)
    else:
        item[name] = value


@dataclass(frozen=True)
class BadScore:
    """A first score that is none; of "string" every score is a number in quotation marks."""

    kind: Literal["nan", "infinity", "null", "missing", "string", "word", "boolean"]

    def spoil(self, reply: Reply, manner: Manner) -> None:
        items, name = items_in(reply, manner.shape), manner.shape.score
        if items is None:
            return
        for place in range(len(items) if self.kind == "string" else 1):
            item = items[place]
            bad = str(item[name] if name else item) if self.kind == "string" else SCORES[self.kind]
            if name is not None:
                replace_field(item, name, bad)
            elif bad is not ABSENT:
                items[place] = bad


SCORES: dict[str, Any] = {
    "nan": float("nan"),
    "infinity": float("inf"),
    "null": None,
    "missing": ABSENT,
    "word": "high",
    "boolean": True,
}


@dataclass(frozen=True)
class Fewer:
    """So many of the results and no more."""

    count: int

    def spoil(self, reply: Reply, manner: Manner) -> None:
        if items := items_in(reply, manner.shape):
            put(reply, manner.shape, items[: self.count])


@dataclass(frozen=True)
class Nothing:
    """Success without results: an empty list, null, or no such key."""

    kind: Literal["empty", "null", "missing"] = "empty"

    def spoil(self, reply: Reply, manner: Manner) -> None:
        if items_in(reply, manner.shape) is None:
            return
        put(reply, manner.shape, [] if self.kind == "empty" else None)
        if self.kind == "missing":
            put(reply, manner.shape, None, "nothing")


@dataclass(frozen=True)
class Rename:
    """The results, or the index or score of each, under a name that nobody expects."""

    to: str
    part: Literal["results", "score", "index"] = "results"

    def spoil(self, reply: Reply, manner: Manner) -> None:
        items = items_in(reply, manner.shape)
        if items is None:
            return
        if self.part == "results":
            put(reply, manner.shape, items, self.to)
            return
        name = manner.shape.score if self.part == "score" else manner.shape.index
        for item in items:
            if isinstance(item, dict) and name is not None:
                item[self.to] = item.pop(name)


@dataclass(frozen=True)
class BareArray:
    """The results with nothing around them."""

    def spoil(self, reply: Reply, manner: Manner) -> None:
        if items := items_in(reply, manner.shape):
            reply.body = items


@dataclass(frozen=True)
class ScoresOnly:
    """Numbers alone, in the order of the documents, where the results were."""

    def spoil(self, reply: Reply, manner: Manner) -> None:
        items, shape = items_in(reply, manner.shape), manner.shape
        if items is None or shape.score is None:
            return
        results = sorted(items, key=shape.place)
        put(reply, shape, [item[shape.score] for item in results])


@dataclass(frozen=True)
class DocumentAs:
    """Each result with its document, as a string, as an object, or as null."""

    kind: Literal["string", "object", "null"]
    name: str = "document"

    def spoil(self, reply: Reply, manner: Manner) -> None:
        for item in items_in(reply, manner.shape) or []:
            if isinstance(item, dict):
                text = reply.texts[manner.shape.place(item)]
                kinds = {"string": text, "object": {"text": text}, "null": None}
                item[self.name] = kinds[self.kind]
