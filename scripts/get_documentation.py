"""Download the documentation on which `bench_passages.py` measures: Markdown, RST, text and HTML.

    python scripts/get_documentation.py FOLDER

Packages of Debian by `apt-get download`, and source distributions of PyPI by `pip download`: the
newest ones that these find. The folders' names have the versions. All have free licences, named
below; nothing of them is part of the project.
"""

import argparse
import gzip
import re
import subprocess
import sys
import tarfile
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

DEBIAN = {
    "apache2-doc": "Apache-2.0",
    "bind9-doc": "MPL-2.0",
    "borgbackup-doc": "BSD-3-Clause",
    "git-doc": "GPL-2.0",
    "nodejs-doc": "MIT",
    "ntpsec-doc": "NTP, BSD-2-Clause",
    "nut-doc": "GPL-2.0-or-later",
    "postgresql-doc-15": "PostgreSQL",
    "python3.11-doc": "PSF-2.0",
    "sqlite3-doc": "public domain",
}
PYPI = {
    "aiohttp": "Apache-2.0",
    "attrs": "MIT",
    "celery": "BSD-3-Clause",
    "click": "BSD-3-Clause",
    "flask": "BSD-3-Clause",
    "jinja2": "BSD-3-Clause",
    "marshmallow": "MIT",
    "mkdocs": "BSD-2-Clause",
    "pytest": "MIT",
    "scrapy": "BSD-3-Clause",
    "sqlalchemy": "MIT",
    "starlette": "BSD-3-Clause",
    "trio": "MIT or Apache-2.0",
    "werkzeug": "BSD-3-Clause",
}
DOCUMENTATION = re.compile(r"(^|/)docs?(umentation)?/.*\.(md|rst|html|txt)(\.gz)?$")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="is made")
    download(parser.parse_args().folder)


def download(folder: Path) -> None:
    """Download documentation, and unpack each package's to `folder`/package-version."""
    folder.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory() as temporary_folder:
        for name, licence in DEBIAN.items():
            print(f"{name} ({licence})", flush=True)
            subprocess.run(["apt-get", "-q", "download", name], cwd=temporary_folder, check=True)
        for archive in sorted(Path(temporary_folder).glob("*.deb")):
            name, version = archive.name.split("_")[:2]
            unpack(["dpkg-deb", "--fsys-tarfile", str(archive)], folder / f"{name}-{version}")
        for name, licence in PYPI.items():
            print(f"{name} ({licence})", flush=True)
            command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps"]
            command += ["--no-binary", ":all:", name]
            subprocess.run(command, cwd=temporary_folder, check=True)
        for archive in sorted(Path(temporary_folder).glob("*.tar.gz")):
            unpack(["gzip", "-dc", str(archive)], folder / archive.name.removesuffix(".tar.gz"))


def unpack(command: Sequence[str], folder: Path) -> None:
    """Write the documentation in a tar archive, which a command writes, below a folder."""
    with (
        subprocess.Popen(command, stdout=subprocess.PIPE) as process,
        tarfile.open(fileobj=process.stdout, mode="r|") as archive,
    ):
        for member in archive:
            name = member.name.removeprefix("./")
            if not member.isfile() or not DOCUMENTATION.search(name):
                continue
            content = archive.extractfile(member)
            data = content.read() if content else b""
            if name.endswith(".gz"):
                name, data = name.removesuffix(".gz"), gzip.decompress(data)
            name = name.replace(".rst.txt", ".rst")  # as Sphinx keeps its sources
            path = folder / "/".join(part for part in Path(name).parts if part != "..")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)


if __name__ == "__main__":
    main()
