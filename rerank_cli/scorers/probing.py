"""Whether two ways of running a model give the very same scores: seen, on this machine.

Which kernel a product is computed by, and so in which order it is summed, depends on the processor
and on the library. What is promised of scores is therefore tried before it is relied on.
"""

from rerank_cli.errors import ScorerError
from rerank_cli.scorers.batches import ALIKE
from rerank_cli.scorers.network import Network, Row

_LENGTHS = (5, 9, 33, 96, 128, 256)  # tokens
_LONG = 257  # of a pair that has a run of its own in any case
_COUNTS = (2, 3, 7, 16)  # pairs
# Every vocabulary has these, and what they mean matters to nobody here.
_FIRST, _LAST = 4, 24


def are_batches_alike(network: Network, longest: int) -> bool:
    """Whether pairs of one length score in one run as they do in runs of their own.

    Activations that are quantised by what a run holds do not: each moves the others' scores.
    """
    try:
        for length in {min(length, longest) for length in _LENGTHS}:
            counts = [count for count in _COUNTS if count * length <= ALIKE.tokens]
            rows = [_row(length, number) for number in range(max(counts))]
            alone = [logit for row in rows for logit in network.logits([row])]
            if any(network.logits(rows[:count]) != alone[:count] for count in counts):
                return False
    except ScorerError:
        return False
    return True


def are_equal(first: Network, second: Network, longest: int) -> bool:
    """Whether two networks score pairs alike, each in a run of its own."""
    lengths = [min(length, longest) for length in (*_LENGTHS[:-1], _LONG)]
    rows = [_row(length, number) for length in lengths for number in (1, 2)]
    try:
        return all(first.logits([row]) == second.logits([row]) for row in rows)
    except ScorerError:
        return False


def _row(length: int, number: int) -> Row:
    """A pair of so many tokens; no two numbers have the same."""
    spread = _LAST - _FIRST
    ids = [
        _FIRST + (3 * place * place + 7 * place * number + number) % spread
        for place in range(length)
    ]
    return ids, [0] * length
