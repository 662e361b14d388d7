"""What services charge: which prices are known, what they come to, and where they are shown."""

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rerank_cli.costs import Price
from rerank_cli.errors import ConfigError
from rerank_cli.providers import RemoteOptions, client
from rerank_cli.providers.catalogue import find_provider, provider_names, provider_tables
from rerank_cli.providers.schema import Tariff
from rerank_cli.ranking.powers import PricedScorer
from rerank_cli.ranking.reranker import rank
from rerank_cli.scorers import open_scorer
from rerank_cli.types import Pair
from tests.conftest import Run
from tests.support.batches import record, write
from tests.support.loopback import Fault, Status, every, first, serve

SEARCHES = Tariff(
    amount=2.0, currency="USD", per="thousand searches", documents=100, chunk=500, source="x, 2026"
)
TOKENS = Tariff(amount=0.05, currency="USD", per="million tokens", source="x, 2026")
REQUESTS = Tariff(amount=2.0, currency="USD", per="thousand searches", source="x, 2026")
OWN = """[mine]
like = "openai-like"
[mine.price]
amount = 2.0
currency = "USD"
per = "thousand searches"
documents = 100
chunk = 500
source = "the contract, 2026"
"""


@pytest.fixture(autouse=True)
def shorten_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "_FIRST_WAIT_SECONDS", 0.001)


@pytest.fixture
def own_provider(home: Path) -> None:
    (home / "providers.toml").write_text(OWN)


def shipped_prices() -> Iterator[tuple[str, str, Tariff]]:
    for name in provider_names():
        for rule in provider_tables()[name].get("models", ()):
            for model in rule["names"] if "price" in rule else ():
                tariff = find_provider(name, model).price
                assert tariff is not None
                yield name, model, tariff


def lines(count: int) -> bytes:
    return "".join(f"line {number}\n" for number in range(count)).encode()


def test_each_price_that_ships_has_a_source_with_its_date() -> None:
    prices = list(shipped_prices())
    assert len(prices) > 20
    for name, model, tariff in prices:
        assert re.search(r", 20\d\d(-\d\d)?$", tariff.source), (name, model)
        assert re.fullmatch("[A-Z]{3}", tariff.currency), (name, model)
        assert tariff.amount > 0
        assert not find_provider(name).keyless, "a server of one's own has no price"


@pytest.mark.parametrize(
    ("tariff", "query", "documents", "amount"),
    [
        (SEARCHES, 5, [20] * 250, 0.006),  # three searches
        (SEARCHES, 5, [20] * 100, 0.002),
        (SEARCHES, 5, [20] * 101, 0.004),
        (SEARCHES, 20, [480] * 100, 0.002),  # 500 with the query: whole
        (SEARCHES, 20, [481] * 100, 0.004),  # two pieces each
        (SEARCHES, 20, [10_000], 0.002),  # 21 pieces
        (SEARCHES, 20, [0, 0], 0.002),
        (SEARCHES, 900, [500] * 51, 0.004),  # of a piece the query has half: two pieces each
        (TOKENS, 10, [100, 200], 320 * 0.05 / 1e6),
        (TOKENS, 8, [500] * 1000, 0.0254),
        (TOKENS.model_copy(update={"query_once": True}), 10, [100, 200], 310 * 0.05 / 1e6),
        (REQUESTS, 10, [5000] * 100, 0.002),
        (REQUESTS, 10, [1], 0.002),
    ],
)
def test_the_arithmetic_is_that_of_the_services(
    tariff: Tariff, query: int, documents: Sequence[int], amount: float
) -> None:
    assert tariff.price_of(query, documents).amount == pytest.approx(amount)


@pytest.mark.parametrize(
    ("amount", "words"),
    [
        (0.0, "about 0.00 USD"),
        (2.0, "about 2.00 USD"),
        (12_345.678, "about 12,345.68 USD"),
        (0.1 + 0.2, "about 0.3 USD"),
        (0.006, "about 0.006 USD"),
        (0.0000446, "about 0.0000446 USD"),
        (1.23456e-9, "about 0.00000000123 USD"),
        (0.99999, "about 1 USD"),
    ],
)
def test_amounts_are_told_in_plain_digits(amount: float, words: str) -> None:
    assert str(Price(amount, "USD", "")) == words


def test_a_cost_without_a_currency_says_so() -> None:
    assert str(Price(0.015, "unknown", "", estimated=False)) == "0.015 of unknown currency"


def test_a_sum_has_no_float_noise() -> None:
    assert TOKENS.price_of(1, [2]).amount == 1.5e-7
    tenths = [Price(amount, "USD", "x") for amount in (0.1, 0.2)]
    assert Price.total(tenths) == Price(0.3, "USD", "x")


def test_what_is_stated_and_what_is_estimated_make_an_estimate() -> None:
    price = Price(0.1, "USD", "as x says", estimated=False)
    assert Price.total([price, Price(0.2, "USD", "y")]) == Price(
        0.3, "USD", "as x says and y", estimated=True
    )
    assert Price.total([price, price]) == Price(0.2, "USD", "as x says", estimated=False)
    assert str(price) == "0.1 USD"
    assert Price.total([]) is Price.total([price, Price(1, "EUR", "y")]) is None


texts = st.text("ab c", min_size=1, max_size=2000)
documents = st.lists(texts, min_size=1)
records = st.lists(st.tuples(st.text("qr", min_size=1), documents), min_size=1, max_size=5)


@pytest.mark.slow
@settings(max_examples=20)
@given(records, st.sampled_from(["cohere/rerank-v3.5", "voyage/rerank-2.5"]))
def test_a_job_costs_what_its_requests_cost_however_they_are_grouped(
    records: list[tuple[str, list[str]]], model: str
) -> None:
    scorer = open_scorer(model, remote=RemoteOptions(headers={"Authorization": "Bearer key"}))
    assert isinstance(scorer, PricedScorer)
    unique = dict(records)  # of one query, what is scored in one go may share requests
    batches = [
        [Pair.from_texts(query, text) for text in documents] for query, documents in unique.items()
    ]
    requests, price = scorer.estimate(batches)
    assert price is not None
    each = [scorer.estimate([batch]) for batch in batches]
    assert requests == sum(count for count, _ in each)
    amounts = [own.amount for _, own in each if own is not None]
    assert price.amount == pytest.approx(sum(amounts))
    assert all(amount > 0 for amount in amounts)
    assert price.amount >= 0
    pairs = [pair for batch in batches for pair in batch]
    assert scorer.estimate([pairs]) == (requests, price)
    assert scorer.estimate([pairs[::-1]])[1] == price


def test_a_dry_run_of_the_example_in_the_readme_has_a_price(rerank: Run) -> None:
    arguments = ("-m", "cohere/rerank-v3.5", "how do I get a refund", "examples/faq.txt")
    assert "about 0.002 USD (" in rerank(*arguments, "-n", "3", "--dry-run").out


def test_many_documents_in_one_request_are_several_searches(rerank: Run) -> None:
    arguments = ("-m", "cohere/rerank-v3.5", "q", "--dry-run")
    outcome = rerank(*arguments, stdin=lines(250))
    assert re.search(
        r"^1 request to .*\n.*\nabout 0\.006 USD \(.*, 2026-11; prices change\)\n", outcome.out
    )
    plan = json.loads(rerank(*arguments, "--json", stdin=lines(250)).out)
    assert (plan["requests"], plan["price"]["amount"]) == (1, 0.006)
    assert plan["price"]["currency"] == "USD"


@pytest.mark.usefixtures("own_provider")
def test_an_error_is_not_charged_and_halves_are() -> None:
    def refuse_many(request: object, _number: int) -> Fault | None:
        refusal = Status(413, {"error": "batch size is larger than the maximum allowed"})
        return refusal if len(request.json["documents"]) > 130 else None  # type: ignore[attr-defined]

    documents = [f"line {number}" for number in range(250)]
    for faults, searches in ((None, 3), (first(1, Status(503)), 3), (refuse_many, 4)):
        with serve("openai-like", faults=faults) as server:
            scorer = open_scorer("mine/m", remote=RemoteOptions(base_url=server.url, retries=2))
            ranking = rank("q", documents, scorer)
        assert isinstance(scorer, PricedScorer)
        assert ranking.cost == Price(searches * 0.002, "USD", "the contract, 2026")
        assert scorer.cost_of(scorer.requests) == ranking.cost


def test_what_a_service_has_counted_comes_before_the_estimate(home: Path) -> None:
    (home / "providers.toml").write_text(OWN.replace("openai-like", "azure"))
    with serve("cohere-v2") as server:  # which says that each request is one search
        options = RemoteOptions(base_url=server.url, headers={"Authorization": "Bearer key"})
        scorer = open_scorer("mine/m", remote=options)
        ranking = rank("q", [f"line {number}" for number in range(250)], scorer)
    assert ranking.cost == Price(0.002, "USD", "the contract, 2026")


@pytest.mark.usefixtures("own_provider")
def test_a_cost_that_a_service_states_is_no_estimate(rerank: Run) -> None:
    answer = {
        "results": [{"index": 0, "relevance_score": 0.5}],
        "inference_status": {"cost": 0.25},
    }
    with serve("openai-like", faults=every(1, Status(200, answer))) as server:
        outcome = rerank("-m", "mine/m", "q", "-d", "a", "--json", "-v", "--base-url", server.url)
    cost = {"amount": 0.25, "currency": "USD", "source": "as mine says", "estimated": False}
    assert json.loads(outcome.out)["cost"] == cost
    assert "0.25 USD, as mine says" in outcome.err


@pytest.mark.parametrize(
    "entry",
    [
        '[mine]\nlike = "cohere"\nurl = "https://other.example"\nkeyless = true\n',
        '[cohere]\nurl = "https://other.example"\n',
    ],
)
def test_another_host_does_not_charge_what_the_service_does(
    entry: str, rerank: Run, home: Path
) -> None:
    name = entry[1:].partition("]")[0]
    dry = ("q", "-d", "a", "--dry-run")
    assert "USD" in rerank("-m", "cohere/rerank-v3.5", *dry).out
    assert (
        "USD"
        not in rerank("-m", "cohere/rerank-v3.5", "--base-url", "http://localhost:1", *dry).out
    )
    (home / "providers.toml").write_text(entry)
    outcome = rerank("-m", f"{name}/rerank-v3.5", *dry)
    assert (outcome.code, "USD" in outcome.out) == (0, False)


@pytest.mark.parametrize("url", ["https://API.cohere.com", "https://api.cohere.com:443/v2"])
def test_the_same_host_written_otherwise_has_its_price(url: str) -> None:
    provider = find_provider("cohere", "rerank-v3.5")
    assert provider.price_at(url) == provider.price is not None
    assert provider.price_at(url.replace("https", "http")) is None


@pytest.mark.parametrize("entry", ["[cohere]\n", '[mine]\nlike = "cohere"\n'])
def test_a_price_of_ones_own_comes_before_the_one_that_ships(
    entry: str, rerank: Run, home: Path
) -> None:
    name = entry[1:].partition("]")[0]
    price = '{ amount = 70, currency = "EUR", per = "thousand searches", source = "ours" }'
    (home / "providers.toml").write_text(f"{entry}price = {price}\n")
    outcome = rerank("-m", f"{name}/rerank-v3.5", "q", "--dry-run", stdin=lines(250))
    assert "about 0.07 EUR (ours; prices change)" in outcome.out
    assert (
        "70 EUR for a thousand searches (ours)"
        in rerank("providers", "show", f"{name}/rerank-v3.5").out
    )


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ('per = "million tokens"\ndocuments = 5', "per thousand searches"),
        ('per = "thousand searches"\nquery_once = true', "per million tokens"),
        ('per = "thousand searches"\nchunk = 500', "chunk needs documents"),
        ('per = "million tokens"\namount = 1e300', "less than or equal"),
    ],
)
def test_a_price_that_means_nothing_is_refused(keys: str, message: str, home: Path) -> None:
    amount = "" if "amount" in keys else "amount = 1\n"
    text = f'[mine.price]\ncurrency = "USD"\nsource = "x"\n{amount}{keys}\n'
    (home / "providers.toml").write_text(text)
    with pytest.raises(ConfigError, match=message):
        find_provider("mine")


def test_a_model_is_shown_with_its_price(rerank: Run) -> None:
    words = "2 USD for a thousand searches; a search has 100 documents of 500 tokens with the query"
    for name in ("cohere/rerank-v3.5", "cohere"):
        description = rerank("providers", "show", name).out
        assert re.search(rf"price +{re.escape(words)} \(.*2026-11\)\n", description)
    assert "0.02 USD for a million tokens" in description  # of other models
    assert "price" not in rerank("providers", "show", "tei/m").out


@pytest.mark.usefixtures("own_provider")
def test_a_batch_tells_its_price_before_while_and_after(rerank: Run, tmp_path: Path) -> None:
    source = write(tmp_path / "in.jsonl", [record(number, documents=150) for number in range(4)])
    output, report = tmp_path / "out.jsonl", tmp_path / "report.json"
    with serve("openai-like") as server:
        command = ("batch", "-m", "mine/m", "--base-url", server.url, str(source))
        assert (
            "cost      about 0.016 USD (the contract, 2026; prices change)"
            in rerank(*command, "--plan").out
        )
        assert not server.count
        outcome = rerank(*command, "-o", str(output), "--report", str(report), "-v")
        assert "4 requests to mine; about 0.016 USD" in outcome.err
        assert json.loads(report.read_text())["cost"]["amount"] == 0.016


@pytest.mark.usefixtures("own_provider")
def test_the_cost_of_a_job_is_that_of_all_its_runs(rerank: Run, tmp_path: Path) -> None:
    source = write(tmp_path / "in.jsonl", [record(number) for number in range(6)])
    output, report = tmp_path / "out.jsonl", tmp_path / "report.json"
    command = ["batch", "-m", "mine/m", str(source), "-o", str(output), "--concurrency", "1"]
    command += ["--report", str(report), "--resume", "--base-url"]
    costs = []
    # The key is wrong when all others are answered; then it is right.
    with serve("openai-like", faults=lambda _, n: Status(401) if n == 5 else None) as server:
        for _ in range(2):
            rerank(*command, server.url)
            costs.append(json.loads(report.read_text())["cost"]["amount"])
    assert costs == [0.01, 0.012]


@pytest.mark.usefixtures("own_provider")
def test_an_evaluation_says_what_each_service_has_cost(rerank: Run, home: Path) -> None:
    pytest.importorskip("ir_measures")
    other = OWN.replace("[mine", "[other").replace("2.0", "0.5")
    (home / "providers.toml").write_text(OWN + other)
    path = home / "set.jsonl"
    write(path, [{"query": "a refund", "documents": ["a parcel", "a refund"], "relevant": [1]}])
    with serve("openai-like") as server:
        models = ("-m", "mine/m", "-m", "other/m", "-m", "bm25")
        outcome = rerank("eval", str(path), *models, "--base-url", server.url, "--json")
    requests = json.loads(outcome.out)["requests"]
    costs = {name: sums["cost"]["amount"] for name, sums in requests.items()}
    assert costs == {"mine/m": 0.002, "other/m": 0.0005}
    assert "other/m: 1 request to other; about 0.0005 USD" in outcome.err


def test_a_check_is_told_in_words(rerank: Run) -> None:
    with serve("cohere-v2") as server:
        header = ("--header", "Authorization: Bearer key")
        outcome = rerank("providers", "check", "cohere", "--base-url", server.url, *header)
    assert re.search(r"^scores +0\.\d+, 0\.\d+$", outcome.out, re.MULTILINE)
    assert re.search(r"^billed +search_units 1$", outcome.out, re.MULTILINE)
