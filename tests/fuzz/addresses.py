"""Hostile bytes for the parsers of the address book: stored values, a kaspad's rows, text.

    python -m tests.fuzz.addresses --inputs 1000000 --seed 7

Each input is a good one with changes, or random bytes. A parser returns or raises its own error;
what it returns must be written and read again as the same. The seed and number of an input that
breaks this are in the message; `--first` goes on from there.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable
from random import Random
from typing import Final

from appliance.addresses import legacy
from appliance.addresses.fields import CodecError
from appliance.addresses.kaspad import UndecodableError, address_row, ban_row
from appliance.addresses.keys import from_text, pack, unpack
from appliance.addresses.migrations import converted, usual
from appliance.addresses.model import Ban, Capability, PeerRecord, RelayRole, Source
from appliance.addresses.rows import CORE
from appliance.addresses.systems import AutonomousSystems
from appliance.addresses.values import (
    AddressValue,
    decode_address,
    decode_ban,
    decode_capability,
    encode_address,
    encode_ban,
    encode_capability,
)
from appliance.network import Endpoint
from tests.addresses import kaspad_writer as kaspad
from tests.fuzz.running import Broken, in_turn, program

_ID: Final = "12D3KooW" + "a" * 44


def _changed(rng: Random, good: bytes) -> bytes:
    """A few bytes changed, dropped, repeated or added; sometimes nothing of it left."""
    if rng.random() < 0.05:
        return rng.randbytes(rng.randrange(80))
    out = bytearray(good)
    for _ in range(rng.randrange(4)):
        at = rng.randrange(len(out) + 1)
        match rng.randrange(4):
            case 0 if at < len(out):
                out[at] ^= 1 << rng.randrange(8)
            case 1:
                del out[at : at + rng.randrange(1, 20)]
            case 2:
                out[at:at] = out[at : at + rng.randrange(1, 40)]
            case _:
                out[at:at] = rng.randbytes(rng.randrange(1, 8))
    return bytes(out)


def _ip(rng: Random) -> str:
    if rng.random() < 0.5:
        return ".".join(str(rng.randrange(256)) for _ in range(4))
    return "2a01:" + ":".join(f"{rng.randrange(65536):x}" for _ in range(7))


def address(rng: Random) -> None:
    core = rng.randbytes(CORE.size)
    good = encode_address(AddressValue(core, "11.0.0.1", rng.randrange(1 << 40), _ID))
    found = decode_address(_changed(rng, good))
    assert decode_address(encode_address(found)) == found


def capability(rng: Random) -> None:
    good = encode_capability(
        Capability(
            _ID, 16112, 9, RelayRole.PUBLIC, "who", 5, 6, True, 7, "hint", 8, b"envelope",
            (rng.randbytes(18),),
        ),
        ("/dns4/a/tcp/1",),
    )  # fmt: skip
    found = decode_capability(_changed(rng, good))
    assert decode_capability(encode_capability(found)) == found


def ban(rng: Random) -> None:
    key = _changed(rng, rng.choice((b"i" + rng.randbytes(16), b"p" + _ID.encode())))
    found = decode_ban(key, _changed(rng, encode_ban(Ban("x", rng.randrange(1 << 40), "lies"))))
    assert decode_ban(key, encode_ban(found)) == found


def version_1(rng: Random) -> None:
    ip = ".".join(str(rng.randrange(256)) for _ in range(4))
    record = PeerRecord(
        _ID,
        (f"/ip4/{ip}/tcp/{rng.randrange(1, 65536)}",),
        last_seen=rng.randrange(1 << 33),
        failures=rng.randrange(1000),
        source=rng.choice(list(Source)),
    )
    key, value = _changed(rng, _ID.encode()), _changed(rng, legacy.encode(record))
    fast = usual(key, value)
    careful = list(converted(legacy.decode(key, value)))
    assert fast is None or careful == [("addresses", *fast)]


def kaspad_address(rng: Random) -> None:
    ip, port = _ip(rng), rng.randrange(65536)
    if rng.random() < 0.3:
        value = kaspad.stock(ip, port, rng.randrange(9))
    else:
        value = kaspad.relay_capable(
            ip,
            port,
            layout=rng.randrange(1, 4),
            capacity=rng.choice((None, 7)),
            ttl_ms=rng.choice((None, 9)),
            role=rng.choice((None, 0, 1)),
            peer_id=rng.choice((None, _ID, "é")),
            hint=rng.choice((None, "/ip4/1.1.1.1/tcp/1")),
        )
    key = kaspad.key(ip, port)[1:]
    if rng.random() < 0.1:
        key = _changed(rng, key)
    found = address_row(key, _changed(rng, value))
    assert pack(unpack(found.address)) == found.address


def kaspad_ban(rng: Random) -> None:
    ban_row(_changed(rng, rng.randbytes(16)), _changed(rng, rng.randbytes(8)))


def text(rng: Random) -> None:
    good = rng.choice((f"/ip4/1.2.3.4/tcp/5/p2p/{_ID}", "[2a01::1]:16111", "/ip6/2a01::1/tcp/9"))
    found = from_text(_changed(rng, good.encode()).decode("utf-8", "replace"))
    assert found is None or pack(unpack(found)) == found


def systems(rng: Random) -> None:
    lines = [b"1.0.0.0/24 AS13335\n", b"1.0.0.0/25 7\n", b"# a\n", b"2606:4700::/32 13335\n"]
    try:
        found = AutonomousSystems(_changed(rng, line) for line in lines)
    except ValueError as error:
        raise CodecError(str(error)) from None
    assert 0 <= found.of(pack(Endpoint("1.0.0.9", 1))) <= 0xFFFFFFFF


TARGETS: Final[dict[str, Callable[[Random], None]]] = {
    "address": address,
    "capability": capability,
    "ban": ban,
    "version_1": version_1,
    "kaspad_address": kaspad_address,
    "kaspad_ban": kaspad_ban,
    "text": text,
    "systems": systems,
}


def try_input(target: str, seed: int, number: int) -> bool:
    """One input; whether it was refused. Raises Broken."""
    try:
        TARGETS[target](Random(f"{target} {seed} {number}"))
    except (CodecError, UndecodableError):
        return True
    except Exception as error:  # whatever else it is, it is the find of this program
        raise Broken(f"{target}, seed {seed}, input {number}: {error!r}") from error
    return False


def run(inputs: int, *, seed: int, first: int = 0) -> Counter[str]:
    """That many inputs, to each parser in turn; how many were refused. Raises Broken."""
    return in_turn(TARGETS, try_input, inputs, seed, first)


def main(arguments: list[str] | None = None) -> int:
    return program("tests.fuzz.addresses", __doc__, TARGETS, try_input, arguments)


if __name__ == "__main__":
    sys.exit(main())
