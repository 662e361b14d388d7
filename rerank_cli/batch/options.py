"""The options of `rerank batch`, as its parts get them."""

from dataclasses import dataclass
from pathlib import Path

from rerank_cli.batch.outputs import ResultsShape
from rerank_cli.batch.records import RecordFields
from rerank_cli.output_files import OutputFile
from rerank_cli.providers import RemoteOptions
from rerank_cli.ranking import CacheOptions, ChunkOptions, Selection
from rerank_cli.ranking.reranker import Reranker
from rerank_cli.runtimes import RuntimeOptions


@dataclass(frozen=True, slots=True)
class RunFiles:
    """A TREC run to rerank, its queries and its documents."""

    run: Path
    queries: Path
    corpus: Path


@dataclass(frozen=True, slots=True)
class BatchOptions:
    """The options of a batch.

    input             a path, or `-` for standard input; with `--engine ray` it may be a URI
    output            for the results; with `--engine ray` its path may be a URI
    run_files         a TREC run, in place of `input`
    results           how much of each result is written
    drop_documents    whether records come out without their documents
    window_bytes      how much of the input is in memory at once
    max_record_bytes  the size of the largest record that is read
    errors            for error records; None to write them into the output
    report            for the counts and times of the job
    cache             how scores are kept on disk; None if they are not
    resume            whether to go on with a job
    retry_errors      whether to do its records again that failed for a reason that may pass
    fail_fast         whether the first record that fails ends the job; None if only the first ones
                      do that fail all in the same way
    """

    input: str
    output: OutputFile
    run_files: RunFiles | None
    fields: RecordFields
    selection: Selection
    chunks: ChunkOptions
    results: ResultsShape
    drop_documents: bool
    window_bytes: int
    max_record_bytes: int
    errors: OutputFile | None
    report: OutputFile | None
    model: str | None
    instruction: str | None
    runtime: RuntimeOptions
    remote: RemoteOptions
    cache: CacheOptions | None = None
    resume: bool = False
    retry_errors: bool = False
    fail_fast: bool | None = None
    strict: bool = False
    verbose: bool = False

    @property
    def dropped_field(self) -> str:
        """The name of the field that records come out without; empty for none."""
        return self.fields.documents if self.drop_documents else ""

    @property
    def output_path(self) -> Path | None:
        """The file or folder of the output, in which a job can go on; None for a stream."""
        return None if self.output.is_stream else Path(self.output.path)

    @property
    def errors_path(self) -> Path | None:
        """The file of error records, in which a job can go on; None for a stream, or for none."""
        errors = self.errors
        return None if errors is None or errors.is_stream else Path(errors.path)

    def open_reranker(self) -> Reranker:
        """Open the model; raises the errors of `open_scorer`."""
        return Reranker(
            self.model,
            instruction=self.instruction,
            runtime=self.runtime,
            chunks=self.chunks,
            remote=self.remote,
            cache=self.cache or False,
        )
