"""DNS seeders: host names that resolve to addresses of Kaspa nodes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import trio

from appliance.errors import Fault
from appliance.network import Endpoint
from appliance.reasons import Reason

DEADLINE: Final = 10.0
"""Seconds for one name; a resolver's own time-outs add up to more."""
MAX_ANSWER: Final = 256
"""Addresses of one name; a DNS answer over TCP holds some 2,000."""

Resolver = Callable[[str], Awaitable[Sequence[str]]]
"""The IP addresses of a host name. Raises OSError."""


async def system_resolver(name: str) -> list[str]:
    """As the machine resolves names; in a thread. Raises OSError."""
    found = await trio.socket.getaddrinfo(name, None, type=trio.socket.SOCK_STREAM)
    return [str(address[0]) for *_, address in found]


async def ask_seeder(name: str, port: int, resolve: Resolver = system_resolver) -> list[Endpoint]:
    """Who is known there, on `port`. Raises Fault: dial-timeout, dial-failed."""
    try:
        with trio.fail_after(DEADLINE):
            found = await resolve(name)
    except trio.TooSlowError:
        raise Fault(Reason.DIAL_TIMEOUT, f"{name}: no answer within {DEADLINE:g} s") from None
    except (OSError, UnicodeError) as error:  # a name that is none fails to be encoded
        raise Fault(Reason.DIAL_FAILED, f"{name}: {error}") from error
    return [
        Endpoint.parse(f"[{text}]" if ":" in text else text, default_port=port)
        for text in dict.fromkeys(found[:MAX_ANSWER])
        if "%" not in text  # a zone means something on one machine only
    ]
