"""Which ports answer: every TCP port by a SYN of our own, and the UDP services one often finds.

Needs CAP_NET_RAW, which root of a network namespace has in it.
"""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass, field
from typing import Final

import trio

_PORTS: Final = range(1, 65536)
_BATCH: Final = 256
_PAUSE: Final = 0.02  # seconds between two batches: an emulated guest takes some 10,000 a second
_ROUNDS: Final = 2  # a SYN may get lost
_LAST_ANSWERS: Final = 3.0  # seconds without one after which no more are expected
_MOST_WAITS: Final = 20  # of that length, where somebody talks to us all the time
_SYN: Final = 0x02
_SYN_ACK: Final = 0x12

# A question that each of these answers to anybody: port → datagram.
UDP_QUESTIONS: Final = {
    53: bytes.fromhex("0001 0100 0001 0000 0000 0000 00 0001 0001"),  # the root's address
    69: b"\x00\x01x\x00octet\x00",
    111: bytes.fromhex("00000001 00000000 00000002 000186a0 00000002 00000000") + bytes(16),
    123: b"\x23" + bytes(47),
    137: bytes.fromhex("0001 0000 0001 0000 0000 0000 20")
    + b"CK"
    + b"A" * 30
    + bytes.fromhex("00 0021 0001"),
    161: bytes.fromhex(
        "302602010104067075626c6963a019020101020100020100300e300c06082b060102010101000500"
    ),
    1900: b"M-SEARCH * HTTP/1.1\r\nHOST:239.255.255.250:1900\r\n"
    b'MAN:"ssdp:discover"\r\nST:ssdp:all\r\n\r\n',
    5353: bytes.fromhex("0001 0000 0001 0000 0000 0000")
    + b"\x09_services\x07_dns-sd\x04_udp\x05local\x00"
    + bytes.fromhex("000c 8001"),
    5355: bytes.fromhex("0001 0000 0001 0000 0000 0000")
    + b"\x03toy\x00"
    + bytes.fromhex("0001 0001"),
}


@dataclass(slots=True)
class _Answers:
    """What came back: how many packets, also of closed ports, and from which open ones."""

    heard: int = 0
    open: set[int] = field(default_factory=set)


async def open_tcp(address: str) -> set[int]:
    """The ports of an IPv4 address that answer a SYN with SYN and ACK. Takes half a minute."""
    answers = _Answers()
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_TCP) as raw:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 * 1024 * 1024)
        raw.connect((address, 0))
        source = socket.inet_aton(raw.getsockname()[0])
        with trio.socket.from_stdlib_socket(raw.dup()) as wire:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_collect, wire, answers)
                for number in range(_ROUNDS):
                    await _send_all(wire, source, socket.inet_aton(address), 40000 + number)
                for _ in range(_MOST_WAITS):
                    before = answers.heard
                    await trio.sleep(_LAST_ANSWERS)
                    if answers.heard == before:
                        break
                nursery.cancel_scope.cancel()
    return answers.open


async def answering_udp(address: str) -> set[int]:
    """The ports of `UDP_QUESTIONS` from which any datagram comes back."""
    found: set[int] = set()
    with trio.socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        for _ in range(_ROUNDS):
            for port, question in UDP_QUESTIONS.items():
                await asking.sendto(question, (address, port))
        with trio.move_on_after(_LAST_ANSWERS):
            while True:
                _, (_, port) = await asking.recvfrom(2048)
                found.add(port)
    return found


async def _send_all(
    wire: trio.socket.SocketType, source: bytes, target: bytes, from_port: int
) -> None:
    for first in range(_PORTS.start, _PORTS.stop, _BATCH):
        for port in range(first, min(first + _BATCH, _PORTS.stop)):
            await wire.send(_syn(source, target, from_port, port))
        await trio.sleep(_PAUSE)


async def _collect(wire: trio.socket.SocketType, answers: _Answers) -> None:
    while True:
        packet = await wire.recv(2048)
        answers.heard += 1
        header = (packet[0] & 0x0F) * 4
        if len(packet) >= header + 14 and packet[header + 13] & _SYN_ACK == _SYN_ACK:
            answers.open.add(int.from_bytes(packet[header : header + 2], "big"))


def _syn(source: bytes, target: bytes, from_port: int, port: int) -> bytes:
    """A TCP header (RFC 9293, section 3.1); the kernel puts IP's before it."""
    fields = (from_port, port, 0, 0, 5 << 4, _SYN, 65535)
    pseudo = source + target + struct.pack("!HH", socket.IPPROTO_TCP, 20)
    total = sum(struct.unpack("!16H", pseudo + struct.pack("!HHIIBBHHH", *fields, 0, 0)))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return struct.pack("!HHIIBBHHH", *fields, ~total & 0xFFFF, 0)
