"""Sizes in bytes, as people write and read them."""

import re

from rerank_cli.errors import UsageError

_SIZE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([kmgt]?)(i?)b?\s*", re.IGNORECASE)
_UNITS = " kmgt"


def bytes_of(text: str, option: str) -> int:
    """Read a size as `64MB`, `1GiB` or `5000`; raises `UsageError`."""
    found = _SIZE.fullmatch(text)
    size = 0
    if found:
        power = _UNITS.index(found[2].lower() or " ")
        size = int(float(found[1]) * (1024 if found[3] else 1000) ** power)
    if size < 1:
        raise UsageError(f"{option} {text!r} is no size", hint="as 64MB, 1GB or 500kB")
    return size


def shown(size: float) -> str:
    """A size for a person: `64 MB`, `1.5 GB`."""
    power = 0
    while size >= 1000 and power < len(_UNITS) - 1:
        size, power = size / 1000, power + 1
    unit = f"{_UNITS[power].strip().upper()}B" if power > 1 else ("kB" if power else "bytes")
    return f"{size:.3g} {unit}" if power else f"{size:.0f} {unit}"
