"""The files that a user puts on the setup partition, looked at before they go there."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Final

from appliance.declaration.load import loads
from appliance.declaration.publickeys import PublicKey, looks_private
from appliance.errors import ApplianceError

_MAX_BYTES: Final = 64 * 1024


def read_files(directory: Path) -> dict[str, bytes]:
    """What is to be copied, by name. Raises ApplianceError: a file of another name, or a wrong one;
    a wrong declaration with the words of `appliance validate`."""
    try:
        paths = sorted(directory.iterdir())
    except OSError as error:
        raise ApplianceError(
            f"{directory} cannot be read: {(error.strerror or '').lower()}"
        ) from error
    known = ", ".join(_CHECKS)
    found: dict[str, bytes] = {}
    for path in paths:
        if path.name not in _CHECKS:
            message = f"{path}: a machine takes no file of this name"
            raise ApplianceError(message, hint=f"it takes {known}")
        try:
            content = path.read_bytes()
        except OSError as error:
            raise ApplianceError(
                f"{path} cannot be read: {(error.strerror or '').lower()}"
            ) from error
        if len(content) > _MAX_BYTES:
            raise ApplianceError(f"{path} is too long for what it is to be")
        try:
            _CHECKS[path.name](path, content)
        except ValueError as error:
            raise ApplianceError(f"{path}: {error}") from None
        found[path.name] = content
    if not found:
        raise ApplianceError(f"{directory} holds no files", hint=f"a machine takes {known}")
    return found


def _declaration(path: Path, content: bytes) -> None:
    loads(content, file=str(path))


def _keys(path: Path, content: bytes) -> None:
    """Stricter than the machine, which takes the good lines: here somebody can mend the others."""
    text = content.decode("utf-8", "replace")
    if looks_private(text):
        PublicKey.parse(text)  # says what to do now
    rows = [(number, line.strip()) for number, line in enumerate(text.splitlines(), 1)]
    rows = [(number, line) for number, line in rows if line and not line.startswith("#")]
    if not rows:
        raise ValueError("holds no SSH public key: nobody could log in")
    for number, line in rows:
        try:
            PublicKey.parse(line)
        except ValueError as error:
            raise ApplianceError(f"{path}:{number}: {error}") from None


def _passphrase(_: Path, content: bytes) -> None:
    text = content.rstrip(b"\r\n")
    # IEEE 802.11i: 8 to 63 printable ASCII characters, or the key itself as 64 hexadecimal digits.
    printable = 8 <= len(text) <= 63 and all(32 <= byte < 127 for byte in text)
    if not printable and not re.fullmatch(rb"[0-9a-fA-F]{64}", text):
        raise ValueError("is no Wi-Fi passphrase: those have 8 to 63 plain characters")


_CHECKS: Final[dict[str, Callable[[Path, bytes], None]]] = {
    "appliance.yaml": _declaration,
    "authorized_keys": _keys,
    "wifi-passphrase": _passphrase,
}
