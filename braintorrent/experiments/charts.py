"""The charts of a run's report, each from a plain run (`scenes.plain`): what there is to see when labs come and go."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from braintorrent.experiments.pictures import Curve, lines, matrix

Run = Mapping[str, Any]
MARKS = 12  # happenings shown in a chart
SIDE_BY_SIDE = (
    ("mean", "mean over labs"),
    ("consensus", "distance of models to their mean"),
    ("present", "labs present"),
)


def side_by_side(title: str, runs: Sequence[Run], key: str) -> str:
    """One curve of each run, in one chart. key: of SIDE_BY_SIDE."""
    curves = {f"seed {run['seed']}": _curve(run, run["series"][key]) for run in runs}
    log = key == "consensus" or (key == "mean" and not runs[0]["real"])
    return lines(title, "seconds", "", curves, log=log, marks=_marks(runs[0]))


def _learning(run: Run) -> str:
    series = run["series"]
    title = "Score on each lab's own cases" if run["real"] else "Distance of the labs' models to the optimum"
    curves = {"mean": _curve(run, series["mean"]), "worst lab": _curve(run, series["worst"])}
    return lines(title, "seconds", "", curves, log=not run["real"], marks=_marks(run))


def _consensus(run: Run) -> str:
    curves = {"": _curve(run, run["series"]["consensus"])}
    return lines("Distance of the labs' models to their mean", "seconds", "", curves, log=True, marks=_marks(run))


def _staleness(run: Run) -> str:
    title = "Age of models when they are merged"
    return lines(title, "seconds", "seconds", {"": _curve(run, run["series"]["staleness"])}, marks=_marks(run))


def _present(run: Run) -> str:
    title = "Labs present"
    return lines(title, "seconds", "labs", {"": _curve(run, run["series"]["present"])}, steps=True)


def _available(run: Run) -> str:
    return _ranked("Availability of each lab", "share of the time", run["available"])


def _bytes(run: Run) -> str:
    total = [value and value / 1e6 for value in run["series"]["bytes"]]
    return lines("Sent by all", "seconds", "MB", {"": _curve(run, total)}, marks=_marks(run))


def _bytes_each(run: Run) -> str:
    return _ranked("Sent by each lab", "MB", [size / 1e6 for size in run["bytes_sent"]])


def _ranked(title: str, y: str, values: Sequence[float]) -> str:
    return lines(title, "lab, in order", y, {"": (range(1, len(values) + 1), sorted(values))}, steps=True)


def _held(run: Run) -> str:
    shares = [f"{share} % of the present labs" for share in (50, 90, 100)]
    return lines("From a publish until others hold it", "share of publishes", "seconds", _reached(run, "held", shares))


def _influence(run: Run) -> str:
    shares = [f"{share} %" for share in (50, 90, 99)]
    title = "From a publish until it is in others' models"
    return lines(title, "share of publishes", "seconds", _reached(run, "influence", shares))


def _reached(run: Run, what: str, labels: Sequence[str]) -> dict[str, Curve]:
    """For each share of the labs, the publishes in order of the time they took; those that never did are left out."""
    curves = {}
    for place, label in enumerate(labels):
        took = sorted(spread[what][place] for spread in run["spreads"] if spread[what][place] is not None)
        curves[label] = [(rank + 1) / len(run["spreads"]) for rank in range(len(took))], took
    return curves


def _merged(run: Run) -> str:
    each = f" (each {run['per_row']} labs)" if run["per_row"] > 1 else ""
    return matrix("Who merged whose versions, how often", f"author{each}", "merged by", run["merged"], run["per_row"])


CHARTS: tuple[Callable[[Run], str], ...] = (
    _learning, _consensus, _held, _influence, _staleness, _merged, _present, _available, _bytes, _bytes_each,
)  # fmt: skip


def _curve(run: Run, values: Sequence[float | None]) -> Curve:
    """Over the run's times; what it could not tell is left out."""
    told = [(time, value) for time, value in zip(run["series"]["times"], values, strict=False) if value is not None]
    return [time for time, _ in told], [value for _, value in told]


def _marks(run: Run) -> list[tuple[float, str]]:
    """What the scenario lets happen, and when that is over."""
    marks = []
    for happening in run["scenario"]["happenings"]:
        word = happening["what"].replace("_", " ")
        marks.append((happening["at"], word))
        if happening["until"] is not None:
            marks.append((happening["until"], f"{word} over"))
    return marks[:MARKS]
