"""A scorer with a cache: it looks scores up in a `ScoreFile`, and scores the other pairs.

A key is a digest of all that a score depends on: `LastingScorer.identity`, the query, and the
scored content of the passage. The keys of one query have the same beginning, so that their rows are
next to each other. No text is in the file.
"""

import threading
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from hashlib import blake2b
from typing import TYPE_CHECKING

from rerank_cli.costs import Price, RequestTotals
from rerank_cli.media import has_lasting_content
from rerank_cli.ranking.budget import Spending
from rerank_cli.ranking.powers import (
    Encoder,
    LastingScorer,
    NetworkScorer,
    Part,
    PassageCounts,
    ScoringJob,
)
from rerank_cli.ranking.text_memory import TextMemory
from rerank_cli.scorers.scheduler import wait_for_scores
from rerank_cli.scorers.score_file import KEY_BYTES, ScoreFile
from rerank_cli.terminal import format_count
from rerank_cli.types import Chunk, Media, Pair, Scored, Scorer, ScorerInfo

if TYPE_CHECKING:
    from rerank_cli.scorers.dry_run import DryRunScorer
    from rerank_cli.scorers.remote import RemoteScorer

_QUERY_BYTES = 8  # of a key, which the keys of a query and a scorer share


def save_scores(scorers: Iterable[Scorer]) -> Sequence[str]:
    """Write the scores that caching scorers have kept so far; return notes for the user."""
    notes: dict[str, None] = {}  # several scorers have the same file
    for scorer in scorers:
        if isinstance(scorer, CachedScorer):
            scorer.file.flush()
            notes |= dict.fromkeys(scorer.file.take_notes())
    return [*notes]


class CachedScorer:
    """Another `scorer`, whose scores are kept in a file; a `ConcurrentScorer`.

    It has the other powers of that scorer.
    """

    def __init__(self, scorer: LastingScorer, file: ScoreFile) -> None:
        self.scorer = scorer
        self.info = scorer.info
        self.file = file
        identity = scorer.identity
        self._identity = blake2b(identity.encode("utf-8", "surrogatepass")).digest()
        self._is_lasting = bool(identity)
        # How many scores were needed and known, also by the same model with other instructions.
        self._counts: Counter[str] = Counter()
        self._count_lock = threading.Lock()

    def with_instruction(self, instruction: str) -> "CachedScorer":
        """The same scorer with another instruction; raises `UsageError` if its model takes none."""
        return self._with(self.scorer.with_instruction(instruction))

    def score(self, pairs: Sequence[Pair], keep: int | None = None) -> Scored:
        """Look pairs up, and score those that are not known."""
        return wait_for_scores(self, pairs, keep)

    def start(
        self,
        pairs: Sequence[Pair],
        receive: Callable[[Part | BaseException], None],
        *,
        keep: int | None = None,
        client: object = None,
    ) -> ScoringJob:
        """Give the scores that are known, and begin to score the rest; see `ConcurrentScorer`."""
        if not self._is_lasting:
            return self.scorer.start(pairs, receive, keep=keep, client=client)
        keys = self._keys(pairs)
        known_scores = self.file.find([key for key in keys if key])
        places = [place for place, key in enumerate(keys) if key in known_scores]
        rest = [place for place, key in enumerate(keys) if key not in known_scores]
        with self._count_lock:
            self._counts.update(scores=len(keys), known=len(places))
        if places:
            values = [known_scores[keys[place]] for place in places]
            scored = self.scorer.recall([pairs[place] for place in places], values)
            notes = (*scored.notes, *self.file.take_notes())
            receive(Part(places, replace(scored, notes=notes, cached=len(places))))
        if not rest:
            return _EmptyJob()

        def take(part: Part | BaseException) -> None:
            if isinstance(part, BaseException):
                receive(part)
                return
            whole = [rest[place] for place in part.places]
            self._keep([keys[place] for place in whole], part.scored.values)
            if notes := self.file.take_notes():
                part = part._replace(
                    scored=replace(part.scored, notes=(*part.scored.notes, *notes))
                )
            receive(Part(whole, part.scored))

        # A request asks for the scores of all its documents, whatever `keep` is: it costs the same,
        # and the next run needs them.
        return self.scorer.start([pairs[place] for place in rest], take, client=client)

    def find_missing_pairs(self, pairs: Sequence[Pair]) -> list[Pair]:
        """The pairs that would have to be scored."""
        if not self._is_lasting:
            return list(pairs)
        keys = self._keys(pairs)
        known_scores = self.file.find([key for key in keys if key])
        return [pair for pair, key in zip(pairs, keys, strict=True) if key not in known_scores]

    @property
    def passage_counts(self) -> PassageCounts | None:
        """How often the scorer read a passage, and knew it from before."""
        return self.scorer.passage_counts if isinstance(self.scorer, NetworkScorer) else None

    @property
    def shipped_encoder(self) -> Encoder | None:
        """Makes the vector of a query, if the scorer has the model that ships open."""
        return self.scorer.shipped_encoder if isinstance(self.scorer, NetworkScorer) else None

    @property
    def text_memory(self) -> TextMemory | None:
        """The scorer's memory of texts."""
        return self.scorer.text_memory if isinstance(self.scorer, NetworkScorer) else None

    def account(self) -> str:
        """The scorer's account, and how many scores were known."""
        with self._count_lock:
            score_count, known_count = self._counts["scores"], self._counts["known"]
        words = f"cache: {known_count:,} of {format_count(score_count, 'score')} known from before"
        if not self._is_lasting:
            words = "cache: not used, as these scores may differ the next time"
        elif self.file.problem:
            words += f"; {self.file.problem}"
        return "\n".join(filter(None, [self.scorer.account(), words]))

    def close(self) -> None:
        """End the scorer's threads, and write what was scored."""
        self.scorer.close()
        self.file.close()

    def _with(self, scorer: LastingScorer) -> "CachedScorer":
        """Another scorer with the same file and the same counts."""
        other = type(self)(scorer, self.file)
        other._counts, other._count_lock = self._counts, self._count_lock
        return other

    def _keep(self, keys: Sequence[bytes], values: Sequence[float | None]) -> None:
        scores = {
            key: value for key, value in zip(keys, values, strict=True) if key and value is not None
        }
        self.file.put(scores, self.info.model)

    def _keys(self, pairs: Sequence[Pair]) -> list[bytes]:
        """The key of each pair; empty for one whose score may change."""
        starts = {}
        for query in {pair.query for pair in pairs}:
            content = query.encode("utf-8", "surrogatepass")
            head = self._identity + len(content).to_bytes(8, "little") + content
            rest = blake2b(head, digest_size=KEY_BYTES - _QUERY_BYTES)
            starts[query] = blake2b(head, digest_size=_QUERY_BYTES).digest(), rest
        keys = []
        for query, chunk in pairs:
            content_bytes = _passage_content(chunk, self.info)
            if not content_bytes:
                keys.append(b"")
                continue
            start, digest = starts[query]
            digest = digest.copy()
            digest.update(content_bytes)
            keys.append(start + digest.digest())
        return keys


class CachedViewingScorer(CachedScorer):
    """A cached model of a provider, or a dry run of it."""

    scorer: "RemoteScorer | DryRunScorer"

    def with_media(self, media: Media, *, media_only: bool) -> CachedScorer:
        """The same scorer with an image or a video in the query; see `ViewingScorer`."""
        return self._with(self.scorer.with_media(media, media_only=media_only))

    def within(self, spending: Spending) -> CachedScorer:
        """The same scorer within a budget: see `ThriftyScorer`. Known scores cost nothing."""
        return self._with(self.scorer.within(spending))


class CachedPricedScorer(CachedViewingScorer):
    """A cached model of a provider. Pairs with known scores are not sent, and cost nothing."""

    scorer: "RemoteScorer"

    @property
    def requests(self) -> RequestTotals:
        """The sums of all requests so far."""
        return self.scorer.requests

    def cost_of(self, totals: RequestTotals) -> Price | None:
        """The cost of some requests."""
        return self.scorer.cost_of(totals)

    def estimate(self, batches: Iterable[Sequence[Pair]]) -> tuple[int, Price | None]:
        """How many requests the unknown pairs of some batches take, and at what price."""
        return self.scorer.estimate(map(self.find_missing_pairs, batches))

    def limit_seconds(self, share: float, seconds: float, *, is_read: bool) -> float:
        """How long the rest takes with limits a minute; see `LimitedScorer`."""
        return self.scorer.limit_seconds(share, seconds, is_read=is_read)


class _EmptyJob:
    """A job without pairs to score."""

    def cancel(self) -> None:
        pass


def _passage_content(chunk: Chunk, info: ScorerInfo) -> bytes:
    """The scored content of a chunk, as bytes; empty if it may change, as that of a URL may."""
    media = chunk.document.media
    if media is not None and not has_lasting_content(media):
        return b""
    if info.content_key is not None:
        return b"content" + info.content_key([chunk])
    if chunk.ids is not None and not info.remote:
        return b"ids" + array("q", chunk.ids).tobytes()
    return b"text" + chunk.scored_text.encode("utf-8", "surrogatepass")
