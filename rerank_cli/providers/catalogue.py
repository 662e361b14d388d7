"""The providers there are: those of the package, and the user's own in their config directory.

Puts an entry together from what it is like, itself, and what it says of the model asked for.
"""

import re
import tomllib
from collections.abc import Mapping
from difflib import get_close_matches
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rerank_cli.errors import ConfigError, UsageError
from rerank_cli.user_files import config_directory

if TYPE_CHECKING:
    from rerank_cli.providers.schema import Provider

_SHIPPED = Path(__file__).parent.parent / "data" / "providers.toml"
DEFAULT = "default"
# What a provider does not inherit: it is about the other one alone.
_OWN = ("aliases", "like")
# Nor this where it has an address of its own: no key goes to another host than it is for.
_HOST = ("account", "key", "poll")
# What the rules for some models cannot say, for the same reason.
_NOT_BY_MODEL = ("url", "poll", "account", "key", "aliases", "like", "models")

_SECRET = re.compile(
    r"authori[sz]ation|(auth|api-?key|key|token|secret|cookie|password|credentials?)$",
    re.IGNORECASE,
)

Table = dict[str, Any]


def own_file() -> Path:
    """Where the user's own providers are."""
    return config_directory() / "providers.toml"


def names() -> list[str]:
    """The names of all providers, the user's own last."""
    return [name for name in entries() if name != DEFAULT]


def examples() -> list[str]:
    """A model of each provider, as `-m` takes it."""
    return [f"{name}/{_inherited(name)['example']}" for name in names()]


def is_provider(name: str) -> bool:
    """Whether a provider, or another name of one, is called so."""
    return _named(name) is not None


def near(name: str) -> list[str]:
    """The names of providers that are most like one that there is not."""
    return get_close_matches(name, names(), cutoff=0.7)


def find_provider(name: str, model: str = "") -> "Provider":
    """Put together what is known of a provider, and of a model of it.

    Raises what `table_of` does.
    """
    return _checked(table_of(name, model))


def table_of(name: str, model: str = "") -> Table:
    """Put together the entry of a provider and of a model of it, as they are written.

    Raises `UsageError` where there is none of this name, with the nearest ones, and `ConfigError`
    for an entry of the user's that makes no sense.
    """
    known = _named(name)
    if known is None:
        hint = f"did you mean {' or '.join(near(name))}?" if near(name) else None
        raise UsageError(
            f"no provider is called {name}", hint=hint or "rerank providers lists them"
        )
    table = _inherited(known)
    for special in table.pop("models", ()):
        if any(fnmatchcase(model, pattern) for pattern in special["names"]):
            table = _merged(table, {k: v for k, v in special.items() if k != "names"})
    table.pop("like", None)
    table = {"account": known, "title": known, **table, "name": known}
    if known in _read_own():  # what ships is checked by its tests, and at once
        _checked(table)
    return table


def entries() -> Mapping[str, Table]:
    """All entries as they are written, by name."""
    own = _read_own()
    return {**_shipped(), **{name: _merged(_shipped().get(name, {}), own[name]) for name in own}}


def _named(name: str) -> str | None:
    known = entries()
    if name in known and name != DEFAULT:
        return name
    return next((other for other in known if name in known[other].get("aliases", ())), None)


def _inherited(name: str, heirs: tuple[str, ...] = ()) -> Table:
    """An entry with all that it has from the one that it is like, and that from another."""
    entry = entries().get(name)
    if entry is None or name in heirs:
        raise ConfigError(
            f"{own_file()}: {heirs[-1]} is like {name}, "
            + ("which is like itself" if entry else "and there is no such provider"),
            hint="rerank providers lists what there is",
        )
    if name == DEFAULT:
        return dict(entry)
    parent = _inherited(entry.get("like", DEFAULT), (*heirs, name))
    others = (*_OWN, *_HOST) if "url" in entry else _OWN
    inherited = {k: v for k, v in parent.items() if k not in others}
    if "url" in entry and "headers" in inherited:
        headers = inherited["headers"].items()
        inherited["headers"] = {k: v for k, v in headers if not is_secret(k)}
    return _merged(inherited, entry)


def is_secret(header: str) -> bool:
    """Whether the value of a header is nobody else's business, by its name."""
    return _SECRET.search(header) is not None


def _merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> Table:
    """Tables over tables, key by key; `false` takes away what was there."""
    merged = dict(base)
    for key, value in changes.items():
        if value is False:
            merged.pop(key, None)
        elif isinstance(value, dict) and isinstance(merged.get(key), dict) and key != "body":
            merged[key] = _merged(merged[key], value)
        elif key == "models" and isinstance(value, list):
            merged[key] = [*merged.get(key, ()), *value]  # the last that fits a model decides
        else:
            merged[key] = value
    return merged


def _checked(table: Table) -> "Provider":
    from pydantic import ValidationError

    from rerank_cli.providers.schema import Provider

    try:
        return Provider.model_validate(table)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(step) for step in first["loc"])
        raise ConfigError(
            f"{own_file()}: {table['name']}: {place}: {first['msg'].lower()}",
            hint="rerank providers show NAME --toml writes an entry to begin with",
        ) from error


@cache
def _shipped() -> Mapping[str, Table]:
    return tomllib.loads(_SHIPPED.read_text(encoding="utf-8"))


def _read_own() -> Mapping[str, Table]:
    try:
        path = own_file()
        content = path.read_text(encoding="utf-8-sig")
    except (FileNotFoundError, ConfigError):  # also where there is nowhere to keep it
        return {}
    except (OSError, ValueError) as error:
        raise ConfigError(f"{own_file()}: {error}") from error
    return _parsed(content, path)


def _parsed(content: str, path: Path) -> Mapping[str, Table]:
    try:
        tables = tomllib.loads(content)
    except ValueError as error:
        raise ConfigError(f"{path}: not TOML: {error}") from error
    for name, table in tables.items():
        if not isinstance(table, dict) or name == DEFAULT:
            raise ConfigError(
                f"{path}: {name} is no table of a provider", hint=f"[{name}] and below it url = …"
            )
        if not isinstance(table.get("like", DEFAULT), str):
            raise ConfigError(f"{path}: {name}: like is the name of a provider")
        rules = table.get("models", [])
        if rules is not False and not isinstance(rules, list):
            raise ConfigError(f"{path}: {name}: models are tables, [[{name}.models]]")
        for rule in rules or ():
            patterns = rule.get("names") if isinstance(rule, dict) else None
            if not isinstance(patterns, list) or not all(isinstance(p, str) for p in patterns):
                raise ConfigError(f"{path}: {name}: a table of models needs names")
            if wrong := next((key for key in _NOT_BY_MODEL if key in rule), None):
                raise ConfigError(
                    f"{path}: {name}: {wrong} is the same for all models",
                    hint="another provider, with like, can have another",
                )
    return tables
