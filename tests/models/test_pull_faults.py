"""A Hub, a disk or a process that fails while a model is pulled: no half of one is ever used."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from rerank_cli.models import COPY_FOLDER, OTHER_HUB
from rerank_cli.models.store import Store
from rerank_cli.terminal import format_size
from tests.conftest import ROOT, Run
from tests.support.hub import GRAPH, NAME, REPOSITORY, Fault, Hub, Repository, leftovers

FAULTS: list[tuple[dict[str, Any], str]] = [
    ({GRAPH: Fault(changed=True)}, "its content is not what the Hub says"),
    ({GRAPH: Fault(short=True)}, "model_quantized.onnx"),
    ({"tokenizer.json": Fault(status=404, code="EntryNotFound")}, "is not in the repository"),
    ({"api": Fault(status=500)}, "answered 500"),
    ({"api": Fault(status=403)}, "answered 403"),
]


@pytest.mark.parametrize(("faults", "message"), FAULTS)
def test_what_cannot_be_had_is_said_and_leaves_no_model(
    hub_model: Repository, rerank: Run, faults: dict[str, Any], message: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr("time.sleep", lambda _: None)
    hub_model.faults = {path: Fault(**vars(fault)) for path, fault in faults.items()}
    outcome = rerank("models", "pull", NAME)
    assert outcome.code == 3
    assert message in outcome.err
    assert "Traceback" not in outcome.err
    assert leftovers() == []
    hub_model.faults = {}
    assert rerank("models", "pull", NAME).code == 0
    assert rerank("models", "verify").code == 0


@pytest.mark.usefixtures("hub")
@pytest.mark.parametrize(
    "fault",
    [
        Fault(times=2, cut=5000),
        Fault(times=12, cut=1000),
        Fault(times=2, status=503),
        Fault(times=1, status=429),
        Fault(times=1, cut=3000, rangeless=True),
    ],
    ids=["cut", "cut often", "503", "429", "no ranges"],
)
def test_what_passes_is_waited_for(
    hub_model: Repository, rerank: Run, fault: Fault, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.sleep", lambda _: None)
    hub_model.faults = {GRAPH: fault}
    assert len(hub_model.files[GRAPH]) > 5000
    outcome = rerank("models", "pull", NAME)
    assert outcome.code == 0, outcome.err
    assert rerank("models", "verify").code == 0


def test_a_server_that_is_never_there_is_given_up(
    hub: Hub, hub_model: Repository, rerank: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    wait_seconds: list[float] = []
    monkeypatch.setattr("time.sleep", wait_seconds.append)
    hub_model.faults = {GRAPH: Fault(cut=0)}
    outcome = rerank("models", "pull", NAME)
    assert (outcome.code, outcome.out) == (3, "")
    assert "kept" not in outcome.err  # nothing came
    assert "hint: without HF_ENDPOINT https://huggingface.co is asked; or copy the" in outcome.err
    assert hub.count_fetches(GRAPH) == 5
    assert sum(wait_seconds) == 1 + 2 + 4 + 8


ADVICE: list[Any] = [
    ({"api": Fault(status=403)}, "set HF_TOKEN to a token of yours that may read it; if"),
    ({GRAPH: Fault(short=True)}, ""),
    ({"config.json": Fault(status=404)}, ""),
    *(
        pytest.param(faults, advice, marks=pytest.mark.slow)
        for faults, advice in [
            ({"api": Fault(status=500)}, "try again later; "),
            ({"api": Fault(status=404)}, ""),
            ({GRAPH: Fault(status=403)}, "set HF_TOKEN"),
            ({GRAPH: Fault(times=1000, cut=0)}, ""),
            ({GRAPH: Fault(times=1000, cut=5000, rangeless=True)}, ""),
            ({"config.json": Fault(status=500)}, "try again later; "),
        ]
    ),
]


@pytest.mark.usefixtures("hub")
@pytest.mark.parametrize(("faults", "advice"), ADVICE)
def test_what_is_said_to_be_kept_is_what_is_not_fetched_again(
    hub_model: Repository, rerank: Run, faults: dict[str, Any], advice: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr("time.sleep", lambda _: None)
    hub_model.faults = {path: Fault(**vars(fault)) for path, fault in faults.items()}
    outcome = rerank("models", "pull", NAME)
    hint = outcome.err.partition("\nhint: ")[2]
    assert outcome.code == 3
    assert advice in hint
    assert hint.rstrip().endswith(
        f"without HF_ENDPOINT https://huggingface.co is asked; {COPY_FOLDER}"
    )
    parts = [part.size for part in Store.usual().parts(NAME)]
    message = (
        f"{format_size(parts[0])} are kept: the same command fetches the other " if parts else ""
    )
    assert hint.startswith(message)
    assert ("kept" in hint) == bool(parts)
    listing = rerank("models").out
    assert (f"{NAME}:int8\tpartly\t{format_size(sum(parts))}\t" in listing) == bool(parts)
    hub_model.faults = {}
    again = rerank("models", "pull", NAME)
    assert again.code == 0
    assert (f"{format_size(sum(parts))} are here, " in again.err) == bool(parts)
    assert Store.usual().parts() == []


def know_no_name(*_: object, **__: object) -> None:
    raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")


def test_without_a_network_nothing_is_kept_that_was_not_fetched(
    rerank: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")  # where nobody listens
    outcome = rerank("models", "pull", NAME)
    assert outcome.code == 3
    assert outcome.err == (
        "rerank: Xenova/bge-reranker-base: cannot be fetched from http://127.0.0.1:9: "
        "Connection refused\n\nhint: is there a network? HTTPS_PROXY is for a proxy; without "
        f"HF_ENDPOINT https://huggingface.co is asked; {COPY_FOLDER}\n"
    )
    monkeypatch.delenv("HF_ENDPOINT")
    monkeypatch.setenv("NO_PROXY", "huggingface.co")
    monkeypatch.setattr(socket, "getaddrinfo", know_no_name)
    assert f"proxy; {OTHER_HUB}; {COPY_FOLDER}\n" in rerank("models", "pull", NAME).err


@pytest.mark.usefixtures("hub")
def test_what_an_earlier_pull_has_fetched_is_said_without_a_network(
    hub_model: Repository, rerank: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.sleep", lambda _: None)
    hub_model.faults = {"config.json": Fault(status=500)}
    assert rerank("models", "pull", NAME).code == 3
    [part] = Store.usual().parts()
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    outcome = rerank("models", "pull", NAME)
    assert f"hint: {format_size(part.size)} are kept from an earlier pull; is there" in outcome.err
    remove_outcome = rerank("models", "rm", NAME)
    assert remove_outcome.err == f"{NAME}:int8: removed what was fetched of it\n"
    assert rerank("models", "rm", NAME).code == 3
    assert Store.usual().parts() == []


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="there is no such signal")
def test_ctrl_c_says_what_is_kept(hub: Hub, hub_model: Repository) -> None:
    large = hub_model.files[GRAPH] + b"\xc2\x0c\x80\x80\x40" + bytes(1 << 20)
    hub.add(REPOSITORY, {**hub_model.files, GRAPH: large}, faults={GRAPH: Fault(slow=0.002)})
    process = start_pull()
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and not has_part(Store.usual().root):
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate()
    [part] = Store.usual().parts()
    assert process.returncode == 130
    assert f"{NAME}:int8: stopped; {format_size(part.size)} are kept: the same" in err.decode()


def test_a_proxy_that_cannot_be_used_is_an_error(
    rerank: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub

    monkeypatch.setenv("ALL_PROXY", "socks5://127.0.0.1:1")
    huggingface_hub.close_session()  # it asks for a proxy when it opens one
    outcome = rerank("models", "pull", NAME)
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err.startswith("rerank: a proxy that cannot be used: ")


def start_pull(*arguments: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "rerank_cli", "models", "pull", NAME, *arguments],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT,
    )  # fmt: skip


@pytest.mark.slow
def test_two_pulls_at_once_end_in_one_good_copy(
    hub: Hub, hub_model: Repository, rerank: Run
) -> None:
    hub_model.faults = {GRAPH: Fault(slow=0.005)}
    both = [start_pull(), start_pull()]
    outcome = [process.communicate(timeout=60) for process in both]
    assert [process.returncode for process in both] == [0, 0], outcome
    assert outcome[0][0] == outcome[1][0]
    assert hub.count_fetches(GRAPH) == 1
    assert rerank("models", "verify").code == 0


def has_part(root: Path) -> bool:
    """Whether some bytes of a file are there, and not all."""
    return any(path.stat().st_size for path in root.rglob("*.part"))


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="there is no such signal")
@pytest.mark.parametrize("path", [GRAPH, "tokenizer.json", "config.json"])
def test_a_pull_that_is_killed_goes_on(
    hub: Hub, hub_model: Repository, rerank: Run, path: str
) -> None:
    # A field that no graph has makes the file large.
    large = hub_model.files[GRAPH] + b"\xc2\x0c\x80\x80\x40" + bytes(1 << 20)
    hub_model = hub.add(REPOSITORY, {**hub_model.files, GRAPH: large})
    hub_model.faults = {path: Fault(slow=0.002 if path == GRAPH else 5)}
    process = start_pull()
    deadline = time.monotonic() + 30
    while not hub.count_fetches(path) and time.monotonic() < deadline:
        time.sleep(0.01)
    root = Store.usual().root
    while path == GRAPH and time.monotonic() < deadline and not has_part(root):
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert Store.usual().models() == []
    assert leftovers() == []
    hub_model.faults = {}
    assert rerank("models", "pull", NAME).code == 0
    assert rerank("models", "verify").code == 0
    if path == GRAPH:  # from where it was
        ranges = [
            about.get("Range")
            for _, request_path, about in hub.requests
            if request_path.startswith("/cdn")
        ]
        assert any(range_header and range_header != "bytes=0-" for range_header in ranges)


@pytest.mark.slow
@pytest.mark.usefixtures("hub", "hub_model")
@pytest.mark.skipif(not shutil.which("unshare") or os.name == "nt", reason="no way to fill a disk")
def test_a_full_disk_is_said_and_nothing_is_installed() -> None:
    script = (
        "mkdir -p full && mount -t tmpfs -o size=64k tmpfs full && "
        f"RERANK_HOME=$PWD/full {sys.executable} -m rerank_cli models pull {NAME}"
    )
    process = subprocess.run(
        ["unshare", "-rm", "sh", "-c", f"cd $(mktemp -d) && export PYTHONPATH={ROOT} && {script}"],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    if "unshare" in process.stderr or "mount" in process.stderr:
        pytest.skip("no mounts are allowed here")
    assert process.returncode == 3
    assert "free, and" in process.stderr or "no space is left" in process.stderr


@pytest.mark.usefixtures("hub_model")
@pytest.mark.parametrize("damage", ["flip", "cut", "gone"])
def test_what_was_damaged_is_found(rerank: Run, damage: str) -> None:
    folder = Path(rerank("models", "pull", NAME).out.strip())
    path = folder / "tokenizer.json"
    content = path.read_bytes()
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes(content[:-1] if damage == "cut" else content[:-1] + b"?")
    verify_outcome = rerank("models", "verify", NAME)
    assert (verify_outcome.code, "1 file is not as pulled" in verify_outcome.err) == (3, True)
    rank_outcome = rerank("refund", "-d", "a", "-m", NAME)
    assert rank_outcome.code == 3
    if damage != "flip":  # which only reading all of it can see
        assert "tokenizer.json" in rank_outcome.err
        assert f"rerank models pull {NAME}:int8" in rank_outcome.err
    assert rerank("models", "pull", NAME).code == 0 or damage == "flip"
