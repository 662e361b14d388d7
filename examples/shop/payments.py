"""The payment service: charging a card, and giving money back."""

import json
import urllib.error
import urllib.request
from decimal import Decimal

from shop.retry import CircuitBreaker, Unavailable, with_retries

TIMEOUT_SECONDS = 5.0

_breaker = CircuitBreaker()


class Declined(Exception):
    """The bank said no. Asking again would not help."""


def charge(card: str, amount: Decimal, order: str) -> str:
    """Take money for an order; returns the receipt's number.

    The order's number goes along as the idempotency key: if an answer is lost and we ask again, the
    card is not charged twice.
    """
    body = {"card": card, "amount": str(amount), "currency": "EUR"}
    return with_retries(lambda: _breaker.call(lambda: _post("/charges", body, key=order)))


def refund(receipt: str, amount: Decimal) -> str:
    body = {"receipt": receipt, "amount": str(amount)}
    return with_retries(lambda: _breaker.call(lambda: _post("/refunds", body, key=receipt)))


def _post(path: str, body: dict[str, str], key: str) -> str:
    request = urllib.request.Request(
        "https://pay.example" + path,
        data=json.dumps(body).encode(),
        headers={"Content-Type": "application/json", "Idempotency-Key": key},
    )
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as answer:
            return str(json.load(answer)["receipt"])
    except urllib.error.HTTPError as error:
        if error.code == 402:
            raise Declined from error
        raise Unavailable from error
    except (urllib.error.URLError, TimeoutError) as error:
        raise Unavailable from error
