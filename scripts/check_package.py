"""Build the sdist and the wheel as they are published, into dist/, and check both.

    python scripts/check_package.py                                          in fresh environments
    python scripts/check_package.py --no-isolation --out DIR    with the hatchling that is installed
    python scripts/check_package.py --python python3.12         also install the wheel and try it

The wheel is built from the sdist. Checked is that `twine check --strict` finds nothing; that the
sdist holds every file of the checkout, but for packages of their own; that the wheel holds the
model, the man page and the types, and no tests; and that the page of the release has no relative
links. Needs `[dev-all]`.
"""

import argparse
import re
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from email import message_from_bytes
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
NOT_IN_SDIST = (".gitattributes", "models/multi/")  # the second one is a package of its own
IN_WHEEL = (
    "rerank_cli/py.typed",
    "rerank_cli/data/providers.toml",
    "rerank_cli/data/completion/",
    "rerank_cli/data/models/mini/encoder.onnx",
    "rerank_cli/data/models/mini/reader.onnx",
    "rerank_cli/data/models/mini/LICENSE",
    ".data/data/share/man/man1/rerank.1",
    ".dist-info/licenses/LICENSE",
)
MAX_WHEEL_BYTES = 40_000_000
QUERY = "can I return something I bought"
ANSWER = "If you are not happy with what you bought, send it back"


def build(out: Path, *, isolated: bool) -> tuple[Path, Path]:
    """Build the sdist, and the wheel from it."""
    flags = () if isolated else ("--no-isolation",)
    process = subprocess.run(
        [sys.executable, "-m", "build", *flags, "--outdir", str(out), str(ROOT)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if process.returncode:
        sys.exit(process.stdout)
    (sdist,), (wheel,) = out.glob("*.tar.gz"), out.glob("*.whl")
    return sdist, wheel


def tracked_files() -> set[str]:
    """The files of the checkout; none if this is no checkout of git."""
    process = subprocess.run(
        ["git", "-C", ROOT, "ls-files", "-z"], capture_output=True, text=True, check=False
    )
    return {name for name in process.stdout.split("\0") if name and (ROOT / name).exists()}


def faults_of_sdist(sdist: Path) -> list[str]:
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    missing_names = sorted(
        name for name in tracked_files() - names if not name.startswith(NOT_IN_SDIST)
    )
    return [f"{sdist.name}: has no {name}" for name in missing_names]


def faults_of_wheel(wheel: Path) -> list[str]:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        (metadata,) = (name for name in names if name.endswith(".dist-info/METADATA"))
        page = str(message_from_bytes(archive.read(metadata)).get_payload())
    faults = [f"has no {part}" for part in IN_WHEEL if not any(part in name for name in names)]
    top_names = {name.partition("/")[0] for name in names}
    faults += [f"has {top}" for top in top_names if not re.match(r"rerank_cli(-.*)?$", top)]
    links = re.findall(r"\]\(([^)\s]+)\)|(?:src|srcset|href)=\"([^\"]+)\"", page)
    faults += [
        f"its page links to {link}"
        for link in map("".join, links)
        if not link.startswith(("https://", "#"))
    ]
    if not links:
        faults.append("its page has no links")
    if (size := wheel.stat().st_size) > MAX_WHEEL_BYTES:
        faults.append(f"has {size:,} bytes")
    return [f"{wheel.name}: {fault}" for fault in faults]


def faults_installed(wheel: Path, python: str) -> list[str]:
    """Install the wheel for a Python, in an environment of its own, and ask it something."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([python, "-m", "venv", folder], check=True)
        programs = Path(folder) / ("Scripts" if sys.platform == "win32" else "bin")
        subprocess.run([programs / "python", "-m", "pip", "install", "-q", wheel], check=True)
        process = subprocess.run(
            [programs / "rerank", QUERY, ROOT / "examples" / "faq.txt"],
            capture_output=True,
            text=True,
            check=False,
            cwd=folder,
        )
    if process.returncode or not process.stdout.startswith(ANSWER):
        return [f"{python}: {process.stdout}{process.stderr}"]
    print(f"{python}: answers")
    return []


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, default=ROOT / "dist", help="must have no other builds")
    parser.add_argument("--no-isolation", action="store_true")
    parser.add_argument("--python", action="append", default=[], metavar="PYTHON")
    options = parser.parse_args()
    sdist, wheel = build(options.out, isolated=not options.no_isolation)
    twine = [sys.executable, "-m", "twine", "check", "--strict", str(sdist), str(wheel)]
    process = subprocess.run(twine, capture_output=True, text=True, check=False)
    faults = [process.stdout + process.stderr] if process.returncode else []
    faults += faults_of_sdist(sdist) + faults_of_wheel(wheel)
    for python in options.python:
        faults += faults_installed(wheel, python)
    for path in (sdist, wheel):
        print(f"{path.name}: {path.stat().st_size / 1e6:.1f} MB")
    print("\n".join(faults) or "nothing is wrong")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
