"""The recipes in docs/recipes.md: each is run with the program that it is for."""

import json
import os
import re
import select
import shutil
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.conftest import ROOT, Run
from tests.support.console import blocks

RECIPES = (ROOT / "docs" / "recipes.md").read_text(encoding="utf-8")
SHELL = ["\n".join(block) for block in blocks(RECIPES, "bash")]
SCRIPTS = [block for block in SHELL if block.startswith("#!")]
COMMANDS = [block for block in SHELL if block not in SCRIPTS and not block.startswith("vim ")]
QUESTION = "how fast do we give money back"
TIMEOUT_SECONDS = 120.0
SILENT_SECONDS = 2.0  # after which fzf, which draws while it waits, has nothing more to show

slow = pytest.mark.slow
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs a POSIX shell")


def needs(program: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(shutil.which(program) is None, reason=f"needs {program}")


class Clone:
    """A fresh copy of examples/ in a repository, with `rerank` in the path."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        shutil.copytree(ROOT / "examples", folder / "examples")
        bins = folder / "bin"
        bins.mkdir()
        command = bins / "rerank"
        command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m rerank_cli "$@"\n')
        command.chmod(0o755)
        self.environment: Mapping[str, str] = {
            **os.environ,
            "PATH": f"{bins}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "HOME": str(folder),
            "TERM": "xterm",
            "GIT_CONFIG_NOSYSTEM": "1",
        }
        self.run("git init -q && git add examples")
        commit = "git -c user.name=x -c user.email=x@localhost commit -q -m"
        self.run(f"{commit} 'Load models sooner' && {commit} 'Mend a typo' --allow-empty")

    def run(self, command: str) -> str:
        process = subprocess.run(
            ["/bin/bash", "-o", "pipefail", "-c", command],
            capture_output=True,
            text=True,
            cwd=self.folder,
            env=self.environment,
            timeout=TIMEOUT_SECONDS,
        )
        assert process.returncode == 0, process.stderr
        return process.stdout


@pytest.fixture
def clone(tmp_path: Path) -> Clone:
    return Clone(tmp_path)


@slow
@pytest.mark.parametrize("block", COMMANDS)
def test_commands_find_something(block: str, clone: Clone) -> None:
    for program in ("rg", "git"):
        if re.search(rf"^{program} ", block) and shutil.which(program) is None:
            pytest.skip(f"needs {program}")
    outcome = clone.run(block)
    assert outcome
    if "git ask" in block:
        assert "==> examples/shop/retry.py <==" in outcome
    if "git log" in block:
        assert "Load models sooner" in outcome.splitlines()[0]


@slow
@needs("vim")
def test_vim_opens_the_best_place(clone: Clone) -> None:
    (command,) = (block for block in SHELL if block.startswith("vim "))
    path, line, _ = clone.run(f'rerank "{QUESTION}" -r examples/notes -f grep -n 1').split(":", 2)
    say = """-es -N -u NONE -c 'call writefile([expand("%"), line("."), len(getqflist())], "at")'"""
    clone.run(f"{command.replace('vim', f'vim {say}', 1)} -c qa!")
    assert (clone.folder / "at").read_text().splitlines() == [path, line, "12"]


@slow
@needs("vim")
def test_vim_greps_by_meaning(clone: Clone) -> None:
    ((setting,),) = blocks(RECIPES, "vim")
    (clone.folder / "vimrc").write_text(setting + "\n")
    (grep,) = re.findall(r"`:(grep [^`]*)`", RECIPES)
    assert QUESTION in grep
    say = """-c 'call writefile([expand("%"), line(".")], "at")' -c qa!"""
    clone.run(f"vim -es -N -u vimrc -c 'silent {grep}' {say}")
    path, line, _ = clone.run(f'rerank "{QUESTION}" -r examples/notes -f grep -n 1').split(":", 2)
    assert (clone.folder / "at").read_text().splitlines() == [path, line]


def test_vs_code_reads_the_lines(rerank: Run) -> None:
    (block,) = blocks(RECIPES, "json")
    (task,) = json.loads("\n".join(block))["tasks"]
    arguments = [word.replace("${input:question}", QUESTION) for word in task["args"]]
    assert task["command"] == "rerank"
    outcome = rerank(*arguments, "examples/notes", "-m", "bm25", "--min-score", "0")
    pattern = task["problemMatcher"]["pattern"]
    matches = [re.search(pattern["regexp"], line) for line in outcome.out.splitlines()]
    assert len(matches) == 12
    for match in matches:
        assert match
        lines = (ROOT / match[pattern["file"]]).read_text(encoding="utf-8").splitlines()
        line = lines[int(match[pattern["line"]]) - 1]
        assert match[pattern["message"]].endswith(line)  # which its headings may be before


@slow
@needs("emacs")
def test_emacs_goes_to_the_best_place(clone: Clone) -> None:
    (command,) = (block for block in SHELL if block.startswith("rerank -n 20 -f grep"))
    (clone.folder / "go.el").write_text(
        f"""(require 'grep)
        (setq is-done nil)
        (add-hook 'compilation-finish-functions (lambda (_ _) (setq is-done t)))
        (grep {json.dumps(command)})
        (while (not is-done) (accept-process-output nil 0.1))
        (next-error)
        (with-current-buffer (window-buffer (selected-window))
          (write-region
            (format "%s:%d" (buffer-file-name) (line-number-at-pos)) nil "{clone.folder}/at"))
        """
    )
    clone.run("emacs --batch -Q -l go.el")
    place = clone.run(command).splitlines()[0]
    assert place.startswith((clone.folder / "at").read_text().removeprefix(f"{clone.folder}/"))


def fzf() -> str | None:
    """The fzf of the system, or the one that the package iterfzf brings."""
    if (program := shutil.which("fzf")) is not None:
        return program
    spec = find_spec("iterfzf")
    places: Sequence[str] = [] if spec is None else list(spec.submodule_search_locations or ())
    return next((f"{place}/fzf" for place in places if Path(place, "fzf").exists()), None)


class Screen:
    """A program on a terminal of its own."""

    def __init__(self, command: Sequence[str], clone: Clone, folder: Path) -> None:
        import fcntl  # which Windows does not have
        import termios

        master, slave = os.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 100, 0, 0))
        self._descriptor = master
        self._process = subprocess.Popen(
            command,
            stdin=slave,
            stdout=slave,
            stderr=slave,
            cwd=folder,
            env={**clone.environment, "EDITOR": "note"},
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )
        os.close(slave)

    def press(self, keys: str) -> None:
        os.write(self._descriptor, keys.encode())

    def wait_until_silent(self, *texts: str) -> str:
        """Read until some texts have been drawn, and nothing is drawn any more."""
        screen_output, end = b"", time.monotonic() + TIMEOUT_SECONDS
        while time.monotonic() < end:
            ready, _, _ = select.select([self._descriptor], [], [], SILENT_SECONDS)
            if ready:
                try:
                    screen_output += os.read(self._descriptor, 1 << 16)
                except OSError:  # the program has ended
                    break
            elif all(text.encode() in screen_output for text in texts):
                break
        return screen_output.decode(errors="replace")

    def close(self) -> None:
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        os.close(self._descriptor)


@pytest.fixture
def script(clone: Clone, request: pytest.FixtureRequest) -> Iterator[Screen]:
    """The script of the recipe, in the folder of the notes."""
    program = fzf()
    if program is None:
        pytest.skip("needs fzf, which [dev-all] installs")
    bins = clone.folder / "bin"
    (bins / "fzf").symlink_to(program)
    (bins / "ask").write_text(request.param)
    (bins / "note").write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" > {clone.folder}/opened\n')
    for name in ("ask", "note"):
        (bins / name).chmod(0o755)
    screen = Screen([str(bins / "ask")], clone, clone.folder / "examples" / "notes")
    try:
        yield screen
    finally:
        screen.close()


@slow
@pytest.mark.parametrize("script", SCRIPTS, indirect=True, ids=["by meaning", "in two steps"])
def test_fzf_searches_while_one_types(script: Screen, clone: Clone) -> None:
    script.wait_until_silent(">")
    script.press(QUESTION)
    script.wait_until_silent("cashbook.md")
    is_asked = "ctrl-r" in (clone.folder / "bin" / "ask").read_text()
    script.press("\x12" if is_asked else "")
    script.wait_until_silent()
    script.press("\r")
    script.wait_until_silent()
    place = clone.run(f'cd examples/notes && rerank "{QUESTION}" -r -f grep -n 1')
    path, line, _ = place.split(":", 2)
    assert (clone.folder / "opened").read_text().splitlines() == [f"+{line}", path]


def test_every_block_is_a_recipe_of_a_known_kind() -> None:
    languages = set(re.findall(r"^```(\w+)$", RECIPES, re.MULTILINE))
    assert languages == {"console", "bash", "vim", "json"}
    assert (len(SCRIPTS), len(COMMANDS)) == (2, 5)
