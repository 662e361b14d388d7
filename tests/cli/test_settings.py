"""Flags over the environment over config.toml over defaults; and what a bad setting is told."""

import re
from pathlib import Path
from unittest.mock import Mock

import pytest

from rerank_cli.cli import parameters
from rerank_cli.cli.parameters import settings_in
from rerank_cli.cli.settings import Setting, ValueKind, parse_size, variable_of
from tests.conftest import ROOT, Run
from tests.support.command_line import COMMAND, SETTINGS
from tests.test_layers import modules_after

LINES = b"cats purr\nstocks fell\ndogs bark\n"


def test_the_settings_are_the_options_that_are_preferences() -> None:
    assert {
        "model", "threads", "chunk-tokens", "overlap-tokens", "max-chunks", "aggregate",
        "truncate-query", "strict", "top-n", "min-score", "format", "full", "color",
    } <= SETTINGS.keys()  # fmt: skip
    assert not {"query", "document", "unit", "field", "json", "version"} & SETTINGS.keys()


@pytest.mark.parametrize("setting", SETTINGS.values(), ids=list(SETTINGS))
def test_a_setting_can_be_written_and_undone(setting: Setting) -> None:
    assert issubclass(setting.kind.type, str | bool | int | float)
    if setting.kind.type is bool:
        options = [
            name
            for parameter in COMMAND.commands["rank"].params
            for name in parameter.secondary_opts
        ]
        assert f"--no-{setting.key}" in options


def test_variables_are_named_after_keys() -> None:
    assert variable_of("chunk-tokens") == "RERANK_CHUNK_TOKENS"
    for parameter in COMMAND.commands["rank"].params:
        if parameter.envvar:
            assert f"--{parameter.envvar[7:].lower().replace('_', '-')}" in parameter.opts


def test_a_misspelt_variable_is_said(rerank: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RERANK_MODLE", "bm25")
    monkeypatch.setenv("RERANK_TOPN", "1")
    for arguments in (("cats", "-d", "cats", "-m", "bm25"), ("config", "get", "aggregate")):
        ran = rerank(*arguments)
        assert ran.code == 0
        assert ran.err == (
            "rerank: RERANK_MODLE has no effect: no variable has this name\n\n"
            "hint: did you mean RERANK_MODEL?\n"
            "rerank: RERANK_TOPN has no effect: no variable has this name\n\n"
            "hint: did you mean RERANK_TOP_N?\n"
        )


def test_other_variables_are_nobodys_business(monkeypatch: pytest.MonkeyPatch) -> None:
    page = (ROOT / "docs" / "settings.md").read_text()
    documented = {*re.findall("`(RERANK_[A-Z_]+)`", page)}
    assert documented >= {setting.variable for setting in SETTINGS.values()}
    warn = Mock()
    monkeypatch.setattr(parameters, "warn", warn)
    others = ("RERANK_API_KEY", "RERANK_TEST", "RERANK_", "MODEL", "RERANKER_MODLE")
    parameters.warn_of_variables(dict.fromkeys((*documented, *others), "1"))
    parameters.warn_of_variables({"RERANK_MODLE": ""})
    assert not warn.called
    parameters.warn_of_variables({"RERANK_PREPARD": "off"})
    assert warn.call_args.args[-1] == "did you mean RERANK_PREPARED?"


@pytest.mark.parametrize("name", ["RERANK_PASSAGE_MEMORY", "RERANK_PASAGE_MEMORY"])
def test_variables_are_known_without_importing_other_commands(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The setting of a variable may be another command's, as this one is."""
    monkeypatch.setenv(name, "1GB")
    assert "rerank_cli.commands.batch" not in modules_after("--version")


def test_flags_beat_the_environment_which_beats_the_file(
    rerank: Run, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def count(*options: str) -> int:
        return len(
            rerank("cats", "-m", "bm25", "--min-score", "0", *options, stdin=LINES).out.splitlines()
        )

    assert count() == 3
    (home / "config.toml").write_text("top-n = 1\n")
    assert count() == 1
    monkeypatch.setenv("RERANK_TOP_N", "2")
    assert count() == 2
    assert count("-n", "3") == 3
    monkeypatch.setenv("RERANK_TOP_N", "")
    assert count() == 1


def test_every_kind_of_setting_is_read_from_both(
    rerank: Run, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = ("word " * 400).encode()
    cut = ("word", "-m", "bm25", "--chunk-tokens", "20", "--max-chunks", "1")
    assert rerank(*cut, stdin=long).code == 0
    for value, code in [("1", 4), ("TRUE", 4), ("yes", 4), ("0", 0), ("false", 0), ("no", 0)]:
        monkeypatch.setenv("RERANK_STRICT", value)
        assert rerank(*cut, stdin=long).code == code
    monkeypatch.delenv("RERANK_STRICT")
    (home / "config.toml").write_text(
        'model = "bm25"\nstrict = true\nmax-chunks = 1\nchunk-tokens = 20\nformat = "json"\n'
        "min-score = 0\n"
    )
    assert rerank("x", stdin=long).code == 4
    assert rerank("x", "--no-strict", stdin=long).code == 0
    assert rerank("x", "--no-strict", stdin=long).out.startswith("{")
    assert rerank("x", "-f", "text", "--no-strict", stdin=long).out == long.decode() + "\n"


def test_json_by_option_beats_another_format_by_setting(
    rerank: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RERANK_FORMAT", "text")
    assert rerank("x", "-d", "x", "-m", "bm25", "--json").out.startswith("{")
    assert rerank("x", "-d", "x", "-m", "bm25", "--json", "-f", "text").code == 2


@pytest.mark.parametrize(
    ("content", "message", "hint"),
    [
        ("top-n", "not TOML: Expected '='", None),
        ("a = 1\na = 2", "not TOML: Cannot overwrite", None),
        ("topn = 1", "no setting is called topn", "did you mean top-n?"),
        ("top_n = 1", "no setting is called top_n", "did you mean top-n?"),
        (
            "nonsense = 1",
            "no setting is called nonsense",
            "settings: aggregate, cache, cache-size, ",
        ),
        ('top-n = "5"', "top-n: '5' is not a whole number", "top-n is a whole number of 0 or more"),
        ("top-n = 5.5", "top-n: 5.5 is not a whole number", None),
        ("top-n = true", "top-n: true is not a whole number", None),
        ("top-n = -1", "top-n: -1 is less than 0", None),
        ('min-score = "high"', "min-score: 'high' is not a number", None),
        ("strict = 1", "strict: 1 is neither true nor false", None),
        ("model = 1", "model: 1 is not text", None),
        ('model = ""', "model: the value is empty", "rerank config unset model"),
        ("[model]", "model: {} is not text", None),
        (
            'format = "tabel"',
            "format: 'tabel' is none of table, text, grep, tsv",
            "did you mean table? To remove it: rerank config unset format",
        ),
        (
            'format = "zzz"',
            "format: 'zzz' is none of table, text, grep, tsv",
            "one of table, text",
        ),
    ],
)
def test_a_bad_file_is_named_with_its_key_and_what_is_allowed(
    content: str, message: str, hint: str | None, rerank: Run, home: Path
) -> None:
    path = home / "config.toml"
    path.write_text(content)
    outcome = rerank("x", "-m", "bm25", stdin=LINES)
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err.startswith(f"rerank: {path}: {message}")
    assert (hint or "") in outcome.err.partition("hint: ")[2]


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("RERANK_TOP_N", "all", "'all' is not a whole number"),
        ("RERANK_TOP_N", "-1", "-1 is less than 0"),
        ("RERANK_STRICT", "maybe", "'maybe' is neither true nor false"),
        ("RERANK_FORMAT", "xml", "'xml' is none of table, text, grep, tsv, csv, json, jsonl"),
        ("RERANK_MIN_SCORE", "high", "'high' is not a number"),
        ("RERANK_MODEL", "minni", "no model is called 'minni'"),
    ],
)
def test_a_bad_variable_is_named(
    variable: str, value: str, message: str, rerank: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, value)
    outcome = rerank("x", stdin=LINES)
    assert (outcome.code, outcome.out) == (2, "")
    assert message in outcome.err.splitlines()[0]
    if variable != "RERANK_MODEL":  # which only opening can judge
        assert outcome.err.startswith(f"rerank: {variable}: ")


def test_a_byte_order_mark_and_an_empty_file(rerank: Run, home: Path) -> None:
    (home / "config.toml").write_bytes(b"\xef\xbb\xbftop-n = 1\r\n")
    assert rerank("cats", "-m", "bm25", stdin=LINES).out == "cats purr\n"
    (home / "config.toml").write_bytes(b"")
    assert rerank("cats", "-m", "bm25", stdin=LINES).code == 0


def test_a_file_that_cannot_be_read(rerank: Run, home: Path) -> None:
    (home / "config.toml").mkdir()
    outcome = rerank("x", stdin=LINES)
    assert outcome.code == 2
    assert outcome.err.startswith(f"rerank: {home / 'config.toml'}: ")


def test_help_is_there_when_settings_are_broken(rerank: Run, home: Path) -> None:
    before = rerank("--help")
    (home / "config.toml").write_text("max-chunks = 7")
    assert rerank("--help") == before
    (home / "config.toml").write_text("not TOML")
    assert rerank("--help") == before
    assert rerank("--version").code == 0


def test_help_says_which_options_are_settings(rerank: Run) -> None:
    text = " ".join(rerank("--help").out.split())
    assert f"Settings: {', '.join(settings_in([COMMAND.commands['rank']]))}." in text
    assert "RERANK_TOP_N for top-n" in text
    text = " ".join(rerank("config", "--help").out.split())
    assert f"Settings: {', '.join(SETTINGS)}." in text
    assert "passage-memory" in SETTINGS


def test_help_of_each_command_names_its_settings(rerank: Run) -> None:
    for name in {*COMMAND.list_commands(None)} - {"rank", "config"}:
        command = COMMAND.get_command(None, name)
        for words in [[name], *([name, inner] for inner in getattr(command, "commands", {}))]:
            settings = settings_in([command if len(words) == 1 else command.commands[words[1]]])
            text = " ".join(rerank(*words, "--help").out.split())
            sentence = f"Settings: {', '.join(settings)}. `rerank config --help` says more."
            assert (sentence in text) is bool(settings), words
            assert ("Settings:" in text) is bool(settings), words


def test_a_run_without_a_file_reads_no_toml() -> None:
    assert "tomllib" not in modules_after("--help")
    assert "tomllib" not in modules_after("x", "-d", "x", "-m", "bm25")


@pytest.mark.parametrize(
    ("kind", "allowed"),
    [
        (ValueKind(str), "text"),
        (ValueKind(bool), "true or false"),
        (ValueKind(int), "a whole number"),
        (ValueKind(int, 1), "a whole number of 1 or more"),
        (ValueKind(float, 0, 1), "a number of 0 or more, at most 1"),
    ],
)
def test_what_is_allowed_is_said(kind: ValueKind, allowed: str) -> None:
    assert kind.description == allowed


def test_a_range_has_two_ends() -> None:
    kind = ValueKind(float, 0, 1)
    assert (kind.from_text("0.5"), kind.from_toml(1)) == (0.5, 1.0)
    with pytest.raises(ValueError, match="2 is more than 1"):
        kind.from_text("2")
    with pytest.raises(ValueError, match="2 is more than 1"):
        kind.from_toml(2)


@pytest.mark.parametrize(
    ("text", "size"),
    [("64MB", 64_000_000), ("1 GiB", 1 << 30), ("500k", 500_000), ("7", 7), ("1.5kB", 1500)],
)
def test_a_size_is_read(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "0", "-1MB", "MB", "1 XB", "1e6", "9" * 5000])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(ValueError, match="is not a size"):
        parse_size(text)


def test_a_size_is_checked_wherever_it_is_given(
    rerank: Run, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outcome = rerank("config", "set", "max-document", "lots")
    assert outcome.code == 2
    assert "max-document: 'lots' is not a size" in outcome.err
    (home / "config.toml").write_text('max-document = "lots"\n')
    outcome = rerank("q", "-d", "x", "-m", "bm25")
    assert outcome.code == 2
    assert "config.toml: max-document: 'lots' is not a size" in outcome.err
    (home / "config.toml").unlink()
    monkeypatch.setenv("RERANK_MAX_DOCUMENT", "lots")
    outcome = rerank("q", "-d", "x", "-m", "bm25")
    assert outcome.code == 2
    assert "RERANK_MAX_DOCUMENT: 'lots' is not a size" in outcome.err
