"""Make evaluation sets of the packages that are held out, in BEIR's layout.

    python scripts/train/make_eval_sets.py WORK FOLDER

WORK is the folder with the pairs of collect.py. In `docs` (English), `docs-de` and the like the
query is a heading, for the text below it, or a manual's line on the effect of an option. In `code`
the query is the first sentence of a docstring, for its function without the docstring. The corpus
has all passages of the held-out packages in a language. Packages are translated in part: texts in
Latin script are left out if the language has another script.
"""

import argparse
import gzip
import json
import random
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from collect import ENGLISH, packages_of

QUERIES = 200
SETS = {"docs": ("section", "option"), "code": ("function",)}
LANGUAGES = ("ar", "de", "es", "fr", "hi", "ru")
SCRIPTS = {"ar": "\u0600-\u06ff", "hi": "\u0900-\u097f", "ru": "\u0400-\u04ff"}
SHORTEST_QUERY_WORDS = 2
Row = Mapping[str, str]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("work", type=Path)
    parser.add_argument("folder", type=Path, help="of BEIR folders, is made")
    arguments = parser.parse_args()
    held_out_packages = {
        name for registry in ("debian", "pypi") for name in packages_of(registry, is_held_out=True)
    }
    with gzip.open(arguments.work / "pairs.jsonl.gz", "rt", encoding="utf-8") as lines:
        rows = [row for row in map(json.loads, lines) if row["package"] in held_out_packages]
    sets = {
        name: [row for row in rows if row["kind"] in kinds and row["language"] == ENGLISH]
        for name, kinds in SETS.items()
    }
    for language in LANGUAGES:
        sets[f"docs-{language}"] = [
            row
            for row in rows
            if row["kind"] in SETS["docs"] and row["language"] == language and is_translated(row)
        ]
    for name, set_rows in sets.items():
        write(arguments.folder / name, set_rows)
        print(f"{name}: {len(set_rows):,} pairs")


def is_translated(row: Row) -> bool:
    """Whether most letters of both texts are of the language's script."""
    script = SCRIPTS.get(row["language"])
    return script is None or all(
        2 * len(re.findall(f"[{script}]", text)) > len(re.findall(r"[^\W\d_]", text))
        for text in (row["query"], row["passage"])
    )


def write(folder: Path, rows: Sequence[Row]) -> None:
    passages: dict[tuple[str, str], str] = {}
    relevant: dict[str, set[str]] = {}
    packages: dict[str, list[str]] = {}
    for row in rows:
        key = row["title"], row["passage"]
        place = passages.setdefault(key, f"d{len(passages)}")
        query = row["query"]
        relevant.setdefault(query, set()).add(place)
        if len(query.split()) >= SHORTEST_QUERY_WORDS:
            packages.setdefault(row["package"], []).append(query)
    choices = draw_evenly(packages, QUERIES)
    (folder / "qrels").mkdir(parents=True, exist_ok=True)
    with gzip.open(folder / "corpus.jsonl.gz", "wt", encoding="utf-8") as out:
        for (title, text), place in passages.items():
            out.write(json.dumps({"_id": place, "title": title, "text": text}) + "\n")
    with gzip.open(folder / "queries.jsonl.gz", "wt", encoding="utf-8") as out:
        for number, query in enumerate(choices):
            out.write(json.dumps({"_id": f"q{number}", "text": query}) + "\n")
    lines = ["query-id\tcorpus-id\tscore"]
    for number, query in enumerate(choices):
        lines += [f"q{number}\t{place}\t1" for place in sorted(relevant[query])]
    (folder / "qrels" / "test.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")


def draw_evenly(packages: Mapping[str, Sequence[str]], count: int) -> list[str]:
    """Queries of all packages in turn, none twice."""
    draw = random.Random(0)
    queues = [list(dict.fromkeys(queries)) for _, queries in sorted(packages.items())]
    for queries in queues:
        draw.shuffle(queries)
    choices: dict[str, None] = {}
    while len(choices) < count and any(queues):
        for queries in queues:
            if queries and len(choices) < count:
                choices[queries.pop()] = None
    return list(choices)


if __name__ == "__main__":
    main()
