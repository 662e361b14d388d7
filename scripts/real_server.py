"""Make what tests/providers/test_real_server.py needs: Infinity in a venv of its own.

    python scripts/real_server.py FOLDER

Prints the two variables that the test looks for. The model is a cross-encoder of two layers with
random weights and a vocabulary of letters: what it scores means nothing, but it is scored by
a server that is not this project's.
"""

import os
import subprocess
import sys
import venv
from pathlib import Path

# The last click that the typer of this Infinity works with.
PACKAGES = ["infinity-emb[server,torch]==0.0.77", "click<8.2"]
TORCH = "torch==2.13.0"  # by itself first: in its CPU build, which others would replace

MODEL = """
import string, sys
from pathlib import Path
import torch
from transformers import BertConfig, BertForSequenceClassification, BertTokenizerFast

folder = Path(sys.argv[1])
folder.mkdir(parents=True, exist_ok=True)
signs = string.ascii_lowercase + string.digits
pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *signs, *(f"##{sign}" for sign in signs)]
(folder / "vocab.txt").write_text("\\n".join(pieces))
tokenizer = BertTokenizerFast(vocab_file=str(folder / "vocab.txt"), model_max_length=128)
tokenizer.save_pretrained(folder)
torch.manual_seed(0)
model = BertForSequenceClassification(
    BertConfig(
        vocab_size=len(pieces), hidden_size=32, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=64, max_position_embeddings=128, num_labels=1,
    )
)
for weights in model.parameters():
    weights.data *= 4  # so that texts have scores that differ
model.save_pretrained(folder)
"""


def main() -> None:
    folder = Path(sys.argv[1]).resolve()
    binaries = folder / "venv" / ("Scripts" if os.name == "nt" else "bin")
    venv.create(folder / "venv", with_pip=True)
    pip = [str(binaries / "pip"), "install", "--quiet"]
    subprocess.run([*pip, TORCH], check=True)
    subprocess.run([*pip, *PACKAGES], check=True)
    subprocess.run([str(binaries / "python"), "-c", MODEL, str(folder / "model")], check=True)
    print(f"export RERANK_TEST_INFINITY={binaries / 'infinity_emb'}")
    print(f"export RERANK_TEST_INFINITY_MODEL={folder / 'model'}")


if __name__ == "__main__":
    main()
