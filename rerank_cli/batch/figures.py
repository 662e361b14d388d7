"""What a batch came to, in numbers: of the whole job, and of this run of it."""

import math
from collections import Counter
from collections.abc import Mapping
from typing import Any

from rerank_cli.batch.items import Gap, Outcome

_NOTES = 20  # that are kept apart
_PRECISION = 1.02  # of latencies: neighbours in the histogram differ by so much


class Figures:
    """The counts of a job, over all runs that it took.

    `pairs` were scored, and `reused` counts documents with the score of an equal one before them.
    """

    def __init__(self, kept: Mapping[str, Any] | None = None) -> None:
        kept = kept or {}
        self.records: int = kept.get("records", 0)
        self.documents: int = kept.get("documents", 0)
        self.empty: int = kept.get("empty", 0)
        self.pairs: int = kept.get("pairs", 0)
        self.reused: int = kept.get("reused", 0)
        self.tokens: int = kept.get("tokens", 0)
        self.truncated: int = kept.get("truncated", 0)
        self.missing: int = kept.get("missing", 0)
        self.runs: int = kept.get("runs", 0) + 1
        self.seconds: float = kept.get("seconds", 0.0)
        self.errors: Counter[str] = Counter(kept.get("errors", {}))
        self.usage: Counter[str] = Counter(kept.get("usage", {}))
        self.notes: dict[str, int] = dict(kept.get("notes", {}))

    def see(self, outcome: Outcome) -> None:
        """Count an outcome."""
        if isinstance(outcome.item, Gap):
            return
        self.records += 1
        if outcome.problem is not None:
            self.errors[outcome.problem.code] += 1
        ranking = outcome.ranking
        if ranking is None:
            return
        self.documents += ranking.documents
        self.empty += ranking.empty
        self.pairs += outcome.scored
        self.reused += ranking.duplicates
        self.tokens += ranking.tokens
        self.truncated += ranking.cut + ranking.query_cut
        self.missing += ranking.missing
        self.usage.update(ranking.usage)
        for note in ranking.notes:
            self._note(note, 1)

    def merge(self, other: "Figures") -> None:
        """Add the counts of another part of the job."""
        for name, value in vars(other).items():
            if isinstance(value, int | float) and name != "runs":
                setattr(self, name, getattr(self, name) + value)
        self.errors.update(other.errors)
        self.usage.update(other.usage)
        for note, count in other.notes.items():
            self._note(note, count)

    def _note(self, note: str, count: int) -> None:
        """Count a remark; of many that differ, the later ones are counted together."""
        if note not in self.notes and len(self.notes) >= _NOTES:
            note = "remarks like these"
        self.notes[note] = self.notes.get(note, 0) + count

    @property
    def failed(self) -> int:
        return self.errors.total()

    def kept(self) -> dict[str, Any]:
        """All of it, as a journal keeps it."""
        return {**vars(self), "errors": dict(self.errors), "usage": dict(self.usage)}


class Latencies:
    """How long records took, in a histogram that does not grow with their number."""

    def __init__(self) -> None:
        self._counts: Counter[int] = Counter()

    def add(self, seconds: float) -> None:
        self._counts[round(math.log(max(seconds, 1e-6), _PRECISION))] += 1

    def at(self, share: float) -> float | None:
        """The seconds within which this share of records was done, to two hundredths."""
        left = share * self._counts.total()
        for place in sorted(self._counts):
            left -= self._counts[place]
            if left <= 0:
                return float(f"{_PRECISION**place:.3g}")
        return None
