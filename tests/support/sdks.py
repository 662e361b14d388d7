"""The requests and results of official SDKs of rerank services, and how `rerank` differs.

`data/sdk_calls.toml` has the calls, and `data/sdk_requests.json` what the SDKs sent for them, as
scripts/bench_sdks.py recorded it. Each difference that is left is explained beside the provider's
entry in providers.toml, in a comment of one line:

    # SDK: body truncation: true -> (absent) # what the service does by itself

What is said in [default] goes for every provider. `*` stands for anything.
"""

import json
import re
import shlex
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from tests.support.loopback import Request, serve
from tests.support.remote_commands import dialect_of

DATA = Path(__file__).parent / "data"
RECORD = DATA / "sdk_requests.json"
ENTRIES = Path(__file__).parents[2] / "rerank_cli" / "data" / "providers.toml"
EXPLANATION = re.compile(r"# SDK: ((?:method|url|header|body|score)\b.* -> .+?) # (.+)")
# Headers that follow from the URL and the body, which are compared themselves.
FOLLOWS = ("host", "content-length")
# Headers whose values tell of the client and its machine; only their names are compared.
CLIENT_HEADERS = ("user-agent", "accept-encoding", "x-fern-*", "x-stainless-*", "x-dashscope-sdk-*")
ABSENT, ABOUT_CLIENT = "(absent)", "(about the client)"

# What a call sent and read: `method`, `url`, `header`, `body` and `score`, by the document's index.
# Plain JSON, because it is recorded.
Exchange = Mapping[str, Any]
# Runs the command with some arguments, standard input and one more environment variable; returns
# its exit code and output.
RunRerank = Callable[[Sequence[str], bytes, Mapping[str, str]], tuple[int, str]]


@dataclass(frozen=True, slots=True)
class Call:
    """A call of one SDK: its method's arguments, and the command's."""

    provider: str
    name: str
    model: str
    documents: Sequence[Any]
    sdk: Mapping[str, Any]
    rerank: Sequence[str]


class Difference(NamedTuple):
    """One thing that an SDK sends or reads in another way than `rerank`, each as JSON."""

    name: str
    theirs: str
    ours: str

    def __str__(self) -> str:
        return f"{self.name}: {self.theirs} -> {self.ours}"


class Explanation(NamedTuple):
    """Why a difference is left: the line that says so in the entry of a provider."""

    entry: str
    pattern: str
    reason: str

    def covers(self, provider: str, difference: Difference) -> bool:
        pattern = re.escape(self.pattern).replace(r"\*", ".*")
        return self.entry in ("default", provider) and bool(
            re.fullmatch(pattern, str(difference), re.DOTALL)
        )


@cache
def call_table() -> Mapping[str, Any]:
    return tomllib.loads((DATA / "sdk_calls.toml").read_text(encoding="utf-8"))


def packages() -> Mapping[str, str]:
    """The SDK of each provider, as pip installs it."""
    return {provider: sdk["package"] for provider, sdk in call_table()["sdks"].items()}


def calls_of(provider: str) -> Iterator[Call]:
    table = call_table()
    sdk = table["sdks"][provider]
    for name, call in sdk["calls"].items():
        arguments = {"model": sdk["model"], "query": table["query"], **call.get("sdk", {})}
        yield Call(
            provider,
            name,
            arguments["model"],
            table["documents"][call.get("documents", "texts")],
            arguments,
            shlex.split(call.get("rerank", "")),
        )


def key_of(provider: str) -> str:
    return f"key-of-{provider}"


def exchange(request: Request, base: str, scores: Any) -> Exchange:
    """What was sent to the server and read from it, as if to the service whose URL is `base`."""
    place = urlsplit(base)
    headers = {
        name: ABOUT_CLIENT if any(fnmatchcase(name, glob) for glob in CLIENT_HEADERS) else value
        for name, value in request.headers.items()
        if name not in FOLLOWS
    }
    return {
        "method": request.method,
        "url": f"{place.scheme}://{place.netloc}{request.path}",
        "header": dict(sorted(headers.items())),
        "body": request.json,
        "score": {str(place): round(score, 6) for place, score in sorted(scores)},
    }


def ask_rerank(call: Call, variable: str, base: str, run: RunRerank) -> Exchange:
    """What the command sends and reads for a call; its service's URL is `base`."""
    texts = [document for document in call.documents if isinstance(document, str)]
    records = [json.dumps(document) for document in call.documents if document not in texts]
    words = [word for text in texts for word in ("-d", text)]
    with serve(dialect_of(call.provider), key=key_of(call.provider)) as server:
        arguments = [
            *("-m", f"{call.provider}/{call.model}", "--base-url", server.url),
            *(call_table()["query"], "-n", str(call_table()["best"]), "--json"),
            *(words or ("--input-format", "jsonl")),
            *call.rerank,
        ]
        code, out = run(arguments, "\n".join(records).encode(), {variable: key_of(call.provider)})
    if code:
        raise RuntimeError(f"{' '.join(arguments)} ended with {code}")
    scores = ((result["index"], result["raw_score"]) for result in json.loads(out)["results"])
    (request,) = server.requests
    return exchange(request, base, scores)


def compare(theirs: Exchange, ours: Exchange) -> list[Difference]:
    """Every difference of method, URL, headers, body and of the scores that were read."""
    return [
        difference
        for part in ("method", "url", "header", "body", "score")
        for difference in _compare_values(part, theirs[part], ours[part])
    ]


def _compare_values(name: str, theirs: Any, ours: Any) -> Iterator[Difference]:
    if isinstance(theirs, dict) and isinstance(ours, dict):
        for key in sorted({*theirs, *ours}):
            path = f"{name}.{key}" if " " in name else f"{name} {key}"
            yield from _compare_values(path, theirs.get(key, ABSENT), ours.get(key, ABSENT))
    elif isinstance(theirs, list) and isinstance(ours, list) and len(theirs) == len(ours):
        for place, pair in enumerate(zip(theirs, ours, strict=True)):
            yield from _compare_values(f"{name}.{place}", *pair)
    elif _as_json(theirs) != _as_json(ours):
        yield Difference(name, _as_json(theirs), _as_json(ours))


def _as_json(value: Any) -> str:
    """A value as it is shown and compared: 1 and true are not the same."""
    if value in (ABSENT, ABOUT_CLIENT):
        return str(value)
    return json.dumps(value, ensure_ascii=False, sort_keys=True)


def explanations(toml: str | None = None) -> list[Explanation]:
    """The explanations that stand in the entries, each in a comment."""
    entry, comments = "", []
    for line in (ENTRIES.read_text(encoding="utf-8") if toml is None else toml).splitlines():
        if header := re.match(r"\[+([\w-]+)", line):
            entry = header[1]
        elif explanation := EXPLANATION.fullmatch(line):
            comments.append(Explanation(entry, *explanation.groups()))
        elif line.startswith("# SDK:"):
            raise ValueError(f"not an explanation: {line}")
    return comments
