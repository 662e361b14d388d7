"""Model packages: models that a Python package carries, and making such a package.

A package names its models in the group `rerank.models` of its entry points. Each value is the
importable package, or a folder in it, that has the model's files:

    [project.entry-points."rerank.models"]
    NAME = "rerank_model_name"

No code of the package is run: only its folder is looked for. `model.toml` beside the graph says
what the files do not, with the keys of data/models.toml; other folders may have one too.
"""

import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from rerank_cli.atomic_files import atomic_write
from rerank_cli.errors import ModelError, OutputError, UsageError
from rerank_cli.models.catalogue import Entry, entries, read_entry
from rerank_cli.models.folder import CHECKSUMS, SELF_TEST, ModelFolder, describe, read_checksums
from rerank_cli.user_files import MAX_USER_FILE_BYTES, parse_toml, read_regular_file

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint
    from zipfile import ZipFile

GROUP = "rerank.models"
MODEL_FILE = "model.toml"
MULTILINGUAL = "multi"  # our own package for other languages than English
_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?")
_LANGUAGE = re.compile(r"[a-z]{2,3}(?:-\w+)*")
_VALUE = re.compile(r"[A-Za-z_]\w*(?:\.\w+)*")
_LEAST_COMMIT_DIGITS = 7  # by which a revision is known


@dataclass(frozen=True, slots=True)
class PackagedModel:
    """A model in an installed package: its name, and the place of its files."""

    name: str
    package: str
    version: str
    value: str

    @property
    def label(self) -> str:
        return f"{self.package} {self.version}".strip()

    def is_hidden(self) -> bool:
        """Whether its name is reserved for another model."""
        return is_reserved(self.name)

    def open_folder(self) -> ModelFolder:
        """Describe its files; raises `ModelError`, whatever is wrong with the package."""
        try:
            return self._describe()
        except (ModelError, UsageError) as error:
            hint = f"pip install --force-reinstall {self.package}"
            raise ModelError(
                f"{self.name}, of the package {self.label}: {error}", hint=hint
            ) from error

    def _describe(self) -> ModelFolder:
        folder = _find_package_folder(self.value)
        model_folder = describe_with_entry(folder, self.name)
        model_folder = replace(model_folder, revision=model_folder.revision or self.version)
        hashes: Mapping[Path, str] = {}
        if os.path.lexists(folder / CHECKSUMS):
            hashes = read_checksums(folder)
            if model_folder.graph not in hashes:
                raise ModelError(f"{folder / CHECKSUMS}: has no hash of {model_folder.graph.name}")
        return replace(model_folder, hashes=hashes, package=self.package)


def is_reserved(name: str) -> bool:
    """Whether a name is reserved for a model that ships, BM25 or a provider."""
    from rerank_cli.providers.catalogue import is_provider

    shipped = name in entries() and bool(entries()[name].folder)
    return shipped or name == "bm25" or is_provider(name)


def find_package(name: str, *, anew: bool = False) -> PackagedModel | None:
    """Find the installed package that has a model of this name.

    Raises `UsageError` if several have one. With `anew`, packages that were installed since the
    last search of this process are found too.
    """
    if _NAME.fullmatch(name) is None:
        return None
    if anew:
        _packaged_models.cache_clear()
    models = [model for model in packaged_models() if model.name == name]
    if not models or models[0].is_hidden():
        return None
    if len(models) > 1:
        packages = [model.package for model in models]
        raise UsageError(
            f"{name} is the name of a model in each of {' and '.join(packages)}",
            hint=" or ".join(f"pip uninstall {package}" for package in packages),
        )
    return models[0]


def is_revision(reference: str, revision: str) -> bool:
    """Whether a revision matches a reference: the same one, none, or the start of a commit."""
    is_start = len(reference) >= _LEAST_COMMIT_DIGITS and revision.startswith(reference)
    return reference in ("", revision) or is_start


def packaged_models() -> Sequence[PackagedModel]:
    """The models of all installed packages, by name; reads no file of a model."""
    return _packaged_models(tuple(sys.path))


@cache
def _packaged_models(_path: Sequence[str]) -> Sequence[PackagedModel]:
    models = {
        (point.name, package): PackagedModel(point.name, package, version, point.value)
        for package, version, point in _entry_points()
    }
    return [models[key] for key in sorted(models)]


def _entry_points() -> Iterator[tuple[str, str, "EntryPoint"]]:
    """The entry points of the group, with their packages and versions.

    `importlib.metadata.entry_points` fails if one package's file is damaged, whatever it is.
    """
    from importlib.metadata import distributions  # slow to import, and few runs need it

    keys = set()
    for distribution in distributions():
        points: Sequence[EntryPoint] = ()
        package = version = ""
        with suppress(Exception):  # its faults do not matter for other packages
            text = distribution.read_text("entry_points.txt") or ""
            if GROUP not in text:
                continue
            points = [*distribution.entry_points.select(group=GROUP)]
            package = distribution.metadata["Name"] or ""
            version = distribution.version
        # The first of a name is the one that Python imports.
        key = re.sub(r"[-_.]+", "-", package).lower()
        if points and key not in keys:
            keys.add(key)
            yield from ((package or "?", version or "", point) for point in points)


def _find_package_folder(value: str) -> Path:
    """The folder of a package, or below it, by its dotted name; raises `ModelError`."""
    if _VALUE.fullmatch(value) is None:
        raise ModelError(f"its entry point {value!r} is not the dotted name of a package")
    from importlib.util import find_spec

    top, *rest = value.split(".")
    try:
        spec = find_spec(top)
    except (ImportError, ValueError) as error:
        raise ModelError(f"{top} cannot be found: {error}") from error
    places = [*(spec.submodule_search_locations or ())] if spec else []
    folders = [Path(place, *rest) for place in places]
    package_folder = next((folder for folder in folders if folder.is_dir()), None)
    if package_folder is None:
        raise ModelError(f"there is no folder {value} among the installed packages")
    return package_folder


def read_model_file(folder: Path, name: str, *, is_strict: bool = False) -> Entry | None:
    """The content of `model.toml` in a folder; None if there is none. Raises `ModelError`."""
    path = folder / MODEL_FILE
    if not os.path.lexists(path):
        return None
    try:
        table = parse_toml(read_regular_file(path, max_bytes=MAX_USER_FILE_BYTES))
        return read_entry(name, table, is_strict=is_strict)
    except OSError as error:
        raise ModelError(f"{path}: {error.strerror or error}") from error
    except ValueError as error:
        raise ModelError(f"{path}: {error}") from error


def describe_with_entry(path: Path, name: str) -> ModelFolder:
    """Describe a model's folder or graph, by its files and its `model.toml`, if it has one."""
    folder = describe(path, name)
    root = folder.tokenizer.parent
    entry = read_model_file(root, name)
    if entry is None:
        return folder
    folder = folder.with_weights([root / MODEL_FILE])  # a change of it is one of the model
    return with_entry(replace(folder, revision=entry.revision), entry)


def with_entry(folder: ModelFolder, entry: Entry) -> ModelFolder:
    """The folder with the facts in an entry of the model."""
    length = min(folder.length, entry.length or folder.length)
    return replace(
        folder,
        length=length,
        window=min(entry.window or folder.window, length),
        languages=entry.languages,
        scale=entry.scale,
        weak_below=entry.weak_below,
        spare_tokens=entry.spare_tokens,
    )


# The files of a model's folder that people and `rerank doctor` read.
_COMPANIONS = (SELF_TEST, "README.md", "special_tokens_map.json")
_LICENCES = re.compile(r"(?:LICEN[CS]E|NOTICE|COPYING)(?:\..*)?", re.IGNORECASE)
_CARD = "README.md"
_COMPRESSED_SUFFIXES = (".json", ".md", ".toml", ".txt")  # weights hardly shrink
_COPY_BYTES = 1 << 20
_MODE = 0o100644 << 16
_NAMES_OF_GRAPHS = ("int8", "fp32", "onnx", "openvino")
_FIRST_YEAR = 1980  # of a ZIP file
_WHEEL = "Wheel-Version: 1.0\nGenerator: rerank\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
_USE = """
[rerank](https://pypi.org/project/rerank-cli/) finds this model when the package is installed:

    rerank -m {name} "your query" FILE...
"""


@dataclass(frozen=True, slots=True)
class PackageFacts:
    """The facts in a wheel about its model. `entry` becomes its `model.toml`."""

    name: str
    version: str
    licence: str
    entry: Entry

    @classmethod
    def check(cls, name: str, version: str, licence: str, entry: Entry) -> "PackageFacts":
        """Check them by the rules of packages and of `rerank`; raises `UsageError`."""
        from packaging.licenses import InvalidLicenseExpression, canonicalize_license_expression
        from packaging.version import InvalidVersion, Version

        if _NAME.fullmatch(name) is None:
            raise UsageError(
                f"--name {name}: a package's name has letters, digits, and . _ - between them"
            )
        if name in _NAMES_OF_GRAPHS:
            raise UsageError(
                f"{name} is no name of a model", hint="--name NAME, for -m NAME afterwards"
            )
        if is_reserved(name):
            raise UsageError(
                f"--name {name}: -m {name} always means another model",
                hint=f"--name my-{name}, for example",
            )
        if wrong := [code for code in entry.languages if _LANGUAGE.fullmatch(code) is None]:
            raise UsageError(
                f"--languages: {wrong[0]!r} is not the code of a language", hint="en,de or mul"
            )
        if not licence:
            raise UsageError(
                "the model's licence is not known",
                hint="--licence MIT, Apache-2.0 or another of SPDX; LicenseRef-NAME for your own",
            )
        try:
            canonical = str(canonicalize_license_expression(licence))
        except InvalidLicenseExpression as error:
            raise UsageError(
                f"--licence {licence}: not an expression of SPDX",
                hint="MIT, Apache-2.0, CC-BY-NC-4.0, for example; LicenseRef-NAME for your own",
            ) from error
        try:
            number = str(Version(version))
        except InvalidVersion as error:
            raise UsageError(
                f"--version {version}: not a version of a package", hint="1.0, for example"
            ) from error
        return cls(name, number, canonical, replace(entry, name=name, licence=canonical))

    @property
    def package(self) -> str:
        return f"rerank-model-{self.name}"

    @property
    def module(self) -> str:
        """The name of the package's folder: PEP 427 and imports allow no other marks."""
        return re.sub(r"[-_.]+", "_", self.package).lower()

    @property
    def wheel_name(self) -> str:
        return f"{self.module}-{self.version}-py3-none-any.whl"

    def metadata(self, card: str, licences: Sequence[str]) -> str:
        lines = [
            "Metadata-Version: 2.4",
            f"Name: {self.package}",
            f"Version: {self.version}",
            f"Summary: The model {self.name} for rerank",
            f"License-Expression: {self.licence}",
            *(f"License-File: {name}" for name in licences),
            "Requires-Python: >=3.11",
            "Description-Content-Type: text/markdown",
        ]
        return "\n".join(lines) + "\n\n" + (card or _USE.lstrip().format(name=self.name))


def write_wheel(folder: ModelFolder, facts: PackageFacts, out: Path) -> Path:
    """Write a wheel of a model's files into a folder, whole or not at all.

    The same files give the same bytes. Raises `ModelError` and `OutputError`.
    """
    from zipfile import ZipFile

    root = folder.tokenizer.parent
    paths = folder.files()
    if outside := [path for path in paths if not path.is_relative_to(root)]:
        raise ModelError(f"{outside[0]}: is not in the model's folder {root}")
    sources = {path.relative_to(root).as_posix(): path for path in paths}
    sources.pop(MODEL_FILE, None)
    beside = sorted(path for path in root.iterdir() if path.is_file())
    licences = [path for path in beside if _LICENCES.fullmatch(path.name)]
    sources |= {path.name: path for path in beside if path.name in _COMPANIONS}
    card = root / _CARD
    info = f"{facts.module}-{facts.version}.dist-info"
    path = out / facts.wheel_name
    try:
        out.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as stream, ZipFile(stream, "w") as archive:
            wheel = _Wheel(archive)
            for name, source in sorted(sources.items()):
                with open(source, "rb") as content:
                    wheel.add(f"{facts.module}/{name}", content, source.stat().st_size)
            wheel.add_text(f"{facts.module}/{MODEL_FILE}", _toml(facts.entry))
            sums = [f"{digest.hex()}  {name.partition('/')[2]}" for name, digest in wheel.digests()]
            wheel.add_text(f"{facts.module}/{CHECKSUMS}", "\n".join(sums) + "\n")
            names = [source.name for source in licences]
            for source in licences:
                with open(source, "rb") as content:
                    size = source.stat().st_size
                    wheel.add(f"{info}/licenses/{source.name}", content, size)
            text = read_regular_file(card).decode("utf-8", "replace") if card.is_file() else ""
            wheel.add_text(f"{info}/METADATA", facts.metadata(text, names))
            wheel.add_text(f"{info}/WHEEL", _WHEEL)
            point = f"[{GROUP}]\n{facts.name} = {facts.module}\n"
            wheel.add_text(f"{info}/entry_points.txt", point)
            wheel.add_record(f"{info}/RECORD")
            folder.check_unchanged()
    except OSError as error:
        place = error.filename or path
        raise OutputError(f"{place}: {error.strerror or error}") from error
    return path


class _Wheel:
    """Adds files to an archive, and knows the hash of each."""

    def __init__(self, archive: "ZipFile") -> None:
        import time

        self._archive = archive
        self._files: dict[str, tuple[bytes, int]] = {}
        epoch = os.environ.get("SOURCE_DATE_EPOCH", "")
        date = time.gmtime(min(int(epoch), (1 << 32) - 1) if epoch.isdecimal() else 0)[:6]
        self._date = date if date[0] >= _FIRST_YEAR else (_FIRST_YEAR, 1, 1, 0, 0, 0)

    def add(self, name: str, content: BinaryIO, size: int) -> None:
        """Copy a file of any size."""
        from hashlib import sha256
        from zipfile import ZIP_DEFLATED, ZIP_STORED, ZipInfo

        info = ZipInfo(name, self._date)
        info.external_attr, info.create_system = _MODE, 3  # 3 is Unix, on every system
        is_text = name.endswith(_COMPRESSED_SUFFIXES) or "." not in name.rpartition("/")[2]
        info.compress_type = ZIP_DEFLATED if is_text else ZIP_STORED
        info.file_size = size  # which tells whether the entry needs ZIP64
        digest, count = sha256(), 0
        with self._archive.open(info, "w") as target:
            while chunk := content.read(_COPY_BYTES):
                digest.update(chunk)
                count += len(chunk)
                target.write(chunk)
        self._files[name] = (digest.digest(), count)

    def add_text(self, name: str, text: str) -> None:
        from io import BytesIO

        content = text.encode()
        self.add(name, BytesIO(content), len(content))

    def digests(self) -> Sequence[tuple[str, bytes]]:
        return [(name, digest) for name, (digest, _) in self._files.items()]

    def add_record(self, name: str) -> None:
        """Add the list of all files, with their hashes and sizes."""
        import csv
        from base64 import urlsafe_b64encode
        from io import StringIO

        out = StringIO()
        writer = csv.writer(out, lineterminator="\n")
        for file, (digest, size) in self._files.items():
            text = urlsafe_b64encode(digest).decode().rstrip("=")
            writer.writerow([file, f"sha256={text}", size])
        writer.writerow([name, "", ""])
        self.add_text(name, out.getvalue())


def _toml(entry: Entry) -> str:
    """The facts about a model, as `read_model_file` reads them."""
    import tomlkit

    return tomlkit.dumps(entry.table())
