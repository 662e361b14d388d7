"""`rerank calibrate LABELS`: makes probabilities of a model's scores, as they are on these labels.

`evaluation.calibration` fits the calibration and measures its error.
"""

from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any

import typer

from rerank_cli.cli import option_values, options
from rerank_cli.cli.parameters import COMMON_GROUP, setting_values, with_options
from rerank_cli.cli.provider_options import provider_options
from rerank_cli.cli.typer_commands import PlainCommand, make_app
from rerank_cli.errors import ExitCode, UsageError
from rerank_cli.ranking import DEFAULT_MAX_CHUNKS
from rerank_cli.terminal import Terminal, format_count, format_json, hide_user
from rerank_cli.user_files import calibrations_file

app = make_app()
_DEFAULT_DEPTH = 100
_DEFAULT_RECALL = 0.95


def _option(*names: str, text: str, **rest: Any) -> Any:
    return typer.Option(*names, help=text, rich_help_panel=COMMON_GROUP, **rest)


@app.command("calibrate", cls=PlainCommand)
@with_options(options.model_options, only="threads runtime device cache cache_size")
@with_options(provider_options, only="base_url concurrency retries timeout connect_timeout rpm tpm")
def calibrate(
    ctx: typer.Context,
    labels: Annotated[str | None, typer.Argument(metavar="[LABELS]", show_default=False)] = None,
    model: Annotated[
        str | None,
        _option(
            "-m",
            "--model",
            metavar="MODEL",
            autocompletion=options.complete_model,
            text="The model.",
            show_default=options.DEFAULT_MODEL,
        ),
    ] = None,
    show: Annotated[bool, _option("--show", text="Show the calibrations that there are.")] = False,
    forget: Annotated[
        bool, _option("--forget", text="Remove those of the model, of all its revisions.")
    ] = False,
    depth: Annotated[
        int,
        _option("--depth", min=1, metavar="N", text="How many candidates of a query are labels."),
    ] = _DEFAULT_DEPTH,
    keep_recall: Annotated[
        float | None,
        _option(
            "--keep-recall",
            metavar="X",
            text="The share of the relevant documents that --min-score auto shall keep.",
            show_default=f"{_DEFAULT_RECALL}",
        ),
    ] = None,
    keep_precision: Annotated[
        float | None,
        _option(
            "--keep-precision",
            metavar="X",
            text="Instead: the share of what it keeps that shall be relevant.",
        ),
    ] = None,
    condensed: Annotated[
        bool, _option("--condensed", text="Leave out documents without a judgement.")
    ] = False,
    label_field: options.LabelField = "relevant",
    min_grade: options.MinGrade = 1,
    seed: Annotated[
        int, _option("--seed", min=0, metavar="N", text="The seed of what is drawn at random.")
    ] = 0,
    as_json: Annotated[bool, _option("--json", text="Write one JSON object.")] = False,
) -> int:
    """Make probabilities of a model's scores, from labels of your own.

    LABELS are queries with documents of which you know the relevant ones, as `rerank eval` takes
    them. From then on the relevance scores of this model are probabilities that hold for documents
    such as these, and `--min-score auto` is the cut that was chosen. No order changes. It is
    checked on a half of the queries that had no part in it.

    \b
    rerank calibrate mine.jsonl                      the default model
    rerank calibrate mine.jsonl -m cohere/rerank-v3.5 --keep-precision 0.9
    rerank calibrate --show                          what was calibrated, and on what
    rerank calibrate --forget -m mini@3              as before
    """
    terminal = Terminal.current()
    if show or forget:
        if labels is not None or (show and forget):
            raise UsageError("--show and --forget stand alone", hint="rerank calibrate --show")
        return _show(terminal, as_json=as_json) if show else _forget(ctx, model, terminal)
    if labels is None:
        raise UsageError(
            "calibrate needs LABELS", hint="rerank calibrate --help shows what these are"
        )
    if keep_recall is not None and keep_precision is not None:
        raise UsageError("--keep-recall and --keep-precision ask for two cuts", hint="give one")

    from rerank_cli.evaluation.calibration import calibrate as fit
    from rerank_cli.evaluation.datasets import LabelOptions
    from rerank_cli.evaluation.evaluate import score_labels
    from rerank_cli.evaluation.label_tables import draw_calibration
    from rerank_cli.evaluation.run import EvalOptions
    from rerank_cli.evaluation.thresholds import Goal, ThresholdOptions
    from rerank_cli.scorers import split_models
    from rerank_cli.scorers.calibrations import write_calibration

    name = model or _default_model(ctx)
    if len(split_models(name)) > 1:
        raise UsageError(
            f"{name}: several models in a row, and calibrate takes one",
            hint="-m MODEL names it; rank, batch, eval and tune take several in a row",
        )
    goal: tuple[Goal, float] = "recall", _DEFAULT_RECALL if keep_recall is None else keep_recall
    if keep_precision is not None:
        goal = "precision", keep_precision
    ThresholdOptions(**{f"keep_{goal[0]}": goal[1]}).check()
    scored = score_labels(
        EvalOptions(
            datasets=[Path(labels)],
            models=[name],
            depths=[depth],
            condensed=condensed,
            seed=seed,
            as_json=as_json,
            runtime=option_values.runtime_options(ctx),
            remote=option_values.remote_options(ctx),
            cache=option_values.cache_options(ctx),
            chunks=replace(
                option_values.chunk_options(ctx), max_chunks=DEFAULT_MAX_CHUNKS, truncate_query=True
            ),
            labels=LabelOptions(label_field, min_grade, condensed),
        ),
        terminal,
    )
    report = fit(scored.labelled, scored.info, scored.name, goal, seed)
    path = write_calibration(scored.key, report.calibration)
    if as_json:
        terminal.write([format_json({"key": scored.key, **asdict(report)})])
    else:
        terminal.write(draw_calibration(report, terminal.width))
    terminal.say(f"{hide_user(str(path))} written: scores of {scored.info.model} are probabilities")
    return ExitCode.OK


def _default_model(ctx: typer.Context) -> str:
    from rerank_cli.models.catalogue import default

    return setting_values(ctx)["model"][0] or default()


def _show(terminal: Terminal, *, as_json: bool) -> int:
    """Show all calibrations."""
    from rerank_cli.evaluation.label_tables import describe_errors
    from rerank_cli.scorers.calibrations import read_calibrations

    calibrations = read_calibrations()
    if as_json:
        rows = [
            {"key": key, **asdict(own), "points": len(own.points)}
            for key, own in calibrations.items()
        ]
        for row in rows:
            del row["is_current"]  # that is known once the model is opened
        terminal.write([format_json({"path": str(calibrations_file()), "calibrations": rows})])
        return ExitCode.OK
    lines = []
    for key, own in calibrations.items():
        labels = format_count(own.labels, "label")
        cut = (
            f"{own.cut:g}, which {own.rule}"
            if own.cut is not None
            else "none: these labels allow no cut"
        )
        lines += [
            (
                own.model,
                f"{own.data}, {labels}, {own.relevant:,} relevant, {own.date}",
            ),
            ("  model's hash", key),
            ("  error", describe_errors(own)),
            ("  --min-score auto", cut),
        ]
    if lines:
        terminal.write_facts(lines)
    else:
        terminal.say("no model is calibrated: rerank calibrate LABELS -m MODEL")
    return ExitCode.OK


def _forget(ctx: typer.Context, model: str | None, terminal: Terminal) -> int:
    """Remove a model's calibrations."""
    from rerank_cli.scorers.calibrations import forget_calibrations, read_calibrations

    name = model or _default_model(ctx)
    if not forget_calibrations(name):
        names = sorted({own.model for own in read_calibrations().values()})
        raise UsageError(
            f"{name} is not calibrated",
            hint=f"calibrated are {', '.join(names)}" if names else "no model is calibrated",
        )
    terminal.say(f"the scores of {name} are as the model gives them")
    return ExitCode.OK
