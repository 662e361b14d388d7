"""Hold a remote ranking against the least time that its server allows.

    python scripts/bench_remote.py [--runs 7] [--lines 5000]

A server in a process of its own takes 32 documents a request and 20 ms for each, and answers 429
to more than 8 requests at once: the least time is that of as many rounds of 8 as the documents
need. `cat LINES | rerank -m tei/local "q" -n 10 --concurrency 8` is timed as a whole process, and
from that is taken what the same command needs for one document, beyond the 20 ms of its request.
Prints the ratio, and exits with 1 where the median of it is over 1.1.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from urllib.request import urlopen

ROOT = Path(__file__).resolve().parent.parent
ALLOWED = 1.1
LATENCY, PERMITS, BATCH = 0.02, 8, 32
QUERY = "the quick brown fox"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--lines", type=int, default=5000)
    arguments = parser.parse_args()
    requests = -(-arguments.lines // BATCH)
    least = -(-requests // PERMITS) * LATENCY
    server = subprocess.Popen(
        [
            *(sys.executable, "-m", "tests.loopback", "--dialect", "tei"),
            *("--latency", str(LATENCY), "--permits", str(PERMITS)),
        ],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    try:
        assert server.stdout is not None
        url = server.stdout.readline().strip()
        ratios = []
        with tempfile.TemporaryDirectory() as folder:
            many, one = Path(folder) / "many.txt", Path(folder) / "one.txt"
            lines = [f"line {n} about a fox and {n * 7919 % 1000} dogs\n" for n in range(10**6)]
            many.write_text("".join(lines[: arguments.lines]), encoding="utf-8")
            one.write_text(lines[0], encoding="utf-8")
            for _ in range(arguments.runs):
                start = seconds(one, url, folder) - LATENCY
                ratios.append((seconds(many, url, folder) - start) / least)
        with urlopen(f"{url}/-/counts") as answer:
            counts = json.load(answer)
    finally:
        server.terminate()
        server.wait()
    ratio = statistics.median(ratios)
    met = ratio <= ALLOWED and not counts["busy"]
    print(
        f"{arguments.lines:,} documents in {requests} requests of {BATCH}, {PERMITS} at once, "
        f"{LATENCY * 1000:.0f} ms each: {ratio:.3f} of the least time, {least:.2f} s "
        f"({', '.join(f'{one:.3f}' for one in ratios)}); {counts['busy']} refused: "
        f"{'met' if met else 'MISSED'}"
    )
    sys.exit(0 if met else 1)


def seconds(path: Path, url: str, home: str) -> float:
    """How long it takes to pipe a file into the command."""
    options = ["-m", "tei/local", "--base-url", url, QUERY, "-n", "10"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "RERANK_HOME": home}
    began = time.perf_counter()
    feed = subprocess.Popen(["cat", str(path)], stdout=subprocess.PIPE)
    subprocess.run(
        [sys.executable, "-m", "rerank_cli", *options, "--concurrency", str(PERMITS)],
        stdin=feed.stdout,
        stdout=subprocess.DEVNULL,
        env=environment,
        check=True,
    )
    feed.wait()
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
