"""The file of scores: the same bits come back, room is made, and damage is found and said."""

import os
import random
import shutil
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rerank_cli.scorers import score_file
from rerank_cli.scorers.score_file import DAMAGED_END, FILE_NAME, ScoreFile
from tests.conftest import ROOT


def key_of(number: int) -> bytes:
    return random.Random(number).randbytes(score_file.KEY_BYTES)


def scores_of(count: int, first: int = 0) -> dict[bytes, float]:
    return {key_of(number): number / 7 for number in range(first, first + count)}


def keep(folder: Path, scores: Mapping[bytes, float], model: str = "m@1") -> None:
    """Keep scores, and leave the file closed and whole."""
    file = ScoreFile(folder)
    file.put(scores, model)
    file.close()
    assert not file.problem


class Clock:
    def __init__(self) -> None:
        self.now = 1_000_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def file(tmp_path: Path) -> Iterator[ScoreFile]:
    file = ScoreFile(tmp_path)
    yield file
    file.close()


ODD_SCORES = [0.0, -0.0, 5e-324, -1.7976931348623157e308, 0.1, 1 / 3, 2.0**53 + 1, -3.0]


@pytest.mark.slow
@settings(max_examples=20)
@given(values=st.lists(st.floats(allow_nan=False, allow_infinity=False), max_size=20))
def test_every_score_comes_back_to_the_last_bit(
    tmp_path_factory: pytest.TempPathFactory, values: list[float]
) -> None:
    scores = {key_of(number): value for number, value in enumerate([*values, *ODD_SCORES])}
    folder = tmp_path_factory.mktemp("scores")
    keep(folder, scores)
    file = ScoreFile(folder)
    values_found = file.find([*scores, key_of(-1), *scores])
    file.close()
    assert {key: value.hex() for key, value in values_found.items()} == {
        key: value.hex() for key, value in scores.items()
    }


def test_what_is_not_written_yet_is_found(file: ScoreFile) -> None:
    file.put({key_of(1): 0.5}, "m@1")
    assert file.find([key_of(1), key_of(2)]) == {key_of(1): 0.5}


@pytest.mark.slow
def test_scores_are_written_in_time_without_a_close(tmp_path: Path, file: ScoreFile) -> None:
    file.put(scores_of(3), "m@1")
    other = ScoreFile(tmp_path)
    for _ in range(1000):
        if other.find([key_of(2)]):
            break
        threading.Event().wait(0.05)
    assert other.find([key_of(2)]) == {key_of(2): 2 / 7}
    other.close()


def test_a_file_that_is_read_only_is_not_made(tmp_path: Path) -> None:
    file = ScoreFile(tmp_path / "none", read_only=True)
    file.put(scores_of(1), "m@1")
    assert file.find([key_of(0)]) == {}
    file.close()
    assert not (tmp_path / "none").exists()


def test_models_are_counted(file: ScoreFile) -> None:
    file.put(scores_of(5), "a@1")
    file.put(scores_of(7, first=5), "\ud800")
    file.flush()
    assert [(model.model, model.scores) for model in file.models()] == [("?", 7), ("a@1", 5)]


@pytest.mark.slow
def test_what_was_not_used_longest_goes(tmp_path: Path) -> None:
    clock = Clock()
    file = ScoreFile(tmp_path, max_bytes=400_000, clock=clock)
    for block in range(20):
        clock.now += 4000
        file.put(scores_of(500, first=500 * block), "m@1")
        file.flush()
        file.find([*scores_of(100)])  # in use: these stay
        file.flush()
        assert score_file._used_bytes(file._connection) <= 400_000  # type: ignore[arg-type]
    everything = file.find([*scores_of(10_000)])
    assert scores_of(100).items() <= everything.items()
    assert scores_of(500, first=9500).items() <= everything.items()
    assert not scores_of(300, first=200).keys() & everything.keys()
    file.close()


@pytest.mark.slow
def test_pruning_by_age_and_by_size(tmp_path: Path) -> None:
    clock = Clock()
    file = ScoreFile(tmp_path, clock=clock)
    file.put(scores_of(3000), "m@1")
    file.flush()
    clock.now += 86_400 * 10
    file.put(scores_of(6000, first=3000), "m@1")
    file.flush()
    assert file.prune(1 << 30, unused_seconds=86_400 * 11) == 0
    assert file.prune(1 << 30, unused_seconds=86_400 * 9) == 3000
    size = file.size()
    assert file.prune(size // 2) > 0
    assert file.size() <= size // 2 + 40_000  # the index of the log stays
    rest = file.find([*scores_of(9000)])
    assert rest
    assert rest.items() <= scores_of(9000).items()
    file.clear()
    assert file.find([*scores_of(9000)]) == {}
    assert file.models() == []
    assert file.size() < 70_000
    file.close()


def paths(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} - {".lock", "scores.db-wal", "scores.db-shm"}


DAMAGES: Mapping[str, Callable[[bytes], bytes]] = {
    "no database": lambda _: b"once upon a time" * 100,
    "empty": lambda _: b"",
    "cut": lambda content: content[: len(content) // 2],
    "cut in the head": lambda content: content[:50],
    "zeros": lambda content: content[:4096] + bytes(len(content) - 4096),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_file_is_set_aside_and_said_once(tmp_path: Path, name: str) -> None:
    scores = scores_of(500)
    keep(tmp_path, scores)
    path = tmp_path / FILE_NAME
    path.write_bytes(DAMAGES[name](path.read_bytes()))
    file = ScoreFile(tmp_path)
    for start in range(0, 500, 50):
        keys = [*scores][start : start + 50]
        assert file.find(keys).items() <= scores.items()
    (note,) = file.take_notes()
    assert str(path) in note
    assert FILE_NAME + DAMAGED_END in note
    assert FILE_NAME + DAMAGED_END in paths(tmp_path)
    file.put(scores, "m@1")
    file.close()
    again = ScoreFile(tmp_path)
    assert again.find([*scores]) == scores
    assert not again.take_notes()
    again.close()


def test_another_database_is_set_aside(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / FILE_NAME) as connection:
        connection.execute("CREATE TABLE notes (text)")
    connection.close()
    file = ScoreFile(tmp_path)
    assert file.find([key_of(1)]) == {}
    assert len(file.take_notes()) == 1
    file.close()


@pytest.mark.parametrize("action", [ScoreFile.clear, lambda file: file.prune(1), ScoreFile.flush])
def test_a_head_that_lets_nothing_be_written_is_set_aside(
    tmp_path: Path, action: Callable[[ScoreFile], object]
) -> None:
    keep(tmp_path, scores_of(5))
    flip(tmp_path / FILE_NAME, 18, 4)  # the version that is needed to write it
    file = ScoreFile(tmp_path)
    assert file.find([*scores_of(5)]) == scores_of(5)
    file.put(scores_of(5, first=5), "m@1")
    action(file)
    (note,) = file.take_notes()
    assert FILE_NAME + DAMAGED_END in note
    file.close()
    assert FILE_NAME + DAMAGED_END in paths(tmp_path)
    keep(tmp_path, scores_of(5))


def flip(path: Path, place: int, mask: int = 0x41) -> None:
    with path.open("r+b") as stream:
        stream.seek(place)
        byte = stream.read(1)[0]
        stream.seek(place)
        stream.write(bytes([byte ^ mask]))


def test_a_flipped_byte_in_a_key_or_a_score_is_found_and_said(tmp_path: Path) -> None:
    """Wherever it is in the row: SQLite itself sees none of these."""
    scores = scores_of(400)
    keep(tmp_path / "whole", scores)
    content = (tmp_path / "whole" / FILE_NAME).read_bytes()
    place_of = {key: content.index(key + score_file._SCORE.pack(scores[key])) for key in scores}
    for number, (key, place) in enumerate([*place_of.items()][::9]):
        folder = tmp_path / str(number)
        shutil.copytree(tmp_path / "whole", folder)
        flip(folder / FILE_NAME, place + number % 28, 1 << number % 8)
        file = ScoreFile(folder)
        assert file.find([key]) == {}
        assert len(file.take_notes()) == 1
        assert FILE_NAME + DAMAGED_END in paths(folder)
        file.close()


@pytest.mark.slow
def test_no_flipped_byte_makes_a_wrong_score(tmp_path: Path) -> None:
    scores = scores_of(300)
    keep(tmp_path / "whole", scores)
    content = (tmp_path / "whole" / FILE_NAME).read_bytes()
    random_source = random.Random(5)
    places = [*range(110), *(random_source.randrange(len(content)) for _ in range(300))]
    folder = tmp_path / "flipped"
    found_damage = 0
    for place in places:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        (folder / FILE_NAME).write_bytes(content)
        flip(folder / FILE_NAME, place, 1 << random_source.randrange(8))
        file = ScoreFile(folder)
        values = file.find([*scores])
        assert values.items() <= scores.items(), place
        file.models()
        file.put(scores_of(20, first=1000), "m@1")
        file.flush()
        found_damage += bool(file.take_notes())
        again = file.find([*scores, *scores_of(20, first=1000)])
        assert again.items() <= {**scores, **scores_of(20, first=1000)}.items(), place
        file.close()
    assert found_damage > 50


def test_a_flipped_byte_in_the_log_makes_no_wrong_score(tmp_path: Path) -> None:
    file = ScoreFile(tmp_path / "open")
    scores = scores_of(200)
    for first in range(0, 200, 50):
        file.put(scores_of(50, first), "m@1")
        file.flush()
    size = (tmp_path / "open" / f"{FILE_NAME}-wal").stat().st_size
    for number in range(12):
        folder = tmp_path / str(number)
        folder.mkdir()
        for end in ("", "-wal"):  # as after a crash
            shutil.copy(tmp_path / "open" / (FILE_NAME + end), folder)
        flip(folder / f"{FILE_NAME}-wal", (size * number + 7) // 12)
        other = ScoreFile(folder)
        assert other.find([*scores]).items() <= scores.items()
        other.close()
    file.close()


def test_a_lock_fails_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keep(tmp_path, scores_of(5))
    monkeypatch.setattr(score_file, "_WAIT_SECONDS", 0.01)
    holder = sqlite3.connect(tmp_path / FILE_NAME, isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    file = ScoreFile(tmp_path)
    assert file.find([*scores_of(5)]) == scores_of(5)  # a reader does not wait
    file.put(scores_of(5, first=5), "m@1")
    file.flush(0.05)
    assert file.problem == "another process had locked it"
    (note,) = file.take_notes()
    assert "another process had locked it: scores are not kept" in note
    holder.execute("ROLLBACK")
    holder.close()
    file.flush()
    assert file.problem == ""
    assert len(file.find([*scores_of(10)])) == 10
    file.close()


def test_a_lock_that_readers_wait_for_fails_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep(tmp_path, scores_of(5))
    monkeypatch.setattr(score_file, "_WAIT_SECONDS", 0.01)
    holder = sqlite3.connect(tmp_path / FILE_NAME, isolation_level=None)
    holder.execute("PRAGMA locking_mode = EXCLUSIVE")
    holder.execute("BEGIN IMMEDIATE")
    file = ScoreFile(tmp_path)
    assert file.find([*scores_of(5)]) == {}
    assert file.problem
    assert not file.take_notes()
    holder.close()
    assert file.find([*scores_of(5)]) == scores_of(5)
    file.close()


def test_a_full_disk_is_said_once(tmp_path: Path) -> None:
    file = ScoreFile(tmp_path)
    file.put(scores_of(10), "m@1")
    file.flush()
    assert file._connection is not None
    file._connection.execute("PRAGMA max_page_count = 12")
    file.put(scores_of(5000, first=10), "m@1")
    file.flush()
    file.put(scores_of(5000, first=10), "m@1")
    file.flush()
    (note,) = file.take_notes()
    assert "full" in note
    assert file.find([key_of(1)]) == {}
    file.close()
    assert FILE_NAME + DAMAGED_END not in paths(tmp_path)
    again = ScoreFile(tmp_path)
    assert again.find([*scores_of(10)]) == scores_of(10)
    again.close()


def test_a_place_that_is_no_folder_is_said_once(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file")
    file = ScoreFile(tmp_path / "taken" / "scores")
    assert file.find([key_of(1)]) == file.find([key_of(2)]) == {}
    file.put(scores_of(3), "m@1")
    (note,) = file.take_notes()
    assert "scores are not kept" in note
    file.close()


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write")
def test_a_folder_that_may_not_be_written_is_said_once(tmp_path: Path) -> None:
    keep(tmp_path, scores_of(3))
    tmp_path.chmod(0o500)
    file = ScoreFile(tmp_path)
    assert file.find([key_of(1)]) == {}
    (note,) = file.take_notes()
    assert "cannot be written" in note
    file.close()
    tmp_path.chmod(0o700)


def test_without_a_home_nothing_is_kept() -> None:
    file = ScoreFile(None)
    file.put(scores_of(3), "m@1")
    assert file.find([*scores_of(3)]) == {}
    assert (file.models(), file.prune(1), file.take_notes()) == ([], 0, ())
    file.close()


def test_what_another_process_has_set_aside_is_let_go(tmp_path: Path) -> None:
    keep(tmp_path, scores_of(5))
    file = ScoreFile(tmp_path)
    assert file.find([key_of(1)])
    (tmp_path / FILE_NAME).replace(tmp_path / "elsewhere")
    keep(tmp_path, scores_of(5, first=5))
    file.put(scores_of(5, first=10), "m@1")
    file.flush()
    assert file.find([*scores_of(15)]).keys() == scores_of(10, first=5).keys()
    assert not file.take_notes()
    file.close()
    other = ScoreFile(tmp_path)
    assert other.find([*scores_of(15)]).keys() == scores_of(10, first=5).keys()
    other.close()


def test_threads_share_a_file(file: ScoreFile) -> None:
    wrong: list[object] = []

    def work(number: int) -> None:
        own = scores_of(50, first=50 * (number % 3))
        for _ in range(8):
            file.put(own, f"m@{number}")
            values = file.find([*scores_of(150)])
            if not own.items() <= values.items() <= scores_of(150).items():
                wrong.append(values)

    threads = [threading.Thread(target=work, args=[number]) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@pytest.mark.slow
def test_twenty_processes_share_a_file(tmp_path: Path) -> None:
    code = """
import sys
from pathlib import Path
from rerank_cli.scorers.score_file import ScoreFile
from tests.scorers.test_score_file import scores_of
number = int(sys.argv[2])
file = ScoreFile(Path(sys.argv[1]), max_bytes=2_000_000)
for turn in range(5):
    scores = scores_of(300, first=100 * ((number + turn) % 10))
    known_scores = file.find([*scores])
    assert known_scores.items() <= scores.items(), "a wrong score"
    file.put({key: scores[key] for key in scores.keys() - known_scores.keys()}, f"m@{number % 3}")
    file.flush()
file.close()
assert not file.problem, file.problem
assert not file.take_notes()
"""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path / "scores"), str(number)],
            env=environment,
            stderr=subprocess.PIPE,
        )
        for number in range(20)
    ]
    messages = [process.communicate()[1].decode() for process in processes]
    assert messages == [""] * 20
    assert [process.returncode for process in processes] == [0] * 20
    file = ScoreFile(tmp_path / "scores")
    assert file.find([*scores_of(1200)]) == scores_of(1200)
    file.close()
    with closing(sqlite3.connect(file.path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
