"""Every dialect that the server speaks, by name."""

from tests.support.loopback.dialect import Dialect
from tests.support.loopback.dialects.clouds import CLOUDS
from tests.support.loopback.dialects.engines import ENGINES
from tests.support.loopback.dialects.own import OWN
from tests.support.loopback.dialects.proxies import PROXIES
from tests.support.loopback.dialects.seeds import SEEDS
from tests.support.loopback.dialects.tei import TEI
from tests.support.loopback.dialects.vendors import VENDORS

DIALECTS: dict[str, Dialect] = {
    dialect.name: dialect for dialect in [*SEEDS, *VENDORS, *OWN, *CLOUDS, TEI, *ENGINES, *PROXIES]
}
