"""Finds the key of a provider, and says what of a request is secret.

Imports nothing that takes time: that there is no key is said at once.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from rerank_cli.errors import ConfigError
from rerank_cli.keys import find_key, how_to_set

# Headers of which the value is nobody else's business.
_SECRET = re.compile("auth|key|token|secret|cookie|password", re.IGNORECASE)


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
    secrets = [part for name, value in given.items() for part in _secret(name, value)]
    header = table["authorization"]
    if rehearsed or header.lower() in {name.lower() for name in given}:
        return Credentials({}, secrets)
    variables = table.get("key", ())
    key = find_key(table["account"], variables)
    if key is None and not table.get("keyless"):
        stated = " or ".join(variables)
        raise ConfigError(
            f"{table['name']} needs a key" + (f": {stated} is not set" if stated else ""),
            hint=(f"export {variables[0]}=…, or " if stated else "") + how_to_set(table["account"]),
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
    if not _SECRET.search(name):
        return []
    return [part for part in (value, *value.split()[-1:]) if part]
