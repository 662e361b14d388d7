"""What the server thinks of a text: a score that a test can work out for itself.

A text that says `score=0.731` gets just that. Any other gets more the more of the query's words it
holds, and a little that follows from the text alone, so that two texts seldom tie. The same text
always scores the same, whatever stands beside it.
"""

import math
import re
import zlib
from functools import lru_cache

SCORE_MARK = re.compile(r"score=([01]?\.\d+|[01]\b)")


def score_of(query: str, text: str) -> float:
    """The score of a text, between 0 and 1."""
    if "score=" in text and (mark := SCORE_MARK.search(text)):
        return float(mark[1])
    words, lowercase_text = words_of(query), text.lower()
    share = sum(word in lowercase_text for word in words) / len(words) if words else 0.0
    spread = zlib.crc32(text.encode("utf-8", "replace")) / 2**32
    return round(0.05 + 0.85 * share + 0.05 * spread, 6)


def logit_of(query: str, text: str) -> float:
    """The same score before the sigmoid, as servers that leave that step out report it."""
    return logit(score_of(query, text))


def logit(score: float) -> float:
    score = min(max(score, 1e-6), 1 - 1e-6)
    return round(math.log(score / (1 - score)), 6)


@lru_cache(maxsize=1024)
def words_of(query: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(query.lower().split()))


def tokens_in(text: str) -> int:
    """A fair guess, fast: no server tokenizes here."""
    return len(text) // 4 + 1
