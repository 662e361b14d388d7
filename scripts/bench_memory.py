"""Hold peak memory against the size of the input: it must not grow with it.

    python scripts/bench_memory.py [--lines 1000000] [--model-lines 50000]

Ranks short lines with `-n 10`, all of them and a tenth of them, with BM25 from a file, with BM25
from a pipe (which it copies to disk, to go through it twice), and with the default model; prints
each one's peak resident memory and exits with 1 where all take more than 60 MB more than a tenth.
"""

import argparse
import os
import random
import string
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ALLOWED = 60  # MB
QUERY = "the quick brown fox"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--lines", type=int, default=1_000_000)
    parser.add_argument("--model-lines", type=int, default=50_000)
    arguments = parser.parse_args()
    is_met = True
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as directory:
        for description, count, options, is_piped in [
            ("bm25, a file", arguments.lines, ["-m", "bm25"], False),
            ("bm25, a pipe", arguments.lines, ["-m", "bm25"], True),
            ("default model, a file", arguments.model_lines, [], False),
        ]:
            peaks = []
            for lines in (count // 10, count):
                path = Path(directory) / "lines.txt"
                with path.open("w", encoding="utf-8") as stream:
                    stream.writelines(random_lines(lines))
                peaks.append(peak(path, options, is_piped=is_piped))
            more = peaks[1] - peaks[0]
            is_met &= more <= ALLOWED
            print(
                f"{description}: {count // 10:,} lines {peaks[0]:.0f} MB, {count:,} lines "
                f"{peaks[1]:.0f} MB, {more:+.1f} MB: {'met' if more <= ALLOWED else 'MISSED'}",
                flush=True,
            )
    sys.exit(0 if is_met else 1)


def random_lines(count: int) -> Iterator[str]:
    """Lines of two to twelve words from a vocabulary of 50,000; now and then the query's."""
    draw = random.Random(0)
    words = [
        "".join(draw.choices(string.ascii_lowercase, k=draw.randint(2, 9))) for _ in range(50_000)
    ]
    words += QUERY.split() * 100
    for _ in range(count):
        yield " ".join(draw.choices(words, k=draw.randint(2, 12))) + "\n"


def peak(path: Path, options: list[str], *, is_piped: bool) -> float:
    """Rank a file's lines in a process of its own: its peak resident memory in MB."""
    command = [sys.executable, "-m", "rerank_cli", QUERY, "-n", "10", *options]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "RERANK_HOME": str(path.parent)}
    feed = subprocess.Popen(["cat", str(path)], stdout=subprocess.PIPE) if is_piped else None
    process = subprocess.Popen(
        command if is_piped else [*command, str(path)],
        stdin=feed.stdout if feed else subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        env=environment,
    )
    _, status, usage = os.wait4(process.pid, 0)
    if feed:
        feed.wait()
    if status:
        raise SystemExit(f"{' '.join(command)} failed with {os.waitstatus_to_exitcode(status)}")
    unit = 1 if sys.platform == "darwin" else 1024  # bytes there, KiB on Linux
    return usage.ru_maxrss * unit / 1e6


if __name__ == "__main__":
    main()
