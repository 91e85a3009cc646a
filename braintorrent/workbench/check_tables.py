"""A check's report for people: grouped, errors first, coloured; many findings of one kind are cut short."""

from __future__ import annotations

from collections import Counter

from rich.table import Table
from rich.text import Text

from braintorrent.workbench.check_findings import Finding, Group, Report

STYLES = {"error": "bold red", "warning": "yellow", "note": "cyan", "ok": "green"}


def findings(group: Group, most: int | None) -> Table:
    """One row per finding; of one kind and level at most `most`, then how many more."""
    table = Table(title=group.name, title_justify="left", title_style="bold", box=None, show_header=False)
    total = Counter((f.kind, f.level) for f in group.findings)
    shown: Counter[tuple[str, str]] = Counter()
    for finding in group.sorted:
        key = (finding.kind, finding.level)
        shown[key] += 1
        word = Text(finding.level, STYLES[finding.level])
        if most is None or shown[key] <= most:
            table.add_row(word, _said(finding))
        elif shown[key] == most + 1:
            table.add_row(word, Text(f"... and {total[key] - most} more of this kind (--all)", "dim"))
    return table


def _said(finding: Finding) -> Text:
    said = Text(finding.what)  # Text, since [fd00::7] is no markup
    for line in filter(None, (finding.where, f"-> {finding.do}" if finding.do else "")):
        said.append(f"\n  {line}", "dim")
    return said


def labels(report: Report) -> Table | None:
    """The label histogram, None where nothing was counted."""
    found = report.facts.get("labels") or {}
    if not found:
        return None
    parts = [part for part in ("training", "validation", "test") if any(part in of["cases"] for of in found.values())]
    table = Table("label", *(f"{part} cases" for part in parts), box=None, header_style="bold")
    masks = any("voxels" in of for of in found.values())
    for part in parts if masks else ():
        table.add_column(f"{part} voxels")
    for name, of in found.items():
        row = [*(str(of["cases"].get(part, 0)) for part in parts)]
        row += [f"{of['voxels'].get(part, 0):,}" for part in parts] if masks else []
        table.add_row(Text(name), *row)
    return table


def summary(report: Report) -> Text:
    """The last line."""
    style = "bold red" if not report.ready else "yellow" if report.count("warning") else "bold green"
    return Text(report.summary, style)
