"""`--prior` and `--by`: source trees on the command line."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import MODELS, Outcome, Run

SMALL = ("-m", str(MODELS / "bert"))
FILLER = "\n".join(f"other_{number} = soil({number})" for number in range(30))


@pytest.fixture
def search(rerank: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a command line with a small model in a folder with source code."""
    files = {
        "src/water.py": f"# soil\n\ndef find_soil():\n    return soil\n\n\n{FILLER}\n",
        "src/soil_store.py": "value = find_soil()\n",
        "tests/test_soil.py": "assert find_soil() is soil\n",
        "notes.md": "The soil is dry.\n",
    }
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str, **options: Any) -> Outcome:
        return rerank(*arguments, *SMALL, **options)

    return run


def results(outcome: Outcome) -> dict[str, dict[str, Any]]:
    assert outcome.code == 0, outcome.err
    return {result["document"]["source"]: result for result in json.loads(outcome.out)["results"]}


def test_a_source_tree_has_a_prior(search: Run) -> None:
    outcome = search("soil", "-r", ".", "--json")
    assert json.loads(outcome.out)["prior"] == "code"
    rows = results(outcome)
    assert rows["notes.md"]["prior"]["parts"]["other"] < 0
    assert rows["src/soil_store.py"]["prior"]["parts"]["name"] > 0
    for result in rows.values():
        parts = result["prior"]["parts"].values()
        assert result["prior"]["total"] == pytest.approx(sum(parts), abs=1e-5)


@pytest.mark.parametrize("choice", ["9", "all"])
@pytest.mark.parametrize("paths", [["test"], ["test/v2", "test/v1", "test/soil.sh"]])
def test_the_paths_of_all_files_are_known_before_the_first_score(
    search: Run, tmp_path: Path, paths: list[str], choice: str
) -> None:
    """The folder around all files counts for no part, and old versions are known."""
    for name in ("v1/soil.py", "v2/soil.py", "v2/tests/soil.py", "soil.sh"):
        path = tmp_path / "test" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("soil = 1\n")
    rows = results(search("soil", "-r", *paths, "--json", "--candidates", choice))
    parts_by_name = {name: row["prior"]["parts"] for name, row in rows.items()}
    assert [name for name, parts in parts_by_name.items() if "old" in parts] == ["test/v1/soil.py"]
    tests = [name for name, parts in parts_by_name.items() if "test" in parts]
    assert tests == ["test/v2/tests/soil.py"]


@pytest.mark.parametrize(
    ("models", "names"),
    [
        ("bm25", "bm25"),
        ("cohere/rerank-v3.5", "cohere/rerank-v3.5"),
        ("bm25,cohere/rerank-v3.5", "bm25 or cohere/rerank-v3.5"),
    ],
)
@pytest.mark.usefixtures("search")
def test_a_prior_that_has_no_effect_is_told_of(rerank: Run, models: str, names: str) -> None:
    flags = () if models == "bm25" else ("--dry-run",)
    message = (
        "--prior code has no effect: it is for models of this machine whose scores are logits, "
        f"and not for {names}\n"
    )
    outcome = rerank("soil", "-r", ".", "-m", models, *flags, "--prior", "code")
    assert (outcome.code, message in outcome.err) == (0, True)
    for prior in ((), ("--prior", "auto"), ("--prior", "none")):
        assert "prior" not in rerank("soil", "-r", ".", "-m", models, *flags, *prior).err


@pytest.mark.usefixtures("search")
def test_a_prior_has_an_effect_if_one_of_several_models_takes_it(rerank: Run) -> None:
    outcome = rerank("soil", "-r", ".", "-m", f"bm25,{SMALL[1]}", "--prior", "code", "--json")
    assert json.loads(outcome.out)["prior"] == "code"
    assert "no effect" not in outcome.err


@pytest.mark.parametrize("name", ["no_such_name", "src/nowhere.py"])
@pytest.mark.parametrize("options", [(), ("--json",), ("--candidates", "2", "-n", "1")])
def test_a_name_that_occurs_nowhere_is_told_of(
    search: Run, name: str, options: tuple[str, ...]
) -> None:
    outcome = search(name, "-r", ".", *options)
    message = f"{Path(name).name} does not occur in what was read\n"
    assert (outcome.code, outcome.err) == (0, f"rerank: {message}")
    assert message not in outcome.out
    absent = json.loads(outcome.out).get("absent") if "--json" in options else Path(name).name
    assert absent == Path(name).name
    other_outcome = search("find_soil", "-r", ".", *options)
    assert (other_outcome.err, "absent" in other_outcome.out) == ("", False)


def test_none_leaves_it_out_and_prose_has_none(search: Run) -> None:
    bare = search("soil", "-r", ".", "--json", "--prior", "none")
    assert "prior" not in bare.out
    prose = search("soil", "notes.md", "--json")
    assert "prior" not in prose.out
    scores = {name: result["raw_score"] for name, result in results(bare).items()}
    results_by_prior = results(search("soil", "-r", ".", "--json"))
    short = "src/soil_store.py"
    assert results_by_prior[short]["raw_score"] == scores[short]


def test_the_prior_is_said_and_explained(search: Run) -> None:
    outcome = search("soil", "-r", ".", "-v")
    assert "--prior none leaves them out" in outcome.err
    table = search("soil", "-r", ".", "-f", "table", "--explain").out
    assert "[prior +" in table
    assert "prior +" in search("soil", "-r", ".", "-f", "md", "--explain").out
    assert "[prior" not in search("soil", "-r", ".", "-f", "table").out


def test_a_run_is_sorted_by_the_scores_it_shows(search: Run) -> None:
    lines = search("find_soil", "-r", ".", "-f", "trec").out.splitlines()
    scores = [float(line.split()[4]) for line in lines]
    assert scores == sorted(scores, reverse=True)


def test_grep_opens_the_line_of_the_definition(search: Run) -> None:
    lines = search("find_soil", "-r", ".", "-f", "grep").out.splitlines()
    assert "src/water.py:3:def find_soil():" in lines


def test_by_file_has_the_best_passages_of_each_file(search: Run) -> None:
    results_by_file = results(search("soil", "-r", ".", "--json", "--by", "file"))
    passages = results_by_file["src/water.py"]["passages"]
    assert len(passages) == 3
    scores = [passage["relevance_score"] for passage in passages]
    assert scores == sorted(scores, reverse=True)
    assert passages[0]["start"] == results_by_file["src/water.py"]["passage"]["start"]
    assert len(results_by_file) == 4
    grep = search("soil", "-r", ".", "-f", "grep", "--by", "file").out.splitlines()
    water = [line for line in grep if line.startswith("src/water.py:")]
    assert len(water) == len(set(water)) > 1
    places = [grep.index(line) for line in water]
    assert places == list(range(places[0], places[0] + len(places)))


def test_explained_by_file_shows_a_few_passages_of_each(search: Run) -> None:
    by_file = ("soil", "-r", ".", "--explain", "--by", "file")
    assert search(*by_file, "-f", "table").out.count("water.py") == 4  # the file's, and three
    assert search(*by_file, "-f", "md").out.count("water.py:") == 3
    assert len(results(search(*by_file, "--json"))["src/water.py"]["passages"]) > 3


def test_by_passage_is_passages(search: Run) -> None:
    by_passage = search("soil", "-r", ".", "--json", "--by", "passage").out
    assert by_passage == search("soil", "-r", ".", "--json", "--passages").out
    outcome = search("soil", "-r", ".", "--passages", "--by", "file")
    assert outcome.code == 2
    assert "--by file and --passages exclude each other" in outcome.err


def test_one_file_by_file_is_one_result(search: Run) -> None:
    outcome = search("soil", "src/water.py", "--json", "--by", "file")
    assert list(results(outcome)) == ["src/water.py"]
    assert len(json.loads(outcome.out)["results"]) == 1
