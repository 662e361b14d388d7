"""The package `rerank-model-multi`: whole, found by its name, and right in several languages."""

import hashlib
import importlib.util
import json
import os
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

from rerank_cli import Pair, open_scorer
from tests.conftest import ROOT

FOLDER = ROOT / "models" / "multi"
MAX_MODEL_BYTES = 90_000_000

pytestmark = pytest.mark.skipif(
    not FOLDER.is_dir(), reason="models/multi is a package of its own, and not in the sdist"
)


def test_files_are_those_of_the_checksums_and_small() -> None:
    lines = (FOLDER / "SHA256SUMS").read_text().splitlines()
    sums = {name: digest for digest, name in (line.split("  ") for line in lines)}
    names = {"config.json", "encoder.onnx", "model.toml", "reader.onnx", "tokenizer.json"}
    assert set(sums) == names
    for name, expected in sums.items():
        assert hashlib.sha256((FOLDER / name).read_bytes()).hexdigest() == expected
    assert sum((FOLDER / name).stat().st_size for name in names) <= MAX_MODEL_BYTES


def test_the_package_has_every_file_of_the_folder() -> None:
    table = tomllib.loads((FOLDER / "pyproject.toml").read_text(encoding="utf-8"))
    assert table["project"]["entry-points"]["rerank.models"] == {"multi": "rerank_model_multi"}
    inside = table["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"]
    files = {path.name for path in FOLDER.iterdir() if path.is_file()}
    assert set(inside) == files - {"pyproject.toml"}


@pytest.mark.slow
def test_answers_stand_first_and_scores_stay_near_the_checkpoints() -> None:
    """Against the logits of the fp32 checkpoint in PyTorch, by scripts/train/references.py."""
    rows = json.loads((FOLDER / "self_test.json").read_text(encoding="utf-8"))
    pairs = [Pair.from_texts(row["query"], row["passage"]) for row in rows]
    logits = [value for value in open_scorer(str(FOLDER)).score(pairs).values if value is not None]
    # Of each query the passage that answers comes first, and then one that does not.
    assert all(answer > other for answer, other in zip(logits[::2], logits[1::2], strict=True))
    assert all(abs(x - row["logit"]) < 1.2 for x, row in zip(logits, rows, strict=True))


@pytest.mark.slow
def test_the_wheel_is_built_and_its_model_is_found(tmp_path: Path) -> None:
    if importlib.util.find_spec("hatchling") is None:
        pytest.skip("needs hatchling, which [dev-all] installs")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(build, cwd=FOLDER, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    arguments = ["-m", "multi", "--json", "苹果", "-d", "水果", "-d", "火车"]
    process = subprocess.run(
        [sys.executable, "-m", "rerank_cli", *arguments],
        env={**os.environ, "PYTHONPATH": str(tmp_path / "site")},
        capture_output=True,
        text=True,
    )
    assert process.returncode == 0, process.stderr
    listing = json.loads(process.stdout)
    assert listing["model"] == "multi@1"
    assert listing["results"][0]["index"] == 0
