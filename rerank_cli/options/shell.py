"""Options that teach a shell to complete command lines."""

from typing import Annotated

import typer

from rerank_cli.shells import Shell, install, script


def _show(ctx: typer.Context, shell: Shell | None) -> None:
    if shell and not ctx.resilient_parsing:
        typer.echo(script(shell), nl=False)
        raise typer.Exit


def _install(ctx: typer.Context, shell: Shell | None) -> None:
    if shell and not ctx.resilient_parsing:
        for path in install(shell):
            typer.echo(f"{path} written", err=True)
        typer.echo(f"Completion begins with the next {shell}.", err=True)
        raise typer.Exit


ShowCompletion = Annotated[
    Shell | None,
    typer.Option(
        "--show-completion",
        callback=_show,
        is_eager=True,
        help="Show the script that completes command lines in a shell.",
    ),
]
InstallCompletion = Annotated[
    Shell | None,
    typer.Option(
        "--install-completion", callback=_install, is_eager=True, help="Install that script."
    ),
]
