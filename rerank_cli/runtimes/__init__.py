"""How to run a local model: the runtime, the device, and the number of threads."""

from dataclasses import dataclass
from enum import StrEnum

from rerank_cli.errors import UsageError, check_choice, check_fields

DEFAULT_PASSAGE_MEMORY_BYTES = 512_000_000  # of about 1,600 passages of 160 tokens, with mini


class Runtime(StrEnum):
    """The library that runs a model's graph."""

    ONNXRUNTIME = "onnxruntime"
    OPENVINO = "openvino"


class Device(StrEnum):
    """The device that runs it. AUTO is a GPU if onnxruntime-gpu finds one and it is faster."""

    AUTO = "auto"
    CPU = "cpu"
    CUDA = "cuda"


@dataclass(frozen=True)
class RuntimeOptions:
    """How to run a local model.

    runtime         the library that runs it: "onnxruntime" or "openvino"
    device          where it runs: "auto", "cpu" or "cuda"
    threads         the cores to use; None for all that this process may use
    passage_memory  the bytes for a model in two parts to keep what it has read of passages, for
                    other queries; with any model, at most a quarter of them is for the first
                    stage's work on texts; 0 to keep nothing
    """

    runtime: Runtime | str = Runtime.ONNXRUNTIME
    device: Device | str = Device.AUTO
    threads: int | None = None
    passage_memory: int = DEFAULT_PASSAGE_MEMORY_BYTES

    def check(self) -> None:
        """Raise `UsageError` for a value that makes no sense."""
        check_fields(self)
        check_choice("runtime", self.runtime, Runtime)
        check_choice("device", self.device, Device)
        if self.threads is not None and self.threads < 1:
            raise UsageError(f"at least one thread is needed, not {self.threads}")
        if self.passage_memory < 0:
            raise UsageError(f"the passage memory has 0 bytes or more, not {self.passage_memory}")
