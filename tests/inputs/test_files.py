"""Paths, lists and folders to sources: in order, as git sees them, with a count of the others."""

import io
import os
import shutil
import socket
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from rerank_cli.errors import InputError
from rerank_cli.inputs import InputFormat, files
from rerank_cli.inputs.files import SourcePath, find_sources, read_error, read_names, walk
from tests.support.reading import give_stdin, inputs_of, names

needs_git = pytest.mark.skipif(shutil.which("git") is None, reason="needs git")


def tree(root: Path, files: dict[str, str]) -> Path:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8", newline="")
    return root


@pytest.fixture(autouse=True)
def git_home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home without the rules that whoever runs the tests has for all repositories."""
    home = tmp_path_factory.mktemp("git-home")
    for name in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(name, str(home))
    for name in ("XDG_CONFIG_HOME", "GIT_CONFIG_GLOBAL"):
        monkeypatch.delenv(name, raising=False)
    return home


def fail(error: OSError) -> None:
    raise error


def walk_folder(root: Path | str) -> tuple[list[str], dict[str, int]]:
    skip_counts: Counter[str] = Counter()
    problems: list[OSError] = []
    paths = [
        os.path.relpath(p, root).replace(os.sep, "/")
        for p in walk(str(root), skip_counts, problems.append)
    ]
    assert problems == []
    return paths, dict(skip_counts)


def list_git_files(root: Path) -> set[str]:
    listing = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    process = subprocess.run(listing, cwd=root, capture_output=True, check=True)
    names = process.stdout.decode().split("\0")
    return {name for name in names if name and not name.rpartition("/")[2].startswith(".")}


def repository(root: Path, files: dict[str, str], exclude: str = "") -> Path:
    root.mkdir(exist_ok=True)
    subprocess.run(["git", "init", "-q", str(root)], check=True)
    return tree(root, {**files, ".git/info/exclude": exclude})


def test_files_come_in_the_order_of_their_names(tmp_path: Path) -> None:
    files = ["b/z", "b/a", "a.txt", "c", "B"]
    tree(tmp_path, dict.fromkeys(files, ""))
    assert walk_folder(tmp_path) == (["B", "a.txt", "b/a", "b/z", "c"], {})


def test_what_is_left_out_is_counted(tmp_path: Path) -> None:
    files = {".hidden": "", ".git/config": "", "a.log": "", "b/c.log": "", "b/d": "", "out/e": ""}
    tree(tmp_path, {**files, ".gitignore": "*.log\nout/\n"})
    (tmp_path / "link").symlink_to(tmp_path / "b")
    (tmp_path / "loop").symlink_to(tmp_path)
    assert walk_folder(tmp_path) == (
        ["b/d"],
        {"hidden": 3, "ignored": 3, "symbolic links": 2},
    )


NESTED = {
    ".gitignore": "*.log\nbuild/\n/top\n/docs/*\n!/docs/keep/\n*.tmp\n"
    "\\#odd\nspace\\ \n**/deep/x\n",
    "sub/.gitignore": "!important.log\nlocal\n/only-here\n",
    "sub/in/.gitignore": "*\n!*/\n!*.py\n",
}
FILES = [
    "a.log", "a.txt", "build/a", "sub/build/a", "sub/build.txt", "top", "sub/top", "docs/a",
    "docs/keep/a", "docs/drop/a", "sub/important.log", "sub/other.log", "sub/local", "local",
    "sub/only-here", "sub/more/only-here", "sub/in/a.py", "sub/in/a.txt", "sub/in/more/b.py",
    "sub/in/more/b.txt", "#odd", "space ", "one/two/deep/x", "deep/x", "deep/y", "x.tmp",
    "private/a", "sub/private", "build2/a", "sub/in/build/a.py",
]  # fmt: skip


@needs_git
def test_a_tree_as_git_sees_it(tmp_path: Path) -> None:
    files = FILES if os.name != "nt" else [name for name in FILES if name.strip() == name]
    repository(tmp_path, {**dict.fromkeys(files, ""), **NESTED}, exclude="private\n")
    git_paths = list_git_files(tmp_path)
    assert 10 < len(git_paths) < len(files)
    assert set(walk_folder(tmp_path)[0]) == git_paths
    inside = {name.removeprefix("sub/") for name in git_paths if name.startswith("sub/")}
    assert set(walk_folder(tmp_path / "sub")[0]) == inside  # the rules above count here too


parts = ["a", "b", "src", "x.py", "y.log", "build", "foo bar"]
paths = st.lists(st.sampled_from(parts), min_size=1, max_size=4).map("/".join)
rules = st.sampled_from(
    ["a", "b/", "/a", "a/b", "*.py", "!*.py", "*", "!*/", "**/a", "a/**", "a/*", "!a/b", "/*",
     "!/src", "!/src/", "build/", "!build/", "**/build/**", "src/**/x.py", "a/**/b", "*.log",
     "!y.log", "#x", "\\#x", "foo\\ bar", "foo bar ", "/src/*", "!/src/a", "[ab]", "[!a]", "x.*",
     "*/", "?", "/*/", "!/*/", "**", "**/", "/", "!", "a\\", "[z-a]", "a//b", "\\", "", "!a\r",
     "[^a]*", "[!]", "[a\\-b]", "[a-", "\\a", "*a*", "***", "a**", "**/a/**/b", "/**/b", "a/**/"]
)  # fmt: skip
lists = st.lists(rules, max_size=5).map(lambda patterns: "".join(f"{rule}\n" for rule in patterns))


@pytest.mark.slow
@needs_git
@settings(
    max_examples=60,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    st.sets(paths, min_size=3, max_size=14), lists, st.dictionaries(paths, lists, max_size=3), lists
)
# Of a folder that is named, its files are not by that.
@example({"a/x.py", "a/y.log"}, "!a\n", {}, "*.py\n")
@example({"src/y.log", "src/x.py"}, "*.log\n", {"": "!/src/\n"}, "")
# What is in a folder, and not the folder itself.
@example({"a/b/x.py", "a/y.log"}, "a/**\n!a/b\n!a/b/**\n", {}, "")
@example({"a", "b"}, "", {}, "?\n*\n")
def test_any_rules_as_git_reads_them(
    tmp_path_factory: pytest.TempPathFactory,
    files: set[str],
    top: str,
    nested: dict[str, str],
    exclude: str,
) -> None:
    root = tmp_path_factory.mktemp("repository")
    folders = {str(Path(name).parent) for name in files} | {"."}
    plain = {name for name in files if not any(o.startswith(name + "/") for o in files)}
    ignores = {".gitignore": top}
    ignores |= {f"{at}/.gitignore": text for at, text in nested.items() if at in folders}
    repository(root, {**dict.fromkeys(plain, ""), **ignores}, exclude)
    assert set(walk_folder(root)[0]) == list_git_files(root)


def test_lists_of_rules_as_windows_writes_them(tmp_path: Path) -> None:
    tree(
        tmp_path, {".gitignore": "\ufeffa\r\nb\r\nc\u2028d\r\n", "a": "", "b": "", "c": "", "d": ""}
    )
    assert walk_folder(tmp_path)[0] == ["c", "d"]


def test_what_is_no_rule_names_nothing(tmp_path: Path) -> None:
    tree(tmp_path, {".gitignore": "[z-a]\na\\\n[[x]\n!\n*.log\n", "a": "", "z": "", "b.log": ""})
    assert walk_folder(tmp_path)[0] == ["a", "z"]


def test_the_rules_of_a_repository_end_with_it(tmp_path: Path) -> None:
    tree(tmp_path, {".gitignore": "a\n", "repo/.git/HEAD": "", "repo/sub/a": "", "repo/a": ""})
    assert walk_folder(tmp_path / "repo" / "sub")[0] == ["a"]
    assert walk_folder(tmp_path / "repo")[0] == ["a", "sub/a"]


def test_other_files_of_rules_beat_those_of_git(tmp_path: Path) -> None:
    rules = {".gitignore": "a\nb\n", ".ignore": "!a\nc\nd\n", ".rgignore": "!d\n"}
    files = ["a", "b", "c", "d", "sub/a", "sub/c"]
    tree(tmp_path, {**dict.fromkeys(files, ""), **rules, "sub/.gitignore": "!c\na\n"})
    assert walk_folder(tmp_path) == (["a", "d", "sub/a"], {"hidden": 4, "ignored": 3})


def test_the_rules_above_count_outside_of_a_repository_too(tmp_path: Path) -> None:
    rules = {".gitignore": "a\n", ".ignore": "/sub/b\n", ".rgignore": "c\n"}
    tree(tmp_path, {**rules, "sub/a": "", "sub/b": "", "sub/c": "", "sub/sub/b": ""})
    assert walk_folder(tmp_path / "sub")[0] == ["a", "sub/b"]
    (tmp_path / ".git").mkdir()
    assert walk_folder(tmp_path / "sub")[0] == ["sub/b"]


@needs_git
@pytest.mark.parametrize("place", [".gitconfig", ".config/git/config", None])
def test_the_rules_for_all_repositories_count_in_each(
    git_home: Path, tmp_path: Path, place: str | None
) -> None:
    setting = "[user]\n\tname = a\n[core]\n\texcludesFile = ~/rules\n"
    files = {".config/git/ignore": "x\n"} if place is None else {place: setting, "rules": "x\n"}
    tree(git_home, files)
    repository(tmp_path, {"x": "", "y": "", "sub/x": "", "sub/.gitignore": "!x\n"})
    assert walk_folder(tmp_path)[0] == sorted(list_git_files(tmp_path)) == ["sub/x", "y"]
    shutil.rmtree(tmp_path / ".git")
    assert walk_folder(tmp_path)[0] == ["sub/x", "x", "y"]


@pytest.mark.skipif(sys.platform == "win32", reason="there are no such files")
def test_what_is_no_file_has_no_rules(tmp_path: Path) -> None:
    tree(tmp_path, {"a": "", "b/c": ""})
    os.mkfifo(tmp_path / ".gitignore")
    (tmp_path / ".ignore").symlink_to("/dev/zero")
    (tmp_path / "b" / ".rgignore").mkdir()
    assert walk_folder(tmp_path)[0] == ["a", "b/c"]


@pytest.mark.parametrize("rule", ["*a" * 60 + "b", "**/a/" * 30 + "b", "?*" * 60 + "b"])
def test_no_rule_takes_long(tmp_path: Path, rule: str) -> None:
    tree(tmp_path, {".gitignore": f"{rule}\n", "a/" * 60 + "a" * 200: ""})
    start = time.monotonic()
    assert len(walk_folder(tmp_path)[0]) == 1
    assert time.monotonic() - start < 5


@pytest.mark.skipif(sys.platform == "win32", reason="there are no such files")
def test_files_of_rules_are_read_with_a_bound(tmp_path: Path, git_home: Path) -> None:
    tree(tmp_path, {".git/HEAD": "", "a": "", "b/c": ""})
    os.mkfifo(git_home / ".gitconfig")
    (tmp_path / ".git" / "info").mkdir()
    os.mkfifo(tmp_path / ".git" / "info" / "exclude")
    with open(tmp_path / ".gitignore", "wb") as file:  # a sparse file
        file.truncate(1 << 40)
    (tmp_path / "b" / ".ignore").write_text("".join(f"*{number}x\n" for number in range(3000)))
    problems: list[OSError] = []
    paths = list(walk(str(tmp_path), Counter(), problems.append))
    assert paths == [str(tmp_path / "a"), str(tmp_path / "b" / "c")]
    assert [str(read_error(str(error.filename), error)) for error in problems] == [
        f"{tmp_path / '.gitignore'}: larger than 262,144 bytes"
    ]


def test_the_patterns_of_all_files_of_rules_have_a_bound(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "_MAX_WILDCARD_CHARACTERS", 1000)
    for number in range(6):
        rule = "x" * 195 + f"*{number}\n"
        tree(tmp_path, {f"{number}/.gitignore": f"{rule}a\n", f"{number}/a": ""})
    tree(tmp_path, {"7/.gitignore": "a\n", "7/a": ""})  # names are no patterns
    problems: list[OSError] = []
    assert list(walk(str(tmp_path), Counter(), problems.append)) == [str(tmp_path / "5" / "a")]
    assert [error.strerror for error in problems] == [
        "rules with more than 1,000 characters in all"
    ]


@pytest.mark.skipif(sys.platform == "win32", reason="there are no such files")
def test_what_is_no_file_is_left_out_and_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree(tmp_path, {"a": ""})
    os.mkfifo(tmp_path / "pipe")
    monkeypatch.chdir(tmp_path)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket")  # a whole path could be too long for it
    assert walk_folder(tmp_path) == (["a"], {"special files": 2})


def test_a_name_is_no_option_and_no_stream(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tree(tmp_path, {"-": "", "-n": "", "a": "", "b/-n": ""})
    monkeypatch.chdir(tmp_path)
    start = f".{os.sep}"
    expected = [f"{start}-", f"{start}-n", "a", str(Path("b", "-n"))]
    assert list(walk(".", Counter(), fail)) == expected


def test_an_ignored_folder_that_is_named_is_read(tmp_path: Path) -> None:
    tree(tmp_path, {".git/HEAD": "", ".gitignore": "build/\n*.o\n", "build/a": "", "build/b.o": ""})
    assert walk_folder(tmp_path / "build") == (["a"], {"ignored": 1})


def test_the_rules_of_this_folder_do_not_count_in_its_neighbour(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree(tmp_path, {".git/HEAD": "", "here/.gitignore": "*\n", "there/a": ""})
    monkeypatch.chdir(tmp_path / "here")
    assert walk_folder("../there") == (["a"], {})
    assert walk_folder(".") == ([], {"hidden": 1})


def test_a_folder_of_this_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tree(tmp_path, {".git/HEAD": "", "a/b": "", "a/c.log": "", ".gitignore": "*.log\n"})
    monkeypatch.chdir(tmp_path)
    assert list(walk("a", Counter(), fail)) == [str(Path("a", "b"))]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="needs long paths")
def test_folders_as_deep_as_there_can_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    depth = 1500 if sys.platform == "linux" else 300
    monkeypatch.chdir(tmp_path)
    for _ in range(depth):
        Path("a").mkdir()
        os.chdir("a")
    Path("file").touch()
    try:
        monkeypatch.chdir(tmp_path)
        paths = list(walk(".", Counter(), fail))
    finally:  # which pytest could not do
        os.chdir(tmp_path)
        for _ in range(depth):
            os.chdir("a")
        Path("file").unlink()
        for _ in range(depth):
            os.chdir("..")
            Path("a").rmdir()
    assert paths == ["a/" * depth + "file"]


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="needs files that cannot be read")
def test_a_folder_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    tree(tmp_path, {"a/b": "", "c": ""})
    (tmp_path / "a").chmod(0)
    problems: list[OSError] = []
    try:
        assert list(walk(str(tmp_path), Counter(), problems.append)) == [str(tmp_path / "c")]
    finally:
        (tmp_path / "a").chmod(0o700)
    assert [problem.filename for problem in problems] == [str(tmp_path / "a")]


def test_named_paths_come_first_and_folders_are_gone_through(tmp_path: Path) -> None:
    for name in ("b", "folder/y", "folder/x"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("four")
    paths = [str(tmp_path / name) for name in ("b", "folder")]
    sources = find_sources(paths, [paths[0]], recursive=True)
    assert sources.places == [
        SourcePath(paths[0], is_named=True),
        SourcePath(str(Path(paths[1], "x")), is_named=False),
        SourcePath(str(Path(paths[1], "y")), is_named=False),
        SourcePath(paths[0], is_named=False),
    ]
    assert sources.size == 16


def test_what_is_wrong_with_a_named_one_is_an_error_and_with_others_a_problem(
    tmp_path: Path,
) -> None:
    wrong = [str(tmp_path / "missing"), str(tmp_path), "", "a\0b", "x" * 5000]
    for path in wrong:
        with pytest.raises(InputError):
            find_sources([path], [], recursive=False)
    sources = find_sources([], wrong, recursive=False)
    assert sources.places == []
    messages = [str(problem) for problem in sources.problems]
    assert messages[0].endswith("missing: no such file")
    assert messages[1].endswith("is a directory")
    assert messages[2] == "a file's name is empty"
    assert messages[3].startswith("a\0b: ")
    assert len(messages) == 5


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="needs files that cannot be read")
def test_a_file_that_may_not_be_read(tmp_path: Path) -> None:
    (tmp_path / "a").touch(mode=0)
    with pytest.raises(InputError, match="a: Permission denied"):
        find_sources([str(tmp_path / "a")], [], recursive=False)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_the_size_of_a_pipe_is_not_known(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "a").write_text("x")
    assert find_sources([str(tmp_path / "a")], [], recursive=False).size == 1
    both = find_sources([str(tmp_path / "a"), str(tmp_path / "pipe")], [], recursive=False)
    assert (both.size, len(both.places)) == (None, 2)


def test_standard_input_that_is_no_file_has_no_size(monkeypatch: pytest.MonkeyPatch) -> None:
    for stdin in (None, io.TextIOWrapper(io.BytesIO())):
        monkeypatch.setattr(sys, "stdin", stdin)
        sources = find_sources(["-"], [], recursive=False)
        assert (sources.places, sources.size) == ([SourcePath("-", is_named=True)], None)


@pytest.mark.parametrize(
    ("content", "null", "expected"),
    [
        (b"a.txt\nb c.txt\n", False, ["a.txt", "b c.txt"]),
        (b"a.txt\r\n\r\nb.txt", False, ["a.txt", "b.txt"]),
        (b"a\nb\0c\0", True, ["a\nb", "c"]),
        (b"a\xe9\n", False, [os.fsdecode(b"a\xe9")]),
        ("\ufeffa.txt\r\né.txt\r\n".encode("utf-16-le"), False, ["a.txt", "é.txt"]),
        ("\ufeffé.txt\n".encode(), False, ["é.txt"]),
        (b"", False, []),
    ],
)
def test_lists_of_names(
    content: bytes, null: bool, expected: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "list").write_bytes(content)
    assert read_names(str(tmp_path / "list"), null=null) == expected
    give_stdin(monkeypatch, content)
    assert read_names("-", null=null) == expected


def test_lists_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "list").write_bytes(b"a\0b\0")
    with pytest.raises(InputError, match="NUL bytes") as error_info:
        read_names(str(tmp_path / "list"), null=False)
    assert "-0" in str(error_info.value.hint)
    with pytest.raises(InputError, match="none: no such file"):
        read_names(str(tmp_path / "none"), null=False)
    with pytest.raises(InputError):
        read_names(str(tmp_path), null=False)
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(InputError, match="standard input is closed"):
        read_names("-", null=False)


def test_a_list_without_end_is_an_error() -> None:
    for null in (True, False):
        with pytest.raises(InputError, match="/dev/zero: larger than 50 kB"):
            read_names("/dev/zero", null=null, max_bytes=50_000)


def test_of_many_missing_files_only_the_first_are_kept(tmp_path: Path) -> None:
    inputs = inputs_of(listed_paths=[str(tmp_path / f"{number}") for number in range(3000)])
    assert list(inputs) == []
    assert (len(inputs.report.problems), inputs.report.problems.total) == (1000, 3000)


def test_a_list_s_files_that_are_gone_do_not_stop_the_others(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one\n")
    (tmp_path / "b.txt").write_bytes(b"\0\1\2")
    (tmp_path / "c.jsonl").write_text('{"text": "two"}\n{"text": 3\n')
    paths = [str(tmp_path / name) for name in ("gone", "a.txt", "b.txt", "c.jsonl")]
    inputs = inputs_of(listed_paths=paths)
    assert names(list(inputs), tmp_path) == ["a.txt", "c.jsonl"]
    assert inputs.report.skip_counts == {"binary": 1}
    assert inputs.report.binary == []
    assert [str(p).removeprefix(str(tmp_path))[1:] for p in inputs.report.problems] == [
        "gone: no such file",
        "c.jsonl:2: not a JSON record: Expecting ',' delimiter; left out",
    ]


def test_what_is_reported_is_of_the_last_time_through(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"caf\xe9\n")
    (tmp_path / "b.bin").write_bytes(b"\0")
    inputs = inputs_of(tmp_path / "a.txt", tmp_path / "b.bin")
    for _ in range(2):
        assert len(list(inputs)) == 1
        assert inputs.report.undecodable == 1
        assert inputs.report.binary == [str(tmp_path / "b.bin")]
        assert [envelope.encoding for envelope in inputs.report.envelopes] == ["utf-8"]


def test_a_list_may_name_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    give_stdin(monkeypatch, b'{"text": "one"}\n{"text": "two"}\n')
    documents = list(inputs_of(listed_paths=["-"], input_format=InputFormat.JSONL))
    assert [document.text for document in documents] == ["one", "two"]


def test_looking_into_a_file_is_no_reading_of_it(tmp_path: Path) -> None:
    for name in ("a.jsonl", "b.jsonl"):
        (tmp_path / name).write_text('{"text": "one"}\n')
    inputs = inputs_of(tmp_path, recursive=True)
    assert [inputs.share for _ in inputs] == [0.5, 1.0]
