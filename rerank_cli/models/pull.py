"""Pulls a model: from its name to files in the store, whole or not at all.

A pull is planned first, so that a user can be asked. One that is cut off goes on where it was when
the same is pulled again.
"""

import os
import re
import shutil
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath

from rerank_cli.errors import ModelError, UsageError
from rerank_cli.models import Reference
from rerank_cli.models.catalogue import PRECISIONS, GraphFile, Origin
from rerank_cli.models.hub import (
    Listing,
    RemoteFile,
    check_disk_space,
    fetch_file,
    list_repository,
    public_endpoint,
)
from rerank_cli.models.onnx_file import needs
from rerank_cli.models.store import MANIFEST, File, InstalledModel, ModelManifest, Store

TOKENIZER = "tokenizer.json"
# What is read here, or tells a person what the files are.
_COMPANIONS = (
    TOKENIZER, "tokenizer_config.json", "special_tokens_map.json", "config.json",
    "quantize_config.json", "ort_config.json", "README.md", "LICENSE", "LICENSE.md", "LICENSE.txt",
    "NOTICE",
)  # fmt: skip
_WEIGHTS_SUFFIXES = ("_data", ".data")  # of files beside a graph, as exporters name them
_CHECKPOINT_SUFFIXES = (".json", ".safetensors", ".model", ".txt")
# What in a graph's name says of its precision, and of the processor that it was made for.
_INT8_NAME = re.compile(r"(?:^|[_.-])(?:quantized|q?u?int8|q8)(?:[_.-]|$)")
_OTHER_NAME = re.compile(
    r"(?:^|[_.-])(?:fp16|bf16|q4|q4f16|bnb4|int4|uint4|O\d|optimized)(?:[_.-]|$)"
)
_PROCESSORS = {
    "avx512_vnni": "avx512_vnni", "avx512": "avx512f", "avx2": "avx2", "arm64": "asimddp",
}  # fmt: skip
_MAIN_REVISION = "main"

Watch = Callable[[int], None]  # is called with the bytes of all files that are there


@dataclass(frozen=True, slots=True)
class PullPlan:
    """What a pull would fetch: a graph and its companions, at one commit of a repository.

    `is_locked` says that the commit is the one that was pulled before.
    """

    reference: Reference
    precision: str
    listing: Listing
    graph: RemoteFile
    files: Sequence[RemoteFile]
    requested_revision: str
    is_locked: bool

    @property
    def size(self) -> int:
        """The bytes of all files that are known of by now."""
        return sum(file.size for file in self.files)

    @property
    def licence(self) -> str:
        entry = self.reference.entry
        return entry.licence if entry else self.listing.licence

    @property
    def is_commercial(self) -> bool:
        """Whether the licence allows commercial use, as far as is known."""
        return "-nc" not in self.licence.lower()


def plan_pull(reference: Reference, store: Store, features: Collection[str]) -> PullPlan:
    """Find out what a pull would fetch; raises `UsageError` and `ModelError`."""
    entry = reference.entry
    if entry is not None and entry.folder:
        raise UsageError(f"{entry.name} ships with rerank: there is nothing to pull")
    problems = []
    for precision in [reference.precision] if reference.precision else PRECISIONS:
        plan = _plan_precision(reference, precision, store, features)
        if isinstance(plan, PullPlan):
            return plan
        problems.append(plan)
    weights = entry.repository if entry else reference.repository
    raise ModelError(
        "; ".join(problems),
        hint=f"make one from its weights: rerank models export hf:{weights} ./FOLDER",
    )


def pull(
    plan: PullPlan, store: Store, *, on_wait: Callable[[], None], watch: Watch | None = None
) -> InstalledModel:
    """Fetch what was planned, check it, and put it in its place; raises `ModelError`.

    `on_wait` is called if another process is at it.
    """
    name, precision, listing = plan.reference.name, plan.precision, plan.listing
    with store.stage_model(name, precision, on_wait) as staging:
        for model in store.models(name):
            if (model.precision, model.revision) != (precision, listing.revision):
                continue
            whole = [path for path, trouble in model.verify() if trouble is None]
            if model.graph == plan.graph.path and len(whole) == len(model.manifest.files):
                return model  # another process was faster
            _reuse(whole, model.folder, staging)
        check_disk_space(staging, plan.size - _size_of(staging))
        sizes = _Sizes(watch)
        files = {plan.graph.path: fetch_file(listing, plan.graph, staging, sizes.watch(plan.graph))}
        try:
            others = _list_others(plan, staging / plan.graph.path)
        except ModelError:  # it will never be a model
            shutil.rmtree(staging, ignore_errors=True)
            raise
        for file in others:
            files[file.path] = fetch_file(listing, file, staging, sizes.watch(file))
        manifest = ModelManifest(
            name=name,
            precision=precision,
            repository=listing.repository,
            revision=listing.revision,
            asked=plan.requested_revision,
            endpoint=public_endpoint(),
            licence=plan.licence,
            graph=plan.graph.path,
            pulled=datetime.now(UTC).date().isoformat(),
            files=files,
        )
        _check_locked(plan, files, store)
        installed = store.adopt(staging, manifest)
        store.lock(manifest)
        return installed


def fetch_checkpoint(
    repository: str, revision: str, store: Store, stack: ExitStack, on_wait: Callable[[], None]
) -> Path:
    """Fetch a checkpoint into a folder, which lasts as long as the `stack`; raises `ModelError`."""
    listing = list_repository(repository, revision or None)
    files = [
        file
        for path, file in listing.files.items()
        if path.endswith(_CHECKPOINT_SUFFIXES) and PurePosixPath(path).parent == PurePosixPath()
    ]
    check_paths(file.path for file in files)
    if not any(file.path.endswith(".safetensors") for file in files):
        raise ModelError(
            f"{repository}: has no weights in safetensors",
            hint="weights in pickles can run anything, and are not read",
        )
    folder = stack.enter_context(store.stage_model(repository, "checkpoint", on_wait))
    check_disk_space(folder, sum(file.size for file in files))
    for file in files:
        fetch_file(listing, file, folder, lambda _: None)
    return folder


def check_paths(paths: Iterable[str]) -> None:
    """Raise `ModelError` for a path that would lead out of a model's folder."""
    for path in paths:
        parts = PurePosixPath(path).parts
        is_path = parts and not path.startswith("/") and ".." not in parts and "\\" not in path
        # A name that JSON had in half a surrogate pair cannot be one of a file.
        if not is_path or not path.isprintable() or path == MANIFEST:
            raise ModelError(f"{path!r}: not a path of a model's file within a repository")


def _plan_precision(
    reference: Reference, precision: str, store: Store, features: Collection[str]
) -> PullPlan | str:
    """Plan to pull one precision of a model, or say why it cannot be had."""
    origin = _origin(reference, precision)
    if origin is None:
        return f"{reference.name} is not published as an {precision} ONNX graph"
    locked = None
    if not reference.revision:
        locked = _locked_revision(reference.name, precision, origin.repository, store)
    revision = locked or reference.revision or _MAIN_REVISION
    listing = list_repository(origin.repository, revision)
    graph = _first_graph(listing, origin.graphs, features)
    graph = graph or _graph_by_name(listing, precision, features)
    if graph is None:
        graphs = ", ".join(_graph_paths(listing)) or "no ONNX graph at all"
        return f"{origin.repository} has no {precision} graph, but {graphs}"
    files = {graph.path: graph, **_companions(listing, graph)}
    check_paths(files)
    return PullPlan(
        reference=Reference(reference.name, precision, reference.revision),
        precision=precision,
        listing=listing,
        graph=graph,
        files=list(files.values()),
        requested_revision=revision,
        is_locked=locked is not None,
    )


def _origin(reference: Reference, precision: str) -> Origin | None:
    if reference.repository is not None:
        return Origin(reference.repository, ())
    assert reference.entry is not None  # noqa: S101 - `read_name` has seen to it
    return reference.entry.origins.get(precision)


def _locked_revision(name: str, precision: str, repository: str, store: Store) -> str | None:
    """The commit that was pulled before, if it was one of this repository."""
    locked = store.find_lock(name, precision)
    if locked is None or locked["repository"] != repository:
        return None
    return str(locked["revision"])


def _first_graph(
    listing: Listing, graphs: Sequence[GraphFile], features: Collection[str]
) -> RemoteFile | None:
    """The first of the graphs that is there and suits this processor."""
    paths = (graph.file for graph in graphs if not graph.needs or graph.needs in features)
    return next((listing.files[path] for path in paths if path in listing.files), None)


def _graph_by_name(
    listing: Listing, precision: str, features: Collection[str]
) -> RemoteFile | None:
    """The graph of a precision whose name says that it suits this processor best."""
    suitability = {
        path: _suitability(PurePosixPath(path).stem, precision, features)
        for path in _graph_paths(listing)
    }
    best = max(suitability, key=lambda path: (suitability[path], -len(path)), default=None)
    return listing.files[best] if best is not None and suitability[best] >= 0 else None


def _graph_paths(listing: Listing) -> list[str]:
    return sorted(path for path in listing.files if path.endswith(".onnx"))


def _suitability(stem: str, precision: str, features: Collection[str]) -> int:
    """How well a graph of this name suits; below 0 not at all."""
    if _OTHER_NAME.search(stem):
        return -1
    if not _INT8_NAME.search(stem):
        return int(stem == "model") if precision == "fp32" else -1
    if precision != "int8":
        return -1
    for place, (processor, feature) in enumerate(_PROCESSORS.items()):
        if stem.endswith(processor):
            # Unsigned weights overflow nowhere, and signed ones only without VNNI.
            return 10 - place if feature in features else -1
    return 3 if "quantized" in stem else 2


def _companions(listing: Listing, graph: RemoteFile) -> Mapping[str, RemoteFile]:
    """What goes with a graph: its tokenizer and the like, and weights that look like its own.

    Raises `ModelError` where there is no tokenizer.json.
    """
    beside, top = PurePosixPath(graph.path).parent, PurePosixPath()
    paths = []
    for name in _COMPANIONS:
        candidates = [str(folder / name) for folder in (beside, top)]
        paths += [path for path in candidates if path in listing.files][:1]
    if not any(PurePosixPath(path).name == TOKENIZER for path in paths):
        raise ModelError(
            f"{listing.repository}: has no {TOKENIZER}",
            hint="its tokenizer has only the slow form; transformers writes a tokenizer.json on "
            "save_pretrained, and -m ./FOLDER takes the folder",
        )
    weights = {graph.path + suffix for suffix in _WEIGHTS_SUFFIXES}
    paths += [path for path in listing.files if path in weights]
    return {path: listing.files[path] for path in paths}


def _reuse(paths: Sequence[str], folder: Path, staging: Path) -> None:
    """Have files of an installed model among those that were fetched, where that costs nothing."""
    for path in paths:
        with suppress(OSError):  # it is there already, or the disk has no links: it is fetched
            (staging / path).parent.mkdir(parents=True, exist_ok=True)
            os.link(folder / path, staging / path)


def _list_others(plan: PullPlan, graph: Path) -> Sequence[RemoteFile]:
    """What else is to be fetched, now that the graph itself says where its weights are."""
    listing, folder = plan.listing, PurePosixPath(plan.graph.path).parent
    weights = {str(folder / name) for name in needs(graph)}
    check_paths(weights)
    if missing := sorted(weights - listing.files.keys()):
        raise ModelError(
            f"{listing.repository}: {plan.graph.path} has weights in {missing[0]}, which it lacks"
        )
    # The graph, and what only looked like its weights.
    others = [file for file in plan.files if not file.path.startswith(plan.graph.path)]
    return [*(listing.files[path] for path in sorted(weights)), *others]


def _check_locked(plan: PullPlan, files: Mapping[str, File], store: Store) -> None:
    """Raise `ModelError` where the commit has other content than when it was pulled first."""
    locked = store.find_lock(plan.reference.name, plan.precision)
    if locked is None or locked["revision"] != plan.listing.revision:
        return
    for path, file in files.items():
        if locked["files"].get(path, file.sha256) != file.sha256:
            raise ModelError(
                f"{plan.listing.repository}/{path}: has other content than when this commit was "
                "pulled before, which a commit cannot have",
                hint="ask another Hub (HF_ENDPOINT); nothing was installed",
            )


def _size_of(folder: Path) -> int:
    """The bytes of all files in a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


class _Sizes:
    """Adds up how much of all files is there."""

    def __init__(self, watch: Watch | None) -> None:
        self._watch = watch
        self._sizes: dict[str, int] = {}

    def watch(self, file: RemoteFile) -> Watch:
        """What watches one of the files."""

        def see(size: int) -> None:
            self._sizes[file.path] = size
            if self._watch is not None:
                self._watch(sum(self._sizes.values()))

        return see
