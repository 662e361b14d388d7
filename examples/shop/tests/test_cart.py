from decimal import Decimal

import pytest

from shop.cart import Cart, CartError, Line


def boots(pairs: int, price: str = "120.00") -> Line:
    return Line("boots", 42, pairs, Decimal(price))


def test_the_same_size_becomes_one_line() -> None:
    cart = Cart()
    cart.add(boots(1))
    cart.add(boots(2))
    assert [line.pairs for line in cart.lines] == [3]


def test_delivery_costs_nothing_above_fifty_euros() -> None:
    cart = Cart()
    cart.add(boots(1, "49.99"))
    assert cart.shipping() == Decimal("4.90")
    cart.add(boots(1, "0.01"))
    assert cart.shipping() == 0


def test_a_cart_has_an_upper_limit() -> None:
    with pytest.raises(CartError, match="12 pairs"):
        Cart().add(boots(13))
