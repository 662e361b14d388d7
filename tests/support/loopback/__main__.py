"""The server as a process of its own: it prints its address and runs until it is ended.

    python -m tests.support.loopback --dialect tei --latency 0.02 --permits 8

`GET /-/counts` at that address tells how many requests came, how many of them at once at most, how
many were refused for want of a permit, and on how many connections.
"""

import argparse
import sys
import threading

from tests.support.loopback.dialects import DIALECTS
from tests.support.loopback.server import Server


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="tests.support.loopback", description="A server to rank with."
    )
    parser.add_argument("--dialect", choices=sorted(DIALECTS), default="openai-like")
    parser.add_argument("--latency", type=float, default=0.0, help="seconds for each request")
    parser.add_argument("--permits", type=int, help="requests at once; more are refused")
    parser.add_argument("--key", help="the key that requests must have")
    parser.add_argument("--limit", type=int, help="documents in one request")
    parser.add_argument("--port", type=int, default=0, help="0 takes any that is free")
    arguments = parser.parse_args()
    server = Server(
        arguments.dialect,
        latency=arguments.latency,
        permits=arguments.permits,
        key=arguments.key,
        limit=arguments.limit,
        port=arguments.port,
        record=False,
    )
    with server:
        sys.stdout.write(server.url + "\n")
        sys.stdout.flush()
        try:
            threading.Event().wait()
        except KeyboardInterrupt:
            return


if __name__ == "__main__":
    main()
