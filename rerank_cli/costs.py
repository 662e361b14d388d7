"""The sums of requests to services, and their cost."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

_MAX_NAMES = 20  # of models and the like that have a sum of their own


class Price(NamedTuple):
    """The cost of requests, and its source: the service itself, or else it is estimated."""

    amount: float
    currency: str
    source: str
    estimated: bool = True

    def __str__(self) -> str:
        small = f"{float(f'{self.amount:.3g}'):.12f}".rstrip("0").rstrip(".")  # three digits
        digits = small if 0 < self.amount < 1 else f"{self.amount:,.2f}"
        unit = "of unknown currency" if self.currency == "unknown" else self.currency
        return f"{'about ' if self.estimated else ''}{digits} {unit}"

    @classmethod
    def total(cls, prices: "Iterable[Price | None]") -> "Price | None":
        """The sum of the known prices; None if there is none, or if their currencies differ."""
        known_prices = [price for price in prices if price is not None]
        if len({price.currency for price in known_prices}) != 1:
            return None
        amount = _without_noise(sum(price.amount for price in known_prices))
        sources = " and ".join(dict.fromkeys(price.source for price in known_prices))
        return cls(
            amount,
            known_prices[0].currency,
            sources,
            any(price.estimated for price in known_prices),
        )


@dataclass(frozen=True)
class ServiceRequest:
    """A request to a service: how sending it went, and what its answer says of itself.

    documents      the number of texts in it
    statuses       the HTTP status of each try, in order; None for a try without an answer
    seconds        how long the last try took
    error          why it failed; empty if it did not
    halved         whether it was refused as too large: its halves are requests of their own
    id             the service's id of the answer
    trace_id       the id of the last try, from a header; a service finds the try in its logs by it
    model          what has answered, where services have aliases
    provider       who has answered, where a service passes requests on
    deployment     which of several deployments has answered
    latency        the kind of service that was given, such as `slow`
    service_seconds
                   how long the service says that it took
    cost           what it cost; None if the service does not say
    currency       that of the cost; empty if it is not known
    usage          the counts of tokens and the like
    billed         the units that are paid for, such as `search_units`
    price          its cost as the service states it, or else by the known price
    warnings       what the service warns of
    """

    documents: int = 0
    statuses: Sequence[int | None] = ()
    seconds: float = 0.0
    error: str = ""
    halved: bool = False
    id: str = ""
    trace_id: str = ""
    model: str = ""
    provider: str = ""
    deployment: str = ""
    latency: str = ""
    service_seconds: float | None = None
    cost: float | None = None
    currency: str = ""
    usage: Mapping[str, int] = field(default_factory=dict)
    billed: Mapping[str, float] = field(default_factory=dict)
    price: Price | None = None
    warnings: Sequence[str] = ()

    @property
    def tries(self) -> int:
        """How often it was sent."""
        return len(self.statuses)


@dataclass
class RequestTotals:
    """Sums over requests to a service, whose size does not grow with their number.

    sent       how often a request was sent, every try counted
    answered   the requests that were answered with scores
    retried    the tries after the first one of a request
    halved     the requests that were cut in two, as they were too large
    failed     the requests that failed for good
    stated     the requests whose cost the service says
    costs      what these cost, by currency, which is `unknown` if it is not known
    estimated  the other requests for which a price is known
    estimates  what these cost by that price, by currency
    usage      the counts of tokens and the like, by name
    billed     the units that are paid for, by name
    statuses   the tries that were not answered with success, by HTTP status or `none`
    models, providers
               the answered requests by the model, or the provider, that the answers name
    """

    sent: int = 0
    answered: int = 0
    retried: int = 0
    halved: int = 0
    failed: int = 0
    stated: int = 0
    costs: dict[str, float] = field(default_factory=dict)
    estimated: int = 0
    estimates: dict[str, float] = field(default_factory=dict)
    usage: dict[str, float] = field(default_factory=dict)
    billed: dict[str, float] = field(default_factory=dict)
    statuses: dict[str, float] = field(default_factory=dict)
    models: dict[str, float] = field(default_factory=dict)
    providers: dict[str, float] = field(default_factory=dict)

    def add(self, request: ServiceRequest) -> None:
        """Count one request."""
        is_answered = not request.error and not request.halved
        self.sent += request.tries
        self.answered += is_answered
        self.retried += max(0, request.tries - 1)
        self.halved += request.halved
        self.failed += bool(request.error)
        if request.cost is not None:
            self.stated += 1
            _add_amounts(self.costs, {request.currency or "unknown": request.cost})
        elif request.price is not None:
            self.estimated += 1
            _add_amounts(self.estimates, {request.price.currency: request.price.amount})
        _add_amounts(self.usage, request.usage)
        _add_amounts(self.billed, request.billed)
        for status in request.statuses:
            if status is None or not 200 <= status < 300:
                _add_amounts(self.statuses, {"none" if status is None else str(status): 1})
        for sums, name in ((self.models, request.model), (self.providers, request.provider)):
            if is_answered and name:
                _add_amounts(sums, {name: 1})

    def __add__(self, other: "RequestTotals") -> "RequestTotals":
        total = RequestTotals()
        for name, value in (*vars(self).items(), *vars(other).items()):
            if isinstance(value, dict):
                _add_amounts(getattr(total, name), value)
            else:
                setattr(total, name, getattr(total, name) + value)
        return total

    def as_dict(self) -> dict[str, Any]:
        """The sums of `sent`, `retried` and `halved`, and the others that are not zero."""
        return {
            name: dict(value) if isinstance(value, dict) else value
            for name, value in vars(self).items()
            if value or name in ("sent", "retried", "halved")
        }


def _add_amounts(sums: dict[str, float], amounts: Mapping[str, float]) -> None:
    """Add to sums by name; beyond `_MAX_NAMES` names, others are counted together."""
    for name, amount in amounts.items():
        key = name if name in sums or len(sums) < _MAX_NAMES else "others"
        total = sums.get(key, 0) + amount
        sums[key] = total if isinstance(total, int) else _without_noise(total)


def _without_noise(amount: float) -> float:
    """A sum with the 15 digits that are right: 0.1 and 0.2 make 0.3."""
    return float(f"{amount:.15g}")
