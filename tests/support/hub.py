"""A Hub on loopback: the Hugging Face Hub's HTTP interface, as huggingface_hub speaks it.

Serves folders as repositories of one commit. Large files are redirected to another path, as the
real one does, with ranges, ETags and the hashes of Git LFS. What a plan says goes wrong goes wrong.
"""

import hashlib
import json
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self
from urllib.parse import unquote, urlsplit

from rerank_cli.models.store import Store

MODELS = Path(__file__).parent.parent / "models"

NAME = "bge-reranker-base"
REPOSITORY = "Xenova/bge-reranker-base"
GRAPH = "onnx/model_quantized.onnx"
LARGE = 2000  # bytes: larger files are in LFS


@dataclass
class Fault:
    """What goes wrong with a path, the first `times` times that it is asked for.

    `status` is answered in place of it, `cut` ends a body after so many bytes, `short` says that
    there are fewer bytes than the listing has, `changed` gives other ones, `slow` waits so many
    seconds before each piece of 1,000 bytes, `rangeless` gives all where a part was asked for.
    """

    times: int = 1_000_000
    status: int = 0
    code: str = ""
    cut: int | None = None
    short: bool = False
    changed: bool = False
    slow: float = 0.0
    rangeless: bool = False


@dataclass
class Repository:
    files: dict[str, bytes]
    licence: str = "mit"
    commit: str = ""
    private: bool = False
    gated: bool = False
    faults: dict[str, Fault] = field(default_factory=dict)
    change_listing: Callable[[dict[str, Any]], Any] = lambda listing: listing

    def __post_init__(self) -> None:
        content = b"".join(name.encode() + data for name, data in sorted(self.files.items()))
        self.commit = self.commit or hashlib.sha1(content).hexdigest()


class Hub:
    """Repositories by name, and what was asked for; a context starts and stops it."""

    token = "hf_loopback"

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.requests: list[tuple[str, str, Mapping[str, str]]] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.01,), daemon=True
        )

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def add(self, name: str, files: Path | Mapping[str, bytes], **about: Any) -> Repository:
        """Serve a folder, or files by path, as a repository."""
        if isinstance(files, Path):
            folder = files
            files = {
                path.relative_to(folder).as_posix(): path.read_bytes()
                for path in sorted(folder.rglob("*"))
                if path.is_file()
            }
        self.repositories[name] = Repository(dict(files), **about)
        return self.repositories[name]

    def count_fetches(self, path: str) -> int:
        """How often a file's bytes were asked for."""
        return sum(
            method == "GET" and (target.endswith(f"/{path}") or f"/{path}?" in target)
            for method, target, _ in self.requests
            if not target.startswith("/cdn/")
        )

    def _handler(hub) -> type[BaseHTTPRequestHandler]:  # noqa: N805 - a class within has a self
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                hub.requests.append(("GET", self.path, dict(self.headers)))
                Exchange(hub, self).answer()

            def do_HEAD(self) -> None:
                hub.requests.append(("HEAD", self.path, dict(self.headers)))
                Exchange(hub, self).answer()

            def log_message(self, *_: object) -> None:
                pass

        return Handler


class Exchange:
    """One request, and its answer."""

    def __init__(self, hub: Hub, handler: BaseHTTPRequestHandler) -> None:
        self._hub, self._handler = hub, handler
        self._path = unquote(urlsplit(handler.path).path)

    def answer(self) -> None:
        parts = self._path.strip("/").split("/")
        if parts[:2] == ["api", "models"]:
            name, revision = "/".join(parts[2:4]), "/".join(parts[5:])
            if (repository := self._repository(name, revision, "api")) is not None:
                self._json(repository.change_listing(listing(name, repository)))
        elif parts[0] == "cdn":
            repository = self._hub.repositories["/".join(parts[1:3])]
            self._file(repository, "/".join(parts[3:]))
        elif len(parts) > 4 and parts[2] == "resolve":
            name, path = "/".join(parts[:2]), "/".join(parts[4:])
            if (repository := self._repository(name, parts[3], path)) is not None:
                self._resolve(name, repository, path)
        else:
            self._refuse(404, "", "no such path")

    def _repository(self, name: str, revision: str, path: str) -> Repository | None:
        """A repository that may be read; if there is none, this sends the answer."""
        repository = self._hub.repositories.get(name)
        has_token = self._handler.headers.get("Authorization") == f"Bearer {self._hub.token}"
        if repository is None or (repository.private and not has_token):
            self._refuse(401 if not has_token else 404, "RepoNotFound", "Repository not found")
        elif repository.gated and path != "api" and not has_token:
            self._refuse(401, "GatedRepo", f"Access to model {name} is restricted")
        elif revision not in ("", "main", repository.commit):
            self._refuse(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        elif not self._is_spoilt(repository, path):
            return repository
        return None

    def _is_spoilt(self, repository: Repository, path: str) -> bool:
        fault = repository.faults.get(path)
        if fault is None or not fault.status or fault.times < 1:
            return False
        fault.times -= 1
        self._refuse(fault.status, fault.code, "as was planned")
        return True

    def _resolve(self, name: str, repository: Repository, path: str) -> None:
        if path not in repository.files:
            self._refuse(404, "EntryNotFound", "Entry not found")
            return
        content = repository.files[path]
        about = {"X-Repo-Commit": repository.commit, "ETag": f'"{blob(content)}"'}
        if len(content) <= LARGE:
            self._file(repository, path, about)
            return
        digest = hashlib.sha256(content).hexdigest()
        about |= {"X-Linked-Size": str(len(content)), "X-Linked-ETag": f'"{digest}"'}
        self._send(302, b"", {**about, "Location": f"{self._hub.url}/cdn/{name}/{path}"})

    def _file(
        self, repository: Repository, path: str, about: Mapping[str, str] | None = None
    ) -> None:
        content, status, headers = repository.files[path], 200, dict(about or {})
        fault = repository.faults.get(path) or Fault(times=0)
        active = fault.times > 0 and not fault.status
        fault.times -= active
        if active and fault.changed:
            content = bytes(len(content))
        if active and fault.short:
            content = content[:-1]
        range_header = self._handler.headers.get("Range")
        if range_header and not (active and fault.rangeless):
            start = int(range_header.removeprefix("bytes=").partition("-")[0])
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
            content, status = content[start:], 206
        cut_bytes = fault.cut if active else None
        self._send(status, content, headers, cut=cut_bytes, slow=fault.slow if active else 0.0)

    def _json(self, value: Any) -> None:
        content = value if isinstance(value, bytes) else json.dumps(value).encode()
        self._send(200, content, {"Content-Type": "application/json"})

    def _refuse(self, status: int, code: str, message: str) -> None:
        headers = {"X-Error-Message": message} | ({"X-Error-Code": code} if code else {})
        if status == 429:
            headers["RateLimit"] = '"api";r=0;t=1'
        self._send(status, json.dumps({"error": message}).encode(), headers)

    def _send(
        self,
        status: int,
        body: bytes,
        headers: Mapping[str, str],
        *,
        cut: int | None = None,
        slow: float = 0.0,
    ) -> None:
        handler = self._handler
        try:
            handler.send_response(status)
            for name, value in headers.items():
                handler.send_header(name, value)
            handler.send_header("Content-Length", str(len(body)))
            handler.end_headers()
            if handler.command == "HEAD":
                return
            for start in range(0, len(body[:cut]), 1000):
                time.sleep(slow)
                handler.wfile.write(body[:cut][start : start + 1000])
                handler.wfile.flush()
            if cut is not None:
                handler.close_connection = True
        except OSError:  # whoever asked is gone
            handler.close_connection = True


def files_of(folder: str = "xlmr", graph: str = GRAPH) -> dict[str, bytes]:
    """A small model's files as a repository has them, and one that nobody wants."""
    source = MODELS / folder
    return {
        graph: (source / "model.onnx").read_bytes(),
        "tokenizer.json": (source / "tokenizer.json").read_bytes(),
        "config.json": (source / "config.json").read_bytes(),
        "README.md": b"---\nlicense: mit\n---\n",
        "pytorch_model.bin": b"not wanted" * 1000,
    }


def leftovers() -> list[str]:
    """The entries of the store that are not models."""
    root = Store.usual().root
    return [str(path.relative_to(root)) for path in root.glob("*") if path.name[0] != "."]


def listing(name: str, repository: Repository) -> dict[str, Any]:
    """The Hub's listing of a repository, for a request with `blobs`."""
    return {
        "_id": "0" * 24,
        "id": name,
        "sha": repository.commit,
        "private": repository.private,
        "gated": "auto" if repository.gated else False,
        "tags": [],
        "downloads": 0,
        "cardData": {"license": repository.licence},
        "siblings": [_sibling(path, content) for path, content in repository.files.items()],
    }


def _sibling(path: str, content: bytes) -> dict[str, Any]:
    about: dict[str, Any] = {"rfilename": path, "size": len(content), "blobId": blob(content)}
    if len(content) > LARGE:
        digest = hashlib.sha256(content).hexdigest()
        about["lfs"] = {"sha256": digest, "size": len(content), "pointerSize": 130}
    return about


def blob(content: bytes) -> str:
    """Git's own name for a content."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
