"""Local models, for commands: facts about them, and the ways to find and fetch them."""

import sys
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from rerank_cli import __version__
from rerank_cli.errors import ModelError, NotInstalled, RerankError, UsageError
from rerank_cli.models import (
    COPY_FOLDER,
    Reference,
    find,
    find_entry,
    find_installed,
    find_packaged,
    is_local,
    offline_variable,
    read_name,
)
from rerank_cli.models.catalogue import Entry, default, entries, prompts
from rerank_cli.models.packages import PackagedModel, packaged_models
from rerank_cli.models.store import DamagedModel, InstalledModel, ModelPart, Store
from rerank_cli.scorers import is_remote
from rerank_cli.terminal import format_size

_SOURCES = f"https://github.com/rerank-cli/rerank-cli/blob/v{__version__}"
_UNVERIFIED = "its commit is noted at the first pull"
_UNVERIFIED_SCALE = "unverified: its graph says, when it is pulled"


@dataclass(frozen=True, slots=True)
class ModelRow:
    """A model in a list.

    `size` is in words; for a model that is not here it is an estimate, `~`.
    """

    name: str
    state: str
    size: str
    parameters: str
    languages: str
    licence: str
    package: str = ""
    version: str = ""


def list_models(default_name: str | None) -> list[ModelRow]:
    """All models of the catalogue, and other pulled ones; `default_name` is the user's setting."""
    default_name = default_name or default()
    installed = Store.usual().folders()
    rows = [_shipped_row(entry, default_name) for entry in entries().values() if entry.folder]
    pulled = {model.name for model in installed}
    rows += [_packaged_row(model, default_name, pulled) for model in packaged_models()]
    here = {row.name for row in rows}
    parts = Store.usual().parts()
    for entry in entries().values():
        own = [
            _installed_row(model, default_name) for model in installed if model.name == entry.name
        ]
        own += [_part_row(part) for part in parts if part.name == entry.name]
        rows += own
        if not own and not entry.folder and entry.name not in here:
            size = entry.estimated_size()
            rows.append(ModelRow(entry.name, "available", size, *_about(entry)))
    rows += [
        _installed_row(model, default_name) for model in installed if model.name not in entries()
    ]
    return rows + [_part_row(part) for part in parts if part.name not in entries()]


def _part_row(part: ModelPart) -> ModelRow:
    """A row for a model that was fetched only in part."""
    entry = entries().get(part.name)
    about = _about(entry) if entry else ("", "", "")
    return ModelRow(f"{part.name}:{part.precision}", "partly", format_size(part.size), *about)


def facts(reference: Reference) -> dict[str, Any]:
    """The known facts about a model, by name."""
    entry, store = reference.entry, Store.usual()
    about: dict[str, Any] = {"name": reference.name}
    packaged = find_packaged(reference)
    if packaged is not None:
        folder = packaged.open_folder()
        entry = find_entry(folder) or Entry(reference.name)
        length, window = folder.length, folder.window
        entry = replace(entry, length=length, window=window)
    if entry is not None:
        about |= {
            # Its card is beside the package, which an installation has not.
            "page": f"{_SOURCES}/{entry.page}" if entry.folder else entry.page,
            "licence": entry.licence + ("" if entry.is_commercial else ", not for commercial use"),
            "languages": _languages(entry),
            "parameters": f"{entry.parameters} million" if entry.parameters else "",
            "length": f"{entry.length} tokens of a pair",
            "window": f"{entry.window} tokens of a passage at once",
            "speed": f"{entry.seconds:g} s for 100 passages of 140 tokens, int8 on two cores"
            if entry.seconds
            else "",
            "encoding": entry.encoding,
            "scale": _scale(reference, entry),
            "quality": [
                f"{figure.value:g}  {figure.measure} ({figure.source})" for figure in entry.quality
            ],
        }
    if entry is not None and entry.folder:
        shipped = find(entry.name)
        place = str(shipped.graph.parent)
        size = format_size(shipped.size())
        return about | {"revision": entry.revision, "size": size, "installed": place}
    if packaged is not None:
        about |= {
            "package": packaged.label,
            "revision": folder.revision,
            "size": format_size(folder.size()),
            "installed": str(folder.tokenizer.parent),
        }
        return {name: value for name, value in about.items() if value not in ("", [])}
    about["precisions"] = _origins(reference, store)
    for model in store.folders(reference.name):
        if isinstance(model, DamagedModel):
            about[f"{model.precision} damaged"] = model.damage()
            continue
        manifest = model.manifest
        about[f"{model.precision} installed"] = [
            f"{model.folder}, {manifest.size:,} bytes, pulled {manifest.pulled}",
            f"{manifest.repository}@{manifest.revision}, {manifest.graph}",
            *(f"{file.sha256}  {name}" for name, file in manifest.files.items()),
        ]
    return {name: value for name, value in about.items() if value not in ("", [])}


def _scale(reference: Reference, entry: Entry) -> str:
    """The scale of a model's scores; that of an installed model is found as when it is opened."""
    if entry.scale is not None:
        return entry.scale
    if entry.encoding in prompts():
        return "logit"
    from rerank_cli.runtimes.tensors import scale_of  # numpy is slow to import

    with suppress(ModelError):
        folder = find(str(reference))
        return scale_of(folder.graph) if folder.prompt is None else "logit"
    return _UNVERIFIED_SCALE


def _origins(reference: Reference, store: Store) -> list[str]:
    """Where each precision comes from, and at which commit."""
    entry = reference.entry
    places = (
        {name: origin.repository for name, origin in entry.origins.items()}
        if entry is not None
        else {model.precision: model.manifest.repository for model in store.models(reference.name)}
    )
    lines = []
    for precision, repository in places.items():
        locked = store.find_lock(reference.name, precision)
        revision = f"@{locked['revision']}, locked" if locked else f"; {_UNVERIFIED}"
        size = f", {entry.estimated_size(precision)}" if entry is not None else ""
        lines.append(f"{precision}{size}: {repository}{revision}")
    return lines


def _shipped_row(entry: Entry, default_name: str) -> ModelRow:
    name = f"{entry.name}@{entry.revision}"
    size = format_size(find(entry.name).size())
    state = "default" if default_name in (name, entry.name) else "ships"
    return ModelRow(name, state, size, *_about(entry))


def _packaged_row(model: PackagedModel, default_name: str, pulled: Collection[str]) -> ModelRow:
    """A row for a model of a package; its state shows its fault, if it has one."""
    size, about = "", ("", "", "")
    try:
        folder = model.open_folder()
        size = format_size(folder.size())
        about = _about(find_entry(folder) or Entry(model.name))
        state = "default" if default_name.partition("@")[0] == model.name else "installed"
    except RerankError:
        state = "damaged"
    if model.is_hidden() or model.name in pulled:
        state = "hidden"
    elif state != "damaged" and sum(other.name == model.name for other in packaged_models()) > 1:
        state = "ambiguous"
    return ModelRow(model.name, state, size, *about, model.package, model.version)


def _installed_row(model: InstalledModel | DamagedModel, default_name: str) -> ModelRow:
    name = f"{model.name}:{model.precision}"
    entry = entries().get(model.name)
    state = "default" if _is_name_of(default_name, model) else "installed"
    if model.damage() is not None:
        state = "damaged"
    manifest = None if isinstance(model, DamagedModel) else model.manifest
    about = _about(entry) if entry else ("", "", manifest.licence if manifest else "")
    return ModelRow(name, state, format_size(manifest.size) if manifest else "", *about)


def _is_name_of(name: str, model: InstalledModel | DamagedModel) -> bool:
    """Whether a name in the settings means a model, in any precision."""
    if name.partition(":")[0] not in (model.name, "hf") and name != model.name:
        return False
    reference = read_name(name)
    return reference.name == model.name and reference.precision in ("", model.precision)


def _about(entry: Entry) -> tuple[str, str, str]:
    parameters = f"{entry.parameters} M" if entry.parameters else ""
    return parameters, _languages(entry), entry.licence


def _languages(entry: Entry) -> str:
    return "many" if list(entry.languages) == ["mul"] else ", ".join(entry.languages)


def ensure_installed(model: str | None, *, pull: bool, keep_off: bool) -> None:
    """Fetch a model before it is opened, if it is not here and may be fetched.

    It may be fetched with `pull`, or if a person at the terminal agrees; never with `keep_off`, or
    if the environment forbids it. Raises `NotInstalled` and what fetching raises.
    """
    if model is None or not is_local(model):
        if keep_off and is_remote(model):
            raise UsageError(
                f"--offline: {model} is a provider's model",
                hint="one of rerank models is run here",
            )
        return
    reference = read_name(model)
    if reference.entry is not None and reference.entry.folder:
        return
    if find_packaged(reference) is not None:
        return
    try:
        find_installed(reference)
    except NotInstalled as error:
        barrier = _barrier(keep_off=keep_off)
        if barrier is not None:
            raise _offline_error(error, barrier) from error
        streams = (sys.stdin, sys.stderr)
        can_ask = all(stream is not None and stream.isatty() for stream in streams)
        if not pull and not can_ask:
            raise
        fetch(reference, refusal=None if pull else error)


def fetch(
    reference: Reference, *, refusal: NotInstalled | None = None, keep_off: bool = False
) -> InstalledModel:
    """Fetch a model. With a `refusal` a person is asked first; it is raised if they say no."""
    store = Store.usual()
    if (barrier := _barrier(keep_off=keep_off)) is not None:
        place = store.place(reference.name, reference.precision)
        raise _offline_error(NotInstalled(str(reference), str(place)), barrier)

    from rerank_cli.models.pull import pull_for_user

    return pull_for_user(reference, store, refusal)


def _barrier(*, keep_off: bool) -> str | None:
    """The option or the variable that forbids the network, if one does."""
    return "--offline" if keep_off else offline_variable()


def _offline_error(error: NotInstalled, barrier: str) -> NotInstalled:
    """The error with advice for when nothing may be fetched."""
    error.hint = (
        f"{barrier} keeps off the network: without it, rerank models pull {error.model}; "
        f"{COPY_FOLDER}"
    )
    return error


def read_pulled_name(name: str) -> Reference:
    """Read the name of a model that is pulled; raises `UsageError`."""
    reference = read_name(name)
    if reference.entry is not None and reference.entry.folder:
        raise UsageError(f"{name} ships with rerank, and is not among what was pulled")
    if (packaged := find_packaged(reference)) is not None:
        raise UsageError(
            f"{name} is of the package {packaged.label}, and was not pulled",
            hint=f"pip uninstall {packaged.package} removes it; rerank doctor -m {name} checks it",
        )
    return reference


def find_pulled(
    reference: Reference, *, may_be_missing: bool = False
) -> list[InstalledModel | DamagedModel]:
    """The installed models that a name means; raises `NotInstalled`."""
    models = [
        model
        for model in Store.usual().folders(reference.name)
        if reference.precision in ("", model.precision)
    ]
    return models if models or may_be_missing else [find_installed(reference)]
