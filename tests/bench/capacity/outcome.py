"""What a run of one profile has shown."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

from tests.bench.capacity.cgroup import Usage
from tests.bench.capacity.outside import Reading


@dataclass(frozen=True, slots=True)
class Claim:
    """Something that must be true of every profile, and what was seen of it."""

    text: str
    holds: bool
    seen: str


@dataclass(slots=True)
class Outcome:
    """A run. `usage` is None where no control group could be made."""

    profile: str
    plan: dict[str, Any]
    """As `plan --json` prints it."""
    nofile: int = 0
    """RLIMIT_NOFILE as it was set."""
    loaded: dict[str, int] = field(default_factory=dict)
    idle: Reading | None = None
    full: Reading | None = None
    """With everything connected at once."""
    after: Reading | None = None
    """After the flood of bytes and the refusals."""
    usage: Usage | None = None
    claims: list[Claim] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def holds(self) -> bool:
        return all(claim.holds for claim in self.claims)

    def claim(self, text: str, holds: bool, seen: object) -> None:
        self.claims.append(Claim(text, holds, str(seen)))

    def as_json(self) -> dict[str, Any]:
        return {**dataclasses.asdict(self), "holds": self.holds}
