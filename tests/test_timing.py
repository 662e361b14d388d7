"""--timing: of any command, on stderr, and its laps are the whole."""

import re
import time

import pytest

from rerank_cli import progress
from tests.conftest import process

ROW = re.compile(r" *(\d+\.\d{3}) s  (.+)")


@pytest.mark.parametrize(
    "arguments", [["refund", "-d", "a", "-d", "b"], ["providers"], ["--help"], ["config"]]
)
def test_the_laps_of_any_command_are_the_whole(arguments: list[str]) -> None:
    plain = process(*arguments)
    began = time.perf_counter()
    ran = process(*arguments, "--timing")
    took = time.perf_counter() - began
    assert (ran.returncode, ran.stdout) == (plain.returncode, plain.stdout)
    rows = [ROW.fullmatch(line) for line in ran.stderr.decode().splitlines()]
    told = {row[2]: float(row[1]) for row in rows if row}
    assert len(told) == len(rows) > 1
    whole = told.pop("in all")
    assert whole == pytest.approx(sum(told.values()), abs=0.005)
    assert whole < took + 0.02  # what the system tells of the start is exact to 10 ms


def test_a_ranking_has_its_own_laps() -> None:
    ran = process("refund", "README.md", "--timing")  # whose scores take much longer than to ask
    for lap in (progress.STARTING, progress.SCORING):
        assert lap in ran.stderr.decode()


def test_what_comes_after_two_dashes_is_text() -> None:
    ran = process("-d", "a", "-q", "q", "--", "--timing")
    assert ran.returncode == 2
    assert b"--timing: no such file" in ran.stderr
    assert progress.asked(["a", "--", "--timing"]) == (["a", "--", "--timing"], False)
    assert progress.asked(["--timing", "a"]) == (["a"], True)
