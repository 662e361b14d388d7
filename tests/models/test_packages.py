"""Models that Python packages carry: found, listed, broken in every way; and making packages."""

import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from rerank_cli.atomic_files import file_digest
from rerank_cli.models import find, multilingual_advice, names, packages
from rerank_cli.models.catalogue import entries
from rerank_cli.ranking.reranker import Reranker
from rerank_cli.terminal import format_size
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
    outcome = rerank("models", "--json")
    assert outcome.code == 0, outcome.err
    return next(row for row in json.loads(outcome.out) if row["name"] == name)


@pytest.mark.slow
def test_a_package_s_model_is_opened_by_its_name(rerank: Run, install: Install) -> None:
    install(
        "tiny", toml='languages = ["en", "de"]\nlicence = "MIT"\nwindow = 24\nweak_below = -1.0'
    )
    line = ("refund", "-d", "money back", "-d", "x", "--json")
    by_name = rerank("-m", "tiny", *line)
    by_folder = rerank("-m", "./tests/models/bert", *line)
    assert by_name.code == 0, by_name.err
    scores = [
        [result["raw_score"] for result in json.loads(outcome.out)["results"]]
        for outcome in (by_name, by_folder)
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
    outcome = rerank("models", "rm", "tiny")
    assert outcome.code == 2
    assert "pip uninstall rerank-model-tiny" in outcome.err
    assert rerank("config", "set", "model", "tiny").code == 0
    assert row_of(rerank, "tiny")["state"] == "default"
    outcome = rerank("-m", "tiny@2", "q", "-d", "x")
    assert outcome.code == 2
    assert "did you mean tiny@1.5?" in outcome.err


def test_the_size_is_that_of_all_its_files(rerank: Run, install: Install) -> None:
    folder = install("mine")
    (folder / "README.md").write_bytes(b"a card " * 20_000)
    size = format_size(sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()))
    assert row_of(rerank, "mine")["size"] == size
    assert json.loads(rerank("models", "show", "mine", "--json").out)["size"] == size
    shipped = json.loads(rerank("models", "show", "mini", "--json").out)["size"]
    assert shipped == row_of(rerank, "mini@3")["size"]


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
        pytest.param(
            lambda folder: os.mkfifo(folder / "model.toml"),
            "not a regular file",
            marks=pytest.mark.skipif(sys.platform == "win32", reason="FIFOs of POSIX"),
        ),
    ],
)
def test_a_broken_package_is_an_error_only_where_it_is_used(
    damage: Callable[[Path], object], reason: str, rerank: Run, install: Install
) -> None:
    damage(install("tiny"))
    outcome = rerank("-m", "tiny", "q", "-d", "x")
    assert outcome.code == 3
    assert reason in outcome.err
    assert "hint: pip install --force-reinstall rerank-model-tiny" in outcome.err
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
    write_sums(folder, FILES)
    assert rerank("-m", "tiny", "q", "-d", "x").code == 0
    with open(folder / "config.json", "a") as stream:
        stream.write(" ")
    outcome = rerank("-m", "tiny", "q", "-d", "x")
    assert outcome.code == 3
    assert "is damaged: its SHA-256" in outcome.err
    assert "pip install --force-reinstall rerank-model-tiny" in outcome.err


def test_whose_name_a_name_is(rerank: Run, install: Install) -> None:
    """What ships, BM25 and providers keep their names; one name in two packages is no name."""
    for name in ("mini", "bm25", "cohere"):
        install(name)
    rows = [row for row in json.loads(rerank("models", "--json").out) if row["package"]]
    assert [row["state"] for row in rows] == ["hidden"] * 3
    assert find("mini").is_shipped
    install("tiny", "first")
    install("tiny", "second")
    outcome = rerank("-m", "tiny", "q", "-d", "x")
    assert outcome.code == 2
    assert "tiny is the name of a model in each of first and second" in outcome.err
    assert row_of(rerank, "tiny")["state"] == "ambiguous"
    # A name of the catalogue is the package's until it is pulled.
    install("bge-reranker-base")
    assert find("bge-reranker-base").package == "rerank-model-bge-reranker-base"
    assert row_of(rerank, "bge-reranker-base")["state"] == "installed"
    assert rerank("-m", "bge-reranker-base:int8", "q", "-d", "x").code == 3


def test_the_note_names_the_package_or_how_to_install_it(rerank: Run, install: Install) -> None:
    assert multilingual_advice().endswith("which pip install rerank-model-multi brings")
    outcome = rerank("-m", "multi", "q", "-d", "x")
    assert outcome.code == 2
    assert "multi is not installed\n\nhint: pip install rerank-model-multi" in outcome.err
    install("multi")
    assert find("multi").package == "rerank-model-multi"
    assert rerank("как вернуть", "-d", "one").err.rstrip().endswith("languages take -m multi")


def test_packages_are_looked_for_only_for_a_name_that_is_not_known(
    rerank: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> None:
        raise AssertionError("packages were looked for")

    packages._packaged_models.cache_clear()
    monkeypatch.setattr(packages, "_entry_points", fail)
    for model in ("mini@3", "bm25", "./tests/models/bert", "cohere/rerank-v3.5"):
        more = ["--dry-run"] if model.startswith("cohere") else []
        outcome = rerank("-m", model, *more, "x", "-d", "x")
        assert outcome.code == 0, outcome.err


def make(rerank: Run, out: Path, *more: str) -> Path:
    outcome = rerank("models", "package", "./tests/models/bert", "-o", str(out), *more)
    assert outcome.code == 0, outcome.err
    return Path(outcome.out.strip())


def test_a_wheel_is_whole_and_the_same_every_time(
    rerank: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    more = ("--name", "My.tiny", "--licence", "mit", "--languages", "en, de", "--version", "1.02")
    monkeypatch.delenv("SOURCE_DATE_EPOCH", raising=False)
    wheel = make(rerank, tmp_path / "a", *more)
    assert wheel.name == "rerank_model_my_tiny-1.2-py3-none-any.whl"
    content = wheel.read_bytes()
    assert make(rerank, tmp_path / "b", *more).read_bytes() == content
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    assert make(rerank, tmp_path / "c", *more).read_bytes() != content
    with zipfile.ZipFile(wheel) as archive:
        info = "rerank_model_my_tiny-1.2.dist-info"
        point = "[rerank.models]\nMy.tiny = rerank_model_my_tiny\n"
        assert archive.read(f"{info}/entry_points.txt").decode() == point
        assert "License-Expression: MIT\n" in archive.read(f"{info}/METADATA").decode()
        record_lines = archive.read(f"{info}/RECORD").decode().splitlines()
        assert {line.partition(",")[0] for line in record_lines} == {*archive.namelist()}
        archive.extractall(tmp_path / "site")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    folder = find("My.tiny@1.2")
    assert (folder.languages, len(folder.hashes)) == (["en", "de"], 4)
    assert rerank("-m", "My.tiny", "q", "-d", "x").code == 0


def test_what_was_pulled_becomes_a_package_with_what_is_known_of_it(
    rerank: Run, home: Path, tmp_path: Path
) -> None:
    name, revision = "bge-reranker-v2-m3", "a" * 40
    folder = home / "data" / "models" / name / "int8"
    folder.mkdir(parents=True)
    files = {}
    for file in FILES:
        shutil.copy(BERT / file, folder)
        files[file] = {"size": (folder / file).stat().st_size, "sha256": file_digest(folder / file)}
    about = {"name": name, "precision": "int8", "repository": "a/b", "asked": "main"}
    about |= {"endpoint": "", "licence": "", "graph": FILES[0], "pulled": "", "revision": revision}
    (folder / "manifest.json").write_text(json.dumps({"schema": 1, **about, "files": files}))
    outcome = rerank("models", "package", name, "-o", str(tmp_path))
    assert outcome.code == 0, outcome.err
    with zipfile.ZipFile(outcome.out.strip()) as archive:
        archive.extractall(tmp_path)
    entry = packages.read_model_file(tmp_path / "rerank_model_bge_reranker_v2_m3", name)
    assert entry == replace(entries()[name], int8=None, fp32=None, revision=revision[:8])


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ((), "the model's licence is not known"),
        (("--licence", "free as in beer"), "not an expression of SPDX"),
        (("--licence", "MIT", "--name", "a b"), "a package's name has letters"),
        (("--licence", "MIT", "--name", "mini"), "always means another model"),
        (("--licence", "MIT", "--name", "int8"), "is no name of a model"),
        (("--licence", "MIT", "--languages", "English,"), "'English' is not the code"),
        (("--licence", "MIT", "--version", "new"), "not a version of a package"),
    ],
)
def test_what_cannot_be_a_package_is_refused(
    more: tuple[str, ...], message: str, rerank: Run, tmp_path: Path
) -> None:
    outcome = rerank("models", "package", "./tests/models/bert", "-o", str(tmp_path / "x"), *more)
    assert outcome.code == 2
    assert message in outcome.err
    assert not (tmp_path / "x").exists()


def test_what_no_scorer_opens_is_refused(rerank: Run, tmp_path: Path) -> None:
    folder = tmp_path / "broken"
    shutil.copytree(BERT, folder)
    (folder / "model.onnx").write_bytes(b"no graph")
    line = ("models", "package", str(folder), "-o", str(tmp_path / "x"), "--licence", "MIT")
    outcome = rerank(*line)
    assert outcome.code == 3
    assert "model.onnx" in outcome.err
    assert not (tmp_path / "x").exists()
    shutil.copy(BERT / "model.onnx", folder)
    (folder / "model.toml").write_text("lenght = 9")
    outcome = rerank(*line)
    assert outcome.code == 3
    assert "lenght is none of" in outcome.err


@pytest.mark.slow
def test_the_pyproject_of_the_page_builds_and_pip_installs_it(tmp_path: Path) -> None:
    pytest.importorskip("hatchling")
    text = (ROOT / "docs" / "models.md").read_text(encoding="utf-8")
    pyproject = text.partition("```toml\n[build-system]")[2].partition("```")[0]
    folder, site = tmp_path / "mine", tmp_path / "site"
    folder.mkdir()
    for name in FILES:
        shutil.copy(BERT / name, folder)
    (folder / "pyproject.toml").write_text("[build-system]" + pyproject)
    (folder / "README.md").write_text("# A card\n")
    (folder / "model.toml").write_text('languages = ["en"]\n')
    write_sums(folder, (*FILES, "model.toml"))
    options = ["--no-index", "--no-build-isolation", "--no-deps", "--target", str(site)]
    pip = [sys.executable, "-m", "pip", "install", "-q", "--disable-pip-version-check", *options]
    subprocess.run([*pip, str(folder)], check=True, capture_output=True)
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(site)])}
    line = [sys.executable, "-m", "rerank_cli", "-m", "mine", "refund", "-d", "money back"]
    process = subprocess.run(line, env=environ, capture_output=True, text=True, cwd=tmp_path)
    assert process.stdout == "money back\n", process.stderr
