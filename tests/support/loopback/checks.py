"""What a field may be: each check says what is wrong with a value, or None."""

from collections.abc import Callable, Sequence
from typing import Any

Check = Callable[[Any], str | None]


def accept_anything(_value: Any) -> str | None:
    return None


def text(value: Any) -> str | None:
    if not isinstance(value, str):
        return "Input should be a valid string"
    return None if value else "String should have at least 1 character"


def maybe_text(value: Any) -> str | None:
    return None if value is None or isinstance(value, str) else "Input should be a valid string"


def boolean(value: Any) -> str | None:
    return None if isinstance(value, bool) else "Input should be a valid boolean"


def mapping(value: Any) -> str | None:
    return None if isinstance(value, dict) else "Input should be a valid object"


def integer(low: int | None = None, high: int | None = None) -> Check:
    def check(value: Any) -> str | None:
        if not isinstance(value, int) or isinstance(value, bool):
            return "Input should be a valid integer"
        if low is not None and value < low:
            return f"Input should be greater than or equal to {low}"
        if high is not None and value > high:
            return f"Input should be less than or equal to {high}"
        return None

    return check


def one_of(*allowed: str) -> Check:
    def check(value: Any) -> str | None:
        return None if value in allowed else f"Input should be one of {', '.join(allowed)}"

    return check


def each(item_check: Check, *, least: int = 1) -> Check:
    """An array whose items each pass a check."""

    def check(value: Any) -> str | None:
        if not isinstance(value, list):
            return "Input should be a valid array"
        if len(value) < least:
            return "Array should have at least 1 item"
        return next((wrong for item in value if (wrong := item_check(item))), None)

    return check


def either(*checks: Check) -> Check:
    """Any of several; what the first says is wrong where none passes."""

    def check(value: Any) -> str | None:
        wrong = [check(value) for check in checks]
        return None if None in wrong else wrong[0]

    return check


def string(value: Any) -> str | None:
    """Unlike `text`, it may be empty."""
    return None if isinstance(value, str) else "Input should be a valid string"


def having(keys: Sequence[str]) -> Check:
    """An object with at least one of some keys, whose value is a string."""

    def check(value: Any) -> str | None:
        fine = isinstance(value, dict) and any(isinstance(value.get(key), str) for key in keys)
        return None if fine else f"Input should be an object with {' or '.join(keys)}"

    return check


strings = each(string)
objects = each(having(["text"]))
strings_or_objects = each(either(string, having(["text"])))
media = each(either(string, having(["text", "image", "video"])))
positive = integer(1)
