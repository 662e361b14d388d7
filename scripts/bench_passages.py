"""Measure how well the passages of several ways to cut documents answer queries.

    python scripts/get_documentation.py DOCS
    python scripts/bench_passages.py ../shared/data/eval --docs DOCS [--parts a,b] [--cache FILE]

All systems score with the same model, and beside a query their chunks have the same room:

    whole@512               the first tokens of a text, as many as fit in 512 with the query
    flat                    windows of this project that know no structure
    semantic-text-splitter  its splitter for Markdown, Python (with tree-sitter-python) or text
    langchain, langchain-0  RecursiveCharacterTextSplitter for the language, overlap 48 and 0
    rerank                  windows by the structure, as `rerank` cuts and scores them
    rerank-none             the same, never with headings before them
    rerank-heading          the same, with the headings before them that they do not begin with

In parts a to c a query has its answer in one place of a document:

    a  a question on an article of SQuAD, or on several of NQ, of 5 to 40 paragraphs, with headings.
       Right is a passage that holds an answer, if `--answers` has the set's; else one that has more
       than half of the paragraph that answers, or lies in it by more than half. `sentence` says how
       often the sentence shown for the best passage holds an answer
    b  a heading of a package's documentation on all sections of its document, in which `Section`
       stands for it. Right is a passage that lies in its section by more than half: in what is
       before the next heading. The headings have two words or more and are nowhere else in the
       text; their sections have 40 words, and their documents 8 headings
    c  the first sentence of a function's docstring on its module of the standard library, without
       any docstrings. Right is a passage that lies in the function by more than half

hit@1 says how often the best passage is right, hit@3 how often one of the best three is, and
`possible` how often any passage is. In parts d and e documents are ranked:

    d  BM25's best 50 of SciFact and of NFCorpus for a query
    e  articles of SQuAD among single paragraphs, of other articles or of other parts of the same
       one; an article answers, or its paragraph alone. Ways
       to aggregate the scores of a document's chunks are compared: what they need is learnt, and
       the best one is chosen, on half of the pools, and all are tested on the other half

Intervals are of 95 %, differences are of pairs (see `rerank_cli.evaluation.statistics`). Seeds are
fixed. `--cache` keeps the scores, so that another run scores only texts that are new.
"""

import argparse
import sqlite3
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache, partial
from hashlib import blake2b
from math import fsum, log2
from pathlib import Path
from typing import Any, NamedTuple

import aggregations
import passage_cases as cases_of
from passage_cases import Case, Pool, Span

from rerank_cli.evaluation.statistics import difference
from rerank_cli.ranking import Aggregation, ChunkOptions
from rerank_cli.ranking.chunking import plan_chunks
from rerank_cli.ranking.reranker import Reranker
from rerank_cli.ranking.results import AGGREGATES
from rerank_cli.types import Chunk, Document, Pair

WHOLE_TOKENS = 512
LANGCHAIN_OVERLAP = 48
OTHERS = ("flat", "semantic-text-splitter", "langchain", "langchain-0")
OURS = {"rerank": None, "rerank-none": False, "rerank-heading": True}
SYSTEMS = ("whole@512", *OTHERS, *OURS)
SCORED_AT_ONCE = 1024
DEPTH = 50  # of part d


class Outcome(NamedTuple):
    """What a system made of a case: whether its best passages are right, and how many it has.

    `possible` says whether any of its passages is right.
    """

    first: bool
    first_three: bool
    possible: bool
    chunks: int


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="sets in BEIR's layout")
    parser.add_argument("--docs", type=Path, help="what get_documentation.py has made")
    parser.add_argument("--answers", type=Path, help="SET.jsonl with `_id`, `passage`, `spans`")
    parser.add_argument("-m", "--model", help="default: the model that ships")
    parser.add_argument("--parts", default="a,b,c,d,e")
    parser.add_argument("--systems", default=",".join(SYSTEMS))
    parser.add_argument("--queries", type=int, default=100, help="of each part")
    parser.add_argument("--cache", type=Path, help="a file that keeps scores")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--errors", type=int, default=0, help="print so many of the last system")
    arguments = parser.parse_args()

    folder, count, seed = arguments.folder, arguments.queries, arguments.seed
    makers: Mapping[str, Callable[[], Iterator[Case]]] = {
        "a": partial(cases_of.article_cases, folder, arguments.answers, seed),
        "b": partial(cases_of.documentation_cases, arguments.docs, seed),
        "c": partial(cases_of.function_cases, seed),
    }
    systems = arguments.systems.split(",")
    with Reranker(arguments.model) as reranker:
        bench = Bench(reranker, ScoreFile(arguments.cache, reranker.info.model))
        print(f"{reranker.info.model}, seed {seed}")
        for part in arguments.parts.split(","):
            start = time.monotonic()
            if part == "d":
                pools = list(cases_of.abstract_pools(folder, count, DEPTH, seed))
                bench.compare_ranking(pools, systems)
            elif part == "e":
                pools = list(cases_of.mixed_pools(folder, count, seed))
                bench.compare_ranking(pools, systems)
                bench.compare_aggregations(pools, systems[-1])
            else:
                cases = cases_of.sample(makers[part](), count, seed)
                documents = len({case.group for case in cases})
                print(f"\n## {part}: {len(cases)} queries, {documents} documents\n")
                print_table(cases, bench.measure(cases, systems))
                if part == "a":
                    bench.measure_sentences(cases, systems)
                if arguments.errors:
                    bench.print_errors(cases, systems[-1], arguments.errors)
            print(f"\n{time.monotonic() - start:.0f} s", flush=True)


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

    def _cut(
        self, system: str, query: str, text: str, path: str, syntax: str, blocks: Any
    ) -> Sequence[Chunk]:
        info = self._reranker.info
        plan = plan_chunks(query, info, ChunkOptions(prepend_headings=OURS.get(system)))
        room = plan.room or WHOLE_TOKENS
        document = Document(text, source=path, syntax=syntax, blocks=blocks)
        if system in OURS:
            return plan.split(document).chunks
        match system:
            case "whole@512":
                room = WHOLE_TOKENS - info.specials - self._count(query)
                spans = self._tokenizer.encode(text).spans[:room]
                parts = iter([(0, spans[-1][1])])
            case "flat":
                return plan.split(replace(document, syntax="", blocks=())).chunks
            case "semantic-text-splitter":
                parts = self._semantic(document, room)
            case "langchain" | "langchain-0":
                overlap = 0 if system.endswith("-0") else LANGCHAIN_OVERLAP
                parts = self._langchain(document, room, overlap)
            case _:
                raise SystemExit(f"there is no system {system}: {', '.join(SYSTEMS)}")
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
        scores_by_key = {key: score for key in set(keys) if (score := self._find(key)) is not None}
        missing_pairs = {
            key: pair for key, pair in zip(keys, pairs, strict=True) if key not in scores_by_key
        }
        for start in range(0, len(missing_pairs), SCORED_AT_ONCE):
            part = dict(list(missing_pairs.items())[start : start + SCORED_AT_ONCE])
            values = reranker.score([Pair.from_texts(*pair) for pair in part.values()]).values
            scores_by_key.update(zip(part, (float(value or 0) for value in values), strict=True))
            rows = [(key, scores_by_key[key]) for key in part]
            self._base.executemany("INSERT OR REPLACE INTO scores VALUES (?, ?)", rows)
            self._base.commit()
        return [scores_by_key[key] for key in keys]

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
        """A document's chunks beside a query."""
        blocks = None if document.blocks is None else tuple(document.blocks)
        path = str(document.source)
        return self._cutter.cut(system, query, document.text, path, document.syntax, blocks)

    def score_pools(self, system: str, pools: Sequence[Pool]) -> list[list[list[float]]]:
        """The scores of the chunks of each document of each pool."""
        pairs = [
            [
                [(pool.query, chunk.scored_text) for chunk in self.chunks(system, pool.query, each)]
                for each in pool.documents
            ]
            for pool in pools
        ]
        flat = [pair for pool in pairs for document in pool for pair in document]
        print(f"{system}: {len(flat)} pairs", file=sys.stderr, flush=True)
        scores = iter(self._scores.score(flat, self._reranker))
        return [[[next(scores) for _ in document] for document in pool] for pool in pairs]

    def compare_ranking(self, pools: Sequence[Pool], systems: Sequence[str]) -> None:
        """Print how well documents are ranked, by their best chunks and as `rerank` does."""
        kinds = sorted({pool.kind for pool in pools})
        print(f"\n## documents: {len(pools)} queries, nDCG@10\n")
        heads = ["system", "all", *(f"{k} ({sum(p.kind == k for p in pools)})" for k in kinds)]
        print(f"| {' | '.join([*heads, 'over flat'])} |\n|{'---|' * (len(heads) + 1)}")
        base: list[float] = []
        for system in systems:
            scores = self.score_pools(system, pools)
            ways = [Aggregation.MAX, *([Aggregation.ADJUSTED_MAX] if system in OURS else [])]
            for way in ways:
                aggregate = AGGREGATES[way]
                best = [
                    [aggregate(document, len(document))[0] for document in pool] for pool in scores
                ]
                figures = [ndcg(own, pool.grades) for own, pool in zip(best, pools, strict=True)]
                if system == "flat":
                    base = figures
                cells = [f"{system}, {way}", interval(figures)]
                cells += [f"{100 * mean_of(figures, pools, kind):.1f}" for kind in kinds]
                cells.append(gain_cell(figures, base) if base and system != "flat" else "")
                print(f"| {' | '.join(cells)} |", flush=True)

    def compare_aggregations(self, pools: Sequence[Pool], system: str) -> None:
        """Print what ways to aggregate do on one half of the pools, chosen on the other."""
        scores = self.score_pools(system, pools)
        halves = [range(len(pools) // 2), range(len(pools) // 2, len(pools))]
        wrong = [
            score
            for place in halves[0]
            for own, grade in zip(scores[place], pools[place].grades, strict=True)
            for score in own
            if not grade
        ]
        ways = aggregations.make_aggregations(aggregations.IrrelevantScores(sorted(wrong)))
        figures: dict[str, list[float]] = {}
        losses: dict[str, list[bool]] = {}
        for name, aggregate in ways.items():
            values: list[list[float]] = []
            for own in scores:
                everything = [score for document in own for score in document]
                values.append([aggregate(document, everything) for document in own])
            figures[name] = [ndcg(v, pool.grades) for v, pool in zip(values, pools, strict=True)]
            losses[name] = [
                any(score > own[-1] for score in own[: pool.long])
                for own, pool in zip(values, pools, strict=True)
            ]
        means = {name: fsum(own[i] for i in halves[0]) for name, own in figures.items()}
        best = max(means, key=lambda name: means[name])
        print(f"\n{system}: {best!r} is best on the half for choosing; nDCG@10 on the other half\n")
        print("| | chosen on | tested on | article | paragraph | over max | long before short |")
        print("|---|---|---|---|---|---|---|")
        test_pools = [pools[i] for i in halves[1]]
        for name, values_of in figures.items():
            second = [values_of[i] for i in halves[1]]
            kinds = [
                f"{100 * mean_of(second, test_pools, k):.1f}" for k in ("article", "paragraph")
            ]
            short = [losses[name][i] for i in halves[1] if pools[i].kind == "paragraph"]
            cells = [
                f"**{name}**" if name == best else name,
                f"{100 * means[name] / len(halves[0]):.1f}",
                f"{100 * fsum(second) / len(second):.1f}",
                *kinds,
                gain_cell(second, [figures["max"][i] for i in halves[1]]),
                f"{100 * fsum(short) / max(1, len(short)):.0f} %",
            ]
            print(f"| {' | '.join(cells)} |")

    def rank_chunks(self, system: str, case: Case) -> list[tuple[float, Chunk]]:
        """A document's chunks with their scores, best first."""
        chunks = self.chunks(system, case.query, case.document)
        pairs = [(case.query, chunk.scored_text) for chunk in chunks]
        scored = zip(self._scores.score(pairs, self._reranker), chunks, strict=True)
        return sorted(scored, key=lambda pair: -pair[0])

    def measure_sentences(self, cases: Sequence[Case], systems: Sequence[str]) -> None:
        """Print how often the sentence that is shown of a document holds an answer."""
        own = [case for case in cases if case.rule == "holds"]
        for system in [name for name in systems if name in OURS and own]:
            chunks = ChunkOptions(prepend_headings=OURS[system])
            reranker = Reranker(self._reranker.scorer, chunks=chunks)
            right = []
            for case in own:
                start, end = find_sentence(reranker, case)
                right.append(case.is_right(start, end))
            print(f"\n{system}: the sentence shown holds an answer, {len(own)} queries: ", end="")
            print(interval(right), flush=True)

    def _judge(self, system: str, case: Case) -> Outcome:
        ranked_chunks = self.rank_chunks(system, case)
        right = [case.is_right(chunk.start, chunk.end) for _, chunk in ranked_chunks]
        return Outcome(right[0], any(right[:3]), any(right), len(ranked_chunks))

    def print_errors(self, cases: Sequence[Case], system: str, count: int) -> None:
        """Print the first cases whose best passage is wrong, with what is right."""
        for case in cases:
            ranked_chunks = self.rank_chunks(system, case)
            right = [n for n, (_, c) in enumerate(ranked_chunks) if case.is_right(c.start, c.end)]
            if count and right[:1] != [0]:
                count -= 1
                count_text = f"right: {right[:3]} of {len(ranked_chunks)}"
                print(f"\n--- {case.group}: {case.query}  ({count_text})")
                for score, chunk in [ranked_chunks[0], *(ranked_chunks[n] for n in right[:1])]:
                    print(f"{score:.2f} {chunk.headings}\n{chunk.scored_text[:600]}\n")


def find_sentence(reranker: Reranker, case: Case) -> Span:
    """The sentence that is shown for a document."""
    ranking = reranker.rank(case.query, [case.document], n=1)
    sentence = reranker.find_sentences(ranking)[0]
    return sentence.start, sentence.end


def ndcg(scores: Sequence[float], grades: Sequence[int], depth: int = 10) -> float:
    """Discounted cumulative gain over the ideal's; of documents that none answers, 0."""
    order = sorted(range(len(scores)), key=lambda place: -scores[place])
    places = range(2, depth + 2)
    ideal = fsum(g / log2(n) for g, n in zip(sorted(grades, reverse=True), places, strict=False))
    gain = fsum(grades[i] / log2(n) for i, n in zip(order, places, strict=False))
    return gain / ideal if ideal else 0.0


def mean_of(figures: Sequence[float], pools: Sequence[Pool], kind: str) -> float:
    own = [figure for figure, pool in zip(figures, pools, strict=True) if pool.kind == kind]
    return fsum(own) / len(own)


def gain_cell(ours: Sequence[float], theirs: Sequence[float]) -> str:
    """What is gained, in points, with its interval."""
    gain = difference(ours, theirs)
    return f"{100 * gain.mean:+.1f} ({100 * gain.low:+.1f} to {100 * gain.high:+.1f})"


def print_table(cases: Sequence[Case], outcomes: Mapping[str, Sequence[Outcome]]) -> None:
    """Print each system's figures in points, and what ours gain over the others in hit@1."""
    kinds = sorted({case.kind for case in cases})
    kinds = kinds if len(kinds) > 1 else []
    counts = [f"{kind} ({sum(case.kind == kind for case in cases)})" for kind in kinds]
    others = [name for name in OTHERS if name in outcomes]
    heads = ["system", "hit@1", "hit@3", "possible", *counts, "chunks"]
    heads += [f"over {name}" for name in others]
    print(f"| {' | '.join(heads)} |\n|{'---|' * len(heads)}")
    for name, own in outcomes.items():
        first = [outcome.first for outcome in own]
        cells = [name, interval(first), interval([outcome.first_three for outcome in own])]
        cells.append(f"{100 * fsum(outcome.possible for outcome in own) / len(own):.1f}")
        for kind in kinds:
            firsts = [o.first for o, case in zip(own, cases, strict=True) if case.kind == kind]
            cells.append(f"{100 * fsum(firsts) / len(firsts):.1f}")
        cells.append(f"{fsum(outcome.chunks for outcome in own) / len(own):.1f}")
        for other in others:
            if not name.startswith("rerank"):
                cells.append("")
                continue
            cells.append(gain_cell(first, [outcome.first for outcome in outcomes[other]]))
        print(f"| {' | '.join(cells)} |", flush=True)


def interval(values: Sequence[float]) -> str:
    """A mean in points, with its interval."""
    mean = difference(values, [0.0] * len(values))
    return f"{100 * mean.mean:.1f} ({100 * mean.low:.1f} to {100 * mean.high:.1f})"


if __name__ == "__main__":
    main()
