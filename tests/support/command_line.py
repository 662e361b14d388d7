"""The command line as Typer parses it, and the settings among its options."""

from typing import Any

import typer

from rerank_cli.cli import app
from rerank_cli.cli.parameters import settings_in

COMMAND: Any = typer.main.get_command(app.app)
SETTINGS = settings_in(COMMAND.get_command(None, name) for name in COMMAND.list_commands(None))
