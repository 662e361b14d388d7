"""Checks that hold for every finder of blocks."""

import re
from collections.abc import Iterator, Sequence

from rerank_cli.structure import Block, BlockKind, find_blocks

# The kinds of blocks that may begin with the indentation of their first line.
_CODE = {BlockKind.CODE, BlockKind.CLASS, BlockKind.FUNCTION}
# The kinds that a block of some kinds must be in.
_OUTER_KINDS: dict[BlockKind, set[BlockKind | None]] = {
    BlockKind.SECTION: {None, BlockKind.SECTION},
    BlockKind.ITEM: {BlockKind.LIST},
    BlockKind.ROW: {BlockKind.TABLE},
    BlockKind.HEADING: {BlockKind.SECTION},
}


def check_blocks(text: str, blocks: Sequence[Block], *, headings: bool = True) -> None:
    """Check the promises of `Block`'s docstring.

    Without `headings` a section may have the name of a heading that is not in the text.
    """
    outer: list[Block] = []  # the last block of each depth that the next one can be in
    ends = [0]  # where the last block of each depth ends
    before: Block | None = None
    for block in blocks:
        start, end, kind, depth, name, lead = block
        where = f"{block} {text[start:end][:80]!r}"
        assert type(block) is Block, where
        assert 0 <= start < end <= len(text), where
        assert 0 <= depth <= len(outer), f"{where}: no block around it"
        assert start >= ends[depth], f"{where}: overlaps the block before it"
        del outer[depth:], ends[depth + 1 :]
        if outer:
            assert outer[-1].start <= start < end <= outer[-1].end, f"{where}: not in {outer[-1]}"
        _check_ends(text, block, where)
        assert name == " ".join(name.split()), f"{where}: a name is one line"
        assert 0 <= lead < end - start, f"{where}: no line that defines it"
        assert not lead or kind in (BlockKind.CLASS, BlockKind.FUNCTION), where
        outer_kind = outer[-1].kind if outer else None
        assert outer_kind in _OUTER_KINDS.get(kind, {outer_kind}), f"{where}: in {outer_kind}"
        if headings and before is not None and _has_heading(before):
            assert kind is BlockKind.HEADING, f"{where}: a section without heading"
        if kind is BlockKind.HEADING:
            is_first = before is not None and _has_heading(before) and before.start == start
            assert is_first, f"{where}: a heading is the first block of its section"
        before = block
        outer.append(block)
        ends[depth] = end
        ends.append(start)
    assert not headings or before is None or not _has_heading(before), "a section without heading"


def _has_heading(block: Block) -> bool:
    """Whether a block is a section that begins with its heading; a page's has no name."""
    return block.kind is BlockKind.SECTION and bool(block.name)


def _check_ends(text: str, block: Block, where: str) -> None:
    first = block.start
    if block.kind in _CODE:
        while text[first] in " \t" and first < block.end - 1:
            first += 1
        line_start = re.search(r"[^\r\n]*\Z", text[: block.start][-200:])
        assert first == block.start or (line_start and not line_start[0].strip()), where
    assert not text[first].isspace(), f"{where}: begins with white space"
    assert not text[block.end - 1].isspace(), f"{where}: ends with white space"


def check_line_ends(
    text: str, syntax: str, line_ends: Sequence[str] = ("\r\n", "\r")
) -> Sequence[Block]:
    """Check the blocks of a text, and that they are the same with other ends of lines."""
    plain = re.sub(r"\r\n?", "\n", text)
    blocks = find_blocks(plain, syntax)
    check_blocks(plain, blocks)
    for line_end in line_ends:
        other_text = plain.replace("\n", line_end)
        other_blocks = find_blocks(other_text, syntax)
        check_blocks(other_text, other_blocks)
        for other, block in zip(other_blocks, blocks, strict=True):
            where = f"{block} {line_end!r}"
            for lead, other_lead in ((0, 0), (block.lead, other.lead)):
                other_part = other_text[other.start + other_lead : other.end]
                assert (
                    other_part.replace(line_end, "\n") == plain[block.start + lead : block.end]
                ), where
            assert other._replace(start=0, end=0, lead=0) == block._replace(
                start=0, end=0, lead=0
            ), where
    return blocks


def outline(text: str, blocks: Sequence[Block]) -> str:
    """The blocks of a text as an indented list, to compare and to read."""
    return "\n".join(_outline_lines(text, blocks))


def _outline_lines(text: str, blocks: Sequence[Block]) -> Iterator[str]:
    for block in blocks:
        extract = " ".join(text[block.start : block.end].split())
        short = extract if len(extract) <= 40 else extract[:30].rstrip() + " …"
        name = f" [{block.name}]" if block.name else ""
        yield f"{'  ' * block.depth}{block.kind.name.lower()}{name} {short}"
