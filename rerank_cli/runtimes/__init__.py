"""How to run a local model: the runtime, the device, and the number of threads."""

from dataclasses import dataclass
from enum import StrEnum


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
    """How to run a local model; `threads` is None for all cores that this process may use."""

    runtime: Runtime = Runtime.ONNXRUNTIME
    device: Device = Device.AUTO
    threads: int | None = None
