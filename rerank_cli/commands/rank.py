"""`rerank QUERY [FILE]...`: documents in, the same documents out, best first."""

import sys
import time
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from rerank_cli import progress as timing
from rerank_cli.atomic_files import Destination
from rerank_cli.commands.notices import left_out, tell_of_inputs, tell_of_reading
from rerank_cli.commands.summary import summary
from rerank_cli.errors import ExitCode, ScorerError
from rerank_cli.inputs.documents import Inputs
from rerank_cli.providers import OnError
from rerank_cli.render import Format, Style, render
from rerank_cli.render.original import are_mixed, one_table
from rerank_cli.render.rows import no_path
from rerank_cli.terminal import Terminal, counted
from rerank_cli.types import Ranking, Scorer, StreamingScorer, SurveyingScorer
from rerank_cli.user_files import cache_directory

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
        from rerank_cli.commands.rehearsed import plan_of

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
