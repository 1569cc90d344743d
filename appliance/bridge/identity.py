"""Who we are: an ed25519 key in a file that only we can read.

The file is the protobuf encoding of a libp2p private key, the same that relay-capable kaspad uses.
"""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from google.protobuf.message import DecodeError

from appliance.bridge.library import lean
from appliance.declaration.secrets import SecretFile
from appliance.errors import ApplianceError

with lean():
    from libp2p.crypto.ed25519 import Ed25519PrivateKey, create_new_key_pair
    from libp2p.crypto.exceptions import CryptographyError
    from libp2p.crypto.keys import KeyPair, KeyType, PrivateKey
    from libp2p.peer.id import ID

KEY_FILE = "identity.key"


@dataclass(frozen=True, slots=True)
class Identity:
    """Our key pair; `peer_id` is its base58 text. The key never shows in a repr."""

    keys: KeyPair = field(repr=False)
    peer_id: str

    @classmethod
    def generate(cls) -> Identity:
        keys = create_new_key_pair()
        return cls(keys, str(ID.from_pubkey(keys.public_key)))

    @property
    def peer_id_bytes(self) -> bytes:
        return ID.from_string(self.peer_id).to_bytes()


def load_or_create(path: Path) -> Identity:
    """The identity in `path`, made (with mode 0600, its directory with 0700) if there is none.

    Raises ApplianceError if the file cannot be read, is no ed25519 key, or breaks the rule of
    `declaration.secrets`; an existing file is never changed.
    """
    return _load(path) or _create(path)


def _load(path: Path) -> Identity | None:
    """None if there is no such file."""
    secret = SecretFile(path).read("identity key")
    return None if secret is None else _parse(path, secret.reveal())


def _parse(path: Path, data: bytes) -> Identity:
    hint = "restore it from a backup, or move it away to get a new identity"
    try:
        message = PrivateKey.deserialize_from_protobuf(data)
        if message.key_type != KeyType.Ed25519.value:
            raise ValueError("not an ed25519 key")
        # The protobuf form holds seed and public key; older writers left the public key out.
        if len(message.data) not in (32, 64):
            raise ValueError(f"{len(message.data)} bytes of key material")
        private = Ed25519PrivateKey.from_bytes(message.data[:32])
        public = private.get_public_key()
        if len(message.data) == 64 and public.to_bytes() != message.data[32:]:
            raise ValueError("its halves do not belong together")
    except (DecodeError, CryptographyError, ValueError) as error:
        raise ApplianceError(f"{path}: this is no identity key: {error}", hint=hint) from None
    return Identity(KeyPair(private, public), str(ID.from_pubkey(public)))


def _create(path: Path) -> Identity:
    identity = Identity.generate()
    private, public = identity.keys.private_key, identity.keys.public_key
    message = PrivateKey.deserialize_from_protobuf(private.serialize())
    message.data = private.to_bytes() + public.to_bytes()
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # Mode 0600 from the start, and a name that no crash of ours can have left behind.
        descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(message.SerializeToString())
                file.flush()
                os.fsync(file.fileno())
            # A hard link fails if somebody else was faster; a rename would replace their key.
            os.link(temporary, path)
        finally:
            Path(temporary).unlink()
        _sync_directory(path.parent)
    except FileExistsError as error:
        existing = _load(path)
        if existing is None:
            raise ApplianceError(
                f"{path}: leads to no file", hint="remove what stands in the way"
            ) from error
        return existing
    except OSError as error:
        raise ApplianceError(
            f"{path}: cannot write the identity key: {_why(error)}",
            hint="its directory must be one that the daemon's user may write",
        ) from error
    return identity


def _sync_directory(path: Path) -> None:
    """Without it the file's name may not survive a power cut, and we would be a stranger."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _why(error: OSError) -> str:
    return (error.strerror or str(error)).lower()
