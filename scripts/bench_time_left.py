"""How steady the time left is, of `rerank` and `rerank batch`, with inputs of all shapes.

    python scripts/bench_time_left.py [--seconds 40] [--only rank,batch,remote] [SHAPE]...

Each run has a terminal of its own. What its line says is compared, each time that it is drawn, with
the time that the rest really took. Printed is the worst factor between the two once 5 % of the time
is over. The line says whole seconds, rounded up. What is within 2 % of the whole run is right: the
last documents are scored together.

Needs nothing but the package and its tests; the service is their server on loopback.
"""

import argparse
import fcntl
import json
import os
import pty
import random
import re
import select
import shutil
import struct
import subprocess
import sys
import tempfile
import termios
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).parent.parent
WORDS = (ROOT / "examples" / "garden.md").read_text(encoding="utf-8").split()
QUERY = "how do slugs find the lettuce"
TOKENS_A_SECOND = 25_000  # of the model that ships, about, on two cores: for the sizes of inputs
FIRST_SHARE = 0.05
ROUNDING_SECONDS, ROUNDING_SHARE = 1.0, 0.02
COLUMNS = 120
UNITS = {"d": 86_400, "h": 3600, "min": 60, "s": 1}
TIME_LEFT = re.compile(r"((?:\d+ (?:d|h|min|s) ?)+) left")
SHAPES = ("equal", "growing", "shrinking", "mixed", "short-first", "long-first", "giants")
RPM = 120


def lengths(shape: str, tokens: int) -> Iterator[int]:
    """The lengths of documents in words, until they come to so many tokens."""
    draw, token_sum = random.Random(0), 0
    while token_sum < tokens:
        share = token_sum / tokens
        length = {
            "equal": 40,
            "growing": 3 + int(200 * share),
            "shrinking": 203 - int(200 * share),
            "mixed": draw.choice((3, 10, 40, 150, 400)),
            "short-first": 4 if share < 0.5 else 300,
            "long-first": 300 if share < 0.5 else 4,
            "giants": 12 if share < 0.5 else 30_000,
        }[shape]
        yield length
        token_sum += 28 + int(1.6 * length)


def text(length: int, draw: random.Random) -> str:
    return " ".join(draw.choices(WORDS, k=length))


def write_lines(path: Path, shape: str, tokens: int) -> None:
    draw = random.Random(1)
    with path.open("w", encoding="utf-8") as stream:
        for number, length in enumerate(lengths(shape, tokens)):
            stream.write(f"{number} {text(length, draw)}\n")


def write_records(path: Path, shape: str, tokens: int) -> None:
    """Records of twenty documents that are neighbours in the lines."""
    draw, documents = random.Random(1), list[str]()
    with path.open("w", encoding="utf-8") as stream:
        for number, length in enumerate(lengths(shape, tokens)):
            documents.append(f"{number} {text(length, draw)}")
            if len(documents) == (1 if length > 1000 else 20):
                row = {"query": f"{QUERY} {number}", "documents": documents}
                stream.write(json.dumps(row) + "\n")
                documents = []


def run(arguments: Sequence[str], folder: Path) -> tuple[float, list[tuple[float, float]]]:
    """Run a command line on a terminal: how long it took, and when it said how much was left."""
    screen, stderr = pty.openpty()
    fcntl.ioctl(stderr, termios.TIOCSWINSZ, struct.pack("HHHH", 40, COLUMNS, 0, 0))
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TERM": "xterm"}
    start = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-m", "rerank_cli", *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=stderr,
        cwd=folder,
        env=environment,
    )
    os.close(stderr)
    estimates, end = list[tuple[float, float]](), 0.0
    while True:
        ready, _, _ = select.select([screen], [], [], 0.05)
        try:
            content = os.read(screen, 1 << 16).decode("utf-8", "replace") if ready else ""
        except OSError:  # the process has ended
            break
        now = time.monotonic() - start
        if content:
            end = now
        for text in TIME_LEFT.findall(content):
            parts = re.findall(r"(\d+) (\w+)", text)
            estimates.append((now, sum(int(count) * UNITS[unit] for count, unit in parts)))
    os.close(screen)
    if process.wait():
        raise SystemExit(f"{' '.join(arguments)}: exit code {process.returncode}")
    return end, estimates


def worst_factor(seconds: float, estimates: Sequence[tuple[float, float]]) -> float:
    """The worst factor between what was said and the truth, after the first part of the run."""
    worst = 1.0
    for now, estimate in estimates:
        truth = seconds - now
        rounded_estimate = min(
            max(truth, estimate - ROUNDING_SECONDS), estimate
        )  # what it is rounded up from
        if (
            now >= FIRST_SHARE * seconds
            and abs(rounded_estimate - truth) > ROUNDING_SHARE * seconds
        ):
            worst = max(
                worst,
                max(rounded_estimate, 0.1) / max(truth, 0.1),
                max(truth, 0.1) / max(rounded_estimate, 0.1),
            )
    return worst


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("shapes", nargs="*", metavar="SHAPE", help=f"of {', '.join(SHAPES)}")
    parser.add_argument("--seconds", type=float, default=40.0, help="of each run, about")
    parser.add_argument("--only", default="rank,batch,remote", help="which commands")
    parser.add_argument("--show", action="store_true", help="show what was said and the truth")
    options = parser.parse_args()
    commands = options.only.split(",")
    tokens = int(options.seconds * TOKENS_A_SECOND)
    folder = Path(tempfile.mkdtemp(prefix="time-left-"))
    server = subprocess.Popen(
        [sys.executable, "-m", "tests.support.loopback", "--dialect", "tei", "--latency", "0.3"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert server.stdout is not None
        remote = ["-m", "tei/m", "--base-url", server.stdout.readline().strip()]
        for shape in options.shapes or SHAPES:
            lines, records = folder / f"{shape}.txt", folder / f"{shape}.jsonl"
            write_lines(lines, shape, tokens)
            write_records(records, shape, tokens)
            # As many requests as take three spans of a minute; the server itself takes no time.
            cases = {
                "rank": [QUERY, lines.name],
                "batch": ["batch", records.name, "-o", f"{shape}.out"],
                "remote": ["batch", records.name, "-o", f"{shape}.rpm", *remote, "--rpm", str(RPM)],
            }
            for name, arguments in cases.items():
                if name not in commands:
                    continue
                seconds, estimates = run(arguments, folder)
                factor = worst_factor(seconds, estimates)
                print(
                    f"{name:8} {shape:12} {seconds:6.1f} s  worst factor {factor:.2f}", flush=True
                )
                for now, estimate in estimates if options.show else ():
                    print(f"    {now:6.1f} s: said {estimate:5.0f} s, truth {seconds - now:6.1f} s")
    finally:
        server.terminate()
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
