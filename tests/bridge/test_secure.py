"""The noise handshake: with ourselves, with the library, with strangers who mean harm."""

from __future__ import annotations

import random
from typing import Any

import pytest
import trio
from libp2p.crypto.x25519 import create_new_key_pair as new_x25519
from libp2p.peer.id import ID
from libp2p.security.noise.patterns import PatternXX
from trio.testing import MockClock

from appliance.bridge.identity import Identity
from appliance.bridge.negotiate import NegotiatedStream
from appliance.bridge.secure import Noise
from appliance.dataplane.secure import SecureStream
from appliance.errors import RemoteProtocolError, StreamReset
from appliance.reasons import Reason
from tests.dataplane.carriers import MemoryCarrier, carrier_pair
from tests.dataplane.sessions import read_to_end

ONE, OTHER, STRANGER = Identity.generate(), Identity.generate(), Identity.generate()


class Secured:
    """What the library's handshake expects under it, on a carrier of ours."""

    def __init__(self, carrier: MemoryCarrier, is_initiator: bool) -> None:
        self._carrier = carrier
        self.is_initiator = is_initiator

    async def read(self, n: int | None = None) -> bytes:
        return await self._carrier.receive_some(n or 65536)

    async def write(self, data: bytes) -> None:
        await self._carrier.send_all(data)

    async def close(self) -> None:
        await self._carrier.aclose()

    def get_remote_address(self) -> None:
        return None


def plain(carrier: MemoryCarrier) -> NegotiatedStream:
    return NegotiatedStream(carrier, "/noise")


async def shake(
    *, expect: str | None = OTHER.peer_id, segments: list[int] | None = None
) -> list[tuple[SecureStream, str] | Exception]:
    """The outcomes of client and server."""
    left, right = carrier_pair(segments=segments)
    out: list[Any] = [None, None]

    async def run(at: int, identity: Identity, carrier: MemoryCarrier) -> None:
        try:
            out[at] = await Noise(identity).handshake(
                plain(carrier), client=at == 0, expect=expect if at == 0 else None
            )
        except (RemoteProtocolError, StreamReset) as error:
            out[at] = error
            carrier.reset()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run, 0, ONE, left)
        nursery.start_soon(run, 1, OTHER, right)
    return out


@pytest.mark.parametrize("segments", [None, [1]], ids=["whole", "cut"])
async def test_two_of_us_know_each_other(
    autojump_clock: MockClock, segments: list[int] | None
) -> None:
    client, server = await shake(segments=segments)
    assert isinstance(client, tuple) and isinstance(server, tuple)
    assert (client[1], server[1]) == (OTHER.peer_id, ONE.peer_id)
    await client[0].send_all(b"sealed")
    await client[0].send_eof()
    assert await read_to_end(server[0]) == b"sealed"
    size = 2000 if segments else 200_000
    await server[0].send_all(bytes(size))
    await server[0].send_eof()
    assert await read_to_end(client[0]) == bytes(size)


async def test_whom_we_did_not_expect(autojump_clock: MockClock) -> None:
    client, _ = await shake(expect=STRANGER.peer_id)
    assert isinstance(client, RemoteProtocolError) and client.reason is Reason.WRONG_PEER
    assert STRANGER.peer_id in client.detail and OTHER.peer_id in client.detail


def stock(identity: Identity) -> PatternXX:
    return PatternXX(
        ID.from_pubkey(identity.keys.public_key),
        identity.keys.private_key,
        new_x25519().private_key,
    )


@pytest.mark.parametrize("client", [True, False])
async def test_the_library_at_the_other_end(autojump_clock: MockClock, client: bool) -> None:
    left, right = carrier_pair()
    pattern, session = stock(OTHER), []
    raw = Secured(right, not client)

    async def theirs() -> None:
        session.append(
            await (
                pattern.handshake_inbound(raw)
                if client
                else pattern.handshake_outbound(raw, ID.from_string(ONE.peer_id))
            )
        )

    async with trio.open_nursery() as nursery:
        nursery.start_soon(theirs)
        channel, peer = await Noise(ONE).handshake(
            plain(left), client=client, expect=OTHER.peer_id if client else None
        )
    assert peer == OTHER.peer_id and str(session[0].get_remote_peer()) == ONE.peer_id
    await channel.send_all(b"ours")
    assert await session[0].read(4) == b"ours"
    await session[0].write(b"theirs")
    assert await channel.receive_some() == b"theirs"


async def against(wire: bytes, *, client: bool) -> None:
    """Our handshake with a peer that says `wire`, whatever we say."""
    left, right = carrier_pair()
    await right.send_all(wire)
    await right.send_eof()
    expect = OTHER.peer_id if client else None
    with trio.fail_after(5), pytest.raises((RemoteProtocolError, StreamReset)) as caught:
        await Noise(ONE).handshake(plain(left), client=client, expect=expect)
    if isinstance(caught.value, RemoteProtocolError):
        assert caught.value.reason is Reason.HANDSHAKE_FAILED


def message(size: int, fill: int = 0) -> bytes:
    return size.to_bytes(2, "big") + bytes([fill]) * size


LOW_ORDER = (1).to_bytes(32, "little")

HOSTILE = {
    "nothing": b"",
    "half a length": b"\x00",
    "an empty message": message(0),
    "two empty messages": message(0) * 2,
    "a short key": message(31, 9),
    "a key of zeros": message(32) + message(96),
    "a point of low order": b"\x00\x20" + LOW_ORDER + message(200, 3),
    "a key and nothing": message(32, 9),
    "a key and rubbish": message(32, 9) + message(200, 7),
    "the largest message": message(65_535, 9),
    "a length and too little": b"\xff\xff" + bytes(100),
    "something in plain text": b"GET / HTTP/1.1\r\nHost: example.org\r\n\r\n",
    "tls": bytes.fromhex("16030100050100000100"),
}


@pytest.mark.parametrize("client", [True, False], ids=["client", "server"])
@pytest.mark.parametrize("wire", HOSTILE.values(), ids=HOSTILE)
async def test_hostile_handshakes(autojump_clock: MockClock, wire: bytes, client: bool) -> None:
    await against(wire, client=client)


@pytest.mark.parametrize("client", [True, False], ids=["client", "server"])
async def test_random_handshakes(autojump_clock: MockClock, client: bool) -> None:
    rng = random.Random(13)
    for _ in range(150):
        sizes = [rng.choice([0, 1, 31, 32, 33, 48, 80, 96, 97, 200]) for _ in range(3)]
        wire = b"".join(size.to_bytes(2, "big") + rng.randbytes(size) for size in sizes)
        await against(wire[: rng.randrange(len(wire) + 1)], client=client)


class Garbling(Secured):
    """A peer that speaks noise and changes one byte of its nth message."""

    def __init__(self, carrier: MemoryCarrier, is_initiator: bool, nth: int, at: int) -> None:
        super().__init__(carrier, is_initiator)
        self._left, self._at = nth, at

    async def write(self, data: bytes) -> None:
        if self._left == 0:
            changed = bytearray(data)
            changed[2 + self._at % (len(data) - 2)] ^= 0x40
            data = bytes(changed)
        self._left -= 1
        await super().write(data)


@pytest.mark.parametrize("at", [0, 5, 31, 40, 60, 90, 150, -1])
@pytest.mark.parametrize(("client", "nth"), [(True, 0), (False, 0), (False, 1)])
async def test_one_changed_byte_of_a_real_handshake(
    autojump_clock: MockClock, client: bool, nth: int, at: int
) -> None:
    left, right = carrier_pair()
    raw = Garbling(right, not client, nth, at)
    pattern = stock(OTHER)

    async def theirs() -> None:
        try:
            if client:
                await pattern.handshake_inbound(raw)
            else:
                await pattern.handshake_outbound(raw, None)
        except Exception:  # noqa: BLE001 - what the library makes of it is not our test
            right.reset()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(theirs)
        try:
            _, peer = await Noise(ONE).handshake(
                plain(left), client=client, expect=OTHER.peer_id if client else None
            )
        except (RemoteProtocolError, StreamReset):
            pass
        else:
            pytest.fail(f"a changed handshake gave {peer}")
        finally:
            left.reset()


class Impostor(PatternXX):
    """Signs its noise key with its own identity and shows somebody else's public key."""

    def make_handshake_payload(self, extensions: Any = None) -> Any:
        payload = super().make_handshake_payload(extensions)
        payload.id_pubkey = STRANGER.keys.public_key
        return payload


@pytest.mark.parametrize("client", [True, False])
async def test_an_impostor_is_nobody(autojump_clock: MockClock, client: bool) -> None:
    left, right = carrier_pair()
    pattern = Impostor(
        ID.from_pubkey(OTHER.keys.public_key), OTHER.keys.private_key, new_x25519().private_key
    )
    raw = Secured(right, not client)
    async with trio.open_nursery() as nursery:

        async def theirs() -> None:
            try:
                if client:
                    await pattern.handshake_inbound(raw)
                else:
                    await pattern.handshake_outbound(raw, None)
            except Exception:  # noqa: BLE001 - what the library makes of it is not our test
                return

        nursery.start_soon(theirs)
        with pytest.raises(RemoteProtocolError) as caught:
            await Noise(ONE).handshake(
                plain(left), client=client, expect=STRANGER.peer_id if client else None
            )
        left.reset()
    assert caught.value.reason is Reason.HANDSHAKE_FAILED


async def test_bytes_behind_the_handshake_are_not_lost(autojump_clock: MockClock) -> None:
    """A client may send at once behind its last handshake message; one read gets both."""
    left, right = carrier_pair()
    async with trio.open_nursery() as nursery:

        async def early() -> None:
            channel, _ = await Noise(ONE).handshake(plain(left), client=True, expect=OTHER.peer_id)
            await channel.send_all(b"early")

        nursery.start_soon(early)
        channel, _ = await Noise(OTHER).handshake(plain(right), client=False, expect=None)
        assert await channel.receive_some() == b"early"


async def test_cancelled_in_the_middle(autojump_clock: MockClock) -> None:
    left, _ = carrier_pair()
    with trio.move_on_after(3) as scope:
        await Noise(ONE).handshake(plain(left), client=True, expect=OTHER.peer_id)
    assert scope.cancelled_caught
