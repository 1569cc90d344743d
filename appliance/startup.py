"""The second stage of checking a declaration: what only the machine that it runs on can tell.

Every fault at once, and nothing is started, made or changed by looking.
"""

from __future__ import annotations

import errno
import grp
import os
import resource
import socket
import stat
from collections.abc import Container, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from appliance.declaration import Declaration
from appliance.declaration.checks import Problem
from appliance.declaration.listeners import Listener, listeners
from appliance.errors import ApplianceError
from appliance.operate.socketfile import reachable_name
from appliance.sizing.catalogue import CATALOGUE
from appliance.sizing.detect import detect
from appliance.sizing.model import Plan
from appliance.sizing.profile import Profile
from appliance.units import human_bytes

MEMORY_TOLERANCE: Final = 10
"""Firmware, graphics and kernels leave different parts of the same modules: up to a tenth less."""

_PAGE: Final = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, slots=True)
class Machine:
    """What a plan is held against."""

    architecture: str
    cores: int
    memory_bytes: int
    """Of the whole machine."""
    memory_limit: int
    """What the control groups that we are in leave of it; a unit's own MemoryMax is one."""
    nofile: int
    """The hard limit of this process."""

    @classmethod
    def here(cls) -> Self:
        found = detect().profile
        memory = os.sysconf("SC_PHYS_PAGES") * _PAGE
        return cls(
            architecture=found.architecture,
            cores=found.cores,
            memory_bytes=max(memory, found.memory_bytes),
            memory_limit=found.memory_bytes,
            nofile=found.nofile,
        )


def check(
    declaration: Declaration,
    plan: Plan,
    *,
    machine: Machine | None = None,
    beside_running: bool = False,
    before_network: bool = False,
) -> list[Problem]:
    """Everything that keeps `declaration` from running here and now, `machine` being this one.

    `beside_running`: the appliance that runs from it already, if one does, is no fault, and neither
    are ports that are in use then. A kaspad that does not answer is none either: it may come later.
    `before_network`: addresses that the machine does not have are none, for the same reason.
    """
    running = is_running(declaration)
    spare = beside_running and running
    found = list(_machine(plan, machine or Machine.here()))
    spared = {errno.EADDRINUSE} if spare else set()
    spared |= {errno.EADDRNOTAVAIL} if before_network else set()
    found += _sockets(declaration, spared)
    found += _state(declaration)
    found += _as_table(declaration)
    found += _control(declaration)
    if running and not spare:
        message = f"an appliance is running with {declaration.control.socket}; stop it first"
        found.append(Problem(("control.socket", "state.dir"), message))
    return found


def raise_nofile(wanted: int) -> None:
    """Let this process open at least `wanted` files. Raises ApplianceError; needs no capability.

    Whoever starts a process usually grants it 1,024, and up to the hard limit for the asking.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return
    if hard != resource.RLIM_INFINITY and hard < wanted:
        raise ApplianceError(_too_few_files(hard, wanted), hint=f"set LimitNOFILE={wanted}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def is_running(declaration: Declaration) -> bool:
    """Whether somebody listens at the control socket."""
    try:
        with (
            reachable_name(declaration.control.socket) as name,
            socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe,
        ):
            probe.setblocking(False)
            probe.connect(name)
    except BlockingIOError:  # alive, with a full backlog
        return True
    except OSError:
        return False
    return True


# --- the machine and the plan


def _machine(plan: Plan, machine: Machine) -> Iterator[Problem]:
    profile, nofile, most = plan.profile, plan.unit["LimitNOFILE"], plan.unit["MemoryMax"]
    if machine.nofile < nofile:
        message = f"{_too_few_files(machine.nofile, nofile)}: raise LimitNOFILE, or plan with fewer"
        yield Problem(_fields("nofile"), message)
    # Fewer cores make it slower and break no budget.
    if profile.memory_bytes > _tolerated(machine):
        planned, here = human_bytes(profile.memory_bytes), human_bytes(machine.memory_bytes)
        what = f"{planned} of memory, and {here} are here"
        message = f"{profile.name} is larger than this machine: {what}; {_nearest(machine)}"
        yield Problem(_fields("memory_bytes"), message)
    # The kernel keeps limits in whole pages: our own unit's comes back a little smaller.
    if machine.memory_limit < min(most // _PAGE * _PAGE, machine.memory_bytes):
        granted, counted = human_bytes(machine.memory_limit), human_bytes(most)
        message = f"a control group grants {granted} of memory, and the plan counts on {counted}"
        yield Problem(_fields("memory_bytes"), f"{message}; {_nearest(machine)}")


def _too_few_files(granted: int, wanted: int) -> str:
    return f"this process may open at most {granted} files, and the plan counts on {wanted}"


def _fields(name: str) -> tuple[str, ...]:
    """Where a figure of the profile may have been said."""
    return (f"hardware.override.{name}", f"hardware.profile.{name}", "hardware.profile")


def _tolerated(machine: Machine) -> int:
    return machine.memory_bytes * (100 + MEMORY_TOLERANCE) // 100


def _nearest(machine: Machine) -> str:
    """The largest profile of the catalogue that fits, and the one that always does."""

    def fits(profile: Profile) -> bool:
        alike = profile.architecture == machine.architecture
        return (
            alike
            and profile.cores <= machine.cores
            and profile.memory_bytes <= min(_tolerated(machine), machine.memory_limit)
        )

    fitting = [profile for profile in CATALOGUE.values() if fits(profile)]
    best = max(fitting, key=lambda profile: (profile.memory_bytes, profile.cores), default=None)
    return "write 'detect'" + (f", or {best.name}" if best else "")


# --- sockets


def _sockets(declaration: Declaration, spared: Container[int | None]) -> Iterator[Problem]:
    for listener in listeners(declaration):
        error = _probe(listener)
        if error is not None and error.errno not in spared:
            yield Problem((listener.path,), _why_not(listener, error))


def _probe(listener: Listener) -> OSError | None:
    """Bind as our listeners do, and let go. Unlike them the probe never listens, and does not set
    SO_REUSEPORT, with which it would not notice another bridge."""
    endpoint = listener.endpoint
    family = socket.AF_INET6 if endpoint.is_ipv6 else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if endpoint.is_ipv6:
                probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            probe.bind((endpoint.host, endpoint.port))
    except OSError as error:
        return error
    return None


def _why_not(listener: Listener, error: OSError) -> str:
    endpoint = listener.endpoint
    match error.errno:
        case errno.EADDRINUSE:
            return f"{endpoint} is in use already{_user_of(endpoint.port)}"
        case errno.EADDRNOTAVAIL:
            return f"{endpoint.host} is no address of this machine"
        case errno.EACCES:
            return f"port {endpoint.port} is reserved: it takes CAP_NET_BIND_SERVICE to listen here"
        case errno.EAFNOSUPPORT:
            return f"{endpoint.host} is an IPv6 address, and this machine has no IPv6"
    return f"{listener.owner} cannot listen on {endpoint}: {(error.strerror or str(error)).lower()}"


def _user_of(port: int) -> str:
    """` by NAME (process PID)` as far as we may know it."""
    import psutil  # late: only a taken port is worth it

    try:
        for connection in psutil.net_connections("tcp"):
            listens = connection.status == psutil.CONN_LISTEN and connection.laddr[1:] == (port,)
            if listens and connection.pid is not None:
                return f" by {psutil.Process(connection.pid).name()} (process {connection.pid})"
    except (psutil.Error, OSError):
        pass
    return ""


# --- files


def _state(declaration: Declaration) -> Iterator[Problem]:
    """The state directory, and the key in it or elsewhere."""
    state, key = declaration.state.dir, declaration.identity.key
    wrong = _unusable(state)
    if wrong is not None:
        yield Problem(("state.dir",), wrong)
        if key.path.parent == state:
            return
    try:
        present = key.read("identity key") is not None
    except ApplianceError as error:
        hint = f" ({error.hint})" if error.hint else ""
        yield Problem(("identity.key", "state.dir"), error.message + hint)
        return
    wrong = None if present else _unusable(key.path.parent)
    if wrong is not None:
        yield Problem(("identity.key", "state.dir"), f"{key} cannot be made: {wrong}")


def _as_table(declaration: Declaration) -> Iterator[Problem]:
    """That it can be read; what is in it, whoever reads it says."""
    path = declaration.discovery.as_table
    if path is not None and not path.is_file():
        yield Problem(("discovery.as_table",), f"there is no file {path}")
    elif path is not None and not os.access(path, os.R_OK, effective_ids=True):
        yield Problem(("discovery.as_table",), f"{path} cannot be read by the user that runs this")


def _control(declaration: Declaration) -> Iterator[Problem]:
    path, group = declaration.control.socket, declaration.control.group
    if group is not None:
        try:
            gid = grp.getgrnam(group).gr_gid
        except KeyError:
            yield Problem(("control.group",), f"there is no group {group!r} on this machine")
        else:
            if os.geteuid() != 0 and gid not in (os.getegid(), *os.getgroups()):
                message = f"the user that runs this is no member of the group {group!r}"
                yield Problem(("control.group",), message)
    if path.parent in (declaration.state.dir, declaration.identity.key.path.parent):
        wrong = None  # made if missing, and told of there
    elif not path.parent.is_dir():
        wrong = f"there is no directory {path.parent}"
    else:
        wrong = _unusable(path.parent) or _open_to_all(path.parent)
    if wrong is None and path.exists() and not path.is_socket():
        wrong = f"{path} is in the way, and is no socket"
    if wrong is not None:
        yield Problem(("control.socket", "state.dir"), wrong)


def _unusable(directory: Path) -> str | None:
    """Why `directory` cannot be made or written by us; None: it can."""
    place = directory.absolute()
    try:
        while not place.exists() and place != place.parent:
            place = place.parent
        if not place.is_dir():
            return f"{place} is not a directory"
    except OSError as error:
        return f"{place}: {(error.strerror or str(error)).lower()}"
    if not os.access(place, os.W_OK | os.X_OK, effective_ids=True):
        what = "cannot be written" if place == directory.absolute() else "cannot be made"
        return f"{directory} {what}: {place} is not writable by the user that runs this"
    return None


def _open_to_all(directory: Path) -> str | None:
    mode = directory.stat().st_mode
    if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
        return f"everybody may write to {directory}: anybody could replace the socket"
    return None
