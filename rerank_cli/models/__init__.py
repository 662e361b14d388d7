"""Local models: from the name of a model to its folder.

`find` is the one way from a name to a folder. Opening and running a model is `scorers.local`'s
business, and fetching one `hub`'s.
"""

import os
import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from rerank_cli.errors import ModelError, NoHome, NotInstalled, RerankError, UsageError, near_words
from rerank_cli.models.catalogue import PRECISIONS, Entry, default, entries, names_containing
from rerank_cli.models.folder import CHECKSUMS, ModelFolder, describe, read_checksums
from rerank_cli.models.packages import (
    MULTILINGUAL,
    PackagedModel,
    describe_with_entry,
    find_package,
    is_revision,
    packaged_models,
    read_model_file,
    with_entry,
)
from rerank_cli.models.store import DamagedModel, InstalledModel, Store
from rerank_cli.terminal import format_names
from rerank_cli.user_files import expand_user

HUB = "hf:"

_PACKAGE = Path(__file__).parent.parent
# An installed wheel carries the shipped models as package data; a checkout has them at its top.
_SHIPPED = (_PACKAGE / "data" / "models", _PACKAGE.parent / "models")
_PATH = re.compile(r"\.{0,2}[/\\]|~|\.{1,2}$|[A-Za-z]:[/\\]")
# NAME[:PRECISION][@REVISION], where a name may be hf:OWNER/REPOSITORY.
_NAME = re.compile(r"(?P<name>(?:hf:)?[^:@]+)(?::(?P<precision>[^:@]*))?(?:@(?P<revision>.*))?")
_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
OFFLINE_VARIABLES = ("RERANK_OFFLINE", "HF_HUB_OFFLINE")
# Advice if the Hub cannot be reached.
OTHER_HUB = "HF_ENDPOINT names another Hub, such as a mirror"
COPY_FOLDER = (
    "or copy the model's .onnx file, tokenizer.json and config.json into a folder here: -m ./FOLDER"
)
INSTALL_MULTILINGUAL = f"pip install rerank-model-{MULTILINGUAL}"
_TRUE = {"1", "on", "yes", "true"}
_MAX_NEAR = 3  # names in a hint


@dataclass(frozen=True, slots=True)
class Reference:
    """A model by name: of the catalogue, or `hf:OWNER/REPOSITORY`. Empty parts match any."""

    name: str
    precision: str = ""
    revision: str = ""

    @property
    def entry(self) -> Entry | None:
        return entries().get(self.name)

    @property
    def repository(self) -> str | None:
        """The Hub's repository, if the name has its owner."""
        return self.name.removeprefix(HUB) if self.name.startswith(HUB) else None

    def __str__(self) -> str:
        precision = f":{self.precision}" if self.precision else ""
        return f"{self.name}{precision}" + (f"@{self.revision}" if self.revision else "")


def find(model: str | None) -> ModelFolder:
    """Find the folder of a model by its path or its name, by default the model that ships.

    Raises `UsageError` for a name that means nothing, with the nearest ones, `NotInstalled` for one
    that could be pulled, and `ModelError` for one that is damaged.
    """
    name = model or default()
    if is_path(name):
        return describe_with_entry(expand_user(name), name)
    reference = read_name(name)
    if reference.entry is not None and reference.entry.folder:
        return _find_shipped(reference.entry)
    if (packaged := find_packaged(reference)) is not None:
        return packaged.open_folder()
    return folder_of(find_installed(reference), reference.entry)


def find_packaged(reference: Reference) -> PackagedModel | None:
    """Find the package that has the model, unless it was pulled: that comes first.

    Raises `UsageError` if several have one, or if it has another revision.
    """
    if reference.precision or reference.repository is not None:
        return None
    if reference.entry is not None and Store.usual().folders(reference.name):
        return None
    packaged = find_package(reference.name)
    if packaged is None or not reference.revision:
        return packaged
    revision = packaged.open_folder().revision
    if is_revision(reference.revision, revision):
        return packaged
    if reference.entry is not None:
        return None
    raise _unknown_model_error(str(reference), [f"{packaged.name}@{revision}"])


def is_path(model: str) -> bool:
    """Whether a model is named by its path."""
    return bool(_PATH.match(model))


def is_repository(text: str) -> bool:
    """Whether a text may be the name of a repository of the Hub, OWNER/REPOSITORY."""
    return _REPOSITORY.fullmatch(text) is not None


def is_local(model: str) -> bool:
    """Whether a name is of the catalogue, the Hub or a package, whatever its precision."""
    plain = re.split("[:@]", model, maxsplit=1)[0]
    return plain in entries() or model.startswith(HUB) or find_package(plain) is not None


def names() -> list[str]:
    """The names that models can be opened by."""
    catalogue = entries().values()
    shipped = [f"{entry.name}@{entry.revision}" for entry in catalogue if entry.folder]
    others = [entry.name for entry in catalogue if not entry.folder]
    packaged = [model.name for model in packaged_models() if not model.is_hidden()]
    return [*dict.fromkeys([*shipped, "bm25", *packaged, *others])]


def read_name(model: str) -> Reference:
    """Read a name. Raises `UsageError` where it means nothing, with the nearest ones."""
    match = _NAME.fullmatch(model)
    reference = (
        Reference(match["name"], match["precision"] or "", match["revision"] or "")
        if match
        else Reference(model)
    )
    if reference.precision and reference.precision not in PRECISIONS:
        raise UsageError(
            f"{model}: no precision is called {reference.precision!r}",
            hint=" or ".join(f"{reference.name}:{precision}" for precision in PRECISIONS),
        )
    if reference.repository is not None:
        if not is_repository(reference.repository):
            raise UsageError(f"{model}: not a repository of the Hub", hint="hf:OWNER/REPOSITORY")
        return reference
    entry = reference.entry
    if entry is None:
        packaged = find_package(reference.name) or find_package(reference.name, anew=True)
        if packaged is None or reference.precision:
            raise _unknown_model_error(model, [packaged.name] if packaged else ())
        return reference
    if entry.folder and (reference.precision or reference.revision not in ("", entry.revision)):
        if reference.revision in entry.former:
            raise UsageError(
                f"{model} no longer ships: {entry.name}@{entry.revision} took its place",
                hint=f"-m {entry.name}, for whose scores an old --min-score has to be chosen "
                "again; the old files are in the history of models/, and work like any folder: "
                "-m ./FOLDER",
            )
        raise _unknown_model_error(model, [f"{entry.name}@{entry.revision}"])
    return reference


def find_installed(reference: Reference) -> InstalledModel:
    """Find the pulled model of a name; raises `NotInstalled` and `ModelError`."""
    store = Store.usual()
    installed_models = [
        model
        for model in store.folders(reference.name)
        if reference.precision in ("", model.precision)
        # A damaged model may be the one that the user means, and another precision has other
        # scores.
        and (isinstance(model, DamagedModel) or model.revision.startswith(reference.revision))
    ]
    if not installed_models:
        place = "home directory"  # of a user who has none
        with suppress(NoHome):
            place = str(store.place(reference.name, reference.precision))
        size = (
            "" if reference.entry is None else reference.entry.estimated_size(reference.precision)
        )
        raise NotInstalled(str(reference), place, size)
    model = min(installed_models, key=lambda model: _preference(model.precision))
    damage = model.damage()
    if isinstance(model, DamagedModel) or damage is not None:
        raise ModelError(
            f"{model.name}: {damage}", hint=how_to_renew(f"{model.name}:{model.precision}")
        )
    return model


def _preference(precision: str) -> int:
    """The place of a precision among all, the preferred one first."""
    return PRECISIONS.index(precision) if precision in PRECISIONS else len(PRECISIONS)


def folder_of(model: InstalledModel, entry: Entry | None) -> ModelFolder:
    """Describe a pulled model, by its files and by the catalogue."""
    window = {} if entry is None else {"window": entry.window}
    name = f"{model.name}:{model.precision}"
    folder = describe(model.folder / model.graph, name, model.revision[:8], **window)
    hashes = {model.folder / name: file.sha256 for name, file in model.manifest.files.items()}
    folder = replace(folder, hashes=hashes)
    if entry is None:
        return folder
    return with_entry(folder, entry)


def check_hashes(folder: ModelFolder, digest: Callable[[Path], str]) -> None:
    """Raise `ModelError` if a file has other content than it is known to have.

    `digest` finds a file's SHA-256, and raises `OSError`. Nothing is known of models in the user's
    own folders.
    """
    if not folder.hashes:
        return
    hint = how_to_renew(folder.name, folder.package)
    for path in (path for path, stamp in folder.stamps.items() if stamp is not None):
        try:
            actual, expected = digest(path), folder.hashes.get(path)
        except OSError as error:
            raise ModelError(f"{path}: {error.strerror}", hint=hint) from error
        if expected is None:
            raise ModelError(f"{path}: is none of the files of {folder.name}", hint=hint)
        if actual != expected:
            raise ModelError(
                f"{path}: is damaged: its SHA-256 is {actual} and not {expected}", hint=hint
            )


def how_to_renew(name: str, package: str = "") -> str:
    """Advice on getting the files of a model again."""
    if package:
        return f"pip install --force-reinstall {package}"
    name = name.partition("@")[0]
    entry = entries().get(name.partition(":")[0])
    if entry is not None and entry.folder:
        return "install rerank-cli again"
    if entry is not None or name.startswith(HUB):
        return f"rerank models pull {name} fetches what is damaged; rerank models verify lists that"
    return "fetch its files again from their source"


def _find_shipped(entry: Entry) -> ModelFolder:
    for root in _SHIPPED:
        if (folder := root / entry.folder).is_dir():
            shipped_folder = describe(folder, entry.name, entry.revision, window=entry.window)
            try:
                hashes = read_checksums(folder)
                for graph in shipped_folder.graphs:
                    if graph not in hashes:
                        raise ModelError(f"{folder / CHECKSUMS}: has no hash of {graph.name}")
            except ModelError as error:
                error.hint = how_to_renew(entry.name)
                raise
            return replace(with_entry(shipped_folder, entry), hashes=hashes, is_shipped=True)
    raise ModelError(
        f"the files of {entry.name}@{entry.revision} are missing from this installation",
        hint="install rerank-cli again",
    )


def _unknown_model_error(model: str, near: Sequence[str] = ()) -> UsageError:
    message = f"no model is called {model!r}"
    if is_path(model):
        return UsageError(message, hint=f"a folder needs no other name: rerank -m {model}")
    if os.path.exists(model):
        return UsageError(
            message, hint=f"did you mean ./{model}? A folder's path begins with ./ or /"
        )
    if re.split("[:@]", model, maxsplit=1)[0] == MULTILINGUAL and not near:
        return UsageError(
            f"{model} is not installed", hint=f"{INSTALL_MULTILINGUAL}; rerank models lists others"
        )
    if model.isdecimal():
        return UsageError(message, hint=f"-n {model} keeps the best {model}; -m is the model")
    near = list(near) or names_containing(model) or _models_of_providers(model)
    of_hub = is_repository(model)
    if not near and not of_hub:
        near = near_words(model, names())
    repository = f"{HUB}{model if of_hub else 'OWNER/REPOSITORY'}"
    if near:
        rest = f"The repository itself: {repository}" if of_hub else "All: rerank models"
        return UsageError(message, hint=f"did you mean {format_names(near)}? {rest}")
    return UsageError(
        message,
        hint=f"models here: rerank models; of the Hugging Face Hub: {repository}; of services: "
        "rerank providers, or openai-like/MODEL with --base-url; in a folder: ./FOLDER",
    )


def _models_of_providers(model: str) -> list[str]:
    """Models of services with such a name, if the name lacks the service."""
    from rerank_cli.providers.catalogue import example_models

    with suppress(RerankError):  # a file of the user with such cannot be read
        return [name for name in example_models() if name.partition("/")[2] == model][:_MAX_NEAR]
    return []


def check_checkpoint(folder: Path, source: str) -> None:
    """Raise `UsageError` if there is no such folder, with a guess at the meaning of `source`."""
    if folder.is_dir():
        return
    if folder.exists():
        raise UsageError(f"{source}: not a folder", hint="name the folder that it is in")
    model_names = [] if is_path(source) else names_containing(source)
    repositories = [f"{HUB}{entries()[name].repository}" for name in model_names]
    if not model_names and is_repository(source):
        repositories = [f"{HUB}{source}"]
    raise UsageError(
        f"{source}: no such folder",
        hint=f"did you mean {format_names(repositories)}?"
        if repositories
        else "name a folder that transformers saved a model in, or hf:OWNER/REPOSITORY",
    )


def multilingual_advice() -> str:
    """Advice if the model does not read a language."""
    with suppress(RerankError):
        if find_package(MULTILINGUAL) is not None:
            return f"for other languages take -m {MULTILINGUAL}"
    return f"for other languages take -m {MULTILINGUAL}, which {INSTALL_MULTILINGUAL} brings"


def find_entry(folder: ModelFolder) -> Entry | None:
    """The entry of a model in the catalogue or in its own file; None if it has none."""
    entry = None
    if not folder.is_shipped:
        entry = read_model_file(folder.tokenizer.parent, folder.name)
    return entry or (None if folder.package else entries().get(folder.name.partition(":")[0]))


def offline_variable() -> str | None:
    """The variable that keeps this process off the network, if one does."""
    return next(
        (name for name in OFFLINE_VARIABLES if os.environ.get(name, "").lower() in _TRUE), None
    )
