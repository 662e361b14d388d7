"""Hold `rerank batch` against its promises: what kills cost, how memory grows, how fast it is.

    python scripts/bench_batch.py kills [--records 3000] [--kills 10]
    python scripts/bench_batch.py memory [--records 100000]
    python scripts/bench_batch.py speed [--pairs 6000]

`kills` runs a job of records with ten documents to its end, and again killed at random moments;
pairs are counted by the scoring threads themselves, in a file that outlives them. `memory` compares
the peaks of a BM25 job and one of a tenth of it. `speed` compares whole processes over the same
pairs, in turn: one `rerank` call, `rerank batch`, and `--engine ray`, of which starting Ray is
timed apart. Exits with 1 where a bound is missed.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
WORDS = (ROOT / "examples" / "garden.md").read_text(encoding="utf-8").split()
QUERY = "what keeps slugs away from lettuce"
DOCUMENTS = 10
AHEAD = 512 + 64  # pairs under way, and those that are done and not yet noted
# Runs the command line with one byte written for each piece of work that the scorer has done.
COUNTING_SCRIPT = """
import os, sys
from rerank_cli.scorers.scheduler import Scheduler
out = os.open(sys.argv.pop(1), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
begin = Scheduler.__init__
def count_calls(self, run, threads):
    def run_counted(work, alone):
        value = run(work, alone)
        os.write(out, b"." * len(work))
        return value
    begin(self, run_counted, threads)
Scheduler.__init__ = count_calls
from rerank_cli.cli.app import main
main()
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["kills", "memory", "speed"])
    parser.add_argument("--records", type=int)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--pairs", type=int, default=6000)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as name:
        folder = Path(name)
        if arguments.what == "kills":
            ok = kills(folder, arguments.records or 3000, arguments.kills)
        elif arguments.what == "memory":
            ok = memory(folder, arguments.records or 100_000)
        else:
            ok = speed(folder, arguments.pairs)
    sys.exit(0 if ok else 1)


def kills(folder: Path, records: int, times: int) -> bool:
    source = write(folder / "in.jsonl", records, DOCUMENTS)
    plain, out = folder / "plain.jsonl", folder / "out.jsonl"
    counts = folder / "plain.count", folder / "out.count"
    start = time.monotonic()
    wait(start_counted(counts[0], source, plain))
    whole = time.monotonic() - start
    draw = random.Random(0)
    kill_count = 0
    while True:
        process = start_counted(
            counts[1], source, out, "--resume", "--report", folder / "report.json"
        )
        if kill_count < times:
            time.sleep(draw.uniform(0.2, 1.4) * whole / times)
            if process.poll() is None:
                process.send_signal(signal.SIGKILL)
                kill_count += 1
        if wait(process) != -signal.SIGKILL:
            break
    same = plain.read_bytes() == out.read_bytes()
    plain_count, killed_count = (path.stat().st_size for path in counts)
    figures = json.loads((folder / "report.json").read_text())
    more = killed_count - plain_count
    print(
        f"{records:,} records, {plain_count:,} pairs: killed {kill_count} times, the output is "
        f"{'the same' if same else 'ANOTHER'}; {more:,} pairs scored again, "
        f"{more / kill_count:.0f} a kill (of {AHEAD} allowed); "
        f"the report has {figures['pairs']['scored']:,} pairs in "
        f"{figures['runs']} runs"
    )
    return same and more <= AHEAD * kill_count


def memory(folder: Path, records: int) -> bool:
    peaks = []
    for count in (records // 10, records):
        source = write(folder / "in.jsonl", count, 4)
        out = folder / f"out-{count}.jsonl"
        start = time.monotonic()
        process = rerank("batch", source, "-o", out, "-m", "bm25", "--results", "ids")
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        peaks.append(usage.ru_maxrss / 1024)
        seconds = time.monotonic() - start
        print(f"{count:,} records, bm25: peak {peaks[-1]:.0f} MB, {seconds:.1f} s", flush=True)
        out.unlink()
    print(f"grows by {peaks[1] - peaks[0]:.0f} MB (50 allowed)")
    return peaks[1] - peaks[0] <= 50


def speed(folder: Path, pairs: int) -> bool:
    texts = documents(pairs)
    lines = folder / "lines.txt"
    lines.write_text("".join(f"{text}\n" for text in texts), encoding="utf-8")
    source = folder / "in.jsonl"
    with source.open("w", encoding="utf-8") as stream:
        for start in range(0, pairs, DOCUMENTS):
            some = texts[start : start + DOCUMENTS]
            stream.write(json.dumps({"query": QUERY, "documents": some}) + "\n")
    rerank("-q", QUERY, lines).wait()  # warms up
    rank_seconds = wait_timed(rerank("-q", QUERY, lines))
    batch_seconds = wait_timed(
        rerank("batch", source, "-o", folder / "a.jsonl", "--results", "ids")
    )
    few = folder / "few.jsonl"
    few.write_text("".join(source.read_text().splitlines(keepends=True)[:1]))
    ray_start_seconds = wait_timed(rerank("batch", few, "-o", folder / "few", "--engine", "ray"))
    ray_seconds = wait_timed(rerank("batch", source, "-o", folder / "b", "--engine", "ray"))
    print(f"{pairs:,} pairs: rank {rank_seconds:.1f} s, {pairs / rank_seconds:.0f} pairs/s")
    batch_share, ray_share = rank_seconds / batch_seconds, rank_seconds / ray_seconds
    steady_share = rank_seconds / (ray_seconds - ray_start_seconds)
    print(f"  batch {batch_seconds:.1f} s: {batch_share:.2f} of its throughput (0.95 asked)")
    print(
        f"  ray {ray_seconds:.1f} s, of which {ray_start_seconds:.1f} s to start it and for one "
        f"record: {steady_share:.2f} of its throughput without, {ray_share:.2f} with "
        "(0.8 asked)"
    )
    return batch_share >= 0.95 and steady_share >= 0.8


def documents(count: int) -> list[str]:
    """Texts of 10 to 60 words, none like another."""
    draw = random.Random(1)
    return [f"{' '.join(draw.choices(WORDS, k=draw.randint(10, 60)))} {n}" for n in range(count)]


def write(path: Path, records: int, size: int) -> Path:
    texts = documents(20_000)
    with path.open("w", encoding="utf-8") as stream:
        for number in range(records):
            some = [f"{texts[(number * size + n) % len(texts)]} {number}" for n in range(size)]
            stream.write(json.dumps({"id": number, "query": QUERY, "documents": some}) + "\n")
    return path


def rerank(*arguments: str | Path) -> "subprocess.Popen[bytes]":
    return start_command([sys.executable, "-m", "rerank_cli", *map(str, arguments)])


def start_counted(
    count: Path, source: Path, out: Path, *more: str | Path
) -> "subprocess.Popen[bytes]":
    options = [source, "-o", out, "--results", "scores", *more]
    return start_command(
        [sys.executable, "-c", COUNTING_SCRIPT, str(count), "batch", *map(str, options)]
    )


def start_command(command: list[str]) -> "subprocess.Popen[bytes]":
    nothing = subprocess.DEVNULL
    return subprocess.Popen(
        command,
        cwd=ROOT,
        stdin=nothing,
        stdout=nothing,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )


def wait(process: "subprocess.Popen[bytes]") -> int:
    return process.wait()


def wait_timed(process: "subprocess.Popen[bytes]") -> float:
    start = time.monotonic()
    if process.wait() != 0:
        raise SystemExit("a run failed")
    return time.monotonic() - start


if __name__ == "__main__":
    main()
