"""The objects that are made of a command's parsed options, which are declared in `options`.

Every command imports this module, for its help too, so that what reads and ranks is imported by the
functions that need it.
"""

from __future__ import annotations

import dataclasses
import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import typer

from rerank_cli.cli.parameters import is_chosen, is_given
from rerank_cli.cli.settings import excerpt, parse_duration, parse_size
from rerank_cli.errors import UsageError
from rerank_cli.inputs import STDIN, Prepend
from rerank_cli.progress import run_start
from rerank_cli.providers import OnError, RemoteOptions
from rerank_cli.ranking import (
    CacheOptions,
    CandidateRule,
    ChunkOptions,
    MinScoreRule,
    PriorRule,
    Selection,
)
from rerank_cli.render import WRITERS, Format
from rerank_cli.runtimes import RuntimeOptions
from rerank_cli.terminal import Terminal, format_names

if TYPE_CHECKING:
    from rerank_cli.inputs.documents import Inputs
    from rerank_cli.inputs.source import ReadOptions
    from rerank_cli.ranking.budget import Budget
    from rerank_cli.types import Document, ScorerInfo

Options = TypeVar("Options", RemoteOptions, RuntimeOptions, ChunkOptions, Selection)
_NO_MEMORY = "0"  # of --passage-memory
# The most of --max-time that is reserved for writing the results: a share, and seconds.
_WRITING_SHARE, _MAX_WRITING_SECONDS = 0.05, 0.1


def remote_options(ctx: typer.Context) -> RemoteOptions:
    """How a provider's model is used.

    Raises `UsageError` for a malformed option.
    """
    values = ctx.params
    fields = _split_assignments(values.get("set_"), "--set")
    metadata = _split_assignments(values.get("metadata"), "--metadata")
    options = _make(
        RemoteOptions,
        {
            **values,
            "fields": {path: _parse_value("--set", path, text) for path, text in fields},
            "headers": dict(map(_split_header, values.get("header") or [])),
            "metadata": {name: _parse_value("--metadata", name, text) for name, text in metadata},
        },
    )
    options.check()
    return options


def runtime_options(ctx: typer.Context) -> RuntimeOptions:
    """How a local model is run; a command of one query has no use for a passage memory."""
    size = ctx.params.get("passage_memory", _NO_MEMORY)
    size_bytes = 0 if size == _NO_MEMORY else parse_size(size)
    return _make(RuntimeOptions, {**ctx.params, "passage_memory": size_bytes})


def warn_of_passage_memory(
    ctx: typer.Context, models: Iterable[str | None], terminal: Terminal
) -> None:
    """Warn if the command line asks for a passage memory that has no effect on any model.

    Raises as `find_local_folder` does.
    """
    if not is_given(ctx, "passage_memory") or ctx.params["passage_memory"] == _NO_MEMORY:
        return
    if is_chosen(ctx, "candidates") and ctx.params["candidates"] != CandidateRule.ALL:
        return  # the first stage uses it with any model
    from rerank_cli.models.catalogue import default  # few runs need them
    from rerank_cli.scorers import reads_passages_alone

    names = [model or default() for model in models]
    if not any(map(reads_passages_alone, names)):
        terminal.warn(
            "--passage-memory has no effect: it is for models in two parts, and not for "
            + format_names(names)
        )


def warn_of_prior(ctx: typer.Context, infos: Sequence[ScorerInfo], terminal: Terminal) -> None:
    """Warn if the command line asks for a prior that has no effect on any model."""
    if not is_given(ctx, "prior") or ctx.params["prior"] is not PriorRule.CODE:
        return
    from rerank_cli.ranking.results import takes_prior  # few runs need it

    if not any(map(takes_prior, infos)):
        terminal.warn(
            "--prior code has no effect: it is for models of this machine whose scores are "
            "logits, and not for " + format_names([info.model for info in infos])
        )


def chunk_options(ctx: typer.Context) -> ChunkOptions:
    """How documents are cut; `max_chunks` is None if the user did not set it."""
    values = {**ctx.params}
    if "max_chunks" in values and not is_chosen(ctx, "max_chunks"):
        del values["max_chunks"]
    return chunk_options_of(values)


def chunk_options_of(values: Mapping[str, Any]) -> ChunkOptions:
    """How documents are cut, by the values of the parameters for it."""
    values = {**values}
    if (prepend := values.get("prepend")) is not None:
        values["prepend_headings"] = prepend is Prepend.HEADING
    return _make(ChunkOptions, values)


def cache_options(ctx: typer.Context) -> CacheOptions | None:
    """How scores are kept on disk; None if they are not."""
    params = ctx.params
    return CacheOptions(parse_size(params["cache_size"])) if params["cache"] else None


def media_root(ctx: typer.Context) -> str | None:
    """The folder in which records may name files; raises `UsageError` if it does not exist."""
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
    """Which results are kept, and what the model reads; a top-n of 0 keeps all."""
    values = {**ctx.params, "n": ctx.params["top_n"] or None}
    if values["candidates"].isdecimal():
        values["candidates"] = int(values["candidates"])
    elif values["strict"] and values["candidates"] == CandidateRule.AUTO:
        values["candidates"] = CandidateRule.ALL  # or cuts would stay unseen
    if values["min_score"] not in (None, MinScoreRule.AUTO):
        values["min_score"] = float(values["min_score"])
    return _make(Selection, values)


def budget(ctx: typer.Context) -> Budget | None:
    """The budget of the ranking or the job, from the start of the run; None without a limit.

    Raises `UsageError` for a limit that makes no sense.
    """
    params, seconds = ctx.params, None
    if params["max_time"] is None and params["max_cost"] is None:
        return None
    if params["max_time"] is not None:
        seconds = _max_seconds(params)

    from rerank_cli.ranking.budget import Budget

    budget = Budget(seconds, params["max_cost"], run_start())
    budget.check()
    return budget


def limits(ctx: typer.Context) -> Mapping[str, str]:
    """The limits of a budget as options that were given, by their names."""
    values = {"max-time": ctx.params["max_time"], "max-cost": ctx.params["max_cost"]}
    return {name: f"--{name} {value}" for name, value in values.items() if value is not None}


def _max_seconds(params: Mapping[str, Any]) -> float:
    """The seconds that --max-time leaves for all but writing."""
    try:
        seconds = parse_duration(params["max_time"])
    except ValueError as error:
        raise UsageError(f"--max-time: {error}") from None
    if params.get("dry_run"):
        raise UsageError(
            "--max-time: --dry-run scores nothing, so that there is no time to limit",
            hint="--max-cost with --dry-run says what would be sent for an amount",
        )
    if params.get("on_error") is OnError.KEEP:
        raise UsageError(
            "--max-time and --on-error keep: there may be no time to write all documents",
            hint="leave one of them out, or --on-error fail",
        )
    return seconds - min(_WRITING_SHARE * seconds, _MAX_WRITING_SECONDS)


def query_and_inputs(ctx: typer.Context) -> tuple[str | Document, Inputs]:
    """The query, with its image or video, and the sources of the documents.

    If an option gives the query, every argument is a file; else the first one is the query.

    Standard input is read where nothing else is named and it is not a terminal. Raises `UsageError`
    where there is no query or nothing to rank, and `InputError` for a file with the query or with
    names that cannot be read.
    """
    from rerank_cli.inputs.documents import Inputs
    from rerank_cli.inputs.files import read_names
    from rerank_cli.inputs.streams import check_read_once
    from rerank_cli.media import media_label

    params = ctx.params
    read_options = _read_options(ctx)
    read_options.check()
    if params["query"] is not None and params["query_file"] is not None:
        raise UsageError("--query and --query-file both give a query", hint="give one of them")
    query, paths = params["query"], list(params["arguments"] or [])
    place = params["image"] or params["video"]
    if query is None and params["query_file"] is None and place is not None:
        query = media_label(place)
    if query is None and params["query_file"] is None:
        if not paths:
            raise UsageError(
                "there is no query",
                hint="rerank QUERY [FILE]...; to search for the word rank: rerank -q rank",
            )
        query = paths.pop(0)
    texts, names_file = params["document"] or [], params["files_from"]
    if not paths and not texts and names_file is None:
        paths = [_unnamed_source(query, recursive=params["recursive"])]
    read_for_options = [("--query-file", params["query_file"]), ("--files-from", names_file)]
    check_read_once([*read_for_options, *(("FILE", path) for path in paths)])
    if params["query_file"] is not None:
        query = _query_in(params["query_file"], read_options.max_document_bytes)
    else:
        query = _decode(query or "")
    listed_paths = list[str]()
    if names_file is not None:
        listed_paths = read_names(
            names_file, null=params["null"], max_bytes=read_options.max_document_bytes
        )
    inputs = Inputs(
        texts=[_decode(text) for text in texts],
        paths=paths,
        listed_paths=listed_paths,
        recursive=params["recursive"],
        options=read_options,
        other_paths=[path for _, path in read_for_options if path is not None],
        may_be_words=params["query"] is None and params["query_file"] is None and " " not in query,
    )
    return _with_media(query, params), inputs


def _make(kind: type[Options], values: Mapping[str, Any]) -> Options:
    """Make an options object from the values that it has fields for."""
    names = [field.name for field in dataclasses.fields(kind)]
    return kind(**{name: values[name] for name in names if name in values})


def _split_header(argument: str) -> tuple[str, str]:
    """Split `Name: value`; raises `UsageError`, which repeats nothing, as it may be a key."""
    name, colon, value = argument.partition(":")
    if not colon:
        raise UsageError("--header …: not a header", hint="as in --header 'X-Team: search'")
    return name, value.strip(" \t")


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


def _read_options(ctx: typer.Context) -> ReadOptions:
    """How the input is read."""
    from rerank_cli.inputs.records import TextFields
    from rerank_cli.inputs.source import ReadOptions

    params = ctx.params
    # If files are searched for or paths are written, --null ends names and not lines.
    has_names = params["recursive"] or params["files_from"] is not None
    format_ = output_format(ctx)
    has_names = has_names or (format_ is not None and WRITERS[format_].names_files)
    return ReadOptions(
        unit=params["unit"],
        input_format=params["input_format"],
        fields=TextFields(params["field"] or [], params["id_field"]),
        null=params["null"] and not has_names,
        grep=params["grep"],
        text=params["text"],
        max_document_bytes=parse_size(params["max_document"]),
        prepend=params["prepend"],
        media_root=media_root(ctx),
        context=params["context"] or 0,
    )


def _unnamed_source(query: str | None, *, recursive: bool) -> str:
    """The source if no document is named: this folder with -r, else standard input."""
    if recursive:
        return os.curdir
    if sys.stdin is None or sys.stdin.isatty():
        if query is not None and os.path.isfile(query):
            raise UsageError(
                f"there are no documents to rank, and {query} is a file",
                hint=f'rerank "your query" {query}, or pipe lines into it',
            )
        raise UsageError(
            "there are no documents to rank",
            hint='rerank "your query" FILE, or pipe lines into it; -r ranks the files here',
        )
    return STDIN


def _query_in(path: str, max_bytes: int) -> str:
    from rerank_cli.inputs.files import read_content
    from rerank_cli.inputs.text import HEAD_BYTES, envelope_of

    content = read_content(path, max_bytes)
    envelope = envelope_of(content[:HEAD_BYTES])
    return content[len(envelope.mark) :].decode(envelope.encoding, "replace").strip()


def _decode(argument: str) -> str:
    """Read an argument as UTF-8, as all text here; the locale decoded it, whatever it may be."""
    return os.fsencode(argument).decode("utf-8", "replace")


def _with_media(query: str, params: Mapping[str, Any]) -> str | Document:
    """The query with its image or video, if it has one.

    Raises `UsageError` for both, and `InputError` for a file that is neither.
    """
    from rerank_cli.media import MEDIA_FIELDS, find_media
    from rerank_cli.types import Document

    places = {kind: params[kind] for kind in MEDIA_FIELDS if params[kind] is not None}
    if len(places) > 1:
        raise UsageError("--image and --video both give a query", hint="give one of them")
    if not places:
        return query
    ((kind, place),) = places.items()
    is_label = params["query"] is None and params["query_file"] is None
    return Document(query, media=find_media(place, kind), text_is_label=is_label)
