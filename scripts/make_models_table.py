"""Write the table of local models in docs/models.md, from the catalogue.

python scripts/make_models_table.py
"""

from pathlib import Path

from rerank_cli.models import find
from rerank_cli.models.catalogue import Entry, entries
from rerank_cli.terminal import format_size

PAGE = Path(__file__).resolve().parent.parent / "docs" / "models.md"
BEGIN, END = "<!-- models -->\n", "<!-- /models -->\n"
HEADER = (
    "| `-m` | size | parameters | languages | BEIR | 17 of its sets | TREC DL 2019 | seconds "
    "| licence |\n|---|---|---|---|---|---|---|---|---|\n"
)
# One figure of each, of first stages that are alike: those that several models have.
COLUMNS = ("nDCG@10, BEIR", "nDCG@10, 17 sets of BEIR", "nDCG@10, TREC DL 2019")


def main() -> None:
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    after = rest.partition(END)[2]
    PAGE.write_text(f"{before}{BEGIN}{table()}{END}{after}", encoding="utf-8")


def table() -> str:
    """A row a model, those that ship first."""
    return HEADER + "".join(map(row, entries().values()))


def shipped_size(entry: Entry) -> str:
    """What the files of a model that ships take."""
    folder = find(entry.name)
    return format_size(folder.size())


def row(entry: Entry) -> str:
    quality = {figure.measure: f"{figure.value:g}" for figure in entry.quality}
    commercial = "" if entry.is_commercial else ", not for profit"
    cells = [
        f"`{entry.name}`",
        shipped_size(entry) if entry.folder else entry.estimated_size(),
        f"{entry.parameters} M",
        "many" if list(entry.languages) == ["mul"] else ", ".join(entry.languages),
        *(quality.get(column, "") for column in COLUMNS),
        f"{entry.seconds:g}",
        f"{entry.licence}{commercial}",
    ]
    return f"| {' | '.join(cells)} |\n"


if __name__ == "__main__":
    main()
