"""Pulls a model: from its name to files in the store, whole or not at all.

A pull is planned first, so that it can ask the user. The same pull continues one that was cut off.
"""

import os
import re
import shutil
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath

from rerank_cli import machine
from rerank_cli.atomic_files import clean_up_on_signal
from rerank_cli.errors import ModelError, NotInstalled, UsageError
from rerank_cli.models import Reference, hub
from rerank_cli.models.catalogue import PRECISIONS, GraphFile, Origin, entries
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
from rerank_cli.progress import State, TimeLeft, show_progress
from rerank_cli.terminal import Terminal, format_size

TOKENIZER = "tokenizer.json"
# Files that are read here, or that tell a person what the others are.
_COMPANIONS = (
    TOKENIZER, "tokenizer_config.json", "special_tokens_map.json", "config.json",
    "quantize_config.json", "ort_config.json", "README.md", "LICENSE", "LICENSE.md", "LICENSE.txt",
    "NOTICE",
)  # fmt: skip
_WEIGHTS_SUFFIXES = ("_data", ".data")  # of files beside a graph, as exporters name them
_CHECKPOINT_SUFFIXES = (".json", ".safetensors", ".model", ".txt")
# The parts of a graph's name that state its precision, and its processor.
_INT8_NAME = re.compile(r"(?:^|[_.-])(?:quantized|q?u?int8|q8)(?:[_.-]|$)")
_OTHER_NAME = re.compile(
    r"(?:^|[_.-])(?:fp16|bf16|q4|q4f16|bnb4|int4|uint4|O\d|optimized)(?:[_.-]|$)"
)
_PROCESSORS = {
    "avx512_vnni": "avx512_vnni", "avx512": "avx512f", "avx2": "avx2", "arm64": "asimddp",
}  # fmt: skip
_MAIN_REVISION = "main"
CHECKPOINT = "checkpoint"  # in a precision's place

Watch = Callable[[int], None]  # is called with the bytes of all files so far


@dataclass(frozen=True, slots=True)
class PullPlan:
    """The files of a pull: a graph and its companions, at one commit of a repository.

    `is_locked` says that the commit is the one that was pulled before. For a checkpoint,
    `precision` is `CHECKPOINT`, and `graph` is its first file of weights.
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
    """Plan a pull; raises `UsageError` and `ModelError`."""
    entry = reference.entry
    if entry is not None and entry.folder:
        raise UsageError(f"{entry.name} ships with rerank: there is nothing to pull")
    problems = []
    for precision in [reference.precision] if reference.precision else PRECISIONS:
        plan = _plan_precision(reference, precision, store, features)
        if isinstance(plan, PullPlan):
            return plan
        problems.append(plan)
    weights = entry.repository if entry else str(reference.repository)
    export = f"make one from its weights: rerank models export hf:{weights} ./FOLDER"
    for other in entries().values() if entry is None else ():
        if other.repository == weights:
            export = f"rerank models pull {other.name} has one from elsewhere; or {export}"
    raise ModelError("; ".join(dict.fromkeys(problems)), hint=export)


def pull(
    plan: PullPlan, store: Store, *, on_wait: Callable[[], None], watch: Watch | None = None
) -> InstalledModel:
    """Fetch the files of a plan, check them, and move them to their place; raises `ModelError`.

    `on_wait` is called if another process is fetching the model.
    """
    name, precision, listing = plan.reference.name, plan.precision, plan.listing
    with store.stage_model(name, precision, on_wait) as staging:
        if (whole := find_whole(plan, store)) is not None:
            return whole  # another process was faster
        for model in _same_commit(plan, store):
            intact = [path for path, trouble in model.verify() if trouble is None]
            _reuse(intact, model.folder, staging)
        sizes = _Sizes(watch)

        def fetch(file: RemoteFile) -> File:
            with hint_at_part(lambda: describe_pulled_part(plan, store)):
                return fetch_file(listing, file, staging, sizes.watch(file))

        with hint_at_part(lambda: describe_pulled_part(plan, store)):
            check_disk_space(staging, plan.size - part_size(plan, store))
        files = {plan.graph.path: fetch(plan.graph)}
        try:
            others = _list_others(plan, staging / plan.graph.path)
        except ModelError:  # it will never be a model
            shutil.rmtree(staging, ignore_errors=True)
            raise
        files |= {file.path: fetch(file) for file in others}
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
        installed_model = store.adopt(staging, manifest)
        store.lock(manifest)
        return installed_model


def pull_for_user(
    reference: Reference, store: Store, refusal: NotInstalled | None
) -> InstalledModel:
    """Plan a pull, say what it fetches, and fetch that, with its progress.

    With a `refusal` a person is asked first; it is raised if they say no.
    """
    terminal = Terminal.current()
    try:
        plan = plan_pull(reference, store, machine.features())
    except ModelError as error:
        if refusal is not None:  # it was named to be run
            error.args = (f"{reference} is not installed, and cannot be pulled: {error}",)
        raise
    if (model := find_whole(plan, store)) is not None:
        terminal.say(f"{plan.reference}: is here already, whole and as the Hub has it")
        return model
    terminal.say(describe_plan(plan, store))
    if refusal is not None and not _ask_to_fetch(terminal):
        raise refusal
    with watch_fetching(terminal, plan, store) as watch:
        model = pull(plan, store, on_wait=lambda: say_waiting(terminal), watch=watch)
    files = plan.listing.files
    unchecked = [
        path for path in model.manifest.files if path in files and not files[path].has_hash
    ]
    if unchecked:
        terminal.warn(
            f"the Hub has no hash of {', '.join(unchecked)}: unchecked, and kept as fetched"
        )
    return model


@contextmanager
def watch_fetching(
    terminal: Terminal, plan: PullPlan, store: Store
) -> Iterator[Callable[[int], None]]:
    """Show the progress of a pull; yield a function to call with the bytes that are here.

    If a signal ends the process, a message says which part is kept.
    """
    fetched_size, time_left = 0, TimeLeft()

    def describe() -> State:
        size = max(fetched_size, plan.size, 1)
        parts = [f"{format_size(fetched_size)} of {format_size(size)}"]
        return State(parts, fetched_size / size, time_left.seconds(fetched_size, size))

    def say_stopped() -> None:
        part = describe_pulled_part(plan, store) or "nothing was fetched"
        terminal.say(f"{plan.reference}: stopped; {part}")

    with (
        clean_up_on_signal(say_stopped),
        show_progress(terminal, describe) as line,
    ):

        def watch(size: int) -> None:
            nonlocal fetched_size
            fetched_size = size
            time_left.see(size)
            line.refresh()

        yield watch


def say_waiting(terminal: Terminal) -> None:
    """Say that another process is fetching the model."""
    terminal.say("another process is fetching it: waiting for that")


def _ask_to_fetch(terminal: Terminal) -> bool:
    terminal.show("fetch it? [y/N] ")
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def find_whole(plan: PullPlan, store: Store) -> InstalledModel | None:
    """Find the installed model that equals a planned one; read all of its files."""
    for model in _same_commit(plan, store):
        is_intact = all(trouble is None for _, trouble in model.verify())
        if model.graph == plan.graph.path and is_intact:
            return model
    return None


def _same_commit(plan: PullPlan, store: Store) -> list[InstalledModel]:
    commit = (plan.precision, plan.listing.revision)
    models = store.models(plan.reference.name)
    return [model for model in models if (model.precision, model.revision) == commit]


def part_size(plan: PullPlan, store: Store) -> int:
    """The bytes of a plan that an earlier pull has fetched before it was cut off."""
    folder = store.part_folder(plan.reference.name, plan.precision)
    return sum(hub.part_size(file, folder) for file in plan.files)


def describe_plan(plan: PullPlan, store: Store) -> str:
    """Describe a plan in lines: the size, the licence and the source."""
    licence = f"licence {plan.licence}" if plan.licence else "no licence that it states"
    limits = "" if plan.is_commercial else ", which allows no commercial use"
    commit = f"{plan.listing.repository}@{plan.listing.revision[:8]}"
    lines = [
        f"{plan.reference}: {format_size(plan.size)}, {licence}{limits}",
        f"from {commit}{', as before' if plan.is_locked else ''}",
    ]
    if size := part_size(plan, store):
        rest = format_size(plan.size - size)
        lines.append(f"{format_size(size)} are here, {rest} are left")
    return "\n".join(lines)


def describe_pulled_part(plan: PullPlan, store: Store) -> str:
    """Describe the fetched part of a plan, and the rest; empty if nothing was fetched."""
    size = part_size(plan, store)
    rest = f"the same command fetches the other {format_size(plan.size - size)}"
    return f"{format_size(size)} are kept: {rest}" if size else ""


@contextmanager
def hint_at_part(describe: Callable[[], str]) -> Iterator[None]:
    """Begin the hint of a `ModelError` with the part that was fetched, if there is one."""
    try:
        yield
    except ModelError as error:
        error.hint = "; ".join(filter(None, (describe(), error.hint))) or None
        raise


def plan_checkpoint(reference: Reference, store: Store) -> PullPlan:
    """Plan the pull of a repository's checkpoint; raises `ModelError`."""
    repository, revision = str(reference.repository), reference.revision or _MAIN_REVISION
    with hint_at_part(lambda: _describe_part(reference.name, CHECKPOINT, store)):
        listing = list_repository(repository, revision)
    files = [
        file
        for path, file in listing.files.items()
        if path.endswith(_CHECKPOINT_SUFFIXES) and PurePosixPath(path).parent == PurePosixPath()
    ]
    check_paths(file.path for file in files)
    weights = [file for file in files if file.path.endswith(".safetensors")]
    if not weights:
        raise ModelError(
            f"{repository}: has no weights in safetensors",
            hint="weights in pickles can run anything, and are not read",
        )
    return PullPlan(
        reference=reference,
        precision=CHECKPOINT,
        listing=listing,
        graph=weights[0],
        files=files,
        requested_revision=revision,
        is_locked=False,
    )


@contextmanager
def fetch_checkpoint(
    plan: PullPlan, store: Store, *, on_wait: Callable[[], None], watch: Watch
) -> Iterator[Path]:
    """Fetch a checkpoint; yield its folder, which is removed if the block succeeds.

    Raises `ModelError`.
    """
    with store.stage_model(plan.reference.name, CHECKPOINT, on_wait) as folder:
        sizes = _Sizes(watch)
        with hint_at_part(lambda: describe_pulled_part(plan, store)):
            check_disk_space(folder, plan.size - part_size(plan, store))
            for file in plan.files:
                fetch_file(plan.listing, file, folder, sizes.watch(file))
        yield folder
        shutil.rmtree(folder, ignore_errors=True)


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
    with hint_at_part(lambda: _describe_part(reference.name, precision, store)):
        listing = list_repository(origin.repository, revision)
    graph = _first_graph(listing, origin.graphs, features)
    graph = graph or _graph_by_name(listing, precision, features)
    if graph is None:
        graphs = ", ".join(_graph_paths(listing))
        if not graphs:
            return f"{origin.repository} has no ONNX graph"
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


def _describe_part(name: str, precision: str, store: Store) -> str:
    """Describe the fetched part of a model for which there is no plan."""
    sizes = [format_size(part.size) for part in store.parts(name) if part.precision == precision]
    return f"{sizes[0]} are kept from an earlier pull" if sizes else ""


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
    """The companions of a graph: its tokenizer and the like, and weights that seem to be its own.

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
    """Link files of an installed model among those that were fetched, if the disk has links."""
    for path in paths:
        with suppress(OSError):  # it is there already, or the disk has no links: it is fetched
            (staging / path).parent.mkdir(parents=True, exist_ok=True)
            os.link(folder / path, staging / path)


def _list_others(plan: PullPlan, graph: Path) -> Sequence[RemoteFile]:
    """The other files to fetch, now that the graph states the files of its weights."""
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


class _Sizes:
    """Adds up how much of all files is there."""

    def __init__(self, watch: Watch | None) -> None:
        self._watch = watch
        self._sizes: dict[str, int] = {}

    def watch(self, file: RemoteFile) -> Watch:
        """A watch for one of the files."""

        def see(size: int) -> None:
            self._sizes[file.path] = size
            if self._watch is not None:
                self._watch(sum(self._sizes.values()))

        return see
