"""The tables of hints: nothing in them is stale, and nothing that works here is called wrong.

What is said for each is in tests/cases/hints.toml.
"""

import re
import shlex
from collections.abc import Iterator

import pytest

from rerank_cli.cli import hints
from rerank_cli.cli.parameters import value_kind
from rerank_cli.cli.typer_commands import RESERVED
from rerank_cli.errors import ExitCode
from tests.conftest import ROOT, Run
from tests.support.command_line import COMMAND, SETTINGS
from tests.test_cases import cases

OPTIONS = {
    name
    for command in [COMMAND.get_command(None, name) for name in COMMAND.list_commands(None)]
    for inner in [command, *getattr(command, "commands", {}).values()]
    for option in inner.params
    for name in [*option.opts, *option.secondary_opts]
}
RANK = {name for option in COMMAND.commands["rank"].params for name in option.opts}
SENTENCES = [
    *hints._INSTEAD.values(),
    *(text for values in hints._VALUES.values() for text in values.values() if " " in text),
    *(text for words in hints._COMMANDS.values() for text in words.values()),
    *hints._FIRST_WORDS.values(),
]
FOREIGN = {"--files", "--hidden", "--no-ignore", "--upgrade", "--help"}  # of rg, pip and Typer


def test_what_a_hint_names_exists() -> None:
    for targets in hints._SYNONYMS:
        assert set(targets.split()) <= OPTIONS, targets
    assert hints._VALUES.keys() <= OPTIONS
    for sentence in SENTENCES:
        names = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", sentence))
        assert names - FOREIGN <= OPTIONS, sentence
        for group, inner in re.findall(r"rerank (models|providers|config) ([a-z-]+)", sentence):
            if inner not in ("lists", "shows"):
                assert inner in COMMAND.get_command(None, group).commands, sentence


def test_a_value_with_a_letter_too_many_is_known_for_what_it_was_meant(rerank: Run) -> None:
    kinds = {
        option.opts[-1]: value_kind(option)
        for option in COMMAND.commands["rank"].params
        if option.param_type_name == "option"
    }
    values = {
        name: [*kind.choices, *kind.words] for name, kind in kinds.items() if kind.type is not bool
    }
    assert values["--format"]
    assert values["--candidates"]
    for name, words in values.items():
        for word in filter(str.isalpha, words):
            outcome = rerank("x", name, word + word[-1])
            assert outcome.err.endswith(f"\n\nhint: did you mean {word}?\n"), name


def test_values_that_are_named_are_taken() -> None:
    for name, values in hints._VALUES.items():
        option = next(
            option
            for command in (COMMAND.commands["rank"], COMMAND.get_command(None, "batch"))
            for option in command.params
            if name in option.opts
        )
        choices = set(option.type_descriptor.annotation) if name != "--top-n" else set()
        for words, instead in values.items():
            assert " " in instead or instead in choices or not choices
            assert not choices & set(words.split())


def test_no_name_is_in_a_table_twice() -> None:
    for table in (hints._INSTEAD, hints._FIRST_WORDS, *hints._VALUES.values()):
        names = [name for words in table for name in words.split()]
        assert len(names) == len(set(names))
    for table in (hints._INSTEAD,):
        assert not {name for words in table for name in words.split()} & RANK


def test_no_word_of_a_command_here_is_taken_for_another() -> None:
    words = {word for words_typed in hints._FIRST_WORDS for word in words_typed.split()}
    assert not {*words, *hints._SEARCH_WORDS, *hints._KEY_WORDS} & set(RESERVED)


@pytest.mark.parametrize("word", ["search", "list", "pull", "login", "version", "confg", "model"])
def test_every_word_is_still_a_query(word: str, rerank: Run) -> None:
    assert rerank(word, "-d", "no", "-d", f"a {word}", "-m", "bm25").out == f"a {word}\n"
    assert rerank(word, "-m", "bm25", stdin=f"a {word}\n".encode()).out == f"a {word}\n"
    empty = rerank(word, "-m", "bm25", stdin=b"")
    assert empty.code == 1
    assert f"hint: {word if word != 'login' else 'a key'}" in empty.err


def secrets() -> Iterator[list[str]]:
    for name in ("--api-key", "--token", "-api-key", "--key", "--secret", "--API_KEY"):
        yield ["fox", name, "sk-secret"]
        yield [f"{name}=sk-secret", "fox"]
        yield ["batch", name, "sk-secret"]
    yield ["login", "sk-secret"]
    yield ["config", "set", "key", "sk-secret"]
    yield ["config", "key", "sk-secret"]
    yield ["config", "cohere", "sk-secret"]
    yield ["config", "set-key", "cohere", "sk-secret"]
    yield ["providers", "login", "cohere", "sk-secret"]


@pytest.mark.parametrize("arguments", [*secrets()], ids=shlex.join)
def test_no_key_is_repeated(arguments: list[str], rerank: Run) -> None:
    outcome = rerank(*arguments)
    assert (outcome.code, outcome.out) == (2, "")
    assert "set-key" in outcome.err
    assert "sk-secret" not in outcome.err


@pytest.mark.slow
def test_all_that_is_in_the_tables_gets_its_hint(rerank: Run) -> None:
    for words in [*hints._SYNONYMS.values(), *hints._INSTEAD]:
        for name in words.split():
            if name in RANK:
                continue
            runs = [rerank(*command, name, "fox") for command in ([], ["batch"], ["eval"])]
            assert {outcome.code for outcome in runs} == {2}
            assert any("--help shows" not in outcome.err for outcome in runs), name


def test_a_setting_that_is_meant_is_one() -> None:
    for key in SETTINGS:
        for name in hints._synonyms_of(f"--{key}"):
            assert name[2:] == key or key not in SETTINGS


def test_there_are_cases_enough() -> None:
    assert sum(subject == "hints" for subject, _ in cases()) >= 60


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["q", "x", "-m", "bm25", "--Tpo-n", "3"], "--top-n"),
        (["providers", "show", "CoherE1"], "cohere"),
    ],
)
def test_near_words_are_found_whatever_their_capitals(
    arguments: list[str], hint: str, rerank: Run
) -> None:
    outcome = rerank(*arguments)
    assert outcome.code == ExitCode.USAGE
    assert hint in outcome.err


def test_words_that_are_alike_are_found_in_one_way() -> None:
    sources = {path.name: path.read_text("utf-8") for path in (ROOT / "rerank_cli").rglob("*.py")}
    assert [name for name, source in sources.items() if "difflib" in source] == ["errors.py"]
