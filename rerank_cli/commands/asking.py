"""Reads what a command line asks of a remote model, before anything of it is known.

What the provider can honour of it, the scorer says.
"""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from rerank_cli.errors import UsageError
from rerank_cli.types import Media

_HEADER = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([\x20-\x7e\t]*)")

_NOT_OURS = frozenset({"content-length", "transfer-encoding", "connection"})


def options_of(**given: Any) -> Mapping[str, Any]:
    """Those of the options that were given, by their names on the command line."""
    return {
        name.replace("_", "-"): value for name, value in given.items() if value not in (None, {})
    }


def headers_of(arguments: Sequence[str]) -> Mapping[str, str]:
    """Read headers, each as in `Name: value`; raises `UsageError`, which repeats no value."""
    headers = {}
    for argument in arguments:
        match = _HEADER.fullmatch(argument)
        if match is None:
            # What is before a colon is no name if it has a space in it, and may be a key.
            name = argument.partition(":")[0] if re.match(r"[^\s:]+:", argument) else "…"
            raise UsageError(
                f"--header {name}: not a header", hint="as in --header 'X-Team: search'"
            )
        if match[1].lower() in _NOT_OURS:
            raise UsageError(f"--header {match[1]}: what is sent decides it")
        headers[match[1]] = match[2].strip()
    return headers


def image_of(argument: str | None) -> Media | None:
    """Find the image that is asked by; raises `InputError`."""
    if argument is None:
        return None
    from rerank_cli.media import media_of

    return media_of(argument)


def fields_of(arguments: Sequence[str]) -> Mapping[str, Any]:
    """Read `--set` fields: a dotted path and a value, as JSON or else as text."""
    return {path: _value(text) for path, text in (_split(one, "--set") for one in arguments)}


def metadata_of(arguments: Sequence[str]) -> Mapping[str, str]:
    """Read `--metadata`: names and values, which are text."""
    return dict(_split(argument, "--metadata") for argument in arguments)


def _split(argument: str, option: str) -> tuple[str, str]:
    key, given, value = argument.partition("=")
    if not given or not all(key.split(".")):
        raise UsageError(f"{option} {argument}: not KEY=VALUE", hint=f"as in {option} team=search")
    return key, value


def _value(text: str) -> Any:
    try:
        value = json.loads(text)
        json.dumps(value, allow_nan=False)  # which Python reads, and JSON has not
    except (ValueError, RecursionError):
        return text
    return value
