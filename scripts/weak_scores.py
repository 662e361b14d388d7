"""Choose the mark below which a model's best score says that probably nothing answers a query.

    python scripts/weak_scores.py ../shared/data/eval [-m MODEL] [--scores FILE] [--growth]

Makes lists of documents from judged sets in BEIR's layout, scores them, and prints a mark with what
it does. Each list has about 15 documents. A query gives three without an answer:

    near     BM25's best for it, without any that is relevant: on its subject
    other    BM25's best for another query of the same set: of the same kind, on another subject
    far      BM25's best for a query of another set: nothing to do with it

and two with one: the first two of these with what is relevant among BM25's best, or else with one
relevant document at random. Every second query is made keywords of. Documents are in turn passages,
the single sentences of passages, and files of five passages, which are scored in windows.

Questions of most sets were written by someone who had the answer before him, and share its words.
Two more groups are for questions in other words: `stackfaq-answers`, which are answers without the
titles of their questions, and `weak_queries.toml`, with what one might type to search the project's
own examples and pages.

The mark is a multiple of a half: the highest below which at most 5 % of lists with an answer are in
each group. Of the sets half of the queries choose it, and it has to be 90 % sure (Clopper and
Pearson 1934); the other half tests it. Queries for which the same document is relevant are in the
same half. Of the queries that are typed those on the examples choose, and those on the pages test.

`--scores` keeps the scores of the sets, so that a run that was cut off goes on where it was.
`--growth` finds instead how the best score of lines that have nothing to do with a query grows with
their number. Seeds are fixed.
"""

import argparse
import json
import math
import random
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple

from rerank_cli.evaluation.datasets import Collection, find_parts, read_folder, retrieve_candidates
from rerank_cli.evaluation.run import scored_document
from rerank_cli.inputs.documents import Inputs
from rerank_cli.ranking import Selection
from rerank_cli.ranking.calibration import relevance
from rerank_cli.ranking.reranker import Reranker

QUERIES = Path(__file__).with_name("weak_queries.toml")
ROOT = Path(__file__).parent.parent
SETS = ("squad", "nq", "stackfaq", "scifact", "tatqa", "nfcorpus", "dl21", "nl2bash")
OTHER_WORDS = "stackfaq-answers"  # StackFAQ's documents without their titles
# The lowest grade that answers; in TREC's track of 2021 grade 1 is on the subject, and no answer.
LEAST_GRADES = {"dl21": 2}
FORMS = ("as is", "keywords")
SHAPES = ("passages", "lines", "files")
KINDS = ("near", "other", "far")  # of lists without an answer
LISTS = 5  # of a query
TYPED_TO_CHOOSE = "typed on examples/, answered"
DEPTH = 15  # documents of a list
SEARCH_DEPTH = 100  # of BM25, so that as many are left without the relevant ones
FILE_PASSAGES = 5
GROWTH_SIZES, GROWTH_QUERIES = (10, 100, 1000, 2000), 16  # of --growth
LARGEST_SHARE, CERTAINTY = 0.05, 0.9  # of lists with an answer that are called weak
# What a keyword query leaves out of a question.
FUNCTION_WORDS = frozenset(
    re.findall(
        r"\w+",
        "a about after all also an and any are as at be been being between by can could did do "
        "does during each for from had has have how i if in into is it its kind many me most much "
        "my name of on one or other s should some such than that the their them there these they "
        "this to type under was we were what when where which while who whom whose why will with "
        "would you your",
    )
)


@dataclass(frozen=True)
class Case:
    """A query, and the texts of documents for it: those that answer, and three kinds that do not.

    `group` is the same for queries that have the same answer.
    """

    set: str
    query: str
    text: str
    form: str
    shape: str
    group: str
    answer: Sequence[str]
    near: Sequence[str]
    other: Sequence[str]
    far: Sequence[str]

    @property
    def is_for_choosing(self) -> bool:
        """Whether it is of the half on which the mark is chosen."""
        digest = blake2b(self.group.encode(), digest_size=4).digest()
        return digest[-1] % 2 == 0


class Best(NamedTuple):
    """The best raw score of a list, its kind, and what it is a list of."""

    score: float
    kind: str
    has_answer: bool
    set: str
    form: str
    shape: str


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="a folder of sets")
    parser.add_argument("-m", "--model", help="default: the model that ships")
    parser.add_argument("--queries", type=int, default=24, help="of each set")
    parser.add_argument("--faq-queries", type=int, default=160, help=f"of {OTHER_WORDS}")
    parser.add_argument("--scores", type=Path, help="a file that keeps them")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--growth", action="store_true", help="see above")
    arguments = parser.parse_args()

    counts = {**dict.fromkeys(SETS, arguments.queries), OTHER_WORDS: arguments.faq_queries}
    cases = make_all_cases(arguments.folder, counts, arguments.seed)
    with Reranker(arguments.model) as reranker:
        info = reranker.info
        if arguments.growth:
            print_growth(cases, reranker, arguments.seed)
            return
        typed_scores = try_typed(reranker)
        lists = {True: list[Best](), False: list[Best]()}
        for case, best in score_cases(cases, reranker, arguments.scores):
            lists[case.is_for_choosing] += best
    choice_cases, test_cases = lists[True], lists[False]
    mark = choose_mark(choice_cases, typed_scores)
    print(f"\n{info.model}: weak below the raw score {mark:.1f}", end="")
    print(f", relevance_score {relevance(mark, info.scale):.3f}" if info.scale == "logit" else "")
    for name, scores in typed_scores.items():
        print(f"{name}: {rate([score < mark for score in scores])} are called weak")
    for title, own in (("chosen on", choice_cases), ("tested on", test_cases)):
        print(f"\n{title} {len(own) // LISTS} queries\n")
        print_rates(own, mark)
    print_acceptance(test_cases, mark, arguments.seed)


def make_all_cases(folder: Path, counts: Mapping[str, int], seed: int) -> list[Case]:
    """The cases of a sample of the queries of each set; of far lists, each has the next set's."""
    by_set = {name: make_cases(folder, name, count, seed) for name, count in counts.items()}
    names = list(by_set)
    strangers = dict(zip(names, [*names[1:], names[0]], strict=True))
    return [
        replace(case, far=own[place % len(own)].other)
        for name, cases in by_set.items()
        for own in [by_set[strangers[name]]]
        for place, case in enumerate(cases)
    ]


def make_cases(folder: Path, name: str, count: int, seed: int) -> list[Case]:
    """The cases of a sample of a set's queries, without far lists."""
    is_untitled = name == OTHER_WORDS
    collection = read_folder(find_parts(folder / name.partition("-")[0]))
    corpus = collection.corpus
    relevant = find_relevant(collection)
    draw = random.Random(f"{seed}-{name}")
    judged_queries = [query for query in collection.queries if relevant.get(query)]
    queries = draw.sample(judged_queries, min(count, len(judged_queries)))
    texts = {query: collection.queries[query] for query in queries}
    names_by_query = {
        query: [candidate.id for candidate in candidates]
        for query, candidates in retrieve_candidates(collection, texts, SEARCH_DEPTH).items()
    }

    def shape_documents(documents: Iterable[str], shape: str) -> list[str]:
        documents_read = (corpus[document] for document in documents)
        if is_untitled:
            documents_read = (replace(document, title="") for document in documents_read)
        return reshape([scored_document(each, titled=False).text for each in documents_read], shape)

    cases = []
    for place, query in enumerate(queries):
        form, shape = FORMS[place % 2], SHAPES[place // 2 % 3]
        answers = [each for each in names_by_query[query][:DEPTH] if each in relevant[query]]
        answers = answers or [draw.choice(sorted(relevant[query]))]
        wrong = [each for each in names_by_query[query] if each not in relevant[query]][:DEPTH]
        stranger = names_by_query[queries[(place + 1) % len(queries)]]
        other = [each for each in stranger if each not in relevant[query]][:DEPTH]
        if shape == "files":  # each answer among passages that are near
            files = []
            for number, answer in enumerate(answers):
                others = wrong[number * (FILE_PASSAGES - 1) : (number + 1) * (FILE_PASSAGES - 1)]
                others.insert(draw.randrange(len(others) + 1), answer)
                files += shape_documents(others, shape)
        cases.append(
            Case(
                set=name,
                query=query,
                text=keywords(texts[query]) if form == "keywords" else texts[query],
                form=form,
                shape=shape,
                group=find_group(collection.name, min(relevant[query])),
                answer=files if shape == "files" else shape_documents(answers, shape),
                near=shape_documents(wrong, shape),
                other=shape_documents(other, shape),
                far=(),
            )
        )
    return cases


def find_relevant(collection: Collection) -> dict[str, set[str]]:
    """The documents that answer each query."""
    least = LEAST_GRADES.get(collection.name, 1)
    return {
        query: {name for name, grade in grades.items() if grade >= least} & collection.corpus.keys()
        for query, grades in collection.qrels.items()
    }


def find_group(name: str, document: str) -> str:
    """What queries with the same answer share: in StackFAQ one question has several answers."""
    return f"{name} {document.partition('_')[0] if name == 'stackfaq' else document}"


def keywords(question: str) -> str:
    """A question's words without function words, if any are left."""
    words = re.findall(r"[\w'-]+", question)
    return " ".join(word for word in words if word.lower() not in FUNCTION_WORDS) or question


def reshape(texts: Sequence[str], shape: str) -> list[str]:
    """Passages as they are, as lines of a sentence each, or as files of several."""
    if shape == "lines":
        return [line for text in texts for line in sentences(text)]
    if shape == "files":
        places = range(0, len(texts), FILE_PASSAGES)
        return ["\n\n".join(texts[place : place + FILE_PASSAGES]) for place in places]
    return list(texts)


def sentences(text: str) -> list[str]:
    parts = re.split(r"(?<=[.!?])\s+(?=[\"'(A-Z0-9])|\n+", text)
    return [part for part in parts if part.strip()]


def score_cases(
    cases: Iterable[Case], reranker: Reranker, path: Path | None
) -> Iterator[tuple[Case, list[Best]]]:
    """The best scores of each case's lists: those in a file, or new ones, which are added to it."""
    rows_by_key: dict[tuple[str, str], dict[str, float]] = {}
    if path is not None and path.exists():
        for line in path.read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            rows_by_key[row.pop("set"), row.pop("query")] = row
    for case in cases:
        row = rows_by_key.get((case.set, case.query))
        if row is None:
            row = {
                kind: best_score(reranker, case.text, getattr(case, kind))
                for kind in ("answer", "near", "other", "far")
            }
            if path is not None:
                with path.open("a", encoding="utf-8") as stream:
                    stream.write(f"{json.dumps({'set': case.set, 'query': case.query, **row})}\n")
        facts = (case.set, case.form, case.shape)
        without = [Best(row[kind], kind, False, *facts) for kind in KINDS]
        answered = [
            Best(max(row["answer"], row[kind]), kind, True, *facts) for kind in ("near", "other")
        ]
        yield case, [*without, *answered]


def best_score(reranker: Reranker, query: str, texts: Sequence[str]) -> float:
    ranking = reranker.rank(query, texts, n=1)
    return round(ranking[0].raw_score, 4) if ranking else -math.inf


def choose_mark(lists: Sequence[Best], typed_scores: Mapping[str, Sequence[float]]) -> float:
    """The highest multiple of a half by which few enough lists with an answer are weak."""
    answered = [best for best in lists if best.has_answer]
    limits = {
        OTHER_WORDS: highest_mark([best.score for best in answered if best.set == OTHER_WORDS]),
        "other sets": highest_mark([best.score for best in answered if best.set != OTHER_WORDS]),
    }
    examples = typed_scores[TYPED_TO_CHOOSE]
    limits[TYPED_TO_CHOOSE] = sorted(examples)[int(LARGEST_SHARE * len(examples))]
    for name, limit in limits.items():
        print(f"{name}: at most 5 % are below {limit:.2f}")
    return math.floor(2 * min(limits.values())) / 2


def highest_mark(scores: Sequence[float]) -> float:
    """The highest mark by the scores of lists with an answer, two of each query.

    As both are much the same, they count as one.
    """
    queries = len(scores) // 2
    most = 0
    while chance_of_at_most(most + 1, queries) <= 1 - CERTAINTY:
        most += 1
    return sorted(scores)[2 * most]


def chance_of_at_most(count: int, trials: int) -> float:
    """How likely so few of the trials are called weak, if `LARGEST_SHARE` of all are."""
    return math.fsum(
        math.comb(trials, number) * LARGEST_SHARE**number * (1 - LARGEST_SHARE) ** (trials - number)
        for number in range(count + 1)
    )


def print_rates(lists: Sequence[Best], mark: float) -> None:
    """How many lists are called weak, by what they are made of."""
    print(f"| | with an answer | {' | '.join(KINDS)} |")
    print("|---|---|---|---|---|")
    sets = [best for best in lists if best.set != OTHER_WORDS]
    parts = {f"all but {OTHER_WORDS}": sets}
    for best in lists:
        for value in (best.set, best.form, best.shape):
            parts.setdefault(value, []).append(best)
    for name, own in parts.items():
        cells = [
            rate([best.score < mark for best in own if (best.has_answer, best.kind) in columns])
            for columns in ([(True, kind) for kind in KINDS], *([(False, kind)] for kind in KINDS))
        ]
        print(f"| {name} | {' | '.join(cells)} |")


def rate(calls: Sequence[bool]) -> str:
    """A count, and its share with Wilson's interval of 95 %."""
    count, total = sum(calls), len(calls)
    share, z = count / total, 1.96
    middle = (share + z * z / (2 * total)) / (1 + z * z / total)
    half = z * math.sqrt(share * (1 - share) / total + z * z / (4 * total**2)) / (1 + z**2 / total)
    low, high = max(0.0, middle - half), min(1.0, middle + half)
    return f"{count} of {total}, {share:.0%} ({low:.0%} to {high:.0%})"


def print_acceptance(lists: Sequence[Best], mark: float, seed: int) -> None:
    """Of 20 lists without an answer, by kind, and of 200 with one, drawn at random."""
    draw = random.Random(seed)
    print()
    for kinds in (("other", "far"), *((kind,) for kind in KINDS)):
        own = [best for best in lists if not best.has_answer and best.kind in kinds]
        call_count = sum(best.score < mark for best in draw.sample(own, 20))
        print(f"of 20 lists without an answer ({' or '.join(kinds)}) {call_count} are called weak")
    answered = [best for best in lists if best.has_answer]
    call_count = sum(best.score < mark for best in draw.sample(answered, 200))
    print(f"of 200 lists with one {call_count} are called weak")


def print_growth(cases: Sequence[Case], reranker: Reranker, seed: int) -> None:
    """The best scores of lines of other sets than the query's, by the number of lines."""
    draw = random.Random(seed)
    lines: dict[str, set[str]] = {}
    for case in cases:
        lines.setdefault(case.set.partition("-")[0], set()).update(
            line for text in case.other for line in sentences(text)
        )
    best: dict[int, list[float]] = {size: [] for size in GROWTH_SIZES}
    for case in draw.sample(cases, min(GROWTH_QUERIES, len(cases))):
        name = case.set.partition("-")[0]
        strangers = [line for other, own in lines.items() if other != name for line in sorted(own)]
        texts = draw.sample(strangers, min(GROWTH_SIZES[-1], len(strangers)))
        ranking = reranker.rank(case.text, texts)
        for size, scores in best.items():
            scores.append(max(each.raw_score for each in ranking if each.index < size))
    print("| lines | median of the best raw score | a tenth is above |")
    print("|---|---|---|")
    for size, scores in best.items():
        ordered_scores = sorted(scores)
        middle, high = (
            ordered_scores[len(ordered_scores) // 2],
            ordered_scores[int(0.9 * len(ordered_scores))],
        )
        print(f"| {size:,} | {middle:.2f} | {high:.2f} |", flush=True)


def try_typed(reranker: Reranker) -> dict[str, list[float]]:
    """Print each query that one might type with its best score; return the scores by name."""
    scores_by_title = {}
    for folder, kinds in tomllib.loads(QUERIES.read_text(encoding="utf-8")).items():
        for kind, queries in kinds.items():
            scores = scores_by_title[f"typed on {folder}/, {kind}"] = list[float]()
            for source, query in ((path, query) for path, own in queries.items() for query in own):
                inputs = Inputs(texts=[], paths=[str(ROOT / source)], recursive=True)
                inputs.check()
                best = reranker.submit(query, inputs, Selection(n=1)).result()[0]
                text = " ".join(best.passage.text.split())
                print(f"{best.raw_score:6.2f} {source} | {query} | {text[:60]}", flush=True)
                scores.append(best.raw_score)
    return scores_by_title


if __name__ == "__main__":
    main()
