"""The process that every engine is measured in: reads a job, scores, prints one line of JSON.

Each file beside this one opens an engine and gives `main` a function that scores passages in the
order they came. Opening and a warm-up are not timed. After the scoring the process does nothing
for two seconds, and tells how much CPU time went by.
"""

import json
import re
import resource
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

IDLE = 2.0  # seconds

Score = Callable[[str, Sequence[str]], Sequence[float]]


@dataclass(frozen=True, slots=True)
class Job:
    """What to score and how; a `batch` or `threads` of None leaves it to the engine.

    `folder` holds a model with its tokenizer and configuration, and `graph` is its ONNX file.
    """

    folder: str
    graph: str
    query: str
    passages: list[str]
    warm: int
    idle: bool
    threads: int | None = None
    batch: int | None = None
    runtime: str = "onnxruntime"


def main(open_engine: Callable[[Job], Score], packages: Sequence[str]) -> None:
    job = Job(**json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
    score = open_engine(job)
    score(job.query, job.passages[: job.warm])
    start = time.perf_counter()
    scores = score(job.query, job.passages)
    seconds = time.perf_counter() - start
    report = {
        "seconds": seconds,
        "scores": [float(value) for value in scores],
        "idle": idle() if job.idle else None,
        "peak": peak(),
        "versions": {name: version(name) for name in packages},
    }
    print("\n" + json.dumps(report), flush=True)


def idle() -> float:
    """CPU seconds that all threads of this process take together while it has nothing to do."""
    before = time.process_time()
    time.sleep(IDLE)
    return time.process_time() - before


def peak() -> float:
    """The most memory that was resident, in MB.

    Linux also counts in `ru_maxrss` what the process had before it became this program.
    """
    status = Path("/proc/self/status")
    if status.exists() and (match := re.search(r"VmHWM:\s*(\d+) kB", status.read_text())):
        return int(match[1]) * 1024 / 1e6
    unit = 1 if sys.platform == "darwin" else 1024  # bytes there, KiB elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6
