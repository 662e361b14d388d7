"""What a batch is made of: records, and what stands in the place of those that are none."""

import math
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar

from rerank_cli.errors import InputError
from rerank_cli.inputs import records
from rerank_cli.inputs.text import Block
from rerank_cli.terminal import encodable, format_size
from rerank_cli.types import Document, Envelope, Ranking, ScorerInfo

PARQUET_SUFFIX = ".parquet"
SAMPLE = 200  # records

T = TypeVar("T")


class Problem(NamedTuple):
    """Why a record has no results: a word for programs, and a sentence for people."""

    code: str
    message: str


@dataclass(frozen=True, slots=True)
class Given:
    """One place of the input, as it came: `raw` are a line's own bytes without its end.

    `size` is what it holds in memory, about, in bytes. `name` is the record's id, if it has one.
    """

    raw: bytes
    fields: Mapping[str, Any] = field(default_factory=dict)
    name: str | int | None = None
    size: int = 0


@dataclass(frozen=True, slots=True)
class Record:
    """A query and the documents to be ranked by it; what is None is as for all records."""

    given: Given
    query: str
    documents: Sequence[Document]
    top_n: int | None = None
    min_score: float | None = None
    instruction: str | None = None


@dataclass(frozen=True, slots=True)
class Refused:
    """A place of the input that is no record."""

    given: Given
    problem: Problem


@dataclass(frozen=True, slots=True)
class Gap:
    """A blank line, which comes out as it came."""

    given: Given = Given(b"")


Item = Record | Refused | Gap


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of an item: a ranking or a problem, or neither for a gap.

    `seconds` from when it was begun until it was done; `scored` pairs, which are fewer than those
    of its ranking where equal ones were scored before.
    """

    item: Item
    ranking: Ranking | None = None
    problem: Problem | None = None
    seconds: float = 0.0
    scored: int = 0

    @property
    def given(self) -> Given:
        return self.item.given


def reservoir(values: Iterable[T], size: int = SAMPLE) -> tuple[int, list[T]]:
    """Count values, and keep some of them, each as likely as any other (Vitter 1985)."""
    draw = random.Random(0)  # noqa: S311 - no secret
    kept: list[T] = []
    count = 0
    for value in values:
        count += 1
        if len(kept) < size:
            kept.append(value)
        elif (place := draw.randrange(count)) < size:
            kept[place] = value
    return count, kept


_SHOWN = 40  # characters of what is not understood


class _Problem(Exception):
    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.problem = Problem(code, message)


@dataclass(frozen=True, slots=True)
class Fields:
    """Which fields of a record are what; dotted names are nested ones.

    With `pairs` a record is a query and one document, and `documents` names the field of that.
    """

    query: str = "query"
    documents: str = "documents"
    text: Sequence[str] = ()
    id: str | None = None
    pairs: bool = False

    @property
    def own(self) -> records.TextFields:
        """Those of a document."""
        return records.TextFields(self.text)


def read_line(raw: bytes, fields: Fields, info: ScorerInfo) -> Item:
    """Read a line of JSON, without its end; what is no record becomes what says why."""
    if not raw.strip():
        return Gap(Given(raw))
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        text = encodable(raw.decode("utf-8", "surrogateescape"))
    try:
        content = records.JSON_DECODER.decode(text)
    except (ValueError, RecursionError) as error:
        reason = getattr(error, "msg", str(error))
        place = f" at character {error.pos + 1}" if hasattr(error, "pos") else ""
        return Refused(Given(raw), Problem("not_json", f"not JSON: {reason}{place}"))
    if not isinstance(content, dict):
        shown_text = text.strip()[:_SHOWN]
        problem = Problem("not_an_object", f"a record is a JSON object, and not {shown_text}")
        return Refused(Given(raw), problem)
    return record_of(content, raw, fields, info)


def too_large(size: int, most: int) -> Refused:
    """What stands in the place of a record that is not read."""
    message = (
        f"the record has {format_size(size)} and {format_size(most)} is the most: --max-record"
    )
    return Refused(Given(b""), Problem("too_large", message))


def record_of(
    content: Mapping[str, Any], raw: bytes, fields: Fields, info: ScorerInfo
) -> Record | Refused:
    """Make a record of an object, which came as `raw`, if it came as bytes."""
    given = Given(raw, content, _name_in(content, fields), len(raw) or _size_of(content))
    try:
        return Record(
            given=given,
            query=_query_in(content, fields),
            documents=_documents_in(content, fields, info),
            top_n=_top_n_in(content),
            min_score=_min_score_in(content),
            instruction=_instruction_in(content),
        )
    except _Problem as error:
        return Refused(given, error.problem)


def _name_in(content: Mapping[str, Any], fields: Fields) -> str | int | None:
    names = (fields.id,) if fields.id is not None else records.ID_FIELDS
    for name in names:
        value = _value_in(content, name)
        if isinstance(value, str | int) and not isinstance(value, bool):
            return value
    return None


def _query_in(content: Mapping[str, Any], fields: Fields) -> str:
    value = _value_in(content, fields.query)
    if isinstance(value, str) and value.strip():
        return encodable(value)
    if value is None:
        raise _Problem("no_query", f"no field called {fields.query}: it has {_names(content)}")
    kind = "is blank" if isinstance(value, str) else f"is no text but a {type(value).__name__}"
    raise _Problem("no_query", f"the field {fields.query} {kind}")


def _documents_in(
    content: Mapping[str, Any], fields: Fields, info: ScorerInfo
) -> Sequence[Document]:
    value = _value_in(content, fields.documents)
    if fields.pairs:
        if value is None:
            raise _Problem(
                "no_documents", f"no field called {fields.documents}: it has {_names(content)}"
            )
        return (_document(value, 0, fields, info),)
    if not isinstance(value, list):
        missing = f"no field called {fields.documents}: it has {_names(content)}"
        wrong = f"the field {fields.documents} is no list but a {type(value).__name__}"
        raise _Problem("no_documents", missing if value is None else wrong)
    if not value:
        raise _Problem("no_documents", f"the field {fields.documents} is empty")
    return [_document(one, place, fields, info) for place, one in enumerate(value)]


def _document(value: Any, place: int, fields: Fields, info: ScorerInfo) -> Document:
    if isinstance(value, str):
        return Document(encodable(value))
    try:
        made = records.make_document(
            value,
            fields.own,
            Block(str(value), place, b""),
            fields.documents,
            _ENVELOPE,
            with_title=False,
            scorer=info,
        )
    except InputError as error:
        raise _Problem("bad_document", str(error)) from error
    if made.media is not None and made.media.kind not in info.media:
        raise _Problem("bad_document", f"{info.model} reads no {made.media.kind}s")
    return Document(made.text, id=made.id, fields=made.fields, media=made.media)


_ENVELOPE = Envelope()


def _top_n_in(content: Mapping[str, Any]) -> int | None:
    value = content.get("top_n")
    if value is None or (isinstance(value, int) and not isinstance(value, bool) and value >= 1):
        return value
    raise _Problem("bad_option", f"top_n is a whole number from 1 on, and not {_json(value)}")


def _min_score_in(content: Mapping[str, Any]) -> float | None:
    value = content.get("min_score")
    if value is None:
        return None
    if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        return float(value)
    raise _Problem("bad_option", f"min_score is a number, and not {_json(value)}")


def _instruction_in(content: Mapping[str, Any]) -> str | None:
    value = content.get("instruction")
    if value is None or isinstance(value, str):
        return value or None
    raise _Problem("bad_option", f"instruction is a text, and not {_json(value)}")


def _value_in(content: Mapping[str, Any], name: str) -> Any:
    value: Any = content
    for step in [name] if name in content else name.split("."):
        value = value.get(step) if isinstance(value, dict) else None
    return value


def _names(content: Mapping[str, Any]) -> str:
    return ", ".join(map(str, content))[:200] or "none"


def _json(value: Any) -> str:
    return repr(value)[:_SHOWN]


def _size_of(content: Mapping[str, Any]) -> int:
    """About how many bytes an object holds that did not come as bytes."""
    return sum(map(_weight, content.values()))


def _weight(value: Any) -> int:
    if isinstance(value, str):
        return len(value) + 50
    if isinstance(value, Mapping):
        return sum(map(_weight, value.values()))
    return sum(map(_weight, value)) if isinstance(value, list) else 30
