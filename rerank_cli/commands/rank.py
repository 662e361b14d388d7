"""`rerank QUERY [FILE]...`: documents in, the same documents out, best first."""

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rerank_cli.errors import ExitCode, NothingLeft, UsageError
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
    **options: Any,
) -> ExitCode:
    """Rank `inputs` and write the results; `options` are those of `pipeline.rank`.

    Raises the errors of reading and scoring, and `NothingLeft` where no result is left to show.
    """
    if not query.strip():
        raise UsageError("the query is empty", hint="say what to look for")
    inputs.check()

    from rerank_cli.pipeline import rank
    from rerank_cli.scorers import open_scorer

    scorer = open_scorer(model, threads=threads)
    ranking = rank(query, inputs, scorer, passages=inputs.single_file, **options)
    form = output.form or (Format.TABLE if terminal.interactive else Format.TEXT)
    terminal.write(render(ranking, form, terminal, passages=inputs.single_file, full=output.full))
    _say_what_happened(ranking, inputs, terminal)
    if not ranking.results:
        raise _nothing_left(ranking, options.get("min_score"))
    return ExitCode.TRUNCATED if output.strict and ranking.cut else ExitCode.OK


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
            is_file = f", and {query} is a file" if Path(query).is_file() else ""
            raise UsageError(
                f"there are no documents to rank{is_file}",
                hint=f'rerank "your query" {query if is_file else "FILE"}, or pipe lines into it',
            )
        arguments = [STDIN]
    # Arguments are decoded as the locale has it; a query is UTF-8, as all text here.
    return os.fsencode(query).decode("utf-8", "replace"), arguments


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
            hint="raise --max-chunks to score all, or use --aggregate max instead of first",
        )


def _nothing_left(ranking: Ranking, min_score: float | None) -> NothingLeft:
    scored = ranking.documents - ranking.empty
    if not ranking.documents:
        return NothingLeft("nothing to rank: the input is empty")
    if not scored:
        return NothingLeft(f"nothing to rank: {_count(ranking.empty, 'document')}, all blank")
    return NothingLeft(f"none of {_count(scored, 'document')} reached a score of {min_score}")


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"
