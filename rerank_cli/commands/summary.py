"""What a ranking came to, in two lines for a person: what was read, and what it took.

Says nothing that needs doing something about: such things are warnings, asked for or not.
"""

from rerank_cli.terminal import counted
from rerank_cli.types import Ranking


def summary(ranking: Ranking, seconds: float) -> str:
    """The lines of --verbose."""
    read = [
        counted(ranking.documents, "document"),
        f"{ranking.empty:,} empty",
        counted(ranking.duplicates, "duplicate"),
        f"{ranking.cut:,} cut",
    ]
    tokens = counted(ranking.tokens, "token")
    took = [
        counted(ranking.chunks, "chunk"),
        f"about {tokens}" if ranking.info.estimated else tokens,
    ]
    return f"{', '.join(read)}\n{', '.join(took)} in {seconds:.2f} s by {ranking.info.model}"
