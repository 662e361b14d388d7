"""What a scorer needs of whatever runs its model, and how that is opened."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol

from rerank_cli import machine
from rerank_cli.errors import ModelError, UsageError
from rerank_cli.runtimes import Device, Runtime, RuntimeOptions
from rerank_cli.types import Scale

if TYPE_CHECKING:
    from rerank_cli.models.folder import ModelFolder
    from rerank_cli.runtimes.prepared_cache import PreparedCache
    from rerank_cli.runtimes.tensors import AnswerTokens

# Batches that each worker has of a job, at least, so that none is idle while the last one runs.
_BATCHES_PER_WORKER = 4


@dataclass(frozen=True, slots=True)
class Batching:
    """How many tokens and pairs a run may hold; where it is `padded`, some are filled up."""

    tokens: int = 0
    pairs: int = 1
    padded: bool = False


NO_BATCHING = Batching()  # one pair a run
# Pairs of one length. Matrices are high enough by then: more gains nothing.
EQUAL_LENGTHS = Batching(512, pairs=16)


def make_batches(lengths: Sequence[int], batching: Batching, workers: int) -> list[list[int]]:
    """Put pairs into batches, longest first, by their places; `lengths` are in tokens."""
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


_FINDINGS_FILE = "findings.json"


class Findings(NamedTuple):
    """What was found of a graph when its prepared copy was made, and is kept beside that.

    The `scale` of its scores, and whether pairs of one length score in one run as they do alone.
    """

    scale: Scale
    are_batches_alike: bool

    def write(self, folder: Path) -> None:
        (folder / _FINDINGS_FILE).write_text(json.dumps(self._asdict()), encoding="utf-8")

    @classmethod
    def read(cls, folder: Path) -> "Findings":
        """Read what `write` wrote; raises `ModelError` where that is not there."""
        try:
            return cls(**json.loads((folder / _FINDINGS_FILE).read_bytes()))
        except (OSError, ValueError, TypeError) as error:
            raise ModelError(f"{folder / _FINDINGS_FILE}: cannot be read") from error

    @property
    def batching(self) -> Batching:
        return EQUAL_LENGTHS if self.are_batches_alike else NO_BATCHING


# The token ids of one pair and its token types, of one length.
TokenRow = tuple[Sequence[int], Sequence[int]]


class Network(Protocol):
    """A loaded model; safe to run from several threads at once."""

    @property
    def path(self) -> Path:
        """The model's own file."""

    @property
    def prepared_path(self) -> Path | None:
        """The copy that was made of it for this machine, if that is what was loaded."""

    @property
    def batching(self) -> Batching:
        """Which pairs may share a run."""

    @property
    def workers(self) -> int:
        """How many runs it is worth making at once."""

    @property
    def runtime_name(self) -> str:
        """The runtime and what it runs on, in words."""

    @property
    def notes(self) -> Sequence[str]:
        """Sentences that every user should read."""

    @property
    def scale(self) -> Scale:
        """The scale of the scores."""

    def scores(self, rows: Sequence[TokenRow]) -> list[float]:
        """Score pairs in one run. Raises `ScorerError`.

        Of two classes, the score is the second's probability or, on any other scale, the second's
        value less the first's.
        """

    def open_wide(self) -> "Network | None":
        """The same model, each of whose runs has all cores; None where there is none."""


def open_network(
    folder: "ModelFolder",
    engine: RuntimeOptions,
    store: "PreparedCache | None",
    answers: "AnswerTokens | None" = None,
) -> Network:
    """Open a graph. Raises `ModelError`, `MissingExtra` and, for a GPU not there, `UsageError`."""
    # Only opening a model imports what runs it.
    from rerank_cli.runtimes.onnxruntime_graph import open_graph, supports_gpu

    threads = engine.threads or machine.core_count()
    if engine.runtime is Runtime.OPENVINO:
        if engine.device is Device.CUDA:
            raise UsageError("--runtime openvino runs on the CPU, and not on --device cuda")

        from rerank_cli.models.onnx_file import is_dynamic

        if is_dynamic(folder.graph) or answers is not None:
            graph = open_graph(folder, store, threads, answers)
            why = "is causal" if answers else "is quantised for onnxruntime"
            graph.notes = [f"{folder.graph}: {why}, and onnxruntime runs it"]
            return graph

        from rerank_cli.runtimes.openvino_graph import open_openvino

        return open_openvino(folder, threads, store)
    if engine.device is Device.CUDA or (engine.device is Device.AUTO and supports_gpu()):
        from rerank_cli.runtimes.onnxruntime_graph import open_on_gpu

        on_gpu = open_on_gpu(folder, required=engine.device is Device.CUDA, answers=answers)
        if on_gpu is not None:
            return on_gpu
    return open_graph(folder, store, threads, answers)
