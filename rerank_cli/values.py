"""Reads one value as its kind: from text, as a shell gives it, or from TOML.

Knows kinds and their ranges; options and files are others' business.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Any

WORDS: Mapping[str, bool] = MappingProxyType(
    {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}
)


@dataclass(frozen=True, slots=True)
class Kind:
    """What a value may be: text, a truth, a number in its range, or one of some words.

    Both readers raise `ValueError` with a message that says what the value is not.
    """

    type: type
    least: float | None = None
    most: float | None = None

    def from_text(self, text: str) -> Any:
        """Read a value from the command line or the environment."""
        if self.type is bool:
            if text.lower() not in WORDS:
                raise ValueError(self._refusal(text))
            return WORDS[text.lower()]
        if not text:
            raise ValueError("the value is empty")
        try:
            value = self.type(text)
        except ValueError as error:
            raise ValueError(self._refusal(text)) from error
        return self._in_range(value, text)

    def from_toml(self, value: Any) -> Any:
        """Take a value that TOML has read; a number in quotes is none."""
        fits: tuple[type, ...] = (str,) if issubclass(self.type, str) else (self.type,)
        if self.type is float:
            fits = (float, int)
        if type(value) not in fits:
            raise ValueError(self._refusal(value))
        if value == "":
            raise ValueError("the value is empty")
        try:
            return self._in_range(self.type(value), value)
        except ValueError as error:
            raise error if self.type in (int, float) else ValueError(self._refusal(value)) from None

    @property
    def allowed(self) -> str:
        """What a value may be, in words."""
        if issubclass(self.type, StrEnum):
            return f"one of {', '.join(self.type)}"
        if self.type in (int, float):
            number = "a whole number" if self.type is int else "a number"
            least = "" if self.least is None else f" of {self.least} or more"
            return number + least + ("" if self.most is None else f", at most {self.most}")
        return "true or false" if self.type is bool else "text"

    @property
    def words(self) -> list[str]:
        """The values, where they can be listed."""
        if issubclass(self.type, StrEnum):
            return [*self.type]
        return ["true", "false"] if self.type is bool else []

    def _in_range(self, value: Any, given: Any) -> Any:
        if value != value:
            raise ValueError(self._refusal(given))
        if self.least is not None and value < self.least:
            raise ValueError(f"{given} is less than {self.least}")
        if self.most is not None and value > self.most:
            raise ValueError(f"{given} is more than {self.most}")
        return value

    def _refusal(self, value: Any) -> str:
        shown = shown_value(value) if isinstance(value, bool) else repr(value)
        if issubclass(self.type, StrEnum):
            return f"{shown} is none of {', '.join(self.type)}"
        if self.type is bool:
            return f"{shown} is neither true nor false"
        return f"{shown} is not {self.allowed.partition(' of ')[0].partition(',')[0]}"


def shown_value(value: Any) -> str:
    """Write a value as a user would: `true`, not Python's `True`; nothing where there is none."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return "" if value is None else str(value)
