"""The values that flow through a ranking: what every other module speaks in.

Frozen dataclasses and protocols, which do nothing by themselves. Those that a run makes many of
have slots; for the others slots would take longer to import than they save.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, Protocol, overload, runtime_checkable

_SHOWN_CHARACTERS = 40  # of a text in a repr

Scale = Literal["probability", "logit", "cosine", "unbounded", "unknown"]
Scope = Literal["pair", "set"]


@dataclass(frozen=True)
class Envelope:
    """What the records of a source share and none of them holds.

    `encoding` is that of their bytes, `mark` the byte-order mark before them, `header` the first
    record of a table (its terminator included) and `delimiter` what stands between its fields.
    """

    encoding: str = "utf-8"
    mark: bytes = b""
    header: bytes = b""
    delimiter: str = ""


@dataclass(frozen=True)
class Media:
    """An image or a video: its `place` is a URL (a data URL too) or the path of a file."""

    kind: Literal["image", "video"]
    place: str


@dataclass(frozen=True, slots=True, repr=False)
class Document:
    """One thing to be ranked, and where it came from.

    `raw` holds the record's own bytes with their terminator, so that a pipe gives back what it
    was given; `line` counts from 1; `fields` holds the record's other fields, and is None where
    the text is the source's own (a line, a file). `whole` says that it is all of its source. A
    `title` is put before each chunk that is scored. `media` has what people are shown as its text.
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

    def __repr__(self) -> str:
        place = {"id": self.id, "source": self.source, "line": self.line, "media": self.media}
        given = [f"{name}={value!r}" for name, value in place.items() if value is not None]
        return f"Document({', '.join([_short(self.text), *given])})"


class Tokens(NamedTuple):
    """A text in a scorer's tokens: ids, and each one's half-open span of characters."""

    ids: Sequence[int]
    spans: Sequence[tuple[int, int]]


class Tokenizer(Protocol):
    """Turns text into the tokens that a scorer counts in, with no special tokens added."""

    def encode(self, text: str) -> Tokens: ...

    def count(self, text: str) -> int:
        """How many tokens `encode` gives."""


@dataclass(frozen=True, slots=True, repr=False)
class Chunk:
    """A window of a document: characters `start` to `end`, `tokens` of the scorer's tokens.

    `ids` are the tokens to score, made once from the document and carried here: encoding `text`
    again could give others. Those of the `title` (the document's, or what there is room for) come
    first and are not in `tokens`. None for a scorer that reads text: it scores `scored_text`.
    """

    document: Document
    start: int
    end: int
    text: str
    tokens: int
    ids: Sequence[int] | None = None
    title: str = ""

    def __repr__(self) -> str:
        return f"Chunk({_short(self.text)}, start={self.start}, end={self.end})"

    @property
    def scored_text(self) -> str:
        """The text as it is scored: with the title before it."""
        return f"{self.title}\n{self.text}" if self.title else self.text

    @property
    def line(self) -> int | None:
        """The line of the source on which the window's text begins, counting from 1."""
        first = self.document.line
        if first is None or self.document.fields is not None:
            return first
        return first + self.document.text.count("\n", 0, self.start)


class Pair(NamedTuple):
    """A query and the chunk to be scored against it."""

    query: str
    chunk: Chunk

    @classmethod
    def from_texts(cls, query: str, text: str) -> "Pair":
        """A pair of two texts, the second as it is: not cut, and its tokens not counted."""
        return cls(query, Chunk(Document(text), 0, len(text), text, 0))


@dataclass(frozen=True, repr=False)
class ScorerInfo:
    """What is known of a scorer before it scores.

    `window` is the number of passage tokens it reads well at once, `length` the most it takes in
    one sequence, query and `specials` (special tokens of a pair) included; None where none is set.
    `scope` is "set" where a score depends on the other documents. An `estimated` tokenizer counts
    rather too many tokens; `query_tokens` counts those of a query, where not just its own count. It
    scores `media` and reads `languages`. It is best given `preferred_batch` documents at once, and
    is busy with `max_pending_pairs` pairs under way.
    """

    name: str
    revision: str
    scale: Scale
    scope: Scope = "pair"
    window: int | None = None
    length: int | None = None
    specials: int = 0
    tokenizer: Tokenizer | None = None
    remote: bool = False
    estimated: bool = False
    media: frozenset[str] = frozenset()
    languages: Sequence[str] = ()
    query_tokens: Callable[[str], int] | None = None
    preferred_batch: int = 256
    max_pending_pairs: int = 0

    @property
    def model(self) -> str:
        """The name by which a result says what scored it, as in `mini@2`."""
        return f"{self.name}@{self.revision}" if self.revision else self.name

    def __repr__(self) -> str:
        return f"ScorerInfo({self.model!r}, scale={self.scale!r}, scope={self.scope!r})"


@dataclass(frozen=True)
class Scored:
    """A scorer's answer: one raw score a pair, in the order of the pairs.

    `usage` counts what was spent (`total_tokens`, …), `trace_ids` name a service's requests,
    `notes` are for the user to read; `missing` scores were asked for and not given.
    """

    values: Sequence[float | None]
    usage: Mapping[str, int] = field(default_factory=dict)
    trace_ids: Sequence[str] = ()
    notes: Sequence[str] = ()
    missing: int = 0


class Scorer(Protocol):
    """Scores pairs of query and chunk.

    The contract, which every scorer keeps:

    - as many values as pairs, in the pairs' order, whatever their queries;
    - plain finite floats, higher is better; None only for pairs that a service gave none: those
      beyond the best `keep`, where so many are wanted, or more of them;
    - with `info.scope` "pair", a value depends on its own query and chunk and on nothing else;
    - no sorting, no printing, nothing cut; raises only `ScorerError`.
    """

    @property
    def info(self) -> ScorerInfo: ...

    def score(self, pairs: Sequence[Pair], keep: int | None = None) -> Scored: ...


@runtime_checkable
class SurveyingScorer(Scorer, Protocol):
    """A scorer that must have seen a whole collection before it can score any of it.

    `over` goes through the pairs once, holds figures about them and not themselves, and gives a
    scorer of which each value depends on its own pair and those figures.
    """

    def over(self, pairs: Iterable[Pair]) -> Scorer: ...


class Part(NamedTuple):
    """The scores of some pairs, and the places of these among all that were given."""

    places: Sequence[int]
    scored: Scored


class ScoringJob(Protocol):
    """Pairs that are being scored."""

    def cancel(self) -> None:
        """Score none of those that have not begun; may be called from any thread, and often."""


@runtime_checkable
class ConcurrentScorer(Scorer, Protocol):
    """A scorer that works on the pairs of many callers at once, and may be used by many threads.

    `start` begins to score pairs and returns. It keeps the contract of `score`, a part at a time:
    `receive` is called from the scorer's threads, until each place was in a part, or with the
    exception that ends the job. Between clients the work is shared out fairly. `account` says for
    a person what all scoring has taken. `close` ends the scorer's threads.
    """

    def start(
        self,
        pairs: Sequence[Pair],
        receive: Callable[[Part | BaseException], None],
        *,
        keep: int | None = None,
        client: object = None,
    ) -> ScoringJob: ...

    def account(self) -> str: ...

    def close(self) -> None: ...


class Progress(NamedTuple):
    """How far a ranking has come: documents and pairs scored, of as many documents as were read.

    Of a document that is scored in part, that part counts. While the collection is surveyed, before
    anything is scored, `read` alone counts.
    """

    documents: float
    pairs: int
    read: int
    surveying: bool = False


Watch = Callable[[Progress], None]


class ScoredChunk(NamedTuple):
    """A chunk, its raw score, and the relevance that this is."""

    chunk: Chunk
    raw_score: float
    relevance_score: float


@dataclass(frozen=True, slots=True)
class Blank:
    """A document without a score, and its place in the input from 0."""

    index: int
    document: Document


@dataclass(frozen=True, slots=True, repr=False)
class Ranked:
    """A document in its place: rank from 1, `index` its place in the input from 0.

    `raw_score` is what it is ranked by, `relevance_score` the same in 0..1 where the scale is known
    and equal to `raw_score` where it is not. `passage` is the window that decided, with the raw
    score `passage_score`. `tokens` counts the document's tokens, `chunks` the windows scored,
    `dropped` the tokens that lay in none. In a ranking of passages `index`, `tokens` and `chunks`
    are the passage's own. `explanation` has every chunk, in the document's order, where one was
    asked for.
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

    @property
    def truncated(self) -> bool:
        """Whether some of the document was not scored."""
        return self.dropped > 0

    def __repr__(self) -> str:
        return (
            f"Ranked(rank={self.rank}, index={self.index}, "
            f"relevance_score={self.relevance_score:.7g}, document={self.document!r})"
        )


@dataclass(frozen=True, repr=False)
class Ranking(Sequence[Ranked]):
    """The results of one query, best first, and what it took to get them.

    A sequence of `Ranked`. `query` is as it was scored, and `query_cut` says that some of it was
    not. `documents` counts the input, `empty` the blank documents set aside, `duplicates` those
    that had the score of an equal one before them, `cut` the documents of which `dropped` tokens in
    all were not scored, and `missing` those that a service gave no score though all of them were
    wanted. `chunks` and `tokens` are those of all documents. `blanks` are documents without a
    score, where they were to be kept: blank ones or, where `reranked` is False because scoring
    failed, the first ones in the order of the input.
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

    @property
    def truncated(self) -> bool:
        """Whether anything, of the query or of a document, was not scored."""
        return self.query_cut or self.cut > 0 or self.missing > 0

    def __repr__(self) -> str:
        counts = f"{len(self.results)} results of {self.documents} documents"
        return f"<Ranking for {_short(self.query)} by {self.info.model}: {counts}>"

    def __len__(self) -> int:
        return len(self.results)

    @overload
    def __getitem__(self, place: int) -> Ranked: ...

    @overload
    def __getitem__(self, place: slice) -> Sequence[Ranked]: ...

    def __getitem__(self, place: int | slice) -> Ranked | Sequence[Ranked]:
        return self.results[place]


class Price(NamedTuple):
    """What is asked for some requests, and who says so."""

    amount: float
    currency: str
    source: str

    def __str__(self) -> str:
        return f"about {self.amount:g} {self.currency}"


@runtime_checkable
class PricedScorer(Scorer, Protocol):
    """A scorer that sends requests, for which its provider may ask a price.

    `requests` counts those so far: `sent`, `retried` and `halved`. `price_of` gives the price of so
    many requests with so many tokens in all; None where it is not known.
    """

    @property
    def requests(self) -> Mapping[str, int]: ...

    def price_of(self, requests: int, tokens: int) -> Price | None: ...


@runtime_checkable
class InstructedScorer(Scorer, Protocol):
    """A scorer that may take an instruction: what the model is to look for.

    `with_instruction` gives one that shares all else with it, and raises `UsageError` for a model
    that takes none.
    """

    def with_instruction(self, instruction: str) -> Scorer: ...


def _short(text: str) -> str:
    """A text for a repr: its first characters, quoted."""
    return repr(text if len(text) <= _SHOWN_CHARACTERS else f"{text[: _SHOWN_CHARACTERS - 1]}…")
