"""Every dialect that the server speaks, by name."""

from tests.loopback.dialect import Dialect
from tests.loopback.dialects.seeds import SEEDS
from tests.loopback.dialects.tei import TEI

DIALECTS: dict[str, Dialect] = {dialect.name: dialect for dialect in [*SEEDS, TEI]}
