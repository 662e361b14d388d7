"""The options of the command line, one alias each: names, help, and the group they show in.

Declares only; `cli` says which command takes which, and the commands say what they do. An option
made by `setting` rather than `typer.Option` is a preference: it is also an environment variable
and a key of config.toml, both named after its long name, and there is no other list of these.
"""

from typing import Any

import typer

from rerank_cli.settings import variable_of


def setting(*names: str, **rest: Any) -> Any:
    """Declare an option that is a setting; one without a value also needs its `--no-` form."""
    long = next(name for name in names if name.startswith("--"))
    key = long.removeprefix("--").partition("/")[0]
    if "/" in long:
        rest.setdefault("show_default", False)  # which would be said as no-strict
    return typer.Option(*names, envvar=variable_of(key), show_envvar=False, **rest)
