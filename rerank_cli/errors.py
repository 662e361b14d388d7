"""The errors that users see, as a tree, and the exit codes of the program.

    RerankError             never raised itself
    ├── UsageError      2   the command line, or the arguments of a call, is wrong
    │   └── QueryTooLong    the query leaves no room for a passage
    ├── ConfigError     2   a setting, in config.toml or the environment, or a file of keys is wrong
    │   ├── NoHome          the user has no home directory, where something has to be kept
    │   └── UnusableProxy   a proxy of the environment or the system cannot be used
    ├── InputError      2   a file or record cannot be read
    │   └── MissingExtra    a library that comes with an extra is not installed
    ├── OutputError     2   results cannot be written
    └── ScorerError     3   scoring failed
        ├── OutOfMemory     the system gives no more memory
        ├── NothingScored   a limit of time or money was reached before the needed scores were there
        ├── RecordError     a record of a batch has no ranking
        ├── ModelError      a model's files are missing, damaged or of another kind
        │   └── NotInstalled    a known model was not pulled yet
        └── ProviderError   a service could not be reached, or it refused
            └── AnswerError a server's answer is not a ranking of what it was sent

The number is the exit code. A message says what went wrong, where and why in one line; a hint says
what to do now. Any other exception is a bug: the program ends with `ExitCode.BUG`.
"""

import os
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from enum import Enum, EnumType, IntEnum
from errno import ENOMEM
from functools import cache
from numbers import Integral, Real
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Any, get_args, get_type_hints

if TYPE_CHECKING:
    from rerank_cli.costs import ServiceRequest

_NEAR = 0.6  # the least similarity of a mistyped word and the one that was meant; 1 is equal
_TYPE_WORDS: dict[type, str] = {
    Integral: "a whole number",
    Real: "a number",
    str: "a string",
    Iterable: "a list",
    NoneType: "None",
}
_NO_WORD = re.compile(r"[\s/\\]")
_OUT_OF_MEMORY_WORDS = (
    "failed to map segment",
    "cannot allocate memory",
    "can't start new thread",
    "bad_alloc",
    "without exception set",
    "without setting an exception",
)


class ExitCode(IntEnum):
    """The exit codes of the program. If several apply, the first of 130, 70, 2, 3, 4, 1 is used."""

    OK = 0
    NOTHING = 1
    USAGE = 2
    SCORER = 3
    TRUNCATED = 4
    BUG = 70
    INTERRUPTED = 130


class RerankError(Exception):
    """The root of the tree: a message, an optional hint, and an exit code."""

    exit_code = ExitCode.BUG

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint

    def __reduce__(self) -> tuple[Any, ...]:
        # Python would call `__init__` with the message alone, and some kinds take other arguments.
        # A pool of processes breaks if it cannot read an error.
        return _without_init, (type(self), self.args), vars(self)


def _without_init(kind: type[RerankError], args: tuple[Any, ...]) -> RerankError:
    return kind.__new__(kind, *args)


class UsageError(RerankError):
    exit_code = ExitCode.USAGE


def check_choice(what: str, value: str, choices: Iterable[str]) -> None:
    """Raise `UsageError` for a value that is not among its choices."""
    if value not in (names := [*choices]):
        near = near_words(str(value), names)
        hint = f"one of {', '.join(names)}"
        if near:
            hint = f"did you mean {near[0]}? It is {hint}"
        raise UsageError(f"no {what} is called {str(value)!r}", hint=hint)


def check_type(name: str, value: object, *kinds: type | None) -> None:
    """Raise `UsageError` if a value, called `name`, has none of some types.

    numpy's numbers are numbers too; True is not a number.
    """
    numbers = {int: Integral, float: Real}
    types = tuple(NoneType if kind is None else numbers.get(kind, kind) for kind in kinds)
    if not isinstance(value, types) or (isinstance(value, bool) and bool not in types):
        words = [_TYPE_WORDS.get(kind, f"of type {kind.__name__}") for kind in types]
        # A choice is a string, and named tuples are made by the package itself.
        words = [
            word
            for kind, word in zip(types, words, strict=True)
            if not issubclass(kind, Enum | tuple)
        ]
        expected = " or ".join(filter(None, (", ".join(words[:-1]), *words[-1:])))
        raise UsageError(f"{name} is {expected}, and not of type {type(value).__name__}")


def check_several(name: str, values: object, *singles: type) -> None:
    """Raise `UsageError` if values are not iterable, or are a string, a mapping or of `singles`."""
    if not isinstance(values, Iterable) or isinstance(values, (str, bytes, Mapping, *singles)):
        kind = type(values).__name__
        raise UsageError(f"{name} must be several, as in a list, and not of type {kind}")


def check_fields(options: object) -> None:
    """Raise `UsageError` for a field of a dataclass with a value of another type.

    Looks at fields of plain types, and not at flags: any value is true or false.
    """
    for name, kinds in _field_kinds(type(options)):  # type: ignore[arg-type] # types are hashable
        check_type(name, getattr(options, name), *kinds)


@cache
def _field_kinds(owner: type) -> list[tuple[str, Sequence[type | None]]]:
    kinds_by_field = list[tuple[str, Sequence[type | None]]]()
    for name, hint in get_type_hints(owner).items():
        kinds = get_args(hint) if isinstance(hint, UnionType) else (hint,)
        if all(type(kind) in (type, EnumType) for kind in kinds) and bool not in kinds:
            kinds_by_field.append((name, kinds))
    return kinds_by_field


def near_words(
    word: str, words: Iterable[str], *, likeness: float = _NEAR, most: int = 3
) -> list[str]:
    """The words that are spelled like another, the most similar first; none for a path.

    `likeness` is their least similarity; 1 is equal except for capitals.
    """
    from difflib import get_close_matches  # few runs need it

    if _NO_WORD.search(word):
        return []
    words_by_lower = {each.lower(): each for each in words}
    return [
        words_by_lower[each]
        for each in get_close_matches(word.lower(), words_by_lower, most, likeness)
    ]


class QueryTooLong(UsageError):
    """The query has `size` tokens, or characters, and only `limit` of these fit."""

    def __init__(self, size: int, limit: int, model: str, unit: str = "tokens") -> None:
        super().__init__(
            f"the query is too long for {model}: it has {size} {unit} and {limit} fit",
            hint=f"shorten it, or let --truncate-query cut it to its first {limit} {unit}",
        )
        self.size = size
        self.limit = limit


class ConfigError(RerankError):
    exit_code = ExitCode.USAGE


class NoHome(ConfigError):
    """The user has no home directory. Readers do without the files that would be there."""

    def __init__(self) -> None:
        super().__init__(
            "this user has no home directory", hint="set RERANK_HOME to the path of a directory"
        )


class UnusableProxy(ConfigError):
    """The proxy that a `variable` names cannot be used, for a `reason` that shows no password."""

    def __init__(self, variable: str, reason: str) -> None:
        super().__init__(
            f"a proxy that cannot be used: {variable}: {reason}",
            hint="HTTPS_PROXY, HTTP_PROXY and ALL_PROXY take http:// and https://",
        )


class InputError(RerankError):
    exit_code = ExitCode.USAGE


class MissingExtra(InputError):
    """`what` needs a library that comes with the package's extra `extra`."""

    def __init__(self, what: str, extra: str) -> None:
        super().__init__(
            f"{what} needs the extra {extra}, and it is not installed",
            hint=how_to_install(extra),
        )
        self.extra = extra


def how_to_install(extra: str) -> str:
    """The command that adds an extra to this installation, by what installed it."""
    package = f"'rerank-cli[{extra}]'"
    if os.path.exists(f"{sys.prefix}/pipx_metadata.json"):
        return f"pipx install --force {package}"
    if os.path.exists(f"{sys.prefix}/uv-receipt.toml"):
        return f"uv tool install {package}"
    return f"pip install {package}"


@contextmanager
def require_extra(what: str, extra: str) -> Iterator[None]:
    """Raise `MissingExtra` if an import in the block fails."""
    try:
        yield
    except ImportError as error:
        if OutOfMemory.caused(error):
            raise OutOfMemory from error
        raise MissingExtra(what, extra) from error


def reason_of(error: Exception) -> str:
    """Why a file cannot be read, in the same words everywhere, on each system."""
    if isinstance(error, FileNotFoundError):
        return "no such file"
    return getattr(error, "strerror", None) or str(error)


class OutputError(RerankError):
    exit_code = ExitCode.USAGE


class ScorerError(RerankError):
    exit_code = ExitCode.SCORER


class NothingScored(ScorerError):
    """A limit of time or money was reached before anything was scored."""


class RecordError(ScorerError):
    """A record of a batch has no ranking: `code` says why for programs, the message for people.

    `requests` are those to a service that failed.
    """

    def __init__(self, code: str, message: str, requests: Sequence["ServiceRequest"] = ()) -> None:
        super().__init__(message)
        self.code = code
        self.requests = requests


class OutOfMemory(ScorerError):
    """Some exception was `caused` by too little memory."""

    def __init__(self) -> None:
        super().__init__(
            "there is too little memory for this",
            hint="ulimit -v or a container's limit may be too low, or other programs need it",
        )

    @staticmethod
    def caused(error: BaseException) -> bool:
        """Whether an exception, or one that led to it, is due to a lack of memory.

        Libraries that cannot be loaded and threads that cannot be started say so only in words, and
        so does Python where it could not even make an exception.
        """
        cause: BaseException | None = error
        while cause is not None:
            if isinstance(cause, MemoryError) or getattr(cause, "errno", None) == ENOMEM:
                return True
            is_of_a_library = isinstance(cause, ImportError | RuntimeError | SystemError)
            if is_of_a_library and any(words in str(cause) for words in _OUT_OF_MEMORY_WORDS):
                return True
            cause = cause.__cause__ or cause.__context__
        return False


class ModelError(ScorerError):
    pass


class NotInstalled(ModelError):
    """A model that can be pulled is not installed: the path `place` does not exist.

    `size` is that of the model in words, if it is known.
    """

    def __init__(self, model: str, place: str, size: str = "") -> None:
        about = f" ({size})" if size else ""
        super().__init__(
            f"{model} is not installed: there is no {place}",
            hint=f"rerank models pull {model} fetches it{about}, and so does --pull",
        )
        self.model = model


class ProviderError(ScorerError):
    """A request failed.

    A `permanent` error would fail every other request too: a wrong key, model or address. After a
    `transient` error the same request may still succeed. `requests` are those that were sent for
    the same ranking, the failed one last.
    """

    permanent = False
    transient = False
    requests: "Sequence[ServiceRequest]" = ()


class AnswerError(ProviderError):
    pass
