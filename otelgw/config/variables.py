"""Variables called ``OTELGW_…`` that nothing reads: a slip in such a name would else pass unnoticed."""

from __future__ import annotations

import re
from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any

from otelgw.config.env import VARIABLES
from otelgw.config.findings import Findings
from otelgw.config.flags import FLAGS
from otelgw.config.references import named
from otelgw_exporters import catalog

__all__ = ["KNOWN", "report_unknown"]

_BEGINNING = "OTELGW_"
KNOWN = frozenset(
    {flag.variable for flag in FLAGS}
    | VARIABLES.keys()
    | {name for row in catalog.ROWS for names in row.env.values() for name in names}
)
"""All variables that this package or a destination reads, of any beginning."""

# Read by this project's tests and tools, in whose environment gateways are started.
_OF_TOOLS = frozenset({"OTELGW_CACHE", "OTELGW_KILLS", "OTELGW_KILLS_SEED", "OTELGW_REQUIRE", "OTELGW_UPDATE_GOLDENS"})
# What Kubernetes sets in every pod for each Service whose name begins with otelgw, in the form of Docker's links.
_OF_SERVICES = re.compile(
    r"OTELGW_(\w+_)?(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)"
)


def report_unknown(environment: Mapping[str, str], data: Any, findings: Findings) -> None:
    """Warn of each ``OTELGW_…`` variable that is set and that neither a table nor the config (``data``) names.

    It is no error, not even a strict one: a callback may have variables of its own.
    """
    own = {name for name in KNOWN if name.startswith(_BEGINNING)}
    rests = {name.removeprefix(_BEGINNING): name for name in own}
    read = own | _OF_TOOLS | set(named(data))
    for name in sorted(name for name in environment if name.startswith(_BEGINNING) and name not in read):
        value = environment[name].strip()
        if not value or _OF_SERVICES.fullmatch(name) or (name.endswith("_PORT") and "://" in value):
            continue
        near = get_close_matches(name.removeprefix(_BEGINNING), sorted(rests), n=1, cutoff=0.7)
        hint = f"; did you mean {rests[near[0]]}?" if near else ""
        findings.environment_warning(name, f"nothing reads this variable{hint}", strict=False)
