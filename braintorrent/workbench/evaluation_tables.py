"""An evaluation as rich tables: a summary per model and label, and every case on demand."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.table import Table
from rich.text import Text

from braintorrent.workbench.evaluating import Report

WHAT = {
    "own": "own, before the last merge", "merged": "merged", "best": "best on own validation", "latest": "latest",
    "newest": "newest version", "alone": "alone, never merged",
}  # fmt: skip
COLUMNS = {
    "dice": ("Dice", "{:.3f}"), "hd95": ("HD95 mm", "{:.2f}"), "volume_ml": ("volume mL", "{:.2f}"),
    "volume_percent": ("volume %", "{:.1f}"),
}  # fmt: skip


def summary(report: Report) -> Table:
    """Per model and label; volumes are mean absolute differences."""
    rows = report["models"]
    title = f"{len(rows[0]['cases'])} {report['part']} cases" if rows[0]["cases"] else f"{report['part']} cases"
    if not any("labels" in row for row in rows):
        return _metrics([{**row, "model": name} for name, row in _distinct(rows)], title)
    table = Table(title=f"{title}; volume: mean difference without its sign", title_justify="left")
    _columns(table, "model", "label")
    for name, row in _distinct(rows):
        for label, means in row["labels"].items():
            _row(table, [name, label], means, row, label)
            name = ""
        _row(table, [name, "mean"], row["summary"], style="bold", end=True)
    return table


def warnings(report: Report) -> list[str]:
    """A line for each model that contains labs revoked here."""
    return [
        f"{name} contains {', '.join(row['revoked'])}, revoked here (braintorrent lineage)"
        for name, row in _distinct(report["models"])
        if row["revoked"]
    ]


def cases(report: Report) -> Table:
    """Per case, model and label; volumes with their sign: output less truth."""
    table = Table(title=f"every {report['part']} case; volume: output less truth", title_justify="left")
    rows = report["models"]
    if not any("labels" in row for row in rows):
        flat = [
            {"model": f"{case['case']}, {row['model']}", "summary": case["metrics"]}
            for _, row in _distinct(rows)
            for case in row["cases"]
        ]
        return _metrics(flat, f"every {report['part']} case")
    _columns(table, "case", "model", "label")
    for _, row in _distinct(rows):
        for case in row["cases"]:
            for label, found in case["labels"].items():
                _row(table, [case["case"], row["model"], label], found)
    return table


def _distinct(rows: list[dict[str, Any]]) -> list[tuple[str, dict[str, Any]]]:
    """(names, row): models with the same weights are one, under all their names."""
    names: dict[str, list[str]] = {}
    for row in rows:
        names.setdefault(row["content"], []).append(row["model"])
    first = {row["content"]: row for row in reversed(rows)}
    shown = {
        content: WHAT.get(same[0], same[0]) if len(same) == 1 else " = ".join(same) for content, same in names.items()
    }
    return [(shown[content], first[content]) for content in names]


def _columns(table: Table, *names: str) -> None:
    for name in names:
        table.add_column(name)
    for title, _ in COLUMNS.values():
        table.add_column(title, justify="right")


def _row(
    table: Table, names: list[str], found: Mapping[str, float], row: Mapping[str, Any] | None = None,
    label: str = "", *, style: str | None = None, end: bool = False,
) -> None:  # fmt: skip
    cells = []
    for measure, (_, shape) in COLUMNS.items():
        text = shape.format(found[measure]) if measure in found else "-"
        cells.append(text + _missing(row, label, measure))
    table.add_row(*(Text(name) for name in names), *cells, style=style, end_section=end)


def _missing(row: Mapping[str, Any] | None, label: str, measure: str) -> str:
    """How many cases a mean rests on, where not on all."""
    if row is None:
        return ""
    have = sum(measure in case["labels"].get(label, {}) for case in row["cases"])
    return "" if have == len(row["cases"]) else f" ({have} cases)"


def _metrics(rows: list[dict[str, Any]], title: str) -> Table:
    names = list(dict.fromkeys(name for row in rows for name in row["summary"]))
    table = Table("model", *names, title=title, title_justify="left")
    for row in rows:
        cells = [f"{row['summary'][name]:.3f}" if name in row["summary"] else "-" for name in names]
        table.add_row(Text(row["model"]), *cells)
    return table
