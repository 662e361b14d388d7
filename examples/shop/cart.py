"""What somebody wants to buy: lines of a product, a size and a number."""

from dataclasses import dataclass, field
from decimal import Decimal

FREE_DELIVERY_FROM = Decimal(50)
DELIVERY_FEE = Decimal("4.90")
MAX_PAIRS = 12


class CartError(Exception):
    """Something that cannot be put into a cart."""


@dataclass(frozen=True)
class Line:
    product: str
    size: float
    pairs: int
    price: Decimal

    @property
    def total(self) -> Decimal:
        return self.pairs * self.price


@dataclass
class Cart:
    lines: list[Line] = field(default_factory=list)
    voucher: str | None = None

    def add(self, line: Line) -> None:
        """Put a line in. The same product in the same size becomes one line."""
        if line.pairs < 1:
            raise CartError("a line needs at least one pair")
        if sum(other.pairs for other in self.lines) + line.pairs > MAX_PAIRS:
            raise CartError(f"we sell {MAX_PAIRS} pairs at a time; please call us for more")
        for position, other in enumerate(self.lines):
            if (other.product, other.size) == (line.product, line.size):
                pairs = other.pairs + line.pairs
                self.lines[position] = Line(line.product, line.size, pairs, line.price)
                return
        self.lines.append(line)

    def remove(self, product: str, size: float) -> None:
        self.lines = [line for line in self.lines if (line.product, line.size) != (product, size)]

    def goods(self) -> Decimal:
        return sum((line.total for line in self.lines), Decimal(0))

    def shipping(self) -> Decimal:
        """Nothing above fifty euros, and nothing for an empty cart."""
        if not self.lines or self.goods() >= FREE_DELIVERY_FROM:
            return Decimal(0)
        return DELIVERY_FEE

    def total(self) -> Decimal:
        return self.goods() + self.shipping()
