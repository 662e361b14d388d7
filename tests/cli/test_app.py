"""The command line as its user meets it: what is printed where, and the exit code."""

import json
from pathlib import Path

import pytest

from tests.conftest import ROOT, Run

THREE = b"cats purr\nstocks fell\ndogs bark\n"


def test_lines_from_a_pipe(rerank: Run) -> None:
    outcome = rerank("financial markets", stdin=THREE)
    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.out.splitlines()[0] == "stocks fell"
    assert sorted(outcome.out.splitlines()) == sorted(THREE.decode().splitlines())


def test_json(rerank: Run) -> None:
    outcome = rerank("financial markets", "--json", stdin=THREE)
    assert json.loads(outcome.out)["results"][0]["index"] == 1
    assert rerank("financial markets", "-f", "json", stdin=THREE).out == outcome.out


def test_the_same_input_gives_the_same_bytes(rerank: Run) -> None:
    arguments = ["how to keep slugs away", "examples/garden.md", "--json"]
    assert rerank(*arguments).out == rerank(*arguments, "--threads", "1").out


def test_files_and_lines_are_named(rerank: Run) -> None:
    outcome = rerank("can I return something I bought", "examples/faq.txt", "--json")
    first = json.loads(outcome.out)["results"][0]
    assert (first["document"]["source"], first["document"]["line"]) == ("examples/faq.txt", 4)


def test_one_long_document_is_ranked_by_passages(rerank: Run) -> None:
    outcome = rerank("how to keep slugs away", "examples/garden.md", "--json", "-n", "2")
    results = json.loads(outcome.out)["results"]
    text = (ROOT / "examples" / "garden.md").read_text(encoding="utf-8")
    assert results[0]["document"]["text"] == results[0]["passage"]["text"] != text
    for result in results:
        passage = result["passage"]
        assert text[passage["start"] : passage["end"]] == passage["text"]
        assert passage["line"] == text.count("\n", 0, passage["start"]) + 1
    assert "Slugs" in results[0]["passage"]["text"]
    pipe_outcome = rerank("how to keep slugs away", "examples/garden.md", "-n", "1")
    assert pipe_outcome.out == results[0]["passage"]["text"] + "\n"


def test_several_whole_files_are_ranked_and_given_back_whole(rerank: Run, tmp_path: Path) -> None:
    (tmp_path / "a.md").write_bytes(b"# Cats\r\n\r\nCats purr.")
    (tmp_path / "b.md").write_bytes(b"# Markets\n\nStocks fell.\n")
    outcome = rerank("financial markets", str(tmp_path / "a.md"), str(tmp_path / "b.md"))
    first, second = (f"==> {tmp_path}/{name} <==\n" for name in ("b.md", "a.md"))
    assert outcome.out == (
        f"{first}# Markets\n\nStocks fell.\n\n{second}# Cats\r\n\r\nCats purr.\r\n"
    )


def test_records_are_given_back_as_they_were(rerank: Run, tmp_path: Path) -> None:
    lines = ['{"body":"cats purr",  "n":1}\n', '{"body": "stocks fell", "n": 2}\n']
    (tmp_path / "a.jsonl").write_text("".join(lines))
    outcome = rerank("-q", "financial markets", str(tmp_path / "a.jsonl"), "--field", "body")
    assert outcome.out == lines[1] + lines[0]


def test_documents_as_arguments(rerank: Run) -> None:
    outcome = rerank(
        "financial markets", "-d", "cats purr", "-d", "stocks fell", stdin=b"not read\n"
    )
    assert outcome.out == "stocks fell\ncats purr\n"


def test_the_best_and_the_good(rerank: Run) -> None:
    assert rerank("financial markets", "-n", "1", stdin=THREE).out == "stocks fell\n"
    assert rerank("financial markets", "--min-score", "0.01", stdin=THREE).out == "stocks fell\n"


def test_a_message_is_what_and_a_hint_is_what_now(rerank: Run) -> None:
    outcome = rerank("how", "do", "I", "get", "a", "refund", "examples/faq.txt")
    assert outcome.code == 2
    assert (
        outcome.err == "rerank: do: no such file\n\nhint: a query of several words goes in quotes\n"
    )


LONG = ("no words here at all " * 60 + "slugs eat lettuce " + "none of it there " * 60).encode()


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ([], {"chunks": 4}),
        (["--chunk-tokens", "64"], {"chunks": 12}),
        (["--chunk-tokens", "64", "--overlap-tokens", "0"], {"chunks": 9}),
        (["--max-chunks", "2"], {"chunks": 2, "truncated": True}),
        (["--aggregate", "first"], {"chunks": 1, "truncated": True}),
        (["-m", "bm25"], {"chunks": 1, "tokens": 543}),
    ],
)
def test_chunking_options(options: list[str], expected: dict[str, object], rerank: Run) -> None:
    outcome = rerank("slugs", "--json", *options, stdin=LONG + b"\n")
    result = json.loads(outcome.out)["results"][0]
    assert {name: result[name] for name in expected} == expected


def test_large_counts_have_separators(rerank: Run) -> None:
    options = ("-m", "bm25", "--chunk-tokens", "64", "--max-chunks", "1")
    ran = rerank("slugs", *options, stdin=LONG + b"\n" + b"slugs\n" * 1200)
    assert "1 document of 1,201 not scored whole" in ran.err


def test_aggregation_changes_the_score_and_not_the_passage(rerank: Run) -> None:
    ways = {
        way: json.loads(rerank("slugs", "--json", "--aggregate", way, stdin=LONG).out)
        for way in ("max", "mean-top-3")
    }
    best, mean = (body["results"][0] for body in ways.values())
    assert mean["raw_score"] < best["raw_score"]
    assert mean["passage"] == best["passage"]
    assert "slugs" in best["passage"]["text"]


def test_units_by_option(rerank: Run) -> None:
    def count(*options: str) -> int:
        outcome = rerank("x", "-m", "bm25", "--json", *options)
        return int(json.loads(outcome.out)["counts"]["documents"])

    assert count("examples/faq.txt") == 15
    assert count("examples/faq.txt", "--unit", "file") == 1
    assert count("examples/garden.md", "--unit", "line") > 40
    assert rerank("x", "-m", "bm25", "--unit", "record", stdin=b'{"text": "x"}\n').code == 0


def test_full_passages_by_option(rerank: Run) -> None:
    arguments = ("slugs", "examples/garden.md", "-n", "1")
    short = rerank(*arguments, terminal=70).out.splitlines()
    whole = rerank(*arguments, "--full", terminal=70).out.splitlines()
    assert len(short) == 3
    assert len(whole) > 8


@pytest.mark.slow
def test_nothing_left(rerank: Run) -> None:
    for stdin, message in [(b"", "the input is empty"), (b"\n \n", "2 documents, all blank")]:
        outcome = rerank("x", stdin=stdin)
        assert (outcome.code, outcome.out) == (1, "")
        assert outcome.err == f"rerank: nothing to rank: {message}\n"
    outcome = rerank("x", "--min-score", "2", "--json", stdin=THREE)
    assert outcome.code == 1
    assert rerank("x", "--min-score", "2", "--strict", "--max-chunks", "1", stdin=THREE).code == 1
    assert json.loads(outcome.out)["results"] == []
    assert "none of 3 documents reached a score of 2" in outcome.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["x", "missing.txt"], "missing.txt: no such file"),
        (["x", "examples"], "examples: is a directory"),
        ([""], "the query is empty"),
        (["-q", "  ", "examples/faq.txt"], "the query is empty"),
        (["x", "examples/faq.txt", "-m", "minni"], "no model is called 'minni'"),
        (["x", "examples/faq.txt", "--chunk-tokens", "3"], "at least 8 tokens, not 3"),
        (["x", "examples/faq.txt", "-n", "-1"], "'-n' / '--top-n': -1 is less than 0"),
        (["x", "examples/faq.txt", "-n", "all"], "'-n' / '--top-n': 'all' is not a whole number"),
        (["x", "examples/faq.txt", "--min-score", "high"], "'high' is not a number"),
        (["x", "examples/faq.txt", "--unit", "page"], "'page' is none of auto, section"),
        (["x", "--nonsense"], "no such option"),
        (["x", ""], "a file's name is empty"),
        (["x", "-d", "x", "--json", "-f", "table"], "--json and --format table"),
        (["x", "-d", "x", "--min-score", "nan"], "not a number"),
        (["x", "-d", "x", "-m", "./" + "m" * 300], "no such model"),
        (["x", "-d", "x", "-m", "~nosuchuser/m"], "no such model"),
        (["help", "serve"], "serve is kept for a command"),
        (["serve", "examples/faq.txt"], "serve is kept for a command"),
        (["w " * 500, "examples/faq.txt"], "it has 500 tokens and 460 fit"),
    ],
)
def test_usage_errors(arguments: list[str], message: str, rerank: Run) -> None:
    outcome = rerank(*arguments, stdin=THREE)
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err.startswith("rerank: ")
    assert message in outcome.err.splitlines()[0]


def test_no_arguments_show_concise_help(rerank: Run) -> None:
    for stdin in (None, b"piped\n"):
        outcome = rerank(stdin=stdin)
        assert (outcome.code, outcome.out) == (2, "")
        assert outcome.err.startswith("Usage: rerank [OPTIONS] QUERY [FILE]...")


def test_no_documents_at_a_terminal(rerank: Run) -> None:
    outcome = rerank("refund")
    assert outcome.code == 2
    assert "no documents to rank" in outcome.err
    forgotten_outcome = rerank("examples/faq.txt")
    assert "examples/faq.txt is a file" in forgotten_outcome.err
    assert rerank("-d", "text only").code == 2
    assert "no documents to rank" in rerank("long " * 400).err


def test_help_shows_every_option_in_its_group(rerank: Run) -> None:
    text = rerank("--help").out
    groups = ["Common:", "Input:", "Model:", "Chunking:", "Output:", "Other:"]
    assert sorted(map(text.index, groups)) == [text.index(group) for group in groups]
    assert "Exit codes:" in text
    assert max(map(len, text.splitlines())) <= 80
    assert rerank("help").out == rerank("rank", "--help").out == text


def test_the_default_command_can_be_named(rerank: Run) -> None:
    assert rerank("rank", "financial markets", stdin=THREE).out.startswith("stocks fell")
    assert rerank("-q", "rank", "-d", "rank", "-m", "bm25").out == "rank\n"


def test_a_query_that_is_too_long_can_be_cut(rerank: Run) -> None:
    outcome = rerank("markets " * 500, "--truncate-query", "-n", "1", stdin=THREE)
    assert outcome.code == 0
    assert "the query was cut to its first 460 of 500 tokens" in outcome.err


@pytest.mark.slow
def test_what_was_cut_is_said_and_strict_makes_it_an_exit_code(rerank: Run) -> None:
    long = ("word " * 1000).encode()
    outcome = rerank("x", "--max-chunks", "2", stdin=long)
    assert outcome.code == 0
    assert outcome.out == long.decode() + "\n"
    assert "1 document of 1 not scored whole" in outcome.err
    assert rerank("x", "--max-chunks", "2", "--strict", stdin=long).code == 4
    assert rerank("x", "--max-chunks", "2", "--strict", "--min-score", "2", stdin=long).code == 4
    assert rerank("x", "--strict", stdin=long).code == 0
    query = "markets " * 500
    assert rerank(query, "--strict", "--truncate-query", stdin=THREE).code == 4


def test_a_bug_is_called_one(rerank: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("rerank_cli.ranking.reranker.plan_chunks", fail)
    outcome = rerank("x", "-d", "y", "-m", "bm25")
    assert outcome.code == 70
    assert "this is a bug in rerank" in outcome.err


def test_a_broken_model_exits_with_3(rerank: Run, tmp_path: Path) -> None:
    outcome = rerank("x", "-d", "y", "-m", str(tmp_path))
    assert outcome.code == 3
    assert "holds no ONNX model" in outcome.err


@pytest.mark.parametrize(
    "arguments",
    [
        ["-q", "x", "gone"],
        ["-q", "x", "--files-from", "gone"],
        ["--query-file", "gone", "x"],
        ["-q", "x", "--image", "gone", "x"],
        ["batch", "gone"],
        ["batch", "--run", "gone", "--queries", "x", "--corpus", "x"],
        ["eval", "--run", "gone", "--queries", "x", "--corpus", "x", "--qrels", "gone"],
    ],
)
def test_a_file_that_is_not_there_is_called_so_by_every_command(
    arguments: list[str], rerank: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("x").write_text("1\tfox\n")
    outcome = rerank(*arguments)
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err.splitlines()[0] == "rerank: gone: no such file"
