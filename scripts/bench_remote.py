"""Hold a remote ranking against the least time in which its server can be asked.

    python scripts/bench_remote.py [--runs 11] [--lines 5000]

A server in a process of its own takes 32 documents a request and 20 ms for each, and answers 429
to more than 8 requests at once. What the least client does, 8 threads with a socket each that have
all requests ready and read nothing of the answers, is the least time. In turn with it
`cat LINES | rerank -m tei/local "q" -n 10 --concurrency 8` is timed as a whole process, and from
that is taken what the same command needs for one document, beyond the 20 ms of its request. Prints
the ratio of the medians, also to the 20 ms for each round of 8 alone, and exits with 1 where it is
over 1.1.
"""

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import Empty, SimpleQueue
from urllib.parse import urlsplit
from urllib.request import urlopen

ROOT = Path(__file__).resolve().parent.parent
ALLOWED = 1.1
LATENCY, PERMITS, BATCH = 0.02, 8, 32
QUERY = "the quick brown fox"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--runs", type=int, default=11)
    parser.add_argument("--lines", type=int, default=5000)
    arguments = parser.parse_args()
    requests = -(-arguments.lines // BATCH)
    rounds = -(-requests // PERMITS) * LATENCY
    server = subprocess.Popen(
        [
            *(sys.executable, "-m", "tests.support.loopback", "--dialect", "tei"),
            *("--latency", str(LATENCY), "--permits", str(PERMITS)),
        ],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    try:
        assert server.stdout is not None
        url = server.stdout.readline().strip()
        wholes, start_seconds, leasts = list[float](), list[float](), list[float]()
        with tempfile.TemporaryDirectory() as folder:
            many_file, single_file = Path(folder) / "many.txt", Path(folder) / "one.txt"
            lines = [f"line {n} about a fox and {n * 7919 % 1000} dogs\n" for n in range(10**6)]
            many_file.write_text("".join(lines[: arguments.lines]), encoding="utf-8")
            single_file.write_text(lines[0], encoding="utf-8")
            for _ in range(arguments.runs):
                leasts.append(bare_sockets(url, lines[: arguments.lines]))
                start_seconds.append(seconds(single_file, url, folder) - LATENCY)
                wholes.append(seconds(many_file, url, folder))
        with urlopen(f"{url}/-/counts") as answer:
            counts = json.load(answer)
    finally:
        server.terminate()
        server.wait()
    whole, start, least = map(statistics.median, (wholes, start_seconds, leasts))
    ratio = (whole - start) / least
    is_met = ratio <= ALLOWED and not counts["busy"]
    print(
        f"{arguments.lines:,} documents in {requests} requests of {BATCH}, {PERMITS} at once, "
        f"{LATENCY * 1000:.0f} ms each: {whole:.3f} s less {start:.3f} s to start, "
        f"{ratio:.3f} of the least time, {least:.3f} s, and {ratio * least / rounds:.3f} of "
        f"{rounds:.2f} s; {counts['busy']} refused: "
        f"{'met' if is_met else 'MISSED'}"
    )
    sys.exit(0 if is_met else 1)


def bare_sockets(url: str, lines: list[str]) -> float:
    """How long it takes to send the same requests, and nothing else."""
    place = urlsplit(url)
    head = "POST /rerank HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\n"
    bodies: SimpleQueue[bytes] = SimpleQueue()
    for start in range(0, len(lines), BATCH):
        texts = [line.rstrip() for line in lines[start : start + BATCH]]
        body = json.dumps({"query": QUERY, "texts": texts})
        bodies.put(f"{head}Content-Length: {len(body)}\r\n\r\n{body}".encode())

    def send(_number: int) -> None:
        with socket.create_connection((place.hostname or "", place.port or 0)) as connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            while True:
                try:
                    connection.sendall(bodies.get_nowait())
                except Empty:
                    return
                answer = connection.recv(1 << 16)
                header, _, content = answer.partition(b"\r\n\r\n")
                length = int(header.lower().partition(b"content-length:")[2].split()[0])
                while len(content) < length:
                    content += connection.recv(1 << 16)

    start_time = time.perf_counter()
    with ThreadPoolExecutor(PERMITS) as pool:
        list(pool.map(send, range(PERMITS)))
    return time.perf_counter() - start_time


def seconds(path: Path, url: str, home: str) -> float:
    """How long it takes to pipe a file into the command."""
    options = ["-m", "tei/local", "--base-url", url, QUERY, "-n", "10"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "RERANK_HOME": home}
    start = time.perf_counter()
    feed = subprocess.Popen(["cat", str(path)], stdout=subprocess.PIPE)
    subprocess.run(
        [sys.executable, "-m", "rerank_cli", *options, "--concurrency", str(PERMITS)],
        stdin=feed.stdout,
        stdout=subprocess.DEVNULL,
        env=environment,
        check=True,
    )
    feed.wait()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
