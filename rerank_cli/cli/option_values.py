"""The objects that are made of a command's parsed options, which are declared in `options`."""

import dataclasses
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import typer

from rerank_cli.cli.settings import excerpt
from rerank_cli.cli.typer_commands import is_chosen, is_given
from rerank_cli.errors import UsageError
from rerank_cli.ranking import ChunkOptions, Selection
from rerank_cli.render import Format
from rerank_cli.runtimes import RuntimeOptions

if TYPE_CHECKING:
    from rerank_cli.providers.options import RemoteOptions

Options = TypeVar("Options", "RemoteOptions", RuntimeOptions, ChunkOptions, Selection)
_HEADER = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([\x20-\x7e\t]*)")
# The HTTP client sets these.
_PROTOCOL_HEADERS = frozenset({"content-length", "transfer-encoding", "connection"})


def remote_options(ctx: typer.Context) -> "RemoteOptions":
    """How a provider's model is used.

    Raises `UsageError` for a malformed option.
    """
    from rerank_cli.providers.options import RemoteOptions  # not for help

    values = ctx.params
    fields = _split_assignments(values.get("set_"), "--set")
    metadata = _split_assignments(values.get("metadata"), "--metadata")
    return _make(
        RemoteOptions,
        {
            **values,
            "fields": {path: _parse_value("--set", path, text) for path, text in fields},
            "headers": _parse_headers(values.get("header") or []),
            "metadata": {name: _parse_value("--metadata", name, text) for name, text in metadata},
        },
    )


def runtime_options(ctx: typer.Context) -> RuntimeOptions:
    """How a local model is run."""
    return _make(RuntimeOptions, ctx.params)


def chunk_options(ctx: typer.Context) -> ChunkOptions:
    """How documents are cut; `max_chunks` is None if the user did not set it."""
    values = {**ctx.params}
    if "max_chunks" in values and not is_chosen(ctx, "max_chunks"):
        del values["max_chunks"]
    return _make(ChunkOptions, values)


def media_root(ctx: typer.Context) -> str | None:
    """The folder in which records may name files; raises `UsageError` if there is no such."""
    root: str | None = ctx.params["media_root"]
    # An empty name, as of a variable that is not set, would be the current folder.
    if root is not None and not (root and Path(root).is_dir()):
        raise UsageError(f"--media-root {root or repr(root)}: no such folder")
    return root


def output_format(ctx: typer.Context) -> Format | None:
    """The format that --format or --json names; raises `UsageError` if they name two."""
    format_: Format | None = ctx.params["format_"]
    if not ctx.params["as_json"]:
        return format_
    if format_ not in (None, Format.JSON) and is_given(ctx, "format_"):
        raise UsageError(f"--json and --format {format_} ask for different things")
    return Format.JSON


def selection(ctx: typer.Context) -> Selection:
    """Which results are kept; a top-n of 0 keeps all."""
    return _make(Selection, {**ctx.params, "n": ctx.params["top_n"] or None})


def _make(kind: type[Options], values: Mapping[str, Any]) -> Options:
    """Make an options object from the values that it has fields for."""
    names = [field.name for field in dataclasses.fields(kind)]
    return kind(**{name: values[name] for name in names if name in values})


def _parse_headers(arguments: Sequence[str]) -> Mapping[str, str]:
    """Parse headers of the form `Name: value`; raises `UsageError`, which repeats no value."""
    headers = {}
    for argument in arguments:
        match = _HEADER.fullmatch(argument)
        if match is None:
            # Text before the colon that has a space in it is no name, and may be a key.
            name = argument.partition(":")[0] if re.match(r"[^\s:]+:", argument) else "…"
            raise UsageError(
                f"--header {name}: not a header", hint="as in --header 'X-Team: search'"
            )
        if match[1].lower() in _PROTOCOL_HEADERS:
            raise UsageError(f"--header {match[1]}: the request sets this header itself")
        headers[match[1]] = match[2].strip()
    return headers


def _split_assignments(arguments: Sequence[str] | None, option: str) -> Iterator[tuple[str, str]]:
    """Split each `KEY=VALUE`; raises `UsageError`, which repeats no value."""
    for argument in arguments or []:
        key, equals, value = argument.partition("=")
        if not equals or not all(key.split(".")):
            # Without the sign it may be a key that is a secret, or a value.
            name = f" {excerpt(key)}=…" if equals else ""
            raise UsageError(f"{option}{name}: not KEY=VALUE", hint=f"as in {option} team=search")
        yield key, value


def _parse_value(option: str, key: str, text: str) -> Any:
    """The value for a key: JSON, or else a text; raises `UsageError` for what nests too deeply."""
    import json  # few runs need it

    try:
        value = json.loads(text)
        json.dumps(value, allow_nan=False)  # Python also reads NaN, which is not JSON
    except ValueError:
        return text
    except RecursionError:
        raise UsageError(f"{option} {excerpt(key)}: nested too deeply") from None
    return value
