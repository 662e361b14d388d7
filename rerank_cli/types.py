"""The values that flow through a ranking, and the protocols of scorers.

    Document ─ Chunk ─ Pair ─ Scorer ─ Scored ─ Ranked ─ Ranking

The dataclasses are frozen. Those with many instances have slots; the others have none, because
slots make the import slower.
"""

import math
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, Literal, NamedTuple, Protocol, overload

from rerank_cli.costs import Price, ServiceRequest
from rerank_cli.structure import Block
from rerank_cli.terminal import format_count

_REPR_CHARACTERS = 40  # the most of a text in a repr

Scale = Literal["probability", "logit", "cosine", "unbounded", "unknown"]
Scope = Literal["pair", "set"]


@dataclass(frozen=True)
class Envelope:
    """What the records of one source share, and no record itself holds.

    `encoding` is that of their bytes, `mark` the byte-order mark before them. A table has a
    `header`, its first record with the terminator, and a `delimiter` between its fields.
    """

    encoding: str = "utf-8"
    mark: bytes = b""
    header: bytes = b""
    delimiter: str = ""


@dataclass(frozen=True)
class Media:
    """An image or a video.

    place  a URL, which may be a data URL, or the path of a file
    root   the folder that the file must be in, once links are followed; None for any file
    name   the path as a record has it; empty if it is the place
    """

    kind: Literal["image", "video"]
    place: str
    root: str | None = field(default=None, compare=False)
    name: str = field(default="", compare=False)


class Neighbours(NamedTuple):
    """The lines of a source around a document, without those that are far away.

    `lines` are a list that the documents near each other share, and that grows as they are read;
    those from `start` to `end` are the document's own. `before` and `behind` are the lists next to
    it. All are bytes with their line ends.
    """

    before: Sequence[bytes]
    lines: Sequence[bytes]
    behind: Sequence[bytes]
    start: int
    end: int

    def around(self, count: int) -> tuple[bytes, bytes, bytes]:
        """`count` lines before the document, its own lines, and `count` lines behind it."""
        first, last = self.start - count, self.end + count
        before = [*self.before[max(0, len(self.before) + first) :]] if first < 0 else []
        behind = self.behind[: max(0, last - len(self.lines))]
        return (
            b"".join((*before, *self.lines[max(0, first) : self.start])),
            b"".join(self.lines[self.start : self.end]),
            b"".join((*self.lines[self.end : last], *behind)),
        )


@dataclass(frozen=True, slots=True, repr=False)
class Document:
    """A text, an image or a video to rank, or a text with one of these, and where it came from.

    source    the path of its file, `-` for standard input; None for text that was given directly
    line      the line of the source where it begins, from 1
    fields    the other fields of a record; None for a line or a file
    raw       the record's own bytes with their terminator, which a pipe gives back
    title     text that is put before each chunk when it is scored
    envelope  the properties that it shares with the other documents of its source
    whole     whether it is all of its source
    media     the image or video
    text_is_label
              whether `text` only says what the image or video is called, and is not scored
    syntax    the syntax of its text, by which its structure is found, as `syntax_of` names it
    blocks    its structure, if that is known without its text; else None
    headings  the names of the parts around its text that begin before it, the outermost first
    source_lines
              the line of the source for each line of the text, if they are not the same
    page      the page of the source where it begins, from 1, of a source with pages
    page_starts
              the characters of the text at which the following pages begin
    neighbours
              the lines around a part of a text, if they are to be shown
    """

    text: str
    id: str | None = None
    source: str | None = None
    line: int | None = None
    fields: Mapping[str, Any] | None = None
    raw: bytes | None = None
    title: str = ""
    envelope: Envelope = Envelope()
    whole: bool = False
    media: Media | None = None
    text_is_label: bool = False
    syntax: str = ""
    blocks: Sequence[Block] | None = None
    headings: Sequence[str] = ()
    source_lines: Sequence[int] | None = None
    page: int | None = None
    page_starts: Sequence[int] = ()
    neighbours: Neighbours | None = field(default=None, compare=False)

    def __repr__(self) -> str:
        origin = {"id": self.id, "source": self.source, "line": self.line, "media": self.media}
        parts = [f"{name}={value!r}" for name, value in origin.items() if value is not None]
        return f"Document({', '.join([_short(self.text), *parts])})"


class Tokens(NamedTuple):
    """The tokens of a text: their ids, and the half-open span of characters of each."""

    ids: Sequence[int]
    spans: Sequence[tuple[int, int]]


class Tokenizer(Protocol):
    """Turns text into a model's tokens, without special tokens."""

    def encode(self, text: str) -> Tokens: ...

    def count(self, text: str) -> int:
        """The number of tokens that `encode` returns."""


def find_field(record: Mapping[str, Any], name: str) -> Any:
    """The value of a field, by its name or a dotted path; raises `LookupError` for none."""
    value: Any = record
    for key in [name] if name in record else name.split("."):
        if not isinstance(value, Mapping) or key not in value:
            raise LookupError(name)
        value = value[key]
    return value


def format_place(source: str | None, line: int | None = None, page: int | None = None) -> str:
    """A place as editors and compilers write it, `source:line`, or `source:p.31` for a page.

    It is empty without a source.
    """
    part = line if page is None else f"p.{page}"
    if source is None:
        return ""
    return source if part is None else f"{source}:{part}"


@dataclass(frozen=True, slots=True, repr=False)
class Chunk:
    """A window of a document: its characters from `start` to `end`, which are `tokens` tokens.

    `ids` are the tokens to score, made once from the whole document, because encoding `text` again
    could give others. They begin with the tokens of `title`, which `tokens` does not count. `title`
    is as much of the document's title as has room. `ids` is None for scorers that read text: these
    score `scored_text`. `headings` are the names of the sections, classes and functions that it is
    in, the outermost first.
    """

    document: Document
    start: int
    end: int
    text: str
    tokens: int
    ids: Sequence[int] | None = None
    title: str = ""
    headings: Sequence[str] = ()

    def __repr__(self) -> str:
        return f"Chunk({_short(self.text)}, start={self.start}, end={self.end})"

    @property
    def scored_text(self) -> str:
        """The text to score: the title, a newline, and the chunk's text."""
        return f"{self.title}\n{self.text}" if self.title else self.text

    @property
    def line(self) -> int | None:
        """The line of the source where the chunk begins, from 1; of a record, its first line."""
        first = self.document.line
        if first is None or self.document.fields is not None:
            return first
        place = self.document.text.count("\n", 0, self.start)
        lines = self.document.source_lines
        return lines[min(place, len(lines) - 1)] if lines else first + place

    @property
    def page(self) -> int | None:
        """The page of the source where the chunk begins, from 1; None if that has no pages."""
        first = self.document.page
        return (
            None if first is None else first + bisect_right(self.document.page_starts, self.start)
        )

    @property
    def place(self) -> str:
        """Where it begins, as in `notes.md:12` and `manual.pdf:p.31`; empty without a source."""
        return format_place(self.document.source, self.line, self.page)

    @property
    def heading(self) -> str:
        """Its headings in one line, as in `Guide › Pests › Slugs`; empty if it has none."""
        return " › ".join(self.headings)


class Pair(NamedTuple):
    """A query, and a chunk to score for it."""

    query: str
    chunk: Chunk

    @classmethod
    def from_texts(cls, query: str, text: str) -> "Pair":
        """A pair of two texts. The second one is a single chunk, whose tokens are not counted."""
        return cls(query, Chunk(Document(text), 0, len(text), text, 0))


@dataclass(frozen=True)
class TextLimits:
    """The most that a service takes of a text, besides `ScorerInfo.length`; None for no limit.

    passage, query      tokens
    passage_characters  characters of a passage with its title
    query_characters    characters of a query
    sure_tokens         the number of tokens of a text that are certainly read. A longer text is
                        sent all the same, with `unsure_note` for the user
    """

    passage: int | None = None
    query: int | None = None
    passage_characters: int | None = None
    query_characters: int | None = None
    sure_tokens: int | None = None
    unsure_note: str = ""


class ScoreCalibration(Protocol):
    """Maps a model's raw scores to probabilities: see `ranking.calibration`."""

    @property
    def is_current(self) -> bool: ...

    @property
    def cut(self) -> float | None: ...

    @property
    def rule(self) -> str: ...

    def probability(self, score: float) -> float: ...

    def summary(self) -> Mapping[str, Any]: ...


@dataclass(frozen=True, repr=False)
class ScorerInfo:
    """What is known about a scorer before it scores.

    scale         what kind of number a raw score is
    scope         "set" if a score depends on the other documents, else "pair"
    window        the number of passage tokens that it reads well; None if unknown
    length        the most tokens of a pair, special tokens included; None if unlimited
    limits        other limits of texts, which services have
    specials      the number of special tokens of a pair
    remote        whether texts leave the machine
    estimated     whether its tokenizer only estimates tokens; it mostly counts too many
    cuts          whether it cuts long documents into chunks of a given size
    media         the kinds of media that it scores
    mixed         those that it scores together with a text, in one document
    languages     the codes of the languages that it reads; empty if unknown
    unmatched_score
                  the score of a text without a word of the query, and of no other; None for none
    weak_below    if the best raw score is below it, probably nothing answers; None if unknown
    spare_tokens  the number of tokens that can be scored in addition without a noticeable delay
    query_tokens  counts the tokens of a query, if these are not just its own
    content_key   for a scorer that reads more than texts and titles, the bytes that the scores of
                  a document's chunks depend on. Documents of one key share their scores
    preferred_batch    the number of documents to give it at once
    max_pending_pairs  the number of pairs that keep it busy
    calibration   maps its raw scores to probabilities; None if nobody has measured that
    pair_tokens   the work of a pair besides its tokens, in tokens, to estimate the time left
    """

    name: str
    revision: str
    scale: Scale
    scope: Scope = "pair"
    window: int | None = None
    length: int | None = None
    limits: TextLimits = TextLimits()
    specials: int = 0
    tokenizer: Tokenizer | None = None
    remote: bool = False
    estimated: bool = False
    cuts: bool = False
    media: frozenset[str] = frozenset()
    mixed: frozenset[str] = frozenset()
    languages: Sequence[str] = ()
    unmatched_score: float | None = None
    weak_below: float | None = None
    spare_tokens: int = 250
    query_tokens: Callable[[str], int] | None = None
    content_key: Callable[[Sequence[Chunk]], bytes] | None = None
    preferred_batch: int = 256
    max_pending_pairs: int = 0
    pair_tokens: int = 20
    calibration: ScoreCalibration | None = None

    @property
    def model(self) -> str:
        """The name and revision, as in `mini@3`."""
        return f"{self.name}@{self.revision}" if self.revision else self.name

    @property
    def is_bounded(self) -> bool:
        """Whether relevance scores are from 0 to 1."""
        return self.scale in ("logit", "probability") or self.is_calibrated

    @property
    def is_calibrated(self) -> bool:
        """Whether relevance scores are probabilities that somebody has measured."""
        return self.calibration is not None and self.calibration.is_current

    @property
    def facts(self) -> "ScorerInfo":
        """The same without its functions, which belong to an open model."""
        return replace(self, tokenizer=None, query_tokens=None, content_key=None)

    def __repr__(self) -> str:
        return f"ScorerInfo({self.model!r}, scale={self.scale!r}, scope={self.scope!r})"


@dataclass(frozen=True)
class Scored:
    """A scorer's answer: a raw score for each pair, in the order of the pairs.

    `usage` counts what was spent (`total_tokens`, …), and `requests` are those that were sent to a
    service for it. `notes` are messages for the user. `missing` counts scores that were wanted and
    not given, and `cached` those that were known from before.
    """

    values: Sequence[float | None]
    usage: Mapping[str, int] = field(default_factory=dict)
    notes: Sequence[str] = ()
    missing: int = 0
    requests: Sequence[ServiceRequest] = ()
    cached: int = 0


class Scorer(Protocol):
    """Scores pairs of query and chunk.

    Every scorer keeps this contract:

    - It returns as many values as there are pairs, in their order. Pairs may mix queries.
    - Values are plain finite floats; higher is better. None stands only for a pair that a service
      gave no score. With `keep`, a service need score only the best `keep` pairs.
    - With `info.scope` "pair", a value depends on its own query and chunk alone.
    - It does not sort, print or cut anything. It raises only `ScorerError`.
    """

    @property
    def info(self) -> ScorerInfo: ...

    def score(self, pairs: Sequence[Pair], keep: int | None = None) -> Scored: ...


class Prior(NamedTuple):
    """The value of facts about a passage besides its text: for each part, a number in logits.

    It is added to the model's score. The parts are those of `rerank_cli.ranking.places`.
    """

    parts: Mapping[str, float] = {}

    @property
    def total(self) -> float:
        """The sum of the parts."""
        return math.fsum(self.parts.values())


class ScoredChunk(NamedTuple):
    """A chunk, its raw score and its relevance score."""

    chunk: Chunk
    raw_score: float
    relevance_score: float


@dataclass(frozen=True, slots=True)
class Blank:
    """A document without a score, and its place in the input, from 0."""

    index: int
    document: Document


class Blend(NamedTuple):
    """The places of a result in the model's order, and in the earlier order joined with it.

    score        the sum of both reciprocal ranks, which decides the order of results
    rank         its place by the model's score, from 1
    prior_rank   its place in the earlier order, from 1
    prior_score  its earlier score; None if the earlier order is that of the input
    """

    score: float
    rank: int
    prior_rank: int
    prior_score: float | None


class Stage(NamedTuple):
    """A model of a cascade, and what it has judged.

    pairs    the number of pairs that it has scored; those whose scores were remembered do not count
    results  how many results of the models before it; None for the first one, which judges all, and
             for one that has not begun
    """

    info: ScorerInfo
    pairs: int
    results: int | None


@dataclass(frozen=True, slots=True, repr=False)
class Ranked:
    """A document with its scores.

    rank             its place in the ranking, from 1
    index            its place in the input, from 0
    raw_score        the model's score, which decides the rank unless there is a `prior` or `blend`
    relevance_score  `score`, in 0..1 if the scale is known
    passage          the chunk that decided the score
    passage_score    the raw score of that chunk
    tokens, chunks   the tokens of the document, and the chunks that were scored
    dropped          the tokens that were in no chunk
    explanation      with `explain`, all chunks with their scores, in the document's order; with
                     `best_passages` the best ones, best first
    stage            the place in `Ranking.stages` of the model that judged it, from 0
    blend            how its place was found, if an earlier order counts too
    prior            the value of facts about the document and the passage besides the text; None if
                     the ranking has no prior

    In a ranking of passages, `index`, `tokens` and `chunks` are those of the passage. If a first
    stage chose the passages, `chunks` counts the chosen ones, and `index` counts these too in a
    ranking of passages.
    """

    rank: int
    index: int
    raw_score: float
    relevance_score: float
    document: Document
    passage: Chunk
    passage_score: float
    tokens: int
    chunks: int
    dropped: int
    explanation: Sequence[ScoredChunk] = ()
    stage: int = 0
    blend: Blend | None = None
    prior: Prior | None = None

    @property
    def score(self) -> float:
        """The score that decides the rank: the raw score, with the prior if there is one."""
        return self.raw_score if self.prior is None else self.raw_score + self.prior.total

    @property
    def truncated(self) -> bool:
        """Whether part of the document was not scored."""
        return self.dropped > 0

    def __repr__(self) -> str:
        return (
            f"Ranked(rank={self.rank}, index={self.index}, "
            f"relevance_score={self.relevance_score:.7g}, document={self.document!r})"
        )


class Candidates(NamedTuple):
    """The passages that a model read, chosen from more by a first stage.

    read         the number of those that were chosen
    total        the number of all passages, which may be an estimate: `is_estimate`
    first_stage  what chose them: "hybrid", "bm25" or "input"
    """

    read: int
    total: int
    is_estimate: bool
    first_stage: str


class UnreadReason(StrEnum):
    """The limit that ended a ranking before all was read."""

    MAX_TIME = "max-time"
    MAX_COST = "max-cost"


class Unread(NamedTuple):
    """What the model did not read, as a budget of time or money was spent.

    read           the number of passages that it did read
    passages       the number of others, which may be an estimate: `is_estimate`
    documents      the number of documents that it read nothing of; they are not among the results
    partial        the number of documents that it read only some passages of
    is_input_read  whether all of the input was read; else only what was read is counted
    reason         the limit: "max-time" or "max-cost"
    """

    read: int
    passages: int
    documents: int
    partial: int
    is_estimate: bool
    is_input_read: bool
    reason: str


@dataclass(frozen=True, repr=False)
class Ranking(Sequence[Ranked]):
    """The results of one query, best first, and what they took. A sequence of `Ranked`.

    query           the query as it was scored; `query_cut` if part of it was cut off
    info            the `facts` of the model: a ranking can be pickled, and keeps no model in memory
    documents       the number of documents in the input; `empty` are blank, and not scored
    duplicates      the number of documents that got the score of an equal one
    chunks, tokens  those of all documents; with `candidates`, the chosen chunks, and the tokens of
                    the documents that have some
    cut, dropped    the number of documents that were cut, and of tokens that were not scored
    missing         the number of documents to which a service gave no score
    cached          the number of scores that were known from an earlier run
    unmatched       the number of results left out, as they have no word of the query
    more            with `count_rest`, the number of results and blank documents beyond `n`
    usage           what was spent, as a service counts it
    notes           messages for the user
    requests        what was sent to a service, in the order of the documents; the first 1,000
    cost            what all of these requests cost, if that is known
    blanks          with `keep_empty`, the blank documents
    reranked        False if scoring failed: then `blanks` has the first documents of the input
    weak            whether probably nothing answers the query; None if it is unknown
    absent          the query's name, if the query is a name and nothing that was read has it; else
                    empty
    incomplete      whether the ranking was stopped before all was read and scored
    unscored        the number of documents that were read by then and not scored, or not whole;
                    in a ranking of passages, and with `candidates`, the number of passages
    best_below      if no result reached `min_score`, the best score; else None
    candidates      the passages that the model read; None if it read all
    is_blended      whether the model's order is joined with an earlier one
    prior_field     the field of documents with their earlier scores; None for the input's order
    stages          the models of a cascade; results of a later one stand above those of an earlier
                    one, and `info` is the model that judged the first result
    unread          what it did not read, as a budget was spent; None if it read all of these. Then
                    `chunks` and `tokens` are those of documents of which it read something
    prior           the prior that scores include: "code"; None for none
    """

    query: str
    info: ScorerInfo
    results: Sequence[Ranked]
    documents: int
    empty: int
    duplicates: int
    chunks: int
    tokens: int
    cut: int
    dropped: int
    usage: Mapping[str, int]
    query_cut: bool = False
    notes: Sequence[str] = ()
    blanks: Sequence[Blank] = ()
    missing: int = 0
    reranked: bool = True
    unmatched: int = 0
    requests: Sequence[ServiceRequest] = ()
    cost: Price | None = None
    weak: bool | None = None
    absent: str = ""
    more: int = 0
    incomplete: bool = False
    unscored: int = 0
    best_below: float | None = None
    cached: int = 0
    candidates: Candidates | None = None
    stages: Sequence[Stage] = ()
    is_blended: bool = False
    prior_field: str | None = None
    unread: Unread | None = None
    prior: str | None = None

    @property
    def is_in_order_of_scores(self) -> bool:
        """Whether the scores of all results are of one model, and fall from first to last."""
        return not self.is_blended and len({result.stage for result in self.results}) <= 1

    @property
    def truncated(self) -> bool:
        """Whether part of the query, or of a document, was not scored."""
        return self.query_cut or self.cut > 0 or self.missing > 0

    def __repr__(self) -> str:
        results = format_count(len(self.results), "result")
        counts = f"{results} of {format_count(self.documents, 'document')}"
        return f"<Ranking for {_short(self.query)} by {self.info.model}: {counts}>"

    def __len__(self) -> int:
        return len(self.results)

    @overload
    def __getitem__(self, place: int) -> Ranked: ...

    @overload
    def __getitem__(self, place: slice) -> Sequence[Ranked]: ...

    def __getitem__(self, place: int | slice) -> Ranked | Sequence[Ranked]:
        return self.results[place]


def _short(text: str) -> str:
    """A text for a repr: its first characters, quoted."""
    return repr(text if len(text) <= _REPR_CHARACTERS else f"{text[: _REPR_CHARACTERS - 1]}…")
