"""The charts of a run's report, each from a plain run (`scenes.plain`): what there is to see when labs come and go."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from braintorrent.experiments.pictures import Curve, each, lines, matrix

Run = Mapping[str, Any]
SIDE_BY_SIDE = (
    ("mean", "mean over labs"),
    ("consensus", "distance of models to their mean"),
    ("present", "labs present"),
)


def side_by_side(title: str, runs: Sequence[Run], key: str) -> str:
    """One curve of each run, in one chart. key: of SIDE_BY_SIDE."""
    curves = {f"seed {run['seed']}": _curve(run, run["series"][key]) for run in runs}
    log = key == "consensus" or (key == "mean" and not _scored(runs[0]))
    return lines(title, "seconds", "", curves, log=log, spans=_spans(runs[0]))


def _learning(run: Run) -> str:
    series = run["series"]
    title = "Score on each lab's own cases" if _scored(run) else "Distance of the labs' models to the optimum"
    curves = {"mean": _curve(run, series["mean"]), "worst lab": _curve(run, series["worst"])}
    return lines(title, "seconds", "", curves, log=not _scored(run), spans=_spans(run))


def _consensus(run: Run) -> str:
    curves = {"": _curve(run, run["series"]["consensus"])}
    return lines("Distance of the labs' models to their mean", "seconds", "", curves, log=True, spans=_spans(run))


def _staleness(run: Run) -> str:
    title = "Age of models when they are merged"
    return lines(title, "seconds", "seconds", {"": _curve(run, run["series"]["staleness"])}, spans=_spans(run))


def _present(run: Run) -> str:
    title = "Labs present"
    return lines(title, "seconds", "labs", {"": _curve(run, run["series"]["present"])}, steps=True)


def _available(run: Run) -> str:
    return each("Availability of each lab", "lab", "share of the time", run["available"])


def _versions(run: Run) -> str:
    return each("Versions that each lab published", "lab", "versions", run["versions"])


def _bytes(run: Run) -> str:
    total = [value and value / 1e6 for value in run["series"]["bytes"]]
    return lines("Sent by all", "seconds", "MB", {"": _curve(run, total)}, spans=_spans(run))


def _bytes_each(run: Run) -> str:
    return each("Sent by each lab", "lab", "MB", [size / 1e6 for size in run["bytes_sent"]])


def _held(run: Run) -> str:
    return _reached("From a publish until others hold it", run, "held", (50, 90, 100))


def _influence(run: Run) -> str:
    return _reached("From a publish until it, or a model that merged it, is at others", run, "influence", (50, 90, 99))


def _reached(title: str, run: Run, what: str, shares: Sequence[int]) -> str:
    """How many publishes had come to a share of the labs after so many seconds, of those that did."""
    curves = {}
    for place, share in enumerate(shares):
        took = sorted(spread[what][place] for spread in run["spreads"] if spread[what][place] is not None)
        curves[f"{share} % of the present labs"] = [0.0, *took], list(range(len(took) + 1))
    return lines(title, "seconds", "publishes", curves, steps=True)


def _merged(run: Run) -> str:
    labs = f" ({run['per_row']} labs each)" if run["per_row"] > 1 else ""
    return matrix(
        "Who merged whose versions, how often", f"author{labs}", f"merged by{labs}", run["merged"], run["per_row"]
    )


CHARTS: tuple[Callable[[Run], str], ...] = (
    _learning, _consensus, _held, _influence, _staleness, _merged, _versions, _present, _available, _bytes, _bytes_each,
)  # fmt: skip


def _scored(run: Run) -> bool:
    """Whether `mean` and `worst` are scores, since nobody knows an optimum: a real run on scans."""
    return "mean_score" in run["figures"]


def _curve(run: Run, values: Sequence[float | None]) -> Curve:
    """Over the run's times; what it could not tell is left out."""
    told = [(time, value) for time, value in zip(run["series"]["times"], values, strict=False) if value is not None]
    return [time for time, _ in told], [value for _, value in told]


def _spans(run: Run) -> list[tuple[float, float, str]]:
    """What the scenario lets happen, from when until when."""
    end = run["scenario"]["seconds"]
    return [
        (one["at"], min(end, one["until"] or one["at"] + one["over"]), one["what"].replace("_", " "))
        for one in run["scenario"]["happenings"]
    ]
