"""What `rollout build loadtests/twins` packs: the demo's small network under two names, for a trial of equals.

Both versions have the same weights. A trial between them costs what trials cost, and nothing that comes from one
model being cheaper than the other.
"""

from __future__ import annotations

import msgspec

from models.digits.recipe import RECIPE as DEMO

SMALL = DEMO.versions["v2"]

RECIPE = msgspec.structs.replace(DEMO, versions={"v1": SMALL, "v2": SMALL})
