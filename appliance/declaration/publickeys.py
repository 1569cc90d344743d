"""SSH public keys, one a line, as `authorized_keys` has them: a strict parser of the plain form.

Errors are `ValueError`s whose text completes a sentence that begins with the place of the key; they
never repeat what stands there, which may be a private key that was pasted by mistake.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from dataclasses import dataclass
from typing import Final

MAX_TEXT: Final = 8192
"""Characters of one key: RSA with 16384 bits takes 2,800."""

LEAST_RSA: Final = 2048
"""Bits: what OpenSSH 9.1 and later suggest as `RequiredRSASize`, and NIST SP 800-131A demands."""

# The sizes of the key proper, RFC 8709 (32 bytes) and RFC 5656 (an uncompressed point).
_POINTS: Final = {
    "ssh-ed25519": 32,
    "sk-ssh-ed25519@openssh.com": 32,
    "ecdsa-sha2-nistp256": 65,
    "sk-ecdsa-sha2-nistp256@openssh.com": 65,
    "ecdsa-sha2-nistp384": 97,
    "ecdsa-sha2-nistp521": 133,
}
TYPES: Final = ("ssh-rsa", *_POINTS)

PATTERN: Final = rf"(?:{'|'.join(map(re.escape, TYPES))})[ \t]+[A-Za-z0-9+/]+={{0,2}}(?:[ \t].*)?"
"""The shape of a key for editors; `PublicKey.parse` decides."""

_PRIVATE: Final = re.compile(
    r"PRIVATE KEY|PuTTY-User-Key-File|(?:^|\s)b3BlbnNzaC1rZXktdjE|(?:^|\s)MII[A-Za-z0-9+/]{40}"
)


@dataclass(frozen=True, slots=True)
class PublicKey:
    """A key that may log in; `str()` gives its line, fit for `authorized_keys`."""

    type: str
    blob: bytes
    comment: str = ""

    @classmethod
    def parse(cls, text: str) -> PublicKey:
        """From `TYPE BASE64 [COMMENT]`. Raises ValueError."""
        text = text.strip()
        if looks_private(text):
            raise ValueError(
                "this is a private key, and whoever could read this file knows it now: make a new "
                "one, and write here the line of its file that ends in .pub"
            )
        if "BEGIN SSH2 PUBLIC KEY" in text or "BEGIN PUBLIC KEY" in text:
            raise ValueError("is not in OpenSSH's form; `ssh-keygen -i -f FILE` converts it")
        if len(text) > MAX_TEXT or not text.isprintable():
            raise ValueError("is not one line of a public key, such as 'ssh-ed25519 AAAA… me@home'")
        words = text.replace("\t", " ").split(" ", 2)
        if words[0] not in TYPES:
            raise ValueError(_no_type(words[0], text))
        try:
            blob = base64.b64decode(words[1] if len(words) > 1 else "", validate=True)
        except (binascii.Error, ValueError):
            raise ValueError(_damaged(words[0], "what follows it is no base64")) from None
        _check(words[0], blob)
        return cls(words[0], blob, " ".join(words[2:]).strip()[:200])

    @property
    def fingerprint(self) -> str:
        """As `ssh-keygen -l` shows it."""
        return fingerprint(self.blob)

    def __str__(self) -> str:
        text = f"{self.type} {base64.b64encode(self.blob).decode()}"
        return f"{text} {self.comment}" if self.comment else text


def fingerprint(blob: bytes) -> str:
    """`SHA256:…` of a key's wire form."""
    digest = base64.b64encode(hashlib.sha256(blob).digest()).decode()
    return "SHA256:" + digest.rstrip("=")


def looks_private(text: str) -> bool:
    """Whether this is, or holds, a private key as OpenSSH, OpenSSL or PuTTY write it."""
    return _PRIVATE.search(text) is not None


def _no_type(word: str, text: str) -> str:
    if word == "ssh-dss":
        return "is a DSA key, which OpenSSH no longer accepts; make one with `ssh-keygen`"
    if word.endswith("-cert-v01@openssh.com"):
        return "is a certificate; write the public key itself"
    if any(f" {name} " in text for name in TYPES):
        return "has options before the key; write only the key"
    return f"is not an SSH public key; it begins with one of {', '.join(TYPES)}"


def _damaged(name: str, why: str) -> str:
    return f"is no whole {name} key: {why}; copy the line of the .pub file again"


def _check(name: str, blob: bytes) -> None:
    """RFC 4253, section 6.6: the blob repeats the type; then come the key's own parts."""
    parts = _parts(blob)
    if not parts or parts[0] != name.encode():
        raise ValueError(_damaged(name, "its two halves do not fit"))
    if name == "ssh-rsa":
        if len(parts) != 3:
            raise ValueError(_damaged(name, "a part is missing"))
        bits = int.from_bytes(parts[2], "big").bit_length()
        if bits < LEAST_RSA:
            raise ValueError(f"is an RSA key of {bits} bits; at least {LEAST_RSA} are needed")
        return
    # type, curve (ECDSA), the key, application (security keys)
    at = 2 if "ecdsa" in name else 1
    if len(parts) != at + 1 + name.startswith("sk-") or len(parts[at]) != _POINTS[name]:
        raise ValueError(_damaged(name, "it has not the right length"))


def _parts(blob: bytes) -> list[bytes]:
    """RFC 4251 strings; empty if the blob is not made of them."""
    parts, rest = [], blob
    while rest:
        length = int.from_bytes(rest[:4], "big")
        if len(rest) < 4 + length or len(rest) < 4:
            return []
        parts.append(rest[4 : 4 + length])
        rest = rest[4 + length :]
    return parts
