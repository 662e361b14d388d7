"""`rerank QUERY [FILE]...`: documents in, the same documents out, best first."""

import os
import sys
from dataclasses import dataclass
from typing import Any

from rerank_cli.errors import ExitCode, UsageError
from rerank_cli.inputs import STDIN, Inputs
from rerank_cli.render import Format, render
from rerank_cli.terminal import Terminal
from rerank_cli.types import Ranking


@dataclass(frozen=True, slots=True)
class Output:
    """How results are shown; a `form` of None is a table on a terminal and text in a pipe."""

    form: Format | None
    full: bool
    strict: bool


def rank_documents(
    query: str,
    inputs: Inputs,
    output: Output,
    terminal: Terminal,
    *,
    model: str | None,
    threads: int | None,
    min_score: float | None,
    **options: Any,
) -> ExitCode:
    """Rank `inputs` and write the results; `min_score` and `options` are `pipeline.rank`'s.

    Raises the errors of reading and scoring.
    """
    inputs.check()

    from rerank_cli.pipeline import rank
    from rerank_cli.scorers import open_scorer

    scorer = open_scorer(model, threads=threads)
    passages = inputs.single_file
    ranking = rank(query, inputs, scorer, passages=passages, min_score=min_score, **options)
    form = output.form or (Format.TABLE if terminal.interactive else Format.TEXT)
    try:
        terminal.write(render(ranking, form, terminal, passages=passages, full=output.full))
    finally:  # whoever closed the pipe is told all the same
        _say_what_happened(ranking, inputs, terminal)
    if not ranking.results:
        terminal.warn(_why_nothing(ranking, min_score))
    if output.strict and ranking.truncated:
        return ExitCode.TRUNCATED
    return ExitCode.OK if ranking.results else ExitCode.NOTHING


def sources(query: str | None, arguments: list[str], texts: list[str]) -> tuple[str, list[str]]:
    """Tell the query from the files: with `-q` every argument is a file, else the first is not.

    Standard input is read where nothing else is named and it is not a terminal; raises
    `UsageError` where there is no query or nothing to rank.
    """
    if query is None:
        if not arguments:
            raise UsageError("there is no query", hint="rerank QUERY [FILE]...")
        query, arguments = arguments[0], arguments[1:]
    if not arguments and not texts:
        if sys.stdin is None or sys.stdin.isatty():
            is_file = f", and {query} is a file" if os.path.isfile(query) else ""
            raise UsageError(
                f"there are no documents to rank{is_file}",
                hint=f'rerank "your query" {query if is_file else "FILE"}, or pipe lines into it',
            )
        arguments = [STDIN]
    return argument_text(query), arguments


def argument_text(argument: str) -> str:
    """Read an argument as UTF-8, as all text here; the locale decoded it, whatever it may be."""
    return os.fsencode(argument).decode("utf-8", "replace")


def _say_what_happened(ranking: Ranking, inputs: Inputs, terminal: Terminal) -> None:
    """Tell on stderr of everything that the results do not show by themselves."""
    for note in ranking.notes:
        terminal.warn(note)
    if inputs.undecodable:
        terminal.warn(f"{_count(inputs.undecodable, 'document')} had bytes that are not UTF-8")
    if ranking.cut:
        terminal.warn(
            f"{_count(ranking.cut, 'document')} of {ranking.documents} not scored whole: "
            f"{_count(ranking.dropped, 'token')} beyond the last chunk dropped",
            hint="raise --max-chunks; --aggregate first reads no more than one chunk",
        )


def _why_nothing(ranking: Ranking, min_score: float | None) -> str:
    scored = ranking.documents - ranking.empty
    if not ranking.documents:
        return "nothing to rank: the input is empty"
    if not scored:
        return f"nothing to rank: {_count(ranking.empty, 'document')}, all blank"
    return f"none of {_count(scored, 'document')} reached a score of {min_score}"


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"
