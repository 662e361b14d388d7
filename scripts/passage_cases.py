"""The queries of `bench_passages.py`, and the documents in which they are answered."""

import ast
import json
import random
import re
import sysconfig
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from math import fsum
from pathlib import Path
from typing import Literal, NamedTuple

from markdown_it import MarkdownIt

from rerank_cli.evaluation.datasets import (
    Collection,
    find_parts,
    read_folder,
    retrieve_candidates,
)
from rerank_cli.inputs import InputFormat
from rerank_cli.inputs.conversion import convert
from rerank_cli.structure import syntax_of
from rerank_cli.types import Document

Span = tuple[int, int]

ARTICLE_PARAGRAPHS = (5, 40)
MIN_SECTIONS, MIN_SECTION_WORDS = 8, 40
MAX_DOCUMENT_CHARACTERS = 25_000  # of documentation and modules, so that a run takes minutes
MAX_DOCUMENTS = 40  # of a package
MIN_FUNCTIONS = 10
QUERIES_A_DOCUMENT = 3
NEUTRAL = "Section"  # stands for a heading that is a query
HTML_HEADING = re.compile(r"<h([1-6])\b[^>]*>(.*?)</h\1\s*>", re.DOTALL | re.IGNORECASE)
LONG_DOCUMENTS, SHORT_DOCUMENTS = 4, 12  # without an answer, of a pool of mixed lengths

TRANSLATED_PATH = re.compile(r"/(da|de|es|fr|ja|ko|pt-br|ru|tr|zh-cn)/")
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


def sample(cases: Iterable[Case], count: int, seed: int) -> list[Case]:
    """A sample of cases, as evenly from all kinds of documents as there are enough of them."""
    by_kind: dict[str, list[Case]] = {}
    for case in cases:
        by_kind.setdefault(case.kind, []).append(case)
    draw = random.Random(seed)
    for own in by_kind.values():
        draw.shuffle(own)
    sampled_cases: list[Case] = []
    while len(sampled_cases) < count and any(by_kind.values()):
        sampled_cases += [own.pop() for own in by_kind.values() if own]
    return sorted(sampled_cases[:count], key=lambda case: (case.group, case.query))


# Part a: articles


def article_cases(folder: Path, answers: Path | None, seed: int) -> Iterator[Case]:
    """Questions on whole articles, with a heading for each title."""
    for name in ("squad", "nq"):
        collection = read_folder(find_parts(folder / name))
        path = answers / f"{name}.jsonl" if answers else None
        spans_by_pair = read_answers(path) if path and path.exists() else {}
        of_passage: dict[str, list[str]] = {}
        for query, grades in collection.qrels.items():
            for passage, grade in grades.items():
                if grade > 0 and query in collection.queries:
                    of_passage.setdefault(passage, []).append(query)
        for number, article in enumerate(articles(collection, seed)):
            text, places = join_article(article)
            document = text_document(text, f"{name}-{number}.md")
            for passage, (start, end) in places.items():
                queries = of_passage.get(passage, [])
                for query in queries:
                    spans = spans_by_pair.get((query, passage))
                    if spans_by_pair and not spans:
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
    has_several_titles = len({passage.title for passage in passages}) > 1
    for passage in passages:
        if passage.title != title:
            title = passage.title
            text += f"{'##' if has_several_titles else '#'} {title}\n\n"
        body = passage.text.strip()
        places[str(passage.id)] = (len(text), len(text) + len(body))
        text += f"{body}\n\n"
    return text, places


def read_answers(path: Path) -> dict[tuple[str, str], list[Span]]:
    """The spans of the answers in a passage, of each query and passage."""
    with path.open(encoding="utf-8") as lines:
        records = [json.loads(line) for line in lines]
    return {(r["_id"], r["passage"]): [(a, b) for a, b in r["spans"]] for r in records}


# Parts d and e: documents to rank


class Pool(NamedTuple):
    """A query and documents, with their grades, and how many of them are long, first in the pool.

    kind  what the relevant documents are, or which set it is of
    """

    kind: str
    query: str
    documents: Sequence[Document]
    grades: Sequence[int]
    long: int = 0


def abstract_pools(folder: Path, count: int, depth: int, seed: int) -> Iterator[Pool]:
    """BM25's best documents of SciFact and of NFCorpus for a sample of queries."""
    for name in ("scifact", "nfcorpus"):
        collection = read_folder(find_parts(folder / name))
        judged_queries = [query for query in collection.queries if query in collection.qrels]
        names = random.Random(f"{seed}-{name}").sample(
            judged_queries, min(count // 2, len(judged_queries))
        )
        queries = {query: collection.queries[query] for query in names}
        candidates = retrieve_candidates(collection, queries, depth)
        for query, text in queries.items():
            grades = collection.qrels[query]
            documents = [candidate.document for candidate in candidates[query]]
            yield Pool(
                name,
                text,
                [text_document(f"{d.title}\n\n{d.text}".strip(), f"{d.id}.txt") for d in documents],
                [grades.get(str(document.id), 0) for document in documents],
            )


def mixed_pools(folder: Path, count: int, seed: int) -> Iterator[Pool]:
    """Parts of articles of SQuAD among single paragraphs, all near to a question.

    Every second pool has the article that answers, the others only its paragraph that does.
    """
    collection = read_folder(find_parts(folder / "squad"))
    article_of: dict[str, int] = {}
    texts: dict[int, str] = {}
    for number, article in enumerate(articles(collection, seed)):
        texts[number], _ = join_article(article)
        article_of.update((str(passage.id), number) for passage in article)
    relevant = {
        query: passage
        for query, grades in collection.qrels.items()
        for passage, grade in grades.items()
        if grade > 0 and passage in article_of and query in collection.queries
    }
    draw = random.Random(f"{seed}-mixed")
    names = draw.sample(sorted(relevant), min(count, len(relevant)))
    queries = {query: collection.queries[query] for query in names}
    candidates = retrieve_candidates(collection, queries, 400)
    for place, (query, text) in enumerate(queries.items()):
        right = collection.corpus[relevant[query]]
        own = article_of[str(right.id)]
        near = [candidate.document for candidate in candidates[query]]
        near = [p for p in near if article_of.get(str(p.id), own) != own]
        numbers = list(dict.fromkeys(article_of[str(passage.id)] for passage in near))
        numbers = numbers[:LONG_DOCUMENTS]
        shorts = [passage for passage in near if article_of[str(passage.id)] not in numbers]
        longs = [text_document(texts[number], f"{number}.md") for number in numbers]
        passages = [short_document(passage) for passage in shorts[:SHORT_DOCUMENTS]]
        answer = text_document(texts[own], "answer.md") if place % 2 else short_document(right)
        documents = [*longs, *passages, answer]
        kind = "article" if place % 2 else "paragraph"
        yield Pool(kind, text, documents, [0] * (len(documents) - 1) + [1], len(longs))


def short_document(passage: Document) -> Document:
    return text_document(f"# {passage.title}\n\n{passage.text}", f"{passage.id}.md")


# Part b: documentation


class Heading(NamedTuple):
    """A heading: where it begins, what of it is replaced by `neutral`, and what it says."""

    start: int
    place: Span
    name: str
    neutral: str = NEUTRAL


def documentation_cases(folder: Path, seed: int) -> Iterator[Case]:
    """Headings of documents, as queries on the same text without them."""
    draw = random.Random(f"{seed}-documentation")
    kinds = {".md": "markdown", ".rst": "rst", ".txt": "text", ".html": "html"}
    for package in sorted(folder.iterdir()):
        paths = [path for path in sorted(package.rglob("*")) if path.suffix in kinds]
        draw.shuffle(paths)
        count = 0
        for path in paths:
            size = path.stat().st_size
            if size > 4 * MAX_DOCUMENT_CHARACTERS or TRANSLATED_PATH.search(str(path)):
                continue
            page = path.read_text(encoding="utf-8", errors="replace")
            make = html_cases if path.suffix == ".html" else text_cases
            cases = list(make(page, path.name))
            name = f"{kinds[path.suffix]}:{path.relative_to(folder)}"
            for case in draw.sample(cases, min(QUERIES_A_DOCUMENT, len(cases))):
                yield case._replace(group=name)
            count += bool(cases)
            if count == MAX_DOCUMENTS:
                break


def text_cases(text: str, path: str) -> Iterator[Case]:
    """The cases of a document in Markdown, reStructuredText or plain text."""
    # Labels before headings repeat them.
    text = re.sub(r"^\.\. _[^:\n]+:[ \t]*\n", "\n", text, flags=re.MULTILINE)
    headings = list(markdown_headings(text) if path.endswith(".md") else underlined_headings(text))
    for heading, end in usable_headings(text, headings):
        a, b = heading.place
        changed_text = f"{text[:a]}{heading.neutral}{text[b:]}"
        span = (heading.start, end + len(changed_text) - len(text))
        yield Case("", heading.name, text_document(changed_text, path), [span])


def html_cases(page: str, path: str) -> Iterator[Case]:
    """The cases of an HTML page, as it is converted to text."""
    places = [match.span(2) for match in HTML_HEADING.finditer(page)]
    markup = "".join(
        f"\ue000{part}\ue001" if number % 2 else part
        for number, part in enumerate(split_at(page, places))
    )
    text = html_document(markup, path).text
    spans_of_marks = [match.span(1) for match in re.finditer("\ue000([^\ue000]*)\ue001", text)]
    if len(spans_of_marks) != len(places) or text.count("\ue000") != len(spans_of_marks):
        return  # a heading is hidden, or not the text's
    spans_of_marks = [
        (a - 2 * number - 1, b - 2 * number - 1) for number, (a, b) in enumerate(spans_of_marks)
    ]
    text = text.replace("\ue000", "").replace("\ue001", "")
    headings = []
    for a, b in spans_of_marks:
        start = text.rfind("\n", 0, a) + 1
        headings.append(Heading(start, (a, b), re.sub(r"^[\d.]+\s+|[¶#\n]", "", text[a:b]).strip()))
    by_place = dict(zip(spans_of_marks, places, strict=True))
    for heading, end in usable_headings(text, headings):
        a, b = by_place[heading.place]
        document = html_document(f"{page[:a]}{NEUTRAL}{page[b:]}", path)
        a, b = heading.place
        if document.text == f"{text[:a]}{NEUTRAL}{text[b:]}":
            span = (heading.start, end + len(document.text) - len(text))
            yield Case("", heading.name, document, [span])


def usable_headings(text: str, headings: Sequence[Heading]) -> Iterator[tuple[Heading, int]]:
    """The headings that can be queries, and where the section of each ends."""
    if len(headings) < MIN_SECTIONS or len(text) > MAX_DOCUMENT_CHARACTERS:
        return
    lower, section_ends = text.lower(), [*(heading.start for heading in headings[2:]), len(text)]
    for heading, end in zip(headings[1:], section_ends, strict=True):  # the first one is the title
        words = set(re.findall(r"[a-z]{3,}", heading.name.lower())) - STOP_WORDS
        is_ambiguous = lower.count(heading.name.lower()) > 1 or NEUTRAL in heading.name
        is_long = len(text[heading.place[1] : end].split()) >= MIN_SECTION_WORDS
        if len(words) >= 2 and is_long and not is_ambiguous:
            yield heading, end


def split_at(text: str, places: Sequence[Span]) -> list[str]:
    """A text in parts: what is before the first place, the first place, what is behind it, …"""
    bounds = [0, *(end for place in places for end in place), len(text)]
    return [text[a:b] for a, b in pairwise(bounds)]


def text_document(text: str, path: str) -> Document:
    return Document(text, source=path, syntax=syntax_of(path))


def html_document(page: str, path: str) -> Document:
    conversion = convert(page.encode(), InputFormat.HTML, path, 1 << 26)
    return Document(conversion.text, source=path, blocks=conversion.blocks)


def markdown_headings(text: str) -> Iterator[Heading]:
    """The headings of a Markdown document, in no list or quotation."""
    lines = text.splitlines(keepends=True)
    line_starts = [0]
    for line in lines:
        line_starts.append(line_starts[-1] + len(line))
    tokens = MarkdownIt().parse(text)
    for place, token in enumerate(tokens):
        if token.type == "heading_open" and token.level == 0 and token.map:
            content = tokens[place + 1].content
            start = line_starts[token.map[0]]
            content_start = text.find(content, start)
            if content and start <= content_start < line_starts[token.map[1]]:
                name = re.sub(r"\[([^]]*)\]\([^)]*\)|[`*\\]|\{[^}]*\}", r"\1", content).strip()
                yield Heading(start, (content_start, content_start + len(content)), name)


UNDERLINED_TITLE = re.compile(
    r"(?:^|(?<=\n\n))(?P<over>([=\-~^\"'`#*+.:_])\2{2,}\n)?(?P<title>\S[^\n]*)\n"
    r"(?P<under>([=\-~^\"'`#*+.:_])\5{2,})[ \t]*(?=\n)"
)


def underlined_headings(text: str) -> Iterator[Heading]:
    """The headings of a document whose titles are underlined, as in reStructuredText."""
    for match in UNDERLINED_TITLE.finditer(text):
        title, under = match["title"].rstrip(), match["under"]
        if abs(len(under) - len(title)) <= max(3, len(under) // 4) and any(map(str.isalpha, title)):
            name = re.sub(r":[\w:-]+:`([^`<]*)[^`]*`|[`*]", r"\1", title).strip()
            line = under[0] * len(NEUTRAL)  # as long as the title, or it is none
            neutral = f"{line}\n{NEUTRAL}\n{line}" if match["over"] else f"{NEUTRAL}\n{line}"
            yield Heading(match.start(), (match.start(), match.end("under")), name, neutral)


# Part c: functions


def function_cases(seed: int) -> Iterator[Case]:
    """First sentences of docstrings, as queries on their modules without docstrings."""
    draw = random.Random(f"{seed}-functions")
    root = Path(sysconfig.get_paths()["stdlib"])
    excluded_folders = {
        "test",
        "tests",
        "site-packages",
        "idlelib",
        "lib2to3",
        "turtledemo",
        "ensurepip",
    }
    for path in sorted(root.rglob("*.py")):
        name = path.relative_to(root)
        if excluded_folders & set(name.parts) or "__pycache__" in name.parts:
            continue
        source = path.read_text(encoding="utf-8", errors="replace")
        try:
            tree = ast.parse(source)
        except (SyntaxError, ValueError):
            continue
        text, line_starts = without_docstrings(source, tree)
        if len(text) > MAX_DOCUMENT_CHARACTERS:
            continue
        functions = list(documented_functions(tree))
        if len(functions) < MIN_FUNCTIONS:
            continue
        for function in draw.sample(functions, QUERIES_A_DOCUMENT):
            first = min([function.lineno, *(d.lineno for d in function.decorator_list)])
            span = (line_starts[first - 1], line_starts[function.end_lineno or first])
            yield Case(
                f"python:{name}",
                first_sentence(function),
                text_document(text, str(name)),
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
    line_starts = [0]
    for line in lines:
        line_starts.append(line_starts[-1] + len(line))
    return "".join(lines), line_starts
