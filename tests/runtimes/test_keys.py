"""Scores are those of the files as they are opened, whatever changes in them and whenever.

Each way that a model's files can lie in is a `Layout`. A file that decides a score is changed at
every time around preparation, and its times are set back. The scores are then those of a run that
has no prepared copies, or the run refuses.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rerank_cli import models, open_scorer
from rerank_cli.atomic_files import file_digest
from rerank_cli.batch import local
from rerank_cli.errors import ModelError, ScorerError
from rerank_cli.models import find
from rerank_cli.models.catalogue import entries
from rerank_cli.models.onnx_file import needs
from rerank_cli.models.store import File, ModelManifest, Store
from rerank_cli.providers import RemoteOptions
from rerank_cli.ranking.powers import ConcurrentScorer
from rerank_cli.runtimes import onnxruntime_graph, prepared_cache
from rerank_cli.scorers import (
    cross_encoder,
    find_local_folder,
    remote_fingerprint,
    vocabulary_index,
)
from rerank_cli.types import Pair
from tests.conftest import MODELS, ROOT, Run, wait_for_openers
from tests.support.folders import copy_model, with_external_data

PAIRS = [
    Pair.from_texts("late delivery", text)
    for text in ("the parcel is late", "cats purr", "refunds take the parcel " * 3)
]
REFUSAL = "refused"


@dataclass(frozen=True)
class Layout:
    """A model by its name, and the files that decide its scores, as they lie on the disk."""

    model: str
    files: Mapping[str, Path]


def plain_layout(to: Path) -> Layout:
    folder = copy_model("bert", to)
    return Layout(str(folder), {path.name: path for path in deciding_files(folder)})


def external_layout(to: Path) -> Layout:
    folder = with_external_data("bert", to)
    return Layout(str(folder), {path.name: path for path in deciding_files(folder)})


def cache_layout(to: Path) -> Layout:
    """As huggingface_hub keeps them: each file of a revision is a link to a blob."""
    snapshot, blobs = to / "snapshots" / "revision", to / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    files = {}
    for number, path in enumerate(deciding_files(with_external_data("bert", to / "source"))):
        blob = files[path.name] = blobs / f"{number:040}"
        shutil.copy(path, blob)
        (snapshot / path.name).symlink_to(f"../../blobs/{blob.name}")
    return Layout(str(snapshot), files)


def link_layout(to: Path) -> Layout:
    """The graph is a link, and its weights are a plain file beside that."""
    folder, other = with_external_data("bert", to) / "onnx", to / "elsewhere"
    other.mkdir()
    (folder / "model.onnx").rename(other / "graph")
    (folder / "model.onnx").symlink_to("../../elsewhere/graph")
    # Weights beside the link's target are not those that are read.
    (other / "model.onnx_data").write_bytes((folder / "model.onnx_data").read_bytes())
    files = {path.name: path for path in deciding_files(folder.parent)}
    return Layout(str(folder.parent), {**files, "model.onnx": other / "graph"})


def pulled_layout(to: Path) -> Layout:
    store, source = Store.usual(), with_external_data("bert", to)
    name = "hf:acme/reranker"
    with store.stage_model(name, "fp32", lambda: None) as staging:
        shutil.copytree(source, staging, dirs_exist_ok=True)
        paths = [path for path in staging.rglob("*") if path.is_file()]
        files = {
            path.relative_to(staging).as_posix(): File(path.stat().st_size, file_digest(path))
            for path in paths
        }
        manifest = ModelManifest(
            name, "fp32", "acme/reranker", "c" * 40, "main", "", "", "onnx/model.onnx", "", files
        )
        model = store.adopt(staging, manifest)
    return Layout(name, {path.name: path for path in deciding_files(model.folder)})


def shipped_layout(to: Path) -> Layout:
    folder = Path(shutil.copytree(copy_model("bert", to), to / "shipped" / "mini"))
    lines = [f"{file_digest(path)}  {path.name}\n" for path in deciding_files(folder)]
    (folder / "SHA256SUMS").write_text("".join(lines))
    return Layout("mini", {path.name: path for path in deciding_files(folder)})


def deciding_files(folder: Path) -> list[Path]:
    names = ("model.onnx", "model.onnx_data", "tokenizer.json", "config.json")
    return sorted(path for path in folder.rglob("*") if path.name in names)


LAYOUTS = [plain_layout, external_layout, cache_layout, link_layout, pulled_layout, shipped_layout]
WITH_HASHES = [pulled_layout, shipped_layout]


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of prepared copies that no other test fills, and a place for a shipped model."""
    monkeypatch.setenv("RERANK_PREPARED", str(tmp_path / "prepared"))
    monkeypatch.setattr(models, "_SHIPPED", (tmp_path / "model" / "shipped",))
    plain_entry = replace(entries()["mini"], scale=None)
    monkeypatch.setattr(models, "entries", lambda: {**entries(), "mini": plain_entry})
    return tmp_path / "prepared"


def scores(model: str) -> list[float] | str:
    """The scores of some pairs, or `REFUSAL`. No thread uses a file of the model afterwards."""
    scorer = None
    try:
        scorer = open_scorer(model)
        return [float(value or 0) for value in scorer.score(PAIRS).values]
    except ScorerError:
        return REFUSAL
    finally:
        if isinstance(scorer, ConcurrentScorer):
            scorer.close()  # if a pair has failed, others may still be scored
        wait_for_openers()  # which may be about to change a file


def fresh_scores(model: str) -> list[float] | str:
    """The scores without prepared copies."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RERANK_PREPARED", "off")
        return scores(model)


def change(path: Path, place: int | None = None, bit: int = 0) -> None:
    """Change a byte of a file in place, by default one that matters, and set its times back."""
    status, content = path.stat(), bytearray(path.read_bytes())
    if place is None:
        place, bit = telling_bit(bytes(content))
    content[place] ^= 1 << bit
    path.write_bytes(content)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


GRAPH = onnx.load(MODELS / "bert" / "model.onnx")
# The first values of a tensor that counts for every text.
POSITIONS = next(w.raw_data[:32] for w in GRAPH.graph.initializer if "position" in w.name)
TELLING_BITS = {
    b'"the": ': 0,  # a token has another id
    b'"max_position_embeddings": ': 2,  # there is less room than pairs have tokens
    b"model.onnx_data": 0,  # weights are in another file, which is not there
    POSITIONS[:3]: 6,  # a weight has another exponent
}


def telling_bit(content: bytes) -> tuple[int, int]:
    """The place of a byte that decides scores, and which of its bits."""
    before = next(before for before in TELLING_BITS if before in content)
    place = content.index(before) + len(before)
    return place - (before == b"model.onnx_data"), TELLING_BITS[before]


@contextmanager
def change_before(name: str, owner: object, path: Path) -> Iterator[list[Path]]:
    """Have a file changed just before a function is called for the first time."""
    function = getattr(owner, name)
    paths: list[Path] = []

    def change_first(*arguments: object, **options: object) -> object:
        if not paths:
            paths.append(path)
            change(path)
        return function(*arguments, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(owner, name, change_first)
        yield paths


# Steps of opening a model before which its files may be changed.
STEPS: dict[str, tuple[str, object]] = {
    "when it was described": ("open_network", cross_encoder),
    "when it was hashed": ("make_copy", onnxruntime_graph),
    "when it was half read": ("find_scale", onnxruntime_graph),
    "when it was prepared": ("_inventory", prepared_cache),
    "when its graph was open": ("LocalScorer", cross_encoder),
}


@pytest.mark.slow
@pytest.mark.usefixtures("own_cache")
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_file_that_was_changed_in_place_is_never_taken_for_the_old_one(
    layout: Callable[[Path], Layout], tmp_path: Path
) -> None:
    model = layout(tmp_path / "model")
    first = fresh_scores(model.model)
    assert first != REFUSAL
    assert scores(model.model) == scores(model.model) == first
    for path in model.files.values():
        content = path.read_bytes()
        change(path)
        expected = fresh_scores(model.model)
        assert expected != first
        assert scores(model.model) == scores(model.model) == expected
        if layout in WITH_HASHES:
            assert expected == REFUSAL
        path.write_bytes(content)
        assert scores(model.model) == first


@pytest.mark.slow
@pytest.mark.usefixtures("own_cache")
@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("layout", [cache_layout, plain_layout, pulled_layout])
def test_a_file_that_changes_while_it_is_opened_is_filed_under_no_other_name(
    layout: Callable[[Path], Layout], step: str, tmp_path: Path
) -> None:
    model = layout(tmp_path / "model")
    first = fresh_scores(model.model)
    for path in model.files.values():
        content = path.read_bytes()
        with change_before(*STEPS[step], path) as changed_paths:
            values = scores(model.model)
        assert changed_paths
        assert values in (REFUSAL, fresh_scores(model.model))
        assert scores(model.model) == fresh_scores(model.model) != first
        path.write_bytes(content)
        assert scores(model.model) == first
        shutil.rmtree(tmp_path / "prepared")


@pytest.mark.usefixtures("own_cache")
@pytest.mark.parametrize(
    ("layout", "name"), [(plain_layout, "model.onnx"), (external_layout, "model.onnx_data")]
)
def test_a_model_that_is_replaced_meanwhile_and_put_back_is_not_filed(
    layout: Callable[[Path], Layout], name: str, tmp_path: Path
) -> None:
    """The file that is read is another one than before and after."""
    model, other = layout(tmp_path / "model"), layout(tmp_path / "other")
    path, another = model.files[name], other.files[name]
    change(another)
    first = fresh_scores(model.model)
    make_copy, aside = onnxruntime_graph.make_copy, tmp_path / "aside"

    def make_of_another(*arguments: object) -> None:
        path.rename(aside)
        another.rename(path)
        make_copy(*arguments)  # type: ignore[arg-type]
        path.rename(another)
        aside.rename(path)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(onnxruntime_graph, "make_copy", make_of_another)
        assert scores(model.model) in (REFUSAL, first)
    assert scores(model.model) == first


@pytest.mark.usefixtures("own_cache")
def test_revisions_in_a_cache_of_the_hub_have_scores_of_their_own(tmp_path: Path) -> None:
    """Their graphs are one blob; only the weights beside the links differ."""
    model = cache_layout(tmp_path)
    snapshot = Path(model.model)
    second = Path(shutil.copytree(snapshot, snapshot.parent / "second", symlinks=True))
    weights = tmp_path / "blobs" / "other"
    content = model.files["model.onnx_data"].read_bytes()
    weights.write_bytes((np.frombuffer(content, np.float32) * 0.5).tobytes())
    (second / "model.onnx_data").unlink()
    (second / "model.onnx_data").symlink_to("../../blobs/other")
    scores_by_name = [scores(str(folder)) for folder in (snapshot, second)]
    assert scores_by_name == [fresh_scores(str(folder)) for folder in (snapshot, second)]
    assert scores_by_name[0] != scores_by_name[1]
    # A link that changes, as that of a branch does.
    (tmp_path / "main").symlink_to(snapshot)
    assert scores(str(tmp_path / "main")) == scores_by_name[0]
    (tmp_path / "main").unlink()
    (tmp_path / "main").symlink_to(second)
    assert scores(str(tmp_path / "main")) == scores_by_name[1]


@pytest.mark.usefixtures("own_cache")
@pytest.mark.parametrize("location", ["w" * 140, "w" * 255, "w\u00e9ights", "below/weights"])
def test_weights_of_any_name_decide(location: str, tmp_path: Path) -> None:
    folder = copy_model("bert", tmp_path)
    graph, weights = folder / "model.onnx", folder / location
    weights.parent.mkdir(exist_ok=True)
    onnx.save(
        onnx.load(graph), graph, save_as_external_data=True, location=location, size_threshold=0
    )
    assert needs(graph) == [location]
    before = scores(str(folder))
    content = weights.read_bytes()
    weights.write_bytes(bytes(len(content)))
    assert scores(str(folder)) == fresh_scores(str(folder)) != before
    weights.unlink()
    assert scores(str(folder)) == REFUSAL
    weights.write_bytes(content)
    assert scores(str(folder)) == before


@pytest.mark.usefixtures("own_cache")
def test_what_was_prepared_for_another_length_is_not_taken(tmp_path: Path) -> None:
    """Probes of the copy go up to the length, which is in another file."""
    folder = copy_model("bert", tmp_path)
    scores(str(folder))
    prepared_paths = set((tmp_path / "prepared").glob("*-*"))
    config = folder / "config.json"
    config.write_text(config.read_text().replace('"max_position_embeddings": ', '"unknown": '))
    assert find(str(folder)).length == 512
    scores(str(folder))
    assert len(set((tmp_path / "prepared").glob("*-*")) - prepared_paths) == 1


@pytest.mark.usefixtures("own_cache")
@pytest.mark.parametrize("content", [b"\x0b\x0c", b"\x3a\x85\x80\x80\x80\x80\x01"])
def test_a_graph_that_libraries_read_differently_is_refused(content: bytes, tmp_path: Path) -> None:
    """A group, and a length beyond the end: what comes behind would not be in the key."""
    folder = with_external_data("bert", tmp_path)
    graph = folder / "onnx" / "model.onnx"
    graph.write_bytes(content + graph.read_bytes())
    assert scores(str(folder)) == REFUSAL


@pytest.mark.slow
@pytest.mark.usefixtures("own_cache")
@pytest.mark.parametrize("layout", LAYOUTS)
def test_any_byte_that_is_changed_at_any_time(
    layout: Callable[[Path], Layout], tmp_path: Path
) -> None:
    model = layout(tmp_path / "model")
    first = fresh_scores(model.model)
    contents = {name: path.read_bytes() for name, path in model.files.items()}

    @settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(
        name=st.sampled_from(sorted(contents)),
        place=st.floats(0, 1, exclude_max=True),
        bit=st.integers(0, 7),
        is_warm=st.booleans(),
    )
    def try_one(name: str, place: float, bit: int, is_warm: bool) -> None:
        if is_warm:
            assert scores(model.model) == first
        change(model.files[name], int(place * len(contents[name])), bit)
        try:
            assert scores(model.model) == fresh_scores(model.model)
        finally:
            model.files[name].write_bytes(contents[name])

    try_one()


def write_batch(to: Path) -> tuple[str, str]:
    record = {"query": "late", "documents": ["the parcel is late", "cats purr"]}
    (to / "in.jsonl").write_text(json.dumps(record) + "\n")
    return str(to / "in.jsonl"), str(to / "out.jsonl")


@pytest.mark.parametrize("layout", [plain_layout, cache_layout])
def test_a_batch_goes_on_only_with_the_same_bytes_in_every_file(
    layout: Callable[[Path], Layout], tmp_path: Path, rerank: Run
) -> None:
    model = layout(tmp_path / "model")
    source, target = write_batch(tmp_path)
    arguments = ["batch", source, "-m", model.model, "-o", target]
    assert rerank(*arguments).code == 0
    assert rerank(*arguments, "--resume").code == 0
    for name, path in model.files.items():
        content = path.read_bytes()
        change(path)
        outcome = rerank(*arguments, "--resume")
        # A graph may also name weights now that are not there.
        assert (outcome.code == 2 and "not the job" in outcome.err) or (
            outcome.code == 3 and name in outcome.err
        )
        path.write_bytes(content)
    assert rerank(*arguments, "--resume").code == 0


@pytest.mark.parametrize("step", ["options_identity", "open_journal"])
def test_a_batch_whose_model_changes_before_it_is_opened_is_refused(
    step: str, tmp_path: Path, rerank: Run
) -> None:
    """The journal would have the hashes of other files than those that were opened."""
    model = external_layout(tmp_path / "model")
    source, target = write_batch(tmp_path)
    with change_before(step, local, model.files["model.onnx_data"]):
        outcome = rerank("batch", source, "-m", model.model, "-o", target)
    assert (outcome.code, "changed while it was in use" in outcome.err) == (3, True)


def test_weights_of_one_name_in_two_folders_are_two_files(tmp_path: Path) -> None:
    folder = copy_model("bert", tmp_path)
    graph = folder / "model.onnx"
    model = onnx.load(graph)
    tensors = [weights for weights in model.graph.initializer if len(weights.raw_data) > 1000]
    for number, weights in enumerate(tensors):
        path = folder / str(number) / "weights"
        path.parent.mkdir()
        path.write_bytes(weights.raw_data)
        onnx.external_data_helper.set_external_data(weights, f"{number}/weights")
        weights.ClearField("raw_data")
    onnx.save(model, graph)
    entry = find(str(folder))
    digests = entry.digests()
    assert {"0/weights", "1/weights", "model.onnx", "tokenizer.json"} < digests.keys()
    change(folder / "0" / "weights", 0)
    changes = find(str(folder)).digests().items() - digests.items()
    assert dict(changes).keys() == {"0/weights"}


def test_what_eval_keeps_is_of_the_same_files(tmp_path: Path) -> None:
    model = cache_layout(tmp_path / "model")
    for path in model.files.values():
        folder = find_local_folder(model.model)
        assert folder is not None
        before = folder.stamp()
        change(path)
        with pytest.raises(ModelError, match="changed"):
            folder.check_unchanged()
        folder = find_local_folder(model.model)
        assert folder is not None
        assert folder.stamp() != before


def test_what_eval_and_batch_keep_is_of_the_same_service(home: Path) -> None:
    entry = '[ours]\nlike = "cohere"\nurl = "{}"\n'
    own, names = home / "providers.toml", set()
    options = [RemoteOptions(), RemoteOptions(sigmoid=True), RemoteOptions(fields={"a": 1})]
    for url in ("http://127.0.0.1:1/a", "http://127.0.0.1:1/b"):
        own.write_text(entry.format(url))
        names |= {remote_fingerprint("ours/x", remote) for remote in options}
    assert len(names) == 6
    assert remote_fingerprint("bm25", RemoteOptions()) == ""


@pytest.mark.slow
@pytest.mark.usefixtures("own_cache")
def test_any_byte_of_a_large_vocabulary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its index has only parts of the file, and gives the tokens of all of it."""
    monkeypatch.setattr(vocabulary_index, "_MIN_PIECES", 1)
    folder = copy_model("xlmr", tmp_path)
    path = folder / "tokenizer.json"
    content = path.read_bytes()
    model, places = str(folder), st.integers(0, len(content) - 1)
    # Most bytes are pieces and their scores; the others decide more.
    pieces = content.index(b'"vocab"')

    @settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(places | st.integers(0, pieces) | st.just(pieces), st.integers(0, 7))
    def try_one(place: int, bit: int) -> None:
        change(path, place, bit)
        try:
            assert scores(model) == fresh_scores(model)
        finally:
            path.write_bytes(content)

    try_one()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="there are no such signals")
@pytest.mark.parametrize("is_put_back", [False, True])
def test_weights_that_change_while_another_process_prepares_them(
    is_put_back: bool, own_cache: Path, tmp_path: Path
) -> None:
    model = external_layout(tmp_path / "model")
    weights = model.files["model.onnx_data"]
    content = weights.read_bytes()
    first = fresh_scores(model.model)
    command = [sys.executable, "-m", "rerank_cli", "-m", model.model, "late", "-d", "the"]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    while process.poll() is None and not (own_cache / ".making").exists():
        time.sleep(0.001)
    process.send_signal(signal.SIGSTOP)
    change(weights)
    process.send_signal(signal.SIGCONT)
    if is_put_back:
        time.sleep(0.5)
        weights.write_bytes(content)
    out, _ = process.communicate(timeout=60)
    assert (process.returncode, out) in ((0, "the\n"), (3, ""))
    weights.write_bytes(content)
    assert scores(model.model) == first
    change(weights)
    assert scores(model.model) == fresh_scores(model.model) != first
