"""Keys of providers: in a file that only its owner may read, and never in a message.

A provider's own environment variables come first; which they are, the caller says.
"""

import os
import re
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rerank_cli.errors import ConfigError, UsageError
from rerank_cli.providers.catalogue import is_secret
from rerank_cli.user_files import keys_file

_OWNER_ONLY = 0o600
_PROVIDER = re.compile(r"[a-z0-9-]+")


def find_key(
    provider: str, variables: Sequence[str] = (), environ: Mapping[str, str] = os.environ
) -> str | None:
    """Find a provider's key in one of its environment variables, or else in the user's file.

    Raises `ConfigError` where others can read the file, or it is damaged.
    """
    set_ = (environ.get(variable, "").strip() for variable in variables)
    return next(filter(None, set_), None) or _stored().get(provider)


def store_key(provider: str, key: str) -> None:
    """Keep a provider's key; raises `UsageError` for what cannot be a name or a key."""
    check_provider(provider)
    key = key.strip()
    if not key:
        raise UsageError(f"the key for {provider} is empty", hint=how_to_set(provider))
    # It is going to be a line of an HTTP header.
    if not key.isascii() or not key.isprintable() or " " in key:
        raise UsageError(
            f"the key for {provider} has spaces, line breaks or characters that no key has",
            hint="copy it again, alone on one line",
        )

    from rerank_cli.user_files import put  # tomlkit, which reading does not need

    put(keys_file(), provider, key, mode=_OWNER_ONLY)


def forget_key(provider: str) -> bool:
    """Remove a provider's key from the user's file and say whether it was there."""
    check_provider(provider)
    from rerank_cli.user_files import drop

    return drop(keys_file(), provider, mode=_OWNER_ONLY)


def providers_with_keys() -> list[str]:
    """The providers that have a key in the user's file; raises as `find_key` does."""
    return sorted(_stored())


def check_provider(name: str) -> None:
    """Raise `UsageError` for what cannot be a provider's name."""
    if not _PROVIDER.fullmatch(name):
        raise UsageError(
            "a provider's name has small letters, digits and hyphens only",
            hint="rerank config set-key PROVIDER; the key itself is never an argument",
        )


def how_to_set(provider: str) -> str:
    """Say how a key is set."""
    return f"rerank config set-key {provider}, and paste it; or pipe it in"


def _stored() -> dict[str, str]:
    path = keys_file()
    try:
        with open(path, "rb") as stream:
            _check_mode(path, os.fstat(stream.fileno()).st_mode)
            content = stream.read()
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from error
    import tomllib

    try:
        keys = tomllib.loads(content.decode("utf-8-sig"))
    except ValueError:  # of which the message may quote the file
        raise ConfigError(f"{path}: not TOML", hint="mend it, or move it away") from None
    if not all(isinstance(key, str) and key for key in keys.values()):
        raise ConfigError(f"{path}: holds something that is not a key", hint='provider = "key"')
    return keys


def _check_mode(path: Path, mode: int) -> None:
    if os.name == "posix" and stat.S_IMODE(mode) & 0o077:
        raise ConfigError(
            f"{path}: others can read or write it, so its keys are not used",
            hint=f"chmod 600 {path}",
        )


_LEAST = 6  # characters: to hide what is shorter would hide much else


class Credentials(NamedTuple):
    """The headers that let a request in, and the texts that must not be shown."""

    headers: Mapping[str, str]
    secrets: Sequence[str]


def credentials(
    table: Mapping[str, Any], given: Mapping[str, str], *, dry_run: bool = False
) -> Credentials:
    """Find the key of a provider, of which `table` is the entry, unless a `given` header holds one.

    Raises `ConfigError` where there is none and one is needed, which it is not if requests are only
    `dry_run`.
    """
    stated = {**table.get("headers", {}), **given}
    secrets = [part for name, value in stated.items() for part in _secret(name, str(value))]
    header = table["authorization"]
    if dry_run or header.lower() in {name.lower() for name in given}:
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
