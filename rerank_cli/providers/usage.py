"""What an answer says that it cost, as one flat table of counts.

Each API has a place and a name of its own for it; `total_tokens` is there whenever it can be known.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from rerank_cli.providers.bodies import as_number, at

# Where two count the same, the earlier is right: what was read, before what was billed.
_PLACES = ("usage", "meta.tokens", "tokens", "meta.billed_units")
_ALONE = ("total_tokens", "total_bytes", "input_tokens", "prompt_tokens")
_TOTAL = "total_tokens"
_READ = ("input_tokens", "prompt_tokens")
_WRITTEN = ("output_tokens", "completion_tokens")
# Of a server with no place for it in the body, which is a bare list.
_HEADER = "x-compute-tokens"
# No request costs as much: such a number is a mistake.
_MOST = 2**53


def usage_of(body: Any, headers: Mapping[str, str]) -> dict[str, int]:
    """Collect the counts of an answer; those that are zero are left out, but for the total.

    `headers` have names in lower case.
    """
    counts: dict[str, int] = {}
    zeros = set()
    for name, value in (*_stated(body), (_TOTAL, headers.get(_HEADER))):
        count = as_number(value) if name.isidentifier() else None
        if count is None or not count.is_integer() or not 0 <= count <= _MOST:
            continue
        if count:
            counts.setdefault(name, int(count))
        else:
            zeros.add(name)
    if _TOTAL not in counts:
        total = sum(max(counts.get(name, 0) for name in names) for names in (_READ, _WRITTEN))
        if total or zeros & {_TOTAL, *_READ}:
            counts[_TOTAL] = total
    return counts


def _stated(body: Any) -> Iterator[tuple[str, Any]]:
    if not isinstance(body, dict):
        return
    for place in _PLACES:
        if isinstance(found := at(body, place), Mapping):
            yield from found.items()
    for name in _ALONE:
        yield name, body.get(name)
