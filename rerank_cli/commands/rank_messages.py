"""The messages of `rank` on stderr: facts that its results do not show, and its costs."""

from collections.abc import Mapping, Sequence
from typing import Any

import typer

from rerank_cli.cli import option_values
from rerank_cli.commands.rank_cascade import describe_interrupted, describe_stages
from rerank_cli.inputs.documents import Inputs, describe_skips, say_how_code_was_read
from rerank_cli.progress import RankingState
from rerank_cli.ranking import CandidateCount, Selection
from rerank_cli.ranking.calibration import least_score
from rerank_cli.ranking.first_stage import describe_candidates
from rerank_cli.ranking.powers import ConcurrentScorer
from rerank_cli.render import TABLE_RESULTS, WRITERS, Style
from rerank_cli.terminal import (
    Terminal,
    format_count,
    format_duration,
    format_names,
    format_size,
)
from rerank_cli.types import Ranking, Scorer, Unread, UnreadReason

_PRIOR_NOTE = "names of files, definitions and the like counted too; --prior none leaves them out"

_PATIENCE_SECONDS = 5.0  # of a ranking, before its user is told how it takes less
_LARGE_FACTOR = 4  # times as many passages as with -n make a large input


class CandidateAdvice:
    """Says once that -n reads less, if all passages of a large input are read and that takes long.

    count   how many passages the model would read with -n; None if that changes nothing
    """

    def __init__(self, count: CandidateCount | None, state: RankingState) -> None:
        self._count = count
        self._state = state

    def give(self, seconds: float, terminal: Terminal) -> None:
        """Say it, if a ranking that takes that long has many passages to read."""
        if self._count is None or seconds < _PATIENCE_SECONDS:
            return
        total = self._state.expect_pairs()
        passages = self._state.pairs if total is None else total
        if passages < _LARGE_FACTOR * self._count.among(passages):
            return
        self._count = None
        number = "passages" if total is None else f"of about {float(f'{total:.1g}'):,.0f} passages"
        terminal.wipe_line()
        terminal.say(
            f"hint: the model reads all {number}; -n {TABLE_RESULTS} reads only the most promising"
        )


def warn_of_ranking(ranking: Ranking, terminal: Terminal) -> None:
    """Warn of everything that the results do not show by themselves."""
    for note in ranking.notes:
        terminal.warn(note)
    if ranking.absent and ranking.results:
        terminal.warn(f"{ranking.absent} does not occur in what was read")
    if ranking.missing:
        terminal.warn(
            f"{ranking.info.model} gave {format_count(ranking.missing, 'score')} fewer than it was "
            "asked for",
            hint="documents without a score are left out; --keep-empty shows them, --strict fails",
        )
    if ranking.cut:
        terminal.warn(
            f"{format_count(ranking.cut, 'document')} of {ranking.documents:,} not scored whole: "
            f"{format_count(ranking.dropped, 'token')} beyond the last chunk dropped",
            hint="raise --max-chunks; --aggregate first reads no more than one chunk",
        )
    if terminal.stderr.isatty():
        _say_candidates(ranking, terminal)
        if terminal.interactive:
            _say_repeats(ranking, terminal)
    if ranking.weak and terminal.stderr.isatty():
        best = ranking.results[0].relevance_score
        terminal.say(f"best score {best:.3f}: probably nothing here answers it")


def _say_repeats(ranking: Ranking, terminal: Terminal) -> None:
    """Tell a person how each line is ranked once, if most of the results repeat another one."""
    documents = [result.document for result in ranking.results]
    lines = [each.text for each in documents if each.line and not each.whole and not each.fields]
    repeats = len(lines) - len({*lines})
    if 2 * repeats > len(documents):
        terminal.say(
            f"hint: {repeats:,} of {format_count(len(documents), 'result')} repeat a line: "
            "sort -u FILE | rerank ranks each line once"
        )


def _say_candidates(ranking: Ranking, terminal: Terminal) -> None:
    """Say how many passages the model read, unless Ctrl-C came before it had read them."""
    if ranking.candidates is not None and not ranking.incomplete:
        terminal.say(describe_candidates(ranking.candidates))


def warn_of_format(ranking: Ranking, style: Style, terminal: Terminal) -> None:
    """Warn of the format's effects on these results, and show a person other formats."""
    remark = WRITERS[style.format_].find_remark(ranking, style)
    if remark is not None and remark.text:
        terminal.warn(remark.text, remark.hint)
    elif remark is not None and terminal.watched and not ranking.incomplete:
        terminal.say(f"hint: {remark.hint}")


def warn_of_limits(
    ctx: typer.Context, ranking: Ranking, inputs: Inputs, terminal: Terminal
) -> None:
    """Say what was not read because of a limit of time or money."""
    if ranking.unread is not None:
        limits = option_values.limits(ctx)
        terminal.warn(describe_unread(ranking.unread, limits, inputs.share))


def describe_unread(unread: Unread, limits: Mapping[str, str], share: float | None) -> str:
    """Say in words what the model did not read because a limit was reached.

    `limits` has the limits as the user gave them, by their names. `share` is the share of the input
    that was read; None if it is not known.
    """
    is_late = unread.reason == UnreadReason.MAX_TIME
    limit = limits.get(unread.reason, "")
    limit = limit and f" ({limit})"
    passages = format_count(unread.read + unread.passages, "passage")
    part = "only part" if share is None or share >= 1 else f"about {share:.0%}"
    if is_late and not unread.passages and not unread.is_input_read:
        # Reading the input may take half of the time, and the model may need less than the rest.
        return (
            f"the time for reading was over{limit}: {part} of the input was looked at, "
            f"and the model read all of its {passages}"
        )
    why = "time was over" if is_late else "more would cost too much"
    total = f"{'about ' if unread.is_estimate else ''}{passages}"
    parts = [f"{why}{limit}: the model read {unread.read:,} of {total}"]
    if unread.documents:
        verb = "is" if unread.documents == 1 else "are"
        parts.append(f"{format_count(unread.documents, 'document')} {verb} left out")
    if unread.partial:
        parts.append(f"{unread.partial:,} read in part")
    if not unread.is_input_read:
        parts.append(f"{part} of the input was looked at")
    return "; ".join(parts)


def warn_of_nothing(
    ctx: typer.Context, ranking: Ranking, inputs: Inputs, selection: Selection, terminal: Terminal
) -> None:
    """Say why there are no results."""
    hint = None
    if ctx.params["recursive"] and inputs.report.skip_counts["binary"]:
        hint = "-a reads binary files as text"
    elif not ranking.documents:
        from rerank_cli.cli.hints import words_hint  # few runs need it

        hint = words_hint(ctx)
    terminal.warn(_why_nothing(ranking, inputs, selection), hint)


def _why_nothing(ranking: Ranking, inputs: Inputs, selection: Selection) -> str:
    scored = ranking.documents - ranking.empty
    if not ranking.documents:
        reasons = [f"left out {reason}"] if (reason := describe_skips(inputs)) else []
        if problems := inputs.report.problems.total:
            reasons.append(f"{format_count(problems, 'file')} could not be read")
        return f"nothing to rank: {', '.join(reasons) or 'the input is empty'}"
    if not scored:
        return f"nothing to rank: {format_count(ranking.empty, 'document')}, all blank"
    if ranking.unmatched:
        return f"none of {format_count(scored, 'document')} has a word of the query"
    least = least_score(selection, ranking.info) or 0.0
    message = f"none of {format_count(scored, 'document')} reached a score of {least:g}"
    if (best := ranking.best_below) is None:
        return message
    is_less = float(f"{best:.3g}") < least  # also as it is rounded
    return f"{message}: the best has {best:.{3 if is_less else 7}g}"


def say_what_it_took(
    ranking: Ranking,
    seconds: float,
    scorers: Sequence[Scorer],
    inputs: Inputs,
    terminal: Terminal,
    *,
    params: Mapping[str, Any],
    was_shown: bool,
) -> None:
    """Print the lines of --verbose, or else the time, if progress was shown."""
    if params["verbose"]:
        if not params["dry_run"]:
            terminal.say(_summary(ranking, seconds))
        if not terminal.stderr.isatty():  # else a message has said it
            _say_candidates(ranking, terminal)
        if ranking.stages:
            terminal.say(describe_stages(ranking))
        if ranking.prior is not None:
            terminal.say(_PRIOR_NOTE)
        say_accounts(scorers, terminal)
        _say_what_was_read(inputs, terminal)
    elif was_shown and not ranking.incomplete:
        documents = format_count(ranking.documents, "document")
        terminal.say(f"{documents} in {format_duration(seconds)}")


def _say_what_was_read(inputs: Inputs, terminal: Terminal) -> None:
    """Say for --verbose what was read, and what was left out."""
    if skips := describe_skips(inputs):
        terminal.say(f"left out of folders and lists: {skips}")
    if rows := sum(fault.count for fault in inputs.report.faults if fault.noun == "row"):
        terminal.say(f"{format_count(rows, 'row')} did not fit the header")
    if losses := inputs.report.losses:
        things = [format_count(count, kind) for kind, count in sorted(losses.items())]
        terminal.say(f"without a text: {format_names(things, 'and')}")
    if inputs.report.code:
        say_how_code_was_read(inputs.report.code, terminal)
    if inputs.copied_bytes:
        size = format_size(inputs.copied_bytes)
        terminal.say(f"{size} copied to disk, because it is read twice")


def _summary(ranking: Ranking, seconds: float) -> str:
    """The lines of --verbose."""
    counts = [
        format_count(ranking.documents, "document"),
        f"{ranking.empty:,} empty",
        format_count(ranking.duplicates, "duplicate"),
        f"{ranking.cut:,} cut",
    ]
    if ranking.unmatched:
        counts.append(f"{ranking.unmatched:,} without a word of the query")
    tokens = format_count(ranking.tokens, "token")
    costs = [
        format_count(ranking.chunks, "passage"),
        f"about {tokens}" if ranking.info.estimated else tokens,
    ]
    models = ", then ".join(stage.info.model for stage in ranking.stages) or ranking.info.model
    return f"{', '.join(counts)}\n{', '.join(costs)} in {seconds:.2f} s by {models}"


def say_accounts(scorers: Sequence[Scorer], terminal: Terminal) -> None:
    """Print the costs of scoring for --verbose, also if it failed."""
    for scorer in scorers:
        if isinstance(scorer, ConcurrentScorer) and (account := scorer.account()):
            terminal.say(account)


def count_scored(ranking: Ranking, inputs: Inputs, pairs: int | None, *, is_read: bool) -> str:
    """The number of scored documents, and that of all or the share of the input, in words.

    `pairs` is how many were scored if documents are ranked, and None if passages are. These are
    counted too if documents have several, as on the progress line. `is_read` says that all of the
    input was read.
    """
    if (words := describe_interrupted(ranking)) is not None:
        return words
    if ranking.candidates is not None:
        scored = ranking.chunks - ranking.unscored
        return f"{scored:,} of {format_count(ranking.candidates.read, 'chosen passage')}"
    total = ranking.documents - ranking.empty
    scored, noun = total - ranking.unscored, "document"
    if pairs is None or ranking.chunks > total:
        total, noun = ranking.chunks, "passage"
        scored = total - ranking.unscored if pairs is None else min(pairs, total)
    if is_read or inputs.share is None:
        return f"{scored:,} of {format_count(total, noun)}{'' if is_read else ' so far'}"
    share = inputs.share * scored / total if total else 0.0
    return f"{format_count(scored, noun)}, about {share:.0%} of the input"
