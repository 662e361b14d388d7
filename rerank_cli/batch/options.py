"""What a command line of `rerank batch` asks for."""

from dataclasses import dataclass
from pathlib import Path

from rerank_cli.batch.flow import Sizes
from rerank_cli.batch.outputs import Shape
from rerank_cli.batch.records import Fields
from rerank_cli.providers import Remote
from rerank_cli.ranking.results import Selection
from rerank_cli.runtimes import Engine


@dataclass(frozen=True, slots=True)
class Runs:
    """A run to be reranked, and where its queries and documents are."""

    run: Path
    queries: Path
    corpus: Path


@dataclass(frozen=True, slots=True)
class BatchOptions:
    """What a command line asks for; an `output` of None is stdout, `output_uri` is as it came."""

    input: str
    output: Path | None
    runs: Runs | None
    fields: Fields
    selection: Selection
    sizes: Sizes
    shape: Shape
    window: int
    most: int
    errors: Path | None
    report: Path | None
    model: str | None
    engine: Engine
    remote: Remote
    output_uri: str = ""
    resume: bool = False
    fail_fast: bool = False
    strict: bool = False
    verbose: bool = False
