"""Text that came from anywhere, made safe for one line of a log or of a terminal.

Bounded, free of control and bidirectional characters, and free of the secrets that the process
told us about (`protect`).
"""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping
from enum import Enum
from typing import Final

MAX_TEXT: Final = 512  # characters of one string; a multiaddr with a circuit has about 200
MAX_ITEMS: Final = 32  # of one list, mapping or set of fields
MAX_DEPTH: Final = 3
_SCAN: Final = 65536  # characters searched for secrets; more can never be shown

REDACTED: Final = "[redacted]"

_needles: set[str] = set()


def protect(secret: bytes) -> None:
    """From now on `secret` is never shown, as hex, base64, base64url or the repr of bytes.

    Also found inside a longer encoding, such as the protobuf form of a key pair. For private keys
    of at least 16 bytes: shorter ones would redact innocent text, hence ValueError.
    """
    if len(secret) < 16:
        raise ValueError("a secret of less than 16 bytes cannot be told from other text")
    _needles.add(secret.hex())
    _needles.add(secret.hex().upper())
    for text in (repr(secret)[2:-1], repr(bytearray(secret))[12:-2]):
        _needles.add(text)
    for lead in range(3):
        # Base64 of a longer string looks different for each of three alignments; the characters
        # at the ends mix with the neighbours' bits and are left out.
        coded = base64.b64encode(bytes(lead) + secret).decode("ascii").rstrip("=")
        core = coded[-(-lead * 8 // 6) : (lead + len(secret)) * 8 // 6]
        _needles.add(core)
        _needles.add(core.replace("+", "-").replace("/", "_"))


def forget_secrets() -> None:
    """Undo every `protect`; for tests."""
    _needles.clear()


def redact(text: str) -> str:
    """`text` without any protected secret."""
    for needle in _needles:
        if needle in text:
            text = text.replace(needle, REDACTED)
    return text


def one_line(text: str, limit: int = MAX_TEXT) -> str:
    """At most `limit` characters (and an ellipsis), every unprintable one as an escape."""
    text = redact(text[:_SCAN])
    cut = len(text) > limit
    text = text[:limit]
    if not text.isprintable():
        text = "".join(c if c.isprintable() else _escape(c) for c in text)
    return text + "…" if cut else text


def _escape(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")


def plain(value: object, depth: int = 0) -> object:
    """`value` as what JSON can say, bounded in width and depth; bytes only by their number."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, Enum):
        return plain(value.value, depth)
    if isinstance(value, int):
        # Python refuses to print integers of more than 4,300 digits.
        return value if value.bit_length() <= 256 else "a huge number"
    if isinstance(value, float):
        return round(value, 6) if math.isfinite(value) else str(value)
    if isinstance(value, str):
        return one_line(value)
    if isinstance(value, (bytes, bytearray, memoryview)):
        return f"{len(value)} bytes"
    if isinstance(value, BaseException):
        return one_line(describe(value))
    if isinstance(value, Mapping):
        if depth >= MAX_DEPTH:
            return "…"
        pairs = list(zip(value.items(), range(MAX_ITEMS), strict=False))
        return {one_line(str(key), 64): plain(item, depth + 1) for (key, item), _ in pairs}
    if isinstance(value, (list, tuple, set, frozenset)):
        if depth >= MAX_DEPTH:
            return "…"
        items = [plain(item, depth + 1) for item, _ in zip(value, range(MAX_ITEMS), strict=False)]
        return [*items, "…"] if len(value) > MAX_ITEMS else items
    return one_line(str(value))


def describe(error: BaseException) -> str:
    """An exception as one line: type and message; of a group, its first three leaves."""
    leaves = _leaves(error, [])
    lines = [
        f"{type(leaf).__name__}: {leaf}" if str(leaf) else type(leaf).__name__
        for leaf in leaves[:3]
    ]
    more = len(leaves) - len(lines)
    return "; ".join(lines) + (f"; and {more} more" if more else "")


def _leaves(error: BaseException, found: list[BaseException]) -> list[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            _leaves(inner, found)
    else:
        found.append(error)
    return found
