"""`rerank eval DATASET…`: whether reranking helps on a user's own queries, and how sure that is.

Thin: what is measured is `evaluation`'s business, and how it is drawn `eval_table`'s.
"""

import io
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from rerank_cli.atomic_files import on_ctrl_c
from rerank_cli.cli import options
from rerank_cli.cli.typer_commands import PlainCommand
from rerank_cli.errors import ExitCode, UsageError
from rerank_cli.evaluation.datasets import Task, task_of
from rerank_cli.evaluation.measures import DEFAULT, parsed
from rerank_cli.evaluation.report import (
    Comparison,
    Cost,
    Overall,
    Row,
    Rows,
    Set,
    as_json,
    compare_systems,
    overall,
    write_per_query,
    write_runs,
)
from rerank_cli.evaluation.run import (
    EvalOptions,
    Job,
    Work,
    compare_windows,
    open_system,
    read_collections,
    read_system,
    score_by_words,
    stamp_of,
)
from rerank_cli.evaluation.statistics import Difference, Verdict
from rerank_cli.progress import noted
from rerank_cli.providers import RemoteOptions
from rerank_cli.ranking.chunking import DEFAULT_MAX_CHUNKS, ChunkOptions
from rerank_cli.runtimes import RuntimeOptions
from rerank_cli.terminal import (
    PipeClosed,
    Terminal,
    counted,
    format_duration,
    format_json,
    printable,
)

app = typer.Typer(rich_markup_mode=None, add_completion=False, pretty_exceptions_enable=False)

DEPTH = 100

Datasets = Annotated[
    list[str] | None, typer.Argument(metavar="[FILE|FOLDER]...", show_default=False)
]
Models = Annotated[
    list[str] | None,
    typer.Option(
        "-m",
        "--model",
        metavar="MODEL",
        autocompletion=options.complete_model,
        help="A model to measure, with options of its own if need be: 'mini@2 --max-chunks 1'; "
        "repeatable.",
    ),
]
Compare = Annotated[
    tuple[str, str] | None,
    typer.Option("--compare", metavar="A B", help="Say how alike two models order documents."),
]
Depth = Annotated[
    str,
    typer.Option(
        "--depth", metavar="N,…", show_default=True, help="How many candidates are reranked."
    ),
]
Measures = Annotated[
    list[str] | None,
    typer.Option(
        "--measure",
        metavar="NAME",
        help="What is measured, as ir-measures names it; repeatable, the first decides. "
        "Default: nDCG@10, RR@10, AP.",
    ),
]
Sample = Annotated[
    int | None, typer.Option("--sample", min=2, metavar="N", help="Take N queries of each set.")
]
Seed = Annotated[
    int, typer.Option("--seed", min=0, metavar="N", help="Which queries, and which draws of them.")
]


def _file(name: str, text: str) -> Any:
    return typer.Option(f"--{name}", metavar="FILE", help=text)


@app.command("eval", cls=PlainCommand)
@options.with_options(options.model_options, only="threads runtime device")
@options.with_options(
    options.provider_options, only="base_url concurrency retries timeout connect_timeout rpm tpm"
)
def evaluate(
    ctx: typer.Context,
    datasets: Datasets = None,
    model: Models = None,
    compare: Compare = None,
    depth: Depth = str(DEPTH),
    measure: Measures = None,
    condensed: Annotated[
        bool, typer.Option("--condensed", help="Leave out documents that were not judged.")
    ] = False,
    sample: Sample = None,
    seed: Seed = 0,
    queries: Annotated[Path | None, _file("queries", "Queries: TSV or JSONL.")] = None,
    corpus: Annotated[Path | None, _file("corpus", "Documents: TSV or JSONL.")] = None,
    qrels: Annotated[Path | None, _file("qrels", "Judgements, as TREC or BEIR has them.")] = None,
    run: Annotated[Path | None, _file("run", "Candidates, as TREC has them.")] = None,
    per_query: Annotated[
        Path | None, _file("per-query", "Write every query's figures, as TSV.")
    ] = None,
    runs: Annotated[
        Path | None,
        typer.Option("--runs", metavar="DIR", help="Write each system's run, for trec_eval."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Write one JSON object.")] = False,
) -> int:
    """Measure whether reranking helps on your own queries, and how sure that is.

    A DATASET is a BEIR folder (corpus.jsonl, queries.jsonl, qrels/test.tsv), or a JSONL file of
    {"query": …, "documents": […], "relevant": […]}: places from 0, ids, a grade for each, or an
    object of ids and grades. Parts that lie elsewhere are named by --queries, --corpus, --qrels and
    --run. Without candidates BM25 finds them. Beside each model stand the order the data came in,
    BM25, and the best order that the candidates allow.

    \b
    rerank eval beir/scifact                             the default model against BM25
    rerank eval mine.jsonl -m mini@2 -m cohere/rerank-v3.5
    rerank eval nq squad --depth 10,50,100               quality against cost
    rerank eval nq --compare ./fp32 ./int8 --sample 100  do two models agree?
    """
    from rerank_cli.evaluation.datasets import Parts
    from rerank_cli.evaluation.run import EvalOptions

    parts = None
    if queries is not None or corpus is not None:
        if datasets or queries is None or corpus is None or qrels is None:
            raise UsageError(
                "--queries, --corpus and --qrels make up a set of their own",
                hint="all three are needed, and --run if there are candidates; no DATASET",
            )
        parts = Parts(queries.name.partition(".")[0], queries, corpus, qrels, run)
    elif not datasets:
        raise UsageError("eval needs a DATASET", hint="rerank eval --help shows what one is")
    return (
        run_evaluation(
            EvalOptions(
                datasets=[Path(one) for one in datasets or []],
                parts=parts,
                qrels=qrels,
                run=run,
                models=models_of(ctx, model, compare),
                compare=compare,
                depths=depths_of(depth),
                measures=measure or [],
                condensed=condensed,
                sample=sample,
                seed=seed,
                per_query=per_query,
                runs=runs,
                as_json=as_json,
            ),
            options.runtime_options(ctx),
            options.remote_options(ctx),
            Terminal.current(),
        )
        or ExitCode.OK
    )


def models_of(
    ctx: typer.Context, given: list[str] | None, compare: tuple[str, str] | None
) -> list[str]:
    """The models to measure: those given and those compared, else the one that is set."""
    models = [*(given or []), *(compare or ())]
    if not models:
        from rerank_cli.cli.typer_commands import effective
        from rerank_cli.models.catalogue import default

        models = [effective(ctx)["model"][0] or default()]
    return list(dict.fromkeys(models))


def depths_of(text: str) -> list[int]:
    """Read depths, smallest first; raises `UsageError`."""
    try:
        depths = sorted({int(one) for one in text.split(",")})
    except ValueError as error:
        raise UsageError(f"--depth {text}: not a number", hint="as in --depth 10,50,100") from error
    if depths[0] < 1:
        raise UsageError(f"--depth {text}: at least one candidate is needed")
    return depths


_GAP = 2
_COLOURS = {Verdict.HELPED: "green", Verdict.HURT: "red"}


def drawn(
    sets: Sequence[Set],
    means: Sequence[Overall],
    comparison: Comparison | None,
    measures: Sequence[str],
    terminal: Terminal,
) -> Iterator[bytes]:
    """Draw the table as wide as the terminal, and what it comes to below."""
    console = Console(
        file=io.StringIO(),
        width=terminal.width,
        height=25,  # of no account; without it rich takes TERM=dumb to be 80 wide
        force_terminal=terminal.color,
        no_color=not terminal.color,
        color_system="standard" if terminal.color else None,
        legacy_windows=False,
    )
    with console.capture() as captured:
        console.print(_table(sets, means, measures, console.width))
        console.print()
        for sentence in _sentences(sets, means, measures[0]):
            console.print(Text(sentence), soft_wrap=False)
        if comparison:
            console.print()
            for line in _compared(comparison, measures[0]):
                console.print(Text(line), soft_wrap=False)
    for line in captured.get().split("\n")[:-1]:
        yield line.rstrip().encode() + b"\n"


def foretold(jobs: Sequence[Job], seconds: float) -> str:
    """What is to be scored, and how long that takes."""
    pairs = sum(job.task.pairs for job in jobs)
    systems = len({job.system.name for job in jobs})
    sets = len({job.task.name for job in jobs})
    return (
        f"{counted(pairs, 'pair')} of query and document, {counted(systems, 'model')}, "
        f"{counted(sets, 'set')}: about {format_duration(seconds)} from now"
    )


def _table(
    sets: Sequence[Set], means: Sequence[Overall], measures: Sequence[str], width: int
) -> Table:
    """As many of the columns as there is room for: those of least account go first."""
    rows = [line for one in sets for line in _lines(one, measures)]
    rows += _overall_lines(means, len(sets), measures)
    heads = ["set", "system", measures[0], "change", "95 % interval", "", "+ = -"]
    heads += [*measures[1:], "s", "chunks/s", "unjudged"]
    # What there is no room for goes from the end: other measures before what it cost.
    seconds, rate, unjudged = range(len(heads) - 3, len(heads))
    order = [1, 2, 3, 5, 0, 4, seconds, 6, rate, *range(7, seconds), unjudged]
    if len(sets) == 1:
        order.remove(0)
    widths = [
        max(len(heads[place]), *(len(row[place]) for row in rows)) for place in range(len(heads))
    ]
    widths[1] = min(widths[1], max(16, width // 3))
    shown: list[int] = []
    for place in order:
        if sum(widths[one] + _GAP for one in [*shown, place]) - _GAP <= width or len(shown) < 3:
            shown.append(place)
    table = Table(box=None, padding=(0, _GAP, 0, 0), pad_edge=False, header_style="bold")
    for place in sorted(shown):
        left = place in (0, 1, 5)
        table.add_column(
            Text(heads[place]),
            justify="left" if left else "right",
            max_width=widths[place],
            no_wrap=True,
            overflow="ellipsis",
        )
    for row in rows:
        verdict = next((one for one in _COLOURS if one.value == row[5]), None)
        style = _COLOURS[verdict] if verdict else ""
        table.add_row(
            *(Text(row[place], style=style if place in (3, 5) else "") for place in sorted(shown))
        )
    return table


def _lines(one: Set, measures: Sequence[str]) -> Iterator[list[str]]:
    for place, row in enumerate(one.rows):
        yield [
            printable(one.task.name) if place == 0 else "",
            _named(row, one),
            *_figures(row.mean(measures[0]), row.against.get(measures[0])),
            *(f"{row.mean(name):.4f}" for name in measures[1:]),
            *_costs(row.cost),
            f"{row.unjudged:.0%}",
        ]


def _overall_lines(
    means: Sequence[Overall], sets: int, measures: Sequence[str]
) -> Iterator[list[str]]:
    for place, one in enumerate(means):
        yield [
            f"mean of {sets}" if place == 0 else "",
            one.system if one.depth is None else _with_depth(one.system, one.depth, means),
            *_figures(one.means[measures[0]], one.against.get(measures[0])),
            *(f"{one.means[name]:.4f}" for name in measures[1:]),
            "",
            "",
            "",
        ]


def _figures(mean: float, against: Difference | None) -> list[str]:
    if against is None:
        return [f"{mean:.4f}", "", "", "", ""]
    return [
        f"{mean:.4f}",
        f"{against.mean:+.4f}",
        f"{against.low:+.4f} to {against.high:+.4f}",
        against.verdict.value,
        f"{against.wins} {against.ties} {against.losses}",
    ]


def _costs(cost: Cost | None) -> list[str]:
    if cost is None:
        return ["", ""]
    return [f"{cost.seconds:.1f}", f"{cost.chunks / cost.seconds:,.0f}" if cost.seconds else ""]


def _named(row: Row, of: Set) -> str:
    if row.depth is None:
        return row.system
    return _with_depth(row.system, row.depth, of.rows)


def _with_depth(system: str, depth: int, rows: Sequence[Row] | Sequence[Overall]) -> str:
    """A system's name, with the depth where there are several."""
    several = len({row.depth for row in rows if row.depth is not None}) > 1
    return printable(f"{system}, top {depth}" if several else system)


def _sentences(sets: Sequence[Set], means: Sequence[Overall], measure: str) -> Iterator[str]:
    """A verdict for each system: on all sets together, or on the one there is."""
    if means:
        for one in means:
            if one.depth is not None:
                name = _with_depth(one.system, one.depth, means)
                where = f" over each set's first order, in the mean of {len(sets)} sets"
                yield _verdict(name, measure, one.against[measure], where)
        return
    for of in sets:
        for row in of.rows:
            if row.depth is not None:
                yield _verdict(
                    _named(row, of), measure, row.against[measure], f" over {of.rows[0].system}"
                )


def _verdict(name: str, measure: str, one: Difference, over: str) -> str:
    figures = (
        f"{measure} {one.mean:+.4f}{over} (95 % interval {one.low:+.4f} to {one.high:+.4f}, "
        f"p {one.p:.2g}); of {one.wins + one.losses + one.ties:,} queries {one.wins:,} better, "
        f"{one.losses:,} worse."
    )
    if one.verdict is Verdict.SAME:
        return f"{name} changed nothing: every query has the {measure} it had."
    if one.verdict is not Verdict.UNKNOWN:
        return f"{name} {one.verdict.value}: {figures}"
    enough = f" A difference of this size takes about {one.enough:,} queries." if one.enough else ""
    return f"Whether {name} helps cannot be told: {figures}{enough}"


def _compared(one: Comparison, measure: str) -> Iterator[str]:
    yield one.sentence(measure)
    for place, worst in enumerate(one.worst):
        if place == 0:
            yield ""
            yield "Least alike:"
        yield printable(f"  {worst.set}, query: {worst.text}")
        for name, top in ((one.first, worst.first), (one.second, worst.second)):
            yield printable(f"    {name}")
            for rank, text in enumerate(top, 1):
                yield printable(f"      {rank}. {text}")


_DIGITS = re.compile(r"[\d,]+")


def score(jobs: Sequence[Job], terminal: Terminal) -> None:
    """Score everything, once it is known and said how long that takes."""
    resumed = sum(job.resumed for job in jobs)
    if resumed:
        terminal.say(f"going on where this was cut off: {resumed:,} queries were scored before")
    with noted(terminal.stderr, "trying a few queries") if terminal.watched else nullcontext():
        for job in jobs:
            job.pilot()
    left = sum(job.left() for job in jobs)
    if left > 1:
        terminal.say(foretold(jobs, left))
    with _progress(jobs, left, terminal) as show:
        for job in jobs:
            for _ in job.run():
                show()


@contextmanager
def _progress(
    jobs: Sequence[Job], whole: float, terminal: Terminal
) -> Iterator[Callable[[], None]]:
    """A line on a terminal that tells how long it still takes."""
    if not terminal.watched or whole < 1:
        yield lambda: None
        return
    from tqdm import tqdm

    tqdm.monitor_interval = 0  # no thread of its own
    bar = tqdm(
        total=1.0,
        file=terminal.stderr,
        leave=False,
        bar_format="{desc}  {percentage:3.0f}% |{bar:20}|",
    )

    def show() -> None:
        left = sum(job.left() for job in jobs)
        bar.n = max(0.0, min(1.0, 1 - left / whole))
        bar.set_description_str(f"about {format_duration(left)} left")

    with on_ctrl_c(bar.close), bar:
        yield show


def tell(jobs: Sequence[Job], terminal: Terminal) -> None:
    """Say what scoring had to say, each thing once for a model, however many queries it was of."""
    for name in dict.fromkeys(job.system.name for job in jobs):
        entries = [
            entry for job in jobs if job.system.name == name for entry in job.entries.values()
        ]
        alike: dict[str, list[str]] = {}
        for note in (note for entry in entries for note in entry.notes):
            alike.setdefault(_DIGITS.sub("0", note), []).append(note)
        for notes in alike.values():
            more = f" (and {len(notes) - 1:,} like it)" if len(notes) > 1 else ""
            terminal.warn(f"{name}: {notes[0]}{more}")
        if missing := sum(entry.missing for entry in entries):
            terminal.warn(f"{name} gave no score for {missing:,} documents: they come last")
        if cut := sum(entry.truncated for entry in entries):
            terminal.warn(
                f"{name}: {cut:,} documents or queries were not scored whole",
                hint="more chunks: -m 'MODEL --max-chunks N'",
            )


_BM25 = "bm25"


def run_evaluation(
    wanted: EvalOptions, runtime: RuntimeOptions, remote: RemoteOptions, terminal: Terminal
) -> ExitCode:
    """Do all of it, and write the results."""
    measures = parsed(wanted.measures or DEFAULT)
    # A query is cut, and a document has as many chunks everywhere as one that `rank` is given.
    chunks = ChunkOptions(max_chunks=DEFAULT_MAX_CHUNKS, truncate_query=True)
    systems = [read_system(text, runtime, chunks) for text in wanted.models]
    if remote.base_url and not any(system.is_remote for system in systems):
        raise UsageError("--base-url is for a provider's model, and none is measured")
    rerankers = {system: open_system(system, remote) for system in systems}
    compare_windows(wanted, rerankers, terminal)
    tasks = [
        task_of(collection, wanted.depths[-1], wanted.sample, wanted.seed)
        for collection in read_collections(wanted)
    ]
    for task in tasks:
        for note in task.notes:
            terminal.warn(f"{task.name}: {note}")
    works = {
        task.name: [
            Work(task, system, reranker, wanted.depths, stamp_of(system, remote))
            for system, reranker in rerankers.items()
        ]
        for task in tasks
    }
    jobs = [job for group in works.values() for work in group for job in work.jobs.values()]
    score(jobs, terminal)
    sets = [_measure(task, works[task.name], measures, wanted) for task in tasks]
    _write(sets, wanted, terminal, list(measures))
    tell(jobs, terminal)
    for job in jobs:
        job.close()
    for reranker in rerankers.values():
        reranker.close()
    return ExitCode.OK


def _measure(
    task: Task, works: Sequence[Work], measures: Mapping[str, Any], wanted: EvalOptions
) -> Set:
    """The rows of one task: the first order, BM25, each system at each depth, the best order."""
    rows = Rows(task, measures, wanted.seed, condensed=wanted.condensed)
    table = [rows.first]
    if _BM25 not in (task.first, *wanted.models):
        table.append(rows.baseline(_BM25, score_by_words(task)))
    table += [rows.of(work.job(depth), depth) for work in works for depth in wanted.depths]
    return Set(task, [*table, rows.oracle()])


def _write(
    sets: Sequence[Set], wanted: EvalOptions, terminal: Terminal, measures: Sequence[str]
) -> None:
    """Write runs, figures per query, and the table or JSON."""
    means = overall(sets, wanted.seed)
    comparison = None
    if wanted.compare is not None:
        first, second = wanted.compare
        names = first.strip(), second.strip()
        comparison = compare_systems(names, wanted.depths[-1], sets, measures[0], wanted.seed)
    if wanted.runs:
        write_runs(wanted.runs, sets)
    if wanted.per_query:
        write_per_query(wanted.per_query, sets)
    with suppress(PipeClosed):  # whoever reads has enough
        if wanted.as_json:
            terminal.write([format_json(as_json(sets, means, comparison, wanted.seed))])
        else:
            terminal.write(drawn(sets, means, comparison, measures, terminal))
