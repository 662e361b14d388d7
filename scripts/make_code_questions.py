"""Makes questions about code, for scripts/bench_code.py.

    python scripts/make_code_questions.py packages DATA        # those of code_questions.toml
    python scripts/make_code_questions.py docstrings DATA -n 100
    python scripts/make_code_questions.py comments DATA FOLDER… -n 20

Writes annotations/ and trees/ of DATA as bench_code.py reads them. `packages` are installed Python
packages. `docstrings` asks for functions of the standard library by the first sentence of their
docstrings. `comments` asks for functions and classes of any language by the first sentence of the
comment before them, of each folder so many. What is asked is cut out of the tree, so that nothing
but the code answers. Questions that name the function are left out.
"""

import argparse
import ast
import json
import os
import random
import re
import shutil
import tomllib
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from rerank_cli.structure import Block, BlockKind, find_blocks, is_code, syntax_of

QUESTIONS = Path(__file__).with_name("code_questions.toml")
EXCLUDED_PACKAGES = {
    "site-packages", "test", "tests", "idlelib", "lib2to3", "encodings", "ensurepip", "pydoc_data",
    "turtledemo", "__pycache__", "lib-dynload", "config-*",
}  # fmt: skip
QUESTION_WORDS = (5, 15)
LEAST_STATEMENTS = 4  # of a function, its docstring among them
SENTENCE_END = re.compile(r"\.(?:\s|\Z)")
COMMENT_MARK = re.compile(r"^\s*(?:/\*+!?|//[/!]?|\*+/?|--+[ |^]*|#+|;+|%+|@\w.*|\[.*)|\*/\s*$")
TAG = re.compile(r"</?\w[^<>]*>|`")
NO_SENTENCE = re.compile(
    r"[{}@=;|\\]|--|://|\b(?:TODO|FIXME)\b|licen[sc]e|copyright", re.IGNORECASE
)
TEST_PATH = re.compile(r"test|spec|example|sample|bench|vendor", re.IGNORECASE)

FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


class Question(NamedTuple):
    """A function, what its docstring begins with, and the lines of that."""

    name: str
    query: str
    first_line: int
    last_line: int


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("kind", choices=["packages", "docstrings", "comments"])
    parser.add_argument("data", type=Path)
    parser.add_argument("folders", type=Path, nargs="*", help="source trees, for comments")
    parser.add_argument("-n", type=int, default=100, help="how many questions, of each folder")
    options = parser.parse_args()
    for folder in ("annotations", "trees"):
        (options.data / folder).mkdir(parents=True, exist_ok=True)
    if options.kind == "packages":
        make_packages(options.data)
    elif options.kind == "docstrings":
        make_docstrings(options.data, options.n)
    for folder in options.folders:
        make_comments(options.data, folder, options.n)


def make_packages(data: Path) -> None:
    """Copy the packages that code_questions.toml asks of."""
    for package, answers in tomllib.loads(QUESTIONS.read_text("utf-8")).items():
        spec = find_spec(package)
        if spec is None or spec.origin is None:
            raise SystemExit(f"{package} is not installed")
        tree = data / "trees" / package
        shutil.copytree(
            Path(spec.origin).parent, tree / package,
            ignore=shutil.ignore_patterns("__pycache__", "*.so", "tests"), dirs_exist_ok=True,
        )  # fmt: skip
        missing_packages = [
            path for paths in answers.values() for path in paths if not (tree / path).exists()
        ]
        if missing_packages:
            raise SystemExit(f"{package} has no {', '.join(missing_packages)}")
        write_questions(
            data, package, [_annotation(query, paths, package) for query, paths in answers.items()]
        )


def make_docstrings(data: Path, count: int) -> None:
    """Copy the standard library without the docstrings that are asked for, one of a file."""
    library, tree = Path(os.__file__).parent, data / "trees" / "stdlib"
    shutil.copytree(
        library, tree, ignore=shutil.ignore_patterns(*EXCLUDED_PACKAGES), dirs_exist_ok=True
    )
    draw = random.Random(0)
    paths = sorted(tree.rglob("*.py"))
    draw.shuffle(paths)
    annotations = list[dict[str, object]]()
    for path in paths:
        questions = list(find_questions(path.read_text("utf-8", "replace")))
        if questions and len(annotations) < count:
            question = draw.choice(questions)
            place = str(path.relative_to(tree))
            annotations.append(
                _annotation(question.query, [_cut(path, place, question)], "docstring")
            )
    write_questions(data, "stdlib", annotations)


def find_questions(text: str) -> Iterator[Question]:
    """The functions of a file that may be asked for by their docstrings."""
    for function in ast.walk(ast.parse(text)):
        if not isinstance(function, FUNCTIONS) or len(function.body) < LEAST_STATEMENTS:
            continue
        query = " ".join(SENTENCE_END.split(ast.get_docstring(function) or "")[0].split())
        is_short = QUESTION_WORDS[0] <= len(query.split()) <= QUESTION_WORDS[1]
        if is_short and function.name.strip("_").lower() not in query.lower():
            own = function.body[0]
            yield Question(function.name, query, own.lineno, own.end_lineno or own.lineno)


def make_comments(data: Path, folder: Path, count: int) -> None:
    """Copy a source tree without the comments that are asked for, one of a file; no tests."""
    tree = data / "trees" / folder.name
    shutil.copytree(folder, tree, symlinks=True, dirs_exist_ok=True)
    paths = sorted(path for path in tree.rglob("*") if path.is_file() and not path.is_symlink())
    paths = [path for path in paths if not TEST_PATH.search(str(path.relative_to(tree)))]
    draw = random.Random(0)
    draw.shuffle(paths)
    annotations = list[dict[str, object]]()
    for path in paths:
        if len(annotations) == count or not is_code(syntax := syntax_of(path.name)):
            continue
        text = path.read_text("utf-8", "replace")
        if questions := list(find_comments(text, syntax)):
            query, block = draw.choice(questions)
            path.write_text(text[: block.start] + text[block.start + block.lead :], "utf-8")
            first_line = text.count("\n", 0, block.start) + 1
            last_line = first_line + text.count("\n", block.start + block.lead, block.end)
            place = str(path.relative_to(tree))
            relevant = {"path": place, "start_line": first_line, "end_line": last_line}
            annotations.append(_annotation(query, [relevant], "comment"))
    write_questions(data, folder.name, annotations)


def find_comments(text: str, syntax: str) -> Iterator[tuple[str, Block]]:
    """The first sentences of comments before functions and classes, with these."""
    for block in find_blocks(text, syntax):
        lines = text[block.start : block.start + block.lead].splitlines()
        comment = "\n".join(COMMENT_MARK.sub("", line).strip() for line in lines)
        paragraph = comment.strip().partition("\n\n")[0]
        query = " ".join(SENTENCE_END.split(TAG.sub("", paragraph))[0].split())
        is_short = QUESTION_WORDS[0] <= len(query.split()) <= QUESTION_WORDS[1]
        name = block.name.split()[-1].strip("_").lower() if block.name else ""
        is_named = name != "" and name in query.lower().replace(" ", "")
        is_sentence = is_short and not NO_SENTENCE.search(query)
        if block.kind <= BlockKind.FUNCTION and is_sentence and not is_named:
            yield query, block


def _cut(path: Path, place: str, question: Question) -> dict[str, object]:
    """Cut a docstring out of a file, and return where its function is then."""
    lines = path.read_text("utf-8", "replace").splitlines(keepends=True)
    del lines[question.first_line - 1 : question.last_line]
    text = "".join(lines)
    path.write_text(text, "utf-8")
    function = next(
        node
        for node in ast.walk(ast.parse(text))
        if isinstance(node, FUNCTIONS)
        and node.lineno < question.first_line <= (node.end_lineno or 0)
        and node.name == question.name
    )
    return {"path": place, "start_line": function.lineno, "end_line": function.end_lineno}


def _annotation(query: str, relevant: Sequence[object], kind: str) -> dict[str, object]:
    return {"query": query, "relevant": relevant, "category": kind}


def write_questions(data: Path, name: str, annotations: list[dict[str, object]]) -> None:
    path = data / "annotations" / f"{name}.json"
    path.write_text(json.dumps(annotations, indent=1) + "\n", "utf-8")
    print(f"{name}: {len(annotations)} questions")


if __name__ == "__main__":
    main()
