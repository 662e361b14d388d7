"""`rerank tune DATASET…`: the cheapest setting that is good enough for a user's own queries.

`evaluation.tune` finds it, and `cli.presets` describes the preset that is written.
"""

from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from rerank_cli.cli import option_values, options
from rerank_cli.cli.parameters import COMMON_GROUP, with_options
from rerank_cli.cli.presets import PresetPlace, check_name, read_presets
from rerank_cli.cli.provider_options import provider_options
from rerank_cli.cli.typer_commands import PlainCommand, make_app
from rerank_cli.commands.eval import Datasets, evaluation_parts, parse_depths
from rerank_cli.errors import ExitCode, NoHome, UsageError
from rerank_cli.ranking import DEFAULT_MAX_CHUNKS
from rerank_cli.terminal import PipeClosed, Terminal, format_json
from rerank_cli.user_files import config_file

app = make_app()

_common = partial(typer.Option, rich_help_panel=COMMON_GROUP)
_data = partial(typer.Option, rich_help_panel="Data")
_DEFAULT_MAX_LOSS = 0.5
_DEFAULT_MEASURE = "nDCG@10"
_DEFAULT_PRESET = "tuned"


@app.command("tune", cls=PlainCommand)
@with_options(options.model_options, only="threads runtime device")
@with_options(provider_options, only="base_url concurrency retries timeout connect_timeout rpm tpm")
@with_options(options.common_options, only="model")
def tune(
    ctx: typer.Context,
    datasets: Datasets = None,
    max_loss: Annotated[
        float,
        _common(
            "--max-loss",
            metavar="POINTS",
            help="The most that a setting may lose against all passages, in hundredths of the "
            "measure.",
        ),
    ] = _DEFAULT_MAX_LOSS,
    preset_name: Annotated[
        str,
        _common(
            "--name",
            metavar="NAME",
            help="The preset to write; one of this name is replaced.",
        ),
    ] = _DEFAULT_PRESET,
    dry_run: Annotated[
        bool, _common("--dry-run", help="Write no preset; say what it would be.")
    ] = False,
    measure: Annotated[
        str, _common("--measure", metavar="NAME", help="A measure, as ir-measures names it.")
    ] = _DEFAULT_MEASURE,
    sample: Annotated[
        int | None,
        _common(
            "--sample", min=2, metavar="N", help="Use a random sample of N queries of each set."
        ),
    ] = None,
    seed: Annotated[
        int, _data("--seed", min=0, metavar="N", help="The seed of all that is drawn at random.")
    ] = 0,
    depth: Annotated[
        str,
        _common(
            "--depth",
            metavar="N",
            help="How many documents of a query there are to choose from: BM25's best N.",
        ),
    ] = "all",
    queries: Annotated[
        Path | None, _data("--queries", metavar="FILE", help="The queries, as TSV or JSON.")
    ] = None,
    corpus: Annotated[
        Path | None, _data("--corpus", metavar="FILE", help="The documents, as TSV or JSON.")
    ] = None,
    qrels: Annotated[
        Path | None, _data("--qrels", metavar="FILE", help="The judgements, of TREC or BEIR.")
    ] = None,
    run: Annotated[
        Path | None, _data("--run", metavar="FILE", help="The candidates, as a TREC run.")
    ] = None,
    as_json: Annotated[bool, _common("--json", help="Write one JSON object.")] = False,
) -> int:
    """Find the cheapest setting that loses little on your own queries, and keep it as a preset.

    A model that reads only the most promising passages is faster and may miss some. Settings are
    tried on one half of the queries of a DATASET, those that read least first, until one loses
    surely less than --max-loss against all passages. Its loss is then measured on the other half.
    If that holds, it is written to config.toml. If the queries do not decide, that is said, and the
    exit code is 1. A DATASET is as for `rerank eval`. Of several models in a row, as in -m A,B, it
    finds how many results the last one must read, against that one alone.

    \b
    rerank tune beir/scifact                      one half chooses, the other measures
    rerank tune mine.jsonl --max-loss 1 --name fast
    rerank tune mine.jsonl -m mini,bge-reranker-base
    rerank "how do refunds work" -r docs --preset fast
    """
    terminal = Terminal.current()
    check_name(preset_name)
    if not max_loss > 0:
        raise UsageError(f"--max-loss {max_loss:g}: a loss of more than 0 points", hint="as in 0.5")

    from rerank_cli.evaluation.run import EvalOptions
    from rerank_cli.evaluation.tune import describe
    from rerank_cli.evaluation.tune import tune as find_setting
    from rerank_cli.models.catalogue import default

    model = ctx.params["model"] or default()
    depths = parse_depths(depth)
    if len(depths) > 1:
        raise UsageError(f"--depth {depth}: one number, or all")
    tuning = find_setting(
        EvalOptions(
            datasets=[Path(path) for path in datasets or []],
            parts=evaluation_parts("tune", datasets, queries, corpus, qrels, run),
            qrels=qrels,
            run=run,
            models=[model],
            depths=depths,
            measures=[measure],
            sample=sample,
            seed=seed,
            as_json=as_json,
            runtime=option_values.runtime_options(ctx),
            remote=option_values.remote_options(ctx),
            chunks=option_values.chunk_options_of(
                {"max_chunks": DEFAULT_MAX_CHUNKS, "truncate_query": True}
            ),
        ),
        max_loss,
        terminal,
    )
    preset = {"model": tuning.model, **tuning.chosen.preset} if tuning.chosen else {}
    is_written = tuning.is_confirmed and not dry_run
    if is_written:
        _write_preset(preset_name, preset, terminal)
    with suppress(PipeClosed):
        if as_json:
            name = preset_name if is_written else None
            body = {**tuning.as_dict(), "preset": {"name": name, "settings": preset}}
            terminal.write([format_json(body)])
        else:
            terminal.write(describe(tuning, terminal.width))
            if tuning.is_confirmed:
                terminal.write([_describe_preset(preset_name, preset, is_written=is_written)])
    return ExitCode.OK if tuning.is_confirmed else ExitCode.NOTHING


def _write_preset(name: str, preset: dict[str, object], terminal: Terminal) -> None:
    from rerank_cli.atomic_files import set_toml_value  # tomlkit, which few runs need

    with suppress(NoHome):
        if name in read_presets():
            terminal.say(f"the preset {name} that was there is replaced")
    set_toml_value(config_file(), PresetPlace(name).path, preset)


def _describe_preset(name: str, preset: dict[str, object], *, is_written: bool) -> bytes:
    values = ", ".join(f"{key} = {value}" for key, value in preset.items())
    if not is_written:
        return f"As a preset: {values}.\n".encode()
    return (
        f"Written to {config_file()} as the preset {name} ({values}).\n"
        f"To use it: rerank --preset {name} QUERY FILE\n"
    ).encode("utf-8", "surrogateescape")
