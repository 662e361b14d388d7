"""`rerank QUERY [FILE]...`: documents in, the same documents out, best first."""

import json
import os
import sys
import time
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rerank_cli import progress as timing
from rerank_cli.atomic_files import Destination
from rerank_cli.errors import ExitCode, ScorerError, UsageError
from rerank_cli.inputs.documents import NEEDS_EXTRA, Inputs
from rerank_cli.inputs.file_types import STDIN
from rerank_cli.inputs.files import content_of, names_in
from rerank_cli.inputs.source import Reading
from rerank_cli.inputs.text import envelope_of
from rerank_cli.providers import OnError
from rerank_cli.render import Format, Style, render
from rerank_cli.render.original import are_mixed, one_table
from rerank_cli.render.rows import no_path
from rerank_cli.terminal import Terminal, counted
from rerank_cli.types import Ranking, Scorer, StreamingScorer, SurveyingScorer
from rerank_cli.user_files import cache_directory

# Of many files with the same trouble, these are named and the others counted.
_NAMED = 10


def tell_of_inputs(inputs: Inputs, terminal: Terminal) -> None:
    """Say everything about the input that results do not show by themselves."""
    report = inputs.report
    for path in report.binary[:_NAMED]:
        name = "standard input" if path == "-" else path
        terminal.warn(f"{name}: binary, not text: left out", hint=_binary_hint(inputs))
    _tell_of_more(len(report.binary), "binary", terminal)
    if extra := report.skipped[NEEDS_EXTRA]:
        terminal.warn(
            f"{counted(extra, 'file')} left out: HTML, PDF and DOCX need the extra docs",
            hint="pip install 'rerank-cli[docs]'",
        )
    for problem in report.problems[:_NAMED]:
        terminal.warn(str(problem), problem.hint)
    _tell_of_more(len(report.problems), "that could not be read", terminal)
    if report.undecodable:
        documents = counted(report.undecodable, "document")
        terminal.warn(f"{documents} had bytes that are not text in the input's encoding")


def tell_of_reading(inputs: Inputs, terminal: Terminal) -> None:
    """Say for --verbose what the input took, and what there was that is not in it."""
    if skipped := left_out(inputs):
        terminal.say(f"left out of folders and lists: {skipped}")
    if inputs.spooled:
        size = inputs.spooled
        shown = f"{size / 1e6:,.1f} MB" if size >= 100_000 else counted(size, "byte")
        terminal.say(f"{shown} copied to disk, to be gone through twice")


def left_out(inputs: Inputs) -> str:
    """What was left out of folders and lists, in words; empty where nothing was."""
    skipped = inputs.report.skipped
    return ", ".join(f"{count:,} {reason}" for reason, count in sorted(skipped.items()) if count)


def _binary_hint(inputs: Inputs) -> str | None:
    if "-" in inputs.report.binary:
        return "-0 reads lines that end with NUL; --input-format pdf or docx such a file"
    return None


def _tell_of_more(count: int, what: str, terminal: Terminal) -> None:
    if count > _NAMED:
        terminal.warn(f"and {counted(count - _NAMED, 'more file')} {what}")


def summary(ranking: Ranking, seconds: float) -> str:
    """The lines of --verbose."""
    read = [
        counted(ranking.documents, "document"),
        f"{ranking.empty:,} empty",
        counted(ranking.duplicates, "duplicate"),
        f"{ranking.cut:,} cut",
    ]
    tokens = counted(ranking.tokens, "token")
    took = [
        counted(ranking.chunks, "chunk"),
        f"about {tokens}" if ranking.info.estimated else tokens,
    ]
    return f"{', '.join(read)}\n{', '.join(took)} in {seconds:.2f} s by {ranking.info.model}"


if TYPE_CHECKING:
    from rerank_cli.scorers.remote import Rehearsal

_SWITCH = 0.0002  # seconds
_SOON = 0.7  # seconds that a model may take to open without a word


@dataclass(frozen=True, slots=True)
class Output:
    """What is shown, how and where.

    A `form` of None is a table on a terminal and text elsewhere, a `destination` of None stdout.
    `passages` ranks the passages of documents that are not one file's. Where scoring is `rehearsed`
    what would be sent is written.
    """

    form: Format | None = None
    destination: Destination | None = None
    passages: bool = False
    scores: bool = False
    null: bool = False
    full: bool = False
    explain: bool = False
    strict: bool = False
    verbose: bool = False
    on_error: OnError = OnError.FAIL
    rehearsed: bool = False

    def style(self, terminal: Terminal, *, passages: bool) -> Style:
        """What the writer is told; raises `UsageError` for what the format has no place for."""
        style = Style(
            form=self.form or (Format.TABLE if terminal.interactive else Format.TEXT),
            passages=passages,
            scores=self.scores,
            null=self.null,
            full=self.full,
            interactive=terminal.interactive,
            color=terminal.color,
            width=terminal.width,
        )
        style.check(explain=self.explain)
        return style


def rank_documents(
    query: str,
    inputs: Inputs,
    opening: Future[Scorer],
    output: Output,
    terminal: Terminal,
    *,
    min_score: float | None,
    **options: Any,
) -> ExitCode:
    """Rank `inputs` by the scorer that is being opened, and write the results.

    `min_score` and `options` are `pipeline.rank`'s. Raises the errors of reading and scoring.
    """
    started = time.monotonic()
    inputs.check()
    passages = output.passages or inputs.single_file
    style = output.style(terminal, passages=passages)
    _check_output(inputs, style)
    if output.destination:
        output.destination.check()

    # Imported while the scorer is opened.
    from rerank_cli import progress  # noqa: F401

    timing.lap(timing.STARTING)
    scorer = _opened(opening, terminal)
    timing.lap(timing.OPENING)
    inputs.read_for(scorer.info)
    if isinstance(scorer, StreamingScorer):
        # Answers are taken by threads that wait for this one, 5 ms each time unless told otherwise.
        sys.setswitchinterval(_SWITCH)
    if isinstance(scorer, SurveyingScorer) or output.on_error is OnError.KEEP:
        inputs.spool = cache_directory()
    options |= {"min_score": min_score, "passages": passages, "explain": output.explain}
    ranking, failure = _ranked(query, inputs, scorer, output.on_error, terminal, options)
    timing.lap(timing.READING)
    if output.rehearsed:
        as_json = output.form in (Format.JSON, Format.JSONL)
        terminal.write([plan_of(scorer, ranking, as_json=as_json, verbose=output.verbose)])
        return ExitCode.OK
    try:
        written = render(ranking, style, tuple(inputs.report.envelopes))
        (output.destination or terminal).write(written)
    finally:  # whoever closed the pipe is told all the same
        tell_of_inputs(inputs, terminal)
        if style.form is Format.TEXT and not passages and are_mixed(ranking):
            terminal.warn(
                "records of different tables are mixed, and have no header",
                hint="-f csv and --json take records of any kind",
            )
        _say_what_happened(ranking, terminal)
        if output.verbose:
            _account(ranking, scorer, inputs, terminal, time.monotonic() - started)
    timing.lap(timing.WRITING)
    if failure is not None:
        terminal.warn(f"not reranked, in the order they came: {failure}", failure.hint)
        return failure.exit_code
    if not ranking.results:
        terminal.warn(_why_nothing(ranking, inputs, min_score))
    return _exit_code(ranking, inputs, strict=output.strict)


def _opened(opening: Future[Scorer], terminal: Terminal) -> Scorer:
    """The scorer, once it is open; a terminal is told where that takes a while."""
    try:
        return opening.result(_SOON if terminal.watched else None)
    except TimeoutError:
        if opening.done():  # it is what opening came to
            raise

        from rerank_cli.progress import noted

        with noted(terminal.stderr, "opening the model, which its first use prepares for this CPU"):
            return opening.result()


def _ranked(
    query: str,
    inputs: Inputs,
    scorer: Scorer,
    on_error: OnError,
    terminal: Terminal,
    options: dict[str, Any],
) -> tuple[Ranking, ScorerError | None]:
    """Rank, or keep the order of the input if scoring fails and that is wanted."""
    from rerank_cli.progress import ProgressLine
    from rerank_cli.ranking.reranker import rank, unranked

    with ProgressLine(terminal.stderr, lambda: inputs.share).shown() as line:
        try:
            watch = line if terminal.watched else None
            return rank(query, inputs, scorer, watch=watch, **options), None
        except ScorerError as error:
            if on_error is OnError.FAIL:
                raise
            return unranked(query, inputs, scorer.info, n=options["n"]), error


def _exit_code(ranking: Ranking, inputs: Inputs, *, strict: bool) -> ExitCode:
    if inputs.report.problems or (inputs.report.unreadable and not ranking.documents):
        return ExitCode.USAGE
    if strict and ranking.truncated:
        return ExitCode.TRUNCATED
    return ExitCode.OK if ranking.results else ExitCode.NOTHING


def _check_output(inputs: Inputs, style: Style) -> None:
    """Find what the format could not write of these inputs before anything is scored."""
    if style.form is Format.PATHS and inputs.nameless:
        raise no_path()
    if style.form is Format.TEXT and not style.passages:
        one_table(inputs.envelopes())


def _say_what_happened(ranking: Ranking, terminal: Terminal) -> None:
    """Tell on stderr of everything that the results do not show by themselves."""
    for note in ranking.notes:
        terminal.warn(note)
    if ranking.missing:
        terminal.warn(
            f"{ranking.info.model} gave {counted(ranking.missing, 'score')} fewer than it was "
            "asked for",
            hint="what has no score is left out; --keep-empty shows it, --strict fails",
        )
    if ranking.cut:
        terminal.warn(
            f"{counted(ranking.cut, 'document')} of {ranking.documents} not scored whole: "
            f"{counted(ranking.dropped, 'token')} beyond the last chunk dropped",
            hint="raise --max-chunks; --aggregate first reads no more than one chunk",
        )


def _account(
    ranking: Ranking, scorer: Scorer, inputs: Inputs, terminal: Terminal, seconds: float
) -> None:
    """Tell for --verbose what it took."""
    terminal.say(summary(ranking, seconds))
    if isinstance(scorer, StreamingScorer):
        terminal.say(scorer.account())
    tell_of_reading(inputs, terminal)


def _why_nothing(ranking: Ranking, inputs: Inputs, min_score: float | None) -> str:
    scored = ranking.documents - ranking.empty
    if not ranking.documents:
        reasons = [f"left out {reason}"] if (reason := left_out(inputs)) else []
        if problems := len(inputs.report.problems):
            reasons.append(f"{counted(problems, 'file')} could not be read")
        return f"nothing to rank: {', '.join(reasons) or 'the input is empty'}"
    if not scored:
        return f"nothing to rank: {counted(ranking.empty, 'document')}, all blank"
    return f"none of {counted(scored, 'document')} reached a score of {min_score:g}"


def gather(
    arguments: Sequence[str],
    reading: Reading,
    *,
    query: str | None = None,
    query_file: str | None = None,
    documents: Sequence[str] = (),
    files_from: str | None = None,
    null: bool = False,
    recursive: bool = False,
) -> tuple[str, Inputs]:
    """Tell the query from the files: where it is given by an option every argument is a file.

    `null` says that NUL ends the names of a list. Standard input is read where nothing else is
    named and it is not a terminal. Raises `UsageError` where there is no query or nothing to rank,
    and `InputError` for a file of either that cannot be read.
    """
    reading.check()
    if query is not None and query_file is not None:
        raise UsageError("--query and --query-file both give a query", hint="give one of them")
    wanted, paths = query, list(arguments)
    if wanted is None and query_file is None:
        if not paths:
            raise UsageError("there is no query", hint="rerank QUERY [FILE]...")
        wanted = paths.pop(0)
    if not paths and not documents and files_from is None:
        paths = [_unnamed(wanted, recursive=recursive)]
    if [query_file, files_from, *paths].count(STDIN) > 1:
        raise UsageError("standard input (-) can be read only once")
    return (
        _query_in(query_file) if query_file is not None else _text(wanted or ""),
        Inputs(
            texts=[_text(document) for document in documents],
            paths=paths,
            listed=[] if files_from is None else names_in(files_from, null=null),
            recursive=recursive,
            reading=reading,
        ),
    )


def _unnamed(query: str | None, *, recursive: bool) -> str:
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


def _query_in(path: str) -> str:
    content = content_of(path)
    envelope = envelope_of(content)
    return content[len(envelope.mark) :].decode(envelope.encoding, "replace").strip()


def _text(argument: str) -> str:
    """Read an argument as UTF-8, as all text here; the locale decoded it, whatever it may be."""
    return os.fsencode(argument).decode("utf-8", "replace")


def plan_of(scorer: Scorer, ranking: Ranking, *, as_json: bool, verbose: bool) -> bytes:
    """Say what would be sent, as lines or JSON; `verbose` adds the first request's body."""
    from rerank_cli.scorers.remote import Rehearsal  # and all that sends

    if not isinstance(scorer, Rehearsal):
        raise UsageError("--dry-run shows what a provider would be sent, and nothing is sent")
    plan = _plan(scorer, ranking)
    if as_json:
        body = {"first_request": json.loads(scorer.first or b"null")} if verbose else {}
        return (json.dumps({**plan, **body}, ensure_ascii=False, indent=2) + "\n").encode()
    price = plan["price"]
    sizes = f"about {counted(plan['tokens'], 'token')} with the query, {plan['bytes']:,} bytes"
    lines = [
        f"{counted(plan['requests'], 'request')} to {plan['endpoint']}",
        f"{counted(plan['documents'], 'document')} in {counted(plan['chunks'], 'chunk')}, {sizes}",
        f"about {price['amount']:g} {price['currency']} ({price['source']})" if price else "",
        scorer.first.decode() if verbose else "",
        "nothing was sent",
    ]
    return "".join(f"{line}\n" for line in lines if line).encode()


def _plan(scorer: "Rehearsal", ranking: Ranking) -> dict[str, Any]:
    planned = scorer.planned
    tokens = sum(one.tokens for one in planned)
    price = scorer.scorer.provider.price
    units = tokens / 1e6 if price and price.per == "million tokens" else len(planned) / 1e3
    return {
        "endpoint": scorer.scorer.address.shown,
        "model": scorer.info.name,
        "requests": len(planned),
        "documents": ranking.documents - ranking.empty,
        "chunks": sum(one.documents for one in planned),
        "tokens": tokens,
        "bytes": sum(one.bytes for one in planned),
        "largest": {
            "documents": max((one.documents for one in planned), default=0),
            "tokens": max((one.tokens for one in planned), default=0),
            "bytes": max((one.bytes for one in planned), default=0),
        },
        "price": {
            "amount": round(units * price.amount, 6),
            "currency": price.currency,
            "source": price.source,
        }
        if price
        else None,
    }
