"""Reports of runs as HTML: a page per run, an index that compares them, JSON beside both. No network, no script.

What a script or a run says is escaped; a page is made from the JSON alone, so that it can be made anew at any time.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from braintorrent.errors import ConfigError
from braintorrent.experiments.charts import CHARTS, SIDE_BY_SIDE, side_by_side
from braintorrent.experiments.pictures import bars
from braintorrent.experiments.scenes import run_name

Run = Mapping[str, Any]  # what scenes.plain makes
COMPARED = (
    "peers", "versions_published", "versions_lost", "intervals_to_99", "bytes_per_peer_per_version",
    "distance_to_optimum",
)  # fmt: skip
BARS = (
    ("intervals_to_99", "Until 99 % of the labs are influenced", "version intervals"),
    ("bytes_per_peer_per_version", "Traffic", "bytes per lab and version"),
    ("distance_to_optimum", "Distance to the optimum in the end", ""),
)
MOST = 300  # lines of what happened
STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; max-width: 80rem; margin: 2rem auto; padding: 0 1rem; color: #222 }
table { border-collapse: collapse; margin: 1rem 0 } td, th { padding: .15rem .8rem; text-align: right }
th:first-child, td:first-child { text-align: left } thead th { border-bottom: 1px solid #999; vertical-align: bottom }
tbody tr:nth-child(even) { background: #f4f6f9 } .bad { color: #b00020; font-weight: 600 }
.charts { display: flex; flex-wrap: wrap; gap: 1rem } svg { width: 25rem; height: auto } p { max-width: 46rem }
"""


def write(run: Run, out: Path) -> Path:
    """Write the page and the JSON of one run below `out`; returns the page."""
    out.mkdir(parents=True, exist_ok=True)
    page = out / f"{run_name(run)}.html"
    page.write_text(run_page(run), encoding="utf-8")
    page.with_suffix(".json").write_text(json.dumps(run) + "\n", encoding="utf-8")
    return page


def index(out: Path) -> Path:
    """Write index.html over every run whose JSON lies in `out`: also those of earlier calls. Returns it."""
    runs = []
    for path in sorted(out.glob("*.json")):
        try:
            run = json.loads(path.read_text(encoding="utf-8"))
            runs.append((run_name(run), run))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ConfigError(f"{path}: not a run's report ({error!r}); move it out of this folder") from error
    page = out / "index.html"
    page.write_text(index_page([run for _, run in sorted(runs, key=lambda one: one[0])]), encoding="utf-8")
    return page


def number(value: Any) -> str:
    """For people: 3 digits that matter, thousands apart; a dash for what a run could not tell."""
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return f"{value:,}" if isinstance(value, int) else str(value)


# ----------------------------------------------------------------- one run


def run_page(run: Run) -> str:
    """Figures, pictures, and what befell whom."""
    scenario = run["scenario"]
    how = "one process per lab" if run["real"] else "virtual time"
    happened = [[number(float(at)), what] for at, what in run["happened"]]
    return _page(
        run_name(run),
        f'<p><a href="index.html">all runs</a></p><h1>{escape(run_name(run))}</h1><p>{escape(scenario["teaches"])}</p>',
        f"<p>{number(scenario['peers'])} labs, {number(scenario['seconds'])} s in {how}, seed {run['seed']}.</p>",
        _table(["figure", "value"], [[_words(key), _figure(key, value)] for key, value in run["figures"].items()]),
        _pictures(chart(run) for chart in CHARTS),
        "<h2>What happened</h2>" + _table(["second", "what"], happened[:MOST]) if happened else "",
        f"<p>and {len(happened) - MOST} more</p>" if len(happened) > MOST else "",
    )


# ----------------------------------------------------------------- many runs


def index_page(runs: Sequence[Run]) -> str:
    """All runs side by side: figures, and for each scenario the curves of its seeds in one picture."""
    scenes: dict[str, list[Run]] = defaultdict(list)
    for run in runs:
        real = ", real" if run["real"] else ""
        scenes[f"{run['scenario']['name']}, {number(run['scenario']['peers'])} labs{real}"].append(run)
    parts = [
        "<h1>Scenarios</h1>",
        _table(
            ["scenario", "seeds", *map(_words, COMPARED)],
            [[name, str(len(found)), *(_spread(key, found) for key in COMPARED)] for name, found in scenes.items()],
        ),
        "<p>Mean ± standard deviation over seeds. Lost: a version that nobody holds and nothing superseded.</p>",
        _pictures(
            bars(title, y, {name: _values(key, found) for name, found in scenes.items()}) for key, title, y in BARS
        ),
    ]
    for name, found in scenes.items():
        links = " · ".join(
            f'<a href="{escape(run_name(run), quote=True)}.html">seed {number(run["seed"])}</a>' for run in found
        )
        parts += [
            f"<h2>{escape(name)}</h2><p>{escape(found[0]['scenario']['teaches'])}</p><p>{links}</p>",
            _pictures(side_by_side(f"{name}: {title}", found, key) for key, title in SIDE_BY_SIDE),
        ]
    return _page("Scenarios", *parts)


def _values(key: str, runs: Iterable[Run]) -> list[float]:
    return [run["figures"][key] for run in runs if run["figures"].get(key) is not None]


def _spread(key: str, runs: Sequence[Run]) -> str:
    values = _values(key, runs)
    if not values:
        return number(None)
    same = len(set(values)) == 1
    text = number(values[0]) if same else f"{number(mean(values))} ± {number(stdev(values))}"
    return Bad(text) if key == "versions_lost" and max(values) > 0 else text


def _figure(key: str, value: Any) -> str:
    return Bad(number(value)) if key == "versions_lost" and value else number(value)


# ----------------------------------------------------------------- HTML


class Bad(str):
    """A figure that should not be: shown in red."""


def _words(key: str) -> str:
    return key.replace("_", " ")


def _pictures(pictures: Iterable[str]) -> str:
    return f'<div class="charts">{"".join(pictures)}</div>'


def _page(title: str, *parts: str) -> str:
    head = f'<meta charset="utf-8"><title>{escape(title)}</title><style>{STYLE}</style>'
    return f'<!doctype html>\n<html lang="en"><head>{head}</head><body>\n' + "\n".join(parts) + "\n</body></html>\n"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    def cell(text: str) -> str:
        return f"<td{' class=bad' if isinstance(text, Bad) else ''}>{escape(text)}</td>"

    top = "".join(f"<th>{escape(word)}</th>" for word in head)
    body = "".join(f"<tr>{''.join(map(cell, row))}</tr>" for row in rows)
    return f"<table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>"
