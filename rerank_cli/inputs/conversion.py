"""Converts HTML, PDF and DOCX files and notebooks to text.

A new format needs a member of `InputFormat`, and a row in the table `CONVERTERS`. No conversion
takes more time than the size of a file allows, or gives more text than a document may have.

A PDF is a program: a few bytes may ask for any time and memory, and nothing can stop the library
from within. So it runs in a process of its own, whose memory is limited, and which is ended when a
file takes too long. The process starts with the first PDF and lives as long as this one; its start
takes little more time than the import of the library.
"""

import atexit
import json
import os
import re
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from typing import IO, TYPE_CHECKING, Any, NamedTuple, cast

from rerank_cli.errors import InputError, MissingExtra
from rerank_cli.inputs import InputFormat
from rerank_cli.inputs.text import (
    Allowance,
    BoundExceeded,
    DocumentTooLarge,
    DocumentTooSlow,
    Fault,
)
from rerank_cli.structure import MARKDOWN, PLAIN, Block, BlockKind, find_blocks, pause_collection
from rerank_cli.terminal import encodable

if TYPE_CHECKING:
    import queue

    from rerank_cli.inputs.pdf import PdfText

# The time that a file may take. Ordinary ones take a tenth of it.
_SECONDS = 4.0
_SECONDS_PER_BYTE = 2.5e-6
_BACKTICKS = re.compile(r"`{2,}")
_MARKED_BYTES = 1024  # in which readers of PDF look for its mark


@dataclass(slots=True)
class Conversion:
    """The text of a file.

    title         its title, which may be empty
    losses        the number of things in it that have no text form, by their kinds
    faults        what was wrong with parts of it
    blocks        its structure; None if it has none but that of its text
    source_lines  the line of the file for each line of the text; None if there are none
    page_starts   the characters at which its pages begin; None if it has no pages
    syntax        what the text is written in; plain if it has no marks
    """

    text: str
    title: str = ""
    losses: Counter[str] = field(default_factory=Counter)
    faults: Sequence[Fault] = ()
    blocks: Sequence[Block] | None = None
    source_lines: Sequence[int] | None = None
    page_starts: Sequence[int] | None = None
    syntax: str = PLAIN


class Converter(NamedTuple):
    """How files of one format become text.

    suffixes   the endings of their names
    read       converts a file's bytes; imports the library
    extra      the extra of this package that brings the library, if it needs one
    is_binary  whether such files are not text themselves
    mark       what is in the first bytes of such files; empty if nothing is
    """

    suffixes: Sequence[str]
    read: Callable[[bytes, Allowance], Conversion]
    extra: str | None = None
    is_binary: bool = True
    mark: bytes = b""


def convert(data: bytes, format_: InputFormat, source: str, max_bytes: int) -> Conversion:
    """Convert a file to text of at most `max_bytes`.

    Raises `MissingExtra`, `BoundExceeded`, and `InputError` for a damaged file.
    """
    converter = CONVERTERS[format_]
    allowance = Allowance(source, max_bytes, _SECONDS + _SECONDS_PER_BYTE * len(data))
    try:
        conversion = converter.read(data, allowance)
    except InputError:
        raise
    except ImportError as error:
        if converter.extra is None:
            raise
        raise MissingExtra(f"{source}: reading {format_.upper()}", converter.extra) from error
    except Exception as error:  # the errors of libraries have no common base
        name = format_.upper()
        has_mark = converter.mark in data[:_MARKED_BYTES]
        reason = str(error) if has_mark else f"it is no {name}"
        raise InputError(f"{source}: cannot be read as {name}: {reason}") from error
    conversion.text = encodable(conversion.text)
    conversion.title = " ".join(encodable(conversion.title).split())
    return conversion


def formats_by_extra() -> Mapping[str, Sequence[InputFormat]]:
    """The formats that each extra adds."""
    formats: dict[str, list[InputFormat]] = {}
    for format_, converter in CONVERTERS.items():
        if converter.extra is not None:
            formats.setdefault(converter.extra, []).append(format_)
    return formats


def _read_html(data: bytes, allowance: Allowance) -> Conversion:
    from rerank_cli.inputs.html import read_html

    with pause_collection():
        page = read_html(data, allowance)
    return Conversion(
        page.text, page.title, page.losses, blocks=page.blocks, source_lines=page.source_lines
    )


def _read_pdf(data: bytes, allowance: Allowance) -> Conversion:
    pdf = _read_in_process(data, allowance)
    faults = [
        Fault(
            f"{allowance.name}, page {pages[0]}",
            problem,
            hint="ocrmypdf --force-ocr reads pages from their pictures",
            is_doubt=True,
            noun="page",
            count=len(pages),
        )
        for pages, problem in (
            (pdf.scanned_pages, "a picture without text"),
            (pdf.garbled_pages, "its fonts do not say what its characters are"),
        )
        if pages
    ]
    losses = Counter({"picture": pdf.pictures}) if pdf.pictures else Counter[str]()
    return Conversion(
        pdf.text, pdf.title, losses, faults, blocks=pdf.blocks, page_starts=pdf.page_starts
    )


def _read_docx(data: bytes, allowance: Allowance) -> Conversion:
    from rerank_cli.inputs.docx import read_docx

    text, losses, blocks = read_docx(data, allowance)
    return Conversion(text, losses=losses, blocks=blocks)


def _read_notebook(data: bytes, allowance: Allowance) -> Conversion:
    """Read a notebook as Markdown: its texts, and its code in fences. Outputs are left out.

    The formats are versions 3 and 4 of nbformat (https://nbformat.readthedocs.io).
    """
    notebook = json.loads(data)
    try:
        cells = [
            cell for sheet in notebook.get("worksheets", [notebook]) for cell in sheet["cells"]
        ]
        metadata = notebook.get("metadata", {})
        language = str(metadata.get("language_info", {}).get("name", "")).partition("\n")[0]
        parts = [_read_cell(cell, language, allowance) for cell in cells]
        outputs = sum(len(cell.get("outputs", ())) for cell in cells)
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError("it is no notebook") from error
    text = "".join(f"{part}\n\n" for part in parts if part.strip())
    return Conversion(
        text,
        str(metadata.get("title", "")),
        Counter({"output": outputs} if outputs else {}),
        blocks=find_blocks(text, MARKDOWN),
        syntax=MARKDOWN,
    )


def _read_cell(cell: Mapping[str, Any], language: str, allowance: Allowance) -> str:
    """The text of a cell as Markdown; it may be blank."""
    content = cell.get("source", cell.get("input", ""))
    text = (content if isinstance(content, str) else "".join(content)).strip("\n")
    allowance.take(len(text.encode("utf-8", "replace")))
    if cell["cell_type"] == "code" and text:
        fence = "`" * (1 + max(map(len, _BACKTICKS.findall(text)), default=2))
        return f"{fence}{language}\n{text}\n{fence}"
    if cell["cell_type"] == "heading":  # of version 3
        return f"{'#' * min(cell.get('level', 1), 6)} {text}"
    return text


CONVERTERS: Mapping[InputFormat, Converter] = {
    InputFormat.HTML: Converter((".html", ".htm", ".xhtml"), _read_html, is_binary=False),
    InputFormat.PDF: Converter((".pdf",), _read_pdf, "docs", mark=b"%PDF-"),
    InputFormat.DOCX: Converter((".docx",), _read_docx, mark=b"PK"),
    InputFormat.IPYNB: Converter((".ipynb",), _read_notebook, is_binary=False),
}


_START_SECONDS = 60.0
_WALL_FACTOR = 4  # of the processor's seconds, on a machine that does much else
_MEMORY_BYTES = 700 << 20  # of the process, and for each byte of a file this many more:
_MEMORY_FACTOR = 4
_LARGE_BYTES = 4 << 20  # a process that has read a larger file is replaced, as it has grown
_CODE = """
import json, sys
sys.path[:] = json.loads(sys.argv[1])
from rerank_cli.inputs.conversion import serve_pdf
serve_pdf()
"""


def _read_in_process(data: bytes, allowance: Allowance) -> "PdfText":
    """Read a PDF. Raises `ImportError` without pypdf, `BoundExceeded`, and `ValueError`."""
    from importlib.util import find_spec

    from rerank_cli.inputs.pdf import PdfText

    if find_spec("pypdf") is None:
        raise ImportError("pypdf")
    with _lock:
        process = _processes.pop() if _processes else _Process()
        is_ready = False
        try:
            answer = process.read(data, allowance)
            is_ready = len(data) <= _LARGE_BYTES
        finally:
            if is_ready:
                _processes.append(process)
            else:  # it has grown, has died or is still busy with this file
                process.close()
    if "error" in answer:
        raise ValueError(answer["error"])
    pdf = PdfText(**answer["pdf"])
    blocks = (Block(*block) for block in pdf.blocks)
    pdf.blocks = [block._replace(kind=BlockKind(block.kind)) for block in blocks]
    return pdf


class _Process:
    """The process that reads PDFs, seen from this one."""

    def __init__(self) -> None:
        import subprocess  # few runs need it

        self._process = subprocess.Popen(  # noqa: S603 - it is this Python
            [sys.executable, "-c", _CODE, json.dumps(sys.path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        self._input = cast("IO[bytes]", self._process.stdin)
        self._output = cast("IO[bytes]", self._process.stdout)
        if not self._ask([], _START_SECONDS):
            self.close()
            raise ValueError("the process that reads it does not start")

    def read(self, data: bytes, allowance: Allowance) -> dict[str, Any]:
        """Have a PDF read; returns its content or an error. Raises `BoundExceeded`."""
        request = {
            "size": len(data),
            "max_bytes": allowance.max_bytes,
            "max_memory": _MEMORY_BYTES + _MEMORY_FACTOR * len(data),
            "seconds": allowance.seconds,
        }
        longest = _WALL_FACTOR * allowance.seconds
        answer = self._ask([f"{json.dumps(request)}\n".encode(), data], longest)
        if answer is None:
            raise DocumentTooSlow(allowance.name, allowance.seconds)
        if answer.get("is_large"):
            raise DocumentTooLarge(allowance.name, allowance.max_bytes)
        if not answer:
            raise BoundExceeded(f"{allowance.name}: takes too much memory to be read: left out")
        return answer

    def close(self) -> None:
        self._process.kill()
        with suppress(OSError):
            self._process.communicate()

    def _ask(self, request: list[bytes], seconds: float) -> dict[str, Any] | None:
        """Send a request and wait for its answer.

        The answer is empty if the process has died, and None if it was ended for taking too long.
        """
        late = threading.Event()

        def end() -> None:
            late.set()
            self._process.kill()

        timer = threading.Timer(seconds, end)
        timer.start()
        try:
            with suppress(BrokenPipeError):
                self._input.writelines(request)
                self._input.flush()
            line = self._output.readline()
        finally:
            timer.cancel()
        if line.endswith(b"\n"):
            answer: dict[str, Any] = json.loads(line)
            return answer
        import signal

        is_late = self._process.wait() == -getattr(signal, "SIGXCPU", 0) or late.is_set()
        return None if is_late else {}


_lock = threading.Lock()
_processes: list[_Process] = []  # one at most


@atexit.register
def _end_process() -> None:
    while _processes:
        _processes.pop().close()


def serve_pdf() -> None:
    """Read the PDFs of the process that started this one, until it ends."""
    import queue
    import signal

    signal.signal(signal.SIGINT, signal.SIG_DFL)
    output = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    sys.stdout = sys.stderr  # what the library prints is not an answer
    requests = queue.SimpleQueue[tuple[dict[str, int], bytes]]()
    threading.Thread(target=_receive, args=(requests,), daemon=True).start()
    import pypdf  # noqa: F401 - it takes the most time of all

    import rerank_cli.inputs.pdf  # noqa: F401 - so that no file waits for it

    _answer(output, {"ready": True})
    while True:
        request, data = requests.get()
        with _end_without_memory():
            _limit(request["max_memory"], request["seconds"])
            _answer(output, _read(data, request["max_bytes"]))


def _receive(requests: "queue.SimpleQueue[tuple[dict[str, int], bytes]]") -> None:
    """Put requests into a queue; end this process at the end of its input, whatever it is doing."""
    with _end_without_memory():
        while line := sys.stdin.buffer.readline():
            request = json.loads(line)
            requests.put((request, sys.stdin.buffer.read(request["size"])))
    os._exit(0)


@contextmanager
def _end_without_memory() -> Iterator[None]:
    """End this process at once if it has no memory left even for an orderly end."""
    try:
        yield
    except MemoryError:
        os._exit(1)


def _answer(output: IO[bytes], answer: Mapping[str, Any]) -> None:
    line = json.dumps(answer).encode()
    output.write(line + b"\n")
    output.flush()


def _limit(max_memory: int, seconds: float) -> None:
    """Limit the memory and the processor time of this process: above them it ends."""
    with suppress(ImportError, OSError, ValueError):  # not on every system
        import resource

        limits = {
            resource.RLIMIT_CORE: 0,
            resource.RLIMIT_CPU: int(time.process_time() + seconds) + 1,
            resource.RLIMIT_AS: max_memory,
        }
        for kind, limit in limits.items():
            resource.setrlimit(kind, (limit, resource.getrlimit(kind)[1]))


def _read(data: bytes, max_bytes: int) -> dict[str, Any]:
    from rerank_cli.inputs.pdf import read_pdf

    try:
        pdf = read_pdf(data, max_bytes)
    except MemoryError:
        raise
    except RecursionError:
        return {"error": "nested too deeply"}
    except Exception as error:  # noqa: BLE001 - the library's errors have no common base
        return {"error": str(error) or type(error).__name__}
    return {"is_large": True} if pdf is None else {"pdf": asdict(pdf)}
