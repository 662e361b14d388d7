"""Where the time of a command goes: laps of its main thread, one after the other.

Each moment belongs to the lap that ends next, so that all of them are the whole. Of a process the
first begins when the process did, where the system tells that.
"""

import os
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

OPTION = "--timing"
_STAT = Path("/proc/self/stat")
_STARTED = 19  # of the fields after the name: when the process began, in ticks since the boot

# What the laps are, in the order they are told in.
STARTING = "starting: the interpreter, imports, options"
OPENING = "waiting for the model to be open"
READING = "reading, cutting and tokenising"
SCORING = "waiting for scores"
WRITING = "ranking and writing"
REST = "the rest"

_spent: dict[str, float] = dict.fromkeys((STARTING, OPENING, READING, SCORING, WRITING, REST), 0.0)
_last = time.perf_counter()


def lap(name: str) -> None:
    """End a lap: the time since the one before was spent on this."""
    global _last
    now = time.perf_counter()
    _spent[name] += now - _last
    _last = now


def told() -> str:
    """The laps so far as lines, and their sum, in seconds."""
    lap(REST)
    spent: Mapping[str, float] = {**_spent, STARTING: _spent[STARTING] + _before_us()}
    rows = [(name, seconds) for name, seconds in spent.items() if seconds >= 0.0005]
    return "\n".join(f"{seconds:8.3f} s  {name}" for name, seconds in [*rows, _whole(spent)])


def asked(arguments: list[str]) -> tuple[list[str], bool]:
    """Take `--timing` out of a command line, of whichever command it is."""
    end = arguments.index("--") if "--" in arguments else len(arguments)
    left = [argument for argument in arguments[:end] if argument != OPTION]
    return [*left, *arguments[end:]], len(left) < end


def _whole(spent: Mapping[str, float]) -> tuple[str, float]:
    return "in all", sum(spent.values())


def _before_us() -> float:
    """Seconds from the start of the process to the import of this module, as far as is known."""
    with suppress(OSError, ValueError, AttributeError, IndexError):
        fields = _STAT.read_text().rpartition(")")[2].split()
        began = int(fields[_STARTED]) / os.sysconf("SC_CLK_TCK")
        age = time.clock_gettime(time.CLOCK_BOOTTIME) - began
        return max(0.0, age - sum(_spent.values()))
    return 0.0
