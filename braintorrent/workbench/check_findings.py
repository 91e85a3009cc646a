"""What a check of a peer folder found: one finding per fault, grouped by what was looked at."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Level = Literal["error", "warning", "note", "ok"]
LEVELS: tuple[Level, ...] = ("error", "warning", "note", "ok")


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing found. kind: a word for what was checked; where: file, row, key, file name; do: what to do about it."""

    group: str
    kind: str
    level: Level
    what: str
    where: str = ""
    do: str = ""


@dataclass
class Group:
    """The findings of one group of checks, in the order they were made."""

    name: str
    findings: list[Finding] = field(default_factory=list)

    def error(self, kind: str, what: str, where: str = "", do: str = "") -> None:
        """This lab must not start like this."""
        self.findings.append(Finding(self.name, kind, "error", what, where, do))

    def warning(self, kind: str, what: str, where: str = "", do: str = "") -> None:
        """It will run; a person should look at it."""
        self.findings.append(Finding(self.name, kind, "warning", what, where, do))

    def note(self, kind: str, what: str, where: str = "", do: str = "") -> None:
        """Worth knowing."""
        self.findings.append(Finding(self.name, kind, "note", what, where, do))

    def ok(self, kind: str, what: str, where: str = "") -> None:
        """Looked at, and in order."""
        self.findings.append(Finding(self.name, kind, "ok", what, where))

    @property
    def sorted(self) -> list[Finding]:
        """The worst first."""
        return sorted(self.findings, key=lambda finding: LEVELS.index(finding.level))

    @property
    def failed(self) -> bool:
        """Whether there is an error among them."""
        return any(finding.level == "error" for finding in self.findings)


@dataclass
class Report:
    """All groups, and the facts met on the way (numbers a script may want)."""

    groups: list[Group] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)

    def group(self, name: str) -> Group:
        """A new, empty group."""
        self.groups.append(Group(name))
        return self.groups[-1]

    @property
    def findings(self) -> list[Finding]:
        """By group, the worst first in each."""
        return [finding for group in self.groups for finding in group.sorted]

    def count(self, level: Level) -> int:
        """How many findings of a level."""
        return sum(finding.level == level for finding in self.findings)

    @property
    def ready(self) -> bool:
        """Whether this lab can start: no errors."""
        return self.count("error") == 0

    @property
    def summary(self) -> str:
        """One line: "2 errors, 3 warnings; not ready"."""
        counts = [(self.count(level), level) for level in LEVELS[:2]]
        said = [f"{number} {word}{'s' * (number > 1)}" for number, word in counts if number]
        return "; ".join([", ".join(said), "ready" if self.ready else "not ready"]) if said else "ready"

    def plain(self) -> dict[str, Any]:
        """One JSON-able object."""
        return {
            "ready": self.ready, "errors": self.count("error"), "warnings": self.count("warning"),
            "findings": [asdict(finding) for finding in self.findings], "facts": self.facts,
        }  # fmt: skip
