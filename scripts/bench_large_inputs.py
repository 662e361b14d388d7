"""Time whole commands over much text, from start to end, with the candidates of `auto`.

    python scripts/bench_large_inputs.py FOLDER… [--runs 5] [--lines 1000000]

Runs `rerank QUERY -r FOLDER -n 10` over each folder and over a log of so many lines, which is made
with a seed; a ninth of them have a word of the query. For each it prints the median of the seconds
on the clock, the fewest and the most, the most memory, and what was read.
"""

import argparse
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

QUERY = "memory leak"
SEED = 0
LEVELS = ("INFO", "WARN", "ERROR", "DEBUG")
SUBJECTS = ("request", "session", "memory", "worker", "cache", "socket", "upload", "job", "token")
EVENTS = ("was closed", "took long", "is used up", "was refused", "began", "ended", "is retried")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folders", nargs="*", type=Path)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--lines", type=int, default=1_000_000, help="of the log; 0 for none")
    parser.add_argument("--query", default=QUERY)
    arguments = parser.parse_args()
    print("| input | bytes | seconds | memory | read |\n|---|---|---|---|---|")
    for folder in arguments.folders:
        files = [path for path in folder.rglob("*") if path.is_file() and path.suffix != ".pyc"]
        size = sum(path.stat().st_size for path in files)
        print_row(folder.name, size, ["-r", str(folder)], arguments)
    if arguments.lines:
        with tempfile.TemporaryDirectory() as scratch:
            log = Path(scratch) / "service.log"
            write_log(log, arguments.lines)
            name = f"a log of {arguments.lines:,} lines"
            print_row(name, log.stat().st_size, [str(log)], arguments)


def write_log(path: Path, lines: int) -> None:
    """Write a log whose lines have one of SUBJECTS each."""
    draw = random.Random(SEED)
    with path.open("w", encoding="utf-8") as log:
        for number in range(lines):
            time_of_day = f"{number // 3600 % 24:02}:{number // 60 % 60:02}:{number % 60:02}"
            subject, event = draw.choice(SUBJECTS), draw.choice(EVENTS)
            entry = f"{subject} {draw.randrange(10**6)} {event} after {draw.randrange(10**4)} ms"
            log.write(f"2026-11-30 {time_of_day} {draw.choice(LEVELS)} {entry}\n")


def print_row(name: str, size: int, inputs: Sequence[str], arguments: argparse.Namespace) -> None:
    """Run the command over an input several times, and print a row of the table."""
    command = ["rerank", arguments.query, *inputs, "-n", "10", "-v"]
    seconds, kilobytes, message = [], 0, ""
    for _ in range(arguments.runs):
        with tempfile.TemporaryFile("w+") as messages:
            start = time.perf_counter()
            process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=messages)
            _, status, usage = os.wait4(process.pid, 0)
            seconds.append(time.perf_counter() - start)
            if os.waitstatus_to_exitcode(status):
                messages.seek(0)
                sys.exit(messages.read())
            kilobytes = max(kilobytes, usage.ru_maxrss)
            messages.seek(0)
            message = next((line for line in messages if " read by the model" in line), "")
            message = message.partition(" read by")[0]
    seconds_range = f"{min(seconds):.1f} to {max(seconds):.1f}"
    cells = (
        f"{statistics.median(seconds):.1f} ({seconds_range})",
        f"{kilobytes / 1024:.0f} MB",
        message,
    )
    print(f"| {name} | {size / 1e6:.1f} MB | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
