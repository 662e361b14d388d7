"""What a local model is run by: the runtime, the device, and how many cores."""

from dataclasses import dataclass
from enum import StrEnum


class Runtime(StrEnum):
    """The library that runs a model's graph."""

    ONNXRUNTIME = "onnxruntime"
    OPENVINO = "openvino"


class Device(StrEnum):
    """Where it runs. AUTO is a GPU if onnxruntime-gpu is installed, one is there, and it pays."""

    AUTO = "auto"
    CPU = "cpu"
    CUDA = "cuda"


@dataclass(frozen=True)
class RuntimeOptions:
    """How a local model is run; `threads` of None are all cores that this process may use."""

    runtime: Runtime = Runtime.ONNXRUNTIME
    device: Device = Device.AUTO
    threads: int | None = None
