"""The identity file: made once, kept for ever, read by nobody else, refused when it is wrong."""

from __future__ import annotations

import multiprocessing
import os
import stat
from pathlib import Path

import pytest
from libp2p.crypto.ed25519 import Ed25519PrivateKey
from libp2p.crypto.rsa import create_new_key_pair as new_rsa
from libp2p.peer.id import ID

from appliance.bridge.identity import KEY_FILE, Identity, load_or_create
from appliance.errors import ApplianceError


def write(path: Path, data: bytes, mode: int = 0o600) -> Path:
    path.write_bytes(data)
    path.chmod(mode)
    return path


def names_in(directory: Path) -> list[str]:
    return [path.name for path in directory.iterdir()]


def test_it_is_made_once(tmp_path: Path) -> None:
    path = tmp_path / "state" / KEY_FILE
    first = load_or_create(path)
    before = path.read_bytes()
    assert load_or_create(path) == first
    assert path.read_bytes() == before
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert names_in(path.parent) == [KEY_FILE]


def test_the_form_is_that_of_other_libp2p_nodes(tmp_path: Path) -> None:
    """libp2p's protobuf: type 1 (ed25519), then 64 bytes of seed and public key."""
    own = load_or_create(tmp_path / KEY_FILE)
    data = (tmp_path / KEY_FILE).read_bytes()
    assert data[:4].hex() == "08011240" and len(data) == 68
    public = Ed25519PrivateKey.from_bytes(data[4:36]).get_public_key()
    assert data[36:] == public.to_bytes()
    assert str(ID.from_pubkey(public)) == own.peer_id


def test_a_key_without_its_public_half_is_fine(tmp_path: Path) -> None:
    own = load_or_create(tmp_path / KEY_FILE)
    seed = (tmp_path / KEY_FILE).read_bytes()[4:36]
    short = write(tmp_path / "short", b"\x08\x01\x12\x20" + seed)
    assert load_or_create(short).peer_id == own.peer_id


def test_the_key_never_shows(tmp_path: Path) -> None:
    own = load_or_create(tmp_path / KEY_FILE)
    seed = (tmp_path / KEY_FILE).read_bytes()[4:36]
    assert repr(own) == f"Identity(peer_id={own.peer_id!r})"
    assert seed.hex() not in repr(own) and str(seed) not in repr(own)


GOOD = b"\x08\x01\x12\x40" + bytes(64)
WRONG = {
    "empty": b"",
    "text": b"not a key at all\n",
    "halves that do not belong together": GOOD,
    "another size": b"\x08\x01\x12\x21" + bytes(33),
    "an rsa key": new_rsa(2048).private_key.serialize(),
    "an unknown type": b"\x08\x09\x12\x20" + bytes(32),
    "far too large": b"\x08\x01\x12\x20" + bytes(32) + b"\x1a\x80\x40" + bytes(8192),
}


@pytest.mark.parametrize("data", WRONG.values(), ids=WRONG)
def test_a_corrupt_key_is_refused_and_left_alone(tmp_path: Path, data: bytes) -> None:
    path = write(tmp_path / KEY_FILE, data)
    with pytest.raises(ApplianceError, match="this is no identity key") as caught:
        load_or_create(path)
    assert caught.value.message.startswith(str(path)) and caught.value.hint
    assert path.read_bytes() == data


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o601])
def test_a_key_that_others_may_read_is_refused(tmp_path: Path, mode: int) -> None:
    load_or_create(tmp_path / KEY_FILE)
    (tmp_path / KEY_FILE).chmod(mode)
    with pytest.raises(ApplianceError, match="can be read by others") as caught:
        load_or_create(tmp_path / KEY_FILE)
    assert caught.value.hint == f"chmod 600 {tmp_path / KEY_FILE}"


def test_what_is_in_the_way_is_told_in_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "a file").write_text("")
    with pytest.raises(ApplianceError, match="not a directory"):
        load_or_create(tmp_path / "a file" / KEY_FILE)
    (tmp_path / "directory").mkdir(mode=0o700)
    with pytest.raises(ApplianceError, match="is a directory"):
        load_or_create(tmp_path / "directory")


def test_a_link_to_nowhere_is_no_endless_loop(tmp_path: Path) -> None:
    (tmp_path / KEY_FILE).symlink_to(tmp_path / "gone")
    with pytest.raises(ApplianceError, match="leads to no file"):
        load_or_create(tmp_path / KEY_FILE)
    assert names_in(tmp_path) == [KEY_FILE]


def test_what_a_crash_left_behind_does_not_matter(tmp_path: Path) -> None:
    """In a container the process id is always the same."""
    for name in (f".{KEY_FILE}.{os.getpid()}", f".{KEY_FILE}.tmp", f"{KEY_FILE}.tmp"):
        write(tmp_path / name, b"half a k")
    assert load_or_create(tmp_path / KEY_FILE).peer_id


def _peer_id(path: Path) -> str:
    return load_or_create(path).peer_id


def test_processes_that_start_together_agree_on_one_key(tmp_path: Path) -> None:
    with multiprocessing.get_context("fork").Pool(4) as pool:
        ids = pool.map(_peer_id, [tmp_path / "s" / KEY_FILE] * 12, chunksize=1)
    assert len(set(ids)) == 1
    assert names_in(tmp_path / "s") == [KEY_FILE]


def test_two_identities_differ() -> None:
    assert Identity.generate().peer_id != Identity.generate().peer_id
