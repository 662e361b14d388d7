"""What `--dry-run` prints: the requests that would be sent, and what they would cost."""

import json
from typing import Any

from rerank_cli.errors import UsageError
from rerank_cli.scorers.remote import Rehearsal
from rerank_cli.terminal import counted
from rerank_cli.types import Ranking, Scorer


def plan_of(scorer: Scorer, ranking: Ranking, *, as_json: bool, verbose: bool) -> bytes:
    """Say what would be sent, as lines or JSON; `verbose` adds the first request's body."""
    if not isinstance(scorer, Rehearsal):
        raise UsageError("--dry-run shows what a provider would be sent, and nothing is sent")
    plan = _plan(scorer, ranking)
    if as_json:
        body = {"first_request": json.loads(scorer.first or b"null")} if verbose else {}
        return (json.dumps({**plan, **body}, ensure_ascii=False, indent=2) + "\n").encode()
    price = plan["price"]
    sizes = f"about {counted(plan['tokens'], 'token')} with the query, {plan['bytes']:,} bytes"
    lines = [
        f"{counted(plan['requests'], 'request')} to {plan['endpoint']}",
        f"{counted(plan['documents'], 'document')} in {counted(plan['chunks'], 'chunk')}, {sizes}",
        f"about {price['amount']:g} {price['currency']} ({price['source']})" if price else "",
        scorer.first.decode() if verbose else "",
        "nothing was sent",
    ]
    return "".join(f"{line}\n" for line in lines if line).encode()


def _plan(scorer: Rehearsal, ranking: Ranking) -> dict[str, Any]:
    planned = scorer.planned
    tokens = sum(one.tokens for one in planned)
    price = scorer.scorer.provider.price
    units = tokens / 1e6 if price and price.per == "million tokens" else len(planned) / 1e3
    return {
        "endpoint": scorer.scorer.address.shown,
        "model": scorer.info.name,
        "requests": len(planned),
        "documents": ranking.documents - ranking.empty,
        "chunks": sum(one.documents for one in planned),
        "tokens": tokens,
        "bytes": sum(one.bytes for one in planned),
        "largest": {
            "documents": max((one.documents for one in planned), default=0),
            "tokens": max((one.tokens for one in planned), default=0),
            "bytes": max((one.bytes for one in planned), default=0),
        },
        "price": {
            "amount": round(units * price.amount, 6),
            "currency": price.currency,
            "source": price.source,
        }
        if price
        else None,
    }
