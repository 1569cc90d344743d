"""Provisions the root of an image and says where it is.

python -m tests.images.roots router arm64 OUT
"""

from __future__ import annotations

import sys
from pathlib import Path

from appliance.image.build import provisioned
from tests.images.requests import wanted


def main() -> None:
    """Entry of the command."""
    example, target, out = sys.argv[1:]
    print(provisioned(wanted(example, target, Path(out))))


if __name__ == "__main__":
    main()
