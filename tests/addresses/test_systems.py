"""Autonomous systems: the operator's table, and a book that counts by it."""

from __future__ import annotations

import ipaddress
from pathlib import Path
from random import Random

import pytest

from appliance.addresses.compiled import SYSTEMS_CACHE, compiled_systems
from appliance.addresses.keys import MAPPED, pack, synthetic
from appliance.addresses.model import Origin, RelayClaim, Source
from appliance.addresses.options import StoreOptions
from appliance.addresses.store import AddressBook
from appliance.addresses.systems import AutonomousSystems, read_systems
from appliance.addresses.tables import Tables
from appliance.errors import ApplianceError
from appliance.network import Endpoint, Network
from tests.addresses.peers import NOW, heard_from, key, peer_id, somewhere
from tests.addresses.test_tables import check

ATTACKER = 666


def table(*lines: str) -> AutonomousSystems:
    return AutonomousSystems(line.encode() + b"\n" for line in lines)


def of_attacker() -> AutonomousSystems:
    """66.0.0.0/8 is one system; of all others nothing is known."""
    return table(f"66.0.0.0/8 AS{ATTACKER}")


# --- the table


def test_the_smallest_network_counts_and_the_one_around_it_goes_on() -> None:
    found = table(
        "# by asmap-tool",
        "1.0.0.0/8 AS1",
        "1.2.0.0/16 2",
        "1.2.3.0/24 as3   # a customer",
        "1.2.255.255/32 4",
        "",
        "255.0.0.0/8 5",
        "2606:4700::/32 13335",
        "2606:4700:1::/48 7",
    )
    systems = {
        "0.255.255.255": 0, "1.0.0.0": 1, "1.2.0.0": 2, "1.2.2.255": 2, "1.2.3.0": 3,
        "1.2.3.255": 3, "1.2.4.0": 2, "1.2.255.255": 4, "1.3.0.0": 1, "2.0.0.0": 0,
        "255.255.255.255": 0, "2606:4700::1": 13335, "2606:4700:1:ffff::1": 7,
        "2606:4700:2::": 13335, "2606:4701::": 0, "::1": 0,
    }  # fmt: skip
    assert {host: found.of(key(host)) for host in systems} == systems
    assert found.of(synthetic(peer_id(1))) == 0, "a private peer is nowhere"


def test_a_table_means_what_its_lines_say() -> None:
    rng = Random(4)
    some = {
        ipaddress.ip_network((rng.getrandbits(32), length), strict=False)
        for length in (2, 6, 8, 8, 12, 12, 16, 16, 24, 30, 32)
        for _ in range(4)
    }
    lines = {network: rng.randrange(1, 4) for network in sorted(some)}
    found = table(*(f"{network} {system}" for network, system in lines.items()))
    edges = {int(end) + step for net in some for end in (net[0], net[-1]) for step in (-1, 0, 1)}
    for edge in edges | {rng.getrandbits(32) for _ in range(200)}:
        if not 0 <= edge < 240 << 24:
            continue
        address = ipaddress.IPv4Address(edge)
        around = [network for network in some if address in network]
        smallest = max(around, key=lambda network: network.prefixlen, default=None)
        expected = 0 if smallest is None else lines[smallest]
        assert found.of(pack(Endpoint(str(address), 1))) == expected, address


def test_neighbours_of_one_system_take_one_place() -> None:
    assert len(table("1.0.0.0/24 5", "1.0.1.0/24 5", "1.0.1.128/25 5")) == 2  # and what is behind


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("1.0.0.0/24", "not a network and a number, as in `1.0.0.0/24 13335`"),
        ("1.0.0.0/24 5 6", "not a network and a number, as in `1.0.0.0/24 13335`"),
        ("1.0.0/24 5", "'1.0.0/24' is not a network, as in 1.0.0.0/24"),
        ("1.0.0.0 5", "'1.0.0.0' has no length from /1 to /32"),
        ("1.0.0.0/33 5", "'1.0.0.0/33' has no length from /1 to /32"),
        ("2a01::/65 5", "'2a01::/65' has no length from /1 to /64"),
        ("1.0.0.1/24 5", "'1.0.0.1/24' has bits behind its length"),
        ("1.0.0.0/24 ASx", "'ASx' is no system, from 1 to 4294967295"),
        ("1.0.0.0/24 0", "'0' is no system, from 1 to 4294967295"),
        ("1.0.0.0/24 4294967296", "'4294967296' is no system, from 1 to 4294967295"),
        ("0.5.0.0/16 5", "0.5.0.0/16 is out of order"),
        ("0.9.0.0/16 5", "0.9.0.0/16 is there already"),
        ("1" * 200, "a line of more than 128 bytes"),
    ],
)
def test_a_wrong_line_is_told_with_its_place(tmp_path: Path, line: str, fault: str) -> None:
    file = tmp_path / "asmap.txt"
    file.write_text(f"0.8.0.0/16 7\n0.9.0.0/16 7\n{line}\n")
    with pytest.raises(ApplianceError) as caught:
        read_systems(file)
    assert caught.value.message == f"{file}:3: {fault}"
    assert caught.value.hint is not None and "1.0.0.0/24 13335" in caught.value.hint


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    for place in (tmp_path, tmp_path / "missing"):
        with pytest.raises(ApplianceError, match=r"discovery\.as_table: .* is not a file"):
            read_systems(place)


# --- its compiled form


def written(tmp_path: Path, *lines: str) -> Path:
    file = tmp_path / "asmap.txt"
    file.write_text("".join(f"{line}\n" for line in lines))
    return file


def test_a_table_is_compiled_once(tmp_path: Path) -> None:
    file = written(tmp_path, "1.0.0.0/8 1", "1.2.0.0/16 2", "2606:4700::/32 13335")
    cache = tmp_path / SYSTEMS_CACHE
    hosts = ("0.1.1.1", "1.1.1.1", "1.2.1.1", "9.1.1.1", "2606:4700::1", "2a01::1")
    made, stored = compiled_systems(file, cache), cache.read_bytes()
    again = compiled_systems(file, cache)
    assert [again.of(key(host)) for host in hosts] == [0, 1, 2, 0, 13335, 0]
    assert [made.of(key(host)) for host in hosts] == [again.of(key(host)) for host in hosts]
    assert made.digest == again.digest == read_systems(file).digest
    file.write_text(file.read_text().replace("16 2", "16 3"))
    assert compiled_systems(file, cache).of(key("1.2.1.1")) == 3
    assert cache.read_bytes() != stored


@pytest.mark.parametrize("damage", ["empty", "torn", "rotten", "longer"])
def test_a_damaged_compiled_form_is_made_anew(tmp_path: Path, damage: str) -> None:
    file, cache = written(tmp_path, "1.0.0.0/8 1", "2606:4700::/32 2"), tmp_path / SYSTEMS_CACHE
    compiled_systems(file, cache)
    good = cache.read_bytes()
    at = len(good) - 50  # in a column
    damaged = {
        "empty": b"",
        "torn": good[:at],
        "rotten": good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :],
        "longer": good + b"x",
    }
    cache.write_bytes(damaged[damage])
    assert compiled_systems(file, cache).of(key("1.1.1.1")) == 1
    assert cache.read_bytes() == good


def test_a_wrong_line_is_told_whatever_was_compiled_before(tmp_path: Path) -> None:
    file, cache = written(tmp_path, "1.0.0.0/8 1"), tmp_path / SYSTEMS_CACHE
    compiled_systems(file, cache)
    file.write_text("1.0.0.0/8 1\nnonsense\n")
    with pytest.raises(ApplianceError, match=r"asmap\.txt:2: not a network and a number"):
        compiled_systems(file, cache)


def test_a_table_is_read_where_nothing_can_be_kept(tmp_path: Path) -> None:
    file = written(tmp_path, "1.0.0.0/8 1")
    assert compiled_systems(file, tmp_path / "missing" / SYSTEMS_CACHE).of(key("1.1.1.1")) == 1


# --- the book


def his(number: int, rng: Random) -> bytes:
    """One of 256 networks of the attacker."""
    return MAPPED + b"\x42" + bytes([number % 256]) + rng.randbytes(2) + b"\x3e\xef"


def test_every_way_to_a_row_leads_there() -> None:
    rng = Random(2)
    tables = Tables(640, b"s" * 16, systems=of_attacker())
    for turn in range(20):
        told = [somewhere(rng) for _ in range(40)] + [his(n, rng) for n in range(40)]
        tables.add([*told, key(f"2a01:{turn:x}::1")], b"%d" % turn, NOW + turn)
        for row in (0, len(tables) // 2):
            tables.succeeded(row, NOW + turn)
    check(tables)
    of_his = [row for row in range(len(tables)) if tables.key(row)[12] == 0x42]
    assert 0 < len(of_his) <= 640 // 64, "one system holds no more than one network may"
    again = Tables(640, b"s" * 16, systems=of_attacker())
    again.restore(tables.dump())
    check(again)


def test_addresses_of_one_system_are_one_network(tmp_path: Path) -> None:
    """In a thousand networks of one system an attacker gets what he gets in one."""
    rng = Random(3)
    honest = [somewhere(rng) for _ in range(2000)]
    honest = [one for one in honest if one[12] != 0x42]
    shares = {}
    for name, systems in (("prefixes", None), ("systems", of_attacker())):
        with AddressBook.open(tmp_path / name, Network.MAINNET, systems=systems) as book:
            for turn in range(20):
                book.add(honest[turn::20], heard_from(f"{12 + turn}.1.1.1"), NOW)
                teller = heard_from(f"66.{turn}.1.1")
                book.add([his(n, rng) for n in range(turn, 1000, 20)], teller, NOW)
            chosen = [one for n in range(2000) for one in book.select(1, NOW, Random(n))]
            shares[name] = sum(one.address[12] == 0x42 for one in chosen) / len(chosen)
            if systems is not None:
                together = book.select(64, NOW, rng)
                assert sum(one.address[12] == 0x42 for one in together) <= 1
    assert shares["prefixes"] > 0.1, "he has more networks than anybody"
    assert shares["systems"] <= 0.05


def test_tellers_of_one_system_are_one_teller(tmp_path: Path) -> None:
    rng = Random(5)
    options = StoreOptions(entries=1024)
    with AddressBook.open(
        tmp_path / "book", Network.MAINNET, options, systems=of_attacker()
    ) as book:
        for turn in range(40):
            book.add([somewhere(rng) for _ in range(20)], heard_from(f"66.{turn}.1.1"), NOW)
        assert len(book) == 1024 // 16
        relay = "/ip4/66.9.9.9/tcp/16111"
        claims = [
            RelayClaim(synthetic(peer_id(n)), peer_id=peer_id(n), hint=relay) for n in range(40)
        ]
        book.learn_claims(claims, Origin(Source.GOSSIP, "11.1.1.1"), NOW)
        assert book.counts()["private"] == 1024 // 64, "reached through one system's relays"


def test_another_table_gives_every_address_its_place_anew(tmp_path: Path) -> None:
    """Nothing is lost, with a table, with another one, and without any."""
    rng = Random(6)
    wanted = {one for one in (somewhere(rng) for _ in range(300)) if one[12] != 0x42}
    wanted |= {his(n, rng) for n in range(60)}
    place = tmp_path / "book"
    with AddressBook.open(place, Network.MAINNET) as book:
        for turn, one in enumerate(sorted(wanted)):
            book.add([one], heard_from(f"{11 + turn % 80}.1.1.1"), NOW)
        for one in rng.sample(sorted(wanted), 30):
            book.record_success(one, NOW)
    two = table("66.0.0.0/11 1", "66.32.0.0/11 2")
    for systems, networks in ((of_attacker(), 1), (two, 2), (None, 60)):
        with AddressBook.open(place, Network.MAINNET, systems=systems) as book:
            assert set(book.addresses()) == wanted
            assert len(book) == len(wanted) and book.counts()["tried"] == 30
            check(book._tables)
            # A choice names no two of one network, so as many of his as he has networks.
            chosen = book.select(len(wanted), NOW, rng)
            assert sum(one.address[12] == 0x42 for one in chosen) <= networks
            rows = [row for row in range(len(book)) if book._tables.key(row)[12] == 0x42]
            assert len({book._tables.group[row] for row in rows}) == networks
