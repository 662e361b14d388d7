"""`rerank config …`: shows and changes settings and the keys of providers.

`cli.settings` defines the settings; `atomic_files` and `providers.keys` write the files.
"""

import os
import signal
import sys
from contextlib import suppress
from typing import Annotated, Any

import typer

from rerank_cli.cli.help import write_help
from rerank_cli.cli.hints import setting_hint
from rerank_cli.cli.parameters import all_commands, setting_values, settings_in
from rerank_cli.cli.presets import (
    PresetPlace,
    check_name,
    check_preset,
    find_preset,
    read_place,
    read_presets,
)
from rerank_cli.cli.settings import Setting, excerpt, find_setting, format_value
from rerank_cli.cli.typer_commands import ListGroup, PlainCommand, make_app
from rerank_cli.errors import ConfigError, ExitCode, NoHome, RerankError, UsageError
from rerank_cli.terminal import Terminal, format_json, format_names, hide_user
from rerank_cli.user_files import config_file, keys_file


class SettingsGroup(ListGroup):
    """The group of the commands for settings, whose help names all of them."""

    def get_help(self, ctx: Any) -> str:
        return write_help(self, ctx, settings=settings_in(all_commands(ctx)))


app = make_app(SettingsGroup)
_HUB_NAMES = ("hf", "huggingface", "hugging-face")
_DEFAULT_CHARACTERS = 48  # of a default in the list
_NO_VALUE, _REST = "-", "…"
_BASE_URL, _MODEL = "base-url", "model"  # settings


def _value_for_list(key: str, value: Any) -> Any:
    """A setting's value for a list, which hides secrets."""
    if not isinstance(value, str):
        return value
    if key != _BASE_URL:
        return hide_user(value)
    from rerank_cli.providers.keys import public_base_url

    return public_base_url(value)


def _settings(ctx: typer.Context) -> dict[str, Setting]:
    return settings_in(all_commands(ctx))


def _find_setting(ctx: typer.Context, key: str) -> Setting:
    """Find a setting by its key; raises `UsageError` with the nearest keys."""
    settings = _settings(ctx)
    if key not in settings and (hint := setting_hint(key, settings)):
        word = key.partition("=")[0]  # what follows may be a key
        raise UsageError(f"no setting is called {excerpt(word)}", hint=hint)
    return find_setting(key, settings)


def _find_value(ctx: typer.Context, place: PresetPlace) -> Any:
    """The value of a setting in a preset, None if it has none; raises `UsageError`."""
    _find_setting(ctx, place.key)
    return find_preset(place.name, _settings(ctx)).get(place.key)


def _complete_key(ctx: typer.Context) -> list[tuple[str, str]]:
    presets = read_presets()
    places = [PresetPlace(name, key) for name, values in presets.items() for key in values]
    return [
        *((key, setting.help) for key, setting in _settings(ctx).items()),
        *((str(PresetPlace(name)), "A preset.") for name in presets),
        *((str(place), "A setting of a preset.") for place in places),
    ]


def _complete_value(ctx: typer.Context, incomplete: str) -> list[tuple[str, str]]:
    key = ctx.params.get("key") or ""
    place = read_place(key)
    setting = _settings(ctx).get(key if place is None else place.key)
    if setting is None or setting.kind.type is bool:
        return [(word, "") for word in (setting.kind.choices if setting else [])]
    parameters = [each for command in all_commands(ctx) for each in command.params]
    option = next(each for each in parameters if each.envvar == setting.variable)
    return [(item.value, "") for item in option.shell_complete(ctx, incomplete)]


def _complete_provider(ctx: typer.Context) -> list[str]:
    from rerank_cli.providers.catalogue import provider_names
    from rerank_cli.providers.keys import providers_with_keys

    if ctx.info_name == "unset-key":
        return providers_with_keys()
    return provider_names()


Key = Annotated[str, typer.Argument(metavar="KEY", autocompletion=_complete_key)]
Value = Annotated[str, typer.Argument(metavar="VALUE", autocompletion=_complete_value)]
Provider = Annotated[str, typer.Argument(metavar="PROVIDER", autocompletion=_complete_provider)]


@app.callback()
def _config() -> None:
    """Show and change settings and keys.

    A setting is an option that holds for every run. An option on the command line comes before the
    environment, then come the settings in config.toml, then the defaults. A preset is a table
    [preset.NAME] of settings for the runs with --preset NAME; it comes before the environment. Keys
    of providers are kept in a file of their own, and never shown.

    \b
    rerank config                  every setting, and where its value comes from
    rerank config set model bm25   use bm25 in every run from now on
    rerank config get model        print the value that a run would use
    rerank config unset model      use the default again
    rerank config set preset.fast.candidates 200
    rerank config set-key cohere   ask for the key, or read it from a pipe
    """


@app.command("list", cls=PlainCommand)
def list_(
    ctx: typer.Context,
    as_json: Annotated[bool, typer.Option("--json", help="Write one JSON object.")] = False,
) -> int:
    """Show every setting, its value and where it comes from.

    Then come the settings of presets, and last the providers for which there is a key.

    \b
    rerank config list
    rerank config list --json | jq '.settings[] | select(.origin != "default")'
    """
    from rerank_cli.providers.keys import providers_with_keys

    terminal = Terminal.current()
    values = setting_values(ctx)
    presets = _checked_presets(ctx)
    keys: list[str] = []
    try:
        keys = providers_with_keys()
    except ConfigError as error:
        terminal.warn(str(error), error.hint)
    if as_json:
        path = None
        with suppress(NoHome):
            path = str(config_file())
        listing = {
            "path": path,
            "settings": [
                {"key": key, "value": _value_for_list(key, value), "origin": origin}
                for key, (value, origin) in values.items()
            ],
            "presets": [
                {
                    "name": name,
                    "settings": {
                        key: _value_for_list(key, value) for key, value in settings.items()
                    },
                }
                for name, settings in presets.items()
            ],
            "keys": [{"provider": name, "origin": str(keys_file())} for name in keys],
        }
        terminal.write([format_json(listing)])
    else:
        # Some commands have other defaults than the first, which ranks.
        settings = settings_in(reversed(all_commands(ctx))) if terminal.interactive else {}
        rows = [
            (
                key,
                format_value(_value_for_list(key, value)) or _short_default(settings.get(key)),
                origin,
            )
            for key, (value, origin) in values.items()
        ]
        rows += [
            (
                str(PresetPlace(name, key)),
                format_value(_value_for_list(key, value)),
                str(config_file()),
            )
            for name, preset in presets.items()
            for key, value in preset.items()
        ]
        rows += [(f"key for {name}", "set", str(keys_file())) for name in keys]
        terminal.write_table(rows, ("setting", "value", "from"))
    return ExitCode.OK


def _short_default(setting: Setting | None) -> str:
    """For a person, what holds if a setting has no value; a dash if nothing does.

    A program gets nothing.
    """
    if setting is None:
        return ""
    parts = (setting.default or _NO_VALUE).split(", ")
    while len(", ".join(parts)) > _DEFAULT_CHARACTERS and len(parts) > 1:
        parts = [*parts[: -1 - (parts[-1] == _REST)], _REST]
    return ", ".join(parts)


def _checked_presets(ctx: typer.Context) -> dict[str, dict[str, Any]]:
    """All presets, by name; raises `ConfigError` for an unknown setting."""
    try:
        presets, path = read_presets(), config_file()
    except NoHome:
        return {}
    settings = _settings(ctx) if presets else {}
    return {name: check_preset(name, values, path, settings) for name, values in presets.items()}


@app.command("get", cls=PlainCommand)
def get(ctx: typer.Context, key: Key) -> int:
    """Print the value that a run would use.

    If it has no value, nothing is printed and the exit code is 1. Of a preset all settings are
    printed.

    \b
    rerank config get top-n
    rerank config get preset.fast
    """
    terminal = Terminal.current()
    place = read_place(key)
    if place is not None and not place.key:
        lines = [
            f"{name} = {format_value(_value_for_list(name, value))}\n"
            for name, value in find_preset(place.name, _settings(ctx)).items()
        ]
        terminal.write(line.encode("utf-8", "surrogateescape") for line in lines)
        return ExitCode.OK
    if place is not None:
        value = _find_value(ctx, place)
    else:
        _find_setting(ctx, key)
        value, _ = setting_values(ctx)[key]
    if value is None:
        terminal.warn(f"{key} is not set", f"rerank config set {key} VALUE")
        return ExitCode.NOTHING
    if isinstance(value, str):  # no run would use a user in a URL
        value = hide_user(value)
    terminal.write([format_value(value).encode("utf-8", "surrogateescape") + b"\n"])
    return ExitCode.OK


@app.command("set", cls=PlainCommand, context_settings={"ignore_unknown_options": True})
def set_(ctx: typer.Context, key: Key, value: Value) -> int:
    """Set a value for every run, in config.toml.

    \b
    rerank config set model bm25
    rerank config set chunk-tokens 256
    rerank config set strict true
    rerank config set min-score -2
    rerank config set preset.fast.candidates 200
    """
    place = read_place(key)
    if place is not None:
        check_name(place.name)
        if not place.key:
            raise UsageError(
                f"{place} is a preset, and not a setting of it",
                hint=f"rerank config set {place}.candidates 200",
            )
    setting = _find_setting(ctx, key if place is None else place.key)
    try:
        setting_value = setting.kind.from_text(value)
    except ValueError as error:
        hint = setting.kind.suggestion(value) or f"{key} is {setting.kind.description}"
        raise UsageError(f"{key}: {error}", hint=hint) from error

    from rerank_cli.atomic_files import set_toml_value  # tomlkit, which nothing else needs

    where = key if place is None else place.path
    set_toml_value(config_file(), where, setting.kind.to_toml(setting_value))
    terminal = Terminal.current()
    if place is None and os.environ.get(setting.variable):
        terminal.warn(f"{setting.variable} is set too, and comes first")
    if setting.key == _MODEL:
        _warn_of_model(terminal, value)
    return ExitCode.OK


def _warn_of_model(terminal: Terminal, model: str) -> None:
    """Warn why a model cannot be used now. It may be pulled, or get its entry, later."""
    from rerank_cli.scorers import check_model, split_models

    try:
        for name in split_models(model):
            check_model(name)
    except RerankError as error:
        terminal.warn(f"model is set, but runs will fail: {error}", error.hint)


@app.command("unset", cls=PlainCommand)
def unset(ctx: typer.Context, key: Key) -> int:
    """Remove a setting from config.toml.

    It may also be a name that is not a setting, or is no longer one, and a preset or a setting of
    it.

    \b
    rerank config unset model
    rerank config unset preset.fast
    """
    from rerank_cli.atomic_files import remove_toml_key

    place = read_place(key)
    if not remove_toml_key(config_file(), key if place is None else place.path):
        if place is None:
            _find_setting(ctx, key)
        else:
            find_preset(place.name, _settings(ctx))
        Terminal.current().warn(f"{key} is not set in {config_file()}")
    return ExitCode.OK


@app.command("path", cls=PlainCommand)
def path() -> int:
    """Print where config.toml is, or would be.

    \b
    $EDITOR "$(rerank config path)"
    """
    Terminal.current().write([os.fsencode(config_file()) + b"\n"])
    return ExitCode.OK


# A second argument could be a key, which typer's message would repeat.
@app.command(
    "set-key",
    cls=PlainCommand,
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
)
def set_key(ctx: typer.Context, provider: Provider) -> int:
    """Keep a provider's key in a file that only you can read.

    The key is typed at a prompt that does not show it, or read from standard input. It is never an
    argument, because others on this machine could see that.

    \b
    rerank config set-key cohere
    pass show cohere | rerank config set-key cohere
    """
    from rerank_cli.providers.keys import check_provider, key_hint, store_key

    check_provider(provider)
    if ctx.args:
        raise UsageError("a key is never an argument", hint=key_hint(provider))
    account = _find_account(provider)
    if account != provider:
        Terminal.current().say(f"{provider} has the key of {account}")
    store_key(account, _read_key(provider))
    if sys.stdin is not None and sys.stdin.isatty():  # the typed key is not shown
        Terminal.current().say(f"kept in {keys_file()}")
    return ExitCode.OK


@app.command("unset-key", cls=PlainCommand)
def unset_key(provider: Provider) -> int:
    """Remove a provider's key from the file.

    \b
    rerank config unset-key cohere
    """
    from rerank_cli.providers.catalogue import account_of
    from rerank_cli.providers.keys import forget_key

    # A key may also be there for a name that is no longer a provider's.
    if not forget_key(provider) and not forget_key(account_of(provider) or provider):
        Terminal.current().warn(f"there is no key for {provider} in {keys_file()}")
    return ExitCode.OK


def _find_account(provider: str) -> str:
    """The name that a provider's key is stored under; raises `UsageError` for an unknown one."""
    from rerank_cli.providers.catalogue import account_of, similar_names
    from rerank_cli.providers.keys import hide_secrets

    account = account_of(provider)
    if account is not None:
        return account
    hint = "rerank providers lists them; one of your own needs its table in providers.toml first"
    if provider in _HUB_NAMES:
        hint = "the token of the Hugging Face Hub is in the variable HF_TOKEN"
    elif similar := similar_names(provider):
        hint = f"did you mean {format_names(similar)}?"
    # Some paste the key in the name's place.
    raise UsageError(f"no provider is called {hide_secrets(provider)}", hint=hint)


def _read_key(provider: str) -> str:
    from rerank_cli.providers.keys import key_hint

    if sys.stdin is None:
        raise UsageError("standard input is closed", hint=key_hint(provider))
    if not sys.stdin.isatty():
        try:
            return sys.stdin.buffer.read().decode("utf-8-sig", "replace")
        except OSError as error:
            reason = error.strerror
        raise UsageError(f"standard input: {reason}", hint=key_hint(provider))
    import getpass

    # Ctrl-C would end the process at once (`__main__`), and leave a terminal that shows nothing.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        return getpass.getpass(f"Key for {provider}: ")
    except EOFError:
        return ""
