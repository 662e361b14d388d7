"""`rerank eval DATASET…`: whether reranking helps on a user's own queries, and how sure that is.

`evaluation` measures, and writes the results.
"""

from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rerank_cli.cli import option_values, options
from rerank_cli.cli.parameters import COMMON_GROUP, is_given, with_options
from rerank_cli.cli.presets import preset_values
from rerank_cli.cli.provider_options import provider_options
from rerank_cli.cli.typer_commands import PlainCommand, make_app
from rerank_cli.commands.rank_cascade import find_keep
from rerank_cli.errors import ExitCode, UsageError
from rerank_cli.output_files import OutputFile
from rerank_cli.ranking import DEFAULT_MAX_CHUNKS, MIN_AUTO_CANDIDATES, FirstStage
from rerank_cli.scorers import split_models
from rerank_cli.terminal import STDOUT, Terminal

if TYPE_CHECKING:
    from rerank_cli.evaluation.datasets import Parts

app = make_app()

_DEFAULT_DEPTH = 100
_common = partial(typer.Option, rich_help_panel=COMMON_GROUP)
_data = partial(typer.Option, rich_help_panel="Data")
_labels = partial(typer.Option, rich_help_panel="Thresholds")

Datasets = Annotated[list[str] | None, typer.Argument(metavar="[DATASET]...", show_default=False)]
Models = Annotated[
    list[str] | None,
    _common(
        "-m",
        "--model",
        metavar="MODEL",
        autocompletion=options.complete_model,
        help="A model to measure, or several in a row: A,B (see --keep). May be repeated, and have "
        "options of its own: 'mini@3 --max-chunks 1'.",
        show_default=options.DEFAULT_MODEL,
    ),
]
Compare = Annotated[
    tuple[str, str] | None,
    _common(
        "--compare", metavar="A B", help="Say how far two models agree on the order of documents."
    ),
]
Depth = Annotated[
    str | None,
    _common(
        "--depth",
        metavar="N,…",
        help="How many documents to rerank, or all. Several depths are compared.",
        show_default=f"{_DEFAULT_DEPTH}, and with --candidates or --max-time all",
    ),
]
Candidates = Annotated[
    str | None,
    _common(
        "--candidates",
        metavar="N,…",
        help="Let the models read only the N most promising passages, as --candidates of rank "
        "does. Several are compared, in quality and in seconds: 50,200,all. auto is "
        f"{MIN_AUTO_CANDIDATES}.",
    ),
]
FirstStages = Annotated[
    str,
    _data(
        "--first-stage",
        metavar="NAME,…",
        help="What chooses these passages: hybrid, bm25 or input. Several are compared.",
    ),
]
MaxTimes = Annotated[
    str | None,
    _common(
        "--max-time",
        metavar="DURATION,…",
        help="End each query in this time, as --max-time of rank does: 500ms,2s. Several are "
        "compared, with each other and with --candidates.",
    ),
]
MaxCost = Annotated[
    float | None,
    _common(
        "--max-cost",
        metavar="USD",
        help="Stop before the requests to services cost more, in US dollars. What is scored by "
        "then is kept: the same command with a larger limit continues.",
    ),
]
Measures = Annotated[
    list[str] | None,
    _common(
        "--measure",
        metavar="NAME",
        help="A measure, as ir-measures names it. May be repeated; the first decides the verdict.",
        show_default="nDCG@10, RR@10, AP",
    ),
]
Sample = Annotated[
    int | None,
    _common("--sample", min=2, metavar="N", help="Use a random sample of N queries of each set."),
]
Seed = Annotated[
    int,
    _data("--seed", min=0, metavar="N", help="The seed of the sample and of the intervals."),
]

KeepRecall = Annotated[
    float,
    _labels(
        "--keep-recall",
        metavar="X",
        help="The share of the relevant documents that a cut shall keep.",
    ),
]
KeepPrecision = Annotated[
    float,
    _labels(
        "--keep-precision",
        metavar="X",
        help="The share of what a cut keeps that shall be relevant.",
    ),
]


def _file(name: str, text: str, group: str = "Data") -> Any:
    return typer.Option(f"--{name}", metavar="FILE", help=text, rich_help_panel=group)


@app.command("eval", cls=PlainCommand)
@with_options(options.model_options, only="threads runtime device cache cache_size")
@with_options(options.passage_memory_options, options.preset_options)
@with_options(options.candidate_options, only="keep")
@with_options(provider_options, only="base_url concurrency retries timeout connect_timeout rpm tpm")
def evaluate(
    ctx: typer.Context,
    datasets: Datasets = None,
    model: Models = None,
    compare: Compare = None,
    depth: Depth = None,
    candidates: Candidates = None,
    first_stage: FirstStages = FirstStage.HYBRID.value,
    max_time: MaxTimes = None,
    max_cost: MaxCost = None,
    measure: Measures = None,
    condensed: Annotated[
        bool, _data("--condensed", help="Leave out documents without a judgement.")
    ] = False,
    label_field: options.LabelField = "relevant",
    min_grade: options.MinGrade = 1,
    sample: Sample = None,
    seed: Seed = 0,
    queries: Annotated[Path | None, _file("queries", "The queries, as TSV or JSON.")] = None,
    corpus: Annotated[Path | None, _file("corpus", "The documents, as TSV or JSON.")] = None,
    qrels: Annotated[
        Path | None, _file("qrels", "The judgements, in the format of TREC or BEIR.")
    ] = None,
    run: Annotated[Path | None, _file("run", "The candidates, as a TREC run.")] = None,
    per_query: Annotated[
        str | None,
        _file("per-query", "Write the measures of every query to FILE, as TSV.", "Output"),
    ] = None,
    runs: Annotated[
        str | None,
        typer.Option(
            "--runs",
            metavar="DIR",
            rich_help_panel="Output",
            help="Write each system's run to DIR, for trec_eval.",
        ),
    ] = None,
    report: Annotated[
        str | None,
        _file(
            "report",
            "Write a report for colleagues to FILE.html, with charts, or to FILE.md.",
            "Output",
        ),
    ] = None,
    thresholds: Annotated[
        bool,
        _labels(
            "--thresholds",
            help="Say what scores and numbers of results keep of the relevant, and which to take.",
        ),
    ] = False,
    keep_recall: KeepRecall = 0.95,
    keep_precision: KeepPrecision = 0.9,
    as_json: Annotated[bool, _common("--json", help="Write one JSON object.")] = False,
    output: Annotated[
        str,
        _common(
            "-o",
            "--output",
            metavar="FILE",
            help="Write to FILE, whole or not at all.",
            show_default="standard output",
        ),
    ] = STDOUT,
) -> int:
    """Measure whether reranking helps on your own queries, and how sure that is.

    A dataset is a BEIR folder (corpus.jsonl, queries.jsonl, qrels/test.tsv), or a file of JSONL or
    of a JSON array: {"query": …, "documents": […], "relevant": […]}. `relevant` lists the positions
    of relevant documents, from 0, or their ids; or it gives grades, as a list or as a map from ids.
    Clicks are labels too: {"query": …, "documents": […], "clicked": […]}.
    Each model is compared with the order of the data, with BM25, and with the best order that the
    candidates allow. If there are no candidates, BM25 finds them.

    \b
    rerank eval mine.jsonl                    the default model and BM25
    rerank eval nq squad --depth 10,50,100    quality against cost
    rerank eval nq --sample 50 --candidates 50,200,all --max-time 500ms,2s
    rerank eval nq --compare ./fp32 ./int8    do two models agree?
    rerank eval mine.jsonl -m mini@3 -m cohere/rerank-v3.5 --sample 100
    rerank eval nq -m bge-reranker-base -m mini,bge-reranker-base --keep 20
    rerank eval mine.jsonl --report report.html
    rerank eval mine.jsonl --thresholds       which --min-score, and which -n
    """
    from rerank_cli.evaluation.datasets import LabelOptions
    from rerank_cli.evaluation.evaluate import run_evaluation
    from rerank_cli.evaluation.run import EvalOptions
    from rerank_cli.evaluation.thresholds import ThresholdOptions

    preset = preset_values(ctx)
    if candidates is None:
        candidates = preset.get("candidates")
    if not is_given(ctx, "first_stage"):
        first_stage = preset.get("first-stage", first_stage)
    # A goal for cuts asks for cuts.
    thresholds |= any(is_given(ctx, name) for name in ("keep_recall", "keep_precision"))
    output_file = OutputFile(output)
    parts = evaluation_parts("eval", datasets, queries, corpus, qrels, run)
    if compare is not None and (candidates is not None or max_time is not None):
        option = "--max-time" if candidates is None else "--candidates"
        raise UsageError(
            f"--compare is of two models, and {option} makes several of each",
            hint="as in --compare 'mini@3 --candidates 200' mini@3",
        )
    max_times = {} if max_time is None else parse_times(max_time)
    cache = option_values.cache_options(ctx)
    if max_times and cache is not None:
        raise UsageError(
            "--max-time shows what the model reads in time, and --cache spares it the reading",
            hint="--no-cache",
        )
    if max_times and max_cost is not None:
        raise UsageError(
            "--max-time limits each query, and --max-cost all of them", hint="give one of them"
        )
    models = _models(ctx, model, compare, preset)
    if compare is not None:
        first, second = _with_keep(ctx, compare)
        compare = first, second
    terminal = Terminal.current(to_file=not output_file.is_stdout)
    names = [name for text in models for name in split_models(_name_in(text))]
    option_values.warn_of_passage_memory(ctx, names, terminal)
    run_evaluation(
        EvalOptions(
            datasets=[Path(path) for path in datasets or []],
            parts=parts,
            qrels=qrels,
            run=run,
            models=models,
            compare=compare,
            depths=parse_depths(
                depth or ("all" if candidates or max_times else str(_DEFAULT_DEPTH))
            ),
            measures=measure or [],
            condensed=condensed,
            sample=sample,
            seed=seed,
            per_query=None if per_query is None else OutputFile(per_query),
            runs=runs,
            report=None if report is None else OutputFile(report),
            output=output_file,
            as_json=as_json,
            runtime=option_values.runtime_options(ctx),
            remote=option_values.remote_options(ctx),
            cache=cache,
            candidates=candidates or "",
            first_stage=first_stage,
            max_times=max_times,
            max_cost=max_cost,
            labels=LabelOptions(label_field, min_grade, condensed),
            thresholds=ThresholdOptions(keep_recall, keep_precision) if thresholds else None,
            # A query is cut, and a document has the same number of chunks, whichever model scores
            # them.
            chunks=option_values.chunk_options_of(
                {"max_chunks": DEFAULT_MAX_CHUNKS, **_by_parameter(preset), "truncate_query": True}
            ),
        ),
        terminal,
    )
    return ExitCode.OK


def evaluation_parts(
    command: str,
    datasets: list[str] | None,
    queries: Path | None,
    corpus: Path | None,
    qrels: Path | None,
    run: Path | None,
) -> "Parts | None":
    """The set whose parts are files of their own; None for none. Raises `UsageError`."""
    from rerank_cli.evaluation.datasets import Parts

    if queries is not None or corpus is not None:
        if datasets or queries is None or corpus is None or qrels is None:
            raise UsageError(
                "--queries, --corpus and --qrels make up a set of their own",
                hint="all three are needed, and --run if there are candidates; no DATASET",
            )
        return Parts(queries.name.partition(".")[0], queries, corpus, qrels, run)
    if not datasets:
        raise UsageError(
            f"{command} needs a DATASET",
            hint="rerank eval --help shows what one is; to search for the word: "
            f"rerank -q {command}",
        )
    return None


def _by_parameter(preset: Mapping[str, Any]) -> dict[str, Any]:
    return {key.replace("-", "_"): value for key, value in preset.items()}


def _models(
    ctx: typer.Context,
    names: list[str] | None,
    compare: tuple[str, str] | None,
    preset: Mapping[str, Any],
) -> list[str]:
    """The models to measure: those given and those compared, else the one that is set."""
    models = [*(names or []), *(compare or ())]
    if not models:
        from rerank_cli.cli.parameters import setting_values
        from rerank_cli.models.catalogue import default

        models = [preset.get("model") or setting_values(ctx)["model"][0] or default()]
    if is_given(ctx, "keep") and all(len(split_models(_name_in(text))) == 1 for text in models):
        find_keep(ctx, 1)  # raises
    return list(dict.fromkeys(_with_keep(ctx, models)))


def _with_keep(ctx: typer.Context, texts: Iterable[str]) -> list[str]:
    """The systems' texts; those of several models have the --keep of all, if not their own."""
    keep: str | None = ctx.params["keep"]
    return [
        f"{text.strip()} --keep {keep}"
        if keep and "--keep" not in text and len(split_models(_name_in(text))) > 1
        else text
        for text in texts
    ]


def _name_in(text: str) -> str:
    """The model, or the models, in the text of a system, which may have options behind them."""
    return text.partition(" --")[0].strip()


def parse_times(text: str) -> dict[str, float]:
    """Read limits of time, as in `500ms,2s`: their seconds by name; raises `UsageError`."""
    from rerank_cli.cli.settings import parse_duration

    times: dict[float, str] = {}
    for word in map(str.strip, text.split(",")):
        try:
            times.setdefault(parse_duration(word), word)
        except ValueError as error:
            raise UsageError(f"--max-time: {error}", hint="as in --max-time 500ms,2s") from None
    return {word: seconds for seconds, word in times.items()}


def parse_depths(text: str) -> list[int]:
    """Read depths, smallest first; raises `UsageError`."""
    from rerank_cli.evaluation.datasets import ALL_DOCUMENTS

    words = [word.strip() for word in text.split(",")]
    try:
        depths = sorted({ALL_DOCUMENTS if word == "all" else int(word) for word in words})
    except ValueError as error:
        raise UsageError(
            f"--depth {text}: neither a number nor all", hint="as in --depth 10,50,100"
        ) from error
    if depths[0] < 1:
        raise UsageError(f"--depth {text}: at least one candidate is needed")
    return depths
