"""Models that Python packages carry: found, listed, broken in every way; and making packages."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from rerank_cli.atomic_files import file_digest
from rerank_cli.models import find, names, packages
from rerank_cli.ranking.reranker import Reranker
from tests.conftest import ROOT, Run

BERT = ROOT / "tests" / "models" / "bert"
FILES = ("model.onnx", "tokenizer.json", "config.json")
Install = Callable[..., Path]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Put a package with a model where Python finds packages, as pip does."""
    site = tmp_path / "site"
    site.mkdir()
    monkeypatch.syspath_prepend(str(site))
    packages._packaged_models.cache_clear()

    def install(name: str, package: str = "", toml: str = "", value: str = "") -> Path:
        package = package or f"rerank-model-{name}"
        module = re.sub(r"\W", "_", package)
        folder = site / module
        folder.mkdir()
        (folder / "__init__.py").write_text("raise SystemError('code of the package was run')")
        for file in FILES:
            shutil.copy(BERT / file, folder)
        if toml:
            (folder / "model.toml").write_text(toml)
        info = site / f"{module}-1.5.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.5\n")
        (info / "entry_points.txt").write_text(f"[rerank.models]\n{name} = {value or module}\n")
        packages._packaged_models.cache_clear()
        return folder

    return install


def write_sums(folder: Path, names: Sequence[str]) -> None:
    lines = [f"{file_digest(folder / name)}  {name}\n" for name in names]
    (folder / "SHA256SUMS").write_text("".join(lines))


def row_of(rerank: Run, name: str) -> dict[str, str]:
    ran = rerank("models", "--json")
    assert ran.code == 0, ran.err
    return next(row for row in json.loads(ran.out) if row["name"] == name)


def test_a_package_s_model_is_opened_by_its_name(rerank: Run, install: Install) -> None:
    install(
        "tiny", toml='languages = ["en", "de"]\nlicence = "MIT"\nwindow = 24\nweak_below = -1.0'
    )
    line = ("refund", "-d", "money back", "-d", "x", "--json")
    by_name = rerank("-m", "tiny", *line)
    by_folder = rerank("-m", "./tests/models/bert", *line)
    assert by_name.code == 0, by_name.err
    scores = [
        [result["raw_score"] for result in json.loads(ran.out)["results"]]
        for ran in (by_name, by_folder)
    ]
    assert scores[0] == scores[1]
    folder = find("tiny@1.5")
    assert (folder.window, folder.weak_below, folder.languages) == (24, -1.0, ["en", "de"])
    assert Reranker("tiny").rank("refund", ["x", "money"]).info.model == "tiny@1.5"
    assert "tiny" in names()
    row = row_of(rerank, "tiny")
    assert (row["state"], row["package"], row["version"]) == (
        "installed", "rerank-model-tiny", "1.5",
    )  # fmt: skip
    assert "rerank-model-tiny 1.5" in rerank("models", "show", "tiny").out
    ran = rerank("models", "rm", "tiny")
    assert ran.code == 2
    assert "pip uninstall rerank-model-tiny" in ran.err
    assert rerank("config", "set", "model", "tiny").code == 0
    assert row_of(rerank, "tiny")["state"] == "default"
    ran = rerank("-m", "tiny@2", "q", "-d", "x")
    assert ran.code == 2
    assert "did you mean tiny@1.5?" in ran.err


def damage_graph(folder: Path) -> None:
    (folder / "model.onnx").unlink()


def damage_keys(folder: Path) -> None:
    (folder / "model.toml").write_text("window = 'wide'")


def damage_hashes(folder: Path) -> None:
    (folder / "SHA256SUMS").write_text("")


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (shutil.rmtree, "there is no folder rerank_model_tiny"),
        (damage_graph, "holds no ONNX model"),
        (damage_keys, "window is not a number of tokens"),
        (damage_hashes, "has no hash of model.onnx"),
        (lambda folder: (folder / "model.toml").write_text("= ["), "model.toml"),
        (lambda folder: os.mkfifo(folder / "model.toml"), "not a regular file"),
    ],
)
def test_a_broken_package_is_an_error_only_where_it_is_used(
    damage: Callable[[Path], object], reason: str, rerank: Run, install: Install
) -> None:
    damage(install("tiny"))
    ran = rerank("-m", "tiny", "q", "-d", "x")
    assert ran.code == 3
    assert reason in ran.err
    assert "hint: pip install --force-reinstall rerank-model-tiny" in ran.err
    assert row_of(rerank, "tiny")["state"] == "damaged"
    assert rerank("-m", "bm25", "x", "-d", "x").code == 0


@pytest.mark.parametrize("value", ["tiny:model", "no_such_package", "../..", "os.path", "os"])
def test_an_entry_point_that_names_no_folder_is_damage(
    value: str, rerank: Run, install: Install
) -> None:
    install("tiny", value=value)
    assert rerank("-m", "tiny", "q", "-d", "x").code == 3
    assert row_of(rerank, "tiny")["state"] == "damaged"


def test_another_package_s_broken_metadata_is_no_matter(rerank: Run, install: Install) -> None:
    folder = install("tiny")
    info = folder.parent / "broken-1.dist-info"
    info.mkdir()
    (info / "entry_points.txt").write_bytes(b"[rerank.models]\nno equals sign\n\xff")
    (folder.parent / "empty-1.dist-info").mkdir()
    packages._packaged_models.cache_clear()
    assert row_of(rerank, "tiny")["state"] == "installed"


def test_changed_bytes_are_found_before_they_are_used(rerank: Run, install: Install) -> None:
    folder = install("tiny")
    write_sums(folder, (*FILES, "model.toml"))
    options = [
        "--no-index",
        "--no-build-isolation",
        "--no-deps",
        "--target",
        str(tmp_path / "site"),
    ]
    pip = [sys.executable, "-m", "pip", "install", "-q", "--disable-pip-version-check", *options]
    subprocess.run([*pip, str(folder)], check=True, capture_output=True)
    environ = {**os.environ, "PYTHONPATH": f"{ROOT}:{site}"}
    rerank = [sys.executable, "-m", "rerank_cli"]
    line = [*rerank, "-m", "mine", "refund", "-d", "money back"]
    ran = subprocess.run(line, env=environ, capture_output=True, text=True, cwd=tmp_path)
    assert ran.stdout == "money back\n", ran.stderr
