"""The declaration that a verb was given: read, with a word where it is of an older version."""

from __future__ import annotations

import shlex
import sys
from typing import Final

from appliance.declaration import Declaration
from appliance.declaration.load import Loaded, loaded, loaded_text
from appliance.declaration.model import API_VERSION
from appliance.declaration.nodes import MAX_BYTES

STDIN: Final = "-"
"""The name of a file that stands for standard input."""


def opened(file: str) -> Loaded:
    """As `load`; an older version works, and one line on standard error says what to do."""
    if file == STDIN:
        found = loaded_text(sys.stdin.buffer.read(MAX_BYTES + 1), file="<stdin>")
    else:
        found = loaded(file)
    if found.older is not None:
        message = f"{found.older} is older than {API_VERSION}"
        advice = f"`appliance migrate {shlex.quote(file)}` rewrites it"
        print(f"{file}: warning: {message}; {advice}", file=sys.stderr)
    return found


def load(file: str) -> Declaration:
    return opened(file).declaration
