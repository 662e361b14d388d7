"""The budget of a ranking: time, and for services money.

    Budget ─ Spending ┬ seconds_left   when the ranking ends
                      └ reserve, settle   whether a request is still paid for

`Budget` is what a user gives. `Spending` is what one ranking has used of it: the ranking, its timer
and the scorer share it.
"""

import math
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from numbers import Real
from typing import Any, Protocol, runtime_checkable

from rerank_cli.costs import Price
from rerank_cli.errors import NothingScored, UsageError, check_type
from rerank_cli.ranking.powers import SurveyingScorer
from rerank_cli.types import Ranking, Scorer, UnreadReason

CURRENCY = "USD"  # of `Budget.max_cost`
# Reading and comparing may take this share of the time, so that there is some left for the model.
READING_SHARE = 0.5
_LEAST_SECONDS = 1e-6  # the least time that is left
_SETTLING_SECONDS = 1.0  # between two checks whether the ranking is over


class Clock:
    """Tells the time in seconds, and calls an action later, in a thread of its own."""

    def now(self) -> float:
        return time.monotonic()

    def call_later(self, seconds: float, action: Callable[[], None]) -> Callable[[], None]:
        """Call an action once, after some seconds; what this returns cancels it."""
        timer = threading.Timer(min(seconds, threading.TIMEOUT_MAX), action)
        timer.daemon = True
        timer.start()
        return timer.cancel


@dataclass(frozen=True)
class Budget:
    """The limits of a ranking.

    max_seconds  the ranking ends by then with the documents scored so far; None for no limit
    max_cost     the most that requests to a service may cost, in US dollars; None for no limit
    began        the time of the clock from which the seconds count; None for that of the call
    clock        tells the time; tests have others
    whole        whether a part of the scores is useless: then no request is divided to spend the
                 rest of the money, and scores without a budget count as missing
    """

    max_seconds: float | None = None
    max_cost: float | None = None
    began: float | None = None
    clock: Clock = field(default_factory=Clock)
    whole: bool = False

    @property
    def seconds_left(self) -> float | None:
        """The seconds from now on, at least 0, if it says when they began; None without a limit."""
        if self.max_seconds is None or self.began is None:
            return self.max_seconds
        return max(0.0, self.began + self.max_seconds - self.clock.now())

    def __post_init__(self) -> None:
        for name in ("max_seconds", "max_cost"):
            object.__setattr__(self, name, _plain_number(getattr(self, name)))

    def check(self) -> None:
        """Raise `UsageError` for a value that makes no sense."""
        check_type("max_time", self.max_seconds, float, None)
        check_type("max_cost", self.max_cost, float, None)
        _check_limit("time", self.max_seconds, "seconds")
        _check_limit("cost", self.max_cost, CURRENCY)


class Spending:
    """The used part of a budget, by one ranking or by a job of many. Any thread may use it.

    deadline  the time of the clock at which the ranking ends; infinite without a limit
    reason    the limit that was reached first; None while there is none
    failure   the last failure after which there was no time to try again, in words
    """

    def __init__(self, budget: Budget) -> None:
        """Raises `UsageError` for a budget that makes no sense."""
        budget.check()
        self.budget = budget
        self.clock = budget.clock
        self.began = budget.began if budget.began is not None else self.clock.now()
        self.deadline = self.began + (budget.max_seconds or math.inf)
        self.reason: UnreadReason | None = None
        self.failure = ""
        self._turn = threading.Lock()  # held by the request that is decided on
        self._changed = threading.Condition()
        self._spent = self._reserved = 0.0
        self._open_requests = 0

    @property
    def is_timed(self) -> bool:
        return self.deadline < math.inf

    @property
    def seconds(self) -> float:
        """All the time that there is; infinite without a limit."""
        return self.deadline - self.began

    @property
    def seconds_left(self) -> float:
        """The seconds until the deadline, at least 0."""
        return max(0.0, self.deadline - self.clock.now())

    @property
    def reading_deadline(self) -> float:
        """The time until which documents are read if the model can only start after reading."""
        return self.clock.now() + READING_SHARE * self.seconds_left

    @property
    def is_over(self) -> bool:
        """Whether a limit is reached."""
        return self.reason is not None or self.clock.now() >= self.deadline

    def end(self, reason: UnreadReason) -> None:
        """Note that a limit is reached; the first one counts."""
        if self.reason is None:
            self.reason = reason

    def fail(self, message: str) -> None:
        """Note a failure after which there is no time to try again: the time is over."""
        self.failure = message
        self.end(UnreadReason.MAX_TIME)

    def reserve(
        self,
        price: Price | None,
        seconds: float = 0.0,
        *,
        divisible: bool = False,
        cancellation: threading.Event | None = None,
    ) -> bool:
        """Reserve the price of a request that takes about `seconds`; `settle` must follow.

        Returns False if the time or the money does not suffice, or did not for an earlier request.
        A `divisible` request may be sent in parts, so it does not end the budget. Waits while the
        answers to other requests may show that they cost less than was reserved. Returns False too
        once `cancellation` is set.
        """
        if seconds > self.seconds_left or not self.seconds_left:
            self.end(UnreadReason.MAX_TIME)
        amount = 0.0 if price is None else price.amount
        most = math.inf if self.budget.max_cost is None else self.budget.max_cost
        with self._turn, self._changed:
            while self.reason is None and not (cancellation and cancellation.is_set()):
                if self._spent + self._reserved + amount <= most:
                    self._reserved += amount
                    self._open_requests += 1
                    return True
                if self._open_requests:
                    self._changed.wait(_SETTLING_SECONDS)
                elif divisible and not self.budget.whole:
                    break
                else:
                    self.end(UnreadReason.MAX_COST)
            return False

    def settle(self, reserved: Price | None, paid: Price | None) -> None:
        """Replace the reserved price of a request by what it cost."""
        with self._changed:
            self._reserved -= 0.0 if reserved is None else reserved.amount
            self._spent += 0.0 if paid is None else paid.amount
            self._open_requests -= 1
            self._changed.notify_all()

    def missing(self, count: int) -> int:
        """How many of some scores without a budget count as missing."""
        return count if self.budget.whole else 0


@runtime_checkable
class ThriftyScorer(Scorer, Protocol):
    """A scorer that sends requests, and can keep them within a budget.

    `within` returns a scorer that shares all else with this one. A pair that it has no time or
    money for gets None. Raises `UsageError` if it cannot estimate the cost of a request.
    """

    def within(self, spending: Spending) -> Scorer: ...


def limit_scorer(scorer: Scorer, spending: Spending) -> Scorer:
    """Put a model within a budget; raises `UsageError` if it can keep to none."""
    model = scorer.info.model
    if isinstance(scorer, SurveyingScorer):
        raise UsageError(
            f"{model} cannot have a limit of time or money: it reads everything before it scores",
            hint="--first-stage bm25 with another model takes the order of BM25",
        )
    if scorer.info.scope == "set":
        raise UsageError(
            f"{model} scores documents against each other, and none without all others",
            hint="--candidates N gives it fewer of them",
        )
    if isinstance(scorer, ThriftyScorer):
        return scorer.within(spending)
    if spending.budget.max_cost is not None:
        raise _costs_nothing(model)
    return scorer


def limit_scorers(scorers: Sequence[Scorer], spending: Spending) -> list[Scorer]:
    """Have scorers share a budget: those that send requests keep to it.

    Raises `UsageError` if money is limited and none costs any, or if a price is not known.
    """
    are_thrifty = [isinstance(scorer, ThriftyScorer) for scorer in scorers]
    if spending.budget.max_cost is not None and not any(are_thrifty):
        raise _costs_nothing(" with ".join(scorer.info.model for scorer in scorers))
    return [
        scorer.within(spending) if isinstance(scorer, ThriftyScorer) else scorer
        for scorer in scorers
    ]


def _costs_nothing(model: str) -> UsageError:
    return UsageError(
        f"--max-cost is for services, and {model} costs nothing",
        hint="--max-time limits how long it takes",
    )


def opened_too_late(limit: str) -> NothingScored:
    """The error for time that is over before the model is open; `limit` as the user gave it."""
    return NothingScored(
        f"time was over before the model was open ({limit})",
        hint="a longer --max-time: it counts from the start, and opening a model takes longest the "
        "first time, and where other programs are busy",
    )


def is_cut_short(ranking: Ranking | None, spending: Spending) -> bool:
    """Whether a ranking of a job lacks scores because the budget was spent."""
    return ranking is not None and ranking.missing > 0 and spending.reason is not None


def check_price(price: Price | None, model: str) -> None:
    """Raise `UsageError` if a model's requests have no known price in US dollars."""
    if price is None:
        raise UsageError(
            f"--max-cost: no price of {model} is known",
            hint="--candidates N limits what is sent; an entry of providers.toml can have a price",
        )
    if price.currency != CURRENCY:
        raise UsageError(
            f"--max-cost is in {CURRENCY}, and {model} is paid in {price.currency}",
            hint="--candidates N limits what is sent; --dry-run shows the price",
        )


def time_left(max_time: float | None, began: float) -> float | None:
    """The seconds that are left of a limit that counts from `began`, always more than 0."""
    max_time = _plain_number(max_time)
    check_type("max_time", max_time, float, None)
    _check_limit("time", max_time, "seconds")
    return max_time and max(_LEAST_SECONDS, max_time - Clock().now() + began)


def _check_limit(subject: str, value: float | None, unit: str) -> None:
    """Raise `UsageError` for a limit that is not a number above 0, or infinite."""
    if value is not None and not 0 < value < math.inf:
        raise UsageError(
            f"the limit of {subject} is a number of {unit} above 0, not {value}",
            hint="leave it out to set no limit",
        )


def _plain_number(value: Any) -> Any:
    """Convert a Decimal or a Fraction to a float; return any other value unchanged."""
    is_number = isinstance(value, Decimal | Real) and not isinstance(value, int | float)
    return float(value) if is_number else value


def make_budget(max_time: float | None, max_cost: float | None) -> Budget | None:
    """The budget of a call that names limits; None if it names none."""
    if max_time is None and max_cost is None:
        return None
    return Budget(max_time, max_cost)
