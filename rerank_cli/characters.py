"""Text as encoders and terminals can take it: what they cannot is replaced, one for one.

Knows single characters; where text may be cut is `boundaries`' business.
"""

import re

_SURROGATE = re.compile("[\ud800-\udfff]")
_BIDIRECTIONAL = (0x061C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A))
_VISIBLE = (
    {code: 0x2400 + code for code in range(0x20) if code != 0x0A}
    | {0x7F: 0x2421}
    | dict.fromkeys((*range(0x80, 0xA0), *_BIDIRECTIONAL, *range(0xD800, 0xE000)), 0xFFFD)
)
_VISIBLE_BUT_TABS = {code: shown for code, shown in _VISIBLE.items() if code != 0x09}


def encodable(text: str) -> str:
    """Replace lone surrogates, which stand for undecodable bytes or half a character, by U+FFFD."""
    return text if text.isascii() else _SURROGATE.sub("\ufffd", text)


def printable(text: str) -> str:
    """Make control characters visible, so that no text can move the cursor or set a title.

    C0 and DEL become Unicode's control pictures, but for line feeds; C1, bidirectional controls
    and lone surrogates become U+FFFD.
    """
    return text.translate(_VISIBLE)


def readable(text: str) -> str:
    """Make control characters visible but for tabs and line ends, which move no further than on."""
    return text.replace("\r\n", "\n").translate(_VISIBLE_BUT_TABS)
