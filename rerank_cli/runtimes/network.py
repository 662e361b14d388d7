"""`Network`, a model that is loaded to run, and `open_network`; also how pairs share runs."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol, get_args

from rerank_cli import machine
from rerank_cli.errors import ModelError, UsageError
from rerank_cli.runtimes import Device, Runtime, RuntimeOptions
from rerank_cli.types import Scale
from rerank_cli.user_files import parse_json_object, read_regular_file

if TYPE_CHECKING:
    from rerank_cli.models.folder import ModelFolder
    from rerank_cli.runtimes.prepared_cache import PreparedCache
    from rerank_cli.runtimes.tensors import AnswerTokens

# The least number of batches of a job for each worker, so that none is idle for long at the end.
_BATCHES_PER_WORKER = 4
_FINDINGS_FILE = "findings.json"
# The token ids of a pair and its token types, which have the same length.
TokenRow = tuple[Sequence[int], Sequence[int]]


@dataclass(frozen=True, slots=True)
class Batching:
    """The most tokens and pairs of a run; `padded` allows pairs of different lengths in one."""

    tokens: int = 0
    pairs: int = 1
    padded: bool = False


NO_BATCHING = Batching()  # one pair a run
EQUAL_LENGTHS = Batching(512, pairs=16)  # larger matrices are not faster


class Network(Protocol):
    """A loaded model; safe to run from several threads at once."""

    @property
    def path(self) -> Path:
        """The model's own file."""

    @property
    def prepared_path(self) -> Path | None:
        """The copy prepared for this machine, if that was loaded."""

    @property
    def batching(self) -> Batching:
        """Which pairs may share a run."""

    @property
    def workers(self) -> int:
        """How many runs to make at once for the best speed."""

    @property
    def runtime_name(self) -> str:
        """The runtime and its device in words, as in "onnxruntime on the CPU"."""

    @property
    def notes(self) -> Sequence[str]:
        """Sentences that every user should read."""

    @property
    def scale(self) -> Scale:
        """The scale of the scores."""

    def scores(self, rows: Sequence[TokenRow]) -> list[float]:
        """Score pairs in one run; raises `ScorerError`.

        For a model of two classes, the score is the second's probability or, on any other scale,
        the second's value minus the first's.
        """

    def open_wide(self) -> "Network | None":
        """Open the same model with all cores for each run; None if that is not possible."""


def open_network(
    folder: "ModelFolder",
    runtime: RuntimeOptions,
    store: "PreparedCache | None",
    answers: "AnswerTokens | None" = None,
) -> Network:
    """Open a model's graph, with `store` for a prepared copy; a causal model needs `answers`.

    Raises `ModelError`, `MissingExtra`, and `UsageError` if a required GPU is not there.
    """
    # The runtimes are imported only when a model is opened.
    from rerank_cli.runtimes.onnxruntime_graph import open_graph, supports_gpu

    threads = runtime.threads or machine.core_count()
    if runtime.runtime == Runtime.OPENVINO:
        if runtime.device == Device.CUDA:
            raise UsageError("--runtime openvino runs on the CPU, and not on --device cuda")

        from rerank_cli.models.onnx_file import is_dynamic

        if is_dynamic(folder.graph) or answers is not None:
            graph = open_graph(folder, store, threads, answers)
            why = "is causal" if answers else "is quantised for onnxruntime"
            graph.notes = [f"{folder.graph}: {why}, and onnxruntime runs it"]
            return graph

        from rerank_cli.runtimes.openvino_graph import open_openvino

        return open_openvino(folder, threads, store)
    if runtime.device == Device.CUDA or (runtime.device == Device.AUTO and supports_gpu()):
        from rerank_cli.runtimes.onnxruntime_graph import open_on_gpu

        on_gpu = open_on_gpu(folder, required=runtime.device == Device.CUDA, answers=answers)
        if on_gpu is not None:
            return on_gpu
    return open_graph(folder, store, threads, answers)


def make_batches(lengths: Sequence[int], batching: Batching, workers: int) -> list[list[int]]:
    """Divide pairs of some `lengths`, in tokens, into batches of their places, longest first."""
    room = batching.tokens
    if workers > 1:
        room = min(room, sum(lengths) // (workers * _BATCHES_PER_WORKER))
    batches: list[list[int]] = []
    for place in sorted(range(len(lengths)), key=lambda place: -lengths[place]):
        if batches:
            longest = lengths[batches[-1][0]]
            alike = batching.padded or longest == lengths[place]
            count = len(batches[-1]) + 1
            if alike and count <= batching.pairs and longest * count <= room:
                batches[-1].append(place)
                continue
        batches.append([place])
    return batches


class Findings(NamedTuple):
    """What was found out about a graph when its prepared copy was made; stored beside the copy.

    `scale` is that of its scores. `are_batches_alike` says whether pairs of one length score the
    same in one run as alone.
    """

    scale: Scale
    are_batches_alike: bool

    def write(self, folder: Path) -> None:
        (folder / _FINDINGS_FILE).write_text(json.dumps(self._asdict()), encoding="utf-8")

    @classmethod
    def read(cls, folder: Path) -> "Findings":
        """Read what `write` wrote; raises `ModelError` if it is missing or damaged."""
        path = folder / _FINDINGS_FILE
        try:
            findings = cls(**parse_json_object(read_regular_file(path)))
        except (OSError, ValueError, TypeError) as error:
            raise ModelError(f"{path}: cannot be read") from error
        if findings.scale not in get_args(Scale) or not isinstance(
            findings.are_batches_alike, bool
        ):
            raise ModelError(f"{path}: is not what was written there")
        return findings

    @property
    def batching(self) -> Batching:
        """Which pairs may share a run."""
        return EQUAL_LENGTHS if self.are_batches_alike else NO_BATCHING
