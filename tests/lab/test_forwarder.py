"""The WAN's queue: order, delay, bounds, and a counter for every frame."""

from __future__ import annotations

import socket

from appliance.lab.forwarder import Wan

A, B = socket.inet_aton("203.0.113.21"), socket.inet_aton("203.0.113.77")


def frame(destination: bytes, body: bytes = b"") -> bytes:
    """An Ethernet header and as much of an IPv4 one as is looked at."""
    return bytes(14) + bytes(16) + destination + body


def test_frames_leave_in_order_after_the_delay() -> None:
    wan = Wan(routes={A: 0, B: 1}, delay=0.04)
    first, second = frame(B, b"first"), frame(A, b"second")
    wan.accept(first, now=1.0)
    wan.accept(second, now=1.01)
    assert wan.next_due() == 1.04
    assert wan.pop_due(now=1.039) is None
    assert wan.pop_due(now=1.04) == (1, first)
    assert wan.pop_due(now=1.04) is None
    assert wan.pop_due(now=2.0) == (0, second)
    assert wan.next_due() is None


def test_a_full_queue_drops_the_newcomer_and_counts_it() -> None:
    wan = Wan(routes={A: 0}, delay=1.0, capacity=2)
    for _ in range(5):
        wan.accept(frame(A), now=0.0)
    assert wan.counters.queue_full == 3
    assert [wan.pop_due(now=9.0) is not None for _ in range(3)] == [True, True, False]


def test_frames_to_nowhere_and_stumps_are_counted() -> None:
    wan = Wan(routes={A: 0})
    wan.accept(frame(B), now=0.0)
    wan.accept(b"", now=0.0)
    wan.accept(frame(A)[:-1], now=0.0)
    assert wan.counters.no_route == 3
    assert wan.next_due() is None
