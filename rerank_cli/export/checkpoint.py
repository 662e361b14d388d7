"""A checkpoint as transformers saves it: weights in safetensors, a configuration, a tokenizer."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rerank_cli.errors import MissingExtra, ModelError
from rerank_cli.models.catalogue import Prompt, prompts

TOKENIZER = "tokenizer.json"
TEXTS = (TOKENIZER, "tokenizer_config.json", "special_tokens_map.json", "config.json")


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """PyTorch's model, transformers' tokenizer, and the prompt of a causal model."""

    model: Any
    tokenizer: Any
    prompt: Prompt | None

    @property
    def is_typed(self) -> bool:
        """Whether the model tells queries from passages by token types."""
        return getattr(self.model.config, "type_vocab_size", 0) > 1


def read(source: Path) -> Checkpoint:
    """Read a checkpoint's folder. Raises `MissingExtra`, and `ModelError` for no reranker's."""
    torch, transformers = _libraries()
    prompt = prompts().get(str(_config(source).get("model_type")))
    kind = (
        transformers.AutoModelForSequenceClassification
        if prompt is None
        else transformers.AutoModelForCausalLM
    )
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(source, use_fast=True)
        model = kind.from_pretrained(
            source, dtype=torch.float32, attn_implementation="eager", use_safetensors=True
        )
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise ModelError(f"{source}: cannot be read: {' '.join(str(error).split())}") from error
    labels = getattr(model.config, "num_labels", 1)
    if prompt is None and labels > 2:
        raise ModelError(f"{source}: not a reranker: it has {labels} classes")
    return Checkpoint(model.eval(), tokenizer, prompt)


def write_texts(read: Checkpoint, source: Path, folder: Path) -> None:
    """Write the tokenizer in its fast form, and what describes the model."""
    read.tokenizer.save_pretrained(folder)
    for path in [one for one in folder.iterdir() if one.name not in TEXTS]:
        path.unlink()
    if not (folder / TOKENIZER).is_file():
        raise ModelError(f"{source}: its tokenizer has no fast form")
    shutil.copyfile(source / "config.json", folder / "config.json")


def _libraries() -> tuple[Any, Any]:
    try:
        import onnx  # noqa: F401 - to say now what would be missed later
        import torch
        import transformers
    except ImportError as error:
        raise MissingExtra(
            f"exporting needs the extra export, and {error.name} is not installed",
            hint="pip install 'rerank-cli[export]'",
        ) from error
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    return torch, transformers


def _config(source: Path) -> dict[str, Any]:
    try:
        content = json.loads((source / "config.json").read_text(encoding="utf-8"))
    except OSError as error:
        raise ModelError(
            f"{source}: no checkpoint: its config.json: {error.strerror}",
            hint="name the folder that transformers saved the model in",
        ) from error
    except ValueError as error:
        raise ModelError(f"{source}/config.json: not JSON: {error}") from error
    if not any(source.glob("*.safetensors")):
        raise ModelError(
            f"{source}: has no weights in safetensors",
            hint="weights in pickles can run anything: save them anew with save_pretrained",
        )
    return content if isinstance(content, dict) else {}
