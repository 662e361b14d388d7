"""Files that are converted to text: HTML, PDF and DOCX, as small as they can be."""

import io
import zipfile
from collections.abc import Sequence


def page(text: str, title: str = "", charset: str = "") -> str:
    meta = f'<meta charset="{charset}">' if charset else ""
    return f"<html><head>{meta}<title>{title}</title></head><body><p>{text}</p></body></html>"


def pdf(*texts: str, title: str = "", bookmarks: Sequence[tuple[str, int]] = ()) -> bytes:
    """Write a PDF with a page for each text, as small as it can be.

    Bookmarks are titles and places of pages.
    """
    count = len(texts)
    kids = " ".join(f"{4 + 2 * place} 0 R" for place in range(count))
    size = "/MediaBox[0 0 612 792]/Resources<</Font<</F 3 0 R>>>>"
    first = 4 + 2 * count  # of the bookmarks, which are behind the pages
    outline = f"/Outlines {first} 0 R" if bookmarks else ""
    objects = [
        f"<</Type/Catalog/Pages 2 0 R{outline}>>",
        f"<</Type/Pages/Count {count}/Kids[{kids}]>>",
        "<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>",
    ]
    for place, text in enumerate(texts):
        lines = " 0 -14 Td ".join(f"({line}) Tj" for line in text.split("\n"))
        content = f"BT /F 12 Tf 72 720 Td {lines} ET"
        objects += [
            f"<</Type/Page/Parent 2 0 R/Contents {5 + 2 * place} 0 R{size}>>",
            f"<</Length {len(content)}>>stream\n{content}\nendstream",
        ]
    if bookmarks:
        objects.append(f"<</First {first + 1} 0 R/Last {first + len(bookmarks)} 0 R>>")
    for number, (name, place) in enumerate(bookmarks, first + 1):
        next_entry = f"/Next {number + 1} 0 R" if number < first + len(bookmarks) else ""
        objects.append(f"<</Title({name})/Dest[{4 + 2 * place} 0 R/Fit]{next_entry}>>")
    objects.append(f"<</Title({title})>>" if title else "<<>>")
    out, offsets = "%PDF-1.4\n", []
    for number, body in enumerate(objects, 1):
        offsets.append(len(out))
        out += f"{number} 0 obj{body}endobj\n"
    table = "".join(f"{offset:010} 00000 n \n" for offset in offsets)
    count = len(objects) + 1
    trailer = f"<</Size {count}/Root 1 0 R/Info {count - 1} 0 R>>"
    return (
        f"{out}xref\n0 {count}\n0000000000 65535 f \n{table}trailer{trailer}\n"
        f"startxref\n{len(out)}\n%%EOF"
    ).encode()


SPACES = """
xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main"
xmlns:m="http://schemas.openxmlformats.org/officeDocument/2006/math"
xmlns:a="http://schemas.openxmlformats.org/drawingml/2006/main"
xmlns:wp="http://schemas.openxmlformats.org/drawingml/2006/wordprocessingDrawing"
xmlns:pic="http://schemas.openxmlformats.org/drawingml/2006/picture"
xmlns:c="http://schemas.openxmlformats.org/drawingml/2006/chart"
xmlns:mc="http://schemas.openxmlformats.org/markup-compatibility/2006"
xmlns:v="urn:schemas-microsoft-com:vml"
"""
RELATIONS = "http://schemas.openxmlformats.org/package/2006/relationships"
OFFICE = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"


def part(element: str, body: str) -> str:
    return f"<w:{element} {SPACES}>{body}</w:{element}>"


def relations(*kinds_and_targets: tuple[str, str]) -> str:
    elements = "".join(
        f'<Relationship Id="r{place}" Type="{OFFICE}/{kind}" Target="{target}"/>'
        for place, (kind, target) in enumerate(kinds_and_targets)
    )
    return f'<Relationships xmlns="{RELATIONS}">{elements}</Relationships>'


def run(text: str) -> str:
    return f"<w:r><w:t>{text}</w:t></w:r>"


def package(parts: dict[str, str]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in parts.items():
            archive.writestr(name, content)
    return out.getvalue()


def docx(*paragraphs: str, body: str = "", **other_parts: str) -> bytes:
    """Write a DOCX of paragraphs, or of another body, and of other parts by their kinds."""
    body = body or "".join(f"<w:p>{run(text)}</w:p>" for text in paragraphs)
    kinds = {kind: f"{kind}.xml" for kind in other_parts}
    return package(
        {
            "_rels/.rels": relations(("officeDocument", "/word/document.xml")),
            "word/_rels/document.xml.rels": relations(*kinds.items()),
            "word/document.xml": part("document", f"<w:body>{body}</w:body>"),
            **{f"word/{kind}.xml": content for kind, content in other_parts.items()},
        }
    )
