"""PDF to text by pypdf, in a process of its own.

A PDF is a program: a few bytes may ask for any time and memory, and nothing can stop the library
from within. So it runs in a process that may have so much memory, and that is ended when a file
takes longer than its size allows. The process lives as long as this one, and starts in little more
time than the library takes to be imported.
"""

import atexit
import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from io import BytesIO
from typing import IO, Any, cast

from rerank_cli.inputs.text import Allowance, BoundExceeded, DocumentTooLarge, DocumentTooSlow

_START_SECONDS = 60.0
_MEMORY_BYTES = 700 << 20  # of the process, and so much more for each byte of a file:
_MEMORY_FACTOR = 4
_LARGE_BYTES = 4 << 20  # after such a file another process reads, because this one has grown
_CODE = """
import json, sys
sys.path[:] = json.loads(sys.argv[1])
from rerank_cli.inputs.pdf_text import serve
serve()
"""
_UNKNOWN_SHARE = 0.2  # of the characters of a page whose text is in doubt


@dataclass(slots=True)
class PdfText:
    """What is in a PDF. `scanned` and `garbled` are numbers of pages.

    scanned   pages with pictures and without text
    garbled   pages whose fonts do not say what many of their characters mean
    pictures  how many different pictures there are
    """

    text: str
    title: str
    scanned: list[int]
    garbled: list[int]
    pictures: int


def read_pdf(data: bytes, allowance: Allowance) -> PdfText:
    """Read a PDF. Raises `ImportError` without pypdf, `BoundExceeded`, and `ValueError`."""
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
            else:  # it has grown, has died or is at work on this file still
                process.close()
    if "error" in answer:
        raise ValueError(answer["error"])
    return PdfText(**answer["pdf"])


class _Process:
    """The process that reads, as this one sees it."""

    def __init__(self) -> None:
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
        """Have a PDF read; gives it or an error. Raises `BoundExceeded`."""
        request = {
            "size": len(data),
            "max_bytes": allowance.max_bytes,
            "max_memory": _MEMORY_BYTES + _MEMORY_FACTOR * len(data),
        }
        answer = self._ask([f"{json.dumps(request)}\n".encode(), data], allowance.seconds)
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

        That is empty if the process has died, and None if it was ended after so many seconds.
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
        return None if late.is_set() else {}


_lock = threading.Lock()
_processes: list[_Process] = []  # one at most


@atexit.register
def _end_process() -> None:
    while _processes:
        _processes.pop().close()


def serve() -> None:
    """Read the PDFs of the process that started this one, until it ends."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    output = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    sys.stdout = sys.stderr  # what the library prints is no answer
    requests = queue.SimpleQueue[tuple[dict[str, int], bytes]]()
    threading.Thread(target=_receive, args=(requests,), daemon=True).start()
    import pypdf  # noqa: F401 - it takes the most time of all

    _answer(output, {"ready": True})
    while True:
        request, data = requests.get()
        try:
            _answer(output, _read(data, request["max_bytes"], request["max_memory"]))
        except MemoryError:
            _answer(output, {})


def _receive(requests: "queue.SimpleQueue[tuple[dict[str, int], bytes]]") -> None:
    """Put requests into a queue; end this process at the end of its input, whatever it is doing."""
    while line := sys.stdin.buffer.readline():
        request = json.loads(line)
        requests.put((request, sys.stdin.buffer.read(request["size"])))
    os._exit(0)


def _answer(output: IO[bytes], answer: Mapping[str, Any]) -> None:
    line = json.dumps(answer).encode()
    output.write(line + b"\n")
    output.flush()


def _read(data: bytes, max_bytes: int, max_memory: int) -> dict[str, Any]:
    with suppress(ImportError, OSError, ValueError):  # not on every system
        import resource

        most = resource.getrlimit(resource.RLIMIT_AS)[1]
        resource.setrlimit(resource.RLIMIT_AS, (max_memory, most))
    try:
        pdf = _read_pages(data, max_bytes)
    except MemoryError:
        raise
    except RecursionError:
        return {"error": "nested too deeply"}
    except Exception as error:  # noqa: BLE001 - the library's errors have no common base
        return {"error": str(error) or type(error).__name__}
    return {"is_large": True} if pdf is None else {"pdf": asdict(pdf)}


def _read_pages(data: bytes, max_bytes: int) -> PdfText | None:
    """Read all pages; None if they have more text than is allowed."""
    from pypdf import PdfReader

    reader = PdfReader(BytesIO(data))
    pdf, texts, size = PdfText("", "", [], [], 0), list[str](), 0
    pictures = set[Any]()
    for number, page in enumerate(reader.pages, 1):
        text = page.extract_text().replace("\u00ad\n", "")  # hyphens of the layout
        size += len(text)
        if size > max_bytes:
            return None
        texts.append(text)
        found = set(_pictures(page))
        pictures |= found
        characters = "".join(text.split())
        if not characters and found:
            pdf.scanned.append(number)
        unknown = sum(map(_is_unknown, characters))
        if unknown > _UNKNOWN_SHARE * len(characters):
            pdf.garbled.append(number)
    pdf.text = "\n\n".join(texts)
    pdf.title = (reader.metadata.title if reader.metadata else None) or ""
    pdf.pictures = len(pictures)
    return pdf


def _pictures(page: Any) -> Iterator[Any]:
    """What tells the pictures of a page apart."""
    with suppress(Exception):  # a damaged page may have text all the same
        objects = page["/Resources"]["/XObject"].get_object()
        for name, reference in objects.items():
            if objects[name].get("/Subtype") in ("/Image", "/Form"):
                yield getattr(reference, "idnum", name)


def _is_unknown(character: str) -> bool:
    return character == "\ufffd" or character < " " or "\ue000" <= character <= "\uf8ff"
