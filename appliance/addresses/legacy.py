"""Values of version 1: a version byte, then a JSON object, kept under the peer's id.

Only the migration reads them; `encode` is what the golden book of the tests was written with.
"""

from __future__ import annotations

import json
from typing import Final

from appliance.addresses.fields import CodecError
from appliance.addresses.model import PeerRecord, Source

VERSION: Final = 1
MAX_VALUE: Final = 16 * 1024  # bytes; the largest legal record has about 6.5 KiB


def encode(record: PeerRecord) -> bytes:
    """The value stored under the peer's id; the id itself is the key. At most `MAX_VALUE` bytes."""
    fields = {
        "addresses": record.addresses,
        "relays": record.relays,
        "is_relay": record.is_relay,
        "last_seen": record.last_seen,
        "last_success": record.last_success,
        "last_failure": record.last_failure,
        "failures": record.failures,
        "source": record.source.value,
    }
    return bytes([VERSION]) + json.dumps(fields, separators=(",", ":")).encode("ascii")


def decode(key: bytes, value: bytes) -> PeerRecord:
    """The inverse of `encode`; unknown fields are ignored. Raises CodecError, and nothing else."""
    if not value or value[0] != VERSION:
        raise CodecError(f"format {value[:1].hex() or 'missing'}, not {VERSION:02x}")
    if len(value) > MAX_VALUE:
        raise CodecError(f"{len(value)} bytes, more than {MAX_VALUE}")
    try:
        fields = json.loads(value[1:])
        if not isinstance(fields, dict):
            raise CodecError("not an object")
        return PeerRecord(
            peer_id=key.decode("ascii"),
            addresses=_texts(fields, "addresses"),
            relays=_texts(fields, "relays"),
            is_relay=fields.get("is_relay") is True,
            last_seen=_number(fields, "last_seen"),
            last_success=_number(fields, "last_success"),
            last_failure=_number(fields, "last_failure"),
            failures=_number(fields, "failures"),
            source=Source(fields.get("source")),
        )
    except CodecError:
        raise
    except (ValueError, RecursionError) as error:
        raise CodecError(str(error)[:200]) from None


def _texts(fields: dict[str, object], name: str) -> tuple[str, ...]:
    found = fields.get(name, [])
    if not isinstance(found, list):
        raise CodecError(f"{name} is not a list")
    texts = [text for text in found if isinstance(text, str)]
    if len(texts) != len(found):
        raise CodecError(f"{name} holds more than text")
    return tuple(texts)


def _number(fields: dict[str, object], name: str) -> int:
    found = fields.get(name, 0)
    if not isinstance(found, int) or isinstance(found, bool):
        raise CodecError(f"{name} is not a whole number")
    return found
