"""Write the table of docs/providers.md, from what is known of them.

python scripts/make_provider_table.py
"""

from pathlib import Path

from rerank_cli.providers.catalogue import find_provider, provider_names, provider_tables
from rerank_cli.providers.schema import Provider

PAGE = Path(__file__).resolve().parent.parent / "docs" / "providers.md"
BEGIN, END = "<!-- providers -->\n", "<!-- /providers -->\n"
HEADER = "| `-m` | service | key | documents | scores | |\n|---|---|---|---|---|---|\n"


def main() -> None:
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    after = rest.partition(END)[2]
    PAGE.write_text(f"{before}{BEGIN}{table()}{END}{after}", encoding="utf-8")


def table() -> str:
    """A row a provider: its documents in a request, what its scores are, and what is special."""
    return HEADER + "".join(map(row, map(find_provider, provider_names())))


def row(provider: Provider) -> str:
    most = provider.limits.documents
    cells = [
        ", ".join(f"`{name}`" for name in (provider.name, *provider.aliases)),
        f"[{provider.title}]({provider.docs})",
        ", ".join(f"`{variable}`" for variable in provider.key),
        f"{most:,}" if most else "",
        "" if provider.scale == "unknown" else provider.scale,
        "; ".join(notes(provider)),
    ]
    return f"| {' | '.join(cells)} |\n"


def notes(provider: Provider) -> list[str]:
    """What is special about a provider or, where they say so, about some of its models."""
    specials = provider_tables()[provider.name].get("models", ())
    limits = provider.limits
    sizes = {
        "tokens with the query": limits.pair,
        "tokens a document": limits.document,
        "characters a text": limits.characters,
        "tokens a request": limits.tokens,
        "bytes a request": limits.bytes,
    }
    size_texts = [f"{most:,} {unit}" for unit, most in sizes.items() if most]
    if provider.url is None:
        size_texts.append(f"needs `--base-url`{', key if it has one' if provider.keyless else ''}")
    elif provider.keyless:
        size_texts.append(f"`{provider.url.removeprefix('http://')}`, key if it has one")
    if limits.chunks or any("chunks" in special.get("limits", {}) for special in specials):
        size_texts.append("cuts long documents itself")
    if provider.listwise or any(special.get("listwise") for special in specials):
        size_texts.append("some models score a set")
    for kind in ("image", "video"):
        templates = [special.get("request", {}).get(kind) for special in specials]
        if getattr(provider.request, kind) is not None or any(templates):
            size_texts.append(f"{kind}s")
    return size_texts


if __name__ == "__main__":
    main()
