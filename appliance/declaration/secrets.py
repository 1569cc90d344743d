"""Secrets: a declaration names files that hold them, never the secrets themselves.

One rule for every such file: it is a regular file or a link to one, of the daemon's own user or of
root; its owner alone may write it; nobody else may read it. One exception: where root owns the file
and the daemon is not root, its group may read it, as with systemd's credentials.
"""

from __future__ import annotations

import base64
import binascii
import errno
import hmac
import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NoReturn

from appliance.declaration.kinds import Kind, Reading, Schema
from appliance.declaration.nodes import Node, Scalar, shape
from appliance.errors import ApplianceError

MAX_SECRET: Final = 4096
"""Bytes; keys, tokens and passphrases are shorter."""

REDACTED: Final = "<redacted>"


class Secret:
    """Bytes that show nowhere: every text form is `<redacted>`, and it cannot be pickled."""

    __slots__ = ("_value",)

    def __init__(self, value: bytes) -> None:
        self._value = value

    def reveal(self) -> bytes:
        """The bytes themselves. What comes out of here must not be logged or put into a message."""
        return self._value

    def __repr__(self) -> str:
        return REDACTED

    def __format__(self, spec: str) -> str:
        return format(REDACTED, spec)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and hmac.compare_digest(self._value, other._value)

    __hash__ = None  # type: ignore[assignment]  # a hash would tell equal secrets apart

    def __deepcopy__(self, memo: object) -> Secret:
        return self

    def __reduce__(self) -> NoReturn:
        raise TypeError("a secret cannot be pickled")


@dataclass(frozen=True, slots=True)
class SecretFile:
    """Where a secret is kept; `str()` and `os.fspath()` give the path."""

    path: Path

    def read(self, noun: str, *, limit: int = MAX_SECRET) -> Secret | None:
        """What the file holds, at least one byte and at most `limit`; None if there is no file.

        `noun` names the secret in messages ("identity key"). Raises ApplianceError if the file
        cannot be read or breaks the rule of this module.
        """
        # A pipe without a writer must not hold us up.
        flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
        try:
            descriptor = os.open(self.path, flags)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise self._unreadable(noun, error) from None
        try:
            self._check(noun, os.fstat(descriptor))
            with os.fdopen(descriptor, "rb", closefd=False) as file:
                data = file.read(limit + 1)
        except OSError as error:
            raise self._unreadable(noun, error) from None
        finally:
            os.close(descriptor)
        if not data or len(data) > limit:
            wrong = f"it is larger than {limit} bytes" if data else "it is empty"
            raise ApplianceError(
                f"{self}: this is no {noun}: {wrong}", hint="restore it from a backup"
            )
        return Secret(data)

    def _check(self, noun: str, status: os.stat_result) -> None:
        if stat.S_ISDIR(status.st_mode):
            raise self._unreadable(noun, OSError(errno.EISDIR, os.strerror(errno.EISDIR)))
        if not stat.S_ISREG(status.st_mode):
            raise ApplianceError(
                f"{self}: cannot read the {noun}: not a regular file", hint="name a file"
            )
        me = os.geteuid()
        complaint = complaint_about(status, me)
        if complaint is not None:
            right = f"chmod 600 {self}" if status.st_uid == me else f"chown {me} {self}"
            raise ApplianceError(f"{self}: the {noun} {complaint}", hint=right)

    def _unreadable(self, noun: str, error: OSError) -> ApplianceError:
        why = (error.strerror or str(error)).lower()
        if isinstance(error, NotADirectoryError):
            return ApplianceError(
                f"{self}: cannot read the {noun}: {self.path.parent} is not a directory",
                hint="move that file away, or name another place in the declaration",
            )
        return ApplianceError(
            f"{self}: cannot read the {noun}: {why}",
            hint="it must be a file that the daemon's user may read, and nobody else",
        )

    def __str__(self) -> str:
        return str(self.path)

    def __fspath__(self) -> str:
        return str(self.path)


def complaint_about(status: os.stat_result, me: int) -> str | None:
    """What is wrong with a secret's owner and mode for a daemon of user `me`; None: nothing."""
    if status.st_uid not in (me, 0):
        return f"belongs to another user (uid {status.st_uid})"
    mode = stat.S_IMODE(status.st_mode)
    wrong = mode & (0o077 if status.st_uid == me else 0o037)
    if wrong:
        done = "read" if wrong & 0o055 else "changed"
        return f"can be {done} by others (mode {mode:o})"
    return None


class HiddenKind(Kind):
    """A text that no message repeats."""

    @property
    def secret(self) -> bool:
        return True

    def read(self, node: Node, path: str, reading: Reading) -> Any:
        if not isinstance(node, Scalar) or node.tag == "null" or not node.text:
            return self.bad(node, path, reading)
        return self.taken(node, path, reading)

    def taken(self, node: Scalar, path: str, reading: Reading) -> Any:
        """The value of a node that holds some text; `read` otherwise."""
        raise NotImplementedError


class SecretFileKind(HiddenKind):
    """The value is a `SecretFile`."""

    noun = "the path of a file"

    def taken(self, node: Scalar, path: str, reading: Reading) -> Any:
        if looks_like_secret(node.text):
            message = (
                "this looks like a secret itself, not like the path of a file that holds it; "
                "whoever could read this declaration knows it now"
            )
            return reading.wrong(node.mark, path, message)
        if node.tag != "str":
            message = (
                f"this is {shape(node)}, not text; put it in quotes if it is the name of a file"
            )
            return reading.wrong(node.mark, path, message)
        if not node.text.isprintable():
            return self.bad(node, path, reading)
        return SecretFile(Path(node.text))

    def schema(self) -> Schema:
        return {"type": "string", "pattern": r"^[^\x00-\x1f\x7f]+$"}


_HEX: Final = re.compile(r"(?:0x)?[0-9a-fA-F]{32,}")
_TOKEN: Final = re.compile(r"[A-Za-z0-9+/_-]{40,}={0,2}")
_WORDS: Final = re.compile(r"[a-z]{3,8}(?: [a-z]{3,8}){11,}")  # BIP 39: 12 to 24 words
_PLACE: Final = ("/", "./", "../", "~/")


def looks_like_secret(text: str) -> bool:
    """Whether `text` is key material rather than a path: PEM, hex, base64, a seed phrase, lines.

    A guess that leaves paths alone: an absolute one only counts where it is padded base64.
    """
    text = text.strip()
    if "\n" in text or text.startswith("-----BEGIN") or _WORDS.fullmatch(text):
        return True
    if _HEX.fullmatch(text):
        return True
    if not _TOKEN.fullmatch(text):
        return False
    if not text.startswith(_PLACE):
        return _is_mixed(text)
    try:
        return text.endswith("=") and bool(base64.b64decode(text, validate=True))
    except binascii.Error:
        return False


def _is_mixed(text: str) -> bool:
    return all(re.search(letters, text) for letters in ("[a-z]", "[A-Z]", "[0-9]"))
