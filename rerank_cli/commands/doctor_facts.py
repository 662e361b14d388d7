"""The facts that `rerank doctor` tells, group by group, by names that its JSON has too."""

import os
import platform
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from rerank_cli import __version__, machine
from rerank_cli.commands.self_test import Check, checks
from rerank_cli.errors import ConfigError, RerankError
from rerank_cli.models.folder import ModelFolder
from rerank_cli.models.hub import offline
from rerank_cli.providers import catalogue
from rerank_cli.providers.keys import find_key
from rerank_cli.runtimes import Engine
from rerank_cli.runtimes.prepared_cache import VARIABLE, Prepared
from rerank_cli.types import Chunk, Document, Pair, Scorer
from rerank_cli.user_files import cache_directory, config_file, data_directory, keys_file

# Of what a processor can do, what decides how fast its integer and 16-bit products are.
_MATTERS = (
    "avx2", "fma", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "amx_int8", "amx_bf16",
    "asimddp", "i8mm", "bf16", "sve",
)  # fmt: skip
_PACKAGES = (
    "onnxruntime", "onnxruntime-gpu", "openvino", "tokenizers", "numpy", "httpx", "pydantic",
    "typer", "huggingface-hub",
)  # fmt: skip
_TOKENS = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")
_PASSAGE = "The parcel comes back within thirty days."


def facts(model: str | None, engine: Engine) -> dict[str, dict[str, Any]]:
    """Find all of them; what is wrong with the model is one of them, its `error`."""
    found: dict[str, dict[str, Any]] = {
        "versions": {
            "rerank": __version__,
            "python": platform.python_version(),
            "system": platform.platform(),
            **_installed(),
        },
        "processor": {
            "name": machine.processor(),
            "features": " ".join(one for one in _MATTERS if one in machine.features()),
            **_cores(engine.threads),
        },
        "places": {
            "settings": str(config_file()),
            "keys": str(keys_file()),
            "cache": str(cache_directory()),
            "data": str(data_directory()),
        },
        "keys": _keys(),
        "model": {},
    }
    checked: list[Check] = []
    try:
        found["model"], checked = _model(model, engine)
    except RerankError as error:
        hint = {"hint": error.hint} if error.hint else {}
        found["model"] = {"name": model or "the default", "error": str(error), **hint}
    except OSError as error:
        found["model"] = {"name": model or "the default", "error": str(error)}
    if checked:
        found["checks"] = {
            one.name: ("ok: " if one.ok else "FAILED: ") + one.found for one in checked
        }
    if advice := _advice(found, checked):
        found["advice"] = advice
    return found


def _keys() -> dict[str, Any]:
    """Of whom there are keys, and never one of them."""
    try:
        known = [catalogue.find_provider(name) for name in catalogue.names()]
        have = [one.name for one in known if find_key(one.account, one.key)]
    except ConfigError as error:
        return {"providers": str(error)}
    token = next((name for name in _TOKENS if os.environ.get(name)), None)
    return {
        "providers": ", ".join(have) or "none",
        "hugging_face": f"{token} is set" if token else "no HF_TOKEN, which only some models need",
    }


def _advice(found: Mapping[str, Any], checked: Sequence[Check]) -> dict[str, str]:
    """What to do about what was found, by the name of what it is about."""
    advice = {one.name: one.advice for one in checked if not one.ok}
    features, model = found["processor"]["features"].split(), found["model"]
    if "avx2" in features and not {"avx512_vnni", "avx_vnni"} & set(features):
        advice["processor"] = "it has no VNNI, without which int8 gains less: try fp32 beside it"
    if model.get("prepared") is False and "GPU" not in model.get("because", ""):
        advice["prepared"] = f"each start opens the model anew: {model['because']}"
    if (variable := offline()) is not None:
        advice["network"] = f"{variable} is set: nothing is fetched"
    return advice


def _installed() -> dict[str, str]:
    """The versions of packages; of those that may stand for each other, the ones there are."""
    found = {}
    for name in _PACKAGES:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def _cores(threads: int | None) -> dict[str, Any]:
    """How many runs are made at once, and why so many."""
    cores = machine.cores()
    if threads is not None:
        return {"cores": cores, "threads": threads, "why": "--threads, or its setting, says so"}
    total = os.cpu_count() or 1
    why = "all cores" if cores == total else f"of {total}, by affinity or the container's quota"
    return {"cores": cores, "threads": cores, "why": why}


def _model(model: str | None, engine: Engine) -> tuple[dict[str, Any], list[Check]]:
    from rerank_cli.scorers import local_folder, open_scorer

    folder = local_folder(model)
    files = [] if folder is None else _files(folder)
    if files:
        import rerank_cli.scorers.cross_encoder  # noqa: F401 - to import is not to open

    began = time.perf_counter()
    scorer = open_scorer(model, engine=engine)
    opened = time.perf_counter() - began
    about: dict[str, Any] = {"name": scorer.info.model}
    if scorer.info.remote:
        return {**about, "opened": "nothing: it is a provider's", "scale": scorer.info.scale}, []
    about |= {
        "window": scorer.info.window or "no limit",
        "length": scorer.info.length or "no limit",
        "files": files,
        **(_running(scorer) if files else {}),
        "seconds_to_open": opened,
        "seconds_to_first_score": _first_score(scorer),
    }
    told = {name: value for name, value in about.items() if value not in ([], None)}
    return told, [] if folder is None else checks(folder, scorer)


def _first_score(scorer: Scorer) -> float:
    began = time.perf_counter()
    scorer.score([Pair("refund", Chunk(Document(_PASSAGE), 0, len(_PASSAGE), _PASSAGE, 0))])
    return time.perf_counter() - began


def _files(folder: ModelFolder) -> list[dict[str, Any]]:
    """The files of a local model: its graph, with the weights beside it, and its tokenizer."""
    from rerank_cli.runtimes.onnx_file import needs

    weights = [folder.graph.parent / name for name in needs(folder.graph)]
    return [_file(path) for path in (folder.graph, *weights, folder.tokenizer)]


def _file(path: Path) -> dict[str, Any]:
    import hashlib

    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "blake2b").hexdigest()[:16]
    return {"path": str(path), "bytes": path.stat().st_size, "hash": digest}


def _running(scorer: Scorer) -> dict[str, Any]:
    """What runs the model, whether it is prepared for this machine, and where that is."""
    from rerank_cli.scorers.cross_encoder import LocalScorer

    if not isinstance(scorer, LocalScorer):
        return {}
    about: dict[str, Any] = {"run_by": scorer.run_by, "prepared": scorer.prepared is not None}
    store = Prepared.usual()
    if scorer.prepared is not None and store is not None:
        size = sum(path.stat().st_size for path in store.root.rglob("*") if path.is_file())
        return {
            **about,
            "prepared_in": str(scorer.prepared.parent),
            "bytes_of_all_prepared": size,
        }
    gpu = scorer.run_by.endswith("GPU")
    return {**about, "because": "a GPU needs no copy" if gpu else _why_not(store)}


def _why_not(store: Prepared | None) -> str:
    """Why opening a model has prepared nothing."""
    if store is None:
        return f"{VARIABLE} is off"
    if not os.access(store.root, os.W_OK):
        return f"{store.root} cannot be written"
    return f"another process is preparing a model in {store.root}, or onnxruntime cannot save it"
