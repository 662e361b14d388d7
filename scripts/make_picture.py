"""Draw README's picture of the table: `examples/table.svg`, from a run of the model that ships.

    python scripts/make_picture.py

The picture names no font that would have to be fetched.
"""

import io
import re
from pathlib import Path

from rich.console import Console

from rerank_cli import Document, open_scorer, rank
from rerank_cli.render import Format, Style
from rerank_cli.render.table import draw_table

ROOT = Path(__file__).parent.parent
PICTURE = ROOT / "examples" / "table.svg"
SOURCE = "examples/faq.txt"
QUERY = "can I return something I bought"
RESULTS = 4
WIDTH = 92

_FONTS = "ui-monospace, SFMono-Regular, Menlo, Consolas, DejaVu Sans Mono, monospace"


def main() -> None:
    """Write the picture."""
    lines = (ROOT / SOURCE).read_text(encoding="utf-8").splitlines()
    documents = [Document(line, source=SOURCE, line=n) for n, line in enumerate(lines, 1)]
    ranking = rank(QUERY, documents, open_scorer(), n=RESULTS)
    console = Console(
        record=True,
        width=WIDTH,
        file=io.StringIO(),
        force_terminal=True,
        color_system="standard",
        legacy_windows=False,
    )
    draw_table(ranking, console, Style(Format.TABLE))
    title = f'rerank "{QUERY}" {SOURCE} -n {RESULTS}'
    picture = console.export_svg(title=title, unique_id="table")
    PICTURE.write_text(_without_fonts(picture), encoding="utf-8", newline="\n")


def _without_fonts(picture: str) -> str:
    """A picture without the fonts that it links to."""
    bare_picture = re.sub(r"@font-face \{.*?\}\s*", "", picture, flags=re.DOTALL)
    return bare_picture.replace("Fira Code, monospace", _FONTS).replace("arial", _FONTS)


if __name__ == "__main__":
    main()
