"""`rerank QUERY [FILE]...`: documents in, the same documents out, best first."""

import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from itertools import chain, count
from pathlib import Path
from typing import Any, NamedTuple

import typer

from rerank_cli import progress
from rerank_cli.cli import option_values
from rerank_cli.cli.parameters import is_chosen
from rerank_cli.commands.rank_cascade import dry_run_report, find_keep, instruct
from rerank_cli.commands.rank_messages import (
    CandidateAdvice,
    count_scored,
    say_accounts,
    say_what_it_took,
    warn_of_format,
    warn_of_limits,
    warn_of_nothing,
    warn_of_ranking,
)
from rerank_cli.errors import (
    ExitCode,
    InputError,
    OutputError,
    ProviderError,
    ScorerError,
    UsageError,
)
from rerank_cli.inputs import STDIN
from rerank_cli.inputs.documents import Inputs, warn_of_inputs, warn_of_unread_media
from rerank_cli.inputs.streams import is_compressed
from rerank_cli.output_files import (
    OutputFile,
    PlannedOutput,
    is_among,
    settle_outputs,
    side_path,
)
from rerank_cli.progress import Interruption, Progress, StopRanking, Watch
from rerank_cli.providers import OnError
from rerank_cli.ranking import (
    PASSAGES_PER_FILE,
    CandidateCount,
    FirstStage,
    PriorRule,
    ResultUnit,
    Selection,
)
from rerank_cli.ranking.budget import Budget, opened_too_late
from rerank_cli.ranking.cascade import Cascade
from rerank_cli.ranking.chunking import WorkEstimate
from rerank_cli.ranking.places import read_facts
from rerank_cli.ranking.powers import SurveyingScorer
from rerank_cli.ranking.reranker import Reranker
from rerank_cli.ranking.results import keep_order
from rerank_cli.render import TABLE_RESULTS, WRITERS, Format, Style, render
from rerank_cli.scorers import model_files, split_models
from rerank_cli.terminal import PipeClosed, Terminal
from rerank_cli.types import Chunk, Document, Ranking, Scorer, UnreadReason
from rerank_cli.user_files import spool_directory

_QUIET_SECONDS = 0.7  # a terminal shows a message if opening a model takes longer
_INCOMPLETE_END = ".incomplete"  # of the name of a file with results so far
_DATA_FORMATS = (Format.JSON, Format.JSONL)  # that no person reads from top to bottom
_WHITE, _BLOCK_BYTES = b" \t\r\n\0", 1 << 20
_INTERRUPTED_EARLY = "interrupted before anything was scored"


class _Outcome(NamedTuple):
    """A ranking and the circumstances of its run.

    failure     why the order is that of the input, or of an earlier model
    pairs       how many were scored
    is_read     whether all of the input was read
    was_shown   whether a line of progress was shown
    """

    ranking: Ranking
    failure: ScorerError | None
    pairs: int
    is_read: bool
    was_shown: bool


class RankRequest(NamedTuple):
    """A query, a selection, a budget, and the reaction to failed scoring.

    `fewer` is how many passages the model would read with -n, if it reads all only without it.
    """

    query: str | Document
    selection: Selection
    budget: Budget | None
    on_error: OnError
    fewer: CandidateCount | None

    @property
    def is_timed(self) -> bool:
        """Whether the time is limited."""
        return self.budget is not None and self.budget.max_seconds is not None


def rank_documents(ctx: typer.Context, openings: Sequence[Future[Scorer]]) -> ExitCode:
    """Rank the documents of a command line by the scorer that is being opened, or by several.

    Writes the results, and says on stderr what they do not show. After Ctrl-C it writes the results
    that are scored by then. Raises the errors of reading, scoring and writing.
    """
    start = time.monotonic()
    params = ctx.params
    output = OutputFile(params["output"])
    terminal = Terminal.current(params["color"], to_file=not output.is_stdout)
    budget = option_values.budget(ctx)
    with progress.remark_on_interrupt(terminal, lambda: _INTERRUPTED_EARLY):
        whole_query, inputs = _find_inputs(ctx)
        selection = _selection(ctx, inputs, terminal)
        style = _style(ctx, terminal, passages=selection.passages)
        WRITERS[style.format_].check_sources(inputs, style)
        _settle_output(output, params, inputs)
        selection = _settle_sorting(output, inputs, style, selection)
        keep = find_keep(ctx, len(openings))
        progress.lap(progress.STARTING)
        limit = option_values.limits(ctx).get(UnreadReason.MAX_TIME, "")
        scorers = [_wait_until_open(opening, terminal, budget, limit) for opening in openings]
        if len(scorers) > 1:
            scorers = instruct(scorers, params["instruction"])
        scorer = scorers[0]
        progress.lap(progress.OPENING)
        inputs.set_scorer(scorer.info)
        option_values.warn_of_prior(ctx, [each.info for each in scorers], terminal)
        warn_of_unread_media("--field", params["field"] or (), scorer.info, terminal)
        is_read_again = budget is None and _may_read_again(scorer, selection)
        if is_read_again or params["on_error"] is OnError.KEEP:
            inputs.copy_folder = spool_directory()
    with ExitStack() as stack:
        chunks = option_values.chunk_options(ctx)
        runtime = option_values.runtime_options(ctx)
        rerankers = [
            stack.enter_context(Reranker(each, runtime=runtime, chunks=chunks)) for each in scorers
        ]
        cascade = Cascade(rerankers, keep)
        try:
            fewer = None if budget else _count_with_n(ctx, selection, rerankers[0])
            request = RankRequest(whole_query, selection, budget, params["on_error"], fewer)
            outcome = _rank(request, inputs, cascade, terminal)
        except ScorerError:
            warn_of_inputs(inputs, terminal)
            if params["verbose"]:
                say_accounts(scorers, terminal)
            raise
        if outcome is None or (outcome.ranking.incomplete and params["dry_run"]):
            terminal.warn(_INTERRUPTED_EARLY)
            return ExitCode.INTERRUPTED
        ranking = outcome.ranking
        style = replace(style, sentences=_find_sentences(ranking, rerankers[0], style, budget))
    progress.lap(progress.READING)
    terminal = Terminal.current(params["color"], to_file=not output.is_stdout)
    style = replace(
        style,
        width=terminal.width,  # of a window that may have changed
        height=style.height and terminal.height,
        envelopes=tuple(inputs.report.envelopes),
        separated=not _is_in_place(output, inputs),
    )
    try:
        if params["dry_run"]:
            as_json = style.format_ in (Format.JSON, Format.JSONL)
            report = dry_run_report(scorers, ranking, as_json=as_json, verbose=params["verbose"])
            terminal.write([report])
        elif ranking.incomplete:
            _write_incomplete(outcome, output, style, inputs, terminal)
        else:
            pieces = _check_nothing_is_lost(render(ranking, style), output, inputs)
            output.write(pieces, terminal, is_drawn=WRITERS[style.format_].is_drawn)
    finally:  # the reader that closed the pipe gets the message all the same
        if params["cache"]:
            from rerank_cli.scorers.cached import save_scores  # few runs need it

            for note in save_scores(scorers):
                terminal.warn(note)
        warn_of_inputs(inputs, terminal)
        warn_of_format(ranking, style, terminal)
        warn_of_ranking(ranking, terminal)
        warn_of_limits(ctx, ranking, inputs, terminal)
        say_what_it_took(
            ranking,
            time.monotonic() - start,
            scorers,
            inputs,
            terminal,
            params=params,
            was_shown=outcome.was_shown,
        )
    progress.lap(progress.WRITING)
    return _end(ctx, outcome, inputs, selection, terminal)


def _end(
    ctx: typer.Context,
    outcome: _Outcome,
    inputs: Inputs,
    selection: Selection,
    terminal: Terminal,
) -> ExitCode:
    """Report why there are no results, or no better ones; return the exit code."""
    ranking, failure = outcome.ranking, outcome.failure
    if ranking.incomplete:
        return ExitCode.INTERRUPTED
    if failure is not None:
        order = "not reranked, in input order"
        if ranking.reranked:
            order = f"only ranked by {ranking.info.model}"
        terminal.warn(f"{order}: {failure}", failure.hint)
        return failure.exit_code
    if not ranking.results:
        warn_of_nothing(ctx, ranking, inputs, selection, terminal)
    return _exit_code(ranking, inputs, strict=ctx.params["strict"])


def _find_inputs(ctx: typer.Context) -> tuple[str | Document, Inputs]:
    """The query and the sources that a command line names; raises `InputError`, `UsageError`."""
    try:
        query, inputs = option_values.query_and_inputs(ctx)
        inputs.check()
    except (InputError, UsageError) as error:
        from rerank_cli.cli.hints import explain_words  # few runs need it

        explain_words(error, ctx)
        raise
    return query, inputs


def _is_in_place(output: OutputFile, inputs: Inputs) -> bool:
    """Whether the results go into a file that is ranked."""
    paths = (*inputs.paths, *inputs.listed_paths)
    return not output.is_stream and is_among(Path(output.path), paths)


def _write_incomplete(
    outcome: _Outcome, output: OutputFile, style: Style, inputs: Inputs, terminal: Terminal
) -> None:
    """Write the results of a ranking that was stopped, and say that they are not complete.

    A file that -o names stays as it is: it must not look complete, and may be the input itself. The
    results so far go into a new file beside it.
    """
    ranking = outcome.ranking
    pairs = None if style.passages else outcome.pairs
    scored = count_scored(ranking, inputs, pairs, is_read=outcome.is_read)
    message = f"interrupted after {scored}"
    is_file = not output.is_stream
    target = OutputFile(_name_incomplete(output.path)) if is_file else output
    try:
        target.write(render(ranking, style), terminal, is_drawn=WRITERS[style.format_].is_drawn)
    except PipeClosed:  # Ctrl-C has ended its reader too
        pass
    except OutputError as error:
        terminal.warn(str(error), error.hint)
    else:
        where = f"so far are in {target.path}" if is_file else "are incomplete"
        message += f": the results {where}"
    is_replacing = is_file and os.path.lexists(output.path)
    terminal.warn(message, f"{output.path} is as it was" if is_replacing else None)


def _name_incomplete(path: str) -> str:
    """A free name for the results so far, beside a file."""
    name = str(side_path(path, _INCOMPLETE_END))
    numbered_names = (f"{name}.{number}" for number in count(2))
    return next(free for free in chain([name], numbered_names) if not os.path.lexists(free))


def _settle_sorting(
    output: OutputFile, inputs: Inputs, style: Style, selection: Selection
) -> Selection:
    """The selection, which keeps all records of a file that the results replace.

    Raises `UsageError` if the results would not be its records.
    """
    if not _is_in_place(output, inputs):
        return selection
    is_changed = style.scores or (style.null and not inputs.options.null)
    reasons = {
        "other documents are ranked with it": not inputs.is_single_source,
        f"-f {style.format_} does not write records as they came": style.format_ != Format.TEXT,
        "its passages are ranked, and not its records": style.passages,
        f"{'--scores' if style.scores else '-0'} changes its records": is_changed,
        "rerank cannot write a file of its kind": not inputs.keeps_bytes,
        "the results are not compressed": is_compressed(output.path),
        "--top-n leaves records out": selection.n is not None,
        "--min-score leaves records out": selection.min_score not in (None, 0),
        "--within leaves records out": selection.within is not None,
        "--candidates leaves records out": not isinstance(selection.candidates, str),
    }
    reason = next((text for text, is_so in reasons.items() if is_so), None)
    if reason is not None:
        raise UsageError(
            f"-o {output.path}: cannot sort this file in place: {reason}", hint="-o another file"
        )
    return replace(selection, keep_empty=True, matched_only=False)


def _check_nothing_is_lost(
    pieces: Iterable[bytes], output: OutputFile, inputs: Inputs
) -> Iterator[bytes]:
    """Yield the pieces of the results; raises `UsageError` if a file that is sorted has more.

    White space may differ: the end of the last record, and blank lines between records.
    """
    if not _is_in_place(output, inputs):
        yield from pieces
        return
    if inputs.report.problems or inputs.report.binary:
        raise _cannot_replace(output, "not all of the input could be read")
    size_bytes = 0
    for piece in pieces:
        size_bytes += len(piece.translate(None, _WHITE))
        yield piece
    with open(output.path, "rb") as file:
        blocks = iter(partial(file.read, _BLOCK_BYTES), b"")
        if size_bytes != sum(len(block.translate(None, _WHITE)) for block in blocks):
            raise _cannot_replace(output, "the results are not all that it has")


def _cannot_replace(output: OutputFile, reason: str) -> UsageError:
    message = f"{output.path}: not replaced, because {reason}"
    return UsageError(message, hint="-o another file")


def _settle_output(output: OutputFile, params: Mapping[str, Any], inputs: Inputs) -> None:
    """Refuse an output that cannot be written, or that is read but is not a document."""
    options = ("query_file", "files_from", "tokenizer", "image", "video")
    input_paths: list[str | Path] = [params[option] for option in options]
    input_paths = [path for path in input_paths if path is not None]
    # A pipe would wait for itself.
    input_paths += [path for path in inputs.paths if path != STDIN and not os.path.isfile(path)]
    if os.path.isfile(output.path):
        models: list[str | None] = [*split_models(params["model"])] or [None]
        input_paths += [path for model in models for path in model_files(model)]
    settle_outputs([PlannedOutput("-o", output)], input_paths)


def _selection(ctx: typer.Context, inputs: Inputs, terminal: Terminal) -> Selection:
    """Which results are kept; raises `UsageError` for a value that makes no sense."""
    selection = option_values.selection(ctx)
    selection.check()
    # As in grep. A given least score decides itself which results are left out.
    selection = replace(selection, matched_only=selection.min_score is None)
    if selection.prior == PriorRule.AUTO and not inputs.has_code:
        selection = replace(selection, prior=PriorRule.NONE)  # without looking at each document
    if selection.prior != PriorRule.NONE and (paths := inputs.file_paths) is not None:
        selection = replace(selection, files=read_facts(paths))
    if ctx.params["by"] is ResultUnit.PASSAGE or inputs.is_single_file:
        selection = replace(selection, passages=True)
    if _is_by_file(ctx, terminal):
        # Elsewhere all passages of long files would push the next results out of sight.
        explain = selection.explain and option_values.output_format(ctx) in _DATA_FORMATS
        best = PASSAGES_PER_FILE
        selection = replace(selection, passages=False, best_passages=best, explain=explain)
    if _is_of_one_screen(ctx, terminal):
        selection = replace(selection, n=TABLE_RESULTS, count_rest=True)
    if ctx.params["dry_run"]:  # which has no scores
        selection = replace(selection, min_score=None, within=None)
    return selection


def _is_by_file(ctx: typer.Context, terminal: Terminal) -> bool:
    """Whether each result is a file with its best passages."""
    params = ctx.params
    if params["by"] is ResultUnit.FILE and params["passages"]:
        raise UsageError("--by file and --passages exclude each other")
    if params["by"] is not None or params["passages"]:
        return params["by"] is ResultUnit.FILE
    is_table = option_values.output_format(ctx) in (None, Format.TABLE)
    return params["recursive"] and is_table and terminal.interactive


def _is_of_one_screen(ctx: typer.Context, terminal: Terminal) -> bool:
    """Whether the results are a table on a terminal, and their number is not given."""
    is_table = option_values.output_format(ctx) in (None, Format.TABLE)
    return is_table and terminal.interactive and ctx.params["top_n"] is None


def _may_read_again(scorer: Scorer, selection: Selection) -> bool:
    """Whether the input may be read twice: by a scorer, or to choose passages by their words."""
    if isinstance(scorer, SurveyingScorer):
        return True
    is_local = not scorer.info.remote and scorer.info.scope == "pair"
    has_candidates = selection.max_candidates(is_local=is_local) is not None
    return has_candidates and selection.first_stage != FirstStage.INPUT


def _count_with_n(
    ctx: typer.Context, selection: Selection, reranker: Reranker
) -> CandidateCount | None:
    """How many passages the model would read with -n; None if it would read no fewer."""
    if is_chosen(ctx, "top_n") or reranker.max_candidates(selection) is not None:
        return None
    return reranker.max_candidates(replace(selection, n=TABLE_RESULTS))


def _style(ctx: typer.Context, terminal: Terminal, *, passages: bool) -> Style:
    """How results are written; raises `UsageError` for options that the format lacks."""
    params = ctx.params
    format_ = option_values.output_format(ctx)
    style = Style(
        format_=format_ or (Format.TABLE if terminal.interactive else Format.TEXT),
        passages=passages,
        explained=params["explain"],
        scores=params["scores"],
        null=params["null"],
        full=params["full"],
        context=params["context"],
        interactive=terminal.interactive,
        color=terminal.color,
        width=terminal.width,
        height=terminal.height if _is_of_one_screen(ctx, terminal) else None,
        links=terminal.links,
    )
    WRITERS[style.format_].check_options(style, explain=params["explain"])
    return style


def _wait_until_open(
    opening: Future[Scorer], terminal: Terminal, budget: Budget | None, limit: str
) -> Scorer:
    """The scorer, once it is open; a terminal shows a message if that takes long.

    Raises `NothingScored`, which names the `limit` of time, if the time is over before.
    """
    seconds = None if budget is None else budget.seconds_left
    try:
        if terminal.watched and (seconds is None or seconds > _QUIET_SECONDS):
            return opening.result(_QUIET_SECONDS)
        return opening.result(seconds)
    except TimeoutError:
        if opening.done():  # opening the model raised it
            raise

    with progress.status_line(terminal, "opening the model; the first time takes longer"):
        try:
            return opening.result(None if budget is None else budget.seconds_left)
        except TimeoutError:
            if opening.done():
                raise
            raise opened_too_late(limit) from None


class _Reading:
    """The documents of an input, which Ctrl-C breaks off; `is_done` once all were read.

    With a limit of time they are read in another thread, which Ctrl-C does not reach.
    """

    def __init__(self, inputs: Inputs, interruption: Interruption, *, is_timed: bool) -> None:
        self.is_done = False
        self._inputs = inputs
        self._interruption = interruption
        self._is_timed = is_timed

    def __iter__(self) -> Iterator[Document]:
        self.is_done = False
        try:
            yield from self._inputs if self._is_timed else self._interruption.read(self._inputs)
        except KeyboardInterrupt:
            raise StopRanking from None
        self.is_done = True


def _rank(
    request: RankRequest, inputs: Inputs, cascade: Cascade, terminal: Terminal
) -> _Outcome | None:
    """Rank; if scoring fails, keep an earlier order if the user asks for that.

    That order is the order of the last model that did not fail, or else of the input. Returns None
    if Ctrl-C came before anything was scored.
    """
    query, selection, budget, on_error, fewer = request
    reranker, ranking = cascade.rerankers[0], None
    state = _ranking_state(request, inputs, reranker)
    advice = CandidateAdvice(fewer, state)
    failure: ScorerError | None = None
    has_scores = False
    with (
        progress.remark_on_interrupt(
            terminal, lambda: "interrupted" if has_scores else _INTERRUPTED_EARLY
        ),
        progress.catch_interrupt(
            terminal.wipe_line,  # of the ^C there
            has_results=lambda: has_scores,
        ) as interruption,
        progress.show_progress(terminal, state.describe) as line,
    ):

        def watch(progress_now: Progress) -> None:
            nonlocal has_scores
            has_scores = has_scores or progress_now.pairs > 0
            state.see(progress_now)
            if interruption.is_set:
                raise StopRanking
            advice.give(line.seconds, terminal)
            line.refresh()

        documents = _Reading(inputs, interruption, is_timed=request.is_timed)
        try:
            watch_all = _watch_laps(watch) if progress.is_timed else watch
            stages = cascade.rank_stages(
                query, documents, selection, budget=budget, watch=watch_all
            )
            for stage in stages:
                ranking = stage
        except StopRanking:
            return None
        except ScorerError as error:
            if on_error is OnError.FAIL:
                raise
            failure = error
    if ranking is None:
        text = query.text if isinstance(query, Document) else query
        requests = failure.requests if isinstance(failure, ProviderError) else ()
        ranking = keep_order(text, inputs, reranker.info, n=selection.n, requests=requests)
        more = ranking.documents - len(ranking.blanks) if selection.count_rest else 0
        ranking = replace(ranking, more=more)
    elif ranking.incomplete and not has_scores:
        return None
    return _Outcome(ranking, failure, state.pairs, documents.is_done, line.was_shown)


def _find_sentences(
    ranking: Ranking, reranker: Reranker, style: Style, budget: Budget | None
) -> Mapping[int, Chunk]:
    """The sentences to show of the first results, by their ranks; none if there is little time."""
    is_shown = WRITERS[style.format_].shows_sentences or style.context is not None
    if not is_shown or style.full:
        return {}
    if ranking.incomplete:  # after Ctrl-C the user does not want to wait
        return {}
    seconds = None if budget is None else budget.seconds_left
    if budget is not None and seconds is not None and 2 * seconds < (budget.max_seconds or 0):
        return {}
    sentences = reranker.find_sentences(ranking)
    return {result.rank: sentence for result, sentence in zip(ranking, sentences, strict=False)}


def _ranking_state(
    request: RankRequest, inputs: Inputs, reranker: Reranker
) -> progress.RankingState:
    """The state of a ranking for the progress line."""
    if request.is_timed:  # the rest of the time is known, but not how much can be read in it
        return progress.RankingState(lambda: None)
    query, scorer = request.query, reranker.scorer
    text = query.text if isinstance(query, Document) else query
    estimate: WorkEstimate | None = None

    def find_ahead() -> progress.WorkAhead | None:
        nonlocal estimate
        if estimate is None:
            plan = reranker.plan(text, passages=request.selection.passages)
            estimate = WorkEstimate(plan, scorer.info, inputs.sample())
        return inputs.work_ahead(estimate.work_of)

    return progress.RankingState(lambda: inputs.share, find_ahead, scorer)


def _watch_laps(inner: Watch) -> Watch:
    """Divide the time of a ranking into the laps of --timing, and watch it as before."""
    document_count = 0

    def watch(state: Progress) -> None:
        nonlocal document_count
        progress.lap(progress.READING if state.read > document_count else progress.SCORING)
        document_count = state.read
        inner(state)

    return watch


def _exit_code(ranking: Ranking, inputs: Inputs, *, strict: bool) -> ExitCode:
    if inputs.report.problems or (inputs.report.unreadable and not ranking.documents):
        return ExitCode.USAGE
    if strict and (ranking.truncated or ranking.unread or inputs.report.in_doubt):
        return ExitCode.TRUNCATED
    return ExitCode.OK if ranking.results else ExitCode.NOTHING
