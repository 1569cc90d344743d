"""The appliance in the image punches: two booted x86-64 images behind two NATs.

make test ARGS="-m slow tests/images/test_punch.py"
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from appliance.lab import world

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

_LIMIT = 3300.0


def test_two_images_talk_over_a_punched_connection(x86_image: Path, tmp_path: Path) -> None:
    told: list[dict[str, Any]] = []
    order = {"image": str(x86_image), "disks": str(tmp_path), "direct": True}
    result = world.run("tests.images.two_images:perform", order, told.append, _LIMIT)
    home_a, home_b = (result["homes"][name] for name in ("home-a", "home-b"))
    assert home_a["role"]["effective"] == home_b["role"]["effective"] == "private"
    assert home_a["punch"]["succeeded"] + home_b["punch"]["succeeded"] >= 1
    # Each home knows the other as the far end of a direct stream, whoever of them opened it.
    seen = {(one["peer"], one["path"]) for home in (home_a, home_b) for one in home["outbound"]}
    assert seen & {(home_a["peer_id"], "direct"), (home_b["peer_id"], "direct")}
