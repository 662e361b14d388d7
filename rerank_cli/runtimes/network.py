"""`Network`, a model that is loaded to run, and `open_network`; also how pairs share runs.

A model that is not known yet is opened in a child process first, by a `Trial`: opening it may never
end, take all memory, or crash. A model with a prepared copy is known.
"""

import faulthandler
import json
import os
import pickle
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple, Protocol, cast, get_args

from rerank_cli import machine
from rerank_cli.errors import ModelError, OutOfMemory, ScorerError, UsageError
from rerank_cli.runtimes import Device, Runtime, RuntimeOptions
from rerank_cli.runtimes.prepared_cache import PreparationError
from rerank_cli.terminal import format_size
from rerank_cli.types import Scale
from rerank_cli.user_files import parse_json_object, read_regular_file

if TYPE_CHECKING:
    import numpy as np

    from rerank_cli.models.folder import ModelFolder
    from rerank_cli.runtimes.prepared_cache import PreparedCache
    from rerank_cli.runtimes.state_memory import PassageMemory
    from rerank_cli.runtimes.tensors import AnswerTokens

# The least number of batches of a job for each worker, so that none is idle for long at the end.
_BATCHES_PER_WORKER = 4
_FINDINGS_FILE = "findings.json"
_OUT_OF_MEMORY = re.compile(r"bad_?alloc|failed to allocate|memory allocation of", re.IGNORECASE)
# A cold or slow disk takes long, in proportion to the bytes that are read.
_OPENING_SECONDS, _BYTES_A_SECOND = 30.0, 10_000_000
_MEMORY_BYTES = 2 << 30
_CHILD_CODE = (
    "import pickle, sys; sys.path[:] = pickle.load(sys.stdin.buffer); "
    "from rerank_cli.runtimes.network import serve; serve(sys.stdin.buffer)"
)
_MARK = b"\x1e"  # before an outcome; JSON has no such character
_MAX_LINE_BYTES, _MAX_MESSAGE_CHARACTERS = 100_000, 2_000
_READY, _OK, _NO_MEMORY = "ready", "ok", "no memory"
_TIMEOUT = re.compile(rb"Timeout \((.*?)\)")  # as faulthandler begins
_ERRORS = {kind.__name__: kind for kind in (ModelError, ScorerError)}

_is_child = False  # whether this process is one of a trial
# The token ids of a pair and its token types, which have the same length; for a model in parts, the
# token ids of the query and those of the passage.
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

    @property
    def tokens(self) -> int | None:
        """The number of tokens of all its pairs, if they are filled up to one; else None."""

    @property
    def passages(self) -> "PassageMemory | None":
        """The memory of passages; None for a model that reads none alone."""

    def scores(self, rows: Sequence[TokenRow]) -> list[float]:
        """Score pairs in one run; raises `ScorerError`.

        For a model of two classes, the score is the second's probability or, on any other scale,
        the second's value minus the first's.
        """

    @property
    def encode(self) -> "Callable[[Sequence[int]], np.ndarray] | None":
        """A function that makes the vector of a text alone; None for a model that makes none."""

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
    if runtime.runtime == Runtime.OPENVINO and runtime.device == Device.CUDA:
        raise UsageError("--runtime openvino runs on the CPU, and not on --device cuda")
    threads = runtime.threads or machine.core_count()
    # The runtimes are imported only when a model is opened.
    if folder.encoder is not None:
        from rerank_cli.runtimes.parted_graph import open_parts

        return open_parts(folder, runtime, store, threads)

    from rerank_cli.runtimes.onnxruntime_graph import open_graph, supports_gpu

    if runtime.runtime == Runtime.OPENVINO:
        if folder.is_dynamic() or answers is not None:
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


def is_out_of_memory(message: str) -> bool:
    """Whether a message of a library says that there is too little memory."""
    return bool(_OUT_OF_MEMORY.search(message))


class Findings(NamedTuple):
    """The facts about a graph from the making of its prepared copy; stored beside the copy.

    `scale` is the scale of its scores, and `output` the output that has them. `are_batches_alike`
    says whether pairs of one length score the same in one run as alone.
    """

    scale: Scale
    are_batches_alike: bool
    output: str

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
        kinds = isinstance(findings.are_batches_alike, bool), isinstance(findings.output, str)
        if findings.scale not in get_args(Scale) or not all(kinds):
            raise ModelError(f"{path}: is not what was written there")
        return findings

    @property
    def batching(self) -> Batching:
        """Which pairs may share a run."""
        return EQUAL_LENGTHS if self.are_batches_alike else NO_BATCHING


Task = Callable[..., None]
TrialOutcome = tuple[str, str, str | None]  # its kind, a message, and a hint


class TrialLimits(NamedTuple):
    """The limits of a trial: the time until it is allowed more, and the memory."""

    seconds: float
    memory_bytes: int


class Trial:
    """The first use of a model's file, in a child process.

    A file that is damaged, or made to do harm, can keep a library busy for ever, fill the memory,
    or end the process. The child has a deadline and, on Linux, a limit of memory. It ends if its
    stdin does, because the parent is dead then.

    `size` finds the size of all files that are read, and `memory_factor` is how many times that
    size the trial may need in memory. A model that `is_trusted` is used in this process.
    """

    def __init__(
        self, path: Path, size: Callable[[], int], memory_factor: int, *, is_trusted: bool
    ) -> None:
        self.is_over = False
        self._path = path
        self._size = size
        self._memory_factor = memory_factor
        self._is_trusted = is_trusted

    def run(self, task: Task, *arguments: Any) -> None:
        """Run a module's function with the path and more arguments.

        Raises the `ModelError`, `ScorerError` or `PreparationError` that the function raises, and
        `ModelError` if it fails in another way or takes more than it may. If Python cannot start
        another Python, the function runs in this process.
        """
        if self._is_trusted:
            task(self._path, *arguments)
        else:
            size_bytes = self._size()
            limits = TrialLimits(
                _OPENING_SECONDS + size_bytes / _BYTES_A_SECOND,
                _MEMORY_BYTES + self._memory_factor * size_bytes,
            )
            outcome = _run_child(limits, task, (self._path, *arguments))
            if outcome is None:
                task(self._path, *arguments)
            else:
                self._judge(outcome, limits)
        self.is_over = True

    def _judge(self, outcome: TrialOutcome, limits: TrialLimits) -> None:
        """Raise the error that a child process reported, if it reported one."""
        kind, message, hint = outcome
        if kind == _OK:
            return
        if kind == PreparationError.__name__:
            self.is_over = True  # the file can be used all the same
            raise PreparationError(message)
        if kind in _ERRORS:
            raise _ERRORS[kind](message, hint=hint)
        if kind == _NO_MEMORY and _has_less_memory(limits.memory_bytes):
            raise OutOfMemory
        if kind == _NO_MEMORY:
            message = f"takes more than {format_size(limits.memory_bytes)} of memory to open"
        raise ModelError(
            f"{self._path}: {message}",
            hint="it is damaged or not to be trusted: fetch it again from its source",
        )


def allow_more(seconds: float) -> None:
    """Set a new deadline for the task that is running, if it runs in a child process."""
    if _is_child:
        faulthandler.dump_traceback_later(seconds, exit=True)


def serve(requests: BinaryIO) -> None:
    """Run the task of a parent process, report the outcome, and end this process."""
    global _is_child
    _is_child = True
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C is for both processes
    limits = TrialLimits(*pickle.load(requests))  # noqa: S301 - the parent wrote it
    allow_more(limits.seconds)
    _limit_memory(limits.memory_bytes)
    _report(_READY)
    try:
        task, arguments = pickle.load(requests)  # noqa: S301 - the parent wrote it
        threading.Thread(target=_end_with, args=[requests], daemon=True).start()
        task(*arguments)
        _report(_OK)
    except BaseException as error:  # noqa: BLE001 - a panic of a library is no Exception
        message = " ".join(str(error).split())[:_MAX_MESSAGE_CHARACTERS]
        kind = type(error).__name__
        if isinstance(error, MemoryError) or is_out_of_memory(message):
            kind = _NO_MEMORY
        elif kind not in _ERRORS and kind != PreparationError.__name__:
            message = f"cannot be opened: {message or kind}"
        _report(kind, message, getattr(error, "hint", None))
    os._exit(0)  # whatever state libraries are in


def _run_child(limits: TrialLimits, task: Task, arguments: tuple[Any, ...]) -> TrialOutcome | None:
    """The outcome of a task in a child process; None if there is no such process."""
    if not sys.executable or getattr(sys, "frozen", False):
        return None
    try:
        process = subprocess.Popen(  # noqa: S603 - nothing in it is a user's
            [sys.executable, "-P", "-c", _CHILD_CODE],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
    except OSError:
        return None
    stdin, stdout = cast("BinaryIO", process.stdin), cast("BinaryIO", process.stdout)
    with process:
        try:
            with suppress(OSError):  # it has ended, as its output will tell
                for part in (sys.path, tuple(limits), (task, arguments)):
                    pickle.dump(part, stdin)
                stdin.flush()
            outcome = _read_outcome(stdout)
            code = process.wait()
        finally:
            with suppress(OSError):  # there may be requests that it never read
                stdin.close()
            process.kill()
    return outcome if outcome is None or outcome[0] != _READY else ("", _ending(code), None)


def _read_outcome(output: BinaryIO) -> TrialOutcome | None:
    """The last outcome that a child process reported, or the messages of libraries at its end."""
    outcome: TrialOutcome | None = None
    for line in iter(lambda: output.readline(_MAX_LINE_BYTES), b""):
        if line.startswith(_MARK):
            kind, message, hint = json.loads(line[len(_MARK) :])
            outcome = kind, message, hint
        elif match := _TIMEOUT.match(line):
            outcome = "", f"was still being opened after {match[1].decode()}", None
        elif is_out_of_memory(line.decode("utf-8", "replace")):
            outcome = _NO_MEMORY, "", None
    return outcome


def _ending(code: int) -> str:
    """Describe the end of a process that has reported nothing."""
    if code == -getattr(signal, "SIGKILL", 0):
        return "the process that opened it was killed, as the system does for want of memory"
    if code >= 0:
        return f"the process that opened it ended with exit code {code}"
    try:
        return f"the process that opened it ended by {signal.Signals(-code).name}"
    except ValueError:
        return f"the process that opened it ended by signal {-code}"


def _report(outcome: str, message: str = "", hint: str | None = None) -> None:
    line = b"\n" + _MARK + json.dumps([outcome, message, hint]).encode() + b"\n"
    with suppress(OSError):
        os.write(sys.stdout.fileno(), line)


def _end_with(requests: BinaryIO) -> None:
    """End this process when the parent has ended, which closes the stream of requests."""
    requests.read()
    os._exit(1)


def _limit_memory(size_bytes: int) -> None:
    """Limit the memory of this process, on Linux; mapped files do not count."""
    if sys.platform == "linux" and not _has_less_memory(size_bytes):
        import resource

        resource.setrlimit(resource.RLIMIT_DATA, (size_bytes, size_bytes))


def _has_less_memory(size_bytes: int) -> bool:
    """Whether this process may have less memory than that already, as by `ulimit`."""
    if sys.platform != "linux":
        return False
    import resource

    limits = [resource.getrlimit(kind)[0] for kind in (resource.RLIMIT_AS, resource.RLIMIT_DATA)]
    return any(limit != resource.RLIM_INFINITY and limit < size_bytes for limit in limits)
