"""HTTP/1.1 over asyncio streams: a request is read, a reply is written, well or badly.

Just as much of it as clients of rerank APIs use: bodies with a length or in chunks, connections
that are kept, and every way of breaking off in the middle that a reply can ask for.
"""

import asyncio
import json
import socket
import struct
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qsl, unquote

ENCODE = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False).encode
PIECE = 1 << 20  # of a very long body, written before waiting for the client to take it


@dataclass(frozen=True, slots=True)
class Request:
    """What a client sent, as it came; `json` is None where the body is not JSON."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes
    json: Any
    at: float
    connection: int = 0


@dataclass(slots=True)
class Reply:
    """What is to be written, and how: a body that is bytes is written as it is."""

    code: int = 200
    body: Any = b""
    headers: dict[str, str] = field(default_factory=dict)
    texts: list[str] = field(default_factory=list)  # what the results are about, for faults
    delay: float = 0.0
    drip: tuple[int, float] | None = None  # bytes at a time, and seconds between
    share: float = 1.0  # of the body that is written before the connection closes
    chunked: int = 0  # bytes in each chunk, where no length is given
    padding: int = 0  # spaces after the body
    silent: bool = False  # the connection closes, and nothing is written
    reset: bool = False  # it closes with a reset
    last: bool = False  # it closes after this, without a word of warning

    def content(self) -> bytes:
        if isinstance(self.body, bytes):
            return self.body
        self.headers.setdefault("Content-Type", "application/json")
        return ENCODE(self.body).encode("utf-8", "replace")


async def read_request(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, connection: int
) -> Request | None:
    """The next request of a connection, or None where the client has gone."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
        lines = head[:-4].decode("latin-1").split("\r\n")
        method, target, _version = lines[0].split(" ")
        headers = headers_in(lines[1:])
        if "expect" in headers:
            writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        if headers.get("transfer-encoding", "") == "chunked":
            body = await read_chunks(reader)
        else:
            body = await reader.readexactly(int(headers.get("content-length", "0")))
    except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, ConnectionError, ValueError):
        return None
    path, _, query_string = target.partition("?")
    at = asyncio.get_running_loop().time()
    query = dict(parse_qsl(query_string)) if query_string else {}
    return Request(method, unquote(path), query, headers, body, json_of(body), at, connection)


def headers_in(lines: list[str]) -> dict[str, str]:
    """Names in lower case; one that comes twice has both values, so that a test can see it."""
    headers: dict[str, str] = {}
    for line in lines:
        name, _, value = line.partition(":")
        name, value = name.lower(), value.strip()
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return headers


async def read_chunks(reader: asyncio.StreamReader) -> bytes:
    pieces = []
    while size := int(await reader.readuntil(b"\r\n"), 16):
        pieces.append((await reader.readexactly(size + 2))[:-2])
    await reader.readuntil(b"\r\n")
    return b"".join(pieces)


def json_of(body: bytes) -> Any:
    """Half a surrogate pair is no text, and a body that has one is no JSON to most servers."""
    try:
        value = json.loads(body) if body else None
        if b"\\ud" in body or b"\\uD" in body:
            ENCODE(value).encode()
    except ValueError:
        return None
    return value


async def write_reply(writer: asyncio.StreamWriter, reply: Reply, *, keep: bool) -> bool:
    """Write a reply as it asks to be written; says whether the connection can go on."""
    if reply.silent:
        if reply.reset:
            reset(writer)
        return False
    content = reply.content()
    if reply.chunked:
        content, reply.padding = content + b" " * reply.padding, 0
    length = len(content) + reply.padding
    content_part = content[: int(len(content) * reply.share)]
    writer.write(head_of(reply, length, keep=keep))
    if reply.chunked:
        content_part = in_chunks(content_part, reply.chunked, end=reply.share == 1.0)
    if reply.drip:
        await drip_content(writer, content_part, *reply.drip)
    else:
        writer.write(content_part)
    for start in range(0, reply.padding, PIECE):
        writer.write(b" " * min(PIECE, reply.padding - start))
        await writer.drain()
    await writer.drain()
    return keep and reply.share == 1.0 and not reply.last


def head_of(reply: Reply, length: int, *, keep: bool) -> bytes:
    lines = [f"HTTP/1.1 {reply.code} {phrase(reply.code)}"]
    lines += [f"{name}: {value}" for name, value in reply.headers.items()]
    lines.append("Transfer-Encoding: chunked" if reply.chunked else f"Content-Length: {length}")
    if not keep:
        lines.append("Connection: close")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def phrase(code: int) -> str:
    try:
        return HTTPStatus(code).phrase
    except ValueError:  # some providers have codes of their own
        return "Unknown"


def in_chunks(content: bytes, size: int, *, end: bool) -> bytes:
    pieces = [content[start : start + size] for start in range(0, len(content), size)]
    return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in [*pieces, *[b""] * end])


async def drip_content(
    writer: asyncio.StreamWriter, content: bytes, size: int, seconds: float
) -> None:
    for start in range(0, len(content), size):
        writer.write(content[start : start + size])
        await writer.drain()
        await asyncio.sleep(seconds)


def reset(writer: asyncio.StreamWriter) -> None:
    """Closing with no time to linger sends a reset, as a server that dies does."""
    raw = writer.get_extra_info("socket")
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
