"""`rerank QUERY [FILE]...`: documents in, the same documents out, best first."""

import json
import os
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from rerank_cli import progress
from rerank_cli.cli import option_values
from rerank_cli.cli.settings import parse_size
from rerank_cli.errors import ExitCode, InputError, ProviderError, ScorerError, UsageError
from rerank_cli.inputs import MEDIA_SUFFIXES, STDIN, suffix_of
from rerank_cli.inputs.conversion import CONVERTERS, formats_by_extra
from rerank_cli.inputs.documents import NEEDS_EXTRA, Inputs
from rerank_cli.inputs.files import name_of, read_content, read_names
from rerank_cli.inputs.records import TextFields, warn_of_unread_media
from rerank_cli.inputs.source import ReadOptions
from rerank_cli.inputs.streams import check_read_once
from rerank_cli.inputs.text import HEAD_BYTES, envelope_of, guess_encoding
from rerank_cli.media import MEDIA_FIELDS, find_media, media_label
from rerank_cli.output_files import OutputFile, PlannedOutput, is_among, settle_outputs
from rerank_cli.providers import OnError
from rerank_cli.ranking import Selection
from rerank_cli.ranking.reranker import Reranker
from rerank_cli.ranking.results import choose_sentences, keep_order
from rerank_cli.render import TABLE_RESULTS, WRITERS, Format, Style, render
from rerank_cli.scorers import model_files
from rerank_cli.terminal import Terminal, format_count, format_json, format_size, hide_user
from rerank_cli.types import (
    Chunk,
    ConcurrentScorer,
    Document,
    Price,
    Progress,
    Ranking,
    Scorer,
    SurveyingScorer,
    Watch,
)
from rerank_cli.user_files import spool_directory

if TYPE_CHECKING:
    from rerank_cli.scorers.remote import DryRunScorer

_QUIET_SECONDS = 0.7  # that a model may take to open before a terminal is told
_NAMED_FILES = 10  # of many with the same trouble; the others are counted


def rank_documents(ctx: typer.Context, opening: Future[Scorer]) -> ExitCode:
    """Rank the documents of a command line by the scorer that is being opened.

    Writes the results, and says on stderr what they do not show. Raises the errors of reading,
    scoring and writing.
    """
    started = time.monotonic()
    given = ctx.params
    output = OutputFile(given["output"])
    terminal = Terminal.current(given["color"], to_file=not output.is_stdout)
    whole_query, inputs = _find_inputs(ctx)
    selection = _selection(ctx, inputs, terminal)
    style = _style(ctx, terminal, passages=selection.passages)
    WRITERS[style.format_].check_sources(inputs, style)
    _settle_output(output, given, inputs)
    progress.lap(progress.STARTING)
    scorer = _wait_until_open(opening, terminal)
    progress.lap(progress.OPENING)
    inputs.set_scorer(scorer.info)
    warn_of_unread_media("--field", given["field"] or (), scorer.info, terminal)
    if isinstance(scorer, SurveyingScorer) or given["on_error"] is OnError.KEEP:
        inputs.copy_folder = spool_directory()
    with Reranker(scorer, chunks=option_values.chunk_options(ctx)) as reranker:
        try:
            ranking, failure = _rank(
                whole_query, inputs, reranker, selection, terminal, on_error=given["on_error"]
            )
        except ScorerError:
            if given["verbose"]:
                _say_account(scorer, terminal)
            raise
        style = replace(style, sentences=_choose_sentences(ranking, reranker, style))
    progress.lap(progress.READING)
    style = replace(
        style,
        envelopes=tuple(inputs.report.envelopes),
        separated=not _is_in_place(output, inputs),
    )
    try:
        if given["dry_run"]:
            as_json = style.format_ in (Format.JSON, Format.JSONL)
            report = dry_run_report(scorer, ranking, as_json=as_json, verbose=given["verbose"])
            terminal.write([report])
        else:
            _check_nothing_is_lost(output, inputs)
            is_drawn = WRITERS[style.format_].is_drawn
            output.write(render(ranking, style), terminal, drawn=is_drawn)
    finally:  # whoever closed the pipe is told all the same
        _warn_of_inputs(inputs, terminal)
        _warn_of_format(ranking, style, terminal)
        _warn_of_ranking(ranking, terminal)
        if given["verbose"]:
            if not given["dry_run"]:
                terminal.say(summary(ranking, time.monotonic() - started))
            _say_account(scorer, terminal)
            _say_what_was_read(inputs, terminal)
    progress.lap(progress.WRITING)
    if failure is not None:
        terminal.warn(f"not reranked, in input order: {failure}", failure.hint)
        return failure.exit_code
    if not ranking.results:
        _warn_of_nothing(ctx, ranking, inputs, selection, terminal)
    return _exit_code(ranking, inputs, strict=given["strict"])


def _find_inputs(ctx: typer.Context) -> tuple[str | Document, Inputs]:
    """The query and the sources that a command line names; raises `InputError`, `UsageError`."""
    try:
        query, inputs = read_arguments(ctx)
        whole_query = _with_media(query, ctx.params)
        inputs.check()
    except (InputError, UsageError) as error:
        from rerank_cli.cli.hints import explain_words  # few runs need it

        explain_words(error, ctx)
        raise
    return whole_query, inputs


def _warn_of_nothing(
    ctx: typer.Context, ranking: Ranking, inputs: Inputs, selection: Selection, terminal: Terminal
) -> None:
    hint = None
    if ctx.params["recursive"] and inputs.report.skipped["binary"]:
        hint = "-a reads binary files as text"
    elif not ranking.documents:
        from rerank_cli.cli.hints import words_hint  # few runs need it

        hint = words_hint(ctx)
    terminal.warn(_why_nothing(ranking, inputs, selection), hint)


def _is_in_place(output: OutputFile, inputs: Inputs) -> bool:
    """Whether the results go into a file that is ranked."""
    paths = (*inputs.paths, *inputs.listed_paths)
    return not output.is_stream and is_among(Path(output.path), paths)


def _with_media(query: str, given: Mapping[str, Any]) -> str | Document:
    """The query with its image or video, if it has one.

    Raises `UsageError` for both, and `InputError` for a file that is none.
    """
    places = {kind: given[kind] for kind in MEDIA_FIELDS if given[kind] is not None}
    if len(places) > 1:
        raise UsageError("--image and --video both give a query", hint="give one of them")
    if not places:
        return query
    ((kind, place),) = places.items()
    is_label = given["query"] is None and given["query_file"] is None
    return Document(query, media=find_media(place, kind), text_is_label=is_label)


def _settle_output(output: OutputFile, given: Mapping[str, Any], inputs: Inputs) -> None:
    """Refuse an output that cannot be written, or is read and no document."""
    options = ("query_file", "files_from", "tokenizer", "image", "video")
    read: list[str | Path] = [given[option] for option in options]
    read = [path for path in read if path is not None]
    # A pipe would wait for itself.
    read += [path for path in inputs.paths if path != STDIN and not os.path.isfile(path)]
    if os.path.isfile(output.path):
        read += model_files(given["model"])
    settle_outputs([PlannedOutput("-o", output)], read)


def _check_nothing_is_lost(output: OutputFile, inputs: Inputs) -> None:
    """Refuse to replace a file by its results if not all that is ranked could be read."""
    if not (inputs.report.problems or inputs.report.binary) or output.is_stream:
        return
    files = [path for path in inputs.paths if os.path.isfile(path)]
    place = Path(output.path)
    if place.is_file() and any(place.samefile(path) for path in files):
        raise UsageError(
            f"{output.path}: not replaced, because not all of the input could be read",
            hint="-o another file",
        )


def read_arguments(ctx: typer.Context) -> tuple[str, Inputs]:
    """Tell the query from the files: where an option gives it, every argument is a file.

    Standard input is read where nothing else is named and it is not a terminal. Raises `UsageError`
    where there is no query or nothing to rank, and `InputError` for a file with the query or with
    names that cannot be read.
    """
    given = ctx.params
    read_options = _read_options(ctx)
    read_options.check()
    if given["query"] is not None and given["query_file"] is not None:
        raise UsageError("--query and --query-file both give a query", hint="give one of them")
    query, paths = given["query"], list(given["arguments"] or [])
    place = given["image"] or given["video"]
    if query is None and given["query_file"] is None and place is not None:
        query = media_label(place)
    if query is None and given["query_file"] is None:
        if not paths:
            raise UsageError(
                "there is no query",
                hint="rerank QUERY [FILE]...; to search for the word rank: rerank -q rank",
            )
        query = paths.pop(0)
    texts, names_file = given["document"] or [], given["files_from"]
    if not paths and not texts and names_file is None:
        paths = [_unnamed_source(query, recursive=given["recursive"])]
    read_for_options = [("--query-file", given["query_file"]), ("--files-from", names_file)]
    check_read_once([*read_for_options, *(("FILE", path) for path in paths)])
    if given["query_file"] is not None:
        query = _query_in(given["query_file"], read_options.max_document_bytes)
    else:
        query = _decode(query or "")
    listed = list[str]()
    if names_file is not None:
        listed = read_names(
            names_file, null=given["null"], max_bytes=read_options.max_document_bytes
        )
    inputs = Inputs(
        texts=[_decode(text) for text in texts],
        paths=paths,
        listed_paths=listed,
        recursive=given["recursive"],
        options=read_options,
        taken=[path for _, path in read_for_options if path is not None],
        may_be_words=given["query"] is None and given["query_file"] is None and " " not in query,
    )
    return query, inputs


def _read_options(ctx: typer.Context) -> ReadOptions:
    """How the input is read."""
    given = ctx.params
    # Where files are looked for or paths are written NUL ends those, and lines are lines.
    has_names = given["recursive"] or given["files_from"] is not None
    format_ = option_values.output_format(ctx)
    has_names = has_names or (format_ is not None and WRITERS[format_].names_files)
    return ReadOptions(
        unit=given["unit"],
        input_format=given["input_format"],
        fields=TextFields(given["field"] or [], given["id_field"]),
        null=given["null"] and not has_names,
        grep=given["grep"],
        text=given["text"],
        max_document_bytes=parse_size(given["max_document"]),
        prepend=given["prepend"],
        media_root=option_values.media_root(ctx),
    )


def _unnamed_source(query: str | None, *, recursive: bool) -> str:
    """What is read where no document is named: this folder with -r, else standard input."""
    if recursive:
        return os.curdir
    if sys.stdin is None or sys.stdin.isatty():
        is_file = query is not None and os.path.isfile(query)
        raise UsageError(
            "there are no documents to rank" + (f", and {query} is a file" if is_file else ""),
            hint=f'rerank "your query" {query if is_file else "FILE"}, or pipe lines into it',
        )
    return STDIN


def _query_in(path: str, max_bytes: int) -> str:
    content = read_content(path, max_bytes)
    envelope = envelope_of(content[:HEAD_BYTES])
    return content[len(envelope.mark) :].decode(envelope.encoding, "replace").strip()


def _decode(argument: str) -> str:
    """Read an argument as UTF-8, as all text here; the locale decoded it, whatever it may be."""
    return os.fsencode(argument).decode("utf-8", "replace")


def _selection(ctx: typer.Context, inputs: Inputs, terminal: Terminal) -> Selection:
    """Which results are kept; raises `UsageError` for a value that makes no sense."""
    selection = option_values.selection(ctx)
    selection.check()
    # As in grep. A least score that is given says itself what is left out.
    selection = replace(selection, matched_only=selection.min_score is None)
    if inputs.is_single_file:
        selection = replace(selection, passages=True)
    if _is_of_one_screen(ctx, terminal):
        selection = replace(selection, n=TABLE_RESULTS, count_rest=True)
    if ctx.params["dry_run"]:  # which has no scores
        selection = replace(selection, min_score=None, within=None)
    return selection


def _is_of_one_screen(ctx: typer.Context, terminal: Terminal) -> bool:
    """Whether the results are a table on a terminal, and their number is not given."""
    is_table = option_values.output_format(ctx) in (None, Format.TABLE)
    return is_table and terminal.interactive and ctx.params["top_n"] is None


def _style(ctx: typer.Context, terminal: Terminal, *, passages: bool) -> Style:
    """How results are written; raises `UsageError` for what the format has no place for."""
    given = ctx.params
    format_ = option_values.output_format(ctx)
    style = Style(
        format_=format_ or (Format.TABLE if terminal.interactive else Format.TEXT),
        passages=passages,
        scores=given["scores"],
        null=given["null"],
        full=given["full"],
        interactive=terminal.interactive,
        color=terminal.color,
        width=terminal.width,
        height=terminal.height if _is_of_one_screen(ctx, terminal) else None,
        links=terminal.links,
    )
    WRITERS[style.format_].check_options(style, explain=given["explain"])
    return style


def _wait_until_open(opening: Future[Scorer], terminal: Terminal) -> Scorer:
    """The scorer, once it is open; a terminal is told where that takes a while."""
    try:
        return opening.result(_QUIET_SECONDS if terminal.watched else None)
    except TimeoutError:
        if opening.done():  # it is what opening came to
            raise

        with progress.status_line(
            terminal, "opening the model, which its first use prepares for this CPU"
        ):
            return opening.result()


def _rank(
    query: str | Document,
    inputs: Inputs,
    reranker: Reranker,
    selection: Selection,
    terminal: Terminal,
    *,
    on_error: OnError,
) -> tuple[Ranking, ScorerError | None]:
    """Rank, or keep the order of the input if scoring fails and that is wanted."""
    with progress.watch_ranking(terminal, lambda: inputs.share) as watch:
        try:
            watch = _watch_laps(watch) if progress.is_timed else watch
            return reranker.submit(query, inputs, selection, watch=watch).result(), None
        except ScorerError as error:
            if on_error is OnError.FAIL:
                raise
            text = query.text if isinstance(query, Document) else query
            requests = error.requests if isinstance(error, ProviderError) else ()
            kept = keep_order(text, inputs, reranker.info, n=selection.n, requests=requests)
            more = kept.documents - len(kept.blanks) if selection.count_rest else 0
            return replace(kept, more=more), error


def _choose_sentences(ranking: Ranking, reranker: Reranker, style: Style) -> Mapping[int, Chunk]:
    """The sentences to show of results that have no word of the query, if a model here can say."""
    info = ranking.info
    is_wanted = WRITERS[style.format_].shows_sentences and not style.full
    if not is_wanted or info.remote or info.scope == "set" or info.unmatched_score is not None:
        return {}
    with suppress(ScorerError):
        return choose_sentences(ranking, TABLE_RESULTS, reranker.score)
    return {}


def _watch_laps(inner: Watch | None) -> Watch:
    """Divide the time of a ranking into the laps of --timing, and watch it as before."""
    read = 0

    def watch(state: Progress) -> None:
        nonlocal read
        progress.lap(progress.READING if state.read > read else progress.SCORING)
        read = state.read
        if inner is not None:
            inner(state)

    return watch


def _exit_code(ranking: Ranking, inputs: Inputs, *, strict: bool) -> ExitCode:
    if inputs.report.problems or (inputs.report.unreadable and not ranking.documents):
        return ExitCode.USAGE
    if strict and (ranking.truncated or inputs.report.in_doubt):
        return ExitCode.TRUNCATED
    return ExitCode.OK if ranking.results else ExitCode.NOTHING


def _warn_of_inputs(inputs: Inputs, terminal: Terminal) -> None:
    """Say everything about the input that results do not show by themselves."""
    report = inputs.report
    for path in report.binary[:_NAMED_FILES]:
        terminal.warn(f"{name_of(path)}: binary, not text: left out", hint=_binary_hint(path))
    _warn_of_more(len(report.binary), "binary", terminal)
    for extra, formats in formats_by_extra().items():
        if count := report.skipped[NEEDS_EXTRA[extra]]:
            names = [format_.upper() for format_ in formats]
            terminal.warn(
                f"{format_count(count, 'file')} left out: {_joined(names, 'and')} "
                f"need{'s' if len(names) == 1 else ''} the extra {extra}",
                hint=f"pip install 'rerank-cli[{extra}]'",
            )
    for problem in report.problems[:_NAMED_FILES]:
        terminal.warn(str(problem), problem.hint)
    _warn_of_more(report.problems.total, "that could not be read", terminal)
    for fault in report.faults[:_NAMED_FILES]:
        terminal.warn(str(fault), fault.hint)
    _warn_of_more(len(report.faults), "with such faults", terminal)
    if report.undecodable:
        documents = format_count(report.undecodable, "document")
        name = guess_encoding(report.sample)
        terminal.warn(
            f"{documents} had bytes that are not text in the input's encoding",
            hint=f"iconv -f {name or 'ENCODING'} -t UTF-8 FILE | rerank …, if that is its encoding",
        )
    for path, format_ in report.resembles.items() if terminal.watched else ():
        terminal.warn(
            f"{name_of(path)} looks like {format_.upper()}; its lines were ranked as plain text",
            hint=f"--input-format {format_} reads its records; --unit line stops this message",
        )


def _binary_hint(path: str) -> str | None:
    if suffix_of(path) in MEDIA_SUFFIXES:
        return "rerank providers show NAME says which models read images and videos"
    if path != STDIN:
        return "-a reads it as text"
    binary = [format_ for format_, converter in CONVERTERS.items() if converter.is_binary]
    formats = _joined(binary, "or")
    return f"-0 reads lines that end with NUL, -a any text; --input-format {formats} such a file"


def _joined(names: Sequence[str], word: str) -> str:
    """Names in words: `a, b and c`."""
    return f" {word} ".join(part for part in (", ".join(names[:-1]), names[-1]) if part)


def _warn_of_more(count: int, what: str, terminal: Terminal) -> None:
    if count > _NAMED_FILES:
        terminal.warn(f"and {format_count(count - _NAMED_FILES, 'more file')} {what}")


def _warn_of_format(ranking: Ranking, style: Style, terminal: Terminal) -> None:
    """Say what the format does with these results, and to a person what other formats would."""
    remark = WRITERS[style.format_].find_remark(ranking, style)
    if remark is not None and remark.text:
        terminal.warn(remark.text, remark.hint)
    elif remark is not None and terminal.watched:
        terminal.say(f"hint: {remark.hint}")


def _warn_of_ranking(ranking: Ranking, terminal: Terminal) -> None:
    """Tell on stderr of everything that the results do not show by themselves."""
    for note in ranking.notes:
        terminal.warn(note)
    if ranking.missing:
        terminal.warn(
            f"{ranking.info.model} gave {format_count(ranking.missing, 'score')} fewer than it was "
            "asked for",
            hint="documents without a score are left out; --keep-empty shows them, --strict fails",
        )
    if ranking.cut:
        terminal.warn(
            f"{format_count(ranking.cut, 'document')} of {ranking.documents} not scored whole: "
            f"{format_count(ranking.dropped, 'token')} beyond the last chunk dropped",
            hint="raise --max-chunks; --aggregate first reads no more than one chunk",
        )
    if ranking.weak and terminal.stderr.isatty():
        best = ranking.results[0].relevance_score
        terminal.say(f"best score {best:.3f}: probably nothing here answers it")


def summary(ranking: Ranking, seconds: float) -> str:
    """The lines of --verbose."""
    read = [
        format_count(ranking.documents, "document"),
        f"{ranking.empty:,} empty",
        format_count(ranking.duplicates, "duplicate"),
        f"{ranking.cut:,} cut",
    ]
    if ranking.unmatched:
        read.append(f"{ranking.unmatched:,} without a word of the query")
    tokens = format_count(ranking.tokens, "token")
    took = [
        format_count(ranking.chunks, "chunk"),
        f"about {tokens}" if ranking.info.estimated else tokens,
    ]
    return f"{', '.join(read)}\n{', '.join(took)} in {seconds:.2f} s by {ranking.info.model}"


def _say_account(scorer: Scorer, terminal: Terminal) -> None:
    """Say for --verbose what scoring took, also if it failed."""
    if isinstance(scorer, ConcurrentScorer) and (account := scorer.account()):
        terminal.say(account)


def _say_what_was_read(inputs: Inputs, terminal: Terminal) -> None:
    """Say for --verbose what the input took, and what there was that is not in it."""
    if skipped := left_out(inputs):
        terminal.say(f"left out of folders and lists: {skipped}")
    if rows := sum(fault.count for fault in inputs.report.faults if fault.what == "row"):
        terminal.say(f"{format_count(rows, 'row')} did not fit the header")
    if lost := inputs.report.lost:
        things = [format_count(count, kind) for kind, count in sorted(lost.items())]
        terminal.say(f"without a text: {_joined(things, 'and')}")
    if inputs.copied_bytes:
        size = format_size(inputs.copied_bytes)
        terminal.say(f"{size} copied to disk, to be gone through twice")


def left_out(inputs: Inputs) -> str:
    """What was left out of folders and lists, in words; empty where nothing was."""
    skipped = inputs.report.skipped
    return ", ".join(f"{count:,} {reason}" for reason, count in sorted(skipped.items()) if count)


def _why_nothing(ranking: Ranking, inputs: Inputs, selection: Selection) -> str:
    scored = ranking.documents - ranking.empty
    if not ranking.documents:
        reasons = [f"left out {reason}"] if (reason := left_out(inputs)) else []
        if problems := inputs.report.problems.total:
            reasons.append(f"{format_count(problems, 'file')} could not be read")
        return f"nothing to rank: {', '.join(reasons) or 'the input is empty'}"
    if not scored:
        return f"nothing to rank: {format_count(ranking.empty, 'document')}, all blank"
    if ranking.unmatched:
        return f"none of {format_count(scored, 'document')} has a word of the query"
    return f"none of {format_count(scored, 'document')} reached a score of {selection.min_score:g}"


def dry_run_report(scorer: Scorer, ranking: Ranking, *, as_json: bool, verbose: bool) -> bytes:
    """Say what would be sent, as lines or JSON; `verbose` adds the first request's body."""
    from rerank_cli.media import is_url
    from rerank_cli.providers.keys import redact_json
    from rerank_cli.providers.requests import encode_json
    from rerank_cli.scorers.remote import DryRunScorer  # and all that sends

    if not isinstance(scorer, DryRunScorer):
        raise UsageError("--dry-run shows what a provider would be sent, and nothing is sent")
    plan = _plan(scorer, ranking)
    price = Price.total(request.price for request in scorer.plans)
    request = None
    if verbose and scorer.first_body:
        redact = scorer.scorer.address.redact
        request = redact_json(
            json.loads(scorer.first_body),
            lambda text: redact(hide_user(text) if is_url(text) else text),
        )
    if as_json:
        body = {"first_request": request} if verbose else {}
        return format_json({**plan, "price": price and price._asdict(), **body})
    sizes = f"about {format_count(plan['tokens'], 'token')} with the query, {plan['bytes']:,} bytes"
    chunks = format_count(plan["chunks"], "chunk")
    lines = [
        f"{format_count(plan['requests'], 'request')} to {plan['endpoint']}",
        f"{format_count(plan['documents'], 'document')} in {chunks}, {sizes}",
        f"{price} ({price.source}; prices change)" if price else "",
        encode_json(request).decode() if request else "",
        "nothing was sent",
    ]
    return "".join(f"{line}\n" for line in lines if line).encode()


def _plan(scorer: "DryRunScorer", ranking: Ranking) -> dict[str, Any]:
    planned = scorer.plans
    return {
        "endpoint": scorer.scorer.address.public_url,
        "model": scorer.info.name,
        "requests": len(planned),
        "documents": ranking.documents - ranking.empty,
        "chunks": sum(request.documents for request in planned),
        "tokens": sum(request.tokens for request in planned),
        "bytes": sum(request.bytes for request in planned),
        "largest": {
            "documents": max((request.documents for request in planned), default=0),
            "tokens": max((request.tokens for request in planned), default=0),
            "bytes": max((request.bytes for request in planned), default=0),
        },
    }
