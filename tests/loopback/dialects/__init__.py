"""Every dialect that the server speaks, by name."""

from tests.loopback.dialect import Dialect
from tests.loopback.dialects.clouds import CLOUDS
from tests.loopback.dialects.engines import ENGINES
from tests.loopback.dialects.own import OWN
from tests.loopback.dialects.proxies import PROXIES
from tests.loopback.dialects.seeds import SEEDS
from tests.loopback.dialects.tei import TEI
from tests.loopback.dialects.vendors import VENDORS

DIALECTS: dict[str, Dialect] = {
    dialect.name: dialect for dialect in [*SEEDS, *VENDORS, *OWN, *CLOUDS, TEI, *ENGINES, *PROXIES]
}
