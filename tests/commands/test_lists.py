"""Lists of models and providers on a terminal: whole in any width, and with tabs in a pipe."""

import json
import re

import pytest

from tests.conftest import Run

COLUMNS = {
    "models": ("name", "state", "size", "parameters", "languages", "licence"),
    "providers": ("name", "key", "example", "title"),
}


@pytest.mark.parametrize("command", COLUMNS)
def test_a_list_is_whole_in_any_width(command: str, rerank: Run) -> None:
    table = json.loads(rerank(command, "--json").out)
    for width in (40, 80, 120):
        listing = rerank(command, terminal=width).out
        words = listing.replace("/", " ").split()
        for row in table:
            for field in COLUMNS[command]:
                for word in str(row[field]).replace("/", " ").split():
                    assert word in words
        # What is longer than a line is whole too: a terminal wraps it.
        longest = max(len(f"{row['name']}/{row.get('example', '')}") for row in table)
        assert max(map(len, listing.splitlines())) <= max(width, longest)
        if width >= 80:
            assert len(listing.splitlines()) <= 1.4 * len(table)


@pytest.mark.parametrize("command", COLUMNS)
def test_a_list_in_a_pipe_has_a_line_a_row_and_tabs_between_cells(
    command: str, rerank: Run
) -> None:
    table = json.loads(rerank(command, "--json").out)
    rows = [line.split("\t") for line in rerank(command).out.splitlines()]
    assert rows == [["" if cell is None else str(cell) for cell in row.values()] for row in table]
    assert rerank(command).err == ""


def test_a_size_is_there_before_a_model_is(rerank: Run) -> None:
    sizes = {row["name"]: row["size"] for row in json.loads(rerank("models", "--json").out)}
    assert sizes["bge-reranker-base"] == "~280 MB"
    assert sizes["mini@3"] == "29.9 MB"
    assert all(sizes.values())


def test_the_page_of_a_model_that_ships_can_be_opened_anywhere(rerank: Run) -> None:
    page = json.loads(rerank("models", "show", "mini", "--json").out)["page"]
    assert re.fullmatch(r"https://github\.com/.*/blob/v[\d.]+\w*/models/mini/README\.md", page)
