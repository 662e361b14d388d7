"""Time and peak memory of every reader of inputs, at three sizes of inputs that are hard to read.

    python scripts/bench_inputs.py [--size MB] [NAME...]

Each row is a reader and a shape of input. Its figures are the processor's time and the peak memory
of a process of its own that reads an input of a quarter, a half and the whole of SIZE (10 MB) into
documents, and scores none. What is linear doubles from one column to the next. The last column says
what was read.
"""

import argparse
import atexit
import bz2
import gzip
import io
import json
import lzma
import resource
import subprocess
import sys
import tempfile
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

TIMEOUT_SECONDS = 900
MAX_MEMORY_BYTES = 3 << 30
Make = Callable[[int], bytes]


def fill(unit: bytes, size: int, before: bytes = b"", after: bytes = b"") -> bytes:
    """A unit that is repeated to a size, between a start and an end."""
    return before + unit * max(1, (size - len(before) - len(after)) // len(unit)) + after


def filler(unit: bytes, before: bytes = b"", after: bytes = b"") -> Make:
    return lambda size: fill(unit, size, before, after)


def packed_line(size: int, times: int = 100, kind: Any = gzip.open) -> bytes:
    """A compressed line that is so many times as large as the size says."""
    archive, piece = io.BytesIO(), b"word " * 20_000
    with kind(archive, mode="wb") as stream:
        for _ in range(size * times // len(piece)):
            stream.write(piece)
    return archive.getvalue()


def small_members(size: int) -> bytes:
    return fill(gzip.compress(b"word\n"), size)


def members_without_content(size: int) -> bytes:
    return fill(gzip.compress(b""), size)


def packed_values(size: int) -> bytes:
    """A compressed record with as many lists as a document may have."""
    return gzip.compress(fill(b"[],", size * 6, b'{"text": "x", "more": [', b"0]}\n"))


def equal_names(size: int) -> bytes:
    half = size // 2
    return fill(b"text,", half) + b"text\n" + fill(b"x,", half) + b"x\n"


def wide_header(size: int) -> bytes:
    half = size // 2
    names = b",".join(b"c%d" % number for number in range(half // 8))
    return b"text," + names + b"\n" + fill(b"x\n", half)


WORD = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"
RUN, RUN_END = b"<w:p><w:r><w:t>", b"</w:t></w:r></w:p>"


def docx(make_body: Make, times: int = 1) -> Make:
    """A document whose body has so many times the size; the file is smaller."""

    def make(size: int) -> bytes:
        stream = io.BytesIO()
        with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
            start = f'<w:document xmlns:w="{WORD}"><w:body>'.encode()
            body = make_body(size * times)
            archive.writestr("word/document.xml", start + body + b"</w:body></w:document>")
        return stream.getvalue()

    return make


def nested(first: bytes, last: bytes) -> Make:
    """As many starts as ends, and a letter between them."""
    return lambda size: (count := size // len(first + last)) * first + b"x" + count * last


def count_up(unit: bytes, before: bytes = b"", after: bytes = b"") -> Make:
    """Units in which %d is their number."""
    length = len(unit) + 5
    return lambda size: before + b"".join(unit % number for number in range(size // length)) + after


def pdf(content: bytes, pages: int = 1, kids: bytes = b"") -> bytes:
    """A PDF in which all pages have the same packed content."""
    stream = zlib.compress(content)
    page = b"<</Type/Page/Parent 2 0 R/Contents 4 0 R/Resources<</Font<</F 3 0 R>>>>>>"
    objects = [
        b"<</Type/Catalog/Pages 2 0 R>>",
        b"<</Type/Pages/Count %d/Kids[%s]>>" % (pages, kids or b"5 0 R " * pages),
        b"<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>",
        b"<</Length %d/Filter/FlateDecode>>stream\n%s\nendstream" % (len(stream), stream),
        page,
    ]
    out, table = b"%PDF-1.4\n", b""
    for number, body in enumerate(objects, 1):
        table += b"%010d 00000 n \n" % len(out)
        out += b"%d 0 obj%sendobj\n" % (number, body)
    end = b"trailer<</Size 6/Root 1 0 R>>\nstartxref\n%d\n%%%%EOF" % len(out)
    return out + b"xref\n0 6\n0000000000 65535 f \n" + table + end


SHAPES: dict[str, tuple[str, Make]] = {
    "lines: short ones": ("a.txt", filler(b"some words\n")),
    "lines: empty ones": ("a.txt", lambda size: b"\n" * size),
    "lines: one": ("a.txt", filler(b"word ")),
    "lines: bytes that are no text": ("a.txt", filler(b"\xff\xfe\xfd \n")),
    "lines: UTF-16": ("a.txt", lambda size: b"\xff\xfe" + fill("word\n".encode("utf-16-le"), size)),
    "lines: UTF-32, line ends within characters": (
        "a.txt", lambda size: b"\xff\xfe\0\0" + fill(b"\0\n\0\0", size)),
    "lines: UTF-32, one": ("a.txt", lambda size: b"\xff\xfe\0\0" + fill(b"a\0\0\0", size)),
    "lines: NUL ends them": ("a.txt -0", filler(b"word\0")),
    "lines: NUL bytes as text": ("a.txt -a", lambda size: b"\0" * size),
    "lines: gzip, one": ("a.txt.gz", packed_line),
    "lines: bzip2, one": ("a.txt.bz2", lambda size: packed_line(size, 20, bz2.open)),
    "lines: xz, one": ("a.txt.xz", lambda size: packed_line(size, 20, lzma.open)),
    "lines: gzip in gzip": ("a.txt.gz", lambda size: gzip.compress(packed_line(size))),
    "lines: gzip, small members": ("a.txt.gz", small_members),
    "lines: gzip, members without content": ("a.txt.gz", members_without_content),
    "paragraphs: short ones": ("a.txt --unit paragraph", filler(b"a\nb\n\n")),
    "paragraphs: one of short lines": ("a.txt --unit paragraph", lambda size: b"a\n" * (size // 2)),
    "paragraphs: blank lines": ("a.txt --unit paragraph", lambda size: b"a\n" + b"\n" * size),
    "files: one": ("a.md", filler(b"word ")),
    "files: headings": ("a.md --prepend title", filler(b"# \n")),
    "grep: short lines": ("a.txt --grep", filler(b"a.py:12:text\n")),
    "grep: colons": ("a.txt --grep", filler(b"a:1:")),
    "JSONL: short records": ("a.jsonl", filler(b'{"text": "word"}\n')),
    "JSONL: blank lines": ("a.jsonl", filler(b" \n", b'{"text": "x"}\n')),
    "JSONL: one string": ("a.jsonl", filler(b"word ", b'{"text": "', b'"}\n')),
    "JSONL: escapes": ("a.jsonl", filler(b"\\u00e9\\n", b'{"text": "', b'"}\n')),
    "JSONL: numbers": ("a.jsonl", filler(b"1234,", b'{"text": "x", "n": [', b"0]}\n")),
    "JSONL: empty lists": ("a.jsonl", filler(b"[],", b'{"text": "x", "n": [', b"0]}\n")),
    "JSONL: empty lists, packed": ("a.jsonl.gz", packed_values),
    "JSONL: objects": ("a.jsonl", filler(b'{"a":{}},', b'{"text": "x", "n": [', b"0]}\n")),
    "JSONL: levels": ("a.jsonl", filler(b"[")),
    "JSONL: levels of objects": ("a.jsonl", filler(b'{"a":', b'{"text": "x", "n": ')),
    "JSONL: equal keys": ("a.jsonl", filler(b'"text":"x",', b"{", b'"text":"y"}\n')),
    "JSONL: many keys": ("a.jsonl", lambda size: json.dumps(
        {"text": "x", **{f"k{number}": 0 for number in range(size // 14)}}).encode()),
    "JSONL: a large number": ("a.jsonl", filler(b"9", b'{"text": "x", "n": ', b"}\n")),
    "JSONL: a large fraction": ("a.jsonl", filler(b"9", b'{"text": "x", "n": 1.', b"}\n")),
    "JSONL: not closed": ("a.jsonl", filler(b"word ", b'{"text": "')),
    "JSON: short records": ("a.json", filler(b'{"text": "word"},', b"[", b'"x"]')),
    "JSON: a series": ("a.json", filler(b'{"text": "word"} ')),
    "JSON: numbers": ("a.json", filler(b"1,", b'["x",', b"0]")),
    "JSON: one string": ("a.json", filler(b"word ", b'["', b'"]')),
    "JSON: a string that is not closed": ("a.json", filler(b"word ", b'["')),
    "JSON: blanks": ("a.json", filler(b" \n", b'["x",', b'"y"]')),
    "JSON: blanks in a value": ("a.json", filler(b" \n", b'[{"text":', b'"y"}]')),
    "JSON: levels": ("a.json", filler(b"[")),
    "JSON: one record of numbers": ("a.json", filler(b"1,", b'[{"text": "x", "n": [', b"0]}]")),
    "CSV: short rows": ("a.csv", filler(b"1,word\n", b"id,text\n")),
    "CSV: rows with a field too many": ("a.csv", filler(b"1,word,more\n", b"id,text\n")),
    "CSV: rows with a field too few": ("a.csv", filler(b"1\n", b"id,text\n")),
    "CSV: blank lines": ("a.csv", filler(b"\n", b"id,text\n1,x\n")),
    "CSV: columns": ("a.csv", filler(b"a,", b"text,", b"a\nx\n")),
    "CSV: columns of equal names": ("a.csv", equal_names),
    "CSV: columns, and rows of one field": ("a.csv", wide_header),
    "CSV: one row of delimiters": ("a.csv", filler(b",", b"id,text\n1")),
    "CSV: one quoted field": ("a.csv", filler(b"word\n", b'id,text\n1,"', b'"\n')),
    "CSV: a quotation mark that is open": ("a.csv", filler(b"2,word\n", b'id,text\n1,"x\n')),
    "CSV: an open mark, and short lines": ("a.csv", filler(b"x\n", b'id,text\n1,"x\n')),
    "CSV: marks that are open in each row": ("a.csv", filler(b'p","\n', b"id,text\n", b'p"q\n')),
    "CSV: open marks in one row": ("a.csv", filler(b'"a,', b"id,text\n1,")),
    "CSV: marks and blanks": ("a.csv", filler(b'" ', b"id,text\n1,")),
    "CSV: escaped marks": ("a.csv", filler(b'1,"a \\"b\\", c"\n', b"id,text\n")),
    "CSV: escaped marks, and none closes": ("a.csv", filler(b'1,"a \\", "c\n', b"id,text\n")),
    "CSV: marks": ("a.csv", filler(b'"', b"id,text\n1,")),
    "CSV: carriage returns": ("a.csv", filler(b"1,x\r", b"id,text\r")),
    "CSV: carriage returns in a row": ("a.csv", filler(b"x\r", b"id,text\n1,")),
    "TSV: short rows": ("a.tsv", filler(b"1\tword\n", b"id\ttext\n")),
    "TSV: one row of tabs": ("a.tsv", filler(b"\t", b"id\ttext\n1")),
    "HTML: paragraphs": ("a.html", filler(b"<p>some <b>words</b> to be read</p>\n")),
    "HTML: tags": ("a.html", filler(b"<b>")),
    "HTML: blocks that are open": ("a.html", filler(b"<div>")),
    "HTML: levels": ("a.html", nested(b"<div>", b"</div>")),
    "HTML: wrong ends": ("a.html", nested(b"<div>", b"</b>")),
    "HTML: cells": ("a.html", filler(b"<tr><td>a<td>b", b"<table>")),
    "HTML: a wide cell and many rows": ("a.html", lambda size: b"<table><tr><td>" + fill(
        b"a ", size // 2) + fill(b"<tr><td>b</td><td>c</td></tr>", size // 2)),
    "HTML: items": ("a.html", filler(b"<ol><li>a")),
    "HTML: attributes": ("a.html", count_up(b"a%d=1 ", b"<p ", b">x")),
    "HTML: quotes": ("a.html", filler(b"<a =\">\" '")),
    "HTML: comments": ("a.html", filler(b"<!--")),
    "HTML: empty comments": ("a.html", filler(b"<!-->")),
    "HTML: declarations": ("a.html", filler(b"<!")),
    "HTML: less than": ("a.html", filler(b"<")),
    "HTML: tags that are open": ("a.html", filler(b"<a ")),
    "HTML: titles": ("a.html", filler(b"<title>")),
    "HTML: hidden": ("a.html", filler(b"<div style=display:none>")),
    "HTML: hidden levels": ("a.html", nested(b"<div style=display:none>", b"</div>")),
    "HTML: references": ("a.html", filler(b"&amp")),
    "HTML: a long number": ("a.html", filler(b"9", b"&#", b";")),
    "HTML: punycode": ("a.html", filler(b"ab", b"<meta charset=punycode>")),
    "HTML: NUL bytes": ("a.html", filler(b"\0", b"<p>")),
    "DOCX: paragraphs": ("a.docx", docx(filler(RUN + b"some words to be read" + RUN_END))),
    "DOCX: one run": ("a.docx", docx(filler(b"word ", RUN, RUN_END))),
    "DOCX: one run, 6 times as large": ("a.docx", docx(filler(b"word ", RUN, RUN_END), 6)),
    "DOCX: one run, 100 times as large": ("a.docx", docx(filler(b"word ", RUN, RUN_END), 100)),
    "DOCX: lines": ("a.docx", docx(filler(b"a\n", RUN, RUN_END), 6)),
    "DOCX: empty paragraphs": ("a.docx", docx(filler(b"<w:p/>"), 6)),
    "DOCX: breaks": ("a.docx", docx(filler(b"<w:br/>"), 6)),
    "DOCX: runs of a letter": ("a.docx", docx(filler(b"<w:t>a</w:t>"), 6)),
    "DOCX: levels": ("a.docx", docx(nested(b"<w:x>", b"</w:x>"), 6)),
    "DOCX: an attribute": ("a.docx", docx(filler(b"x", b'<w:p a="', b'"/>'), 6)),
    "DOCX: attributes": ("a.docx", docx(count_up(b'a%d="" ', b"<w:p ", b"/>"))),
    "DOCX: a comment": ("a.docx", docx(filler(b"x", b"<!--", b"-->"), 6)),
    "PDF: a page of text": (
        "a.pdf", lambda size: pdf(fill(b"(word) Tj ", size // 10, b"BT /F 9 Tf ", b"ET"))
    ),
    "PDF: a page, 6 times as large": (
        "a.pdf", lambda size: pdf(fill(b"(word) Tj ", size * 6, b"BT /F 9 Tf ", b"ET"))
    ),
    "PDF: equal pages": (
        "a.pdf", lambda size: pdf(b"BT /F 9 Tf (word) Tj ET" * 100, size // 200)
    ),
    "PDF: pages in a circle": ("a.pdf", lambda size: pdf(b"", 1, b"2 0 R " * (size // 200))),
    "PDF: no objects": ("a.pdf", filler(b"1 0 obj<<", b"%PDF-1.4\n")),
    "rules: patterns": (".gitignore -r", lambda size: count_up(b"*%dx\n")(size // 40)),
    "rules: one pattern": (".gitignore -r", lambda size: b"**/" * (size // 120)),
    "rules: too many": (".gitignore -r", count_up(b"*%dx\n")),
    "a list of missing files": ("list --files-from --open", filler(b"no such file, and so on\n")),
    "a list of names": ("list --files-from", lambda size: b"\n" * size),
    "a query": ("query --query-file", filler(b"word ")),
}  # fmt: skip


def read_documents(path: str, flags: list[str]) -> str:
    """Read an input, and say what came out."""
    from rerank_cli.inputs import Prepend, Unit
    from rerank_cli.inputs.documents import Inputs
    from rerank_cli.inputs.files import read_content, read_names
    from rerank_cli.inputs.source import ReadOptions

    if "--files-from" in flags and "--open" not in flags:
        return f"{len(read_names(path, null=False))} names"
    if "--query-file" in flags:
        return f"{len(read_content(path, 64_000_000))} bytes"
    options = ReadOptions(
        null="-0" in flags,
        text="-a" in flags,
        grep="--grep" in flags,
        unit=Unit.PARAGRAPH if "--unit" in flags else Unit.AUTO,
        prepend=Prepend.TITLE if "--prepend" in flags else None,
    )
    listed_paths = read_names(path, null=False) if "--files-from" in flags else []
    paths = [] if listed_paths else [str(Path(path).parent)] if "-r" in flags else [path]
    inputs = Inputs(
        paths=paths, listed_paths=listed_paths, recursive="-r" in flags, options=options
    )
    inputs.check()
    count = 0
    for document in inputs:
        count += 1
        del document
    report = inputs.report
    notes = [*map(str, report.problems[:1]), *map(str, report.faults), *report.skip_counts]
    return "; ".join([f"{count} documents", *notes])


def peak_megabytes() -> int:
    """The peak memory of this process. On Linux what it began as does not count."""
    status = Path("/proc/self/status")
    if status.exists():
        lines = status.read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) // 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def run_child(path: str, flags: list[str]) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MAX_MEMORY_BYTES, MAX_MEMORY_BYTES))
    start = time.process_time()
    try:
        result = read_documents(path, flags)
    except Exception as error:  # noqa: BLE001 - it is what came out
        result = f"{type(error).__name__}: {error}"
    atexit._run_exitfuncs()  # end the process that reads PDF, so that it counts
    others = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = time.process_time() - start + others.ru_utime + others.ru_stime
    peak = peak_megabytes() + others.ru_maxrss // 1024
    print(json.dumps([seconds, peak, result.replace(path, "FILE")[:300]]))


def measure(name: str, sizes: list[int], folder: Path) -> Iterator[tuple[float, int, str]]:
    file, make = SHAPES[name]
    file, *flags = file.split()
    for size in sizes:
        path = folder / file
        path.write_bytes(make(size))
        command = [sys.executable, __file__, "--child", str(path), *flags]
        try:
            process = subprocess.run(
                command, capture_output=True, timeout=TIMEOUT_SECONDS, check=False
            )
            seconds, peak, result = json.loads(process.stdout or b'[-1, -1, "ended"]')
        except subprocess.TimeoutExpired:
            seconds, peak, result = TIMEOUT_SECONDS, -1, "no end"
        path.unlink()
        yield seconds, peak, result


def main() -> None:
    if sys.argv[1:2] == ["--child"]:
        run_child(sys.argv[2], sys.argv[3:])
        return
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="rows whose name has one of these")
    parser.add_argument("--size", type=float, default=10, metavar="MB")
    arguments = parser.parse_args()
    whole = int(arguments.size * 1_000_000)
    sizes = [whole // 4, whole // 2, whole]
    columns = "".join(f" {size / 1e6:g} MB: s | MB |" for size in sizes)
    print(f"| reader |{columns} what was read |\n|{'---|' * (2 * len(sizes) + 2)}")
    with tempfile.TemporaryDirectory() as folder:
        for name in SHAPES:
            if arguments.names and not any(part in name for part in arguments.names):
                continue
            figures = [*measure(name, sizes, Path(folder))]
            cells = "".join(f" {seconds:.2f} | {peak} |" for seconds, peak, _ in figures)
            print(f"| {name} |{cells} {figures[-1][2]} |", flush=True)


if __name__ == "__main__":
    main()
