"""A ranking as Markdown, for an issue or a prompt: a numbered list of passages.

Passages are fenced, so that they are not read as Markdown.
"""

import re
from collections.abc import Iterator

from rerank_cli.render import Style, document_place, format_place, media_note
from rerank_cli.terminal import encodable
from rerank_cli.types import Blank, Ranked, Ranking

_BACKTICKS = re.compile("`+")
# Each of these ends a line in Markdown.
_LINE_END = re.compile(r"\r\n|\r|\n")


def write_markdown(ranking: Ranking, _style: Style) -> Iterator[bytes]:
    """Yield an item for each result, or for its chunks with --explain, then blank documents."""
    separator = ""
    for result in ranking.results:
        yield encodable(separator + _item(result)).encode()
        separator = "\n"
    if ranking.blanks:
        are_empty = not any(blank.document.text.strip() for blank in ranking.blanks)
        title = "Empty, and not scored" if are_empty else "Not scored, in the order they came"
        lines = [f"{separator}{title}:\n\n", *map(_blank, ranking.blanks)]
        yield encodable("".join(lines)).encode()


def _item(result: Ranked) -> str:
    marker = f"{result.rank}. "
    indent = " " * len(marker)
    document, passage = result.document, result.passage
    if not result.explanation:
        where = format_place(document.source, passage.line) or document.id or ""
        heading = _heading(result.relevance_score, where, media_note(document))
        return marker + heading + _fence(passage.text, indent)
    where = document_place(document) or document.id or ""
    chunks = [
        f"\n{indent}- {_heading(relevance, format_place(document.source, chunk.line))}"
        f"{_fence(chunk.text, indent + '  ')}"
        for chunk, _, relevance in result.explanation
    ]
    return marker + _heading(result.relevance_score, where, media_note(document)) + "".join(chunks)


def _blank(blank: Blank) -> str:
    where = document_place(blank.document) or blank.document.id
    name = _code(where) if where else f"document {blank.index + 1}"
    text = blank.document.text
    return f"- {name}\n{_fence(text, '  ') if text.strip() else ''}"


def _heading(relevance: float, where: str, media: str = "") -> str:
    names = [_code(name) for name in (where, media) if name]
    return " ".join([f"**{relevance:.3f}**", *names]) + "\n"


def _fence(text: str, indent: str) -> str:
    fence = "`" * max(3, _longest_run(text) + 1)
    lines = [fence, *_LINE_END.split(text.rstrip("\r\n")), fence]
    return "\n" + "".join(f"{indent if line else ''}{line}\n" for line in lines)


def _code(text: str) -> str:
    """A code span, which can hold any name."""
    text = _LINE_END.sub(" ", text)
    run = "`" * (_longest_run(text) + 1)
    space = " " if text.startswith("`") or text.endswith("`") else ""
    return f"{run}{space}{text}{space}{run}"


def _longest_run(text: str) -> int:
    return max(map(len, _BACKTICKS.findall(text)), default=0)
