"""`rerank models …`: lists local models, fetches, checks and removes them.

`models` has the facts about models, `models.store` has their files, and `models.pull` fetches them.
Each command imports what it needs of these when it runs, so that help is fast.
"""

import os
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated

import typer

from rerank_cli.cli import options
from rerank_cli.cli.parameters import setting_values, with_options
from rerank_cli.cli.typer_commands import ListGroup, PlainCommand, make_app
from rerank_cli.errors import ExitCode, ModelError, NotInstalled, UsageError
from rerank_cli.output_files import check_output_folder
from rerank_cli.terminal import Terminal, format_json
from rerank_cli.user_files import config_file, expand_user

app = make_app(ListGroup)


_HEADS = ("NAME", "STATE", "SIZE", "PARAMS", "LANGS", "LICENCE")


def _known_names() -> list[str]:
    from rerank_cli.models import names
    from rerank_cli.scorers import BM25

    return [name for name in names() if name != BM25]


def _pulled_names() -> list[str]:
    from rerank_cli.models.store import Store

    return [f"{model.name}:{model.precision}" for model in Store.usual().folders()]


def _installed_names() -> list[str]:
    from rerank_cli.models.catalogue import default
    from rerank_cli.models.packages import packaged_models

    packaged = [model.name for model in packaged_models() if not model.is_hidden()]
    return [default().partition("@")[0], *dict.fromkeys(packaged), *_pulled_names()]


Name = Annotated[str, typer.Argument(metavar="NAME", autocompletion=_known_names)]
PulledName = typer.Argument(metavar="NAME...", autocompletion=_pulled_names)
InstalledName = Annotated[str, typer.Argument(metavar="NAME", autocompletion=_installed_names)]
AsJson = Annotated[bool, typer.Option("--json", help="Write JSON.")]


@app.callback()
def _models() -> None:
    """List local models, and fetch, check and remove them.

    A NAME is one that `rerank models` lists, with a precision if needed (bge-reranker-base:fp32),
    or hf:OWNER/REPOSITORY for any other reranker in ONNX on the Hugging Face Hub.

    \b
    rerank models                          all models, and which are installed
    rerank models pull bge-reranker-base   fetch a model, for -m bge-reranker-base
    rerank models show bge-reranker-v2-m3  its source, quality and licence
    rerank models verify                   compare all files with their hashes
    rerank models use bge-reranker-base    use this model by default
    rerank models rm bge-reranker-base     remove a model
    rerank models export ./checkpoint OUT  make ONNX from what transformers saved
    rerank models package ./FOLDER         make a Python package of a model
    """


@app.command("list", cls=PlainCommand)
def list_(ctx: typer.Context, as_json: AsJson = False) -> int:
    """List the models that are installed or can be pulled by name.

    \b
    rerank models list
    rerank models list --json | jq -r '.[] | select(.state == "installed") | .name'
    """
    from rerank_cli.commands.local_models import list_models

    terminal = Terminal.current()
    rows = [asdict(row) for row in list_models(setting_values(ctx)["model"][0])]
    if as_json:
        terminal.write([format_json(rows)])
    else:
        cells = [list(model.values()) for model in rows]
        if terminal.interactive:
            terminal.write_table([row[:-2] for row in cells], _HEADS)
            if packages := [[row[0], *row[-2:]] for row in cells if row[-2]]:
                terminal.write([b"\n"])
                terminal.write_table(packages, (_HEADS[0], "PACKAGE", "VERSION"))
        else:
            terminal.write_table(cells)
    if terminal.interactive:
        terminal.say("\nrerank models pull NAME  fetches one\nrerank models show NAME  says more")
    return ExitCode.OK


@app.command("show", cls=PlainCommand)
def show(name: Name, as_json: AsJson = False) -> int:
    """Show a model's licence, languages, quality and source.

    \b
    rerank models show bge-reranker-v2-m3
    """
    from rerank_cli.commands.local_models import facts
    from rerank_cli.models import read_name

    model_facts = facts(read_name(name))
    terminal = Terminal.current()
    if as_json:
        terminal.write([format_json(model_facts)])
        return ExitCode.OK
    terminal.write_facts(
        [
            (label if number == 0 else "", str(text))
            for label, value in model_facts.items()
            for number, text in enumerate(value if isinstance(value, list) else [value])
        ]
    )
    return ExitCode.OK


@app.command("pull", cls=PlainCommand)
@with_options(options.model_options, only="offline")
def pull(
    ctx: typer.Context,
    name: Name,
    revision: Annotated[
        str | None,
        typer.Option(
            "--revision",
            metavar="REVISION",
            help="The branch, tag or commit.",
            show_default="the commit that was pulled before, or main",
        ),
    ] = None,
) -> int:
    """Fetch a model, check its files' hashes, and keep it.

    It can be used offline from then on. A download that was cut off continues. HF_ENDPOINT names
    another Hub, and HF_TOKEN is the token for it.

    \b
    rerank models pull bge-reranker-v2-m3
    rerank models pull bge-reranker-base:fp32
    rerank models pull hf:Xenova/bge-reranker-base --revision main
    """
    from rerank_cli.commands.local_models import fetch
    from rerank_cli.models import find_packaged, read_name

    reference = read_name(name)
    if revision is not None:
        reference = replace(reference, revision=revision)
    if reference.entry is None and (packaged := find_packaged(reference)) is not None:
        raise UsageError(
            f"{name} is of the package {packaged.label}, and is not pulled",
            hint=f"pip install --upgrade {packaged.package} fetches a newer one",
        )
    model = fetch(reference, keep_off=ctx.params["offline"])
    Terminal.current().write([os.fsencode(f"{model.folder}\n")])
    return ExitCode.OK


@app.command("verify", cls=PlainCommand)
def verify(
    name: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME]...", autocompletion=_pulled_names)
    ] = None,
) -> int:
    """Compare the files of installed models with their hashes.

    By default all models that were pulled are checked. The exit code is 3 if a file has changed.

    \b
    rerank models verify
    rerank models verify bge-reranker-base
    """
    from rerank_cli.commands.local_models import find_pulled, read_pulled_name
    from rerank_cli.models.store import Store

    terminal, store = Terminal.current(), Store.usual()
    models = store.folders()
    if name:
        models = [model for text in name for model in find_pulled(read_pulled_name(text))]
    wrong, damaged_names = 0, dict[str, None]()
    for model in models:
        for path, trouble in model.verify():
            if trouble is not None:
                wrong += 1
                damaged_names[f"{model.name}:{model.precision}"] = None
            line = f"{trouble or 'ok'}\t{model.folder / path}\n"
            terminal.write([line.encode("utf-8", "surrogateescape")])
    if not models:
        terminal.warn(
            "no model was pulled: there is nothing to verify",
            "rerank doctor checks the model that ships with rerank",
        )
    if wrong:
        raise ModelError(
            f"{wrong} file{'s are' if wrong > 1 else ' is'} not as pulled",
            hint="fetch them again: "
            + ", ".join(f"rerank models pull {name}" for name in damaged_names),
        )
    return ExitCode.OK


@app.command("rm", cls=PlainCommand)
def rm(
    ctx: typer.Context,
    name: Annotated[list[str], PulledName],
) -> int:
    """Remove installed models, and what was fetched of one whose pull was cut off.

    A name without a precision stands for all its precisions.

    \b
    rerank models rm bge-reranker-base:fp32
    """
    from rerank_cli.commands.local_models import find_pulled, read_pulled_name
    from rerank_cli.models import find, is_local
    from rerank_cli.models.store import Store

    store, terminal = Store.usual(), Terminal.current()
    references = [read_pulled_name(text) for text in name]
    parts = [
        part
        for reference in references
        for part in store.parts(reference.name)
        if reference.precision in ("", part.precision)
    ]
    with_parts = {part.name for part in parts}
    for model in [
        model
        for reference in references
        for model in find_pulled(reference, may_be_missing=reference.name in with_parts)
    ]:
        store.remove(model)
        terminal.say(f"{model.name}:{model.precision}: removed")
    for part in parts:
        store.remove_part(part)
        terminal.say(f"{part.name}:{part.precision}: removed what was fetched of it")
    default_name = setting_values(ctx)["model"][0]
    if default_name is not None and is_local(default_name):
        try:
            find(default_name)
        except NotInstalled:
            Terminal.current().warn(
                f"{default_name} is still what runs use, and is not here now",
                hint="rerank config unset model, for the model that ships",
            )
        except ModelError:  # it is here, though it may be damaged
            pass
    return ExitCode.OK


@app.command("use", cls=PlainCommand)
def use(ctx: typer.Context, name: InstalledName) -> int:
    """Make a model the default.

    As `rerank config set model NAME` does, but only if it can be opened now.

    \b
    rerank models use bge-reranker-base
    rerank models use mini
    """
    from rerank_cli.atomic_files import set_toml_value
    from rerank_cli.scorers import check_model

    check_model(name)
    set_toml_value(config_file(), "model", name)
    terminal = Terminal.current()
    if setting_values(ctx)["model"][0] != name:
        terminal.warn("RERANK_MODEL is set too, and comes first")
    terminal.say(f"{name} is the default now")
    return ExitCode.OK


@app.command("path", cls=PlainCommand)
def path(name: InstalledName) -> int:
    """Print a model's folder, which -m ./FOLDER takes wherever it is copied.

    \b
    ls "$(rerank models path mini)"
    """
    from rerank_cli.models import find

    # The graph may be in a folder `onnx` of it.
    Terminal.current().write([os.fsencode(f"{find(name).tokenizer.parent}\n")])
    return ExitCode.OK


@app.command("package", cls=PlainCommand)
def package(
    source: Annotated[str, typer.Argument(metavar="FOLDER|NAME", autocompletion=_installed_names)],
    out: Annotated[
        str,
        typer.Option(
            "--output",
            "-o",
            metavar="DIR",
            help="The folder to write the wheel into.",
            show_default="the current one",
        ),
    ] = ".",
    name: Annotated[
        str | None,
        typer.Option("--name", metavar="NAME", help="The name for -m.", show_default="that it has"),
    ] = None,
    version: Annotated[
        str,
        typer.Option("--version", metavar="VERSION", help="The version of the package."),
    ] = "1.0",
    licence: Annotated[
        str | None,
        typer.Option("--licence", metavar="SPDX", help="Its licence: MIT, LicenseRef-ACME or so."),
    ] = None,
    languages: Annotated[
        str | None,
        typer.Option("--languages", metavar="CODES", help="What it reads: en,de; mul for many."),
    ] = None,
) -> int:
    """Make a Python package of a model, which pip installs and -m finds.

    Writes the wheel rerank-model-NAME, for an index of your own or for pip. What else is known of
    the model goes into FOLDER/model.toml, as docs/models.md says.

    \b
    rerank models package bge-reranker-v2-m3 -o dist
    rerank models package ./mine/int8 --name mine --licence MIT
    pip install ./rerank_model_mine-1.0-py3-none-any.whl
    rerank -m mine "fox" *.txt
    """
    from rerank_cli.models import find, find_entry, find_installed, is_path, read_name
    from rerank_cli.models.catalogue import Entry
    from rerank_cli.models.packages import PackageFacts, read_model_file, write_wheel
    from rerank_cli.scorers import open_scorer
    from rerank_cli.types import Pair

    check_output_folder(out and str(expand_user(out)), "-o")
    folder = find(source)
    root = folder.tokenizer.parent
    entry = read_model_file(root, source, is_strict=True) or find_entry(folder) or Entry(source)
    if not (entry.licence or folder.package or is_path(source)):
        entry = replace(entry, licence=find_installed(read_name(source)).manifest.licence)
    if not (entry.revision or folder.package or is_path(source)):
        entry = replace(entry, revision=folder.revision)
    if languages is not None:
        entry = replace(entry, languages=[code.strip() for code in languages.split(",")])
    if name is None:
        name = root.resolve().name if is_path(source) else read_name(source).name.rpartition("/")[2]
    facts = PackageFacts.check(name, version, licence or entry.licence, entry)
    # A user who installs it gets a model that can be opened, and scores.
    open_scorer(source).score([Pair.from_texts("a query", "a passage")])
    path = write_wheel(folder, facts, expand_user(out))
    Terminal.current().write([os.fsencode(f"{path}\n")])
    return ExitCode.OK


@app.command("export", cls=PlainCommand)
def export_(
    source: Annotated[str, typer.Argument(metavar="FOLDER|hf:OWNER/REPOSITORY")],
    out: Annotated[str, typer.Argument(metavar="OUT")],
    as_json: AsJson = False,
) -> int:
    """Make ONNX graphs from a checkpoint.

    Writes OUT/fp32, and OUT/int8 for this kind of processor. Needs the extra export. Reports how
    far the scores of each are from those of PyTorch, and writes that beside the graph, so that
    `rerank doctor` can check it.

    \b
    rerank models export ./my-checkpoint ./my-reranker
    rerank models export hf:BAAI/bge-reranker-v2-m3 ./v2-m3 && rerank -m ./v2-m3/int8 "fox" *.txt
    """

    terminal = Terminal.current()
    from rerank_cli.models.export import export_for_user  # needs numpy

    fidelities = export_for_user(source, out, terminal)
    if as_json:
        terminal.write([format_json([asdict(fidelity) for fidelity in fidelities])])
        return ExitCode.OK
    template = "the largest difference of scores {largest:.5f}, rank correlation {correlation:.3f}"
    terminal.write_table(
        [
            (str(Path(out) / fidelity.precision), template.format(**asdict(fidelity)))
            for fidelity in fidelities
        ]
    )
    return ExitCode.OK
