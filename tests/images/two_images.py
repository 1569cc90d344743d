"""Two booted images behind two NATs find each other through a relay, and punch.

`perform` is the target of `lab.world.run`. The map is the laboratory's; in each home an emulated
machine stands on the LAN instead of a process, and knows nobody but the relay.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import trio

from appliance.image.guest_shell import Door, Shell, logged_in, make_key
from appliance.image.imagefile import unpacked
from appliance.image.netlab import TAP, run_ip
from appliance.image.partitions import FatFiles, read_table
from appliance.image.qemu import ARCHITECTURES, Guest, Kernel, Wire
from appliance.image.qemu_machine import running
from appliance.lab import declarations
from appliance.lab.discovery import HOME_ROUTER_IPS, RELAY_IPS
from appliance.lab.journal import Event, Journal
from appliance.lab.kernel import NetNamespace
from appliance.lab.routers import DROPS
from appliance.lab.stage import START, Stage
from appliance.lab.topology import LAN_ROUTER_IP, Home, built
from appliance.lab.world import Send

RELAY: Final = "relay"
HOMES: Final = ("home-a", "home-b")
GUEST_IPS: Final = {"home-a": "192.168.1.30", "home-b": "192.168.1.40"}
_HOST_IP: Final = "192.168.1.10"  # from which the test logs in
_LOGIN: Final = 1500.0  # seconds; two machines are emulated at once
_MEETING: Final = 900.0
_LOOK: Final = 5.0


@dataclass(slots=True)
class House:
    """A home: its network, and how to get into its machine."""

    name: str
    namespace: NetNamespace
    scratch: Path
    status: dict[str, Any]

    @property
    def inside(self) -> Sequence[str]:
        return ("nsenter", f"--net=/proc/{os.getpid()}/fd/{self.namespace.fd}", "--")

    def join(self) -> None:
        """A bridge from the LAN to the tap on which the machine will be."""
        run_ip(
            (
                "link add br0 type bridge",
                f"tuntap add dev {TAP} mode tap",
                "address flush dev lan0",
                "link set lan0 master br0",
                f"link set {TAP} master br0 up",
                "link set br0 up",
                f"address add {_HOST_IP}/24 dev br0",
            ),
            inside=self.inside,
        )


def machine_file(name: str, relay: str) -> str:
    """What the owner of a home writes on the setup partition."""
    return f"""\
apiVersion: appliance/v1
kind: Appliance
metadata:
  name: {name}
hardware:
  profile: detect
  override:
    link_bytes_per_second: {declarations.LINK}
network: {declarations.NETWORK.value}
node:
  kind: embedded
  peers:
    - "{relay}"
bridge:
  drain: 1
---
apiVersion: appliance/v1
kind: Machine
network:
  address: {GUEST_IPS[name]}/24
  gateway: {LAN_ROUTER_IP}
"""


def perform(order: dict[str, Any], send: Send) -> dict[str, Any]:
    """The order: `image`, `disks` (a directory with room for two copies of it), `direct`, and the
    `scratch` of the world. Returns what each home's `appliance status` said when they had met."""
    return trio.run(_perform, order, send)


async def _perform(order: dict[str, Any], send: Send) -> dict[str, Any]:
    scratch, disks = Path(order["scratch"]), Path(order["disks"])
    logs = disks / "logs"
    logs.mkdir()

    def on_event(event: Event) -> None:
        if event.level != "debug":
            send({"kind": "event", **event.as_json()})

    journal = Journal(time.time(), on_event)
    homes = {
        name: Home(_HOST_IP, ip, DROPS) for name, ip in zip(HOMES, HOME_ROUTER_IPS, strict=False)
    }
    with built({RELAY: RELAY_IPS[0]}, homes, 0.0) as topology:
        async with trio.open_nursery() as nursery:
            stage = Stage(topology, journal, nursery, scratch, logs, "info")
            relay = await _start_relay(stage)
            relay_id = stage.peer_ids[RELAY]
            houses = []
            for name in HOMES:
                directory = disks / name
                directory.mkdir()
                houses.append(House(name, topology.namespaces[name], directory, {}))
            async with trio.open_nursery() as both:
                meeting = _Meeting(len(houses))
                for house in houses:
                    both.start_soon(_live, house, order, relay, meeting, journal)
            await stage.stop_all()
            nursery.cancel_scope.cancel()
    return {"relay": relay_id, "homes": {house.name: house.status for house in houses}}


async def _start_relay(stage: Stage) -> str:
    await stage.identities(RELAY)
    endpoint = f"{RELAY_IPS[0]}:{declarations.BRIDGE_PORT}"
    stage.declare(
        RELAY,
        declarations.knowing_one_peer(
            RELAY, stage.state(RELAY), "info", peer=None, external=endpoint
        ),
    )
    mark = stage.start(RELAY)
    await stage.journal.wait_for(RELAY, "ready", within=START, after=mark)
    return declarations.relay_multiaddr(stage.peer_ids[RELAY], RELAY_IPS[0])


class _Meeting:
    """Open when all have said that they see the other directly."""

    def __init__(self, expected: int) -> None:
        self._missing = expected
        self._all = trio.Event()

    async def arrive(self) -> None:
        self._missing -= 1
        if not self._missing:
            self._all.set()
        await self._all.wait()


async def _live(
    house: House, order: dict[str, Any], relay: str, meeting: _Meeting, journal: Journal
) -> None:
    """One machine, from its flashing until both have met."""
    image = Path(order["image"])
    key = make_key(house.scratch)
    kernel = Kernel.beside(image) if order["direct"] else None
    async with AsyncExitStack() as stack:
        disk = stack.enter_context(unpacked(image, house.scratch))
        text = machine_file(house.name, relay)
        files = {"appliance.yaml": text.encode(), "authorized_keys": key.public}
        FatFiles(disk, read_table(disk).setup).write(files)
        house.join()
        mac = f"52:54:00:00:00:{HOMES.index(house.name) + 1:02x}"
        wire = Wire(TAP, mac)
        guest = Guest(ARCHITECTURES["x86-64"], disk, wire, kernel)
        log = house.scratch / "console.log"
        machine = await stack.enter_async_context(
            running(guest, house.scratch, inside=house.inside, log=log)
        )
        door = Door(GUEST_IPS[house.name], key, house.scratch, house.inside)
        shell = await stack.enter_async_context(logged_in(door, machine, _LOGIN))
        journal.note("logged_in", home=house.name)
        with trio.fail_after(_MEETING):
            house.status = await _until_met(shell, relay.rpartition("/")[2])
            journal.note("met", home=house.name)
            await meeting.arrive()


async def _until_met(shell: Shell, relay_id: str) -> dict[str, Any]:
    """Look at the status until the node talks to another home's over a direct connection."""
    while True:
        answer = await shell.run("appliance status --json")
        if answer.code == 0:
            status: dict[str, Any] = json.loads(answer.out)
            if status["role"]["effective"] == "private" and _has_met(status, relay_id):
                return status
        await trio.sleep(_LOOK)


def _has_met(status: dict[str, Any], relay_id: str) -> bool:
    """It opened a direct stream to another home, or took one on a connection that was punched."""
    opened = (one["path"] == "direct" and one["peer"] != relay_id for one in status["outbound"])
    inbound, punched = status["inbound"], status["punch"]["succeeded"]
    taken = inbound["direct"]["used"] or inbound["private"]["used"]
    return any(opened) or bool(punched and taken)
