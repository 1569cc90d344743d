"""Where things are on a machine that boots from an image."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

SETUP: Final = Path("boot/appliance")
STATE: Final = Path("var/lib/appliance-machine")

DAEMON: Final = "appliance"
"""The daemon's user and group, and its unit."""

LOGIN: Final = "operator"
"""Who logs in."""

OPERATORS: Final = "operators"
"""The group that may ask the daemon."""

DECLARATION: Final = "appliance.yaml"
KEYS: Final = "authorized_keys"
PASSPHRASE: Final = "wifi-passphrase"  # noqa: S105 - the name of a file
FAULTS: Final = "faults.txt"
NOTES: Final = "state.txt"


@dataclass(frozen=True, slots=True)
class Places:
    """`root` is `/`, or a directory that stands for it: then nothing but files is touched."""

    root: Path
    setup: Path
    """The user's files; ours for them. A FAT file system, perhaps read-only, perhaps absent."""
    state: Path
    """What survives: the last good declaration, keys. Root's own."""

    @classmethod
    def below(
        cls, root: Path = Path("/"), *, setup: Path | None = None, state: Path | None = None
    ) -> Places:
        return cls(root, setup or root / SETUP, state or root / STATE)

    @property
    def live(self) -> bool:
        """Whether this is the machine that runs us."""
        return self.root == Path("/")

    @property
    def run(self) -> Path:
        """What this boot made: rendered templates, the declaration in force."""
        return self.root / "run/appliance-machine"

    @property
    def daemon_state(self) -> Path:
        return self.root / "var/lib/appliance"

    @property
    def daemon_runtime(self) -> Path:
        return self.root / "run/appliance"

    @property
    def declaration(self) -> Path:
        """What the daemon reads: /etc/appliance/appliance.yaml leads here."""
        return self.run / DECLARATION

    @property
    def short_of_room(self) -> Path:
        """There when the disk was full at the last look."""
        return self.run / "short-of-room"

    @property
    def templates(self) -> Path:
        return self.root / "usr/share/appliance/templates"

    @property
    def networks(self) -> Path:
        """systemd.network(5): volatile network files."""
        return self.root / "run/systemd/network"

    @property
    def issue(self) -> Path:
        """What agetty shows; the getty units of an image name the directory."""
        return self.root / "run/issue.d/50-appliance.issue"

    @property
    def zones(self) -> Path:
        return self.root / "usr/share/zoneinfo"
