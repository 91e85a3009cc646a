"""What an experiment found: report.json for machines, report.png and a table for people."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from braintorrent.contracts import Prediction
from braintorrent.experiments.baselines import EVERYWHERE, Scores

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from rich.table import Table

ROWS = {
    "local": "each lab alone",
    "own": "a peer after its last local steps",
    "braintorrent": "a peer as it ends, after its last merge",
    "aggregate": "mean of the final models, from outside",
    "fedavg": "a FedAvg server",
    "pooled": "all scans in one place",
}
NAMES = {"dice": "Dice", "auc": "AUC", "accuracy": "accuracy", "f1": "F1"}
PARTS = {"test": "held-out", "validation": "validation"}
SHADES = ("#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377")  # Paul Tol's bright: safe for all eyes


@dataclass(frozen=True, slots=True)
class PeerResult:
    """One process of the experiment; `exit` is its exit code."""

    name: str
    id: str
    train_cases: int
    test_cases: int
    versions: int
    merges: int
    bytes_in: int
    bytes_out: int
    exit: int


def build(
    data: str, seed: int, peers: Sequence[PeerResult], scores: Scores, seconds: Mapping[str, float],
    score: str = "dice", part: str = "test",
) -> dict[str, Any]:  # fmt: skip
    """report.json's content. mean: over the models of a row, of their scores on all labs' cases as one set.

    score: the metric, also the key of the table row -> model -> test lab; part: what was evaluated on.
    """
    rows = {
        row: {name: {lab: v for lab, v in labs.items() if lab != EVERYWHERE} for name, labs in scores[row].items()}
        for row in ROWS
        if row in scores
    }
    mean = {row: _mean(labs[EVERYWHERE] for labs in scores[row].values() if EVERYWHERE in labs) for row in rows}
    return {
        "data": data, "seed": seed, "score": score, "part": part, "peers": [asdict(peer) for peer in peers],
        score: rows, "mean": mean, "seconds": dict(seconds),
    }  # fmt: skip


def write(report: Mapping[str, Any], path: Path) -> None:
    """report.json."""
    path.write_text(json.dumps(report, indent=1) + "\n")


def table(report: Mapping[str, Any]) -> Table:
    """Score per row and test lab (mean over the row's models), of each lab's model on its own lab, and overall."""
    from rich.table import Table

    score = report["score"]
    rows = report[score]
    tests = sorted({lab for models in rows.values() for scores in models.values() for lab in scores})
    shown = Table(title=f"{NAMES.get(score, score)} on {PARTS[report['part']]} cases", title_justify="left")
    for column in ("model", *tests, "at home", "mean"):
        shown.add_column(column, justify="left" if column == "model" else "right")
    for row, models in rows.items():
        home = [scores[name] for name, scores in models.items() if name in scores]
        cells = [_mean(scores[lab] for scores in models.values() if lab in scores) for lab in tests]
        bold = "bold" if row == "braintorrent" else None
        figures = [f"{cell:.3f}" for cell in (*cells, _mean(home), report["mean"][row])]
        shown.add_row(f"{row}: {ROWS[row]}", *("" if cell == "nan" else cell for cell in figures), style=bold)
    return shown


def spread(reports: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    """Row -> mean, least, most and spread (most less least) of its mean over several runs of an experiment."""
    found = {}
    for row in reports[0]["mean"]:
        values = [report["mean"][row] for report in reports]
        found[row] = {
            "mean": _mean(values), "least": min(values), "most": max(values), "spread": max(values) - min(values)
        }  # fmt: skip
    return found


def spread_table(reports: Sequence[Mapping[str, Any]]) -> Table:
    """The spread over seeds, for people."""
    from rich.table import Table

    first, seeds = reports[0], ", ".join(str(report["seed"]) for report in reports)
    title = f"mean {NAMES.get(first['score'], first['score'])} on {PARTS[first['part']]} cases, seeds {seeds}"
    shown = Table(title=title, title_justify="left")
    for column in ("model", *(f"seed {report['seed']}" for report in reports), "mean", "spread"):
        shown.add_column(column, justify="left" if column == "model" else "right")
    for row, figures in spread(reports).items():
        each = [report["mean"][row] for report in reports]
        cells = [f"{value:.3f}" for value in (*each, figures["mean"], figures["spread"])]
        shown.add_row(f"{row}: {ROWS[row]}", *cells, style="bold" if row == "braintorrent" else None)
    return shown


def draw(
    path: Path, curves: Mapping[str, Sequence[tuple[float, float]]], predictions: Sequence[Prediction],
    labels: Sequence[str], score: str = "dice",
) -> None:  # fmt: skip
    """report.png. curves: peer -> (seconds, validation score); predictions: cases with arrays.

    A case with a mask is shown as one slice with its truth and output; of others, the first three images.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 4), layout="constrained", dpi=130)
    grid = figure.add_gridspec(1, 4, width_ratios=[1.6, 1, 1, 1])
    _curves(figure.add_subplot(grid[0]), curves, NAMES.get(score, score))
    axes = [figure.add_subplot(grid[i]) for i in (1, 2, 3)]
    if np.ndim(predictions[0].output) > 1:
        _slices(axes, predictions[0], labels)
    else:
        _images(axes, predictions, labels)
    figure.savefig(path)


def _curves(axes: Axes, curves: Mapping[str, Sequence[tuple[float, float]]], score: str) -> None:
    for number, (name, points) in enumerate(curves.items()):
        if points:
            axes.plot(*zip(*points, strict=True), marker=".", color=SHADES[number % len(SHADES)], label=name)
    axes.set(xlabel="seconds", ylabel=f"validation {score}", title="Each peer on its own validation cases")
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    if axes.lines:
        axes.legend(frameon=False, loc="lower right")


def _images(axes: Sequence[Axes], predictions: Sequence[Prediction], labels: Sequence[str]) -> None:
    """Whole images, of a volume the middle slice, each with its classes and the likeliest one."""
    for axis, prediction in zip(axes, predictions, strict=False):
        image, truth, output = prediction.image, prediction.truth, prediction.output
        assert image is not None
        assert truth is not None
        assert output is not None
        picture = image[0] if image.ndim == 3 else image[0][..., image.shape[3] // 2]
        axis.imshow(picture.T, origin="upper" if image.ndim == 3 else "lower", cmap="gray")
        true, best = [labels[i] for i in np.flatnonzero(truth)], int(np.argmax(output))
        axis.set_title(f"{', '.join(true) or 'none'}; found: {labels[best]} {output[best]:.2f}")
    for axis in axes:
        axis.set_axis_off()


def _slices(axes: Sequence[Axes], prediction: Prediction, labels: Sequence[str]) -> None:
    """The slice along the last axis that shows most labelled tissue: image, truth, output."""
    from matplotlib.colors import ListedColormap
    from matplotlib.patches import Patch

    image, truth, output = prediction.image, prediction.truth, prediction.output
    assert image is not None
    assert truth is not None
    assert output is not None
    where = int(np.count_nonzero(truth, axis=(0, 1)).argmax())
    shades = [SHADES[i % len(SHADES)] for i in range(len(labels) - 1)]
    for axis, title, volume in zip(axes, ("image", "truth", "prediction"), (None, truth, output), strict=True):
        axis.imshow(image[0, :, :, where].T, origin="lower", cmap="gray")
        if volume is not None:
            shown = np.ma.masked_equal(volume[:, :, where].T, 0)
            axis.imshow(
                shown, origin="lower", cmap=ListedColormap(shades), vmin=1, vmax=len(labels) - 1, alpha=0.7,
                interpolation="nearest",
            )  # fmt: skip
        dice = prediction.metrics.get("dice")
        axis.set_title(f"{title}, Dice {dice:.2f}" if volume is output and dice is not None else title)
        axis.set_axis_off()
    keys = [Patch(color=shade, label=label) for shade, label in zip(shades, labels[1:], strict=True)]
    axes[1].legend(handles=keys, loc="upper center", bbox_to_anchor=(0.5, 0), ncols=len(keys), frameon=False)


def _mean(values: Any) -> float:
    found = list(values)
    return sum(found) / len(found) if found else math.nan
