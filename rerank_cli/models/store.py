"""The models that were pulled: plain files below one directory, each model whole or not there.

    NAME/PRECISION/             a model's files as its repository has them, and manifest.json
    .pulling/NAME-PRECISION/    what is being fetched, kept when that is cut off
    .locks/                     one file a model, held by whoever changes it
    revisions.json              the commit that each was pulled at first, and is from then on

A model takes its place by one rename, after all of it is on the disk and its hashes are right.
Anybody may have damaged these files since, so a bad manifest of one model must not affect the
others. Knows neither the Hub nor the catalogue.
"""

import json
import os
import re
import shutil
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from rerank_cli.atomic_files import (
    file_digest,
    make_file_lock,
    publish_folder,
    remove_folder,
    replace_file,
)
from rerank_cli.errors import ModelError, NoHome
from rerank_cli.models.folder import folder_size
from rerank_cli.user_files import data_directory, is_closed, parse_json_object, read_regular_file

MANIFEST = "manifest.json"
_SCHEMA = 1
_PULLING, _LOCKS, _REMOVING = ".pulling", ".locks", ".removing"
_REVISIONS = "revisions.json"
_POLL_SECONDS = 0.1  # between looks at a lock that another process holds


@dataclass(frozen=True, slots=True)
class File:
    """A file as it was when it was fetched: bytes, and their SHA-256 in hexadecimal."""

    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class ModelManifest:
    """A pulled model: its source, and the size and hash of each file.

    `revision` is the commit, `asked` the revision that was asked for, `pulled` a date. `graph` and
    the names of `files` are paths in the repository.
    """

    name: str
    precision: str
    repository: str
    revision: str
    asked: str
    endpoint: str
    licence: str
    graph: str
    pulled: str
    files: Mapping[str, File]

    @property
    def size(self) -> int:
        return sum(file.size for file in self.files.values())


@dataclass(frozen=True, slots=True)
class InstalledModel:
    """A model that is in the store: its folder and its manifest."""

    folder: Path
    manifest: ModelManifest

    @property
    def name(self) -> str:
        return self.manifest.name

    @property
    def precision(self) -> str:
        return self.manifest.precision

    @property
    def revision(self) -> str:
        return self.manifest.revision

    @property
    def graph(self) -> str:
        return self.manifest.graph

    def damage(self) -> str | None:
        """A fault of its files that can be found without reading them; None if there is none."""
        for name, file in self.manifest.files.items():
            path = self.folder / name
            try:
                status = path.stat()
            except OSError as error:
                return f"{path}: {error.strerror}"
            if not stat.S_ISREG(status.st_mode):
                return f"{path} is not a regular file"
            if status.st_size != file.size:
                return f"{path} has {status.st_size:,} bytes and not {file.size:,}"
        return None

    def verify(self) -> Iterator[tuple[str, str | None]]:
        """Read every file again; yield its name, and its fault or None."""
        for name, file in self.manifest.files.items():
            path = self.folder / name
            try:
                size, digest = path.stat().st_size, file_digest(path)
            except OSError as error:
                yield name, str(error.strerror)
                continue
            if size != file.size:
                yield name, f"{size:,} bytes and not {file.size:,}"
            elif digest != file.sha256:
                yield name, f"its SHA-256 is {digest} and not {file.sha256}"
            else:
                yield name, None


@dataclass(frozen=True, slots=True)
class DamagedModel:
    """A folder in the store whose manifest cannot be used; `reason` is why."""

    folder: Path
    reason: str

    @property
    def name(self) -> str:
        return _unslug(self.folder.parent.name)

    @property
    def precision(self) -> str:
        return self.folder.name

    def damage(self) -> str:
        return f"{self.folder / MANIFEST}: {self.reason}"

    def verify(self) -> Iterator[tuple[str, str | None]]:
        yield MANIFEST, self.reason


@dataclass(frozen=True, slots=True)
class ModelPart:
    """The fetched part of a model whose pull was cut off: `size` bytes."""

    name: str
    precision: str
    size: int


class Store:
    """The models in a directory, which need not be there yet."""

    def __init__(self, root: Path | None) -> None:
        self._root = root

    @classmethod
    def usual(cls) -> "Store":
        """The user's own; an empty one for a user who has no place for it."""
        try:
            return cls(data_directory() / "models")
        except NoHome:
            return cls(None)

    @property
    def root(self) -> Path:
        """The folder of the models; raises `NoHome`."""
        if self._root is None:
            raise NoHome
        return self._root

    def place(self, name: str, precision: str) -> Path:
        """The path of a model's manifest, or without a precision that of the model's folder."""
        folder = self.root / _slug(name)
        return folder / precision / MANIFEST if precision else folder

    def models(self, name: str | None = None) -> list[InstalledModel]:
        """The models in the store that have a manifest, or the precisions of one model."""
        return [model for model in self.folders(name) if isinstance(model, InstalledModel)]

    def folders(self, name: str | None = None) -> list[InstalledModel | DamagedModel]:
        """The folders in the store, or those of one model, by name and precision.

        Nothing is in one whose folder may not be entered.
        """
        if self._root is None or is_closed(self._root):
            return []
        pattern = f"{_slug(name) if name else '[!.]*'}/*/{MANIFEST}"
        return [_read(path) for path in sorted(self.root.glob(pattern)) if os.path.exists(path)]

    @contextmanager
    def stage_model(self, name: str, precision: str, on_wait: Callable[[], None]) -> Iterator[Path]:
        """Lock a model; yield its staging folder. `on_wait` is called if another process has it."""
        from filelock import Timeout

        staging = self.part_folder(name, precision)
        with _translate_errors(self.root):
            (self.root / _LOCKS).mkdir(parents=True, exist_ok=True)
            lock = make_file_lock(self.root / _LOCKS / f"{staging.name}.lock")
            try:
                lock.acquire(blocking=False)
            except Timeout:
                on_wait()
                lock.acquire(poll_interval=_POLL_SECONDS)
            try:
                self._clear()
                staging.mkdir(parents=True, exist_ok=True)
                yield staging
            finally:
                lock.release()

    def part_folder(self, name: str, precision: str) -> Path:
        """The folder that a model is fetched into."""
        return self.root / _PULLING / f"{_slug(name)}-{precision}"

    def parts(self, name: str | None = None) -> list[ModelPart]:
        """The fetched parts of models, or of one, whose pulls were cut off."""
        if self._root is None or is_closed(self._root):
            return []
        parts = []
        for folder in sorted((self.root / _PULLING).glob("*-*")):
            slug, _, precision = folder.name.rpartition("-")
            size = folder_size(folder)
            if size and name in (None, _unslug(slug)):
                parts.append(ModelPart(_unslug(slug), precision, size))
        return parts

    def remove_part(self, part: ModelPart) -> None:
        """Remove the fetched part of a model whose pull was cut off."""
        with self.stage_model(part.name, part.precision, on_wait=lambda: None) as staging:
            remove_folder(staging, aside=self._aside())

    def adopt(self, staging: Path, manifest: ModelManifest) -> InstalledModel:
        """Move a staging folder to the place of its model, and replace the model there."""
        target = self.place(manifest.name, manifest.precision).parent
        paths = {staging / name for name in manifest.files}
        with _translate_errors(self.root):
            for path in [path for path in staging.rglob("*") if path.is_file()]:
                if path not in paths:
                    path.unlink()
            content = {"schema": _SCHEMA, **asdict(manifest)}
            replace_file(staging / MANIFEST, _json(content))
            target.parent.mkdir(parents=True, exist_ok=True)
            publish_folder(staging, target, aside=self._aside())
        return InstalledModel(target, manifest)

    def remove(self, model: InstalledModel | DamagedModel) -> None:
        """Take a model out of the store; what its commit was stays known."""
        with _translate_errors(self.root):
            remove_folder(model.folder, aside=self._aside())
            with suppress(OSError):
                model.folder.parent.rmdir()  # if that was its only precision

    def find_lock(self, name: str, precision: str) -> Mapping[str, Any] | None:
        """Find what was noted of a model that was pulled before: repository, revision, hashes.

        Raises `ModelError` if the notes are damaged.
        """
        if self._root is None or not os.path.isdir(self._root):  # noqa: PTH112 - it cannot raise
            return None
        path, key = self._root / _REVISIONS, f"{name}:{precision}"
        locks = _load_locks(path)
        if key not in locks:
            return None
        lock: dict[str, Any] = locks[key]
        is_right = (
            isinstance(lock, dict)
            and isinstance(lock.get("repository"), str)
            and isinstance(lock.get("revision"), str)
            and isinstance(files := lock.get("files"), dict)
            and all(isinstance(digest, str) for digest in files.values())
        )
        if not is_right:
            raise _lock_error(path, f"what it has of {key} is damaged")
        return lock

    def lock(self, manifest: ModelManifest) -> None:
        """Note the commit and the hashes of a model, which hold from now on."""
        path = self.root / _REVISIONS
        hashes = {name: file.sha256 for name, file in manifest.files.items()}
        lock = {"repository": manifest.repository, "revision": manifest.revision, "files": hashes}
        key = f"{manifest.name}:{manifest.precision}"
        others = make_file_lock(self.root / _LOCKS / "revisions.lock")  # other processes pull too
        with _translate_errors(self.root), others:
            replace_file(path, _json({**_load_locks(path), key: lock}))

    def _aside(self) -> Path:
        """A place where nobody looks for models, for a folder that will be removed."""
        return self.root / f"{_REMOVING}-{os.urandom(8).hex()}"

    def _clear(self) -> None:
        """Remove folders that a killed process has put aside."""
        for path in self.root.glob(f"{_REMOVING}-*"):
            shutil.rmtree(path, ignore_errors=True)


_HASH = re.compile(r"[0-9a-f]{64}")
_TEXTS = [field.name for field in fields(ModelManifest) if field.name != "files"]


def _read(path: Path) -> InstalledModel | DamagedModel:
    folder = path.parent
    try:
        manifest = _manifest_of(parse_json_object(read_regular_file(path)))
        if (_slug(manifest.name), manifest.precision) != (folder.parent.name, folder.name):
            raise ValueError("it is another model's")
        return InstalledModel(folder, manifest)
    except OSError as error:
        return DamagedModel(folder, error.strerror or str(error))
    except ValueError as error:
        return DamagedModel(folder, f"cannot be read: {error}")


def _manifest_of(content: Mapping[str, Any]) -> ModelManifest:
    """The manifest that JSON is; raises `ValueError`."""
    if content.get("schema") != _SCHEMA:
        raise ValueError("it is of another version of rerank")
    texts = {name: content.get(name) for name in _TEXTS}
    for name, text in texts.items():
        if not isinstance(text, str):
            raise ValueError(f"its {name} is no text")
    files = content.get("files")
    if not isinstance(files, dict):
        raise ValueError("it has no files")
    entries = {_inside(name): _file_of(name, file) for name, file in files.items()}
    if texts["graph"] not in entries:
        raise ValueError("its graph is none of its files")
    return ModelManifest(**texts, files=entries)  # type: ignore[arg-type]  # checked above


def _file_of(name: str, entry: Any) -> File:
    """A file by its entry in a manifest; raises `ValueError`."""
    if isinstance(entry, dict):
        size, digest = entry.get("size"), entry.get("sha256")
        if type(size) is int and isinstance(digest, str) and _HASH.fullmatch(digest):
            return File(size, digest)
    raise ValueError(f"what it says of {name!r} is no size and hash")


def _inside(name: str) -> str:
    """A path that stays in its folder, or `ValueError`."""
    path = Path(name)
    if path.is_absolute() or ".." in path.parts or not path.parts or "\0" in name:
        raise ValueError(f"{name!r} is not a path within a model's folder")
    return name


@contextmanager
def _translate_errors(root: Path) -> Iterator[None]:
    """Raise errors of the store's files as `ModelError`."""
    try:
        yield
    except OSError as error:
        raise ModelError(f"{error.filename or root}: {error.strerror or error}") from error


def _slug(name: str) -> str:
    """A model's name as the name of a folder."""
    return name.removeprefix("hf:").replace("/", "--")


def _unslug(folder: str) -> str:
    """The name of a model whose folder is called so."""
    owner, separator, repository = folder.partition("--")
    return f"hf:{owner}/{repository}" if separator else folder


def _load_locks(path: Path) -> dict[str, Any]:
    """The notes on all models, by key; raises `ModelError`."""
    try:
        return parse_json_object(read_regular_file(path))
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise _lock_error(path, error.strerror or str(error)) from error
    except ValueError as error:
        raise _lock_error(path, f"cannot be read: {error}") from error


def _lock_error(path: Path, reason: str) -> ModelError:
    return ModelError(
        f"{path}: {reason}",
        hint="it has the commits that models were pulled at; without it, which is to remove it, "
        "each is noted anew when it is pulled",
    )


def _json(content: Mapping[str, Any]) -> bytes:
    return (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode()
