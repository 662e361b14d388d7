"""Make a model from a bi-encoder's weights, the training sets and what collect.py wrote.

    pip install -r scripts/train/requirements.txt -e .
    python scripts/train/make.py mini ../shared/data/train ../shared/data/eval \\
        ../shared/models/e5-small WORK models/mini

Runs on CPU cores, or on a GPU if there is one. Finished work is kept in WORK: a run that ended, by
--minutes or otherwise, can be resumed. The evaluation sets are read for one purpose only: to leave
their text out of training.
"""

import argparse
import copy
import hashlib
import json
import os
import sys
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import overlap
import static
import torch
import validation
from collect import collect, packages_of
from encoder import FrozenTower, Int8Tower, TorchTower, Tower, channels, e5, minilm
from export import quantise, write_encoder, write_reader
from late import LateInteraction, Network
from learn import Learner, logits_of
from mine import neighbours
from network import Reader
from pools import Pool, Source
from teachers import InitialNetwork, embed
from texts import SETS, TRANSLATED_SETS, Corpus, read, read_collected_pairs
from vocabulary import write_pruned
from weights import states_of, weights_of

SEED = 0
READER = "reader.pt"  # the weights that were chosen, calibrated
# The share of the change by training that is kept: the weights are between those before and after
# training (Wortsman et al. 2022, WiSE-FT), because training on these texts costs quality on others.
TRAINED_SHARE = 0.5
DOCS = "docs"  # the pairs in other languages than English
EASING_STEP_PASSAGES = 400  # between two passages that show which channels are large
PROJECTION_STEP_PASSAGES = 60  # between two passages whose states give the first projection
# By default the allocator gives large tensors back to the system at once, and takes as long to get
# them again. With these settings a step takes 0.6 of the time.
ALLOCATOR = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": "100000000000"}


@dataclass(frozen=True)
class Recipe:
    """The data and the numbers from which a model is made.

    sets                the sets whose questions calibrate its scores
    held_out_questions  the number of these questions of each set
    steps               of training; 0 for a model that is not trained
    shares              how often a pool comes from each corpus; the corpora in other languages than
                        English have equal parts of the share `docs`
    pairs               the most pairs of a corpus of collect.py that are embedded: more than
                        training sees would cost time for nothing
    translated_pairs    the same, for a corpus in another language than English
    """

    sets: Sequence[str]
    held_out_questions: int
    steps: int = 0
    shares: Mapping[str, float] = field(default_factory=dict)
    pairs: int = 0
    translated_pairs: int = 0


RECIPES = {
    "mini": Recipe(sets=SETS, held_out_questions=150),
    "multi": Recipe(
        sets=(*SETS, *TRANSLATED_SETS),
        held_out_questions=60,
        steps=400,
        shares={
            "squad": 14, "nq": 14, "bioasq": 8, "qamr": 3,
            "jaquad": 14, "drcd": 7, "cmrc2018": 7, "arcd": 3, DOCS: 20,
            "section": 4, "option": 1, "command": 2, "listing": 2, "definition": 1, "function": 2,
        },
        pairs=2_000,
        translated_pairs=600,
    ),
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", choices=RECIPES)
    parser.add_argument("train", type=Path)
    parser.add_argument("avoid", type=Path, help="evaluation sets, whose text is left out")
    parser.add_argument("e5", type=Path, help="folder of multilingual-e5-small")
    parser.add_argument("work", type=Path, help="where what is done is kept")
    parser.add_argument("out", type=Path, help="where the model's files go")
    parser.add_argument("--minutes", type=float, default=10_000, help="end after so many, to go on")
    parser.add_argument("--fp32", type=Path, help="keep the unquantised model in this folder too")
    arguments = parser.parse_args()
    until = time.monotonic() + arguments.minutes * 60
    work = arguments.work / arguments.model
    work.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(SEED)

    recipe = RECIPES[arguments.model]
    corpora = read_corpora(recipe, arguments.train, arguments.avoid, arguments.work)
    tower = open_tower(arguments.model, corpora, arguments.e5, work)
    frozen = freeze(tower, corpora, work / "tower.onnx")
    sources = {}
    for corpus in corpora:
        vectors = embed(corpus, frozen, work / f"{corpus.name}-vectors.npz")
        sources[corpus.name] = Source(corpus, *neighbours(corpus, vectors, work))
        counts = f"{len(corpus.passages):,} passages, {len(corpus.questions):,} questions"
        say(f"{corpus.name}: {counts}")
    reader = begin(arguments.model, frozen, corpora).to(frozen.device)
    if isinstance(reader, LateInteraction):
        reader = learn(reader, frozen, sources, recipe, work / "learner.pt", until)
    judged_sources = [sources[name] for name in recipe.sets]
    lists = calibrate(reader, frozen, judged_sources, recipe.held_out_questions)
    for row in validation.reliability(lists):
        say("scores {:.1f} to {:.1f}: {:6} pairs, {:.2f} relevant, {:.2f} in lists".format(*row))
    reader = reader.cpu()
    torch.save(reader.state_dict(), work / READER)
    for place in filter(None, [arguments.out, arguments.fp32]):
        place.mkdir(parents=True, exist_ok=True)
    if arguments.model == "mini":  # whose vectors the first stage compares
        table = [corpus for corpus in corpora if corpus.name in static.SETS]
        static.write_table(frozen, table, arguments.out)
    write_model(tower, reader, corpora, arguments.out, arguments.fp32)


def read_corpora(recipe: Recipe, train: Path, avoid: Path, work: Path) -> list[Corpus]:
    """All texts for training; texts that overlap with evaluation sets are barred."""
    corpora = [read(train, name) for name in recipe.sets]
    if recipe.shares:
        corpora += read_packages(recipe, work)
    overlap.bar(corpora, avoid)
    return corpora


def read_packages(recipe: Recipe, work: Path) -> list[Corpus]:
    """The corpora of packages, whose pairs are collected the first time."""
    pairs_path = work / "pairs.jsonl.gz"
    if not pairs_path.exists():
        collect(pairs_path, work / "packages")
    held_out_packages = {
        name for registry in ("debian", "pypi") for name in packages_of(registry, is_held_out=True)
    }
    return [
        corpus
        for corpus in read_collected_pairs(
            pairs_path, held_out_packages, recipe.pairs, recipe.translated_pairs
        )
        if (DOCS if is_translated(corpus.name) else corpus.name) in recipe.shares
    ]


def is_translated(name: str) -> bool:
    """Whether a corpus has pairs in another language than English."""
    return name.startswith(f"{DOCS}-")


def shares_of(recipe: Recipe, names: Collection[str]) -> dict[str, float]:
    translations = [name for name in names if is_translated(name)]
    shares = {name: share for name, share in recipe.shares.items() if name in names}
    return shares | {name: recipe.shares[DOCS] / len(translations) for name in translations}


def open_tower(model: str, corpora: Sequence[Corpus], folder: Path, work: Path) -> Tower:
    """The tower of a model. The pruned copy of e5 is made if it is missing."""
    if model == "mini":
        return minilm()
    pruned_folder = work / "e5-pruned"
    if not pruned_folder.exists():
        passages = [passage.text for corpus in corpora for passage in corpus.passages]
        write_pruned(e5(folder), passages, pruned_folder)
    return e5(pruned_folder)


def begin(model: str, tower: FrozenTower, corpora: Sequence[Corpus]) -> Network:
    """The network of a model before it is trained."""
    texts = [
        passage.text
        for corpus in corpora
        for passage in corpus.passages[::PROJECTION_STEP_PASSAGES]
    ]
    tokens, wholes = states_of(tower, texts)
    if model == "mini":
        reader = Reader(
            tower.hidden, len(tower.tower.levels), tower.tower.tokenizer.get_vocab_size()
        )
        reader.begin(tokens)
        return reader
    return LateInteraction(weights_of(tower.tower, corpora), tokens.mean(0), wholes.mean(0))


def freeze(tower: Tower, corpora: Sequence[Corpus], path: Path) -> FrozenTower:
    """Open a tower in int8 at `path`, or on a GPU if there is one."""
    if torch.cuda.is_available():
        return TorchTower(tower, torch.device("cuda"))
    return Int8Tower(tower, easing_texts(corpora), path)


def easing_texts(corpora: Sequence[Corpus]) -> list[str]:
    return [
        passage.text for corpus in corpora for passage in corpus.passages[::EASING_STEP_PASSAGES]
    ]


def learn(
    reader: LateInteraction,
    tower: FrozenTower,
    sources: Mapping[str, Source],
    recipe: Recipe,
    path: Path,
    until: float,
) -> LateInteraction:
    """Train a reader, or resume. Its weights end TRAINED_SHARE of the way to the trained ones.

    Ends the program if the time is over.
    """
    beginning = copy.deepcopy(reader).eval()
    teacher = InitialNetwork(tower, beginning.to(tower.device))
    learner = Learner(teacher, reader, sources, shares_of(recipe, sources), SEED)
    if path.exists():
        learner.load(path)
    learner.run(recipe.steps, path, until, say)
    if learner.step < recipe.steps:
        raise SystemExit(f"step {learner.step} of {recipe.steps}: run it again to go on")
    start, ends = beginning.state_dict(), learner.mean_reader().state_dict()
    reader.load_state_dict({name: start[name].lerp(ends[name], TRAINED_SHARE) for name in ends})
    reader.eval()
    return reader


def calibrate(
    reader: Network, tower: FrozenTower, sources: Sequence[Source], questions: int
) -> list[validation.JudgedList]:
    """Calibrate scores by half of the held-out questions; returns the other half."""

    def score(pool: Pool) -> torch.Tensor:
        return logits_of(pool, tower, reader)

    pools = validation.pools_of(sources, questions, SEED)
    lists = validation.judge_pools(pools, score)
    say(f"held out: {len(lists)} questions, nDCG@10 {validation.ndcg(lists):.4f}")
    factor, bias = validation.fit(lists[::2])
    say(f"calibrated by the factor {factor:.4f} and the bias {bias:.4f}")
    reader.fold(factor, bias)
    return [
        validation.JudgedList(each.logits * factor + bias, each.relevant) for each in lists[1::2]
    ]


def write_model(
    tower: Tower, reader: Network, corpora: Sequence[Corpus], out: Path, fp32: Path | None
) -> None:
    torch.set_num_threads(1)  # sums in one order, so that the divisors are the same each time
    weights = tower.weights()
    hidden = weights["embeddings.word_embeddings.weight"].shape[1]
    divisors = channels(tower, easing_texts(corpora))
    for part in ("encoder", "reader"):
        plain = out / f"{part}.fp32"
        if part == "encoder":
            write_encoder(weights, reader, tower.levels, divisors, plain)
        else:
            write_reader(reader, hidden, tower.specials, plain)
        quantise(plain, out / f"{part}.onnx")
        if fp32:
            (fp32 / f"{part}.onnx").write_bytes(plain.read_bytes())
        plain.unlink()
    for place in filter(None, [out, fp32]):
        write_texts(tower, place)
    write_checksums(out)


def write_texts(tower: Tower, place: Path) -> None:
    """Write the tokenizer, and the configuration for transformers."""
    tokenizer = json.loads((tower.folder / "tokenizer.json").read_text(encoding="utf-8"))
    tokenizer |= {"truncation": None, "padding": None}
    if tower.query_mark:
        tokenizer["post_processor"] = mark_template(tower, tokenizer["post_processor"])
    compact = json.dumps(tokenizer, ensure_ascii=False, separators=(",", ":"))
    (place / "tokenizer.json").write_text(compact, encoding="utf-8")
    config = json.loads((tower.folder / "config.json").read_text(encoding="utf-8"))
    names = ("hidden_size", "max_position_embeddings", "model_type", "pad_token_id", "vocab_size")
    settings = {"architectures": ["RerankerOfTwoTowers"], **{name: config[name] for name in names}}
    settings |= {"id2label": {"0": "LABEL_0"}, "label2id": {"LABEL_0": 0}}
    (place / "config.json").write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")


def mark_template(tower: Tower, processor: dict[str, Any]) -> dict[str, Any]:
    """A template that puts a tower's marks before texts; passages have token type 1."""
    special = dict(processor["special_tokens"])
    pair: list[dict[str, Any]] = []
    for kind, (sequence, mark) in enumerate((("A", tower.query_mark), ("B", tower.passage_mark))):
        encoding = tower.tokenizer.encode(mark.strip())
        *before, end = encoding.tokens
        for token, place in zip(encoding.tokens, encoding.ids, strict=True):
            special.setdefault(token, {"id": token, "ids": [place], "tokens": [token]})
        pair += [{"SpecialToken": {"id": token, "type_id": kind}} for token in before]
        pair.append({"Sequence": {"id": sequence, "type_id": kind}})
        pair.append({"SpecialToken": {"id": end, "type_id": kind}})
    return {**processor, "pair": pair, "special_tokens": special}


def write_checksums(place: Path) -> None:
    """Write SHA256SUMS over the files of the model, in the format of `sha256sum -c`."""
    names = [
        "config.json", "encoder.onnx", "model.toml", "reader.onnx", "static.npz", "tokenizer.json",
    ]  # fmt: skip
    sums = [
        f"{hashlib.sha256((place / name).read_bytes()).hexdigest()}  {name}\n"
        for name in names
        if (place / name).exists()
    ]
    (place / "SHA256SUMS").write_text("".join(sums), encoding="utf-8")


def say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    if sys.platform == "linux" and not ALLOCATOR.keys() <= os.environ.keys():
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **ALLOCATOR})
    main()
