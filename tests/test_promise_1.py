"""A score belongs to the pair: the shipped model gives a pair one score, whoever its neighbours.

Each scoring is a process of its own, so that nothing is remembered from one to the next.
"""

import json
import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.conftest import ROOT, process

GARDEN = " ".join((ROOT / "examples" / "garden.md").read_text(encoding="utf-8").split())
TEXTS = [
    *(ROOT / "examples" / "faq.txt").read_text(encoding="utf-8").splitlines(),
    "refund",
    "Naïve café, 42 €: 日本 🥕.",
    GARDEN[:300],
    GARDEN[300:900],
    GARDEN,
]
places = st.integers(0, len(TEXTS) - 1)


def scored(query: str, texts: list[str], threads: int) -> list[float]:
    """Score texts in a new process; raw scores in the order of the texts."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "texts.jsonl"
        path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
        ran = process("-q", query, "--json", "--threads", str(threads), str(path))
    assert ran.returncode == 0, ran.stderr.decode()
    results = json.loads(ran.stdout)["results"]
    by_index = {result["index"]: result["raw_score"] for result in results}
    return [by_index[place] for place in range(len(texts))]


@settings(max_examples=6, derandomize=True)
@given(
    query=st.sampled_from(["how do I get a refund", "slugs", "when to water, and how much?"]),
    chosen=st.lists(places, min_size=2, max_size=8, unique=True),
    others=st.lists(places, max_size=8),
    data=st.data(),
)
def test_a_pair_scores_the_same_in_any_company(
    query: str, chosen: list[int], others: list[int], data: st.DataObject
) -> None:
    alone = scored(query, [TEXTS[chosen[0]]], threads=1)[0]
    together = dict(zip(chosen, scored(query, [TEXTS[p] for p in chosen], 1), strict=True))
    assert abs(together[chosen[0]] - alone) <= 1e-6

    crowd = data.draw(st.permutations([*chosen, *others]))
    for threads in (1, 2):
        for place, score in zip(
            crowd, scored(query, [TEXTS[p] for p in crowd], threads), strict=True
        ):
            if place in together:
                assert abs(score - together[place]) <= 1e-6
