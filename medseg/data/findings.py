"""What the dataset doctor found, as a value: a table for people, a mapping for programs, a verdict for both."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, Literal

from medseg.data.cases import Dataset
from medseg.wording import counted, few

Severity = Literal["error", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")
_ROWS = 6  # of a kind in the table; the mapping has all


@dataclass(frozen=True)
class Finding:
    """One thing to know about a case, or about the dataset (`case` is empty then)."""

    severity: Severity
    case: str
    code: str
    message: str


def incomplete(dataset: Dataset) -> list[Finding]:
    """An error for each case that was set aside for the lack of a file."""
    return [Finding("error", case, "incomplete", why) for case, why in dataset.incomplete.items()]


@dataclass(frozen=True)
class Report:
    """All findings about a dataset, the most severe first.

    Args:
        dataset: its name.
        layout: what was recognised.
        cases: number of cases.
        findings: errors (training would fail, or its numbers would be false), warnings (look at it), notes.
    """

    dataset: str
    layout: str
    cases: int
    findings: tuple[Finding, ...]

    @classmethod
    def of(cls, dataset: Dataset, findings: Iterable[Finding]) -> Report:
        """Of findings in any order."""
        order = sorted(findings, key=lambda finding: (SEVERITIES.index(finding.severity), finding.code))
        return cls(dataset.name, dataset.layout, len(dataset.cases), tuple(order))

    def count(self, severity: Severity) -> int:
        """Number of findings of one severity."""
        return sum(finding.severity == severity for finding in self.findings)

    @property
    def ok(self) -> bool:
        """Whether nothing in the data stops a training: no finding is an error. What a run's own settings need is not looked at."""
        return self.count("error") == 0

    @property
    def verdict(self) -> str:
        """One line."""
        counts = ", ".join(counted(n, s) for s in SEVERITIES if (n := self.count(s)))
        end = "training can start" if self.ok else "training would fail or mislead: correct the errors first"
        return f"{self.dataset}, {counted(self.cases, 'case')} ({self.layout}): {counts or 'nothing found'}; {end}"

    def table(self) -> str:
        """Findings in columns of plain text, and the verdict; equal messages share a row, and a kind has a few rows."""
        cases: dict[tuple[str, str, str], list[str]] = {}
        for f in self.findings:
            cases.setdefault((f.severity, f.code, f.message), []).append(f.case or "(all)")
        kinds = Counter(key[:2] for key in cases)
        rows, shown = [("severity", "kind", "case", "finding")], Counter[tuple[str, str]]()
        for (severity, code, message), names in cases.items():
            shown[severity, code] += 1
            if shown[severity, code] <= _ROWS:
                rows.append((severity, code, few(names, 2), message))
            if shown[severity, code] == kinds[severity, code] > _ROWS:
                rows.append(
                    (severity, code, "...", f"{kinds[severity, code] - _ROWS} more of this kind (the JSON has all)")
                )
        widths = [max(len(row[column]) for row in rows) for column in range(3)]
        lines = ["  ".join([*map(str.ljust, row, widths), row[3]]) for row in rows]
        return "\n".join([*(lines if self.findings else ()), self.verdict])

    def to_json(self) -> dict[str, Any]:
        """Everything, ready for JSON."""
        return {**asdict(self), "findings": [asdict(f) for f in self.findings], "ok": self.ok, "verdict": self.verdict}
