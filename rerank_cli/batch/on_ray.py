"""Runs a batch on Ray Data: shards in, a part for each out, by a pool of actors.

Each actor opens the scorer once; prepared weights are mapped from the node's own cache, which all
of its actors share. What a record becomes is `flow`'s and `written`'s doing, as on one machine.
"""

import json
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from rerank_cli.batch.figures import Figures
from rerank_cli.batch.flow import Bounds, Flow, Sizes
from rerank_cli.batch.items import PARQUET_SUFFIX
from rerank_cli.batch.parquet import Columns
from rerank_cli.batch.reading import Fields
from rerank_cli.batch.shards import Place, Shard, check_extra, items_of, schema_of
from rerank_cli.batch.written import Shape, line_of
from rerank_cli.errors import ScorerError
from rerank_cli.providers import Remote
from rerank_cli.ranking.results import Selection
from rerank_cli.runtimes import Engine
from rerank_cli.scorers import open_scorer

_SETTINGS = {  # where nothing else is said
    "RAY_USAGE_STATS_ENABLED": "0",  # which reports to Ray's makers
    "RAY_BACKEND_LOG_LEVEL": "fatal",
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
}


@dataclass(frozen=True, slots=True)
class Work:
    """What every actor needs to know: how records are read, scored and written, and where to."""

    output: str
    model: str | None
    engine: Engine
    remote: Remote
    fields: Fields
    selection: Selection
    sizes: Sizes
    shape: Shape
    window: int
    most: int


class Part(NamedTuple):
    """A shard that is done: the name of its part, and its figures."""

    shard: int
    name: str
    figures: Mapping[str, Any]


class ScoringActor:
    """A process with the model open, that scores one shard after another."""

    def __init__(self, work: Work) -> None:
        self._work = work
        engine = replace(work.engine, threads=work.engine.threads or 1)
        self._scorer = open_scorer(work.model, engine=engine, remote=work.remote)

    def __call__(self, rows: Mapping[str, Sequence[Any]]) -> dict[str, list[Any]]:
        """Score the shards of a block, each a row of its fields."""
        done = [
            self._part(Shard(int(number), str(uri), int(start), int(end)))
            for number, uri, start, end in zip(
                rows["number"], rows["uri"], rows["start"], rows["end"], strict=True
            )
        ]
        return {
            "shard": [one.shard for one in done],
            "name": [one.name for one in done],
            "figures": [json.dumps(one.figures) for one in done],
        }

    def _part(self, shard: Shard) -> Part:
        work = self._work
        flow = Flow(self._scorer, work.selection, work.sizes, Bounds(work.window))
        figures = Figures()
        columns = (
            Columns(schema_of(shard), work.shape, work.fields.pairs) if shard.is_rows else None
        )
        name = f"part-{shard.number:06}{PARQUET_SUFFIX if columns else '.jsonl'}"
        rows: list[dict[str, Any]] = []
        with written(f"{work.output}/{name}") as stream:
            items = items_of(shard, work.fields, self._scorer.info, work.most)
            for outcome in flow.through(items):
                figures.see(outcome)
                if columns:
                    rows.append(columns.row_of(outcome))
                else:
                    stream.write(line_of(outcome, work.shape, pairs=work.fields.pairs))
            if columns:
                columns.write(rows, stream)
        return Part(shard.number, name, figures.kept())


def run(work: Work, shards: Sequence[Shard], address: str | None) -> Iterator[Part]:
    """Score shards on a cluster, or on this machine without an address, and give them as they end.

    An actor has as many cores as the engine has threads, by default one; a shard whose actor dies
    is begun anew. Raises `ScorerError` where ray cannot be reached, or a shard fails for good.
    """
    for name, value in _SETTINGS.items():
        os.environ.setdefault(name, value)
    check_extra()

    import ray
    from ray.data import ActorPoolStrategy

    logging.getLogger("ray.data").setLevel(logging.ERROR)
    ours = not ray.is_initialized()
    try:
        if ours:
            ray.init(address=address, log_to_driver=False, logging_level="ERROR")
        ray.data.DataContext.get_current().enable_progress_bars = False
        threads = work.engine.threads or 1
        most = max(1, int(ray.cluster_resources().get("CPU", 1)) // threads)
        rows = [one._asdict() for one in shards]
        found = ray.data.from_items(rows, override_num_blocks=len(rows)).map_batches(
            ScoringActor,
            fn_constructor_args=(work,),
            batch_size=1,
            batch_format="numpy",
            compute=ActorPoolStrategy(min_size=1, max_size=min(most, len(rows))),
            num_cpus=threads,
        )
        for row in found.iter_rows():
            yield Part(int(row["shard"]), str(row["name"]), json.loads(row["figures"]))
    except (ray.exceptions.RayError, ConnectionError) as error:
        cause = getattr(error, "cause", None) or error
        raise ScorerError(
            f"ray: {str(cause).strip().splitlines()[-1]}",
            hint="what was done is kept: --resume goes on",
        ) from error
    finally:
        if ours and ray.is_initialized():
            ray.shutdown()


@contextmanager
def written(uri: str) -> Iterator[Any]:
    """A file that is there when the block has ended without an error, and else is not."""
    place = Place.of(uri)
    making = f"{place.path}.{os.getpid()}.making"
    try:
        with place.system.open_output_stream(making) as stream:
            yield stream
        place.system.move(making, place.path)
    except BaseException:
        with suppress(OSError):
            place.system.delete_file(making)
        raise
