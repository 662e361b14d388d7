"""Make `mini` from the weights of all-MiniLM-L6-v2 and the training sets.

    pip install -r scripts/train/requirements.txt
    python scripts/train/make.py ../shared/data/train ../shared/data/eval WORK models/mini

Runs on CPU cores, or on a GPU where there is one. What is done is kept in WORK: a run that ended,
by --minutes or otherwise, goes on where it was. The evaluation sets are read for one thing only: to
leave their text out of training.
"""

import argparse
import hashlib
import json
import os
import sys
import time
from pathlib import Path

import held
import overlap
import torch
from ease import UNUSUAL, eased
from encoder import END, START, Tower, folder
from export import quantise, tokens_of_pairs, write
from learn import Learner
from mine import by_model, neighbours
from network import Reader
from pools import Pool, Source
from teachers import open_minilm
from texts import SETS, read
from weights import weights_of

SEED = 0
READER = "reader.pt"  # the weights that were chosen, calibrated
STEPS = 5000
ROUNDS = 2  # before each but the first, passages are mined by the model of the one before
QUESTIONS = 500  # of each set, for which passages are mined
# What the bi-encoder's cosine weighs more than was learned: the training sets are mostly questions
# on articles, and it knows more kinds of text than they have.
TRUSTED = 1.4
EASING = 200  # every so many passages, to see which channels are large
# The allocator gives large tensors back to the system at once, and takes as long to get them again:
# without that a step takes 0.6 of the time.
ALLOCATOR = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": "100000000000"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("train", type=Path)
    parser.add_argument("avoid", type=Path, help="evaluation sets, whose text is left out")
    parser.add_argument("work", type=Path, help="where what is done is kept")
    parser.add_argument("out", type=Path, help="where the model's files go")
    parser.add_argument("--minutes", type=float, default=10_000, help="end after so many, to go on")
    parser.add_argument("--fp32", type=Path, help="keep the unquantised model in this folder too")
    arguments = parser.parse_args()
    until = time.monotonic() + arguments.minutes * 60
    arguments.work.mkdir(parents=True, exist_ok=True)

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    tower, encoder = Tower(device), open_minilm(device)
    corpora = [read(arguments.train, name) for name in SETS]
    overlap.bar(corpora, arguments.avoid)
    sources = {
        corpus.name: Source(corpus, *neighbours(corpus, encoder, arguments.work))
        for corpus in corpora
    }
    learner = Learner(tower, weights_of(tower, corpora), sources, SEED)
    learn(learner, sources, arguments.work, until)
    reader, lists = calibrated(learner, sources)
    for row in held.reliability(lists):
        say("scores {:.1f} to {:.1f}: {:6} pairs, {:.2f} relevant, {:.2f} in lists".format(*row))

    arguments.out.mkdir(parents=True, exist_ok=True)
    plain = arguments.work / "mini.onnx"
    tower = Tower(torch.device("cpu"))
    torch.set_num_threads(1)  # sums in one order: which channels are eased is the same each time
    texts = [one.text for corpus in corpora for one in corpus.passages[::EASING]]
    channels = eased(tower, tower.ids([*texts, *UNUSUAL], 254))
    reader = reader.cpu()
    torch.save(reader.state_dict(), arguments.work / READER)
    write(tower.encoder.float(), reader, [START, END], channels, plain)
    for place in filter(None, [arguments.out, arguments.fp32]):
        place.mkdir(parents=True, exist_ok=True)
        write_texts(place)
    if arguments.fp32:
        (arguments.fp32 / "model.onnx").write_bytes(plain.read_bytes())
    quantise(plain, arguments.out / "model.onnx")
    write_checksums(arguments.out)


def learn(learner: Learner, sources: dict[str, Source], work: Path, until: float) -> None:
    """Train in rounds; ends the program where the time is over."""
    path = work / "learner.pt"
    if path.exists():
        learner.load(path)
    for ended in range(1, ROUNDS + 1):
        if ended > 1:
            mine(learner, sources, work / f"mined-{ended}.json")
        learner.run(STEPS * ended // ROUNDS, STEPS, path, until, say)
        if learner.step < STEPS * ended // ROUNDS:
            raise SystemExit(f"step {learner.step} of {STEPS}: run it again to go on")


def mine(learner: Learner, sources: dict[str, Source], path: Path) -> None:
    if not path.exists():
        reader = learner.averaged()
        found = {
            name: by_model(source, lambda pool: learner.logits(pool, reader), QUESTIONS, SEED)
            for name, source in sources.items()
        }
        making = path.with_suffix(".making")
        making.write_text(json.dumps(found))
        making.rename(path)
    for name, mined in json.loads(path.read_text()).items():
        sources[name].mined = {int(place): passages for place, passages in mined.items()}
    say(f"passages of {path.name} are used")


def calibrated(learner: Learner, sources: dict[str, Source]) -> tuple[Reader, list[held.Judged]]:
    """The reader whose scores mean something, by half of the held-out questions; and the others."""
    reader = learner.averaged()
    with torch.no_grad():
        reader.linear[0] += TRUSTED

    def score(pool: Pool) -> torch.Tensor:
        return learner.logits(pool, reader)

    pools = held.pools_of(list(sources.values()), SEED)
    lists = held.judged(pools, score)
    say(f"held out: {len(lists)} questions, nDCG@10 {held.ndcg(lists):.4f}")
    factor, bias = held.fit(lists[::2])
    say(f"calibrated by the factor {factor:.4f} and the bias {bias:.4f}")
    held.fold(reader, factor, bias)
    rest = [held.Judged(one.logits * factor + bias, one.relevant) for one in lists[1::2]]
    return reader, rest


def write_texts(place: Path) -> None:
    """Write the tokenizer, which makes two texts of a pair, and what transformers wants to know."""
    source = folder()
    tokenizer = json.loads((source / "tokenizer.json").read_text(encoding="utf-8"))
    compact = json.dumps(tokens_of_pairs(tokenizer), ensure_ascii=False, separators=(",", ":"))
    (place / "tokenizer.json").write_text(compact, encoding="utf-8")
    config = json.loads((source / "config.json").read_text(encoding="utf-8"))
    kept = ("hidden_size", "max_position_embeddings", "model_type", "pad_token_id", "vocab_size")
    some = {"architectures": ["RerankerOfTwoTowers"], **{name: config[name] for name in kept}}
    some |= {"id2label": {"0": "LABEL_0"}, "label2id": {"LABEL_0": 0}}
    (place / "config.json").write_text(json.dumps(some, indent=2) + "\n", encoding="utf-8")


def write_checksums(place: Path) -> None:
    """Write SHA256SUMS over what a scorer reads, in the form that `sha256sum -c` checks."""
    names = ["config.json", "model.onnx", "tokenizer.json"]
    sums = [f"{hashlib.sha256((place / one).read_bytes()).hexdigest()}  {one}\n" for one in names]
    (place / "SHA256SUMS").write_text("".join(sums), encoding="utf-8")


def say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    if sys.platform == "linux" and not ALLOCATOR.keys() <= os.environ.keys():
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **ALLOCATOR})
    main()
