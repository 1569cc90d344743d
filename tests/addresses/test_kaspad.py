"""Reading a kaspad's own database: both layouts, hostile rows, and a source that stays as it is."""

from __future__ import annotations

import contextlib
import hashlib
import subprocess
import sys
import textwrap
from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.addresses.kaspad import LAYOUTS, UndecodableError, address_row, ban_row
from appliance.addresses.kaspad_db import find_meta, import_kaspad
from appliance.addresses.keys import pack, synthetic
from appliance.addresses.model import RelayRole, Want
from appliance.addresses.store import AddressBook
from appliance.cli.main import main
from appliance.errors import ApplianceError
from appliance.network import Endpoint, Network
from tests.addresses import kaspad_writer as kaspad

NET = Network.MAINNET
NOW = 1_800_000_000.0
PEER = "12D3KooWGRUVh7U8YBkjMLcZfdNkDXvYJdKq9Bz1m5Nf8aPbQxkV"
PRIVATE = "12D3KooWRrivateRrivateRrivateRrivateRrivateRrivateRri"


def hashes(directory: Path) -> dict[str, str]:
    return {
        str(path): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(directory.rglob("*"))
        if path.is_file()
    }


def test_the_stock_layout_byte_for_byte() -> None:
    """The row of 1.2.3.4:16111 with 7 failures: 18 bytes, as bincode writes it."""
    value = bytes.fromhex("07000000000000000000000001020304ef3e")
    key = bytes.fromhex("00000000000000000000ffff01020304ef3e")
    found = address_row(key, value)
    assert (found.layout, found.failures) == ("stock", 7)
    assert found.address == pack(Endpoint("1.2.3.4", 16111))
    assert kaspad.stock("1.2.3.4", 16111, 7) == value
    assert kaspad.key("1.2.3.4", 16111)[1:] == key


def test_the_relay_capable_layout_byte_for_byte() -> None:
    value = bytes.fromhex(
        "0b000000000000000000000005060708ef3e"  # as stock
        "010000000000000001f03e018000000001983a0000000000000100000000"
        "01030000000000000041424300"
    )  # fmt: skip
    found = address_row(kaspad.key("5.6.7.8", 16111)[1:], value)
    assert found.layout == "relay 3"
    assert (found.failures, found.services, found.relay_port) == (11, 1, 16112)
    assert (found.relay_capacity, found.relay_ttl_ms) == (128, 15_000)
    assert (found.relay_role, found.peer_id, found.hint) == (RelayRole.PUBLIC, "ABC", "")


@pytest.mark.parametrize("layout", [1, 2, 3])
@pytest.mark.parametrize("ip", ["5.6.7.8", "2a01:4f8::1"])
def test_each_layout_is_told_by_where_it_ends(layout: int, ip: str) -> None:
    value = kaspad.relay_capable(ip, 16111, layout=layout, role=1, hint="/ip4/1.1.1.1/tcp/1")
    key = kaspad.key(ip, 16111)[1:]
    found = address_row(key, value)
    assert found.layout == LAYOUTS[layout]
    assert found.relay_role is (RelayRole.PRIVATE if layout > 1 else RelayRole.UNSPECIFIED)
    ends = {len(kaspad.stock(ip, 1))}
    ends |= {len(kaspad.relay_capable(ip, 1, layout=n, role=1)) for n in (1, 2)}
    for cut in range(len(value)):  # no prefix of a row is guessed to be one, but for the layouts
        if cut in ends:
            assert address_row(key, value[:cut]).layout != found.layout
        else:
            with pytest.raises(UndecodableError):
                address_row(key, value[:cut])
    with pytest.raises(UndecodableError):
        address_row(key, kaspad.relay_capable(ip, 16111) + b"\0")


def test_a_key_that_names_another_address_is_not_believed() -> None:
    with pytest.raises(UndecodableError, match="another address"):
        address_row(kaspad.key("5.6.7.9", 16111)[1:], kaspad.stock("5.6.7.8", 16111))
    with pytest.raises(UndecodableError, match="another address"):
        address_row(kaspad.key("5.6.7.8", 16112)[1:], kaspad.stock("5.6.7.8", 16111))
    with pytest.raises(UndecodableError, match="not a port"):
        address_row(kaspad.key("5.6.7.8", 0)[1:], kaspad.stock("5.6.7.8", 0))


@given(st.binary(max_size=40), st.binary(max_size=200))
def test_any_bytes_are_a_row_or_undecodable(key: bytes, value: bytes) -> None:
    for parse in (address_row, ban_row):
        with contextlib.suppress(UndecodableError):
            parse(key, value)


ROWS = [
    *((kaspad.key(f"11.{n}.0.1", 16111), kaspad.stock(f"11.{n}.0.1", 16111)) for n in range(50)),
    (kaspad.key("12.0.0.1", 16111), kaspad.relay_capable("12.0.0.1", 16111, peer_id=PEER)),
    (kaspad.key("12.1.0.1", 16111), kaspad.relay_capable("12.1.0.1", 16111, layout=1)),
    (kaspad.key("12.2.0.1", 16111), kaspad.stock("12.2.0.1", 16111, failures=4)),
    (kaspad.key("10.0.0.1", 16111), kaspad.stock("10.0.0.1", 16111)),
    (kaspad.key("12.3.0.1", 16111), b"\1\2\3"),
    (bytes([128, 1]), b""),
    (kaspad.ban_key("13.0.0.1"), int((NOW - 3600) * 1000).to_bytes(8, "little")),
    (kaspad.ban_key("13.0.0.2"), int((NOW - 90_000) * 1000).to_bytes(8, "little")),
    (kaspad.ban_key("13.0.0.3"), b"long ago!"),
    (kaspad.key("13.0.0.1", 16111), kaspad.stock("13.0.0.1", 16111)),
]


def test_a_database_of_both_layouts_is_imported_and_not_changed(tmp_path: Path) -> None:
    hint = "/ip4/12.0.0.1/tcp/16112/p2p/" + PEER
    octets, port = synthetic(PRIVATE)[12:16], int.from_bytes(synthetic(PRIVATE)[16:], "big")
    ip = ".".join(map(str, octets))
    private = kaspad.relay_capable(
        ip, port, services=0, relay_port=None, role=1, peer_id=PRIVATE, hint=hint
    )
    meta = tmp_path / "appdir" / "kaspa-mainnet" / "datadir" / "meta"
    kaspad.write(meta, [*ROWS, (kaspad.key(ip, port), private)]).close()
    before = hashes(tmp_path / "appdir")
    with AddressBook.open(tmp_path / "book", NET) as book:
        report = import_kaspad(book, find_meta(tmp_path / "appdir", NET), NOW)
        assert report.layouts == {"stock": 53, "relay 1": 1, "relay 3": 2}
        assert (report.undecodable, report.bans, report.bans_lapsed) == (3, 1, 1)
        assert report.added == 53  # 50, two relays, the private peer
        assert report.refused == {"failing": 1, "not routable": 1, "banned": 1}
        assert pack(Endpoint("11.7.0.1", 16111)) in book
        assert pack(Endpoint("13.0.0.1", 16111)) not in book  # banned
        assert book.is_banned(pack(Endpoint("13.0.0.1", 1)), NOW)
        assert not book.is_banned(pack(Endpoint("13.0.0.1", 1)), NOW + 24 * 3600)
        claim = book.capability(pack(Endpoint("12.0.0.1", 16111)), NOW)
        assert claim is not None
        assert (claim.relay_port, claim.peer_id, claim.signed) == (16112, PEER, False)
        assert book.counts()["relays"] == 0  # claims, until a connection proves them
        assert book.counts()["claimed"] == 2
        assert book.counts()["private"] == 1
        again = import_kaspad(book, meta, NOW + 1)
        assert (again.added, again.known) == (0, 53)
    assert hashes(tmp_path / "appdir") == before


RUNNING = """
import sys
from pathlib import Path
from random import Random
sys.path.insert(0, sys.argv[2])
from tests.addresses import kaspad_writer as kaspad
from tests.addresses.test_kaspad import ROWS
database = kaspad.write(Path(sys.argv[1]), ROWS)
database[kaspad.key("14.0.0.1", 16111)] = kaspad.stock("14.0.0.1", 16111)
print("running", flush=True)
for line in sys.stdin:
    database[kaspad.key("14.0.0.2", 16111)] = kaspad.stock("14.0.0.2", 16111)
    database.flush()
    print(len(database[kaspad.key("14.0.0.1", 16111)]), flush=True)
"""


def test_a_running_kaspad_is_read_and_not_disturbed(tmp_path: Path) -> None:
    meta = tmp_path / "kaspa-mainnet" / "datadir" / "meta"
    root = Path(__file__).parents[2]
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(RUNNING), str(meta), str(root)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as running:
        assert running.stdin is not None
        assert running.stdout is not None
        assert running.stdout.readline() == "running\n"
        before = hashes(meta)
        with AddressBook.open(tmp_path / "book", NET) as book:
            import_kaspad(book, meta, NOW)
            assert pack(Endpoint("14.0.0.1", 16111)) in book  # only in its log so far
            assert book.counts()["claimed"] == 2
        assert hashes(meta) == before
        running.stdin.write("go on\n")
        running.stdin.close()
        assert running.stdout.readline() == "18\n"  # it still reads and writes
    assert running.returncode == 0


def test_where_a_database_is_looked_for(tmp_path: Path) -> None:
    with pytest.raises(ApplianceError, match="no kaspad database of the network mainnet"):
        find_meta(tmp_path, NET)
    meta = tmp_path / "kaspa-testnet-10" / "datadir" / "meta"
    kaspad.write(meta, []).close()
    assert find_meta(meta, Network.TESTNET_10) == meta
    assert find_meta(tmp_path, Network.TESTNET_10) == meta
    with pytest.raises(ApplianceError, match="is of the network kaspa-testnet-10"):
        find_meta(meta, NET)
    with pytest.raises(ApplianceError, match="no kaspad database"):
        find_meta(tmp_path, NET)


def test_a_database_that_is_none_is_refused_in_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "meta").mkdir()
    (tmp_path / "meta" / "CURRENT").write_text("MANIFEST-000001\n")
    with AddressBook.open(tmp_path / "book", NET) as book:
        with pytest.raises(ApplianceError, match="changed 5 times"):
            import_kaspad(book, tmp_path / "meta", NOW)
        (tmp_path / "meta" / "MANIFEST-000001").write_bytes(b"rubbish" * 100)
        with pytest.raises(ApplianceError, match="cannot be read"):
            import_kaspad(book, tmp_path / "meta", NOW)


def test_the_command_line_imports_and_shows(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kaspad.write(tmp_path / "kaspa-mainnet" / "datadir" / "meta", ROWS).close()
    state = ["--state", str(tmp_path / "state")]
    assert main(["addresses", "import", "--kaspad", str(tmp_path), *state]) == 1
    assert "no network was named" in capsys.readouterr().err
    assert (
        main(["addresses", "import", "--kaspad", str(tmp_path), *state, "--network", "mainnet"])
        == 0
    )
    out = capsys.readouterr().out
    assert "55 addresses, 1 relay 1, 1 relay 3, 53 stock" in out
    assert "3 rows could not be decoded" in out
    assert "1 not taken: failing" in out
    assert main(["addresses", "import", "--kaspad", str(tmp_path), *state]) == 0
    capsys.readouterr()
    assert main(["addresses", *state, "--relays"]) == 0
    out = capsys.readouterr().out
    assert "12.0.0.1:16111  never reached" in out
    assert "told by kaspad (kaspad)" in out
    assert "claim: unsigned, by kaspad" in out
    assert "a relay only once a connection proves it" in out
    assert "11.1.0.1" not in out
    with AddressBook.open(tmp_path / "state" / "addresses", NET) as book:  # as a running daemon
        found = book.select(1, NOW, Random(1), Want.DIRECT)
        assert found
        assert main(["addresses", *state, "--json"]) == 0
        assert '"address": "11.1.0.1:16111"' in capsys.readouterr().out
    assert main(["addresses", "--state", str(tmp_path / "elsewhere")]) == 1
    assert "there is no address book" in capsys.readouterr().err
