"""What a command line of `rerank batch` asks for."""

from dataclasses import dataclass
from pathlib import Path

from rerank_cli.atomic_files import OutputFile
from rerank_cli.batch.outputs import ResultsShape
from rerank_cli.batch.records import RecordFields
from rerank_cli.providers.options import RemoteOptions
from rerank_cli.ranking import ChunkOptions, Selection
from rerank_cli.ranking.reranker import Reranker
from rerank_cli.runtimes import RuntimeOptions


@dataclass(frozen=True, slots=True)
class RunFiles:
    """A TREC run to be reranked, and where its queries and documents are."""

    run: Path
    queries: Path
    corpus: Path


@dataclass(frozen=True, slots=True)
class BatchOptions:
    """What a command line asks for.

    With `--engine ray` the path of `output` may be a URI. `window_bytes` of records are held at
    once, and a record has `max_record_bytes` at most.
    """

    input: str
    output: OutputFile
    run_files: RunFiles | None
    fields: RecordFields
    selection: Selection
    chunks: ChunkOptions
    results: ResultsShape
    window_bytes: int
    max_record_bytes: int
    errors: OutputFile | None
    report: OutputFile | None
    model: str | None
    instruction: str | None
    runtime: RuntimeOptions
    remote: RemoteOptions
    resume: bool = False
    fail_fast: bool = False
    strict: bool = False
    verbose: bool = False

    @property
    def output_path(self) -> Path | None:
        """The file or folder that a job can go on in; None where a stream is written."""
        return None if self.output.is_stream else Path(self.output.path)

    def open_reranker(self) -> Reranker:
        """Open the model; raises the errors of `open_scorer`."""
        return Reranker(
            self.model,
            instruction=self.instruction,
            runtime=self.runtime,
            chunks=self.chunks,
            remote=self.remote,
        )
