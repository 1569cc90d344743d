"""What the machine has to say: faults to mend and notes to know, one a line."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import TracebackType

from appliance.errors import ApplianceError
from appliance.machine.files import why


@dataclass(slots=True)
class Report:
    """Filled while the files are applied; nothing in here stops a boot."""

    faults: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    advice: list[str] = field(default_factory=list)
    """Paragraphs below the faults: what to put where."""

    def fault(self, text: str) -> None:
        """Told once, however many parts of the machine meet it."""
        if text not in self.faults:
            self.faults.append(text)

    def note(self, text: str) -> None:
        if text not in self.notes:
            self.notes.append(text)

    def step(self, what: str) -> _Step:
        """A fault within ends only the step: `WHAT: reason`. What is of no known kind is a bug."""
        return _Step(self, what)


@dataclass(frozen=True, slots=True)
class _Step:
    report: Report
    what: str

    def __enter__(self) -> None:
        return

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> bool:
        match error:
            case ApplianceError():
                hint = f" ({error.hint})" if error.hint else ""
                self.report.fault(f"{self.what}: {error.message}{hint}")
            case OSError():
                place = f" ({error.filename})" if error.filename else ""
                self.report.fault(f"{self.what}: {why(error)}{place}")
            case _:
                return False
        return True
