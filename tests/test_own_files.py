"""The user's own files, each value replaced by one of every other type, and nested deeply.

Every command that reads them works, or ends with one line and exit code 2, and never in a
traceback.
"""

import os
from pathlib import Path

import pytest

from rerank_cli.cli.settings import check_config, read_config
from rerank_cli.errors import ConfigError
from rerank_cli.providers import catalogue
from rerank_cli.providers.schema import AnswerPaths, Limits, Option, Provider, RequestTemplates
from rerank_cli.user_files import parse_toml
from tests.conftest import Outcome, Run
from tests.support.command_line import SETTINGS
from tests.support.loopback import serve

# In TOML; and how they could be mistaken for what is asked for.
VALUES = [
    "true", "false", "0", "-1", "1", "2147483648", "9223372036854775808", f"1{'0' * 400}", "1.5",
    "nan", "-inf", "1e308", '""', '" "', '"x"', '"$text"', '"a.b"', r'"\u0000"', r'"\u001b[2J\n"',
    '"é"', "'http://['", f'"{"x" * 3000}"', "[]", '["x"]', "[1]", "[{}]", "[[[[]]]]", "{}",
    "{x = 1}",     '{x = "y"}', "{x.y.z = []}", "2026-01-01", "10:00:00", "2026-01-01T00:00:00Z",
]  # fmt: skip
RECORD = b'{"query": "late", "documents": ["it is late", "cats"]}\n'
DOCUMENTS = ("late", "-d", "it is late", "-d", "cats are late")
DEEP = {
    "arrays": f"x = {'[' * 50_000}",
    "tables": "x = " + "{y = " * 50_000,
    "dotted": "x." * 50_000 + "y = 1",
    "header": f"[{'x.' * 50_000}y]",
    "dotted in a table": f"[x]\n{'y.' * 2000}z = 1",
    "arrays that close": f"x = {'[' * 200}{']' * 200}",
}


def check(outcome: Outcome, what: object) -> None:
    """One line of what is wrong and one of what to do, or no trouble at all."""
    assert outcome.code in (0, 1, 2), (what, outcome.code, outcome.err)
    assert "Traceback" not in outcome.err, (what, outcome.err)
    if outcome.code == 2:
        assert outcome.err.count("rerank: ") == 1, (what, outcome.err)


@pytest.mark.slow
@pytest.mark.parametrize("key", SETTINGS)
def test_a_setting_of_any_type(key: str, home: Path, rerank: Run) -> None:
    path = home / "config.toml"
    for value in VALUES:
        path.write_text(f"{key} = {value}\n")
        try:
            check_config(read_config(path), path, SETTINGS)
        except ConfigError as error:
            message = str(error)
            assert len(message) < 1000
            continue
        check(rerank(*DOCUMENTS, "-m", "bm25"), value)
        if key not in ("model", "threads", "device", "runtime"):
            check(rerank("batch", "-m", "bm25", stdin=RECORD), value)
    check(rerank("config"), key)
    path.write_text(f"{key} = [[[[]]]]\n")
    check(rerank("config"), key)


SHOW = ("providers", "providers show own", "providers show own --json", "providers show own --toml")
DRY = (*DOCUMENTS, "--dry-run", "-v")
# The keys of an entry, and of the tables in it.
KEYS = [
    "like", "models", *(name for name in Provider.model_fields if name != "name"),
    *(f"request.{name}" for name in RequestTemplates.model_fields),
    *(f"answer.{name}" for name in AnswerPaths.model_fields),
    *(f"limits.{name}" for name in Limits.model_fields),
    *(f"options.instruction.{name}" for name in Option.model_fields),
    "options.instruction", "options.instruction.values.x", "headers.x", "defaults.instruction",
    "price.amount", "request.body.model", "request.body.documents", "request.body.x.y", "unknown",
]  # fmt: skip


def write_entry(home: Path, key: str, value: str, url: str = "http://127.0.0.1:1") -> None:
    """Write an entry of the user's own in which one key has a value."""
    lines = {"keyless": "true", "url": f'"{url}"', **({} if key == "like" else {"like": '"tei"'})}
    if key.startswith("price."):
        lines |= {f"price.{name}": '"x"' for name in ("currency", "source")}
        lines["price.per"] = '"million tokens"'
    lines[key] = value
    text = "".join(f"{name} = {content}\n" for name, content in lines.items())
    (home / "providers.toml").write_text(f"[own]\n{text}")


@pytest.mark.slow
@pytest.mark.parametrize("key", KEYS)
def test_a_key_of_a_provider_of_any_type(key: str, home: Path, rerank: Run) -> None:
    for number, value in enumerate(VALUES):
        write_entry(home, key, value)
        try:
            catalogue.find_provider("own")
        except ConfigError:
            continue
        check(rerank(*SHOW[number % len(SHOW)].split()), value)
        more = () if number % 2 else ("--base-url", "http://127.0.0.1:1")
        check(rerank(*DRY, "-m", "own/m", *more), value)
    write_entry(home, key, "[[[[]]]]")
    for command in (*SHOW, "q -d x -m own/m --dry-run"):
        check(rerank(*command.split()), key)


@pytest.mark.slow
@pytest.mark.parametrize("key", KEYS)
def test_a_key_of_a_provider_that_is_asked(key: str, home: Path, rerank: Run) -> None:
    with serve("tei") as server:
        for value in VALUES:
            write_entry(home, key, value, server.url)
            try:
                catalogue.find_provider("own")
            except ConfigError:  # so it is not asked
                continue
            outcome = rerank(*DOCUMENTS, "-m", "own/m", "--retries", "0")
            assert outcome.code in (0, 1, 2, 3), (value, outcome.err)
            assert "Traceback" not in outcome.err, (value, outcome.err)


@pytest.mark.slow
def test_entries_that_are_like_each_other(home: Path, rerank: Run) -> None:
    for content in (
        '[own]\nlike = "own"\n',
        '[own]\nlike = "b"\n[b]\nlike = "own"\n',
        '[own]\nlike = ""\n',
        '[own]\nlike = "nobody"\n',
        '[own]\nlike = "e1"\n' + "".join(f'[e{i}]\nlike = "e{i + 1}"\n' for i in range(1, 60)),
        '[""]\nurl = "http://x"\n[own]\n',
        '["a/b"]\n[own]\n',
        "[own]\n[own]\n",
        "own = 1\n",
        "[[own]]\n",
        "[default]\nurl = 1\n[own]\n",
        '["\\u0000"]\nurl = 1\n',
        "[cohere]\nheaders = 5\n[own]\nlike = 'cohere'\nurl = 'http://x'\n",
    ):
        (home / "providers.toml").write_text(content)
        for command in (*SHOW, "config set-key own"):
            check(rerank(*command.split(), stdin=b"key-of-mine\n"), content[:60])
        for model in ("own/m", "cohere/m", "e1/m", "b/m"):
            check(rerank(*DRY, "-m", model), content[:60])


@pytest.mark.parametrize("name", ["config.toml", "keys.toml", "providers.toml"])
@pytest.mark.parametrize(
    "kind", [*DEEP, "large", "pipe", "directory", "not text", "not TOML", "odd key"]
)
def test_a_file_of_any_shape(kind: str, name: str, home: Path, rerank: Run) -> None:
    path = home / name
    if kind == "pipe":
        os.mkfifo(path, 0o600)
    elif kind == "directory":
        path.mkdir(mode=0o700)
    else:
        others = {
            "large": "# " + "x" * (2 << 20),
            "not TOML": "x",
            "odd key": '"\\u001b[2J\\n" = 1',
        }
        path.write_text({**DEEP, **others}.get(kind, ""))
        if kind == "not text":
            path.write_bytes(b"x = '\xff'\n")
        path.chmod(0o600)
    commands = {
        "config.toml": ("q -d x -m bm25", "config", "config set top-n 3", "config unset top-n"),
        "keys.toml": ("q -d x -m cohere/x", "config set-key cohere", "config unset-key cohere"),
        "providers.toml": ("providers", "q -d x -m cohere/x --dry-run", "q -d x -m own/x"),
    }
    for command in commands[name]:
        outcome = rerank(*command.split(), stdin=b"key-of-mine\n")
        assert outcome.code == 2 or kind == "odd key", (command, outcome.err)
        check(outcome, command)
    check(rerank("config", "list"), kind)
    check(rerank("doctor", "-m", "./tests/models/bert"), kind)


@pytest.mark.parametrize("value", VALUES)
def test_a_key_of_any_type(value: str, home: Path, rerank: Run) -> None:
    path = home / "keys.toml"
    path.write_text(f"cohere = {value}\n")
    path.chmod(0o600)
    url = ("--base-url", "http://127.0.0.1:1", "--retries", "0")
    outcome = rerank("q", "-d", "x", "-m", "cohere/x", *url)
    assert outcome.code in (2, 3), outcome.err
    assert "Traceback" not in outcome.err
    check(rerank("config"), value)
    check(rerank("config", "set-key", "jina", stdin=b"key-of-mine\n"), value)


@pytest.mark.parametrize("kind", DEEP)
def test_what_is_parsed_has_a_depth(kind: str) -> None:
    with pytest.raises(
        ValueError, match=r"nested too deeply|too many parts|Unclosed|Expected|Invalid"
    ):
        parse_toml(DEEP[kind].encode())
    assert parse_toml(b"a.b.c = [[{d = 1}]]") == {"a": {"b": {"c": [[{"d": 1}]]}}}
