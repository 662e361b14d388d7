"""Measure how well the passages of several ways to cut documents answer queries.

    python scripts/bench_passages.py --prepare DOCS
    python scripts/bench_passages.py ../shared/data/eval --docs DOCS [--parts a,b] [--cache FILE]

All systems score with the same model, and beside the query their chunks have the same room:

    whole@512                the first tokens of a text, as many as fit in 512 with the query
    today                    windows that know no structure
    semantic-text-splitter   its splitter for Markdown or text
    langchain, langchain-0   RecursiveCharacterTextSplitter for the language, overlap 48 and 0
    rerank, rerank+heading   windows by the structure; and scored with their headings before them

Parts, each with a query that has its answer in one place:

    a  a question on an article of SQuAD, or on several of NQ, of 5 to 40 paragraphs, with headings.
       Right is a passage that holds an answer; or, without `--answers`, that holds more than half
       of the paragraph that answers, or lies in it by more than half
    b  a heading of a package's documentation on all sections of its document, in which `Section`
       stands for it. Right is a passage that lies in its section by more than half. The headings
       have two words or more and occur nowhere else in the text; sections have 40 words
    c  the first sentence of a function's docstring on its module of the standard library, without
       any docstrings. Right is a passage that lies in the function by more than half

hit@1 says how often the best passage is right, hit@3 how often one of the best three is. Intervals
are of 95 %, differences are of pairs (see `rerank_cli.evaluation.statistics`). Seeds are fixed.
`--cache` keeps the scores, so that another run scores only texts that are new.
"""

import argparse
import ast
import gzip
import json
import random
import re
import sqlite3
import subprocess
import sys
import sysconfig
import tarfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache, partial
from hashlib import blake2b
from math import fsum
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal, NamedTuple

from markdown_it import MarkdownIt

from rerank_cli.evaluation.datasets import Collection, find_parts, read_folder
from rerank_cli.evaluation.statistics import difference
from rerank_cli.ranking.reranker import Reranker
from rerank_cli.structure import syntax_of
from rerank_cli.types import Chunk, Document, Pair

Span = tuple[int, int]

WHOLE_TOKENS = 512
LANGCHAIN_OVERLAP = 48
SYSTEMS = (
    "whole@512",
    "today",
    "semantic-text-splitter",
    "langchain",
    "langchain-0",
    "rerank",
    "rerank+heading",
)
OTHERS = ("today", "semantic-text-splitter", "langchain", "langchain-0")
SCORED_AT_ONCE = 1024
ARTICLE_PARAGRAPHS = (5, 40)
MIN_SECTIONS, MIN_SECTION_WORDS = 8, 40
MAX_DOCUMENT_CHARACTERS = 25_000  # of documentation and modules, so that a run takes minutes
MIN_FUNCTIONS = 10
QUERIES_A_DOCUMENT = 3

# Documentation under free licences: packages of Debian, and source distributions of PyPI.
DEBIAN = {
    "apache2-doc": "Apache-2.0",
    "bind9-doc": "MPL-2.0",
    "borgbackup-doc": "BSD-3-Clause",
    "git-doc": "GPL-2.0",
    "nodejs-doc": "MIT",
    "ntpsec-doc": "NTP, BSD-2-Clause",
    "nut-doc": "GPL-2.0-or-later",
    "postgresql-doc-15": "PostgreSQL",
    "python3.11-doc": "PSF-2.0",
    "sqlite3-doc": "public domain",
}
PYPI = {
    "aiohttp": "Apache-2.0",
    "attrs": "MIT",
    "celery": "BSD-3-Clause",
    "click": "BSD-3-Clause",
    "flask": "BSD-3-Clause",
    "jinja2": "BSD-3-Clause",
    "marshmallow": "MIT",
    "mkdocs": "BSD-2-Clause",
    "pytest": "MIT",
    "scrapy": "BSD-3-Clause",
    "sqlalchemy": "MIT",
    "starlette": "BSD-3-Clause",
    "trio": "MIT or Apache-2.0",
    "werkzeug": "BSD-3-Clause",
}
DOCUMENTATION = re.compile(r"(^|/)docs?(umentation)?/.*\.(md|rst|html|txt)(\.gz)?$")
# Headings that say nothing of what is below them by themselves.
STOP_WORDS = frozenset(
    re.findall(r"\w+", "and are can does for from how its not the this use using was what with")
)


class Case(NamedTuple):
    """A query on a document, and the spans of characters that answer it.

    group  queries with the same one are on the same document
    rule   whether a right passage holds a span, lies in one by more than half, or one of these
           by more than half
    """

    group: str
    query: str
    document: Document
    spans: Sequence[Span]
    rule: Literal["holds", "lies in", "overlaps"] = "lies in"

    @property
    def kind(self) -> str:
        """What kind of document it is on."""
        return self.group.partition(":")[0]

    def is_right(self, start: int, end: int) -> bool:
        if self.rule == "holds":
            return any(start <= a and b <= end for a, b in self.spans)
        for a, b in self.spans:
            size = min(end - start, b - a) if self.rule == "overlaps" else end - start
            if 2 * (min(end, b) - max(start, a)) > size:
                return True
        return False


class Outcome(NamedTuple):
    """What a system made of a case: whether its best passages are right, and how many it has."""

    first: bool
    first_three: bool
    chunks: int


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, nargs="?", help="sets in BEIR's layout")
    parser.add_argument("--prepare", type=Path, metavar="DOCS", help="download documentation")
    parser.add_argument("--docs", type=Path, help="what --prepare has made")
    parser.add_argument("--answers", type=Path, help="SET.jsonl with spans of a and their passages")
    parser.add_argument("-m", "--model", help="default: the model that ships")
    parser.add_argument("--parts", default="a,b,c")
    parser.add_argument("--systems", default=",".join(SYSTEMS))
    parser.add_argument("--queries", type=int, default=120, help="of each part")
    parser.add_argument("--cache", type=Path, help="a file that keeps scores")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--errors", type=int, default=0, help="print so many wrong passages")
    arguments = parser.parse_args()
    if arguments.prepare:
        prepare(arguments.prepare)
        return

    makers: Mapping[str, Callable[[], Iterator[Case]]] = {
        "a": partial(article_cases, arguments.folder, arguments.answers, arguments.seed),
        "b": partial(documentation_cases, arguments.docs, arguments.seed),
        "c": partial(function_cases, arguments.seed),
    }
    systems = arguments.systems.split(",")
    with Reranker(arguments.model) as reranker:
        bench = Bench(reranker, ScoreFile(arguments.cache, reranker.info.model))
        print(f"{reranker.info.model}, seed {arguments.seed}")
        for part in arguments.parts.split(","):
            began = time.monotonic()
            cases = sample(makers[part](), arguments.queries, arguments.seed)
            outcomes = bench.measure(cases, systems)
            seconds = time.monotonic() - began
            documents = len({case.group for case in cases})
            print(f"\n## {part}: {len(cases)} queries, {documents} documents, {seconds:.0f} s\n")
            print_table(cases, outcomes)
            if arguments.errors:
                bench.print_errors(cases, systems[-1], arguments.errors)


def sample(cases: Iterable[Case], count: int, seed: int) -> list[Case]:
    """A sample of cases, as evenly from all kinds of documents as there are enough of them."""
    by_kind: dict[str, list[Case]] = {}
    for case in cases:
        by_kind.setdefault(case.kind, []).append(case)
    draw = random.Random(seed)
    for own in by_kind.values():
        draw.shuffle(own)
    chosen: list[Case] = []
    while len(chosen) < count and any(by_kind.values()):
        chosen += [own.pop() for own in by_kind.values() if own]
    return sorted(chosen[:count], key=lambda case: (case.group, case.query))


# Systems: how each cuts a document


class Cutter:
    """Cuts documents as each system does, each document once for each room."""

    def __init__(self, reranker: Reranker) -> None:
        self._reranker = reranker
        tokenizer = reranker.info.tokenizer
        assert tokenizer is not None
        self._tokenizer = tokenizer
        self._count = cache(tokenizer.count)
        self.cut = cache(self._cut)

    def _cut(self, system: str, query: str, text: str, path: str, blocks: Any) -> Sequence[Chunk]:
        plan = self._reranker.plan(query)
        room = plan.room or WHOLE_TOKENS
        document = Document(text, source=path, syntax=syntax_of(path), blocks=blocks)
        match system:
            case "whole@512":
                info = self._reranker.info
                room = WHOLE_TOKENS - info.specials - self._count(query)
                spans = self._tokenizer.encode(text).spans[:room]
                return [self._chunk(document, 0, spans[-1][1])]
            case "today":
                return plan.split(replace(document, syntax="", blocks=())).chunks
            case "rerank":
                return plan.split(document).chunks
            case "rerank+heading":
                chunks = plan.split(document).chunks
                return [replace(chunk, title=" › ".join(chunk.headings)) for chunk in chunks]
            case "semantic-text-splitter":
                parts = self._semantic(document, room)
            case _:
                overlap = 0 if system.endswith("-0") else LANGCHAIN_OVERLAP
                parts = self._langchain(document, room, overlap)
        return [self._chunk(document, *part) for part in parts]

    def _chunk(self, document: Document, start: int, end: int) -> Chunk:
        return Chunk(document, start, end, document.text[start:end], 0)

    def _semantic(self, document: Document, room: int) -> Iterator[Span]:
        from semantic_text_splitter import CodeSplitter, MarkdownSplitter, TextSplitter

        model = Path(__file__).parent.parent / "models" / self._reranker.info.name
        vocabulary = (model / "tokenizer.json").read_text(encoding="utf-8")
        kind: Any = TextSplitter
        extra: tuple[Any, ...] = ()
        path = str(document.source)
        if path.endswith(".md"):
            kind = MarkdownSplitter
        elif path.endswith(".py"):
            import tree_sitter_python

            kind, extra = CodeSplitter, (tree_sitter_python.language(),)
        splitter = kind.from_huggingface_tokenizer_str(*extra, vocabulary, room)
        for start, text in splitter.chunk_indices(document.text):
            yield start, start + len(text)

    def _langchain(self, document: Document, room: int, overlap: int) -> Iterator[Span]:
        from langchain_text_splitters import Language, RecursiveCharacterTextSplitter

        languages = {".md": Language.MARKDOWN, ".py": Language.PYTHON, ".rst": Language.RST}
        language = languages.get(Path(str(document.source)).suffix)
        sizes: dict[str, Any] = {
            "chunk_size": room,
            "chunk_overlap": overlap,
            "length_function": self._count,
        }
        if language is None:
            splitter = RecursiveCharacterTextSplitter(**sizes)
        else:
            splitter = RecursiveCharacterTextSplitter.from_language(language, **sizes)
        start = 0
        for text in splitter.split_text(document.text):
            start = max(document.text.find(text, start), start)
            yield start, start + len(text)


class ScoreFile:
    """Scores of pairs of texts by one model, kept in a file if a path is given."""

    def __init__(self, path: Path | None, model: str) -> None:
        self._model = model
        self._base = sqlite3.connect(path or ":memory:")
        self._base.execute("CREATE TABLE IF NOT EXISTS scores (pair BLOB PRIMARY KEY, score REAL)")

    def score(self, pairs: Sequence[tuple[str, str]], reranker: Reranker) -> list[float]:
        """The score of each pair of query and text; those that are known are not made again."""
        keys = [self._key(*pair) for pair in pairs]
        known = {key: score for key in set(keys) if (score := self._find(key)) is not None}
        missing = {key: pair for key, pair in zip(keys, pairs, strict=True) if key not in known}
        for start in range(0, len(missing), SCORED_AT_ONCE):
            part = dict(list(missing.items())[start : start + SCORED_AT_ONCE])
            values = reranker.score([Pair.from_texts(*pair) for pair in part.values()]).values
            known.update(zip(part, (float(value or 0) for value in values), strict=True))
            rows = [(key, known[key]) for key in part]
            self._base.executemany("INSERT OR REPLACE INTO scores VALUES (?, ?)", rows)
            self._base.commit()
        return [known[key] for key in keys]

    def _find(self, key: bytes) -> float | None:
        row = self._base.execute("SELECT score FROM scores WHERE pair = ?", (key,)).fetchone()
        return None if row is None else float(row[0])

    def _key(self, query: str, text: str) -> bytes:
        parts = (self._model, query, text)
        return blake2b("\0".join(parts).encode("utf-8", "replace"), digest_size=16).digest()


class Bench:
    """Measures systems on cases."""

    def __init__(self, reranker: Reranker, scores: ScoreFile) -> None:
        self._reranker = reranker
        self._scores = scores
        self._cutter = Cutter(reranker)

    def measure(self, cases: Sequence[Case], systems: Sequence[str]) -> dict[str, list[Outcome]]:
        """What each system made of each case."""
        # All pairs together, so that texts that systems share are scored once, in full batches.
        pairs = dict.fromkeys(
            (case.query, chunk.scored_text)
            for system in systems
            for case in cases
            for chunk in self.chunks(system, case.query, case.document)
        )
        print(f"{len(pairs)} pairs", file=sys.stderr)
        self._scores.score(list(pairs), self._reranker)
        return {system: [self._judge(system, case) for case in cases] for system in systems}

    def chunks(self, system: str, query: str, document: Document) -> Sequence[Chunk]:
        # Whatever room the query leaves is what the cut depends on, and a plan is of a query.
        blocks = None if document.blocks is None else tuple(document.blocks)
        return self._cutter.cut(system, query, document.text, str(document.source), blocks)

    def ranked(self, system: str, case: Case) -> list[tuple[float, Chunk]]:
        """A document's chunks with their scores, best first."""
        chunks = self.chunks(system, case.query, case.document)
        pairs = [(case.query, chunk.scored_text) for chunk in chunks]
        scored = zip(self._scores.score(pairs, self._reranker), chunks, strict=True)
        return sorted(scored, key=lambda pair: -pair[0])

    def _judge(self, system: str, case: Case) -> Outcome:
        ranked = self.ranked(system, case)
        right = [case.is_right(chunk.start, chunk.end) for _, chunk in ranked]
        return Outcome(right[0], any(right[:3]), len(ranked))

    def print_errors(self, cases: Sequence[Case], system: str, count: int) -> None:
        """Print the first cases whose best passage is wrong, with what is right."""
        for case in cases:
            ranked = self.ranked(system, case)
            right = [n for n, (_, c) in enumerate(ranked) if case.is_right(c.start, c.end)]
            if count and right[:1] != [0]:
                count -= 1
                print(f"\n--- {case.group}: {case.query}  (right: {right[:3]} of {len(ranked)})")
                for score, chunk in [ranked[0], *(ranked[n] for n in right[:1])]:
                    print(f"{score:.2f} {chunk.headings}\n{chunk.scored_text[:600]}\n")


def print_table(cases: Sequence[Case], outcomes: Mapping[str, Sequence[Outcome]]) -> None:
    """Print each system's figures in points, and what ours gain over the others in hit@1."""
    kinds = sorted({case.kind for case in cases})
    kinds = kinds if len(kinds) > 1 else []
    counts = [f"{kind} ({sum(case.kind == kind for case in cases)})" for kind in kinds]
    others = [name for name in OTHERS if name in outcomes]
    heads = ["system", "hit@1", "hit@3", *counts, "chunks", *(f"over {name}" for name in others)]
    print(f"| {' | '.join(heads)} |\n|{'---|' * len(heads)}")
    for name, own in outcomes.items():
        first = [outcome.first for outcome in own]
        cells = [name, interval(first), interval([outcome.first_three for outcome in own])]
        for kind in kinds:
            picked = [o.first for o, case in zip(own, cases, strict=True) if case.kind == kind]
            cells.append(f"{100 * fsum(picked) / len(picked):.1f}")
        cells.append(f"{fsum(outcome.chunks for outcome in own) / len(own):.1f}")
        for other in others:
            if not name.startswith("rerank"):
                cells.append("")
                continue
            gain = difference(first, [outcome.first for outcome in outcomes[other]])
            low, high = 100 * gain.low, 100 * gain.high
            cells.append(f"{100 * gain.mean:+.1f} ({low:+.1f} to {high:+.1f})")
        print(f"| {' | '.join(cells)} |", flush=True)


def interval(values: Sequence[float]) -> str:
    """A mean in points, with its interval."""
    mean = difference(values, [0.0] * len(values))
    return f"{100 * mean.mean:.1f} ({100 * mean.low:.1f} to {100 * mean.high:.1f})"


# Part a: articles


def article_cases(folder: Path, answers: Path | None, seed: int) -> Iterator[Case]:
    """Questions on whole articles, with a heading for each title."""
    for name in ("squad", "nq"):
        collection = read_folder(find_parts(folder / name))
        path = answers / f"{name}.jsonl" if answers else None
        known = read_answers(path) if path and path.exists() else {}
        of_passage: dict[str, list[str]] = {}
        for query, grades in collection.qrels.items():
            for passage, grade in grades.items():
                if grade > 0 and query in collection.queries:
                    of_passage.setdefault(passage, []).append(query)
        for number, article in enumerate(articles(collection, seed)):
            text, places = join_article(article)
            document = Document(text, source=f"{name}-{number}.md")
            for passage, (start, end) in places.items():
                queries = of_passage.get(passage, [])
                for query in queries:
                    spans = known.get((query, passage))
                    if known and not spans:
                        continue
                    yield Case(
                        f"{name}:{number}",
                        collection.queries[query],
                        document,
                        [(start + a, start + b) for a, b in spans or [(0, end - start)]],
                        rule="holds" if spans else "overlaps",
                    )


def articles(collection: Collection, seed: int) -> Iterator[list[Document]]:
    """The passages of a set in their order, 5 to 40 together; of one title, if it has so many."""
    draw = random.Random(f"{seed}-{collection.name}")
    passages = list(collection.corpus.values())
    titles: dict[str, list[Document]] = {}
    for passage in passages:
        titles.setdefault(passage.title, []).append(passage)
    least, most = ARTICLE_PARAGRAPHS
    groups = list(titles.values())
    if fsum(map(len, groups)) < 2 * len(groups) + len(groups):  # NQ: most have one passage
        groups = [[passage for group in groups for passage in group]]
    for group in groups:
        while len(group) >= least:
            size = round(least * (most / least) ** draw.random())
            yield group[:size]
            group = group[size:]


def join_article(passages: Sequence[Document]) -> tuple[str, dict[str, Span]]:
    """Markdown: passages below their titles, each title once; and where each passage is."""
    text, title, places = "", "", {}
    several = len({passage.title for passage in passages}) > 1
    for passage in passages:
        if passage.title != title:
            title = passage.title
            text += f"{'##' if several else '#'} {title}\n\n"
        body = passage.text.strip()
        places[str(passage.id)] = (len(text), len(text) + len(body))
        text += f"{body}\n\n"
    return text, places


def read_answers(path: Path) -> dict[tuple[str, str], list[Span]]:
    """The spans of the answers in a passage, of each query and passage."""
    with path.open(encoding="utf-8") as lines:
        records = [json.loads(line) for line in lines]
    return {(r["_id"], r["passage"]): [(a, b) for a, b in r["spans"]] for r in records}


# Part b: documentation


class Heading(NamedTuple):
    """A heading: where its lines begin, where its text is, and what it says."""

    start: int
    place: Span
    name: str


def documentation_cases(folder: Path, seed: int) -> Iterator[Case]:
    """Headings of documents, as queries on the same text without them."""
    draw = random.Random(f"{seed}-documentation")
    paths = [path for path in sorted(folder.rglob("*")) if path.suffix in (".md", ".rst", ".txt")]
    for path in paths:
        text = path.read_text(encoding="utf-8", errors="replace")
        text = re.sub(r"^\.\. _[^:\n]+:[ \t]*\n", "\n", text, flags=re.MULTILINE)
        if len(text) > MAX_DOCUMENT_CHARACTERS:
            continue
        headings = list(markdown_headings(text) if path.suffix == ".md" else underlined(text))
        ends = [*(heading.start for heading in headings[1:]), len(text)]
        if len(headings) < MIN_SECTIONS:
            continue
        lower, usable = text.lower(), []
        for heading, end in zip(headings, ends, strict=True):
            words = set(re.findall(r"[a-z]{3,}", heading.name.lower())) - STOP_WORDS
            body = text[heading.place[1] : end]
            is_told = lower.count(heading.name.lower()) > 1 or "Section" in heading.name
            if len(words) >= 2 and len(body.split()) >= MIN_SECTION_WORDS and not is_told:
                usable.append((heading, end))
        for heading, end in draw.sample(usable, min(QUERIES_A_DOCUMENT, len(usable))):
            a, b = heading.place
            changed = f"{text[:a]}Section{text[b:]}"
            shift = len(changed) - len(text)
            kind = {".md": "markdown", ".rst": "rst"}.get(path.suffix, "text")
            name = str(path.relative_to(folder))
            yield Case(
                f"{kind}:{name}",
                heading.name,
                Document(changed, source=path.name),
                [(heading.start, end + shift)],
            )


def markdown_headings(text: str) -> Iterator[Heading]:
    """The headings of a Markdown document, in no list or quotation."""
    lines = text.splitlines(keepends=True)
    starts = [0]
    for line in lines:
        starts.append(starts[-1] + len(line))
    tokens = MarkdownIt().parse(text)
    for place, token in enumerate(tokens):
        if token.type == "heading_open" and token.level == 0 and token.map:
            content = tokens[place + 1].content
            start = starts[token.map[0]]
            at = text.find(content, start)
            if content and start <= at < starts[token.map[1]]:
                name = re.sub(r"\[([^]]*)\]\([^)]*\)|[`*\\]|\{[^}]*\}", r"\1", content).strip()
                yield Heading(start, (at, at + len(content)), name)


UNDERLINED = re.compile(
    r"(?:^|(?<=\n\n))(?P<over>([=\-~^\"'`#*+.:_])\2{2,}\n)?(?P<title>\S[^\n]*)\n"
    r"(?P<under>([=\-~^\"'`#*+.:_])\5{2,})[ \t]*(?=\n)"
)


def underlined(text: str) -> Iterator[Heading]:
    """The headings of a document whose titles are underlined, as in reStructuredText."""
    for match in UNDERLINED.finditer(text):
        title, under = match["title"].rstrip(), match["under"]
        if abs(len(under) - len(title)) <= max(3, len(under) // 4) and any(map(str.isalpha, title)):
            start = match.start("title")
            name = re.sub(r":[\w:-]+:`([^`<]*)[^`]*`|[`*]", r"\1", title).strip()
            yield Heading(match.start(), (start, start + len(title)), name)


def prepare(folder: Path) -> None:
    """Download the documentation of part b, and unpack it to `folder`/package-version."""
    folder.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory() as temporary:
        for name, licence in DEBIAN.items():
            print(f"{name} ({licence})", flush=True)
            subprocess.run(["apt-get", "-q", "download", name], cwd=temporary, check=True)
        for archive in sorted(Path(temporary).glob("*.deb")):
            name, version = archive.name.split("_")[:2]
            unpack(["dpkg-deb", "--fsys-tarfile", str(archive)], folder / f"{name}-{version}")
        for name, licence in PYPI.items():
            print(f"{name} ({licence})", flush=True)
            command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps"]
            command += ["--no-binary", ":all:", name]
            subprocess.run(command, cwd=temporary, check=True)
        for archive in sorted(Path(temporary).glob("*.tar.gz")):
            unpack(["gzip", "-dc", str(archive)], folder / archive.name.removesuffix(".tar.gz"))


def unpack(command: Sequence[str], folder: Path) -> None:
    """Write the documentation in a tar archive, which a command writes, below a folder."""
    with (
        subprocess.Popen(command, stdout=subprocess.PIPE) as process,
        tarfile.open(fileobj=process.stdout, mode="r|") as archive,
    ):
        for member in archive:
            name = member.name.removeprefix("./")
            if not member.isfile() or not DOCUMENTATION.search(name):
                continue
            content = archive.extractfile(member)
            data = content.read() if content else b""
            if name.endswith(".gz"):
                name, data = name.removesuffix(".gz"), gzip.decompress(data)
            name = name.replace(".rst.txt", ".rst")  # as Sphinx keeps its sources
            path = folder / "/".join(part for part in Path(name).parts if part != "..")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)


# Part c: functions


def function_cases(seed: int) -> Iterator[Case]:
    """First sentences of docstrings, as queries on their modules without docstrings."""
    draw = random.Random(f"{seed}-functions")
    root = Path(sysconfig.get_paths()["stdlib"])
    left_out = {"test", "tests", "site-packages", "idlelib", "lib2to3", "turtledemo", "ensurepip"}
    for path in sorted(root.rglob("*.py")):
        name = path.relative_to(root)
        if left_out & set(name.parts) or "__pycache__" in name.parts:
            continue
        source = path.read_text(encoding="utf-8", errors="replace")
        try:
            tree = ast.parse(source)
        except (SyntaxError, ValueError):
            continue
        text, starts = without_docstrings(source, tree)
        if len(text) > MAX_DOCUMENT_CHARACTERS:
            continue
        documented = list(documented_functions(tree))
        if len(documented) < MIN_FUNCTIONS:
            continue
        for function in draw.sample(documented, QUERIES_A_DOCUMENT):
            first = min([function.lineno, *(d.lineno for d in function.decorator_list)])
            span = (starts[first - 1], starts[function.end_lineno or first])
            yield Case(
                f"python:{name}",
                first_sentence(function),
                Document(text, source=str(name)),
                [span],
            )


def documented_functions(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    nodes = (node for node in ast.walk(tree) if isinstance(node, functions))
    return (n for n in nodes if len(first_sentence(n).split()) >= 4 and len(n.body) > 1)


def first_sentence(node: ast.FunctionDef | ast.AsyncFunctionDef) -> str:
    paragraph = (ast.get_docstring(node) or "").split("\n\n")[0]
    return re.split(r"(?<=[.!?])\s", " ".join(paragraph.split()))[0]


def without_docstrings(source: str, tree: ast.AST) -> tuple[str, list[int]]:
    """A module's text without docstrings, and where each of its old lines begins in it."""
    lines = source.splitlines(keepends=True)
    for node in ast.walk(tree):
        if not isinstance(
            node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
        ) or not ast.get_docstring(node, clean=False):
            continue
        docstring = node.body[0]
        first, last = docstring.lineno - 1, docstring.end_lineno or docstring.lineno
        indent = lines[first][: docstring.col_offset]
        if indent.strip():  # on the line of `def`
            continue
        lines[first:last] = [""] * (last - first)
        if len(node.body) == 1:
            lines[first] = f"{indent}pass\n"
    starts = [0]
    for line in lines:
        starts.append(starts[-1] + len(line))
    return "".join(lines), starts


if __name__ == "__main__":
    main()
