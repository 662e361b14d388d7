"""The options of `rerank batch`, as its parts get them, and those that an output depends on."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from rerank_cli.batch import ResultsShape
from rerank_cli.batch.records import RecordFields
from rerank_cli.models.folder import ModelFolder
from rerank_cli.output_files import OutputFile
from rerank_cli.providers import RemoteOptions
from rerank_cli.providers.keys import hide_secrets, public_base_url
from rerank_cli.ranking import DEFAULT_MAX_CHUNKS, CacheOptions, ChunkOptions, Selection
from rerank_cli.ranking.budget import Budget
from rerank_cli.ranking.calibration import least_score
from rerank_cli.ranking.cascade import Cascade, Ranker, rerankers_of, set_scorers
from rerank_cli.ranking.powers import instruct_some
from rerank_cli.ranking.reranker import Reranker
from rerank_cli.runtimes import Device, Runtime, RuntimeOptions
from rerank_cli.scorers import (
    clean_instruction,
    find_local_folder,
    remote_fingerprint,
    share_remote_options,
    split_models,
)
from rerank_cli.scorers.calibrations import read_calibrations, set_calibration
from rerank_cli.types import ScoreCalibration


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
    model             the model, or several in a row with commas between them; None for the default
    keep              how many results each model but the first reads; empty for one model
    cache             how scores are kept on disk; None if they are not
    resume            whether to continue a job
    retry_errors      whether to do its records again that failed for a reason that may pass
    fail_fast         whether the first record that fails ends the job; if None, the job ends only
                      if its first records all fail in the same way
    budget            what this run may take; None for no limit
    limits            the options that set the limits of the budget, by the reason for which they
                      end it
    calibrations      the models' calibrations, if another machine has looked them up; else None
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
    keep: Sequence[int] = ()
    budget: Budget | None = None
    limits: Mapping[str, str] = field(default_factory=dict)
    calibrations: Sequence[ScoreCalibration | None] | None = None

    @property
    def models(self) -> list[str | None]:
        """The names of the models in the order in which they read; None for the default."""
        return [*split_models(self.model)] or [None]

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

    def find_folders(self) -> list[ModelFolder | None]:
        """The folders of local models; raises the errors of `find_local_folder`."""
        return [*map(find_local_folder, self.models)]

    def open_ranker(self) -> Ranker:
        """Open the model or the models; raises the errors of `open_scorer`."""
        models, instruction = self.models, clean_instruction(self.instruction)
        rerankers = [
            Reranker(
                model,
                instruction=None if len(models) > 1 else instruction,
                runtime=self.runtime,
                chunks=self.chunks,
                remote=remote,
                cache=self.cache or False,
            )
            for model, remote in zip(models, share_remote_options(models, self.remote), strict=True)
        ]
        for reranker, calibration in zip(rerankers, self.calibrations or (), strict=False):
            set_calibration(reranker.scorer, calibration)
        if len(models) == 1:
            return rerankers[0]
        cascade = Cascade(rerankers, self.keep)
        if instruction is not None:
            set_scorers(cascade, instruct_some(cascade.scorers, instruction))
        return cascade

    def with_calibrations(self) -> "BatchOptions":
        """The options with the calibrations of this machine, for others that run the job.

        Raises `UsageError` if `min_score` is "auto" and there is no calibration, and for options
        that the model does not have.
        """
        needs_model = (
            isinstance(self.selection.min_score, str)
            or self.instruction is not None
            or self.remote.provider_only_flags
            or read_calibrations()
        )
        if not needs_model:
            return replace(self, calibrations=[None] * len(self.models))
        runtime = self.runtime
        if runtime.runtime != Runtime.OPENVINO:  # the others may have a GPU that is not here
            runtime = replace(runtime, device=Device.CPU)
        with replace(self, runtime=runtime).open_ranker() as ranker:
            infos = [reranker.info for reranker in rerankers_of(ranker)]
        least_score(self.selection, infos[-1])
        return replace(self, calibrations=[info.calibration for info in infos])


def options_identity(
    options: BatchOptions, folders: Sequence[ModelFolder | None]
) -> dict[str, Any]:
    """The options on which the output depends; `folders` are those of local models."""
    remote, chunks, fields = options.remote, options.chunks, asdict(options.fields)
    models: list[dict[str, Any]] = [
        {
            "name": name if folder is None else folder.name,
            "files": {} if folder is None else folder.digests(),
            "entry": remote_fingerprint(name, remote),
        }
        for name, folder in zip(options.models, folders, strict=True)
    ]
    # Those of other revisions too: which of them fits is known only once the model is open.
    calibrations = [
        {**asdict(own), "points": [[*point] for point in own.points]}
        for own in read_calibrations().values()
        if own.model.partition("@")[0] in {each["name"] for each in models}
    ]
    model = models[0]
    if len(models) > 1:
        model = {"name": options.model, "files": {}, "entry": "", "cascade": models}
    instruction = clean_instruction(options.instruction)
    return {
        "model": {
            **model,
            "runtime": options.runtime.runtime,
            "device": options.runtime.device,
            "base_url": public_base_url(remote.base_url),
            **({"calibration": calibrations} if calibrations else {}),
        },
        "options": {
            **{name: value for name, value in fields.items() if name != "media_root" or value},
            **asdict(options.selection),
            **asdict(chunks),
            "max_chunks": chunks.max_chunks or DEFAULT_MAX_CHUNKS,
            "results": options.results,
            **({"keep": [*options.keep]} if options.keep else {}),
            **({"drop_documents": True} if options.drop_documents else {}),
            "max_record": options.max_record_bytes,
            "errors": options.errors is not None,
            "runs": options.run_files is not None,
            "asked": [
                {
                    **({"instruction": instruction} if instruction else {}),
                    **hide_secrets(remote.request_options),
                },
                hide_secrets(remote.fields),
            ],
            "chunk": [remote.chunk, remote.sigmoid, remote.tokenizer],
        },
    }
