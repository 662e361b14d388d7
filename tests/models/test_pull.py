"""Models by name, from a Hub on loopback: pulled, listed, used, verified and removed."""

import json
import re
import shutil
import subprocess
import sys
from contextlib import AbstractContextManager, suppress
from pathlib import Path

import pytest

from rerank_cli import open_scorer
from rerank_cli.errors import ModelError
from rerank_cli.models import read_name
from rerank_cli.models.pull import describe_plan, fetch_checkpoint, plan_checkpoint
from rerank_cli.models.store import Store
from rerank_cli.terminal import format_size
from tests.conftest import MODELS, ROOT, Outcome, Run, process
from tests.support.hub import GRAPH, NAME, REPOSITORY, Hub, Repository, files_of, leftovers


def test_a_model_is_pulled_listed_used_offline_verified_and_removed(
    hub: Hub, hub_model: Repository, rerank: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pulled = rerank("models", "pull", NAME)
    assert pulled.code == 0
    size = sum(
        len(hub_model.files[name]) for name in hub_model.files if name != "pytorch_model.bin"
    )
    assert pulled.err == (
        f"{NAME}:int8: {format_size(size)}, licence MIT\nfrom {REPOSITORY}@{hub_model.commit[:8]}\n"
    )
    folder = Path(pulled.out.strip())
    assert not any(path.is_symlink() for path in folder.rglob("*"))
    assert (folder / GRAPH).read_bytes() == hub_model.files[GRAPH]
    assert not (folder / "pytorch_model.bin").exists()

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    request_count = len(hub.requests)
    listing = json.loads(rerank("models", "list", "--json").out)
    assert [row["state"] for row in listing if row["name"] == f"{NAME}:int8"] == ["installed"]
    rank_outcome = rerank("refund", "-d", "a", "-d", "refund", "-m", NAME, "--json")
    assert rank_outcome.code == 0, rank_outcome.err
    assert json.loads(rank_outcome.out)["model"] == f"{NAME}:int8@{hub_model.commit[:8]}"
    same = rerank("refund", "-d", "a", "-d", "refund", "-m", str(MODELS / "xlmr"), "--json")
    scores = [
        [row["raw_score"] for row in json.loads(outcome.out)["results"]]
        for outcome in (rank_outcome, same)
    ]
    assert scores[0] == scores[1]

    verify_outcome = rerank("models", "verify")
    assert (verify_outcome.code, verify_outcome.err) == (0, "")
    assert [line.split("\t")[0] for line in verify_outcome.out.splitlines()] == ["ok"] * 4
    assert rerank("models", "use", NAME).code == 0
    assert rerank("config", "get", "model").out == f"{NAME}\n"
    assert json.loads(rerank("refund", "-d", "a", "--json").out)["model"].startswith(NAME)
    assert rerank("models", "path", NAME).out == f"{folder}\n"
    copy = shutil.copytree(folder, tmp_path / "copy")
    assert rerank("refund", "-d", "a", "-m", str(copy)).code == 0
    remove_outcome = rerank("models", "rm", NAME)
    assert remove_outcome.code == 0
    assert f"{NAME} is still what runs use, and is not here now" in remove_outcome.err
    assert leftovers() == ["revisions.json"]
    assert rerank("refund", "-d", "a", "-m", NAME).code == 3
    assert len(hub.requests) == request_count


_LOCK = """
import sys
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from rerank_cli.models.store import ModelManifest, Store
for number in range(20):
    name = f"{sys.argv[2]}-{number}"
    manifest = ModelManifest(name, "int8", "o/r", "c", "main", "", "", "", "", {})
    Store(Path(sys.argv[1])).lock(manifest)
"""


@pytest.mark.slow
def test_what_several_have_locked_at_once_is_all_there(tmp_path: Path) -> None:
    (tmp_path / ".locks").mkdir()
    processes = [
        subprocess.Popen([sys.executable, "-c", _LOCK, str(tmp_path), name], cwd=ROOT)
        for name in "abcd"
    ]
    assert [process.wait(60) for process in processes] == [0] * 4
    names = [f"{name}-{number}" for name in "abcd" for number in range(20)]
    assert all(Store(tmp_path).find_lock(name, "int8") for name in names)


@pytest.mark.usefixtures("hub_model")
def test_what_is_there_is_not_fetched_again(hub: Hub, rerank: Run) -> None:
    first = rerank("models", "pull", NAME)
    fetch_count = hub.count_fetches(GRAPH)
    again = rerank("models", "pull", NAME)
    assert (again.code, again.out) == (0, first.out)
    assert again.err == f"{NAME}:int8: is here already, whole and as the Hub has it\n"
    assert hub.count_fetches(GRAPH) == fetch_count == 1


@pytest.mark.slow
def test_a_commit_is_locked_when_it_is_pulled(hub: Hub, hub_model: Repository, rerank: Run) -> None:
    assert rerank("models", "pull", NAME).code == 0
    model_entry = rerank("models", "show", NAME)
    assert re.search("^scale +logit$", model_entry.out, re.MULTILINE)
    assert f"{REPOSITORY}@{hub_model.commit}, locked" in model_entry.out
    assert "fp32, ~1.1 GB: BAAI/bge-reranker-base; its commit is noted at" in model_entry.out
    newer = hub.add(REPOSITORY, {**files_of(), "README.md": b"newer"})
    assert rerank("models", "rm", NAME).code == 0
    assert "its graph says, when it is pulled" in rerank("models", "show", NAME).out
    pull_outcome = rerank("models", "pull", NAME)  # this Hub has no history
    assert (pull_outcome.code, f"has no revision {hub_model.commit}" in pull_outcome.err) == (
        3,
        True,
    )
    assert rerank("models", "pull", NAME, "--revision", "main").code == 0
    assert newer.commit in rerank("models", "show", NAME).out


def test_content_that_changed_within_a_commit_is_refused(
    hub: Hub, hub_model: Repository, rerank: Run
) -> None:
    assert rerank("models", "pull", NAME).code == 0
    assert rerank("models", "rm", NAME).code == 0
    hub.add(REPOSITORY, {**files_of(), "README.md": b"other"}, commit=hub_model.commit)
    outcome = rerank("models", "pull", NAME)
    assert (outcome.code, "other content than when this commit was pulled" in outcome.err) == (
        3,
        True,
    )
    assert leftovers() == ["revisions.json"]


def test_any_repository_can_be_pulled_by_its_owner(hub: Hub, rerank: Run) -> None:
    hub.add("someone/reranker", files_of("bert", "model_int8.onnx"), licence="cc-by-nc-4.0")
    outcome = rerank("models", "pull", "hf:someone/reranker")
    assert outcome.code == 0, outcome.err
    assert "licence cc-by-nc-4.0, which allows no commercial use" in outcome.err
    rank_outcome = rerank("refund", "-d", "refund", "-m", "hf:someone/reranker", "--json")
    assert json.loads(rank_outcome.out)["model"].startswith("hf:someone/reranker:int8@")
    assert "hf:someone/reranker:int8" in rerank("models").out


def test_weights_are_found_where_the_graph_says_they_are(
    hub: Hub, rerank: Run, tmp_path: Path
) -> None:
    import onnx

    model = onnx.load(MODELS / "xlmr" / "model.onnx")
    onnx.save(
        model, tmp_path / "model.onnx", save_as_external_data=True, location="some-weights.bin",
        size_threshold=0,
    )  # fmt: skip
    files = {**files_of(graph="onnx/other.onnx")}
    files["onnx/model.onnx"] = (tmp_path / "model.onnx").read_bytes()
    files["onnx/some-weights.bin"] = (tmp_path / "some-weights.bin").read_bytes()
    files["onnx/model.onnx_data"] = b"guessed and not named"
    hub.add("BAAI/bge-reranker-base", files)
    outcome = rerank("models", "pull", f"{NAME}:fp32")
    assert outcome.code == 0, outcome.err
    folder = Path(outcome.out.strip())
    names = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert "onnx/some-weights.bin" in names
    assert "onnx/model.onnx_data" not in names
    assert rerank("refund", "-d", "refund", "-m", f"{NAME}:fp32").code == 0


@pytest.mark.parametrize(
    ("features", "file"),
    [
        ({"avx2", "avx512f", "avx512_vnni"}, "onnx/model_qint8_avx512_vnni.onnx"),
        ({"avx2"}, "onnx/model_quint8_avx2.onnx"),
        ({"asimddp"}, "onnx/model_qint8_arm64.onnx"),
        (set(), "onnx/model_quint8_avx2.onnx"),
    ],
)
def test_the_graph_suits_the_processor(
    hub: Hub, rerank: Run, monkeypatch: pytest.MonkeyPatch, features: set[str], file: str
) -> None:
    monkeypatch.setattr("rerank_cli.machine.features", lambda: features)
    graph = files_of("bert")[GRAPH]
    variants = ("qint8_avx512_vnni", "qint8_avx512", "qint8_arm64", "quint8_avx2", "O3", "O4")
    files = {f"onnx/model_{variant}.onnx": graph for variant in variants}
    hub.add("cross-encoder/ms-marco-MiniLM-L6-v2", {**files_of("bert", "onnx/model.onnx"), **files})
    outcome = rerank("models", "pull", "ms-marco-MiniLM-L-6-v2")
    assert outcome.code == 0, outcome.err
    assert (Path(outcome.out.strip()) / file).is_file()


def test_who_may_not_read_is_told_how_to(hub: Hub, rerank: Run) -> None:
    hub.add("a/gated", files_of(), gated=True)
    hub.add("a/private", files_of(), private=True)
    pull_outcome = rerank("models", "pull", "hf:a/gated")
    assert (pull_outcome.code, "agree to its terms" in pull_outcome.err) == (3, True)
    for name in ("hf:a/private", "hf:a/nothing"):
        outcome = rerank("models", "pull", name)
        assert (outcome.code, "no such model, or you may not see it" in outcome.err) == (3, True)


def test_a_token_opens_what_is_private_and_is_not_shown(
    hub: Hub, rerank: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", Hub.token)
    hub.add("a/private", files_of(), private=True)
    outcome = rerank("models", "pull", "hf:a/private")
    assert outcome.code == 0, outcome.err
    assert Hub.token not in outcome.err + outcome.out


def test_a_repository_without_a_graph_says_how_to_export(hub: Hub, rerank: Run) -> None:
    hub.add("a/torch", {"config.json": b"{}", "model.safetensors": b"1"})
    outcome = rerank("models", "pull", "hf:a/torch")
    assert outcome.code == 3
    assert "rerank: a/torch has no ONNX graph\n" in outcome.err
    assert "rerank models export hf:a/torch ./FOLDER" in outcome.err


def test_a_repository_whose_graph_is_elsewhere_says_its_models_name(hub: Hub, rerank: Run) -> None:
    hub.add("BAAI/bge-reranker-v2-m3", {"config.json": b"{}", "model.safetensors": b"1"})
    outcome = rerank("models", "pull", "hf:BAAI/bge-reranker-v2-m3")
    assert (outcome.code, "has no ONNX graph\n" in outcome.err) == (3, True)
    assert (
        "hint: rerank models pull bge-reranker-v2-m3 has one from elsewhere; or make" in outcome.err
    )


@pytest.mark.usefixtures("rerank")
def test_a_checkpoint_stays_until_it_was_used(hub: Hub) -> None:
    hub.add("a/torch", {"config.json": b"{}", "model.safetensors": b"1" * 3000, "x.bin": b"no"})
    store, reference = Store.usual(), read_name("hf:a/torch")
    plan = plan_checkpoint(reference, store)
    assert describe_plan(plan, store).startswith("hf:a/torch: 3.01 kB, licence mit\nfrom a/torch@")

    def fetch() -> AbstractContextManager[Path]:
        return fetch_checkpoint(plan, store, on_wait=lambda: None, watch=lambda _: None)

    with suppress(ModelError), fetch() as folder:
        assert {path.name for path in folder.iterdir()} == {"config.json", "model.safetensors"}
        raise ModelError("broken")
    assert [(part.name, part.precision) for part in store.parts()] == [("hf:a/torch", "checkpoint")]
    assert describe_plan(plan, store).endswith("3.01 kB are here, 0 bytes are left")
    with fetch():
        pass
    assert hub.count_fetches("model.safetensors") == 1
    assert store.parts() == []


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("./nofolder", "./nofolder: no such folder\n\nhint: name a folder that transformers saved"),
        ("bge-reranker-v2-m3", "no such folder\n\nhint: did you mean hf:BAAI/bge-reranker-v2-m3?"),
        ("BAAI/bge-gemma", "no such folder\n\nhint: did you mean hf:BAAI/bge-gemma?"),
        ("README.md", "README.md: not a folder\n\nhint: name the folder that it is in"),
    ],
)
def test_what_is_no_folder_to_export_is_said_before_libraries_are_needed(
    source: str, message: str, rerank: Run, tmp_path: Path
) -> None:
    outcome = rerank("models", "export", source, str(tmp_path / "out"))
    assert (outcome.code, message in outcome.err) == (2, True)


def test_a_repository_without_a_tokenizer_is_refused(hub: Hub, rerank: Run) -> None:
    files = files_of(graph="model.onnx")
    del files["tokenizer.json"]
    hub.add("a/half", files)
    outcome = rerank("models", "pull", "hf:a/half")
    assert (outcome.code, "has no tokenizer.json" in outcome.err) == (3, True)


@pytest.mark.usefixtures("hub_model")
@pytest.mark.parametrize("variable", ["HF_HUB_OFFLINE", "RERANK_OFFLINE", ""])
def test_offline_nothing_is_asked_for(
    hub: Hub, rerank: Run, variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    option = [] if variable else ["--offline"]
    if variable:
        monkeypatch.setenv(variable, "1")
    for command in (["models", "pull", NAME], ["refund", "-d", "a", "-m", NAME, "--pull"]):
        outcome = rerank(*command, *option)
        assert outcome.code == 3
        assert "bge-reranker-base/" in outcome.err or "bge-reranker-base is not" in outcome.err
        assert (variable or "--offline") in outcome.err or variable == "RERANK_OFFLINE"
    assert hub.requests == []


@pytest.mark.usefixtures("hub_model")
def test_a_name_that_is_not_there_says_what_to_run(rerank: Run) -> None:
    outcome = rerank("refund", "-d", "a", "-m", NAME, stdin=b"")
    assert outcome.code == 3
    assert f"{NAME} is not installed" in outcome.err
    assert f"rerank models pull {NAME} fetches it (~280 MB), and so does --pull" in outcome.err


@pytest.mark.usefixtures("hub_model")
def test_with_pull_it_is_fetched_and_used(rerank: Run) -> None:
    outcome = rerank("refund", "-m", NAME, "--pull", "--json", stdin=b"refund\n")
    assert outcome.code == 0, outcome.err
    assert "licence MIT" in outcome.err
    assert json.loads(outcome.out)["model"].startswith(NAME)


def answer_prompt(rerank: Run, monkeypatch: pytest.MonkeyPatch, answer: str) -> Outcome:
    monkeypatch.setattr("tests.conftest.Stream.readline", lambda _: answer)
    return rerank("refund", "-d", "refund", "-m", NAME, terminal=80)


@pytest.mark.usefixtures("hub_model")
def test_at_a_terminal_it_is_asked_for(
    hub: Hub, rerank: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    no = answer_prompt(rerank, monkeypatch, "\n")
    assert (no.code, "fetch it? [y/N]" in no.err) == (3, True)
    assert hub.count_fetches(GRAPH) == 0
    yes = answer_prompt(rerank, monkeypatch, "y\n")
    assert (yes.code, hub.count_fetches(GRAPH)) == (0, 1)


def test_at_a_terminal_without_a_network_it_is_said_to_be_missing(
    rerank: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    outcome = answer_prompt(rerank, monkeypatch, "y\n")
    assert outcome.code == 3
    words = " ".join(outcome.err.split())
    assert f"rerank: {NAME} is not installed, and cannot be pulled: {REPOSITORY}: cannot" in words


def test_from_python_a_model_that_is_there_is_opened(hub_model: Repository, rerank: Run) -> None:
    rerank("models", "pull", NAME)
    assert open_scorer(NAME).info.model == f"{NAME}:int8@{hub_model.commit[:8]}"


@pytest.mark.slow
def test_the_usual_start_touches_no_hub() -> None:
    code = (
        "import sys; from rerank_cli.cli import app; app.run(['refund', '-d', 'a']);"
        "print(*sys.modules)"
    )
    outcome = process(python=("-c", code))
    assert b"huggingface_hub" not in outcome.stdout
    assert b"rerank_cli.models.hub" not in outcome.stdout
