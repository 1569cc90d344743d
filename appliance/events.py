"""Structured log events: a stable name plus fields, rendered by `operate.logs`.

An event is for people and for scripts alike, so its name is lower_snake_case and never changes.
Private keys, secrets and payload bytes are never fields.
"""

from __future__ import annotations

import logging

FIELDS = "appliance_fields"


def emit(logger: logging.Logger, level: int, event: str, **fields: object) -> None:
    """Log `event` with `fields`; costs next to nothing when the level is off."""
    if logger.isEnabledFor(level):
        logger.log(level, event, extra={FIELDS: fields}, stacklevel=2)
