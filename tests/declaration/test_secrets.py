"""Secrets are files that a declaration names: what such a file must be, and that nothing shows."""

from __future__ import annotations

import copy
import dataclasses
import json
import os
import pickle
import re
import stat
import traceback
import typing
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from appliance.declaration import DeclarationErrors, Secret, SecretFile, loads
from appliance.declaration.documents import KINDS
from appliance.declaration.reference import reference
from appliance.declaration.schema import document_schema
from appliance.declaration.secrets import complaint_about, looks_like_secret
from appliance.declaration.sections import Section, walk
from appliance.declaration.settings import Setting, settings_of
from appliance.errors import ApplianceError
from tests.declaration.test_faults import HEAD

CONTENT: Final = b"c0ffee-correct-horse-battery-staple"

SUSPICIOUS: Final = re.compile(
    r"(?i)(?<![a-z])(key|secret|password|passphrase|token|credential|psk|private)s?(?![a-z])"
)
# Fields that sound like secrets and are none, each with its reason.
HARMLESS: Final = {
    "bridge.dial_private": "private addresses",
    "bridge.private_inbound_target": "a number of private peers",
    "bridge.peers": "peer ids of private peers, which are public",
    "bridge.relays": "used while we are private",
    "bridge.slots": "a port for each private peer",
    "caps.outbound_private": "a number of private peers",
    "caps.unknown_relay_inbound": "a number of private peers",
    "discovery.relays_wanted": "a number of relays, held while we are private",
}

# Fields that take no secret, and must not repeat one that was put there by mistake.
MISTAKEN: Final = {"ssh.authorized_keys": "a private key, where its public half belongs"}


def fields() -> Iterator[tuple[str, Setting, Any]]:
    """Each field of every kind of document: path, setting, type."""
    for cls in KINDS.values():
        types = dict(_types(cls, ""))
        for path, setting in walk(cls):
            if not isinstance(setting.kind, Section):
                yield path, setting, types[path]


def _types(cls: type, prefix: str) -> Iterator[tuple[str, Any]]:
    for name, hint in typing.get_type_hints(cls).items():
        kind = settings_of(cls)[name].kind
        yield f"{prefix}{name}", hint
        if isinstance(kind, Section):
            yield from _types(kind.cls, f"{prefix}{name}.")


# --- the types


def test_what_sounds_like_a_secret_is_a_file_that_holds_it() -> None:
    sounding = {
        path: setting
        for path, setting, _ in fields()
        if SUSPICIOUS.search(path.replace("_", " ")) or SUSPICIOUS.search(setting.doc)
    }
    open_ones = {path for path, setting in sounding.items() if not setting.kind.secret}
    assert open_ones == set(HARMLESS), "a secret is a SecretFile; what only sounds so has a reason"
    assert "identity.key" in sounding


def test_the_type_of_a_secret_says_that_it_is_a_file() -> None:
    for path, setting, hint in fields():
        assert setting.kind.secret == (hint is SecretFile or path in MISTAKEN), path


# --- nothing shows


def test_no_text_of_a_declaration_shows_a_secret(tmp_path: Path) -> None:
    key = tmp_path / "box.key"
    key.write_bytes(CONTENT)
    key.chmod(0o600)
    box = loads(HEAD + f"identity: {{key: {key}}}\n")
    secret = box.identity.key.read("key")
    assert secret is not None
    assert secret.reveal() == CONTENT
    held = {"declaration": box, "secret": secret}
    texts = [
        repr(held),
        str(secret),
        f"{secret}",
        f"{secret!s:>20}",
        "%s %r" % (secret, secret),  # noqa: UP031 - as loggers format
        json.dumps(dataclasses.asdict(box), default=str),
        json.dumps(held, default=str),
        json.dumps(document_schema()),
        reference(),
        repr(copy.deepcopy(held)),
        "".join(traceback.format_exception(ValueError(secret))),
    ]
    for text in texts:
        assert CONTENT.decode() not in text
        assert CONTENT.hex() not in text
    assert "<redacted>" in texts[0]


def test_a_secret_leaves_only_when_it_is_asked() -> None:
    secret = Secret(CONTENT)
    assert secret == Secret(CONTENT)
    assert secret != Secret(b"other")
    assert secret != CONTENT
    ways: list[Callable[[Any], object]] = [pickle.dumps, json.dumps, hash, bytes, iter, len]
    for leave in ways:
        with pytest.raises(TypeError) as caught:
            leave(secret)
        assert CONTENT.decode() not in str(caught.value)


SEED: Final = "c0ffee" * 10 + "c0ff"
PASTED: Final = {
    "hex": SEED,
    "hex in quotes": f'"{SEED}"',
    "hex as a program prints it": f"0x{SEED}",
    "base64": "wP/uwP/uwP/uwP/uwP/uwP/uwP/uwP/uwP/uwP/uwP8=",
    "base64 that begins like a path": "/P/uwP/uwP/uwP/uwP/uwP/uwP/uwP/uwP/uwP/uwP8=",
    "base64 for addresses": "wP_uwP_uwP_uwP-uwP_uwP_uwP_uwP_uwP_uw0_uwP8",
    "PEM": '"-----BEGIN PRIVATE KEY-----\\nwP/uwP/uwP8=\\n-----END PRIVATE KEY-----\\n"',
    "a block": "|\n    wP/uwP/uwP8=\n    wP/uwP/uwP8=\n",
    "words": "legal winner thank year wave sausage worth useful legal winner thank yellow",
    "digits": "86753098675309",
    "a truth": "true",
    "a list": f"[{SEED}]",
    "a mapping": f"{{inline: {SEED}}}",
    "a name": f"{{{SEED}: x}}",
    "a missing space": f"{{key:{SEED}}}",
    "a tag": f"!{SEED} x",
    "a strange tag": f"!{SEED}!x y",
    "an alias": f"*{SEED}",
    "an anchor": f"&{SEED} x",
    "a directive's sign": f"%{SEED}",
    "an open quote": f'"{SEED}',
    "a bad escape": f'"{SEED}\\q"',
    "a bell": f"{SEED}\\a\a",
}


@pytest.mark.parametrize("name", PASTED)
@pytest.mark.parametrize("place", ["identity:\n  key: {}\n", "identity: {}\n"])
def test_what_stands_where_a_secret_belongs_is_never_repeated(name: str, place: str) -> None:
    with pytest.raises(DeclarationErrors) as caught:
        loads(HEAD + place.format(PASTED[name]), environ={})
    shown = "".join(traceback.format_exception(caught.value))
    for piece in ("c0ffee", "wP", "sausage", "8675309", "true"):
        assert piece not in shown


@pytest.mark.parametrize(
    "path",
    [
        "identity.key",
        "/var/lib/appliance/identity.key",
        "~/.local/state/appliance/identity.key",
        "/run/credentials/appliance.service/identity",
        "/nix/store/0c0ffee0c0ffee0c0ffee0c0ffee0c0f-box/secrets/identity-key",
        "/mnt/Disk1/Operators/appliance-at-home/secrets/identity-key",
        "/srv/12D3KooWPLttQvztS48b8FKqHMqcajDACcTqaKgnuYfq4FiekR4X/key",
        "./12D3KooWPLttQvztS48b8FKqHMqcajDACcTqaKgnuYfq4FiekR4X",
        "keys of this house/box one",
    ],
)
def test_paths_are_not_taken_for_secrets(path: str) -> None:
    assert not looks_like_secret(path)
    assert str(loads(HEAD + f"identity:\n  key: {path}\n", environ={}).identity.key).endswith(
        path.removeprefix("~").removeprefix("./")
    )


def test_the_key_is_in_the_state_directory_unless_it_is_elsewhere() -> None:
    def key(body: str) -> str:
        return str(loads(HEAD + body, environ={"HOME": "/home/me"}).identity.key)

    assert key("") == "/home/me/.local/state/appliance/box/identity.key"
    assert key("state: {dir: .state/box}\n") == ".state/box/identity.key"
    assert key("state: {dir: .state/box}\nidentity: {key: null}\n") == ".state/box/identity.key"
    assert key("identity: {key: ~/keys/box}\n") == "/home/me/keys/box"
    assert os.fspath(loads(HEAD + "identity: {key: keys/box}\n").identity.key) == "keys/box"


# --- the file


def written(path: Path, data: bytes = CONTENT, mode: int = 0o600) -> SecretFile:
    path.write_bytes(data)
    path.chmod(mode)
    return SecretFile(path)


def test_a_file_or_a_link_to_one_is_read(tmp_path: Path) -> None:
    own = written(tmp_path / "key", mode=0o400)
    (tmp_path / "link").symlink_to("key")
    for file in (own, SecretFile(tmp_path / "link")):
        secret = file.read("token")
        assert secret is not None
        assert secret.reveal() == CONTENT
    assert SecretFile(tmp_path / "none").read("token") is None
    full = written(tmp_path / "full", bytes(4096)).read("token")
    assert full is not None
    assert len(full.reveal()) == 4096


def test_what_is_no_such_file_is_refused_without_its_content(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    wrong = {
        "this is no token: it is empty": written(tmp_path / "empty", b""),
        "this is no token: it is larger than 4096 bytes": written(tmp_path / "b", CONTENT * 400),
        "the token can be read by others (mode 640)": written(tmp_path / "c", mode=0o640),
        "the token can be read by others (mode 604)": written(tmp_path / "d", mode=0o604),
        "the token can be changed by others (mode 620)": written(tmp_path / "e", mode=0o620),
        "cannot read the token: is a directory": SecretFile(tmp_path),
        "cannot read the token: not a regular file": SecretFile(tmp_path / "pipe"),
        f"cannot read the token: {tmp_path / 'c'} is not a directory": SecretFile(
            tmp_path / "c" / "key"
        ),
    }
    for message, file in wrong.items():
        with pytest.raises(ApplianceError) as caught:
            file.read("token")
        assert caught.value.message == f"{file}: {message}"
        assert caught.value.hint
        assert CONTENT.decode() not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize(
    ("owner", "mode", "complaint"),
    [
        (1000, 0o600, None),
        (1000, 0o400, None),
        (1000, 0o640, "can be read by others (mode 640)"),
        (1000, 0o602, "can be changed by others (mode 602)"),
        (0, 0o600, None),
        (0, 0o640, None),  # systemd's credentials: root's, and an access list for the daemon
        (0, 0o440, None),
        (0, 0o660, "can be changed by others (mode 660)"),
        (0, 0o444, "can be read by others (mode 444)"),
        (1001, 0o600, "belongs to another user (uid 1001)"),
    ],
)
def test_who_may_own_and_read_it(owner: int, mode: int, complaint: str | None) -> None:
    status = os.stat_result((stat.S_IFREG | mode, 1, 1, 1, owner, 1000, 1, 0, 0, 0))
    assert complaint_about(status, 1000) == complaint


def test_root_itself_shares_with_nobody() -> None:
    status = os.stat_result((stat.S_IFREG | 0o640, 1, 1, 1, 0, 0, 1, 0, 0, 0))
    assert complaint_about(status, 0) == "can be read by others (mode 640)"
