"""What is published: it builds, twine finds nothing wrong, and nothing is missing from it."""

import importlib.util
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.conftest import ROOT

PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
NEEDED_MODULES = ("build", "twine", "hatchling", "hatch_fancy_pypi_readme")


@pytest.mark.slow
def test_the_package_builds_and_nothing_is_missing_from_it(tmp_path: Path) -> None:
    missing = [name for name in NEEDED_MODULES if importlib.util.find_spec(name) is None]
    if missing:
        pytest.skip(f"needs {missing[0]}, which [dev-all] installs")
    script = ROOT / "scripts" / "check_package.py"
    process = subprocess.run(
        [sys.executable, script, "--no-isolation", "--out", tmp_path],
        capture_output=True,
        text=True,
    )
    assert (process.returncode, process.stdout.splitlines()[-1:]) == (0, ["nothing is wrong"]), (
        process
    )


@pytest.mark.parametrize(
    ("markdown", "published"),
    [
        ("[a](docs/a.md#b)", "[a](https://github.com/{}/blob/v1/docs/a.md#b)"),
        ("![a b](x.svg)", "![a b](https://raw.githubusercontent.com/{}/v1/x.svg?sanitize=true)"),
        ("[a](https://a.example) ![b](https://b.example/c.svg)", None),
        ("[a](#a)", None),
    ],
)
def test_links_of_the_published_page_are_whole(markdown: str, published: str | None) -> None:
    hook = PYPROJECT["tool"]["hatch"]["metadata"]["hooks"]["fancy-pypi-readme"]
    text = markdown
    for rule in hook["substitutions"]:
        text = re.sub(rule["pattern"], rule["replacement"].replace("$HFPR_VERSION", "1"), text)
    assert text == (published or markdown).format("rerank-cli/rerank-cli")


def test_what_all_tests_need_is_in_one_extra() -> None:
    extras = PYPROJECT["project"]["optional-dependencies"]
    assert set(PYPROJECT["build-system"]["requires"]) <= set(extras["dev-all"])


def test_the_pythons_that_are_named_are_those_that_are_allowed() -> None:
    project = PYPROJECT["project"]
    minors = re.findall(r"Python :: 3\.(\d+)", "\n".join(project["classifiers"]))
    assert project["requires-python"] == f">=3.{minors[0]}"
    assert minors == [str(minor) for minor in range(int(minors[0]), int(minors[-1]) + 1)]


def test_the_newest_version_heads_the_changelog() -> None:
    from rerank_cli import __version__

    heads = re.findall(
        r"^## (\S+) \((unreleased|\d{4}-\d\d-\d\d)\)$",
        (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"),
        re.MULTILINE,
    )
    assert heads[0][0] == __version__


def test_what_the_page_for_contributors_names_exists() -> None:
    page = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    links = re.findall(r"\]\(([^)\s:]+)\)", page)
    paths = re.findall(r"`((?:\.ci|docs|examples|models|rerank_cli|scripts|tests)/[\w./-]*)`", page)
    assert links
    assert paths
    assert [path for path in (*links, *paths) if not (ROOT / path).exists()] == []
