"""Finds providers: those of `data/providers.toml`, and the user's own in the config directory.

An entry inherits from the one that its `like` names, and may have rules for some of its models.
"""

import re
import tomllib
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from functools import cache, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rerank_cli.errors import ConfigError, NoHome, UsageError, near_words
from rerank_cli.user_files import config_directory, parse_toml, read_user_file

if TYPE_CHECKING:
    from rerank_cli.providers.schema import Provider

_SHIPPED_FILE = Path(__file__).parent.parent / "data" / "providers.toml"
DEFAULT = "default"  # the entry that all others inherit from
_MAX_LIKENESSES = 20  # from an entry to the one that it inherits from at last
_NEVER_INHERITED = ("aliases", "like")
# Not inherited by an entry with its own URL: a key must not go to another host than its own.
_HOST_KEYS = ("account", "key", "poll")
# A rule for some models cannot set these, for the same reason.
_KEYS_OF_ALL_MODELS = ("url", "poll", "account", "key", "aliases", "like", "models")
_SECRET_HEADER = re.compile(
    r"authori[sz]ation|(auth|api-?key|key|token|secret|cookie|credentials?)$"
    r"|(passw(or)?d|passphrase|pwd|bearer|jwt|signature)$",
    re.IGNORECASE,
)

Table = dict[str, Any]


def user_file() -> Path:
    """The path of the user's own providers.toml."""
    return config_directory() / "providers.toml"


def provider_names() -> list[str]:
    """The names of all providers; the user's own come last."""
    return [name for name in provider_tables() if name != DEFAULT]


def example_models() -> list[str]:
    """A model of each provider, as `-m` takes it."""
    return [f"{name}/{_inherit(name).get('example', '')}" for name in provider_names()]


def is_provider(name: str) -> bool:
    """Whether a name is a provider's name or alias."""
    return _find_name(name) is not None


def similar_names(name: str) -> list[str]:
    """The names and aliases of providers that are most like an unknown name."""
    tables = provider_tables().values()
    aliases = [alias for table in tables for alias in table.get("aliases") or ()]
    return near_words(name, [*provider_names(), *aliases], likeness=0.7)


def find_provider(name: str, model: str = "") -> "Provider":
    """Find a provider with the rules for one of its models; raises as `find_table` does."""
    return _validate(find_table(name, model))


def find_table(name: str, model: str = "") -> Table:
    """Find a provider's table, with what it inherits and the rules for a model applied.

    Raises `UsageError`, with similar names, for an unknown name, and `ConfigError` for an entry of
    the user's that is not valid.
    """
    canonical = _find_name(name)
    if canonical is None:
        similar = " or ".join(similar_names(name))
        raise UsageError(
            f"no provider is called {name}",
            hint=f"did you mean {similar}?" if similar else "rerank providers lists them",
        )
    table, rules = _table_and_rules(canonical)
    # Tests validate the shipped entries, as long as none of the user's takes part in them.
    if _read_user_tables():
        _check_entry(canonical, table, rules)
    for rule in rules:
        if matches(rule, model):
            table = apply_rule(table, rule)
    return table


def find_rules(name: str) -> Sequence[Table]:
    """The rules for some models of a provider, in the order in which they are applied.

    Each is a table with the `names` of models and what is different for them.
    """
    return _table_and_rules(str(_find_name(name)))[1]


def matches(rule: Mapping[str, Any], model: str) -> bool:
    """Whether a rule is for a model; services take a model's name in any case."""
    return any(fnmatchcase(model.lower(), pattern.lower()) for pattern in rule["names"])


def apply_rule(table: Table, rule: Mapping[str, Any]) -> Table:
    """A provider's table as a rule changes it."""
    return _merge(table, {key: value for key, value in rule.items() if key != "names"})


def add_removals(name: str, table: Table) -> Table:
    """An entry's table with each `false` by which the user changes the shipped entry of its name.

    Without these the table, read back under that name, would be merged over the removed values.
    """
    if name not in _shipped_tables():
        return table
    removals = _removals_in(_read_user_tables().get(name, {}))
    return _merge(removals, table, keeps_removals=True)


def _removals_in(entry: Mapping[str, Any], path: tuple[str, ...] = ()) -> Table:
    """The keys of an entry whose value is `false`, in their tables."""
    removals: Table = {}
    for key, value in entry.items():
        place = (*path, key)
        if value is False:
            removals[key] = False
        elif isinstance(value, dict) and not _is_template(place):
            removals[key] = _removals_in(value, place)
    return {key: value for key, value in removals.items() if value != {}}


def account_of(name: str) -> str | None:
    """The name that a provider's key is stored under; None if no provider has such a name."""
    canonical = _find_name(name)
    if canonical is not None:
        return str(_table_and_rules(canonical)[0]["account"])
    accounts = {str(_table_and_rules(other)[0]["account"]) for other in provider_names()}
    return name if name in accounts else None


def provider_tables() -> Mapping[str, Table]:
    """All entries as they are written, by name, without inherited values."""
    shipped, own = _shipped_tables(), _read_user_tables()
    # A key that is removed is removed from the entry named by `like` too.
    merged_tables = {
        name: _merge_entry(shipped.get(name, {}), entry, keeps_removals=True)
        for name, entry in own.items()
    }
    return {**shipped, **merged_tables}


def _find_name(name: str) -> str | None:
    """The name of the provider with this name or alias."""
    tables = provider_tables()
    if name in tables and name != DEFAULT:
        return name
    return next((other for other in tables if name in (tables[other].get("aliases") or ())), None)


def _table_and_rules(canonical: str) -> tuple[Table, list[Table]]:
    """A provider's table with all that it inherits, and the rules for some of its models."""
    table = _inherit(canonical)
    rules = table.pop("models", [])
    table.pop("like", None)
    return {"account": canonical, "title": canonical, **table, "name": canonical}, rules


def _inherit(name: str, heirs: tuple[str, ...] = ()) -> Table:
    """An entry merged over the one that it is like; `heirs` are the entries on the way to it."""
    entry = provider_tables().get(name)
    if len(heirs) > _MAX_LIKENESSES:
        raise ConfigError(f"{user_file()}: {heirs[0]} has too long a chain of `like`")
    if entry is None or name in heirs:
        raise ConfigError(
            f"{user_file()}: {heirs[-1]} is like {name}, "
            + ("which is like itself" if entry else "and there is no such provider"),
            hint="rerank providers lists what there is",
        )
    if name == DEFAULT:
        return dict(entry)
    parent = _inherit(entry.get("like", DEFAULT), (*heirs, name))
    others = (*_NEVER_INHERITED, *_HOST_KEYS) if "url" in entry else _NEVER_INHERITED
    inherited = {k: v for k, v in parent.items() if k not in others}
    if "url" in entry and "headers" in inherited:
        headers = inherited["headers"].items()
        inherited["headers"] = {k: v for k, v in headers if not is_secret(k)}
    return _merge_entry(inherited, entry)


def is_secret(header: str) -> bool:
    """Whether a header's name says that its value is secret."""
    return _SECRET_HEADER.search(header) is not None


def _merge_entry(base: Table, entry: Table, *, keeps_removals: bool = False) -> Table:
    """Merge an entry over the one that it is like, or over the shipped one of its name.

    Its own values come before the other entry's rules for some models. Prices of another host, or
    of another contract, are not taken over.
    """
    own = {**entry, "price": False} if "url" in entry else entry
    rules = [_without(rule, own) for rule in base.get("models", ())]
    base = {**base, "models": [rule for rule in rules if len(rule) > 1]} if rules else dict(base)
    if "price" in own:
        base.pop("price", None)
    return _merge(base, entry, keeps_removals=keeps_removals)


def _without(rule: Table, entry: Table) -> Table:
    """A rule for some models without what an entry sets for all of them."""
    rest = {}
    for key, value in rule.items():
        own = entry.get(key)
        if isinstance(value, dict) and isinstance(own, dict) and key != "price":
            value = {name: inner for name, inner in value.items() if name not in own}
            if value:
                rest[key] = value
        elif key not in entry:
            rest[key] = value
    return rest


def _merge(
    base: Mapping[str, Any],
    changes: Mapping[str, Any],
    path: tuple[str, ...] = (),
    *,
    keeps_removals: bool = False,
) -> Table:
    """Merge `changes` over `base`, key by key; `false` removes a key.

    `path` is the place of both in an entry. Templates are not merged: in these `false` is a value.
    With `keeps_removals` a `false` stays, to remove the key from another table as well.
    """
    table = dict(base)
    for key, value in changes.items():
        place = (*path, key)
        if value is False and not keeps_removals:
            table.pop(key, None)
        elif isinstance(value, dict) and not _is_template(place):
            inner = table[key] if isinstance(table.get(key), dict) else {}
            table[key] = _merge(inner, value, place, keeps_removals=keeps_removals)
        elif place == ("models",) and isinstance(value, list):
            table[key] = [*table.get(key, ()), *value]  # the last rule for a model wins
        else:
            table[key] = value
    return table


def _is_template(path: tuple[str, ...]) -> bool:
    """Whether a table of an entry is a template: of a request, a default, or a value's fields."""
    if path[0] == "options":
        return len(path) == 4 and path[2] == "values"
    return len(path) == 2 and path[0] in ("request", "defaults")


def _check_entry(canonical: str, table: Table, rules: Sequence[Table]) -> None:
    """Raise `ConfigError` if an entry, or one of its rules for models, is not valid.

    All rules are checked, also those for other models: a wrong one is reported at once.
    """
    from rerank_cli.providers.schema import unknown_removal

    name = canonical
    while own := _read_user_tables().get(name):
        for part in (own, *(own.get("models") or ())):
            if wrong := unknown_removal(part):
                raise ConfigError(
                    f"{user_file()}: {name}: {wrong} = false: there is nothing of that name"
                )
        name = own.get("like", DEFAULT)
    _validate(table)
    for rule in rules:
        _validate(apply_rule(table, rule), f"models {' '.join(rule['names'])}")


def _validate(table: Table, part: str = "") -> "Provider":
    """Make a provider of a table; raises `ConfigError` that names the first wrong key."""
    from pydantic import ValidationError

    from rerank_cli.providers.schema import Provider, schema_fault

    try:
        return Provider.model_validate(table)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(step) for step in first["loc"])
        # The words of our own checks may have names in them, which keep their case.
        own = first.get("ctx", {}).get("error")
        message = schema_fault(first) if own is None else str(own)
        where = ": ".join(filter(None, (str(user_file()), table["name"], part, place)))
        raise ConfigError(
            f"{where}: {message}",
            hint="rerank providers show NAME --toml writes an entry to begin with",
        ) from error


@cache
def _shipped_tables() -> Mapping[str, Table]:
    return tomllib.loads(_SHIPPED_FILE.read_text(encoding="utf-8"))


def _read_user_tables() -> Mapping[str, Table]:
    """The user's own entries; raises `ConfigError` for a file that cannot be read."""
    try:
        path = user_file()
    except NoHome:
        return {}
    try:
        content = read_user_file(path)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from error
    return _parse_user_tables(content, path) if content else {}


@lru_cache(maxsize=1)
def _parse_user_tables(content: bytes, path: Path) -> Mapping[str, Table]:
    """Parse the user's entries, and check the values on which merging relies."""
    try:
        tables = parse_toml(content)
    except ValueError as error:
        raise ConfigError(f"{path}: not TOML: {error}") from error
    for name, table in tables.items():
        if not isinstance(table, dict) or name == DEFAULT:
            raise ConfigError(
                f"{path}: {name} is not a provider's table", hint=f"[{name}] and below it url = …"
            )
        if not name or "/" in name:
            raise ConfigError(
                f"{path}: a provider cannot be called '{name}'",
                hint="-m PROVIDER/MODEL has its name before the slash",
            )
        _check_inheritance(name, table, path)
        rules = table.get("models", [])
        if rules is not False and not isinstance(rules, list):
            raise ConfigError(f"{path}: {name}: models are tables, [[{name}.models]]")
        for rule in rules or ():
            if not isinstance(rule, dict) or not _are_texts(rule.get("names")):
                raise ConfigError(f"{path}: {name}: a table of models needs names")
            if wrong := next((key for key in _KEYS_OF_ALL_MODELS if key in rule), None):
                raise ConfigError(
                    f"{path}: {name}: {wrong} is the same for all models",
                    hint="another provider, with like, can have another",
                )
    return tables


def _check_inheritance(name: str, table: Table, path: Path) -> None:
    """Raise `ConfigError` for values that are used before a table is validated as a whole."""
    if not isinstance(table.get("like", DEFAULT), str):
        raise ConfigError(f"{path}: {name}: like is the name of a provider")
    aliases = table.get("aliases", [])
    if aliases is not False and not _are_texts(aliases):
        raise ConfigError(f"{path}: {name}: aliases is a list of names")
    headers = table.get("headers", {})
    if headers is not False and not isinstance(headers, dict):
        raise ConfigError(f"{path}: {name}: headers is a table")


def _are_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)
