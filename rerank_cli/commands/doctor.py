"""`rerank doctor`: facts about this machine, this installation and a model.

Finds facts about the machine, the installation and the model, and checks the model.
"""

import json
import os
import platform
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rerank_cli import __version__, machine
from rerank_cli.atomic_files import file_digest
from rerank_cli.cli import option_values, options
from rerank_cli.cli.parameters import with_options
from rerank_cli.cli.typer_commands import PlainCommand, make_app
from rerank_cli.errors import ConfigError, ExitCode, NoHome, RerankError
from rerank_cli.runtimes import RuntimeOptions
from rerank_cli.scorers import split_models
from rerank_cli.terminal import Terminal, format_count, format_json
from rerank_cli.user_files import (
    cache_directory,
    config_file,
    data_directory,
    keys_file,
    read_regular_file,
)

if TYPE_CHECKING:
    from rerank_cli.models.catalogue import Sample
    from rerank_cli.models.folder import ModelFolder
    from rerank_cli.runtimes.prepared_cache import PreparedCache
    from rerank_cli.types import Scorer

app = make_app()


@app.command("doctor", cls=PlainCommand)
@with_options(options.model_options, only="threads runtime device")
@with_options(options.common_options, only="model")
def doctor(
    ctx: typer.Context,
    as_json: Annotated[bool, typer.Option("--json", help="Write one JSON object.")] = False,
) -> int:
    """Check a model and what it runs on here.

    Compares the model's files with their hashes, and its scores with published ones. The exit code
    is 3 if one is wrong. Shows what a bug report needs, and never a key.

    \b
    rerank doctor
    rerank doctor -m bge-reranker-base
    rerank doctor -m ./my-model --json
    """

    facts_by_section = find_facts(ctx.params["model"], option_values.runtime_options(ctx))
    terminal = Terminal.current()
    if as_json:
        terminal.write([format_json(facts_by_section)])
    else:
        terminal.write_facts(_rows(facts_by_section))
    checks = [facts for name, facts in facts_by_section.items() if name.startswith("checks")]
    has_failed = any(not result.startswith("ok") for facts in checks for result in facts.values())
    has_failed |= any(
        "error" in facts for name, facts in facts_by_section.items() if name.startswith("model")
    )
    return ExitCode.SCORER if has_failed else ExitCode.OK


def _rows(facts_by_section: dict[str, Any]) -> list[tuple[str, str]]:
    """The facts in two columns, a section for each group of them."""
    rows: list[tuple[str, str]] = []
    for section, facts in facts_by_section.items():
        rows += [("", ""), (section.upper(), "")] if rows else [(section.upper(), "")]
        for name, value in facts.items():
            label = f"  {name.replace('_', ' ')}"
            for item in value if isinstance(value, list) else [value]:
                rows.append((label, _words(item)))
                label = ""
    return rows


def _words(value: Any) -> str:
    if isinstance(value, dict):
        return f"{value['hash']}  {value['bytes']:>12,}  {value['path']}"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.3f}"
    return f"{value:,}" if isinstance(value, int) else str(value)


# The most by which logits may differ from published ones: of a float32 graph, and of others.
_EXACT_LOGITS, _NEAR_LOGITS = 0.01, 0.5
# As probabilities they differ by no more than a quarter of that: a sigmoid's steepest slope.
_STEEPEST_SLOPE = 0.25


@dataclass(frozen=True, slots=True)
class Check:
    """A check: its subject, whether it passed, its result, and advice if it failed."""

    name: str
    ok: bool
    result: str
    advice: str = ""


def run_checks(folder: "ModelFolder", scorer: "Scorer") -> list[Check]:
    """Check all that can be checked of an open model."""
    return [*_check_files(folder), *_check_scores(folder, scorer)]


def _check_files(folder: "ModelFolder") -> Iterator[Check]:
    from rerank_cli.models import how_to_renew

    hashes = _expected_hashes(folder)
    if not hashes:
        return
    wrong = []
    for path, expected in hashes.items():
        try:
            if file_digest(path) != expected:
                wrong.append(f"{path} has changed")
        except (OSError, ValueError) as error:  # a name may have a NUL
            wrong.append(f"{path}: {getattr(error, 'strerror', None) or error}")
    result = "; ".join(wrong) or f"{format_count(len(hashes), 'file')} as made"
    yield Check("files", not wrong, result, how_to_renew(folder.name, folder.package))


def _check_scores(folder: "ModelFolder", scorer: "Scorer") -> Iterator[Check]:
    from rerank_cli.models import how_to_renew
    from rerank_cli.ranking.calibration import relevance
    from rerank_cli.types import Pair

    samples = _samples(folder)
    if not samples:
        return
    pairs = [Pair.from_texts(sample.query, sample.passage) for sample in samples]
    values = [float(value or 0.0) for value in scorer.score(pairs).values]
    expected = [sample.score for sample in samples]
    scale = scorer.info.scale
    if any(sample.scale != scale for sample in samples):
        values = [relevance(value, scale) for value in values]
        expected = [relevance(sample.score, sample.scale) for sample in samples]
        scale = "probability"
    exact = not folder.is_dynamic() and "bf16" not in getattr(scorer, "runtime_name", "")
    limit = _EXACT_LOGITS if exact else _NEAR_LOGITS
    limit *= _STEEPEST_SLOPE if scale == "probability" else 1
    away = max(
        abs(value - expected_value) for value, expected_value in zip(values, expected, strict=True)
    )
    rows = list(zip(samples, values, expected, strict=True))
    is_ordered = all(
        (value - other_value) * (expected_value - other_expected) > 0
        for sample, value, expected_value in rows
        for other, other_value, other_expected in rows
        if sample.query == other.query and abs(expected_value - other_expected) > limit
    )
    names = {"logit": "logits", "probability": "probabilities"}.get(scale, "scores")
    result = f"{len(samples)} known {names}, {away:.4f} away at most (allowed: {limit:g})"
    if not is_ordered:
        result += ", and not in their order"
    yield Check(
        "scores", is_ordered and away <= limit, result, how_to_renew(folder.name, folder.package)
    )


def _expected_hashes(folder: "ModelFolder") -> Mapping[Path, str]:
    """The hashes that a model's files should have, by path; raises `ModelError`."""
    from rerank_cli.models.folder import CHECKSUMS, read_checksums

    if folder.hashes:
        return folder.hashes
    root = folder.graph.parent
    place = next((place for place in (root, root.parent) if (place / CHECKSUMS).is_file()), None)
    return {} if place is None else read_checksums(place)


def _samples(folder: "ModelFolder") -> "Sequence[Sample]":
    """Pairs whose scores were published, by the catalogue or beside the model."""
    from rerank_cli.models import find_entry
    from rerank_cli.models.catalogue import Sample
    from rerank_cli.models.folder import SELF_TEST

    entry = find_entry(folder)
    if entry is not None and entry.self_test:
        return entry.self_test
    path = folder.graph.parent / SELF_TEST
    if not path.is_file():
        return ()
    try:
        rows: list[dict[str, Any]] = json.loads(read_regular_file(path))
        return [Sample.from_row(row) for row in rows]
    except (OSError, ValueError, TypeError, AttributeError, OverflowError, RecursionError):
        return ()


# The features that decide how fast a processor's integer and 16-bit products are.
_FEATURES = (
    "avx2", "fma", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "amx_int8", "amx_bf16",
    "asimddp", "i8mm", "bf16", "sve",
)  # fmt: skip
_PACKAGES = (
    "onnxruntime", "onnxruntime-gpu", "openvino", "tokenizers", "numpy", "httpx2", "pydantic",
    "typer", "huggingface-hub",
)  # fmt: skip
_HASH_DIGITS = 16  # of a file, enough to distinguish files in a bug report
_TOKEN_VARIABLES = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")
_PASSAGE = "The parcel comes back within thirty days."


def find_facts(model: str | None, runtime: RuntimeOptions) -> dict[str, dict[str, Any]]:
    """Find all facts; a fault of the model is one of them, its `error`."""
    facts: dict[str, dict[str, Any]] = {
        "versions": {
            "rerank": __version__,
            "python": platform.python_version(),
            "system": platform.platform(),
            **_package_versions(),
        },
        "processor": {
            "name": machine.processor(),
            "features": " ".join(feature for feature in _FEATURES if feature in machine.features()),
            **_cores(runtime.threads),
        },
        "places": {
            "settings": _place(config_file),
            "keys": _place(keys_file),
            "cache": _place(cache_directory),
            "data": _place(data_directory),
        },
        "keys": _keys(),
        "model": {},
    }
    if len(models := split_models(model)) <= 1:
        _add_model(facts, model, runtime)
        return facts
    shared = {**facts}
    for number, name in enumerate(models, 1):  # each of a cascade
        about = {**shared}
        _add_model(about, name, runtime)
        end = "" if number == 1 else f"_{number}"
        parts = ("model", "checks", "advice")
        facts |= {f"{part}{end}": about[part] for part in parts if part in about}
    return facts


def _add_model(
    facts: dict[str, dict[str, Any]], model: str | None, runtime: RuntimeOptions
) -> None:
    """Add the facts about a model, the results of its checks, and advice."""
    checks: list[Check] = []
    try:
        facts["model"], checks = _model(model, runtime)
    except RerankError as error:
        hint = {"hint": error.hint} if error.hint else {}
        facts["model"] = {"name": model or "the default", "error": str(error), **hint}
    except OSError as error:
        facts["model"] = {"name": model or "the default", "error": str(error)}
    if checks:
        facts["checks"] = {
            check.name: ("ok: " if check.ok else "FAILED: ") + check.result for check in checks
        }
    if advice := _advice(facts, checks):
        facts["advice"] = advice


def _place(find: Callable[[], Path]) -> str:
    """The place of one of the user's files, or why there is none."""
    try:
        return str(find())
    except ConfigError as error:
        return f"nowhere: {error}"


def _keys() -> dict[str, Any]:
    """The providers for which there is a key, without the keys."""
    from rerank_cli.providers import catalogue
    from rerank_cli.providers.keys import find_key

    try:
        providers = [catalogue.find_provider(name) for name in catalogue.provider_names()]
        have = [entry.name for entry in providers if find_key(entry.account, entry.key)]
    except ConfigError as error:
        return {"providers": str(error)}
    token = next((name for name in _TOKEN_VARIABLES if os.environ.get(name)), None)
    return {
        "providers": ", ".join(have) or "none",
        "hugging_face": f"{token} is set" if token else "no HF_TOKEN, which only some models need",
    }


def _advice(facts: Mapping[str, Any], checks: Sequence[Check]) -> dict[str, str]:
    """Advice on the facts, by the names of their sections."""
    from rerank_cli.models import offline_variable

    advice = {check.name: check.advice for check in checks if not check.ok}
    features, model = facts["processor"]["features"].split(), facts["model"]
    if "avx2" in features and not {"avx512_vnni", "avx_vnni"} & set(features):
        advice["processor"] = "it has no VNNI, without which int8 gains less: try fp32 beside it"
    if model.get("prepared") is False and "GPU" not in model.get("because", ""):
        advice["prepared"] = f"each start opens the model anew: {model['because']}"
    if (variable := offline_variable()) is not None:
        advice["network"] = f"{variable} is set: nothing is fetched"
    return advice


def _package_versions() -> dict[str, str]:
    """The versions of packages; of alternative packages only those that are installed."""
    from importlib.metadata import PackageNotFoundError, version

    versions = {}
    for name in _PACKAGES:
        with suppress(PackageNotFoundError):
            versions[name] = version(name)
    return versions


def _cores(threads: int | None) -> dict[str, Any]:
    """The number of runs at once, and the reason."""
    cores = machine.core_count()
    if threads is not None:
        return {"cores": cores, "threads": threads, "why": "--threads, or its setting, says so"}
    total = os.cpu_count() or 1
    why = "all cores" if cores == total else f"of {total}, by affinity or the container's quota"
    return {"cores": cores, "threads": cores, "why": why}


def _model(model: str | None, runtime: RuntimeOptions) -> tuple[dict[str, Any], list[Check]]:
    from rerank_cli.scorers import find_local_folder, open_scorer

    folder = find_local_folder(model)
    files = [] if folder is None else [_file(path) for path in _find_files(folder)]
    if files:
        import rerank_cli.scorers.cross_encoder  # noqa: F401 - to import is not to open

    began = time.perf_counter()
    scorer = open_scorer(model, runtime=runtime)
    open_seconds = time.perf_counter() - began
    about: dict[str, Any] = {"name": scorer.info.model}
    if scorer.info.remote:
        return {**about, "opened": "nothing: it is a provider's", "scale": scorer.info.scale}, []
    about |= {
        "scale": scorer.info.scale,
        "window": scorer.info.window or "no limit",
        "length": scorer.info.length or "no limit",
        "files": files,
        **(_runtime_facts(scorer) if files else {}),
        "seconds_to_open": open_seconds,
        "seconds_to_first_score": _first_score(scorer),
    }
    facts = {name: value for name, value in about.items() if value not in ([], None)}
    return facts, [] if folder is None else run_checks(folder, scorer)


def _find_files(folder: "ModelFolder") -> list[Path]:
    """The files of a model that are there: those for its scores, then others that are checked."""
    checked = (path for path in _expected_hashes(folder) if path.is_file())
    return [*dict.fromkeys([*folder.files(), *checked])]


def _first_score(scorer: "Scorer") -> float:
    from rerank_cli.types import Pair

    began = time.perf_counter()
    scorer.score([Pair.from_texts("refund", _PASSAGE)])
    return time.perf_counter() - began


def _file(path: Path) -> dict[str, Any]:
    digest = file_digest(path, "blake2b")[:_HASH_DIGITS]
    return {"path": str(path), "bytes": path.stat().st_size, "hash": digest}


def _runtime_facts(scorer: "Scorer") -> dict[str, Any]:
    """The runtime of the model, whether it is prepared for this machine, and the copy's place."""
    from rerank_cli.runtimes.prepared_cache import PreparedCache
    from rerank_cli.scorers.cross_encoder import LocalScorer

    if not isinstance(scorer, LocalScorer):
        return {}
    about: dict[str, Any] = {
        "run_by": scorer.runtime_name,
        "prepared": scorer.prepared_path is not None,
    }
    store = PreparedCache.default()
    if scorer.prepared_path is not None and store is not None:
        size = sum(path.stat().st_size for path in store.root.rglob("*") if path.is_file())
        return {
            **about,
            "prepared_in": str(scorer.prepared_path.parent),
            "bytes_of_all_prepared": size,
        }
    gpu = scorer.runtime_name.endswith("GPU")
    return {**about, "because": "a GPU needs no copy" if gpu else _why_not(store)}


def _why_not(store: "PreparedCache | None") -> str:
    """The reason why opening a model has prepared nothing."""
    from rerank_cli.runtimes.prepared_cache import PREPARED_VARIABLE

    if store is None:
        is_off = os.environ.get(PREPARED_VARIABLE) == "off"
        return f"{PREPARED_VARIABLE} is off" if is_off else str(NoHome())
    if not os.access(store.root, os.W_OK):
        return f"{store.root} cannot be written"
    return f"another process is preparing a model in {store.root}, or onnxruntime cannot save it"
