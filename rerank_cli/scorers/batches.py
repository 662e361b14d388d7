"""Which pairs share a run.

A score must not depend on a pair's neighbours, so that on a CPU only pairs of one length do, and
only where a batch was seen to have the very scores of its pairs.
"""

from collections.abc import Sequence
from dataclasses import dataclass

# Batches that each worker has of a job, at least, so that none is idle while the last one runs.
_SHARES = 4


@dataclass(frozen=True, slots=True)
class Batching:
    """How many tokens and pairs a run may hold; where it is `padded`, some are filled up."""

    tokens: int = 0
    pairs: int = 1
    padded: bool = False


ALONE = Batching()  # one pair a run
# Pairs of one length. Matrices are high enough by then: more gains nothing.
ALIKE = Batching(512, pairs=16)


def cut(lengths: Sequence[int], batching: Batching, workers: int) -> list[list[int]]:
    """Put pairs into batches, longest first, by their places; `lengths` are in tokens."""
    room = batching.tokens
    if workers > 1:
        room = min(room, sum(lengths) // (workers * _SHARES))
    batches: list[list[int]] = []
    for place in sorted(range(len(lengths)), key=lambda place: -lengths[place]):
        if batches:
            longest = lengths[batches[-1][0]]
            alike = batching.padded or longest == lengths[place]
            count = len(batches[-1]) + 1
            if alike and count <= batching.pairs and longest * count <= room:
                batches[-1].append(place)
                continue
        batches.append([place])
    return batches
