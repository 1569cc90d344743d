"""A process that opens an empty address book when told to, and then waits to be told again.

.venv/bin/python -m tests.bench.capacity.book DIRECTORY
"""

from __future__ import annotations

import gc
import sys
from pathlib import Path

from appliance.addresses.store import AddressBook
from appliance.network import Network


def main() -> None:
    for state in ("ready", "open"):
        gc.collect()
        print(state, flush=True)
        sys.stdin.readline()
        if state == "ready":
            book = AddressBook.open(Path(sys.argv[1]), Network.SIMNET)
    book.close()


if __name__ == "__main__":
    main()
