"""Options for models of providers: what is sent to them, and how."""

from functools import partial
from typing import Annotated

import typer

from rerank_cli.options import setting
from rerank_cli.providers import OnError, Truncate

_PANEL = "Providers"
_option = partial(typer.Option, rich_help_panel=_PANEL)
_setting = partial(setting, rich_help_panel=_PANEL)

BaseUrl = Annotated[
    str | None,
    _option(
        "--base-url",
        metavar="URL",
        help="Where the provider is: with or without /v1, or the whole endpoint. "
        "Its key is sent there.",
    ),
]
Instruction = Annotated[
    str | None, _option("--instruction", metavar="TEXT", help="What the model is to look for.")
]
TruncateOption = Annotated[
    Truncate | None,
    _option("--truncate", help="Where the provider cuts documents that are too long for it."),
]
User = Annotated[
    str | None, _option("--user", metavar="TEXT", help="Who asks, for the provider's records.")
]
Metadata = Annotated[
    list[str] | None,
    _option("--metadata", metavar="KEY=VALUE", help="What to note of the request; repeatable."),
]
Set = Annotated[
    list[str] | None,
    _option(
        "--set",
        metavar="KEY=VALUE",
        help="Send any other field, the value as JSON: return_documents=true, parameters.x=1.",
    ),
]
Header = Annotated[
    list[str] | None,
    _option("--header", metavar="'NAME: VALUE'", help="Send any other header; repeatable."),
]
Image = Annotated[
    str | None,
    _option(
        "--image",
        metavar="FILE|URL",
        help="Ask by an image; every argument is then a file, and -q a text besides.",
    ),
]
Sigmoid = Annotated[
    bool, _option("--sigmoid", help="Scores are logits: relevance is their sigmoid.")
]
Lenient = Annotated[
    bool,
    _setting(
        "--lenient/--no-lenient",
        help="Warn of options that the provider does not have, and go on without.",
    ),
]
OnErrorOption = Annotated[
    OnError,
    _setting(
        "--on-error",
        help="keep: if scoring fails, the documents in the order they came, and exit 3.",
    ),
]
DryRun = Annotated[
    bool,
    _option("--dry-run", help="Show what would be sent and send nothing; -v shows a request."),
]
Concurrency = Annotated[
    int,
    _setting("--concurrency", min=1, metavar="N", show_default=True, help="Requests sent at once."),
]
Retries = Annotated[
    int,
    _setting(
        "--retries",
        min=0,
        metavar="N",
        show_default=True,
        help="How often a request is sent again that may yet succeed.",
    ),
]
Timeout = Annotated[
    float,
    _setting(
        "--timeout",
        min=0.001,
        max=86_400,
        metavar="SECONDS",
        show_default=True,
        help="How long to wait for an answer.",
    ),
]
ConnectTimeout = Annotated[
    float,
    _setting(
        "--connect-timeout",
        min=0.001,
        max=86_400,
        metavar="SECONDS",
        show_default=True,
        help="How long to wait for a connection.",
    ),
]
Rpm = Annotated[
    int | None, _setting("--rpm", min=1, metavar="N", help="Requests a minute at most.")
]
Tpm = Annotated[
    int | None, _setting("--tpm", min=1, metavar="N", help="Estimated tokens a minute at most.")
]
Insecure = Annotated[
    bool,
    _option("--insecure", help="Believe any certificate of a server on this machine."),
]
