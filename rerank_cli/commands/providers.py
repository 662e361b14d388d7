"""`rerank providers …`: lists the rerank APIs that are known, shows one, and tries one.

Thin: entries are `providers.catalogue`'s business, and requests the scorer's.
"""

from dataclasses import asdict
from typing import Annotated, Any

import typer

from rerank_cli.cli import options
from rerank_cli.cli.typer_commands import PlainCommand, PlainGroup
from rerank_cli.errors import ExitCode
from rerank_cli.providers import Asked, Calling, Remote, catalogue
from rerank_cli.terminal import Terminal, as_bytes, lines


class ProvidersGroup(PlainGroup):
    """The commands of `rerank providers`; alone, it lists."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if not args or (args[0].startswith("-") and args[0] != "--help"):
            args = ["list", *args]
        return super().parse_args(ctx, args)


app = typer.Typer(
    cls=ProvidersGroup, rich_markup_mode=None, add_completion=False, pretty_exceptions_enable=False
)

Name = Annotated[
    str, typer.Argument(metavar="NAME[/MODEL]", autocompletion=lambda: catalogue.examples())
]
AsJson = Annotated[bool, typer.Option("--json", help="Write JSON.")]


@app.callback()
def _providers() -> None:
    """List, show and try the rerank APIs that are known by name.

    Your own go into providers.toml, beside config.toml: a table each, with what differs from one
    that it is like.

    \b
    rerank providers                         all of them, and which have a key
    rerank providers show cohere             one, with its limits and options
    rerank providers show tei --toml         the same, to begin an entry of your own
    rerank providers check jina              send it two documents
    """


@app.command("list", cls=PlainCommand)
def list_(as_json: AsJson = False) -> int:
    """List providers: whether there is a key, their limits and what their scores are.

    \b
    rerank providers list
    rerank providers list --json | jq -r '.[] | select(.key == "set") | .name'
    """
    from rerank_cli.commands.provider_facts import row

    terminal = Terminal.current()
    rows = [row(catalogue.find_provider(name)) for name in catalogue.names()]
    if as_json:
        terminal.write([as_bytes([asdict(one) for one in rows])])
        return ExitCode.OK
    cells = [[str(value) for value in asdict(one).values()] for one in rows]
    if terminal.interactive:
        cells.insert(0, [name.replace("_", " ").upper() for name in asdict(rows[0])])
    width = terminal.width if terminal.interactive else None
    terminal.write([lines(cells, aligned=terminal.interactive, width=width)])
    return ExitCode.OK


@app.command("show", cls=PlainCommand)
def show(
    name: Name,
    as_json: AsJson = False,
    as_toml: Annotated[
        bool, typer.Option("--toml", help="Write TOML, to begin an entry of your own.")
    ] = False,
) -> int:
    """Show what is known of a provider, or of one of its models.

    \b
    rerank providers show siliconflow
    rerank providers show siliconflow/BAAI/bge-reranker-v2-m3
    """
    from rerank_cli.commands.provider_facts import facts, table

    provider, _, model = name.partition("/")
    entry = catalogue.find_provider(provider, model)
    terminal = Terminal.current()
    if as_json:
        terminal.write([as_bytes(table(entry))])
    elif as_toml:
        import tomlkit

        terminal.write([tomlkit.dumps({entry.name: table(entry)}).encode()])
    else:
        terminal.write([lines([list(fact) for fact in facts(entry, model)], aligned=True)])
    return ExitCode.OK


@app.command("check", cls=PlainCommand)
def check(
    name: Name,
    base_url: options.BaseUrl = None,
    header: options.Header = None,
    insecure: options.Insecure = False,
    as_json: AsJson = False,
) -> int:
    """Send a provider two documents, and say what came back and how long it took.

    \b
    rerank providers check cohere
    rerank providers check tei/local --base-url http://127.0.0.1:8080
    """
    from rerank_cli.cli.options import headers_of
    from rerank_cli.commands.provider_facts import tried
    from rerank_cli.providers.keys import credentials
    from rerank_cli.scorers.remote import open_remote

    provider, _, model = name.partition("/")
    entry = catalogue.find_provider(provider, model)
    headers = headers_of(header or [])
    scorer = open_remote(
        provider,
        model or entry.example,
        Remote(
            base_url=base_url,
            asked=Asked(headers=headers),
            calling=Calling(retries=1, insecure=insecure),
        ),
        credentials(catalogue.table_of(provider, model), headers),
    )
    found = tried(scorer)
    terminal = Terminal.current()
    if as_json:
        terminal.write([as_bytes(found)])
    else:
        terminal.write([lines([[key, str(value)] for key, value in found.items()], aligned=True)])
    return ExitCode.OK
