"""A server that is not this project's answers: Infinity, if `scripts/real_server.py` has made one.

It takes half a gigabyte, and so is not installed with the rest.
"""

import json
import os
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import pytest

from tests.conftest import Run

# Read as the module is: no test sees variables of this kind.
SERVER = os.environ.get("RERANK_TEST_INFINITY", "")
MODEL = os.environ.get("RERANK_TEST_INFINITY_MODEL", "")
PATIENCE = 120  # seconds
TEXTS = ["the cat sat", "a refund takes two weeks", "refunds", "dogs bark at night"]

pytestmark = pytest.mark.skipif(
    not (Path(SERVER).is_file() and Path(MODEL).is_dir()),
    reason="no Infinity here: scripts/real_server.py makes one",
)


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """Where the server is, once it answers."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = {"--model-id": MODEL, "--served-model-name": "tiny", "--engine": "torch",
               "--device": "cpu", "--dtype": "float32", "--host": "127.0.0.1",
               "--port": str(port)}  # fmt: skip
    process = subprocess.Popen(
        [SERVER, "v2", *(word for pair in options.items() for word in pair),
         "--no-bettertransformer", "--no-model-warmup"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    address = f"http://127.0.0.1:{port}"
    try:
        start = time.monotonic()
        while not answers(f"{address}/health"):
            assert process.poll() is None, "the server has ended"
            assert time.monotonic() - start < PATIENCE, "the server does not answer"
            time.sleep(0.2)
        yield address
    finally:
        process.terminate()
        process.wait(PATIENCE)


def answers(address: str) -> bool:
    try:
        with urlopen(address, timeout=1):
            return True
    except URLError:
        return False


def scores(rerank: Run, url: str, texts: list[str], *more: str) -> dict[str, float]:
    """The score of each text, by way of this project's own client."""
    arguments = ["-m", "infinity/tiny", "--base-url", url, "refund", "--json", *more]
    outcome = rerank(*arguments, *(word for text in texts for word in ("-d", text)))
    assert (outcome.code, outcome.err) == (0, "")
    results = json.loads(outcome.out)["results"]
    assert [result["relevance_score"] for result in results] == sorted(
        (result["relevance_score"] for result in results), reverse=True
    )
    return {result["document"]["text"]: result["relevance_score"] for result in results}


def test_it_ranks(rerank: Run, url: str) -> None:
    every = scores(rerank, url, TEXTS)
    assert set(every) == set(TEXTS)
    assert len(set(every.values())) == len(TEXTS)
    best = scores(rerank, url, TEXTS, "-n", "2")
    assert list(best) == list(every)[:2]
    for text in TEXTS:
        (alone,) = scores(rerank, url, [text]).values()
        assert alone == pytest.approx(every[text], abs=1e-5)


def test_its_limit_is_kept(rerank: Run, url: str) -> None:
    lines = "".join(f"{number}\n" for number in range(2100)).encode()
    arguments = ["-m", "infinity/tiny", "--base-url", url, "refund", "-v"]
    outcome = rerank(*arguments, stdin=lines)
    assert outcome.code == 0
    assert sorted(outcome.raw.splitlines()) == sorted(lines.splitlines())
    assert "2 requests to infinity; trace infinity-" in outcome.err


def test_a_text_that_is_too_long_for_it_is_cut_here(rerank: Run, url: str) -> None:
    long = "cat " * 31_000
    arguments = ["-m", "infinity/tiny", "--base-url", url, "refund", "--json"]
    outcome = rerank(*arguments, "-d", long, "-d", "a refund")
    results = json.loads(outcome.out)["results"]
    assert {result["document"]["text"]: result["chunks"] for result in results} == {
        long: 2,
        "a refund": 1,
    }
    assert (
        "texts of more than 512 tokens are sent in chunks of up to 122,880 characters"
        in outcome.err
    )


def test_its_own_words_are_told(rerank: Run, url: str) -> None:
    outcome = rerank("-m", "infinity/tiny", "--base-url", f"{url}/nowhere/rerank", "q", "-d", "a")
    assert (outcome.code, outcome.out) == (3, "")
    assert outcome.err.startswith("rerank: infinity: answered 404: Not Found")
    outcome = rerank(
        *("-m", "infinity/tiny", "--base-url", url, "q", "-d", "a"), "--set", "top_n=0"
    )
    assert outcome.code == 3
    assert "answered 422: body.top_n: " in outcome.err


def test_check_finds_it_right(rerank: Run, url: str) -> None:
    report = json.loads(
        rerank("providers", "check", "infinity/tiny", "--base-url", url, "--json").out
    )
    assert report["endpoint"] == f"{url}/rerank"
    assert "results[].relevance_score" in report["fields"]
    assert report["usage"]["total_tokens"] > 0
