"""The catalogue: models by name, the places of their files, and facts about them.

The data is read from `data/models.toml`. It says nothing about the models on this machine.
"""

import math
import re
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any, get_args
from urllib.parse import urlsplit

from rerank_cli.terminal import format_size
from rerank_cli.types import Scale, ScorerInfo

PRECISIONS = ("int8", "fp32")  # in the order in which they are preferred on a CPU
_TIMED_TOKENS = 16_000  # of the pairs that take `seconds`
_SPARE_SECONDS = 0.12
_PARAMETER_BYTES = {"int8": 1, "fp32": 4}

_PATH = Path(__file__).parent.parent / "data" / "models.toml"
_MIN_TYPED_LETTERS = 3  # fewer are in many names
_NON_COMMERCIAL = "-NC"
_MAX_COUNT = 1 << 31


@dataclass(frozen=True, slots=True)
class GraphFile:
    """A graph in a repository; it `needs` features of a processor, named as in /proc/cpuinfo."""

    file: str
    needs: str = ""


@dataclass(frozen=True, slots=True)
class Origin:
    """The source of the files of one precision: a repository on the Hub, and possible graphs."""

    repository: str
    graphs: Sequence[GraphFile]


@dataclass(frozen=True, slots=True)
class Quality:
    """A published figure, and who published it."""

    measure: str
    value: float
    source: str


@dataclass(frozen=True, slots=True)
class Sample:
    """A pair and its published score; a row of JSON or TOML names the score by its scale."""

    query: str
    passage: str
    score: float
    scale: Scale = "logit"

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> "Sample":
        """Read a row as `row` gives it; raises `ValueError` for another."""
        texts = ("query", "passage")
        scores = {name: value for name, value in row.items() if name not in texts}
        query, passage = (str(row.get(name, "")) for name in texts)
        for scale in get_args(Scale):
            if scores.keys() == {scale}:
                return cls(query, passage, float(scores[scale]), scale)
        raise ValueError(f"not a pair with a score: {sorted(row)}")

    def row(self) -> dict[str, Any]:
        return {"query": self.query, "passage": self.passage, self.scale: self.score}


@dataclass(frozen=True, slots=True)
class Prompt:
    """The prompt of a causal model: the text before and after, and the tokens of its answers.

    `query` has places for `{instruction}` and `{query}`, and the passage follows it.
    """

    before: str
    query: str
    after: str
    instruction: str
    yes: str
    no: str
    source: str


@dataclass(frozen=True, slots=True)
class Entry:
    """A model that has a name. One that ships has a `folder` and a `revision`.

    `parameters` are millions; `length` and `window` are tokens, as in `ModelFolder`. `seconds` are
    what 100 passages of 140 tokens take a model of this shape in int8 on two cores. `scale` is the
    scale of its scores, if the graph does not tell it. If the best raw score is below `weak_below`,
    probably nothing answers. Unknown values of a model that is not in the catalogue are empty.
    """

    name: str
    page: str = ""
    encoding: str = ""
    licence: str = ""
    languages: Sequence[str] = ()
    parameters: int = 0
    length: int = 0
    window: int = 0
    seconds: float = 0.0
    folder: str = ""
    revision: str = ""
    former: Sequence[str] = ()
    quality: Sequence[Quality] = ()
    self_test: Sequence[Sample] = ()
    scale: Scale | None = None
    weak_below: float | None = None
    int8: Origin | None = None
    fp32: Origin | None = None

    @property
    def spare_tokens(self) -> int:
        """The tokens that take it an eighth of a second, or a few more if it is slow."""
        if not self.seconds:
            return ScorerInfo.spare_tokens
        tokens = round(_TIMED_TOKENS / self.seconds * _SPARE_SECONDS)
        return max(ScorerInfo.spare_tokens, tokens)

    @property
    def origins(self) -> Mapping[str, Origin]:
        """The places of its precisions, the preferred one first."""
        both = {"int8": self.int8, "fp32": self.fp32}
        return {name: origin for name, origin in both.items() if origin is not None}

    def estimated_size(self, precision: str = "") -> str:
        """About the size of its graph in words, by default of the precision that is pulled first.

        A graph consists almost only of its parameters: for the graphs whose size is known (bge,
        mmarco), the error is at most 1 %.
        """
        precision = precision or next(iter(self.origins), PRECISIONS[0])
        size_bytes = self.parameters * _PARAMETER_BYTES[precision] * 1_000_000
        step = 10 ** (len(str(size_bytes)) - 2)
        return f"~{format_size(round(size_bytes / step) * step)}"

    def table(self) -> dict[str, Any]:
        """The table that `read_entry` reads, without unknown values."""
        values: dict[str, Any] = {name: getattr(self, name) for name in _KINDS}
        values["languages"] = [*self.languages]
        values["quality"] = [asdict(figure) for figure in self.quality]
        values["self_test"] = [sample.row() for sample in self.self_test]
        return {name: value for name, value in values.items() if value not in ("", 0, [], None)}

    @property
    def repository(self) -> str:
        """The repository of its weights on the Hub, as OWNER/NAME."""
        return urlsplit(self.page).path.strip("/")

    @property
    def is_commercial(self) -> bool:
        """Whether its licence allows commercial use."""
        return _NON_COMMERCIAL not in self.licence


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and value.isprintable()


def _is_list_of(is_right: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, list) and all(map(is_right, value))


def _is_number(value: Any) -> bool:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and math.isfinite(value)


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 < value < _MAX_COUNT


# The keys that a model's own file may have, and the types of their values.
_KINDS: Mapping[str, tuple[str, Callable[[Any], bool]]] = {
    "revision": ("a text", _is_text),
    "page": ("a text", _is_text),
    "encoding": ("a text", _is_text),
    "licence": ("a text", _is_text),
    "languages": ("a list of codes", _is_list_of(_is_text)),
    "parameters": ("a number of millions", _is_count),
    "length": ("a number of tokens", _is_count),
    "window": ("a number of tokens", _is_count),
    "seconds": ("a number of seconds", lambda value: _is_number(value) and value > 0),
    "scale": (f"one of {', '.join(get_args(Scale))}", lambda value: value in get_args(Scale)),
    "weak_below": ("a number", _is_number),
    "quality": ("a list of figures", _is_list_of(lambda row: isinstance(row, dict))),
    "self_test": ("a list of pairs", _is_list_of(lambda row: isinstance(row, dict))),
}


def read_entry(name: str, table: Mapping[str, Any], *, is_strict: bool = False) -> Entry:
    """Read the content of a model's own file; raises `ValueError` for a value of a wrong kind.

    A key that is not known may be of a newer version, and is an error only if `is_strict`.
    """
    unknown_keys = [key for key in table if key not in _KINDS]
    if unknown_keys and is_strict:
        raise ValueError(f"{unknown_keys[0]} is none of {', '.join(_KINDS)}")
    for key, (kind, is_right) in _KINDS.items():
        if key in table and not is_right(table[key]):
            raise ValueError(f"{key} is not {kind}")
    try:
        return _entry(name, {key: value for key, value in table.items() if key in _KINDS})
    except (TypeError, ValueError) as error:
        raise ValueError(f"quality or self_test: {error}") from error


def default() -> str:
    """The default model."""
    return str(_content()["default"])


@cache
def entries() -> Mapping[str, Entry]:
    """All models by name."""
    return {name: _entry(name, table) for name, table in _content()["models"].items()}


def names_containing(text: str) -> list[str]:
    """The names that contain what was typed, for a hint.

    Case, owner, precision and the marks between words do not matter. A repository that a model
    comes from is that model's name alone.
    """
    text_name = re.split("[:@]", text.strip().removeprefix("hf:"), maxsplit=1)[0]
    matches = [
        entry.name for entry in entries().values() if text_name.lower() in _repositories(entry)
    ]
    if matches:
        return matches
    words = [_letters(word) for word in re.split(r"[\W_]+", text_name.rpartition("/")[2]) if word]
    if len("".join(words)) < _MIN_TYPED_LETTERS:
        return []
    names = {name: _letters(name) for name in entries()}
    exact = [name for name, letters in names.items() if letters == "".join(words)]
    near = [name for name, letters in names.items() if "".join(words) in letters]
    near = near or [name for name, letters in names.items() if all(w in letters for w in words)]
    return exact or near


def _repositories(entry: Entry) -> set[str]:
    """The repositories that a model's files are in, in small letters."""
    origins = (origin.repository for origin in entry.origins.values())
    return {name.lower() for name in (entry.repository, *origins) if not entry.folder}


def _letters(text: str) -> str:
    """A text's letters and digits, for the comparison of names."""
    return re.sub(r"[\W_]+", "", text).lower()


@cache
def prompts() -> Mapping[str, Prompt]:
    """The prompts of causal models, by the `model_type` of their configuration."""
    return {kind: Prompt(**table) for kind, table in _content()["prompts"].items()}


@cache
def _content() -> dict[str, Any]:
    return tomllib.loads(_PATH.read_text(encoding="utf-8"))


def _entry(name: str, table: Mapping[str, Any]) -> Entry:
    origins = {
        precision: Origin(
            table[precision]["repository"],
            [GraphFile(**graph) for graph in table[precision]["graphs"]],
        )
        for precision in PRECISIONS
        if precision in table
    }
    lists = {
        "quality": [Quality(**row) for row in table.get("quality", ())],
        "self_test": [Sample.from_row(row) for row in table.get("self_test", ())],
    }
    return Entry(**{"name": name, **table, **lists, **origins})
