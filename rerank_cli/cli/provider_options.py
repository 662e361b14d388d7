"""The options for providers: what is sent to them, and how."""

from functools import partial
from typing import Annotated

import typer

from rerank_cli.cli.parameters import setting
from rerank_cli.providers import (
    DEFAULT_CONCURRENCY_REQUESTS,
    DEFAULT_CONNECT_TIMEOUT_SECONDS,
    DEFAULT_RETRIES,
    DEFAULT_TIMEOUT_SECONDS,
    MAX_TIMEOUT_SECONDS,
    OnError,
    Truncate,
)

_GROUP = "Providers"
_provider = partial(typer.Option, rich_help_panel=_GROUP)
_provider_setting = partial(setting, rich_help_panel=_GROUP)
_count = partial(_provider_setting, metavar="N", min=1)
_seconds = partial(_provider_setting, metavar="SECONDS", min=0.001, max=MAX_TIMEOUT_SECONDS)


def provider_options(
    base_url: Annotated[
        str | None,
        _provider(
            "--base-url",
            metavar="URL",
            help="Where the service is: its URL, with or without /v1, or the whole endpoint. The "
            "key is sent there.",
        ),
    ] = None,
    instruction: Annotated[
        str | None,
        _provider(
            "--instruction",
            metavar="TEXT",
            help="Tell the model what to look for. Give '' for none.",
        ),
    ] = None,
    image: Annotated[
        str | None,
        _provider(
            "--image",
            metavar="FILE|URL",
            help="Use an image as the query; all arguments are then files. -q adds words.",
        ),
    ] = None,
    video: Annotated[
        str | None,
        _provider(
            "--video",
            metavar="FILE|URL",
            help="Use a video as the query; all arguments are then files. -q adds words.",
        ),
    ] = None,
    truncate: Annotated[
        Truncate | None,
        _provider(
            "--truncate",
            help="Which end of long documents the provider cuts off; none: it refuses them.",
        ),
    ] = None,
    max_document_tokens: Annotated[
        int | None,
        _provider(
            "--max-document-tokens",
            min=1,
            metavar="N",
            help="The provider reads at most N tokens of a document. Longer ones are split here, "
            "unless --chunk is remote.",
        ),
    ] = None,
    user: Annotated[
        str | None,
        _provider("--user", metavar="TEXT", help="The end user, for the provider's records."),
    ] = None,
    metadata: Annotated[
        list[str] | None,
        _provider(
            "--metadata",
            metavar="KEY=VALUE",
            help="A note for the provider's records. VALUE is JSON, or else text: n=3 is a number, "
            "team=search a text. May be repeated.",
        ),
    ] = None,
    set_: Annotated[
        list[str] | None,
        _provider(
            "--set",
            metavar="KEY=VALUE",
            help="Send another field. VALUE is JSON, or else text: return_documents=true, "
            "parameters.x=1. May be repeated.",
        ),
    ] = None,
    header: Annotated[
        list[str] | None,
        _provider(
            "--header", metavar="'NAME: VALUE'", help="Send another HTTP header. May be repeated."
        ),
    ] = None,
    lenient: Annotated[
        bool,
        _provider_setting(
            "--lenient/--no-lenient",
            help="Warn of options that the provider does not have, instead of failing.",
        ),
    ] = False,
    sigmoid: Annotated[
        bool,
        _provider("--sigmoid", help="The provider's scores are logits: use their sigmoid."),
    ] = False,
    on_error: Annotated[
        OnError,
        _provider_setting(
            "--on-error",
            help="What to do if scoring fails. keep: write the documents in the order they came, "
            "and exit with 3.",
        ),
    ] = OnError.FAIL,
    dry_run: Annotated[
        bool,
        _provider(
            "--dry-run",
            help="Send nothing, show what would be sent. -v adds the first request.",
        ),
    ] = False,
    concurrency: Annotated[
        int, _count("--concurrency", help="Send up to N requests at once.")
    ] = DEFAULT_CONCURRENCY_REQUESTS,
    retries: Annotated[
        int | None,
        _count(
            "--retries",
            min=0,
            help="Repeat a failed request up to N times, if that may help.",
            show_default=f"{DEFAULT_RETRIES}, or 1 after a 500, a timeout or no connection before "
            "any success",
        ),
    ] = None,
    timeout: Annotated[
        float, _seconds("--timeout", help="How long a request may take, its answer included.")
    ] = DEFAULT_TIMEOUT_SECONDS,
    connect_timeout: Annotated[
        float, _seconds("--connect-timeout", help="How long to wait for a connection.")
    ] = DEFAULT_CONNECT_TIMEOUT_SECONDS,
    rpm: Annotated[int | None, _count("--rpm", help="Send at most N requests a minute.")] = None,
    tpm: Annotated[
        int | None, _count("--tpm", help="Send at most N tokens a minute, by estimate.")
    ] = None,
    insecure: Annotated[
        bool,
        _provider("--insecure", help="Accept any certificate of a server on this machine."),
    ] = False,
) -> None:
    """Options for providers: what is sent to them, and how."""
