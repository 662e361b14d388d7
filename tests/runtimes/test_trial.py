"""A model's first opening: harm that it does is done to a process of its own, and is told."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from rerank_cli.errors import ModelError, OutOfMemory
from rerank_cli.runtimes import Runtime, RuntimeOptions, network
from rerank_cli.runtimes.prepared_cache import PreparationError
from rerank_cli.scorers import open_scorer
from tests.conftest import MODELS, ROOT, Run
from tests.support import tasks
from tests.support.folders import copy_model, with_loop, with_too_much
from tests.support.tasks import trial

pytestmark = pytest.mark.trial
ON_LINUX = pytest.mark.skipif(sys.platform != "linux", reason="other systems limit no memory")


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RERANK_PREPARED", str(tmp_path / "prepared"))
    return tmp_path / "prepared"


def test_it_runs_in_another_process_unless_the_model_is_trusted(tmp_path: Path) -> None:
    trial().run(tasks.note_process, tmp_path / "child")
    trial(is_trusted=True).run(tasks.note_process, tmp_path / "parent")
    assert (tmp_path / "child").read_text() != str(os.getpid())
    assert (tmp_path / "parent").read_text() == str(os.getpid())


def test_errors_are_those_of_the_function() -> None:
    with pytest.raises(ModelError, match=r"^some.file: refused$") as error_info:
        trial().run(tasks.refuse)
    assert error_info.value.hint == "try another"
    with pytest.raises(PreparationError, match=r"^some.file: not now$"):
        trial().run(tasks.put_off)
    with pytest.raises(ModelError, match=r"^some.file: cannot be opened: line one line two$"):
        trial().run(tasks.fail)


@pytest.mark.skipif(os.name == "nt", reason="there are no signals")
def test_a_crash_is_told() -> None:
    with pytest.raises(
        ModelError, match=r"^some.file: the process that opened it ended by SIGABRT"
    ):
        trial().run(tasks.crash)


@pytest.mark.slow
def test_it_has_a_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network, "_OPENING_SECONDS", 1.0)
    with pytest.raises(ModelError, match=r"^some.file: was still being opened after 0:00:01"):
        trial().run(tasks.wait)


@pytest.mark.slow
def test_a_task_may_be_allowed_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network, "_OPENING_SECONDS", 4.0)
    trial().run(tasks.ask_for_more)


@ON_LINUX
def test_it_has_a_limit_of_memory() -> None:
    with pytest.raises(ModelError, match=r"^some.file: takes more than 2.15 GB of memory to open$"):
        trial().run(tasks.fill_memory)


@ON_LINUX
def test_that_this_process_has_too_little_is_not_put_down_to_the_model(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(network, "_has_less_memory", lambda _: True)
    with pytest.raises(OutOfMemory):
        trial().run(tasks.fill_memory)


def test_what_libraries_print_is_not_shown(capfd: pytest.CaptureFixture[str]) -> None:
    trial().run(tasks.print_much)
    assert capfd.readouterr() == ("", "")


def test_where_there_can_be_no_child_it_runs_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    not_python = tmp_path / "not_python"
    not_python.write_text("#!/bin/sh\nexit 3\n")
    not_python.chmod(0o755)
    for executable in ("", str(tmp_path / "nothing"), str(not_python)):
        monkeypatch.setattr(sys, "executable", executable)
        trial().run(tasks.note_process, tmp_path / "child")
        assert (tmp_path / "child").read_text() == str(os.getpid())


def test_modules_of_the_working_directory_are_not_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("pickle", "json", "numpy", "rerank_cli"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('imported')\n")
    monkeypatch.chdir(tmp_path)
    trial().run(tasks.note_process, tmp_path / "child")
    assert (tmp_path / "child").read_text() != str(os.getpid())


@pytest.mark.skipif(os.name == "nt", reason="there is no SIGKILL")
def test_it_ends_with_its_parent(tmp_path: Path) -> None:
    code = (
        "import pathlib; from tests.support.tasks import trial, leave_and_wait;"
        f"trial().run(leave_and_wait, pathlib.Path({str(tmp_path / 'child')!r}))"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT)
    until = time.monotonic() + 30
    while not (child_path := (tmp_path / "child")).exists() or not child_path.read_text():
        assert time.monotonic() < until
        time.sleep(0.02)
    child = int(child_path.read_text())
    parent.kill()
    parent.wait()
    while is_running(child):
        assert time.monotonic() < until
        time.sleep(0.02)


def is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    stat = Path(f"/proc/{process}/stat")
    return not (stat.exists() and stat.read_text().rpartition(")")[2].split()[0] == "Z")


@pytest.mark.slow
def test_a_model_is_tried_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    processes = []

    class CountedProcess(subprocess.Popen[bytes]):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            processes.append(self)
            super().__init__(*arguments, **options)

    monkeypatch.setattr(subprocess, "Popen", CountedProcess)
    for folder in (MODELS / "bert", MODELS / "bert", copy_model("bert", tmp_path)):
        open_scorer(str(folder))
        assert len(processes) == 2  # the graph and the tokenizer
    open_scorer("mini")
    assert len(processes) == 2
    monkeypatch.setenv("RERANK_PREPARED", "off")
    for number in (4, 6):
        open_scorer(str(MODELS / "bert"))
        assert len(processes) == number


@pytest.mark.slow
@pytest.mark.parametrize(
    "prepared_setting", ["prepared", pytest.param("off", marks=pytest.mark.slow)]
)
def test_a_graph_that_never_ends_is_refused(
    prepared_setting: str, tmp_path: Path, rerank: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    if prepared_setting == "off":
        monkeypatch.setenv("RERANK_PREPARED", "off")
    monkeypatch.setattr(network, "_OPENING_SECONDS", 3.0)
    folder = with_loop(tmp_path)
    outcome = rerank("-m", str(folder), "late", "-d", "the parcel is late")
    assert (outcome.code, outcome.out) == (3, "")
    assert outcome.err.startswith(
        f"rerank: {folder}/model.onnx: was still being opened after 0:00:03"
    )
    assert len(outcome.err.splitlines()) == 3


@ON_LINUX
@pytest.mark.parametrize(
    "prepared_setting", ["prepared", pytest.param("off", marks=pytest.mark.slow)]
)
def test_a_graph_that_takes_all_memory_is_refused(
    prepared_setting: str, tmp_path: Path, rerank: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    if prepared_setting == "off":
        monkeypatch.setenv("RERANK_PREPARED", "off")
    folder = with_too_much(tmp_path)
    outcome = rerank("-m", str(folder), "late", "-d", "the parcel is late")
    assert (outcome.code, outcome.out) == (3, "")
    assert outcome.err.startswith(f"rerank: {folder}/model.onnx: takes more than 2.15 GB of memory")


@pytest.mark.slow
def test_openvino_opens_a_model_there_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("openvino", reason="needs the extra openvino")
    runtime = RuntimeOptions(Runtime.OPENVINO)
    first = open_scorer(str(MODELS / "bert"), runtime=runtime)
    assert first.prepared_path is not None  # type: ignore[attr-defined]
    monkeypatch.setattr(network, "_OPENING_SECONDS", 5.0)
    with pytest.raises(ModelError, match=r"model\.onnx: "):
        open_scorer(str(with_loop(tmp_path)), runtime=runtime)


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="Windows sends no SIGINT")
@pytest.mark.parametrize("work", ["a graph", "a tokenizer"])
def test_ctrl_c_ends_at_once_what_a_model_does(work: str, tmp_path: Path) -> None:
    """A graph that never ends for long pairs, and a text that takes long to be cut into tokens."""
    folder = with_loop(tmp_path, 300) if work == "a graph" else copy_model("bert", tmp_path)
    words = 400 if work == "a graph" else 6_000_000
    (tmp_path / "text.txt").write_text("a parcel " * words)
    (folder / "config.json").write_text('{"max_position_embeddings": 512}')
    command = [sys.executable, "-m", "rerank_cli", "-m", str(folder), "late", "--max-document"]
    command += ["1G", "--chunk-tokens", "400", "--unit", "file", str(tmp_path / "text.txt")]
    open_scorer(str(folder))
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE) as process:
        while processor_seconds(process) < 2:  # more than it takes to start
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=30) == 130


def processor_seconds(process: "subprocess.Popen[bytes]") -> int:
    """The whole seconds of processor time that a process has had."""
    assert process.poll() is None
    command = ["ps", "-o", "time=", "-p", str(process.pid)]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    *_, minutes, seconds = output.strip().split(":")
    return 60 * int(minutes) + int(float(seconds))


@ON_LINUX
@pytest.mark.parametrize("megabytes", [100, 200, 300])
def test_too_little_memory_is_told_in_one_line(megabytes: int) -> None:
    """Less than what libraries take that end the process without it."""
    code = (
        "import resource, sys; size = int(sys.argv.pop(1)) << 20;"
        "resource.setrlimit(resource.RLIMIT_AS, (size, size));"
        "from rerank_cli.__main__ import main; main()"
    )
    arguments = [str(megabytes), "late", "-d", "the parcel is late"]
    process = subprocess.run(
        [sys.executable, "-c", code, *arguments], cwd=ROOT, capture_output=True, text=True
    )
    assert (process.returncode, process.stdout) == (3, "")
    assert process.stderr.startswith("rerank: there is too little memory for this\n")
    assert len(process.stderr.splitlines()) == 3


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="there is no limit of sizes")
@pytest.mark.parametrize("kib", [0, 2, 8, 64])
def test_a_disk_that_is_full_is_no_fault_of_the_model(kib: int, own_cache: Path) -> None:
    """No file may grow beyond a size, as on a full disk: some part of the copies is not written."""
    command = f'ulimit -f {kib * 2}; exec "$0" -m rerank_cli -m "$1" "$2" --scores'
    process = subprocess.run(
        ["sh", "-c", command, sys.executable, MODELS / "bert", "late parcel"],
        input="the parcel is late\n", capture_output=True, text=True, check=False, timeout=60,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert (process.returncode, process.stderr) == (0, "")
    assert process.stdout.endswith("\tthe parcel is late\n")
    assert not (own_cache / ".making").exists()
