"""Finds the key of a provider, and says what of a request is secret.

Imports nothing that takes time: that there is no key is said at once.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from rerank_cli.errors import ConfigError
from rerank_cli.keys import find_key, how_to_set
from rerank_cli.providers.catalogue import is_secret

_LEAST = 6  # characters: to hide what is shorter would hide much else


class Credentials(NamedTuple):
    """The headers that let a request in, and the texts that must not be shown."""

    headers: Mapping[str, str]
    secrets: Sequence[str]


def credentials(
    table: Mapping[str, Any], given: Mapping[str, str], *, rehearsed: bool = False
) -> Credentials:
    """Find the key of a provider, of which `table` is the entry, unless a `given` header holds one.

    Raises `ConfigError` where there is none and one is needed, which it is not if requests are only
    `rehearsed`.
    """
    stated = {**table.get("headers", {}), **given}
    secrets = [part for name, value in stated.items() for part in _secret(name, str(value))]
    header = table["authorization"]
    if rehearsed or header.lower() in {name.lower() for name in given}:
        return Credentials({}, secrets)
    variables = table.get("key", ())
    key = find_key(table["account"], variables)
    if key is None and not table.get("keyless"):
        named = " or ".join(variables)
        raise ConfigError(
            f"{table['name']} needs a key" + (f": {named} is not set" if named else ""),
            hint=(f"export {variables[0]}=…, or " if named else "") + how_to_set(table["account"]),
        )
    if key is None:
        return Credentials({}, secrets)
    if not (key.isascii() and key.isprintable() and " " not in key):
        raise ConfigError(
            f"the key for {table['name']} has characters that no key has",
            hint=how_to_set(table["account"]),
        )
    return Credentials({header: f"{table['scheme']} {key}".strip()}, [*secrets, key])


def _secret(name: str, value: str) -> list[str]:
    """What must not be shown of a header: of one that lets somebody in, all or its last word."""
    if not is_secret(name):
        return []
    return [part for part in (value, *value.split()[-1:]) if len(part) >= _LEAST]
