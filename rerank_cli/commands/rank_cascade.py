"""The parts of `rank` for several models in a row: `-m mini,bge-reranker-base`."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import typer

from rerank_cli.cli import option_values
from rerank_cli.cli.parameters import is_given
from rerank_cli.errors import UsageError
from rerank_cli.ranking import check_keep
from rerank_cli.terminal import format_count, format_json

if TYPE_CHECKING:
    from collections.abc import Sequence
    from concurrent.futures import Future

    from rerank_cli.types import Ranking, Scorer


def open_models(ctx: typer.Context, models: Sequence[str]) -> list[Future[Scorer]]:
    """Open all models of a cascade in other threads; raises `UsageError`.

    Options for providers go to their models. Instructions are given later, by `instruct`.
    """
    from rerank_cli.scorers import open_in_background, share_remote_options

    remotes = share_remote_options(models, option_values.remote_options(ctx))
    return [
        open_in_background(
            model,
            runtime=option_values.runtime_options(ctx),
            remote=remote,
            chunks=option_values.chunk_options(ctx),
            cache=option_values.cache_options(ctx) or False,
        )
        for model, remote in zip(models, remotes, strict=True)
    ]


def instruct(scorers: Sequence[Scorer], instruction: str | None) -> list[Scorer]:
    """Give an instruction to the models that take one; raises `UsageError` if none does."""
    if instruction is None or not instruction.strip():
        return [*scorers]
    from rerank_cli.ranking.powers import instruct_some

    try:
        return instruct_some(scorers, instruction)
    except UsageError as error:
        raise UsageError(f"--instruction: {error}") from error


def find_keep(ctx: typer.Context, models: int) -> Sequence[int] | None:
    """How many results each next model reads; None for the default numbers.

    Raises `UsageError` for numbers that do not fit the models.
    """
    text: str | None = ctx.params["keep"]
    if models == 1 and not is_given(ctx, "keep"):  # a setting is for runs with several
        return ()
    if text is None:
        return None
    return check_keep([int(count) for count in text.split(",")], models, name="--keep")


def describe_stages(ranking: Ranking) -> str:
    """How much each model of a cascade has scored, a line for each."""
    lines = []
    for stage in ranking.stages:
        result_count = stage.results
        whose = "" if result_count is None else f" of {format_count(result_count, 'result')}"
        lines.append(f"{format_count(stage.pairs, 'pair')}{whose} scored by {stage.info.model}")
    return "\n".join(lines)


def describe_interrupted(ranking: Ranking) -> str | None:
    """How far a later model was, in words; None if the first model was not done."""
    stages = [stage for stage in ranking.stages if stage.results is not None]
    if not stages:
        return None
    stage = stages[-1]
    return f"{stage.info.model} had judged {format_count(stage.results or 0, 'result')}"


def dry_run_report(
    scorers: Sequence[Scorer], ranking: Ranking, *, as_json: bool, verbose: bool
) -> bytes:
    """Report the requests to the providers among the models in a dry run, as lines or JSON."""
    from rerank_cli.commands import providers
    from rerank_cli.scorers.cached import CachedScorer
    from rerank_cli.scorers.dry_run import DryRunScorer

    if not ranking.stages:
        return providers.dry_run_report(scorers[0], ranking, as_json=as_json, verbose=verbose)
    reports = []
    for scorer, stage in zip(scorers, ranking.stages, strict=True):
        inner = scorer.scorer if isinstance(scorer, CachedScorer) else scorer
        if isinstance(inner, DryRunScorer):
            stage_ranking = ranking
            if stage.results is not None:
                stage_ranking = replace(ranking, documents=stage.results, empty=0, candidates=None)
            reports.append(
                providers.dry_run_report(scorer, stage_ranking, as_json=as_json, verbose=verbose)
            )
    if as_json:
        return format_json({"stages": [json.loads(report) for report in reports]})
    return b"".join(reports)
