"""What somebody has bought: from paid to delivered, and sometimes back."""

import datetime
import enum
from dataclasses import dataclass
from decimal import Decimal

from shop import payments
from shop.cart import Cart

RETURN_DAYS = 30


class State(enum.Enum):
    PAID = "paid"
    PACKED = "packed"
    SENT = "sent"
    DELIVERED = "delivered"
    RETURNED = "returned"


NEXT = {
    State.PAID: {State.PACKED},
    State.PACKED: {State.SENT},
    State.SENT: {State.DELIVERED, State.RETURNED},
    State.DELIVERED: {State.RETURNED},
    State.RETURNED: set[State](),
}


class OrderError(Exception):
    """What cannot be done with an order in its state."""


@dataclass
class Order:
    number: str
    receipt: str
    total: Decimal
    state: State = State.PAID
    delivered: datetime.date | None = None

    def move(self, state: State) -> None:
        if state not in NEXT[self.state]:
            raise OrderError(f"an order that is {self.state.value} cannot become {state.value}")
        self.state = state

    def take_back(self, today: datetime.date) -> str:
        """Return the money, if the thirty days are not over. Returns the refund's receipt."""
        if self.delivered and today - self.delivered > datetime.timedelta(days=RETURN_DAYS):
            raise OrderError(f"{RETURN_DAYS} days have passed since {self.delivered}")
        self.move(State.RETURNED)
        return payments.refund(self.receipt, self.total)


def buy(cart: Cart, card: str, number: str) -> Order:
    receipt = payments.charge(card, cart.total(), number)
    return Order(number, receipt, cart.total())
