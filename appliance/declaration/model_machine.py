"""The machine beneath an appliance, where it boots from an image: who may log in, its network, its
time zone. The daemon does not read it; `appliance machine apply` does.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Annotated, Any, Final

from appliance.declaration.faults import FileFault, Mark
from appliance.declaration.kinds import Boolean, OrNone, Reading, Text
from appliance.declaration.kinds_machine import (
    IpAddress,
    IpInterface,
    NetworkName,
    OneOrMore,
    PublicKeyKind,
    interface_address_kind,
    ip_kind,
)
from appliance.declaration.nodes import Mapping
from appliance.declaration.publickeys import PublicKey
from appliance.declaration.sections import Section
from appliance.declaration.settings import Setting, settings_of

MAX_KEYS: Final = 32
MAX_ADDRESSES: Final = 8
MAX_SERVERS: Final = 3
"""resolv.conf(5): MAXNS; more would be ignored by programs that read that file."""


@dataclass(frozen=True, slots=True)
class SshSpec:
    """Who may log in."""

    authorized_keys: Annotated[
        tuple[PublicKey, ...],
        Setting(
            OneOrMore(PublicKeyKind(), MAX_KEYS),
            "Public SSH keys that log in as `operator`, besides those of the file authorized_keys "
            "beside this one. A password never does.",
            default=(),
            example="[ssh-ed25519 AAAA… me@home]",
        ),
    ] = ()


@dataclass(frozen=True, slots=True)
class WiredSpec:
    """The wired network; without an address it is asked for one (DHCP, router advertisements)."""

    interface: Annotated[
        str | None,
        Setting(
            OrNone(Text("the name of a network interface", "[A-Za-z0-9][A-Za-z0-9._-]{0,14}")),
            "The wired interface that this is about; the others ask for an address. Null: every "
            "wired one.",
            default=None,
            because="most machines have one",
            example="end0",
        ),
    ] = None
    address: Annotated[
        tuple[IpInterface, ...],
        Setting(
            OneOrMore(interface_address_kind(), MAX_ADDRESSES),
            "Fixed addresses, each with the size of its network. Empty: asked for (DHCP).",
            default=(),
            unit="IP/PREFIX",
            example="[192.0.2.10/24, 2001:db8::10/64]",
        ),
    ] = ()
    gateway: Annotated[
        tuple[IpAddress, ...],
        Setting(
            OneOrMore(ip_kind(), 2),
            "The router, at most one of IPv4 and one of IPv6, with a fixed address.",
            default=(),
            unit="IP",
            example="[192.0.2.1]",
        ),
    ] = ()
    dns: Annotated[
        tuple[IpAddress, ...],
        Setting(
            OneOrMore(ip_kind(), MAX_SERVERS),
            "Name servers. Empty: those that DHCP or the router names.",
            default=(),
            unit="IP",
            example="[192.0.2.1]",
        ),
    ] = ()


@dataclass(frozen=True, slots=True)
class WifiSpec:
    """A Wi-Fi network to join. Its passphrase is the content of the file wifi-passphrase beside
    this one; it never stands here."""

    country: Annotated[
        str,
        Setting(
            Text("a country's two capital letters", "[A-Z]{2}"),
            "Where the machine stands (ISO 3166): it decides which channels may be used.",
            example="DE",
        ),
    ]
    ssid: Annotated[str, Setting(NetworkName(), "What the network calls itself.", example="home")]
    hidden: Annotated[
        bool,
        Setting(Boolean(), "Whether the network does not announce its name.", default=False),
    ] = False


@dataclass(frozen=True, slots=True)
class MachineSpec:
    """The machine beneath the appliance, where it boots from an image; the daemon ignores it."""

    ssh: Annotated[
        SshSpec, Setting(Section(SshSpec, secret=True), SshSpec.__doc__ or "", default=None)
    ] = field(default_factory=SshSpec)
    network: Annotated[
        WiredSpec, Setting(Section(WiredSpec), WiredSpec.__doc__ or "", default=None)
    ] = field(default_factory=WiredSpec)
    wifi: Annotated[
        WifiSpec | None,
        Setting(Section(WifiSpec, secret=True), WifiSpec.__doc__ or "", default=None),
    ] = None
    timezone: Annotated[
        str,
        Setting(
            Text("a time zone, such as UTC or Europe/Berlin", r"[A-Za-z0-9_+-]+(?:/[\w+-]+){0,2}"),
            "Time zone of the logs, by its name in the tz database.",
            default="UTC",
            because="logs of machines in several zones can be compared",
        ),
    ] = "UTC"


@dataclass(frozen=True, slots=True)
class ReadMachine:
    """A Machine document that was read; paths begin at its top. `spec` is None with any fault;
    the keys that are good are there all the same."""

    line: int
    spec: MachineSpec | None
    keys: tuple[PublicKey, ...]
    marks: dict[str, Mark]
    faults: tuple[FileFault, ...]


def read_machine(body: Mapping) -> ReadMachine:
    """`body` is the document without its envelope."""
    reading = Reading()
    Section(MachineSpec).read_fields(body, "", reading)
    spec = _build(MachineSpec, "", reading)
    for path, message in _problems(spec):
        whole = path.partition("[")[0]
        if not reading.invalid & {whole, "network.address"}:
            # An only item may stand without a list around it.
            here = path if path in reading.marks else whole
            reading.wrong(reading.marks[here], here, message)
    faults = tuple(reading.faults)
    keys: tuple[PublicKey, ...] = reading.values.get("ssh.authorized_keys", ())
    return ReadMachine(body.mark.line, None if faults else spec, keys, reading.marks, faults)


def _build(cls: type, prefix: str, reading: Reading) -> Any:
    """What was read, with the defaults of the classes; a section that lacks something is None."""
    fields: dict[str, Any] = {}
    for name, setting in settings_of(cls).items():
        path, kind = f"{prefix}{name}", setting.kind
        if isinstance(kind, Section):
            value = _build(kind.cls, f"{path}.", reading)
            if value is not None:
                fields[name] = value
        elif path in reading.values:
            fields[name] = reading.values[path]
        elif setting.required:
            return None
    return cls(**fields)


def _problems(spec: MachineSpec) -> Iterator[tuple[str, str]]:
    """What cannot work together: the field to change, and why."""
    wired = spec.network
    versions = [address.version for address in wired.address]
    seen: set[IpAddress] = set()
    for index, address in enumerate(wired.address):
        if address.ip in seen:
            yield f"network.address[{index}]", f"{address.ip} is given twice"
        seen.add(address.ip)
    if wired.gateway and not wired.address:
        message = "is of no use without a fixed address; DHCP names the router too"
        yield "network.gateway", message
        return
    for index, gateway in enumerate(wired.gateway):
        path = f"network.gateway[{index}]"
        networks = [address.network for address in wired.address]
        if gateway in seen:
            yield path, f"{gateway} is this machine's own address; the router has another"
        elif gateway.version in [other.version for other in wired.gateway[:index]]:
            yield path, f"a second router of IPv{gateway.version}; name one"
        elif gateway.version not in versions:
            yield path, f"{gateway} is IPv{gateway.version}, but no address of this machine is"
        elif not gateway.is_link_local and not any(gateway in network for network in networks):
            among = ", ".join(map(str, networks))
            yield path, f"{gateway} is in none of the networks of this machine ({among})"
