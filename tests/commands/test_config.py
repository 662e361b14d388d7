"""`rerank config`: what it shows, what it writes, and what it leaves alone."""

import json
import os
import stat
import sys
from pathlib import Path

import pytest

from rerank_cli.models.catalogue import default
from tests.conftest import Run
from tests.test_layers import HEAVY, modules_after

posix = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such modes")


def rows(text: str) -> dict[str, list[str]]:
    return {row[0]: row[1:] for row in (line.split("\t") for line in text.splitlines())}


def test_alone_it_lists(rerank: Run, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (home / "config.toml").write_text('model = "bm25"\nstrict = true\ntop-n = 5\n')
    monkeypatch.setenv("RERANK_TOP_N", "3")
    outcome = rerank("config")
    assert (outcome.code, outcome.err) == (0, "")
    assert rerank("config", "list").out == outcome.out
    listing = rows(outcome.out)
    assert listing["model"] == ["bm25", str(home / "config.toml")]
    assert listing["strict"] == ["true", str(home / "config.toml")]
    assert listing["top-n"] == ["3", "RERANK_TOP_N"]
    assert listing["max-chunks"] == ["1024", "default"]
    assert listing["threads"] == ["", "default"]


def test_a_person_gets_columns(rerank: Run) -> None:
    head, *lines = rerank("config", terminal=80).out.splitlines()
    assert head.split() == ["setting", "value", "from"]
    assert len({line.rindex("default") for line in lines}) == 1
    assert "\t" not in "".join(lines)


def test_a_person_sees_what_holds_without_a_value(rerank: Run) -> None:
    lines = rerank("config", terminal=80).out.splitlines()
    shown = {line.split()[0]: " ".join(line.split()[1:-1]) for line in lines}
    assert all(shown.values())
    assert shown["top-n"] == "all, and 10 in a table on a terminal"
    assert shown["model"] == default()
    assert shown["format"] == "table on a terminal, else text, …"
    assert shown["rpm"] == "-"
    assert rows(rerank("config").out)["top-n"] == ["", "default"]


@pytest.mark.slow
def test_a_value_cannot_move_the_cursor(rerank: Run, home: Path) -> None:
    (home / "config.toml").write_text('model = "a\\u001b[2Jb\\tc\\n"\n')
    for width in (None, 80):
        assert "\x1b" not in rerank("config", terminal=width).out
    assert {line.count("\t") for line in rerank("config").out.splitlines()} == {2}


def test_the_list_as_json(rerank: Run, home: Path) -> None:
    (home / "config.toml").write_text("strict = true\n")
    rerank("config", "set-key", "cohere", stdin=b"sk-1\n")
    outcome = rerank("config", "list", "--json")
    assert rerank("config", "--json").out == outcome.out
    body = json.loads(outcome.out)
    assert body["path"] == str(home / "config.toml")
    settings = {row["key"]: row for row in body["settings"]}
    assert settings["strict"] == {"key": "strict", "value": True, "origin": body["path"]}
    assert settings["model"] == {"key": "model", "value": None, "origin": "default"}
    assert body["keys"] == [{"provider": "cohere", "origin": str(home / "keys.toml")}]


@pytest.mark.slow
def test_set_get_unset(rerank: Run, home: Path) -> None:
    assert rerank("config", "get", "aggregate").out == "adjusted-max\n"
    for key, value, stored_value, shown_value in [
        ("model", "bm25", 'model = "bm25"', "bm25"),
        ("top-n", "5", "top-n = 5", "5"),
        ("min-score", "-2", "min-score = -2.0", "-2.0"),
        ("strict", "yes", "strict = true", "true"),
        ("aggregate", "mean-top-3", 'aggregate = "mean-top-3"', "mean-top-3"),
    ]:
        assert rerank("config", "set", key, value) == (
            outcome := rerank("config", "set", key, value)
        )
        assert (outcome.code, outcome.out, outcome.err) == (0, "", "")
        assert stored_value in (home / "config.toml").read_text().splitlines()
        assert rerank("config", "get", key).out == shown_value + "\n"
        assert rerank("config", "unset", key).code == 0
    assert (home / "config.toml").read_text() == ""
    assert rerank("config", "get", "aggregate").out == "adjusted-max\n"


def test_what_is_set_holds_for_a_run(rerank: Run) -> None:
    rerank("config", "set", "model", "bm25")
    rerank("config", "set", "top-n", "1")
    assert rerank("dogs", stdin=b"cats\ndogs\n").out == "dogs\n"


def test_a_setting_without_a_value(rerank: Run) -> None:
    outcome = rerank("config", "get", "threads")
    assert (outcome.code, outcome.out) == (1, "")
    assert outcome.err.startswith("rerank: threads is not set")


def test_a_file_keeps_what_is_not_changed(rerank: Run, home: Path) -> None:
    path = home / "config.toml"
    path.write_text('# mine\n\nmodel = "bm25"  # quick\ntop-n = 5\n')
    rerank("config", "set", "top-n", "7")
    rerank("config", "set", "strict", "1")
    assert path.read_text() == '# mine\n\nmodel = "bm25"  # quick\ntop-n = 7\nstrict = true\n'
    rerank("config", "unset", "top-n")
    assert path.read_text() == '# mine\n\nmodel = "bm25"  # quick\nstrict = true\n'


@posix
def test_a_link_is_followed_and_a_mode_kept(rerank: Run, home: Path, tmp_path: Path) -> None:
    real = tmp_path / "dotfiles" / "rerank.toml"
    (home / "config.toml").symlink_to(real)
    rerank("config", "set", "top-n", "1")  # to where nothing is yet
    assert real.read_text() == "top-n = 1\n"
    real.chmod(0o640)
    rerank("config", "set", "top-n", "2")
    assert (home / "config.toml").is_symlink()
    assert real.read_text() == "top-n = 2\n"
    assert stat.S_IMODE(real.stat().st_mode) == 0o640
    assert [*real.parent.iterdir()] == [real]


@posix
@pytest.mark.skipif(hasattr(os, "geteuid") and os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written(rerank: Run, home: Path) -> None:
    home.chmod(0o500)
    outcome = rerank("config", "set", "top-n", "1")
    home.chmod(0o700)
    assert outcome.code == 2
    assert f"{home / 'config.toml'}: cannot be written: Permission denied" in outcome.err


def test_a_file_in_the_place_of_the_home_is_named_for_what_it_is(
    rerank: Run, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (home / "file").write_text("mine")
    monkeypatch.setenv("RERANK_HOME", str(home / "file"))
    outcome = rerank("config", "set", "top-n", "2")
    assert outcome.code == 2
    assert "file/config.toml: cannot be written: Not a directory" in outcome.err
    assert (home / "file").read_text() == "mine"


def test_a_write_that_fails_leaves_the_old_file(
    rerank: Run, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (home / "config.toml").write_text("top-n = 1\n")

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    outcome = rerank("config", "set", "top-n", "2")
    assert outcome.code == 2
    assert "cannot be written: No space left on device" in outcome.err
    assert [*home.iterdir()] == [home / "config.toml"]
    assert (home / "config.toml").read_text() == "top-n = 1\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["set", "top-n", "0.5"], "top-n: '0.5' is not a whole number"),
        (["set", "top-n", "many"], "top-n: 'many' is not a whole number"),
        (["set", "strict", "maybe"], "strict: 'maybe' is neither true nor false"),
        (["set", "model", ""], "model: the value is empty"),
        (["set", "format", "xml"], "format: 'xml' is none of table"),
        (["set", "format", "jsno"], "format: 'jsno' is none of table"),
        (["set", "top_n", "1"], "no setting is called top_n"),
        (["get", "query"], "no setting is called query"),
        (["unset", "modle"], "no setting is called modle"),
        (["set", "top-n"], "Missing argument 'VALUE'"),
        (["frob"], "no such command: rerank config frob"),
        (["list", "--nonsense"], "no such option"),
    ],
)
def test_usage_errors(arguments: list[str], message: str, rerank: Run, home: Path) -> None:
    outcome = rerank("config", *arguments)
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err.startswith("rerank: ")
    assert message in outcome.err.splitlines()[0]
    assert "\nhint: " in outcome.err
    assert [*home.iterdir()] == []


def test_a_broken_file_can_be_mended(rerank: Run, home: Path) -> None:
    path = home / "config.toml"
    path.write_text("top-n = 0\nmodle = 1\n")
    assert rerank("config").code == 2
    assert rerank("config", "path").out == f"{path}\n"
    assert rerank("config", "unset", "modle").code == 0
    assert rerank("config", "set", "top-n", "1").code == 0
    assert rows(rerank("config").out)["top-n"] == ["1", str(path)]
    path.write_text("not TOML")
    outcome = rerank("config", "set", "top-n", "1")
    assert (outcome.code, path.read_text()) == (2, "not TOML")
    assert f"{path}: not TOML" in outcome.err


def test_unset_says_if_there_was_nothing(rerank: Run, home: Path) -> None:
    outcome = rerank("config", "unset", "model")
    assert outcome.code == 0
    assert "model is not set in" in outcome.err
    assert [*home.iterdir()] == []


def test_set_says_if_the_environment_comes_first(
    rerank: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RERANK_MODEL", "mini@3")
    assert "RERANK_MODEL is set too, and comes first" in rerank("config", "set", "model", "x").err


def test_help_has_examples(rerank: Run) -> None:
    text = rerank("config", "--help").out
    assert rerank("help", "config").out == text
    names = [
        line.split()[0]
        for line in text.partition("Commands:\n")[2].partition("\n\n")[0].splitlines()
    ]
    assert names == ["list", "get", "set", "unset", "path", "set-key", "unset-key"]
    assert max(map(len, text.splitlines())) <= 80
    for name in names:
        outcome = rerank("config", name, "--help")
        assert outcome.code == 0
        assert "rerank config" in outcome.out.partition("Usage: ")[2].partition("\n")[2] or (
            name == "path" and "rerank config path" in outcome.out
        )
        assert max(map(len, outcome.out.splitlines())) <= 80
    assert "config     Show and change" in rerank("--help").out


def test_config_imports_nothing_slow() -> None:
    assert modules_after("config") & HEAVY == set()


@pytest.mark.parametrize(
    ("name", "account", "message"),
    [
        ("cohere", "cohere", ""),
        ("cohere-v1", "cohere", "cohere-v1 has the key of cohere\n"),
        ("generic", "llmingo", "generic has the key of llmingo\n"),
        ("mine", "mine", ""),
        ("shared", "shared", ""),
    ],
)
def test_a_key_is_kept_for_the_provider_that_is_meant(
    name: str, account: str, message: str, rerank: Run, home: Path
) -> None:
    (home / "providers.toml").write_text('[mine]\nurl = "http://h"\n[my2]\naccount = "shared"\n')
    outcome = rerank("config", "set-key", name, stdin=b"secret-key\n")
    assert outcome.code == 0
    assert message in outcome.err
    assert bool(outcome.err) == bool(message)
    assert (home / "keys.toml").read_text() == f'{account} = "secret-key"\n'
    assert rerank("config", "unset-key", name).code == 0
    assert (home / "keys.toml").read_text() == ""


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("coher", "did you mean cohere or cohere-v1?"),
        ("genericc", "did you mean generic?"),
        ("silicon", "did you mean siliconflow?"),
        ("team", "rerank providers lists them; one of your own needs its table in providers.toml"),
        ("huggingface", "the token of the Hugging Face Hub is in the variable HF_TOKEN"),
    ],
)
def test_a_key_for_no_provider_is_not_kept(name: str, hint: str, rerank: Run, home: Path) -> None:
    outcome = rerank("config", "set-key", name, stdin=b"secret-key\n")
    assert outcome.code == 2
    assert outcome.err.startswith(f"rerank: no provider is called {name}\n\nhint: {hint}")
    assert not (home / "keys.toml").exists()
    (home / "providers.toml").write_text(f'[{name}]\nurl = "http://h"\n')
    assert rerank("config", "set-key", name, stdin=b"secret-key\n").code == 0


def test_a_key_in_the_place_of_a_name_is_not_shown(rerank: Run) -> None:
    outcome = rerank("config", "set-key", "sk-abcdef0123456789abc", stdin=b"x\n")
    assert (outcome.code, "abcdef" in outcome.err) == (2, False)


@pytest.mark.parametrize(
    ("name", "expected"), [("COHERE_API_KEY", "cohere"), ("Jina", "jina"), ("A=b", "PROVIDER")]
)
def test_a_name_of_other_letters_is_answered_with_the_provider_that_is_meant(
    name: str, expected: str, rerank: Run
) -> None:
    outcome = rerank("config", "set-key", name, stdin=b"x\n")
    assert outcome.code == 2
    assert f"hint: rerank config set-key {expected}; the key itself is never" in outcome.err


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("mini", ""),
        ("bm25", ""),
        ("cohere/rerank-v3.5", ""),
        ("nosuch", "no model is called 'nosuch'"),
        ("bge", "no model is called 'bge'\n\nhint: did you mean bge-reranker-base, "),
        ("later/model", "no model is called 'later/model'"),
        ("cohere", "cohere needs the name of a model"),
        ("./later", "./later: no such model"),
        ("bge-reranker-base", "bge-reranker-base is not installed: "),
    ],
)
def test_a_model_that_there_is_not_yet_is_set_and_said(
    model: str, message: str, rerank: Run
) -> None:
    outcome = rerank("config", "set", "model", model)
    assert outcome.code == 0
    assert (f"rerank: model is set, but runs will fail: {message}" in outcome.err) == bool(message)
    assert bool(outcome.err) == bool(message)
    assert rerank("config", "get", "model").out == f"{model}\n"
    use_outcome = rerank("models", "use", model)
    assert (use_outcome.code != 0, message in use_outcome.err) == (bool(message), True)


def test_a_provider_of_ones_own_may_have_any_name(rerank: Run, home: Path) -> None:
    (home / "providers.toml").write_text('["My_team.2"]\nurl = "http://127.0.0.1:1"\n')
    assert rerank("config", "set-key", "my_team", stdin=b"secret-key\n").code == 2  # is none
    assert rerank("config", "set-key", "My_team.2", stdin=b"secret-key\n").code == 0
    dry = rerank("-m", "My_team.2/m", "q", "-d", "x", "--dry-run")
    assert (dry.code, "needs a key" in dry.err) == (0, False)
    assert rerank("config", "unset-key", "My_team.2").code == 0
    assert (home / "keys.toml").read_text() == ""
