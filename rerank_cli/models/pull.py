"""Pulls a model: from its name to files in the store, whole or not at all.

What is fetched is planned first, so that a user can be asked; a pull that is cut off goes on where
it was when it is asked for again.
"""

import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath

from rerank_cli.errors import ModelError, UsageError
from rerank_cli.models import Reference
from rerank_cli.models.catalogue import PRECISIONS, GraphFile, Origin
from rerank_cli.models.hub import Listing, RemoteFile, endpoint, fetched, listing, room
from rerank_cli.models.onnx_file import named
from rerank_cli.models.store import File, Installed, Manifest, Store

TOKENIZER = "tokenizer.json"
# What is read here, or tells a person what the files are.
_WITH_IT = (
    TOKENIZER, "tokenizer_config.json", "special_tokens_map.json", "config.json",
    "quantize_config.json", "ort_config.json", "README.md", "LICENSE", "LICENSE.md", "LICENSE.txt",
    "NOTICE",
)  # fmt: skip
_SUFFIXES = ("_data", ".data")  # of weights beside a graph, as exporters name them
# What in a graph's name says of its precision, and of the processor that it was made for.
_INT8 = re.compile(r"(?:^|[_.-])(?:quantized|q?u?int8|q8)(?:[_.-]|$)")
_OTHER = re.compile(r"(?:^|[_.-])(?:fp16|bf16|q4|q4f16|bnb4|int4|uint4|O\d|optimized)(?:[_.-]|$)")
_MADE_FOR = {"avx512_vnni": "avx512_vnni", "avx512": "avx512f", "avx2": "avx2", "arm64": "asimddp"}


def graph_among(
    of: Listing, graphs: Sequence[GraphFile], features: Collection[str]
) -> RemoteFile | None:
    """The first of the graphs that is there and suits this processor."""
    fits = (one.file for one in graphs if not one.needs or one.needs in features)
    return next((of.files[file] for file in fits if file in of.files), None)


def graph_by_name(of: Listing, precision: str, features: Collection[str]) -> RemoteFile | None:
    """The graph of a precision whose name says that it suits this processor best."""
    suits = {
        path: _suitability(PurePosixPath(path).stem, precision, features)
        for path in sorted(of.files)
        if path.endswith(".onnx")
    }
    best = max(suits, key=lambda path: (suits[path], -len(path)), default=None)
    return of.files[best] if best is not None and suits[best] >= 0 else None


def graphs_of(of: Listing) -> list[str]:
    """All graphs of a repository."""
    return sorted(path for path in of.files if path.endswith(".onnx"))


def companions(of: Listing, graph: RemoteFile) -> Mapping[str, RemoteFile]:
    """What goes with a graph: its tokenizer and the like, and weights that look like its own.

    Raises `ModelError` where there is no tokenizer.json.
    """
    beside, top = PurePosixPath(graph.path).parent, PurePosixPath()
    found = {}
    for name in _WITH_IT:
        for folder in (beside, top):
            path = str(folder / name)
            if path in of.files:
                found[path] = of.files[path]
                break
    if not any(PurePosixPath(path).name == TOKENIZER for path in found):
        raise ModelError(
            f"{of.repository}: has no {TOKENIZER}",
            hint="its tokenizer has only the slow form; transformers writes a tokenizer.json on "
            "save_pretrained, and -m ./FOLDER takes the folder",
        )
    weights = [path for path in of.files if path in {graph.path + end for end in _SUFFIXES}]
    return found | {path: of.files[path] for path in weights}


def checked(paths: Iterable[str]) -> None:
    """Raise `ModelError` for a path that would lead out of a model's folder."""
    for path in paths:
        parts = PurePosixPath(path).parts
        if not parts or path.startswith("/") or ".." in parts or "\\" in path:
            raise ModelError(f"{path!r}: not a path within a repository")


def _suitability(stem: str, precision: str, features: Collection[str]) -> int:
    """How well a graph of this name suits; below 0 not at all."""
    if _OTHER.search(stem):
        return -1
    if not _INT8.search(stem):
        return int(stem == "model") if precision == "fp32" else -1
    if precision != "int8":
        return -1
    for place, (made_for, needs) in enumerate(_MADE_FOR.items()):
        if stem.endswith(made_for):
            # Unsigned weights overflow nowhere, and signed ones only without VNNI.
            return 10 - place if needs in features else -1
    return 3 if "quantized" in stem else 2


_MAIN = "main"

Watch = Callable[[int], None]  # is told how many bytes of all files are there


@dataclass(frozen=True, slots=True)
class Plan:
    """What would be fetched: a graph and what goes with it, at one commit.

    `is_locked` says that the commit is the one that was pulled before.
    """

    reference: Reference
    precision: str
    of: Listing
    graph: RemoteFile
    files: Sequence[RemoteFile]
    asked: str
    is_locked: bool

    @property
    def size(self) -> int:
        """Bytes, of the files that are known of by now."""
        return sum(file.size for file in self.files)

    @property
    def licence(self) -> str:
        entry = self.reference.entry
        return entry.licence if entry else self.of.licence

    @property
    def is_commercial(self) -> bool:
        """Whether the licence lets it be used for profit, as far as is known."""
        return "-nc" not in self.licence.lower()


def plan(reference: Reference, store: Store, features: Collection[str]) -> Plan:
    """Find out what a pull would fetch; raises `UsageError` and `ModelError`."""
    entry = reference.entry
    if entry is not None and entry.folder:
        raise UsageError(f"{entry.name} ships with rerank: there is nothing to pull")
    missing: list[str] = []
    for precision in [reference.precision] if reference.precision else PRECISIONS:
        origin = _origin(reference, precision)
        if origin is None:
            missing.append(f"{reference.name} is not published as an {precision} ONNX graph")
            continue
        locked = store.locked(reference.name, precision)
        is_locked = (
            not reference.revision
            and locked is not None
            and locked["repository"] == origin.repository
        )
        asked = locked["revision"] if is_locked and locked else reference.revision or _MAIN
        of = listing(origin.repository, asked)
        if origin.graphs:
            graph = graph_among(of, origin.graphs, features) or graph_by_name(
                of, precision, features
            )
        else:
            graph = graph_by_name(of, precision, features)
        if graph is None:
            there = ", ".join(graphs_of(of)) or "no ONNX graph at all"
            missing.append(f"{origin.repository} has no {precision} graph, but {there}")
            continue
        files = {graph.path: graph, **companions(of, graph)}
        checked(files)
        return Plan(
            Reference(reference.name, precision, reference.revision),
            precision, of, graph, list(files.values()), asked, is_locked,
        )  # fmt: skip
    source = f"hf:{_origin_of_weights(reference)}"
    raise ModelError(
        "; ".join(missing),
        hint=f"make one from its weights: rerank models export {source} ./FOLDER",
    )


def pull(
    plan: Plan, store: Store, *, waiting: Callable[[], None], watch: Watch | None = None
) -> Installed:
    """Fetch what was planned, check it, and put it in its place. Raises `ModelError`."""
    name, precision = plan.reference.name, plan.precision
    with ExitStack() as stack:
        staging = stack.enter_context(store.alone(name, precision, waiting))
        if (there := _there(plan, store)) is not None:  # another process was faster
            return there
        room(staging, plan.size - _begun(staging))
        done = _Done(watch)
        found = {plan.graph.path: fetched(plan.of, plan.graph, staging, done.of(plan.graph))}
        for file in _wanted(plan, staging / plan.graph.path):
            found[file.path] = fetched(plan.of, file, staging, done.of(file))
        manifest = Manifest(
            name=name,
            precision=precision,
            repository=plan.of.repository,
            revision=plan.of.revision,
            asked=plan.asked,
            endpoint=endpoint(),
            licence=plan.licence,
            graph=plan.graph.path,
            pulled=datetime.now(UTC).date().isoformat(),
            files=found,
        )
        _as_locked(plan, found, store)
        one = store.adopt(staging, manifest)
        store.lock(manifest)
        return one


def _origin(reference: Reference, precision: str) -> Origin | None:
    if reference.repository is not None:
        return Origin(reference.repository, ())
    assert reference.entry is not None  # noqa: S101 - `read` has seen to it
    return reference.entry.origins.get(precision)


def _origin_of_weights(reference: Reference) -> str:
    entry = reference.entry
    return entry.page.split("/", 3)[3] if entry else str(reference.repository)


def _there(plan: Plan, store: Store) -> Installed | None:
    """What is in the store, if it is what would be fetched."""
    for one in store.installed(plan.reference.name):
        same = one.manifest.revision == plan.of.revision and one.graph == plan.graph.path
        if one.precision == plan.precision and same and one.damage() is None:
            return one
    return None


def _wanted(plan: Plan, graph: Path) -> Sequence[RemoteFile]:
    """What else is needed, now that the graph itself says where its weights are."""
    folder = PurePosixPath(plan.graph.path).parent
    weights = {str(folder / name) for name in named(graph)}
    checked(weights)
    if absent := sorted(weights - plan.of.files.keys()):
        raise ModelError(
            f"{plan.of.repository}: {plan.graph.path} has weights in {absent[0]}, which it lacks"
        )
    guessed = {file.path for file in plan.files if file.path.startswith(plan.graph.path)}
    rest = [file for file in plan.files if file.path not in guessed]
    return [*(plan.of.files[path] for path in sorted(weights)), *rest]


def _as_locked(plan: Plan, found: dict[str, File], store: Store) -> None:
    """Raise `ModelError` where the commit has other content than when it was pulled first."""
    locked = store.locked(plan.reference.name, plan.precision)
    if locked is None or locked["revision"] != plan.of.revision:
        return
    for path, file in found.items():
        if locked["files"].get(path, file.sha256) != file.sha256:
            raise ModelError(
                f"{plan.of.repository}/{path}: has other content than when this commit was pulled "
                "before, which a commit cannot have",
                hint="ask another Hub (HF_ENDPOINT); nothing was installed",
            )


def _begun(staging: Path) -> int:
    """The bytes that an earlier pull has left."""
    return sum(path.stat().st_size for path in staging.rglob("*") if path.is_file())


class _Done:
    """Adds up how much of all files is there."""

    def __init__(self, watch: Watch | None) -> None:
        self._watch = watch
        self._sizes: dict[str, int] = {}

    def of(self, file: RemoteFile) -> Watch:
        def see(size: int) -> None:
            self._sizes[file.path] = size
            if self._watch is not None:
                self._watch(sum(self._sizes.values()))

        return see


_KINDS = (".json", ".safetensors", ".model", ".txt")


def fetch_checkpoint(
    repository: str, revision: str, store: Store, stack: ExitStack, waiting: Callable[[], None]
) -> Path:
    """Have a checkpoint in a folder, which lasts as long as the `stack`; raises `ModelError`."""
    folder = stack.enter_context(store.alone(repository, "checkpoint", waiting))
    of = listing(repository, revision or None)
    files = [
        file
        for path, file in of.files.items()
        if path.endswith(_KINDS) and PurePosixPath(path).parent == PurePosixPath()
    ]
    checked(file.path for file in files)
    if not any(file.path.endswith(".safetensors") for file in files):
        raise ModelError(
            f"{repository}: has no weights in safetensors",
            hint="weights in pickles can run anything, and are not read",
        )
    room(folder, sum(file.size for file in files))
    for file in files:
        fetched(of, file, folder, lambda _: None)
    return folder
