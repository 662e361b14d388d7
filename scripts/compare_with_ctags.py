"""Compare the definitions that are found in source trees with those of universal-ctags.

    python scripts/compare_with_ctags.py FOLDER… [--examples 5]

Needs the program `ctags` of universal-ctags. Each name that it finds is asked for as a query that
is only this name. For each suffix and kind of tag the table has the number of tags, and the share
whose line is among the definitions. A member is a tag within a class or a namespace.

Local variables, parameters, imports and calls are no definitions, and are not counted. Some tags
are wrong, and some are local: so a share below 1 may be right. --examples prints tags that are not
found.
"""

import argparse
import json
import random
import re
import subprocess
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from rerank_cli import Document
from rerank_cli.inputs.documents import Inputs
from rerank_cli.ranking.definitions import DefinitionSearch, Symbol
from rerank_cli.ranking.places import is_program

# Kinds of tags that define nothing, or nothing that a query would name.
OTHER_KINDS = {
    *("alias", "anchor", "anonMember", "file", "genericParam", "getter", "goto", "header"),
    *("heredoc", "id", "import", "label", "local", "namespace", "package", "packageName"),
    *("parameter", "prototype", "receiver", "selector", "unknown"),
}
NAME = re.compile(r"[A-Za-z_]\w{2,}")
LEAST_VALUE = 0.75  # of a member
SYMBOLS = 150  # that one search looks for
LEAST_TAGS = 20  # of a row


class Tag(NamedTuple):
    """A definition that ctags finds; `line` counts from 1."""

    name: str
    line: int
    kind: str
    is_member: bool


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folders", type=Path, nargs="+", metavar="FOLDER")
    parser.add_argument("--examples", type=int, default=0, help="of tags that are not found")
    arguments = parser.parse_args()
    counts: dict[tuple[str, str], list[bool]] = defaultdict(list)
    missing: dict[tuple[str, str], list[str]] = defaultdict(list)
    for folder in arguments.folders:
        tags_by_path = read_tags(folder)
        for document in read_programs(folder):
            lines, path = document.text.splitlines(), Path(document.source or "")
            definition_lines = find_lines(document, tags_by_path[str(path)])
            for tag in tags_by_path[str(path)]:
                key = (path.suffix, f"{tag.kind}{' (member)' * tag.is_member}")
                counts[key].append(tag.line in definition_lines)
                if tag.line not in definition_lines and tag.line <= len(lines):
                    missing[key].append(f"{path}:{tag.line}: {lines[tag.line - 1].strip()[:80]}")
    print("| suffix | kind | tags | found |\n|---|---|---|---|")
    for (suffix, kind), hits in sorted(counts.items()):
        if len(hits) >= LEAST_TAGS:
            print(f"| {suffix or 'none'} | {kind} | {len(hits)} | {sum(hits) / len(hits):.3f} |")
    for key, examples in sorted(missing.items()) if arguments.examples else ():
        print("\n" + " ".join(key))
        sample = random.Random(0).sample(examples, min(arguments.examples, len(examples)))
        print("\n".join(f"    {example}" for example in sample))


def read_tags(folder: Path) -> dict[str, list[Tag]]:
    """The definitions that ctags finds in a folder, by the paths of the files."""
    command = ["ctags", "-R", "--output-format=json", "--fields=+KnSs", "-f", "-", str(folder)]
    output = subprocess.run(command, capture_output=True, check=True).stdout
    tags: dict[str, list[Tag]] = defaultdict(list)
    for line in output.decode("utf-8", "replace").splitlines():
        entry = json.loads(line)
        kind = entry.get("kind", "unknown")
        if entry["_type"] != "tag" or kind in OTHER_KINDS or not NAME.fullmatch(entry["name"]):
            continue
        if not entry["name"].startswith("__anon"):
            tag = Tag(entry["name"], entry.get("line", 0), kind, "scope" in entry)
            tags[entry["path"]].append(tag)
    return tags


def read_programs(folder: Path) -> Iterator[Document]:
    """The files of code in a folder."""
    inputs = Inputs(paths=[str(folder)], recursive=True)
    inputs.check()
    return (document for document in inputs if document.whole and is_program(document))


def find_lines(document: Document, tags: Sequence[Tag]) -> frozenset[int]:
    """The lines of a document where the names of some tags are defined."""
    names = sorted({tag.name for tag in tags})
    groups = (names[start : start + SYMBOLS] for start in range(0, len(names), SYMBOLS))
    return frozenset(
        document.text.count("\n", 0, definition.place) + 1
        for group in groups
        for definition in DefinitionSearch([*map(Symbol, group)], members=True).find(document)
        if definition.value >= LEAST_VALUE
    )


if __name__ == "__main__":
    main()
