"""Which request meets which fault: by its number, by its body, or by chance that repeats.

Numbers count from 0 and are places in the server's `requests`. Chance follows from a seed and the
request's body, never from the order in which requests come, so that every run is the same.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Sequence

from tests.support.loopback.faults import Fault
from tests.support.loopback.wire import Request

Plan = Callable[[Request, int], Fault | None]
Faults = Fault | Plan | Sequence[Fault | None] | None

MOST = 2  # times that the same body meets a fault of `share`


def plan_of(faults: Faults) -> Plan:
    """One plan of whatever a test gives; a fault alone is for every request."""
    if faults is None:
        return never
    if isinstance(faults, Sequence):
        return by_number(faults)
    if callable(faults):
        return faults
    return always(faults)


def never(_request: Request, _number: int) -> Fault | None:
    return None


def always(fault: Fault) -> Plan:
    return lambda _request, _number: fault


def by_number(faults: Sequence[Fault | None]) -> Plan:
    return lambda _request, number: faults[number] if number < len(faults) else None


def every(n: int, fault: Fault) -> Plan:
    """Every n-th request: of every 3, the third."""
    return lambda _request, number: fault if number % n == n - 1 else None


def first(n: int, fault: Fault) -> Plan:
    return lambda _request, number: fault if number < n else None


def share(probability: float, fault: Fault, seed: int = 0) -> Plan:
    """A share of requests, but no body more than twice: a client that tries again gets through."""
    request_counts: Counter[bytes] = Counter()
    fault_counts: Counter[bytes] = Counter()

    def plan(request: Request, _number: int) -> Fault | None:
        key = hashlib.blake2b(request.body, digest_size=8, salt=str(seed).encode()[:16]).digest()
        request_counts[key] += 1
        draw = hashlib.blake2b(key + bytes([request_counts[key] % 256]), digest_size=4).digest()
        if fault_counts[key] >= MOST or int.from_bytes(draw) / 2**32 >= probability:
            return None
        fault_counts[key] += 1
        return fault

    return plan


def any_of(*plans: Plan) -> Plan:
    """The first fault that any of several plans has; every plan sees every request."""

    def plan(request: Request, number: int) -> Fault | None:
        faults = [member(request, number) for member in plans]
        return next((fault for fault in faults if fault is not None), None)

    return plan
