"""`rerank models …`: lists local models, fetches, checks and removes them.

What is known of models is in `models`, their files are in `models.store`, and `models.pull` fetches
them.
"""

import os
import sys
from collections.abc import Collection
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import typer

from rerank_cli.cli import options
from rerank_cli.cli.parameters import setting_values, with_options
from rerank_cli.cli.typer_commands import ListGroup, PlainCommand, make_app
from rerank_cli.errors import ExitCode, ModelError, NotInstalled, RerankError, UsageError
from rerank_cli.models import (
    COPY_FOLDER,
    Reference,
    find,
    find_installed,
    find_packaged,
    is_local,
    is_path,
    known_entry,
    names,
    offline_variable,
    read_name,
)
from rerank_cli.models.catalogue import Entry, default, entries, prompts
from rerank_cli.models.packages import PackagedModel, packaged_models
from rerank_cli.models.store import DamagedModel, InstalledModel, ModelPart, Store
from rerank_cli.output_files import check_output_folder
from rerank_cli.scorers import BM25, check_model, is_remote
from rerank_cli.terminal import Terminal, format_json, format_size
from rerank_cli.types import Pair
from rerank_cli.user_files import config_file, expand_user

app = make_app(ListGroup)


def _pulled_names() -> list[str]:
    return [f"{model.name}:{model.precision}" for model in Store.usual().folders()]


def _installed_names() -> list[str]:
    packaged = [model.name for model in packaged_models() if not model.is_hidden()]
    return [default().partition("@")[0], *dict.fromkeys(packaged), *_pulled_names()]


Name = Annotated[
    str, typer.Argument(metavar="NAME", autocompletion=lambda: [n for n in names() if n != BM25])
]
PulledName = typer.Argument(metavar="NAME...", autocompletion=_pulled_names)
InstalledName = Annotated[str, typer.Argument(metavar="NAME", autocompletion=_installed_names)]
AsJson = Annotated[bool, typer.Option("--json", help="Write JSON.")]


@app.callback()
def _models() -> None:
    """List local models, and fetch, check and remove them.

    A NAME is one that `rerank models` lists, with a precision if needed (bge-reranker-base:fp32),
    or hf:OWNER/REPOSITORY for any other reranker in ONNX on the Hugging Face Hub.

    \b
    rerank models                          all models, and which are installed
    rerank models pull bge-reranker-base   fetch a model, for -m bge-reranker-base
    rerank models show bge-reranker-v2-m3  its source, quality and licence
    rerank models verify                   compare all files with their hashes
    rerank models use bge-reranker-base    use this model by default
    rerank models rm bge-reranker-base     remove a model
    rerank models export ./checkpoint OUT  make ONNX from what transformers saved
    rerank models package ./FOLDER         make a Python package of a model
    """


@app.command("list", cls=PlainCommand)
def list_(ctx: typer.Context, as_json: AsJson = False) -> int:
    """List the models that are installed or can be pulled by name.

    \b
    rerank models list
    rerank models list --json | jq -r '.[] | select(.state == "installed") | .name'
    """

    terminal = Terminal.current()
    listed = [asdict(row) for row in list_models(setting_values(ctx)["model"][0])]
    if as_json:
        terminal.write([format_json(listed)])
    else:
        cells = [list(model.values()) for model in listed]
        if terminal.interactive:
            terminal.write_table([row[:-2] for row in cells], _HEADS)
            if packages := [[row[0], *row[-2:]] for row in cells if row[-2]]:
                terminal.write([b"\n"])
                terminal.write_table(packages, (_HEADS[0], "PACKAGE", "VERSION"))
        else:
            terminal.write_table(cells)
    if terminal.interactive:
        terminal.say("\nrerank models pull NAME  fetches one\nrerank models show NAME  says more")
    return ExitCode.OK


@app.command("show", cls=PlainCommand)
def show(name: Name, as_json: AsJson = False) -> int:
    """Show a model's licence, languages, quality and source.

    \b
    rerank models show bge-reranker-v2-m3
    """

    found = facts(read_name(name))
    terminal = Terminal.current()
    if as_json:
        terminal.write([format_json(found)])
        return ExitCode.OK
    terminal.write_facts(
        [
            (label if number == 0 else "", str(text))
            for label, value in found.items()
            for number, text in enumerate(value if isinstance(value, list) else [value])
        ]
    )
    return ExitCode.OK


@app.command("pull", cls=PlainCommand)
@with_options(options.model_options, only="offline")
def pull(
    ctx: typer.Context,
    name: Name,
    revision: Annotated[
        str | None,
        typer.Option(
            "--revision",
            metavar="REVISION",
            help="The branch, tag or commit. Default: the commit that was pulled before, or main.",
        ),
    ] = None,
) -> int:
    """Fetch a model, check its files' hashes, and keep it.

    It can be used offline from then on. A download that was cut off continues. HF_ENDPOINT names
    another Hub, and HF_TOKEN is the token for it.

    \b
    rerank models pull bge-reranker-v2-m3
    rerank models pull bge-reranker-base:fp32
    rerank models pull hf:Xenova/bge-reranker-base --revision main
    """
    reference = read_name(name)
    if revision is not None:
        reference = replace(reference, revision=revision)
    if reference.entry is None and (packaged := find_packaged(reference)) is not None:
        raise UsageError(
            f"{name} is of the package {packaged.label}, and is not pulled",
            hint=f"pip install --upgrade {packaged.package} fetches a newer one",
        )
    model = fetch(reference, keep_off=ctx.params["offline"])
    Terminal.current().write([os.fsencode(f"{model.folder}\n")])
    return ExitCode.OK


@app.command("verify", cls=PlainCommand)
def verify(
    name: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME]...", autocompletion=_pulled_names)
    ] = None,
) -> int:
    """Compare the files of installed models with their hashes.

    By default all models that were pulled are checked. The exit code is 3 if a file has changed.

    \b
    rerank models verify
    rerank models verify bge-reranker-base
    """
    terminal, store = Terminal.current(), Store.usual()
    models = store.folders()
    if name:
        models = [model for text in name for model in _models_called(_pulled_name(text))]
    wrong, damaged = 0, dict[str, None]()
    for model in models:
        for path, trouble in model.verify():
            if trouble is not None:
                wrong += 1
                damaged[f"{model.name}:{model.precision}"] = None
            line = f"{trouble or 'ok'}\t{model.folder / path}\n"
            terminal.write([line.encode("utf-8", "surrogateescape")])
    if not models:
        terminal.warn(
            "no model was pulled: there is nothing to verify",
            "rerank doctor checks the model that ships with rerank",
        )
    if wrong:
        raise ModelError(
            f"{wrong} file{'s are' if wrong > 1 else ' is'} not as pulled",
            hint="fetch them again: " + ", ".join(f"rerank models pull {name}" for name in damaged),
        )
    return ExitCode.OK


@app.command("rm", cls=PlainCommand)
def rm(
    ctx: typer.Context,
    name: Annotated[list[str], PulledName],
) -> int:
    """Remove installed models, and what was fetched of one whose pull was cut off.

    A name without a precision stands for all its precisions.

    \b
    rerank models rm bge-reranker-base:fp32
    """
    store, terminal = Store.usual(), Terminal.current()
    references = [_pulled_name(text) for text in name]
    parts = [
        part
        for reference in references
        for part in store.parts(reference.name)
        if reference.precision in ("", part.precision)
    ]
    with_parts = {part.name for part in parts}
    for model in [
        model
        for reference in references
        for model in _models_called(reference, may_be_missing=reference.name in with_parts)
    ]:
        store.remove(model)
        terminal.say(f"{model.name}:{model.precision}: removed")
    for part in parts:
        store.remove_part(part)
        terminal.say(f"{part.name}:{part.precision}: removed what was fetched of it")
    chosen = setting_values(ctx)["model"][0]
    if chosen is not None and is_local(chosen):
        try:
            find(chosen)
        except NotInstalled:
            Terminal.current().warn(
                f"{chosen} is still what runs use, and is not here now",
                hint="rerank config unset model, for the model that ships",
            )
        except ModelError:  # it is here, though it may be damaged
            pass
    return ExitCode.OK


@app.command("use", cls=PlainCommand)
def use(ctx: typer.Context, name: InstalledName) -> int:
    """Make a model the default.

    As `rerank config set model NAME` does, but only if it can be opened now.

    \b
    rerank models use bge-reranker-base
    rerank models use mini
    """
    from rerank_cli.atomic_files import set_toml_value

    check_model(name)
    set_toml_value(config_file(), "model", name)
    terminal = Terminal.current()
    if setting_values(ctx)["model"][0] != name:
        terminal.warn("RERANK_MODEL is set too, and comes first")
    terminal.say(f"{name} is the default now")
    return ExitCode.OK


@app.command("path", cls=PlainCommand)
def path(name: InstalledName) -> int:
    """Print a model's folder, which -m ./FOLDER takes wherever it is copied.

    \b
    ls "$(rerank models path mini)"
    """
    # The graph may be in a folder `onnx` of it.
    Terminal.current().write([os.fsencode(f"{find(name).tokenizer.parent}\n")])
    return ExitCode.OK


@app.command("package", cls=PlainCommand)
def package(
    source: Annotated[str, typer.Argument(metavar="FOLDER|NAME", autocompletion=_installed_names)],
    out: Annotated[
        str,
        typer.Option(
            "--output",
            "-o",
            metavar="DIR",
            show_default=False,
            help="The folder to write the wheel into. Default: the current one.",
        ),
    ] = ".",
    name: Annotated[
        str | None,
        typer.Option("--name", metavar="NAME", help="The name for -m. Default: that it has."),
    ] = None,
    version: Annotated[
        str,
        typer.Option("--version", metavar="VERSION", help="The version of the package."),
    ] = "1.0",
    licence: Annotated[
        str | None,
        typer.Option("--licence", metavar="SPDX", help="Its licence: MIT, LicenseRef-ACME or so."),
    ] = None,
    languages: Annotated[
        str | None,
        typer.Option("--languages", metavar="CODES", help="What it reads: en,de; mul for many."),
    ] = None,
) -> int:
    """Make a Python package of a model, which pip installs and -m finds.

    Writes the wheel rerank-model-NAME, for an index of your own or for pip. What else is known of
    the model goes into FOLDER/model.toml, as docs/models.md says.

    \b
    rerank models package bge-reranker-v2-m3 -o dist
    rerank models package ./mine/int8 --name mine --licence MIT
    pip install ./rerank_model_mine-1.0-py3-none-any.whl
    rerank -m mine "fox" *.txt
    """
    from rerank_cli.models.packages import PackageFacts, read_model_file, write_wheel
    from rerank_cli.scorers import open_scorer

    check_output_folder(out and str(expand_user(out)), "-o")
    folder = find(source)
    root = folder.tokenizer.parent
    entry = read_model_file(root, source, is_strict=True) or known_entry(folder) or Entry(source)
    if not (entry.licence or folder.package or is_path(source)):
        entry = replace(entry, licence=find_installed(read_name(source)).manifest.licence)
    if not (entry.revision or folder.package or is_path(source)):
        entry = replace(entry, revision=folder.revision)
    if languages is not None:
        entry = replace(entry, languages=[code.strip() for code in languages.split(",")])
    if name is None:
        name = root.resolve().name if is_path(source) else read_name(source).name.rpartition("/")[2]
    facts = PackageFacts.check(name, version, licence or entry.licence, entry)
    # Whoever installs it gets one that can be opened, and scores.
    open_scorer(source).score([Pair.from_texts("a query", "a passage")])
    path = write_wheel(folder, facts, expand_user(out))
    Terminal.current().write([os.fsencode(f"{path}\n")])
    return ExitCode.OK


@app.command("export", cls=PlainCommand)
def export_(
    source: Annotated[str, typer.Argument(metavar="FOLDER|hf:OWNER/REPOSITORY")],
    out: Annotated[str, typer.Argument(metavar="OUT")],
    as_json: AsJson = False,
) -> int:
    """Make ONNX graphs from a checkpoint.

    Writes OUT/fp32, and OUT/int8 for this kind of processor. Needs the extra export. Reports how
    far the scores of each are from those of PyTorch, and writes that beside the graph, so that
    `rerank doctor` can check it.

    \b
    rerank models export ./my-checkpoint ./my-reranker
    rerank models export hf:BAAI/bge-reranker-v2-m3 ./v2-m3 && rerank -m ./v2-m3/int8 "fox" *.txt
    """

    terminal = Terminal.current()
    from rerank_cli.models.export import export_for_user  # needs numpy

    found = export_for_user(source, out, terminal)
    if as_json:
        terminal.write([format_json([asdict(fidelity) for fidelity in found])])
        return ExitCode.OK
    template = "the largest difference of scores {largest:.5f}, rank correlation {correlation:.3f}"
    terminal.write_table(
        [
            (str(Path(out) / fidelity.precision), template.format(**asdict(fidelity)))
            for fidelity in found
        ]
    )
    return ExitCode.OK


def _pulled_name(name: str) -> Reference:
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


def _models_called(
    reference: Reference, *, may_be_missing: bool = False
) -> list[InstalledModel | DamagedModel]:
    """The installed models that a name means; raises `NotInstalled`."""
    found = [
        model
        for model in Store.usual().folders(reference.name)
        if reference.precision in ("", model.precision)
    ]
    return found if found or may_be_missing else [find_installed(reference)]


_UNVERIFIED = "its commit is noted at the first pull"
_UNVERIFIED_SCALE = "unverified: its graph says, when it is pulled"


_HEADS = ("NAME", "STATE", "SIZE", "PARAMS", "LANGS", "LICENCE")


@dataclass(frozen=True, slots=True)
class ModelRow:
    """A model in a list. `size` is in words; of one that is not here it is an estimate, `~`."""

    name: str
    state: str
    size: str
    parameters: str
    languages: str
    licence: str
    package: str = ""
    version: str = ""


def list_models(chosen: str | None) -> list[ModelRow]:
    """All models of the catalogue, and what else was pulled; `chosen` is the one that is set."""
    chosen = chosen or default()
    installed = Store.usual().folders()
    rows = [_shipped_row(entry, chosen) for entry in entries().values() if entry.folder]
    pulled = {model.name for model in installed}
    rows += [_packaged_row(model, chosen, pulled) for model in packaged_models()]
    here = {row.name for row in rows}
    parts = Store.usual().parts()
    for entry in entries().values():
        own = [_installed_row(model, chosen) for model in installed if model.name == entry.name]
        own += [_part_row(part) for part in parts if part.name == entry.name]
        rows += own
        if not own and not entry.folder and entry.name not in here:
            size = entry.estimated_size()
            rows.append(ModelRow(entry.name, "available", size, *_about(entry)))
    rows += [_installed_row(model, chosen) for model in installed if model.name not in entries()]
    return rows + [_part_row(part) for part in parts if part.name not in entries()]


def _part_row(part: ModelPart) -> ModelRow:
    """What is here of a model that was not fetched to its end."""
    entry = entries().get(part.name)
    about = _about(entry) if entry else ("", "", "")
    return ModelRow(f"{part.name}:{part.precision}", "partly", format_size(part.size), *about)


def facts(reference: Reference) -> dict[str, Any]:
    """All that is known of a model, by name; what is not known is left out."""
    entry, store = reference.entry, Store.usual()
    about: dict[str, Any] = {"name": reference.name}
    packaged = find_packaged(reference)
    if packaged is not None:
        folder = packaged.open_folder()
        entry = known_entry(folder) or Entry(reference.name)
        length, window = folder.length, folder.window
        entry = replace(entry, length=length, window=window)
    if entry is not None:
        about |= {
            "page": entry.page,
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
    """The scale of a model's scores: of one that is here, as when it is opened."""
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


def _shipped_row(entry: Entry, chosen: str) -> ModelRow:
    name = f"{entry.name}@{entry.revision}"
    size = format_size(find(entry.name).size())
    state = "default" if chosen in (name, entry.name) else "ships"
    return ModelRow(name, state, size, *_about(entry))


def _packaged_row(model: PackagedModel, chosen: str, pulled: Collection[str]) -> ModelRow:
    """A model of a package; whatever is wrong with it is shown in its state."""
    size, about = "", ("", "", "")
    try:
        folder = model.open_folder()
        size = format_size(folder.size())
        about = _about(known_entry(folder) or Entry(model.name))
        state = "default" if chosen.partition("@")[0] == model.name else "installed"
    except RerankError:
        state = "damaged"
    if model.is_hidden() or model.name in pulled:
        state = "hidden"
    elif state != "damaged" and sum(other.name == model.name for other in packaged_models()) > 1:
        state = "ambiguous"
    return ModelRow(model.name, state, size, *about, model.package, model.version)


def _installed_row(model: InstalledModel | DamagedModel, chosen: str) -> ModelRow:
    name = f"{model.name}:{model.precision}"
    entry = entries().get(model.name)
    state = "default" if _is_called(chosen, model) else "installed"
    if model.damage() is not None:
        state = "damaged"
    manifest = None if isinstance(model, DamagedModel) else model.manifest
    about = _about(entry) if entry else ("", "", manifest.licence if manifest else "")
    return ModelRow(name, state, format_size(manifest.size) if manifest else "", *about)


def _is_called(name: str, model: InstalledModel | DamagedModel) -> bool:
    """Whether a name in the settings is that of a model, whatever precision is there."""
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

    It may with `pull`, or if a person at the terminal agrees; never with `keep_off` or where the
    environment says so. Raises `NotInstalled` and what fetching raises.
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
            raise _kept_off(error, barrier) from error
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
        raise _kept_off(NotInstalled(str(reference), str(place)), barrier)

    from rerank_cli.models.pull import pull_for_user

    return pull_for_user(reference, store, refusal)


def _barrier(*, keep_off: bool) -> str | None:
    """The option or the variable that keeps off the network, if one does."""
    return "--offline" if keep_off else offline_variable()


def _kept_off(error: NotInstalled, barrier: str) -> NotInstalled:
    """The same, with what to do where nothing may be fetched."""
    error.hint = (
        f"{barrier} keeps off the network: without it, rerank models pull {error.model}; "
        f"{COPY_FOLDER}"
    )
    return error
