"""The tables: who gets in, who goes, who is tested, and that the fast way means the same."""

from __future__ import annotations

from collections import Counter
from random import Random

import pytest

from appliance.addresses.columns import BUCKET
from appliance.addresses.keys import (
    MAPPED,
    closed_sixteens,
    from_text,
    group_of,
    is_synthetic,
    may_be_dialled,
    pack,
    synthetic,
    unpack,
)
from appliance.addresses.model import Source
from appliance.addresses.rows import CORE, DERIVED, F_CLAIMED, F_PRIVATE, RELAY
from appliance.addresses.tables import TEST_WINDOW, Tables
from appliance.network import DOCUMENTATION, NO_HOST, SITE_ONLY, Endpoint
from appliance.policy.reach import is_dialable, is_routable
from tests.addresses.peers import DAY, NOW, key, peer_id, somewhere

SECRET = b"s" * 16
DECLARED = Source.DECLARED.rank


def check(tables: Tables) -> None:
    """What must hold of any tables: every way to a row leads to it."""
    count = len(tables)
    assert len(tables.keys) == 18 * count
    for row in range(count):
        assert tables.find(tables.key(row)) == row
    listed = [
        (bucket, row) for bucket in range(len(tables._fill)) for row in tables.rows_of(bucket)
    ]
    assert sorted(row for _, row in listed) == list(range(count))
    assert all(tables.bucket[row] == bucket for bucket, row in listed)
    assert list(tables._fill) == [len(tables.rows_of(one)) for one in range(len(tables._fill))]
    assert list(tables.tried) == [row for row in range(count) if tables.is_tried(row)]
    assert all(list(members) == sorted(members) for members in tables.roles)
    with_role = [row for members in tables.roles for row in members]
    assert len(set(with_role)) == len(with_role)
    groups = Counter(tables.group[row] for row in range(count))
    for row in range(count):
        assert tables.group_size(row) == groups[tables.group[row]]
    assert sum(tables._sources) == count


def test_keys_are_in_the_order_of_networks() -> None:
    endpoints = [
        Endpoint("11.0.0.1", 1),
        Endpoint("11.0.0.1", 256),
        Endpoint("11.0.2.0", 1),
        Endpoint("200.1.1.1", 1),
        Endpoint("2a01:4f8::1", 1),
    ]
    keys = [pack(endpoint) for endpoint in endpoints]
    assert keys == sorted(keys)
    assert [unpack(one) for one in keys] == endpoints
    assert group_of(keys[0]) == group_of(keys[2]) != group_of(keys[3])
    assert group_of(key("2a01:4f8::1")) == group_of(key("2a01:4f8:ffff::9"))
    assert key("::ffff:11.0.0.1") == key("11.0.0.1")


@pytest.mark.parametrize(
    ("text", "host"),
    [
        ("/ip4/11.0.0.1/tcp/16112/p2p/12D3", "11.0.0.1"),
        ("/ip6/2a01::1/tcp/16112", "2a01::1"),
        ("11.0.0.1:16112", "11.0.0.1"),
        ("[2a01::1]:16112", "2a01::1"),
    ],
)
def test_addresses_in_text(text: str, host: str) -> None:
    assert from_text(text) == key(host, 16112)


@pytest.mark.parametrize(
    "text",
    ["/dns4/a/tcp/1", "/ip4/11.0.0.1/udp/1", "11.0.0.1", "/ip4/11.0.0.1/tcp/0", "", "/ip4/x/tcp/1"],
)
def test_no_literal_address_in_text(text: str) -> None:
    assert from_text(text) is None


def test_the_synthetic_address_of_the_wire_contract() -> None:
    assert is_synthetic(synthetic(peer_id(1)))
    # h = SHA-256("12D3KooWA"): d1 9e… ; worked out by hand from the contract's formula.
    import hashlib

    digest = hashlib.sha256(b"12D3KooWA").digest()
    octets = bytes([0xF0 | digest[0] & 0x0F, *digest[1:4]])
    port = 1024 + int.from_bytes(digest[4:6], "big") % 64512
    assert synthetic("12D3KooWA") == MAPPED + octets + port.to_bytes(2, "big")


@pytest.mark.parametrize("allow_private", [False, True])
def test_networks_that_are_closed_as_a_whole_or_in_part(allow_private: bool) -> None:
    told: dict[int, bool] = {}
    for first, last, whole in closed_sixteens(allow_private=allow_private):
        told |= dict.fromkeys(range(first, last), whole)
    rng = Random(1)
    for sixteen in range(1 << 16):
        net = MAPPED + sixteen.to_bytes(2, "big")
        some = [net + rng.randbytes(2) + b"\0\1" for _ in range(3)]
        allowed = [may_be_dialled(one, allow_private=allow_private) for one in some]
        if sixteen not in told:
            assert all(allowed)
        elif told[sixteen]:
            assert not any(allowed)


def test_the_book_and_the_dialler_agree_on_every_range() -> None:
    """At the edges of each range: the first address, the last, and those beside them."""
    for network in (*SITE_ONLY, *DOCUMENTATION, *NO_HOST):
        first, last = int(network.network_address), int(network.broadcast_address)
        for number in {max(0, first - 1), first, last, min(last + 1, 2**network.max_prefixlen - 1)}:
            at = Endpoint(str(type(network.network_address)(number)), 16111)
            assert may_be_dialled(pack(at)) == is_routable(at), at
            lab = is_dialable(at, allow_private=True)
            assert may_be_dialled(pack(at), allow_private=True) == lab, at


def test_a_message_at_once_means_the_same_as_one_address_at_a_time() -> None:
    rng = Random(5)
    at_once, single = Tables(4096, SECRET), Tables(4096, SECRET)
    nasty = [key("10.0.0.1"), key("203.0.113.5"), key("203.0.200.5"), synthetic(peer_id(1))]
    six = [key(f"2a{n:02x}::1") for n in range(16, 60)]
    for message in range(40):
        keys = [somewhere(rng) for _ in range(20)] + rng.sample(nasty, 2) + rng.sample(six, 2)
        keys += [MAPPED + b"\x17\x05" + rng.randbytes(2) + b"\0\1", *keys[:2]]
        teller = b"%d" % message
        _, _, _, all_of_it = at_once.add(keys, teller, NOW + message)
        parts = [single.add([one], teller, NOW + message)[3] for one in sorted(keys)]
        check(at_once)
        assert {at_once.key(row): at_once.core(row) for row in range(len(at_once))} == {
            single.key(row): single.core(row) for row in range(len(single))
        }
        assert all_of_it.added == sum(part.added for part in parts)
        assert all_of_it.not_routable <= sum(part.not_routable for part in parts)
    assert len(at_once) > 800


def test_what_a_network_holds_and_what_it_tells_is_bounded() -> None:
    tables, rng = Tables(4096, SECRET), Random(2)
    _, _, _, flood = tables.add([somewhere(rng) for _ in range(2000)], b"one", NOW)
    assert flood.added == 4096 // 16
    assert flood.over_quota == 2000 - flood.added
    for teller in range(200):  # everybody speaks of one network
        tables.add(
            [MAPPED + b"\x17\x05" + rng.randbytes(2) + b"\0\1" for _ in range(10)],
            b"%d" % teller,
            NOW,
        )
    row = tables.find(next(k for k in map(tables.key, range(len(tables))) if k[12:14] == b"\x17\5"))
    assert tables.group_size(row) == 4096 // 64
    check(tables)


def test_a_full_bucket_loses_the_hopeless_then_the_largest_network() -> None:
    tables, rng = Tables(64, SECRET), Random(3)
    big = [MAPPED + b"\x17\x05" + bytes([0, n]) + b"\0\1" for n in range(8)]
    tables.add(big, b"x", NOW)
    teller = 0
    while len(tables) < 64:
        tables.add([somewhere(rng)], b"%d" % teller, NOW)
        teller += 1
    lonely = [tables.key(row) for row in range(64) if tables.group_size(row) == 1]
    hopeless = lonely[0]
    for _ in range(3):
        tables.attempted(tables.find(hopeless), NOW - DAY)
    for number in range(400):
        tables.add([somewhere(rng)], b"new %d" % number, NOW + number)
    assert len(tables) <= 64
    assert tables.find(hopeless) < 0
    assert sum(tables.find(one) >= 0 for one in big) < 8
    assert all(tables.find(one) >= 0 for one in lonely[1:])
    check(tables)


def test_what_the_operator_declared_gets_in_and_stays() -> None:
    tables, rng = Tables(64, SECRET), Random(4)
    for number in range(200):
        tables.add([somewhere(rng)], b"%d" % number, NOW)
    home = key("192.168.1.5")
    placed, evicted, _, _ = tables.add([home], b"me", NOW, rank=DECLARED, trusted=True)
    assert placed == [home]
    assert len(evicted) <= 1
    for number in range(2000):
        tables.add([somewhere(rng)], b"%d" % number, NOW + 90 * DAY)
    assert tables.find(home) >= 0
    _, _, _, tally = tables.add([key("192.168.1.6")], b"stranger", NOW)
    assert tally.not_routable == 1
    check(tables)


def fill_tried(tables: Tables, rng: Random) -> tuple[bytes, bytes]:
    """Reach addresses until one is challenged; challenger and incumbent."""
    for number in range(5000):
        one = somewhere(rng)
        tables.add([one], b"%d" % number, NOW)
        if (row := tables.find(one)) < 0:
            continue
        if (incumbent := tables.succeeded(row, NOW + number * 3600)) is not None:
            return one, incumbent
    raise AssertionError("nobody was challenged")


def test_an_incumbent_that_answers_keeps_its_place() -> None:
    tables = Tables(256, SECRET)
    challenger, incumbent = fill_tried(tables, Random(6))
    now = NOW + 6000 * 3600
    tables.collisions[challenger] = (incumbent, now)
    assert tables.settle(now + 5) == []
    tables.succeeded(tables.find(incumbent), now + 10)
    assert tables.settle(now + 11) == []
    assert not tables.collisions
    assert tables.is_tried(tables.find(incumbent))
    assert not tables.is_tried(tables.find(challenger))
    check(tables)


@pytest.mark.parametrize("silent", [False, True])
def test_an_incumbent_that_fails_or_is_not_tested_gives_way(silent: bool) -> None:
    tables = Tables(256, SECRET)
    challenger, incumbent = fill_tried(tables, Random(7))
    now = NOW + 6000 * 3600
    tables.collisions[challenger] = (incumbent, now)
    if not silent:
        tables.attempted(tables.find(incumbent), now + 10)
    changed = tables.settle(now + 20 + (TEST_WINDOW if silent else 0))
    assert set(changed) == {challenger, incumbent}
    assert tables.is_tried(tables.find(challenger))
    old = tables.find(incumbent)
    assert old < 0 or not tables.is_tried(old)
    check(tables)


def test_challenges_are_bounded() -> None:
    tables, rng = Tables(256, SECRET), Random(8)
    for number in range(3000):
        one = somewhere(rng)
        tables.add([one], b"%d" % number, NOW + number * 3600)
        if (row := tables.find(one)) >= 0:
            tables.succeeded(row, NOW + number * 3600)
    assert len(tables.collisions) <= 10
    assert len(tables.tried) <= 64
    check(tables)


def test_any_order_of_changes_leaves_them_whole() -> None:
    tables, rng = Tables(128, SECRET), Random(9)
    for step in range(3000):
        rows = len(tables)
        match rng.randrange(6) if rows else 0:
            case 0 | 1:
                tables.add([somewhere(rng) for _ in range(3)], b"%d" % rng.randrange(40), NOW)
            case 2:
                tables.discard(rng.randrange(rows))
            case 3:
                tables.succeeded(rng.randrange(rows), NOW + step)
            case 4:
                row = rng.randrange(rows)
                if not tables.flags[row] & F_PRIVATE:
                    tables.set_flags(row, tables.flags[row] ^ F_CLAIMED)
            case _:
                tables.add_private(
                    synthetic(peer_id(step)), somewhere(rng), b"%d" % rng.randrange(9), NOW
                )
        if step % 100 == 0:
            tables.settle(NOW + step)
            check(tables)
    check(tables)
    copy = Tables(128, SECRET)
    copy.restore(tables.dump())
    check(copy)
    assert copy.dump() == tables.dump()
    again = Tables(128, SECRET)
    assert again.load([(tables.key(row), tables.core(row)) for row in range(len(tables))]) == []
    check(again)
    assert {again.key(row) for row in again.tried} == {tables.key(row) for row in tables.tried}
    with pytest.raises(ValueError):
        Tables(256, SECRET).restore(tables.dump())


def test_other_secrets_other_buckets() -> None:
    rng = Random(10)
    keys = [somewhere(rng) for _ in range(200)]
    books = [Tables(4096, secret) for secret in (SECRET, SECRET, b"t" * 16)]
    for book in books:
        book.add(keys, b"x", NOW)
    one, same, other = ([book.bucket[book.find(k)] for k in keys] for book in books)
    assert one == same
    assert sum(a == b for a, b in zip(one, other, strict=True)) < 40


def test_memory_of_an_entry() -> None:
    """The plan counts 136 bytes; the fixed part of small tables is 0.8 MB."""
    small = Tables(4096, SECRET)
    assert small.memory_bytes < 900_000
    tables, rng = Tables(100_000, SECRET), Random(11)
    for number in range(100):
        tables.add([somewhere(rng) for _ in range(1000)], b"%d" % number, NOW)
    assert BUCKET == 64
    assert tables.roles[RELAY].itemsize == 4
    assert tables.memory_bytes / len(tables) < 150


def test_rows_that_leave_give_their_places_to_those_that_come() -> None:
    """Fewer, as many and more than leave; each way the rest is as it was."""
    rng = Random(11)
    for coming in (3, 10, 30):
        tables, others = Tables(640, SECRET), Tables(640, SECRET)
        tables.add([somewhere(rng) for _ in range(40)], b"one", NOW)
        for row in range(0, len(tables), 3):
            tables.succeeded(row, NOW)
        others.add([somewhere(rng) for _ in range(coming)], b"two", NOW)
        rows = [
            (others.key(row), others.unpacked(others.key(row), others.core(row)))
            for row in range(len(others))
        ]
        # The last rows are among those that leave, and tried ones.
        gone = [0, 1, 2, 3, 20, *range(len(tables) - 5, len(tables))]
        kept = {tables.key(row): tables.core(row) for row in range(len(tables)) if row not in gone}
        tables.exchange(gone, rows)
        check(tables)
        here = {tables.key(row): tables.core(row) for row in range(len(tables))}
        assert here == kept | {others.key(row): others.core(row) for row in range(len(others))}


def test_what_follows_from_an_address_need_not_be_stored() -> None:
    """Rows that say no bucket come to lie where `add` put them."""
    rng = Random(12)
    tables, again = Tables(640, SECRET), Tables(640, SECRET)
    told = [somewhere(rng) for _ in range(30)]
    tables.add(told, b"teller", NOW)
    source = tables.source[0]
    core = CORE.pack(DERIVED, 0, source, NOW, 0, 0, 0, 0, 0)
    assert again.load([(tables.key(row), core) for row in range(len(tables))]) == []
    check(again)
    assert [again.core(row) for row in range(30)] == [tables.core(row) for row in range(30)]
