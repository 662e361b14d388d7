"""What official SDKs of rerank services send and read: one after the other is called, as users do.

`bench_sdks.py` runs this with the interpreter that has the SDKs, and reads the JSON that it prints.
Besides the SDKs it needs only the standard library.
"""

import inspect
import json
import os
import sys
from collections.abc import Callable, Iterable
from importlib.metadata import version
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from tests.support.loopback import serve
from tests.support.remote_commands import dialect_of
from tests.support.sdks import call_table, calls_of, exchange, key_of, packages

# Parameters that are about the connection, or that a client has from elsewhere.
TRANSPORT = {
    "self", "cls", "kwargs", "api_key", "workspace", "extra_headers", "extra_query", "extra_body",
    "timeout", "timeout_ms", "retries", "request_options", "server_url", "http_headers",
    "accept_header_override", "http_referer", "x_open_router_title", "x_open_router_categories",
}  # fmt: skip


class Sdk(NamedTuple):
    """An SDK: its base URL, the method of a client of another URL, and reading an answer."""

    base: str
    connect: Callable[[str], Callable[..., Any]]
    read: Callable[[Any], Iterable[tuple[int, float]]]
    documents: str = "documents"
    top: str = "top_n"


def relevance_scores(answer: Any) -> Iterable[tuple[int, float]]:
    return ((result.index, result.relevance_score) for result in answer.results)


def data_scores(answer: Any) -> Iterable[tuple[int, float]]:
    return ((result.index, result.score) for result in answer.data)


def open_cohere() -> Sdk:
    import cohere

    base = cohere.ClientEnvironment.PRODUCTION.value
    return Sdk(base, lambda url: cohere.ClientV2(base_url=url).rerank, relevance_scores)


def open_cohere_v1() -> Sdk:
    import cohere

    base = cohere.ClientEnvironment.PRODUCTION.value
    return Sdk(base, lambda url: cohere.Client(base_url=url).rerank, relevance_scores)


def open_voyage() -> Sdk:
    import voyageai
    from voyageai.util import get_default_base_url

    return Sdk(
        get_default_base_url(voyageai.util.default_api_key()),
        lambda url: voyageai.Client(base_url=url).rerank,
        relevance_scores,
        top="top_k",
    )


def open_together() -> Sdk:
    from together import Together

    base = str(Together().base_url)
    return Sdk(base, lambda url: Together(base_url=url).rerank.create, relevance_scores)


def open_mixedbread() -> Sdk:
    from mixedbread import Mixedbread

    return Sdk(
        str(Mixedbread().base_url),
        lambda url: Mixedbread(base_url=url).rerank,
        data_scores,
        documents="input",
        top="top_k",
    )


def open_zeroentropy() -> Sdk:
    from zeroentropy import ZeroEntropy

    base = str(ZeroEntropy().base_url)
    return Sdk(base, lambda url: ZeroEntropy(base_url=url).models.rerank, relevance_scores)


def open_pinecone() -> Sdk:
    from pinecone import Pinecone

    base = Pinecone().config.host
    return Sdk(base, lambda url: Pinecone(host=url).inference.rerank, data_scores)


def open_openrouter() -> Sdk:
    from openrouter import OpenRouter

    base = OpenRouter().sdk_configuration.get_server_details()[0]
    return Sdk(base, lambda url: OpenRouter(server_url=url).rerank.rerank, relevance_scores)


def open_dashscope() -> Sdk:
    import dashscope

    def connect(url: str) -> Callable[..., Any]:
        dashscope.base_http_api_url = url
        return dashscope.TextReRank.call  # type: ignore[no-any-return]

    def read(answer: Any) -> Iterable[tuple[int, float]]:
        return ((result.index, result.relevance_score) for result in answer.output.results)

    return Sdk(dashscope.base_http_api_url, connect, read)


def open_isaacus() -> Sdk:
    from isaacus import Isaacus

    return Sdk(
        str(Isaacus().base_url),
        lambda url: Isaacus(base_url=url).rerankings.create,
        lambda answer: ((result.index, result.score) for result in answer.results),
        documents="texts",
    )


def open_contextual() -> Sdk:
    from contextual import ContextualAI

    base = str(ContextualAI().base_url)
    return Sdk(base, lambda url: ContextualAI(base_url=url).rerank.create, relevance_scores)


OPENERS = {
    "cohere": open_cohere,
    "cohere-v1": open_cohere_v1,
    "voyage": open_voyage,
    "together": open_together,
    "mixedbread": open_mixedbread,
    "zeroentropy": open_zeroentropy,
    "pinecone": open_pinecone,
    "openrouter": open_openrouter,
    "dashscope-native": open_dashscope,
    "isaacus": open_isaacus,
    "contextual": open_contextual,
}


def main() -> None:
    """Print what each SDK sent; the argument has the variable of each provider's key."""
    recorded_calls = {}
    for provider, variable in json.loads(sys.argv[1]).items():
        os.environ[variable] = key_of(provider)
        try:
            recorded_calls[provider] = record(provider, OPENERS[provider]())
        except ImportError as error:
            recorded_calls[provider] = {"skipped": str(error)}
    json.dump(recorded_calls, sys.stdout)


def record(provider: str, sdk: Sdk) -> dict[str, Any]:
    """The SDK's version, what it sent and read for each call, and parameters that none gives."""
    base = urlsplit(sdk.base.rstrip("/"))
    exchanges, names = {}, set[str]()
    for call in calls_of(provider):
        arguments = {sdk.documents: call.documents, sdk.top: call_table()["best"], **call.sdk}
        names |= set(arguments)
        with serve(dialect_of(provider), key=key_of(provider)) as server:
            method = sdk.connect(server.url + base.path)
            scores = sdk.read(method(**arguments))
            (request,) = server.requests
            exchanges[call.name] = exchange(request, sdk.base, scores)
    package = packages()[provider].partition("==")[0]
    return {
        "sdk": f"{package} {version(package)}",
        "not given": sorted(set(inspect.signature(method).parameters) - TRANSPORT - names),
        "calls": exchanges,
    }


if __name__ == "__main__":
    main()
