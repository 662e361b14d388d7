"""Models that were pulled, and what has become of their files since; listings of odd Hubs."""

import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rerank_cli.models.store import File, ModelManifest, Store
from tests.conftest import Run
from tests.support.hub import GRAPH, NAME, REPOSITORY, Hub, files_of

ARGUMENTS = ("refund", "-d", "a refund", "-d", "b", "-m", NAME, "--scores")
OTHER = "hf:acme/reranker"
DEEP = "[" * 100_000 + "]" * 100_000


@pytest.fixture
def model_folder(hub: Hub, rerank: Run) -> Path:
    """The folder of a model."""
    hub.add(REPOSITORY, files_of())
    outcome = rerank("models", "pull", NAME)
    assert outcome.code == 0
    return Path(outcome.out.strip())


def flip(path: Path) -> None:
    """Change a byte in place, and set the times back."""
    status, content = path.stat(), bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("prepared_setting", "is_warm"), [("on", False), ("on", True), ("off", False)]
)
@pytest.mark.parametrize("name", [GRAPH, "tokenizer.json", "config.json"])
def test_what_was_damaged_in_place_is_refused_and_pull_mends_it(
    name: str, prepared_setting: str, is_warm: bool, model_folder: Path, hub: Hub, rerank: Run,
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setenv("RERANK_PREPARED", "off" if prepared_setting == "off" else str(tmp_path))
    expected = rerank(*ARGUMENTS) if is_warm else None
    flip(model_folder / name)
    outcome = rerank(*ARGUMENTS)
    assert (outcome.code, outcome.out) == (3, "")
    error, _, hint = outcome.err.partition("\n\n")
    assert str(model_folder / name) in error
    assert "SHA-256" in error
    assert f"rerank models pull {NAME}:int8" in hint
    assert "rerank models verify" in hint
    verify_outcome = rerank("models", "verify")
    assert (verify_outcome.code, f"rerank models pull {NAME}:int8" in verify_outcome.err) == (
        3,
        True,
    )
    counts = {path: hub.count_fetches(path) for path in (GRAPH, "tokenizer.json", "config.json")}
    assert rerank("models", "pull", NAME).code == 0
    for path, count in counts.items():  # the others are as they were
        assert hub.count_fetches(path) - count == (path == name)
    assert rerank("models", "verify").code == 0
    outcome = rerank(*ARGUMENTS)
    assert outcome.code == 0
    assert expected is None or outcome.out == expected.out


def test_a_file_that_was_put_beside_a_pulled_model_is_refused(
    model_folder: Path, rerank: Run
) -> None:
    (model_folder / "tokenizer_config.json").write_text('{"model_max_length": 20}')
    outcome = rerank(*ARGUMENTS)
    assert (outcome.code, "is none of the files of" in outcome.err) == (3, True)


def replace_by(make: Callable[[Path], object]) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        path.unlink()
        make(path)

    return damage


def change_fields(**changes: Any) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))

    return damage


def write_text(text: str) -> Callable[[Path], object]:
    return lambda path: path.write_text(text)


HASH = "0" * 64
DAMAGES: dict[str, Callable[[Path], object]] = {
    "nothing in it": write_text(""),
    "cut off": lambda path: os.truncate(path, 100),
    "deep": write_text(DEEP),
    "deep within": write_text(f'{{"files": {DEEP}}}'),
    "no object": write_text("[1]"),
    "another version": change_fields(schema=2),
    "another name": change_fields(name="bge-reranker-large"),
    "a name that is none": change_fields(name=7),
    "another precision": change_fields(precision="fp32"),
    "a graph that is none": change_fields(graph=["a"]),
    "a graph elsewhere": change_fields(graph="../../x.onnx"),
    "no files": change_fields(files=None),
    "files of a list": change_fields(files=[1]),
    "a file that is none": change_fields(files={GRAPH: 7}),
    "a size that is none": change_fields(files={GRAPH: {"size": "1", "sha256": HASH}}),
    "a hash that is none": change_fields(files={GRAPH: {"size": 1, "sha256": "x"}}),
    "a hash of a number": change_fields(files={GRAPH: {"size": 1, "sha256": 7}}),
    "a file elsewhere": change_fields(files={"../x": {"size": 1, "sha256": HASH}}),
    "a name with a NUL": change_fields(files={"a\0": {"size": 1, "sha256": HASH}}),
    "a folder": replace_by(lambda path: path.mkdir()),
}
if sys.platform != "win32":
    DAMAGES |= {
        "a pipe": replace_by(os.mkfifo),
        "without an end": replace_by(lambda path: path.symlink_to("/dev/zero")),
        "a link to nothing": replace_by(lambda path: path.symlink_to("nowhere")),
    }


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_manifest_is_one_that_says_nothing(damage: str, tmp_path: Path) -> None:
    store = Store(tmp_path)
    manifest = ModelManifest(
        NAME, "int8", REPOSITORY, "c", "main", "", "", GRAPH, "", {GRAPH: File(1, HASH)}
    )
    with store.stage_model(NAME, "int8", lambda: None) as staging:
        (staging / GRAPH).parent.mkdir()
        (staging / GRAPH).write_bytes(b"1")
        assert store.adopt(staging, manifest).manifest == store.models()[0].manifest == manifest
    DAMAGES[damage](tmp_path / NAME / "int8" / "manifest.json")
    assert store.models() == []
    folders = store.folders()
    assert [(model.name, model.precision) for model in folders] == (
        [] if damage == "a link to nothing" else [(NAME, "int8")]
    )
    assert all("\n" not in str(model.damage()) for model in folders)


@pytest.mark.slow
@pytest.mark.parametrize("damage", ["deep", "another name", "a folder", "a link to nothing"])
def test_one_damaged_manifest_is_no_matter_for_other_models(
    damage: str, model_folder: Path, hub: Hub, rerank: Run
) -> None:
    hub.add("acme/reranker", files_of("bert", "model_int8.onnx"))
    assert rerank("models", "pull", OTHER).code == 0
    expected = rerank(*ARGUMENTS).out
    DAMAGES[damage](model_folder / "manifest.json")
    listing = rerank("models", "list", "--json")
    states = {row["name"]: row["state"] for row in json.loads(listing.out)}
    if damage == "a link to nothing":  # as if there were none
        assert f"{NAME}:int8" not in states
    else:
        assert states[f"{NAME}:int8"] == "damaged"
    assert (listing.code, states[f"{OTHER}:int8"]) == (0, "installed")
    assert rerank("models").code == 0
    assert rerank("refund", "-d", "a", "-m", OTHER).code == 0
    outcome = rerank(*ARGUMENTS)
    assert (outcome.code, outcome.out) == (3, "")
    assert f"rerank models pull {NAME}" in outcome.err
    assert rerank("models", "show", NAME).code == 0
    verify_outcome = rerank("models", "verify")
    assert verify_outcome.out.count("ok\t") == 4
    assert (verify_outcome.code == 3) == (damage != "a link to nothing")
    assert rerank("models", "pull", NAME).code == 0
    assert rerank(*ARGUMENTS).out == expected


def test_a_model_with_a_damaged_manifest_can_be_removed(model_folder: Path, rerank: Run) -> None:
    (model_folder / "manifest.json").write_text(DEEP)
    assert rerank("models", "rm", NAME).code == 0
    assert not model_folder.exists()


@pytest.mark.slow
def test_another_precision_does_not_stand_in_for_a_damaged_one(
    model_folder: Path, hub: Hub, rerank: Run
) -> None:
    """Its scores would be other ones."""
    hub.add("BAAI/bge-reranker-base", files_of(graph="onnx/model.onnx"))
    assert rerank("models", "pull", f"{NAME}:fp32").code == 0
    (model_folder / "manifest.json").write_text("{")
    assert rerank(*ARGUMENTS).code == 3
    assert rerank("refund", "-d", "a", "-m", f"{NAME}:fp32").code == 0


@pytest.mark.parametrize(
    "text",
    [
        "", DEEP, "[]", json.dumps({f"{NAME}:int8": 7}), json.dumps({f"{NAME}:int8": {}}),
        json.dumps({f"{NAME}:int8": {"repository": 7, "revision": "c", "files": {}}}),
        json.dumps({f"{NAME}:int8": {"repository": REPOSITORY, "revision": "c", "files": [1]}}),
    ],
)  # fmt: skip
@pytest.mark.usefixtures("model_folder")
def test_damaged_notes_of_commits_are_refused_by_name(text: str, rerank: Run) -> None:
    notes = Store.usual().root / "revisions.json"
    notes.write_text(text)
    outcome = rerank("models", "pull", NAME)
    assert (outcome.code, str(notes) in outcome.err) == (3, True)
    assert notes.read_text() == text
    assert rerank(*ARGUMENTS).code == 0
    assert rerank("models").code == 0


def sibling(**changes: Any) -> Callable[[dict[str, Any]], Any]:
    """Change what a listing has of the graph."""

    def change(listing: dict[str, Any]) -> dict[str, Any]:
        listing["siblings"][0].update(changes)
        return listing

    return change


def set_fields(**changes: Any) -> Callable[[dict[str, Any]], Any]:
    return lambda listing: {**listing, **changes}


LISTINGS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "a list": lambda _: [1],
    "a number": lambda _: 7,
    "no JSON": lambda _: b"<html>",
    "deep": lambda _: DEEP.encode(),
    "no commit": set_fields(sha=None),
    "a commit that is none": set_fields(sha={"a": 1}),
    "a commit with a path": set_fields(sha="../../x"),
    "no files": set_fields(siblings=None),
    "files of a number": set_fields(siblings=7),
    "files of texts": set_fields(siblings=["a"]),
    "a file without a name": set_fields(siblings=[{"size": 7}]),
    "a number as a name": sibling(rfilename=7),
    "no name": sibling(rfilename=""),
    "a name above": sibling(rfilename="../model.onnx"),
    "a name within above": sibling(rfilename="onnx/../../../model_int8.onnx"),
    "a name elsewhere": sibling(rfilename="/tmp/model_int8.onnx"),
    "a name with a NUL": sibling(rfilename="onnx/model\0_int8.onnx"),
    "a name of half a character": sibling(rfilename="onnx/\ud800_int8.onnx"),
    "a name of the manifest": lambda listing: sibling(rfilename="README.md")(listing),
    "a size as text": sibling(size="1000"),
    "no size": sibling(size=None),
    "a size below zero": sibling(size=-1),
    "a size that is no whole number": sibling(size=1.5),
    "a size that is true": sibling(size=True),
    "a size of no disk": sibling(size=10**30),
    "a hash of a number": sibling(lfs={"sha256": 7, "size": 1, "pointerSize": 1}),
    "a hash with a path": sibling(lfs={"sha256": "../../../x", "size": 1, "pointerSize": 1}),
    "no LFS": sibling(lfs="abc"),
    "a blob of a number": sibling(blobId=7),
    "a blob with a path": sibling(lfs=None, blobId="../../../x"),
}


@pytest.mark.parametrize("change", LISTINGS)
def test_an_odd_listing_is_refused_in_one_line(change: str, hub: Hub, rerank: Run) -> None:
    repository = hub.add(REPOSITORY, files_of())
    repository.change_listing = LISTINGS[change]
    outcome = rerank("models", "pull", NAME)
    message = outcome.err.split("\n\n")[0].strip().splitlines()
    assert outcome.code == 3
    # What is planned is said before it is found that the disk has no room for it.
    assert len(message) == (3 if change == "a size of no disk" else 1)
    assert message[-1].startswith("rerank: ")
    root = Store.usual().root
    assert not [path for path in root.rglob("*") if path.is_file() and path.suffix != ".lock"]
    assert hub.count_fetches(GRAPH) == 0


@pytest.mark.slow
def test_weights_that_are_to_lie_elsewhere_leave_nothing(
    hub: Hub, rerank: Run, tmp_path: Path
) -> None:
    import onnx

    from tests.support.folders import with_external_data

    folder = with_external_data("bert", tmp_path) / "onnx"
    graph = onnx.load(folder / "model.onnx", load_external_data=False)
    for place in ("../../x", "/etc/passwd", "manifest.json"):
        for tensor in graph.graph.initializer:
            for entry in tensor.external_data:
                entry.value = place if entry.key == "location" else entry.value
        files = {**files_of("bert"), "model_int8.onnx": graph.SerializeToString()}
        del files[GRAPH]
        hub.add("acme/reranker", files)
        outcome = rerank("models", "pull", OTHER)
        assert (outcome.code, "not a path" in outcome.err) == (3, True)
        root = Store.usual().root
        assert not [path for path in root.rglob("*") if path.is_file() and path.suffix != ".lock"]


def test_a_file_without_a_hash_is_said_to_be_unchecked(hub: Hub, rerank: Run) -> None:
    repository = hub.add(REPOSITORY, files_of())
    repository.change_listing = sibling(lfs=None, blobId=None)
    outcome = rerank("models", "pull", NAME)
    assert outcome.code == 0
    assert f"the Hub has no hash of {GRAPH}: unchecked" in outcome.err
    assert "tokenizer.json" not in outcome.err
    assert rerank("models", "verify").code == 0
    flip(Path(outcome.out.strip()) / GRAPH)  # what came then is known from then on
    assert rerank(*ARGUMENTS).code == 3


def test_a_part_of_a_file_without_a_hash_is_not_gone_on_with(hub: Hub, rerank: Run) -> None:
    """It may be of another file with the same name."""
    repository = hub.add(REPOSITORY, files_of())
    repository.change_listing = sibling(lfs=None, blobId=None)
    staging = Store.usual().root / ".pulling" / f"{NAME}-int8" / "onnx"
    staging.mkdir(parents=True)
    (staging / ".model_quantized.onnx..part").write_bytes(b"another")
    shutil.copy(__file__, staging / "model_quantized.onnx")
    os.truncate(staging / "model_quantized.onnx", len(repository.files[GRAPH]))
    outcome = rerank("models", "pull", NAME)
    assert outcome.code == 0
    assert (Path(outcome.out.strip()) / GRAPH).read_bytes() == repository.files[GRAPH]
