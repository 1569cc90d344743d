"""What cannot run says so in one sentence, starts nothing and touches nothing."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from appliance.addresses.model import PeerRecord, Source
from appliance.addresses.store import AddressBook
from appliance.bridge.identity import KEY_FILE, Identity
from appliance.network import Network
from tests.app.processes import contents, declaration, peer_id, typed, written

Document = dict[str, Any]


def refused(directory: Path, document: Document, **env: str) -> tuple[str, str | None]:
    """The sentence, without its prefix, and the hint of a start that must fail."""
    return refused_file(directory, written(directory, document), **env)


def refused_file(directory: Path, file: Path, **env: str) -> tuple[str, str | None]:
    done = typed(directory, "run", str(file), **env)
    assert done.returncode == 1, done.stderr
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    first, *rest = done.stderr.splitlines()
    assert len(rest) <= 1, done.stderr
    if not rest:
        return first.removeprefix("appliance: "), None
    assert rest[0].startswith("hint: ")
    return first.removeprefix("appliance: "), rest[0].removeprefix("hint: ")


def state_of(document: Document) -> Path:
    return Path(document["state"]["dir"])


def assert_nothing_half_started(document: Document) -> None:
    """Beside the identity and the book, which the next start uses, nothing is left."""
    state = state_of(document)
    left = {path.name for path in state.iterdir()} if state.exists() else set()
    assert left <= {KEY_FILE, "addresses"}


# --- the file


def test_a_missing_file(tmp_path: Path) -> None:
    sentence, _ = refused_file(tmp_path, tmp_path / "nowhere.yaml")
    assert "nowhere.yaml" in sentence
    assert contents(tmp_path) == {}


def test_an_unknown_field(tmp_path: Path) -> None:
    document = declaration(tmp_path, "typo", bridge={"relay_mod": "on"})
    sentence, _ = refused(tmp_path, document)
    assert sentence.startswith(f"{tmp_path}/typo.yaml:")
    assert "relay_mod" in sentence
    assert not state_of(document).exists()


def test_a_combination_that_a_flag_makes_impossible(tmp_path: Path) -> None:
    document = declaration(tmp_path, "flagged", bridge={"dial_private": False})
    done = typed(tmp_path, "run", str(written(tmp_path, document)), "--libp2p-relay-mode=on")
    assert done.returncode == 1
    assert "--libp2p-relay-mode" in done.stderr
    assert not state_of(document).exists()


# --- ports


@pytest.fixture
def taken() -> Iterator[str]:
    """An endpoint that somebody else has."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield "{}:{}".format(*server.getsockname())


RELAY = f"/ip4/127.0.0.1/tcp/1/p2p/{Identity.generate().peer_id}"

Occupied = Callable[[Path, str], Document]
OCCUPIED: dict[str, Occupied] = {
    "bridge.listen": lambda d, where: declaration(d, "busy", bridge={"listen": [where]}),
    "bridge.slots": lambda d, where: declaration(
        d,
        "busy",
        bridge={"slots": where, "relays": [RELAY], "peers": [Identity.generate().peer_id]},
    ),
    "metrics.listen": lambda d, where: declaration(d, "busy", metrics={"listen": where}),
    "node.p2p": lambda d, where: declaration(d, "busy", node={"p2p": where}),
}


@pytest.mark.parametrize("field", OCCUPIED)
def test_an_occupied_port(field: str, tmp_path: Path, taken: str) -> None:
    document = OCCUPIED[field](tmp_path, taken)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.setblocking(False)
        sentence, _ = refused(tmp_path, document, NOTIFY_SOCKET=str(tmp_path / "notify"))
        with pytest.raises(BlockingIOError):
            manager.recv(4096)  # never ready
    assert sentence.startswith(f"{tmp_path}/busy.yaml:")
    assert f"{taken} is in use already by " in sentence
    assert f" {field}" in sentence
    assert not state_of(document).exists()


# --- the identity


def spoil_garbled(key: Path) -> None:
    key.write_bytes(b"not a key at all")


def spoil_foreign(key: Path) -> None:
    # A libp2p key of another kind: protobuf {type: secp256k1, data: 32 bytes}.
    key.write_bytes(b"\x08\x02\x12\x20" + bytes(range(32)))


def spoil_readable(key: Path) -> None:
    key.chmod(0o644)


def spoil_unreadable(key: Path) -> None:
    # What no user can read, not even root.
    key.unlink()
    key.mkdir()


@pytest.mark.parametrize("spoil", [spoil_garbled, spoil_foreign, spoil_readable, spoil_unreadable])
def test_a_bad_identity_key(spoil: Callable[[Path], None], tmp_path: Path) -> None:
    document = declaration(tmp_path, "who")
    peer_id(document)
    key = state_of(document) / KEY_FILE
    spoil(key)
    before = contents(tmp_path)
    sentence, _ = refused(tmp_path, document)
    assert str(key) in sentence
    after = contents(tmp_path)
    del after["who.yaml"]
    assert after == before


# --- the book and the state directory


def filled_book(document: Document, network: Network = Network.SIMNET) -> Path:
    directory = state_of(document) / "addresses"
    with AddressBook.open(directory, network) as book:
        for _ in range(3):
            record = PeerRecord(
                Identity.generate().peer_id,
                ("/ip4/192.0.2.1/tcp/16112",),
                is_relay=True,
                last_seen=1_700_000_000,
                source=Source.DECLARED,
            )
            assert book.remember(record)
    return directory


def assert_kept(before: dict[str, str], directory: Path) -> None:
    """Nothing of the book was changed; RocksDB's own text log and our lock do not count."""
    after = contents(directory)
    spoken = {name for name in after if name.startswith("LOG") or name == "owner.lock"}
    assert {n: d for n, d in after.items() if n not in spoken} == {
        n: d for n, d in before.items() if n not in spoken
    }


def test_a_corrupt_book(tmp_path: Path) -> None:
    document = declaration(tmp_path, "corrupt")
    peer_id(document)
    directory = filled_book(document)
    (directory / "CURRENT").write_text("MANIFEST-999999\n")
    before = contents(directory)
    sentence, hint = refused(tmp_path, document)
    assert str(directory) in sentence and "corrupt" in sentence
    assert hint
    assert_kept(before, directory)
    assert_nothing_half_started(document)


def test_the_book_of_another_network(tmp_path: Path) -> None:
    document = declaration(tmp_path, "moved")
    peer_id(document)
    directory = filled_book(document, Network.MAINNET)
    before = contents(directory)
    sentence, hint = refused(tmp_path, document)
    assert "mainnet" in sentence and "simnet" in sentence
    assert hint
    assert_kept(before, directory)


def test_a_state_directory_that_is_a_file(tmp_path: Path) -> None:
    document = declaration(tmp_path, "filed")
    state_of(document).write_text("my notes")
    sentence, _ = refused(tmp_path, document)
    assert sentence.endswith(f": state.dir: {state_of(document)} is not a directory")
    assert state_of(document).read_text() == "my notes"
