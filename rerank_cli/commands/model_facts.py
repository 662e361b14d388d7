"""What there is to say of a model: in a row of a list, and in a page."""

from dataclasses import dataclass
from typing import Any

from rerank_cli.models import Reference, find, read
from rerank_cli.models.catalogue import Entry, default, entries
from rerank_cli.models.store import Installed, Store

_UNVERIFIED = "unverified: found when it is pulled, and locked from then on"


@dataclass(frozen=True, slots=True)
class Row:
    """A model in a list. `size` is what it takes on this disk, in megabytes."""

    name: str
    state: str
    size: str
    parameters: str
    languages: str
    licence: str


def rows(chosen: str | None) -> list[Row]:
    """All models of the catalogue, and what else was pulled; `chosen` is the one that is set."""
    usual = chosen or default()
    there = Store.usual().installed()
    made = [_shipped(entry, usual) for entry in entries().values() if entry.folder]
    for entry in entries().values():
        own = [one for one in there if one.name == entry.name]
        made += [_pulled(one, usual) for one in own]
        if not own and not entry.folder:
            made.append(Row(entry.name, "not installed", "", *_about(entry)))
    made += [_pulled(one, usual) for one in there if one.name not in entries()]
    return made


def facts(reference: Reference) -> dict[str, Any]:
    """All that is known of a model, by name; what is not known is left out."""
    entry, store = reference.entry, Store.usual()
    about: dict[str, Any] = {"name": reference.name}
    if entry is not None:
        about |= {
            "page": entry.page,
            "licence": entry.licence + ("" if entry.is_commercial else ", not for commercial use"),
            "languages": _languages(entry),
            "parameters": f"{entry.parameters} million",
            "length": f"{entry.length} tokens of a pair",
            "window": f"{entry.window} tokens of a passage at once",
            "speed": f"{entry.seconds:g} s for 100 passages of 140 tokens, int8 on two cores",
            "encoding": entry.encoding,
            "scale": "logit",
            "quality": [f"{one.value:g}  {one.measure} ({one.source})" for one in entry.quality],
        }
    if entry is not None and entry.folder:
        return about | {"revision": entry.revision, "installed": str(find(entry.name).graph.parent)}
    about["precisions"] = _origins(reference, store)
    for one in store.installed(reference.name):
        manifest = one.manifest
        about[f"{one.precision} installed"] = [
            f"{one.folder}, {manifest.size:,} bytes, pulled {manifest.pulled}",
            f"{manifest.repository}@{manifest.revision}, {manifest.graph}",
            *(f"{file.sha256}  {name}" for name, file in manifest.files.items()),
        ]
    return {name: value for name, value in about.items() if value not in ("", [])}


def _origins(reference: Reference, store: Store) -> list[str]:
    """Where each precision comes from, and at which commit."""
    entry = reference.entry
    places = (
        {name: origin.repository for name, origin in entry.origins.items()}
        if entry is not None
        else {one.precision: one.manifest.repository for one in store.installed(reference.name)}
    )
    told = []
    for precision, repository in places.items():
        locked = store.locked(reference.name, precision)
        revision = f"@{locked['revision']}, locked" if locked else f", {_UNVERIFIED}"
        told.append(f"{precision}: {repository}{revision}")
    return told


def _shipped(entry: Entry, usual: str) -> Row:
    name = f"{entry.name}@{entry.revision}"
    folder = find(entry.name).graph.parent
    size = sum(path.stat().st_size for path in folder.iterdir() if path.is_file())
    state = "default" if usual in (name, entry.name) else "ships with rerank"
    return Row(name, state, _megabytes(size), *_about(entry))


def _pulled(one: Installed, usual: str) -> Row:
    name = f"{one.name}:{one.precision}"
    entry = entries().get(one.name)
    state = "default" if _is_meant(usual, one) else "installed"
    if one.damage() is not None:
        state = "damaged"
    about = _about(entry) if entry else ("", "", one.manifest.licence)
    return Row(name, state, _megabytes(one.manifest.size), *about)


def _is_meant(usual: str, one: Installed) -> bool:
    """Whether a name in the settings is that of a model, whatever precision is there."""
    if usual.partition(":")[0] not in (one.name, "hf") and usual != one.name:
        return False
    reference = read(usual)
    return reference.name == one.name and reference.precision in ("", one.precision)


def _about(entry: Entry) -> tuple[str, str, str]:
    return f"{entry.parameters} M", _languages(entry), entry.licence


def _languages(entry: Entry) -> str:
    return "many" if list(entry.languages) == ["mul"] else ", ".join(entry.languages)


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"
