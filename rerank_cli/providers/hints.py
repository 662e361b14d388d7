"""What to do about an answer that is no success: one sentence, for whoever asked."""

from typing import Protocol

from rerank_cli.providers.endpoints import shown
from rerank_cli.providers.failures import Failure, Remedy


class Asker(Protocol):
    """Who asked: a provider, its endpoint, and the variable its key belongs in."""

    @property
    def provider(self) -> str: ...

    @property
    def url(self) -> str: ...

    @property
    def variable(self) -> str | None: ...


def hint(failed: Failure, asker: Asker) -> str | None:
    """Say what helps against a failure, if anything is known to."""
    if failed.web_page:
        return f"a web page came from {shown(asker.url)}: check --base-url, which may lack /v1"
    if failed.remedy is Remedy.SMALLER:
        return "--chunk local cuts long documents here"
    match failed.status:
        case 401 | 403:
            name = asker.provider
            where = f"{asker.variable}, or " if asker.variable else ""
            return f"check the key: {where}rerank config set-key {name}"
        case 402:
            return f"the account at {asker.provider} has to be paid for"
        case 404 | 405:
            return f"the endpoint was {shown(asker.url)}: check the model's name and --base-url"
        case 429:
            return "--rpm and --tpm keep to a rate, --concurrency 1 sends one request at a time"
        case 500 | 503 if failed.remedy is Remedy.NONE:
            return "check the model's name"
    return None
