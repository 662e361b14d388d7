"""Make evaluation sets of the packages that are held out: `docs` and `code`, in BEIR's layout.

    python scripts/train/make_eval_sets.py WORK FOLDER

WORK is where collect.py wrote its pairs. In `docs` a heading asks for the text below it, or a
manual's line for what its option does; in `code` the first sentence of a docstring asks for its
function, without the docstring. All passages of the held-out packages are the corpus.
"""

import argparse
import gzip
import json
import random
from collections.abc import Mapping, Sequence
from pathlib import Path

from collect import packages_of

QUERIES = 200
SETS = {"docs": ("section", "option"), "code": ("function",)}
SHORTEST_QUERY_WORDS = 2
Row = Mapping[str, str]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("work", type=Path)
    parser.add_argument("folder", type=Path, help="of BEIR folders, is made")
    arguments = parser.parse_args()
    held_out = {
        name for registry in ("debian", "pypi") for name in packages_of(registry, held_out=True)
    }
    with gzip.open(arguments.work / "pairs.jsonl.gz", "rt", encoding="utf-8") as lines:
        rows = [row for row in map(json.loads, lines) if row["package"] in held_out]
    for name, kinds in SETS.items():
        own = [row for row in rows if row["kind"] in kinds]
        write(arguments.folder / name, own)
        print(f"{name}: {len(own):,} pairs")


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
    chosen = draw_evenly(packages, QUERIES)
    (folder / "qrels").mkdir(parents=True, exist_ok=True)
    with gzip.open(folder / "corpus.jsonl.gz", "wt", encoding="utf-8") as out:
        for (title, text), place in passages.items():
            out.write(json.dumps({"_id": place, "title": title, "text": text}) + "\n")
    with gzip.open(folder / "queries.jsonl.gz", "wt", encoding="utf-8") as out:
        for number, query in enumerate(chosen):
            out.write(json.dumps({"_id": f"q{number}", "text": query}) + "\n")
    lines = ["query-id\tcorpus-id\tscore"]
    for number, query in enumerate(chosen):
        lines += [f"q{number}\t{place}\t1" for place in sorted(relevant[query])]
    (folder / "qrels" / "test.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")


def draw_evenly(packages: Mapping[str, Sequence[str]], count: int) -> list[str]:
    """Queries of all packages in turn, none twice."""
    draw = random.Random(0)
    waiting = [list(dict.fromkeys(queries)) for _, queries in sorted(packages.items())]
    for queries in waiting:
        draw.shuffle(queries)
    chosen: dict[str, None] = {}
    while len(chosen) < count and any(waiting):
        for queries in waiting:
            if queries and len(chosen) < count:
                chosen[queries.pop()] = None
    return list(chosen)


if __name__ == "__main__":
    main()
