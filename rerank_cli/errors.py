"""Everything that can go wrong and be said in a sentence.

    RerankError             never raised itself
    ├── UsageError      2   the command line or a call's arguments, a model's name among them
    │   └── QueryTooLong    the query leaves the model no room for a passage
    ├── ConfigError     2   a setting in config.toml or the environment, or a file of keys
    │   └── UnusableProxy   the environment or the system names a proxy that cannot be used
    ├── InputError      2   a file or record that cannot be read
    │   └── MissingExtra    it needs a library that is not installed
    ├── OutputError     2   results that cannot be written
    └── ScorerError     3   scoring failed
        ├── ModelError      a model's files are missing, damaged or of another kind
        │   └── NotInstalled    a model that is known was not pulled yet
        └── ProviderError   a service could not be reached, or it refused
            └── AnswerError a server's answer is not a ranking of what it was sent

A message says what, which and why in one line; a hint says what to do now. What is not in this
tree is a bug, and ends in `ExitCode.BUG`.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum


class ExitCode(IntEnum):
    """What a shell learns from a run. Where several apply: 130, 70, 2, 3, 4, 1."""

    OK = 0
    NOTHING = 1
    USAGE = 2
    SCORER = 3
    TRUNCATED = 4
    BUG = 70
    INTERRUPTED = 130


class RerankError(Exception):
    """The root: carries a message, maybe a hint, and an exit code."""

    exit_code = ExitCode.BUG

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint


class UsageError(RerankError):
    exit_code = ExitCode.USAGE


class QueryTooLong(UsageError):
    """The query has `tokens` tokens, of which `limit` fit beside a passage."""

    def __init__(self, tokens: int, limit: int, model: str) -> None:
        super().__init__(
            f"the query is too long for {model}: it has {tokens} tokens and {limit} fit",
            hint=f"shorten it, or let --truncate-query cut it to its first {limit} tokens",
        )
        self.tokens = tokens
        self.limit = limit


class ConfigError(RerankError):
    exit_code = ExitCode.USAGE


class UnusableProxy(ConfigError):
    """`reason` is what httpx2 raised for a proxy of the environment or the system."""

    def __init__(self, reason: Exception) -> None:
        super().__init__(
            f"a proxy that cannot be used: {str(reason).partition('. ')[0]}",
            hint="HTTPS_PROXY, HTTP_PROXY and ALL_PROXY take http:// and https://",
        )


class InputError(RerankError):
    exit_code = ExitCode.USAGE


class MissingExtra(InputError):
    """`what` needs a library that comes with an extra of this package."""

    def __init__(self, what: str, extra: str) -> None:
        super().__init__(
            f"{what} needs the extra {extra}, and it is not installed",
            hint=f"pip install 'rerank-cli[{extra}]'",
        )
        self.extra = extra


@contextmanager
def require_extra(what: str, extra: str) -> Iterator[None]:
    """Raise `MissingExtra` where the block imports what is not installed."""
    try:
        yield
    except ImportError as error:
        raise MissingExtra(what, extra) from error


class OutputError(RerankError):
    exit_code = ExitCode.USAGE


class ScorerError(RerankError):
    exit_code = ExitCode.SCORER


class ModelError(ScorerError):
    pass


class NotInstalled(ModelError):
    """A model that could be pulled was not, so that `place` is not there."""

    def __init__(self, model: str, place: str) -> None:
        super().__init__(
            f"{model} is not installed: there is no {place}",
            hint=f"rerank models pull {model}, or give --pull",
        )
        self.model = model


class ProviderError(ScorerError):
    """`permanent` says that any other request would fail like it: the key, the model, the address.

    `transient` says that the same request may succeed another time.
    """

    permanent = False
    transient = False


class AnswerError(ProviderError):
    pass
