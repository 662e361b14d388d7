"""Pulls a model: from its name to files in the store, whole or not at all.

What is fetched is planned first, so that a user can be asked; a pull that is cut off goes on where
it was when it is asked for again.
"""

from collections.abc import Callable, Collection, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath

from rerank_cli.errors import ModelError, UsageError
from rerank_cli.hub.choosing import checked, companions, graph_among, graph_by_name, graphs_of
from rerank_cli.hub.client import Listing, RemoteFile, endpoint, listing
from rerank_cli.hub.fetching import fetched, room
from rerank_cli.models import Reference
from rerank_cli.models.catalogue import PRECISIONS, Origin
from rerank_cli.models.operators import named
from rerank_cli.store import File, Installed, Manifest, Store

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
