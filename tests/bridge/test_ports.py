"""The listen port as the source of dials, and what is done while it is taken."""

from __future__ import annotations

from appliance.bridge.connection import Direct
from tests.bridge.world import World, taken_between


async def test_dials_from_another_port_while_its_own_is_taken(world: World) -> None:
    a, b = await world.host(), await world.host()
    with taken_between(a, b):
        conn = await world.connect(a, b)
    assert isinstance(conn.path, Direct) and not conn.path.from_listen_port
