"""What an experiment found: report.json for machines, report.png and a table for people."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from braintorrent.contracts import Prediction
from braintorrent.experiments.baselines import Scores

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
    data: str, seed: int, peers: Sequence[PeerResult], dice: Scores, seconds: Mapping[str, float]
) -> dict[str, Any]:
    """report.json's content. mean: over the models of a row and all test labs."""
    rows = {row: dice[row] for row in ROWS if row in dice}
    mean = {row: _mean(score for labs in models.values() for score in labs.values()) for row, models in rows.items()}
    return {
        "data": data, "seed": seed, "peers": [asdict(peer) for peer in peers], "dice": rows, "mean": mean,
        "seconds": dict(seconds),
    }  # fmt: skip


def write(report: Mapping[str, Any], path: Path) -> None:
    """report.json."""
    path.write_text(json.dumps(report, indent=1) + "\n")


def table(report: Mapping[str, Any]) -> Table:
    """Dice per row and test lab (mean over the row's models), of each lab's model on its own lab, and overall."""
    from rich.table import Table

    tests = sorted({lab for models in report["dice"].values() for scores in models.values() for lab in scores})
    shown = Table(title="Dice on held-out cases", title_justify="left")
    for column in ("model", *tests, "at home", "mean"):
        shown.add_column(column, justify="left" if column == "model" else "right")
    for row, models in report["dice"].items():
        home = [scores[name] for name, scores in models.items() if name in scores]
        cells = [_mean(scores[lab] for scores in models.values()) for lab in tests]
        bold = "bold" if row == "braintorrent" else None
        shown.add_row(
            f"{row}: {ROWS[row]}", *(f"{cell:.3f}" for cell in cells), f"{_mean(home):.3f}" if home else "",
            f"{report['mean'][row]:.3f}", style=bold,
        )  # fmt: skip
    return shown


def draw(
    path: Path, curves: Mapping[str, Sequence[tuple[float, float]]], prediction: Prediction, labels: Sequence[str]
) -> None:
    """report.png. curves: peer -> (seconds, validation Dice); prediction: one case with arrays."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 4), layout="constrained", dpi=130)
    grid = figure.add_gridspec(1, 4, width_ratios=[1.6, 1, 1, 1])
    _curves(figure.add_subplot(grid[0]), curves)
    axes = [figure.add_subplot(grid[i]) for i in (1, 2, 3)]
    _slices(axes, prediction, labels)
    figure.savefig(path)


def _curves(axes: Axes, curves: Mapping[str, Sequence[tuple[float, float]]]) -> None:
    for number, (name, points) in enumerate(curves.items()):
        if points:
            axes.plot(*zip(*points, strict=True), marker=".", color=SHADES[number % len(SHADES)], label=name)
    axes.set(xlabel="seconds", ylabel="validation Dice", title="Each peer on its own validation cases")
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, loc="lower right")


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
    return sum(found) / len(found)
