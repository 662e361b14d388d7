"""Time a ranking whose scores are all known from an earlier run (`--cache`) against that run.

    python scripts/bench_cache.py FILE.jsonl [--field text] [--query QUERY] [--runs 3] [-n 10]

Runs `rerank QUERY FILE --candidates all -n N --cache --json` with an empty cache, and then as many
times with what it kept. Prints the seconds on the clock, the median of the later runs, and the
ratio. Exits with 1 if their output differs.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("file", type=Path)
    parser.add_argument("--field", default="text")
    parser.add_argument("--query", default="does smoking cause lung cancer")
    parser.add_argument("--runs", type=int, default=3, help="with a full cache")
    parser.add_argument("-n", type=int, default=10, help="results")
    arguments = parser.parse_args()
    rerank = [sys.executable, "-m", "rerank_cli"]
    options = ["--field", arguments.field, "-n", str(arguments.n), "--candidates", "all"]
    command = [*rerank, arguments.query, str(arguments.file), *options, "--cache", "--json"]
    with tempfile.TemporaryDirectory() as scratch:
        environment = {**os.environ, "XDG_CACHE_HOME": scratch}
        # Else the first run would prepare the model too.
        run([*rerank, "a", "-d", "b"], environment)
        first, output = run(command, environment)
        later = [run(command, environment) for _ in range(arguments.runs)]
    median = statistics.median(seconds for seconds, _ in later)
    times = ", ".join(f"{seconds:.2f}" for seconds, _ in later)
    print(f"first run {first:.1f} s, later {times} s: {first / median:.1f} times as fast")
    if any(other != output for _, other in later):
        raise SystemExit("the outputs differ")


def run(command: Sequence[str], environment: Mapping[str, str]) -> tuple[float, bytes]:
    """The seconds that a command takes, and its output."""
    start = time.monotonic()
    output = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE).stdout
    return time.monotonic() - start, output


if __name__ == "__main__":
    main()
