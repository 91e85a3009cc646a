"""Charts as SVG text to put into a page: no file, no script, nothing from a network."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from io import StringIO
from typing import TYPE_CHECKING, Any

from braintorrent.errors import ConfigError
from braintorrent.experiments.report import SHADES

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Curve = tuple[Sequence[float], Sequence[float]]  # x and y
SIZE = (5.2, 3.0)  # inches
MOST = 400  # points of a curve: more than a chart has columns of pixels to show
BARS = 40  # what a chart has room for
STYLES = ("-", "--", ":", "-.")  # once the shades are used up


def lines(
    title: str, x: str, y: str, curves: Mapping[str, Curve], *, steps: bool = False, log: bool = False,
    spans: Sequence[tuple[float, float, str]] = (),
) -> str:  # fmt: skip
    """Curves by their labels. steps: a value holds until the next; log: where all is positive, y is logarithmic.

    spans: (from, to, word) of what happened, in grey behind the curves; each word is written once.
    """
    figure, axes = _new(title, x, y)
    for number, (label, (xs, ys)) in enumerate(curves.items()):
        thin = slice(None, None, max(1, len(xs) // MOST))
        axes.plot(
            xs[thin], ys[thin], label=label, color=SHADES[number % len(SHADES)], linewidth=1.4,
            linestyle=STYLES[number // len(SHADES) % len(STYLES)], drawstyle="steps-post" if steps else "default",
        )  # fmt: skip
    if log and all(value > 0 for _, ys in curves.values() for value in ys):
        axes.set_yscale("log")
    for first, last, _ in spans:
        axes.axvspan(first, last, color="0.85", alpha=0.6, linewidth=0, zorder=0)
    for word, first in {word: first for first, _, word in reversed(spans)}.items():
        axes.annotate(word, (first, 0.98), xycoords=("data", "axes fraction"), fontsize=6, color="0.35", rotation=90,
                      ha="left", va="top")  # fmt: skip
    if len(curves) > 1:
        axes.legend(frameon=False, fontsize=7)
    return _text(figure, title)


def each(title: str, x: str, y: str, values: Sequence[float]) -> str:
    """One bar per value; many of them as one curve, in order of size."""
    if len(values) > BARS:
        return lines(title, f"{x}, in order of size", y, {"": (range(len(values)), sorted(values))})
    figure, axes = _new(title, x, y)
    axes.bar(range(len(values)), values, color=SHADES[0])
    return _text(figure, title)


def bars(title: str, y: str, groups: Mapping[str, Sequence[float]]) -> str:
    """One bar per group, as high as its mean, with a dot for each value: how far seeds lie apart."""
    figure, axes = _new(title, "", y)
    for number, values in enumerate(groups.values()):
        if values:
            axes.bar(number, sum(values) / len(values), color=SHADES[number % len(SHADES)], alpha=0.5)
            axes.plot([number] * len(values), values, "k.", markersize=4)
    axes.set_xticks(range(len(groups)), list(groups), rotation=30, ha="right", fontsize=7)
    return _text(figure, title)


def matrix(title: str, x: str, y: str, counts: Sequence[Sequence[float]], step: int = 1) -> str:
    """Counts as shades, row by row from the top; each row and column stands for `step` peers."""
    figure, axes = _new(title, x, y)
    side = len(counts) * step
    shown = axes.imshow(counts, cmap="Blues", vmin=0, extent=(0, side, side, 0), interpolation="nearest")
    axes.grid(visible=False)
    figure.colorbar(shown, ax=axes)
    return _text(figure, title)


def _new(title: str, x: str, y: str) -> tuple[Figure, Axes]:
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ConfigError("a report's pictures need matplotlib: pip install 'braintorrent[demo]'") from error
    figure = Figure(figsize=SIZE, layout="constrained")
    axes = figure.add_subplot()
    axes.set_title(title, fontsize=9)
    axes.set_xlabel(x, fontsize=8)
    axes.set_ylabel(y, fontsize=8)
    axes.tick_params(labelsize=7)
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _text(figure: Figure, title: str) -> str:
    """The SVG element alone. Ids that are referred to carry the title, so that many pictures fit on one page."""
    from matplotlib import rc_context

    style: dict[str, Any] = {"svg.fonttype": "none", "svg.hashsalt": title, "text.parse_math": False}
    out = StringIO()
    with rc_context(style):
        figure.savefig(out, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    return re.sub(r'<g id="[^"]*">', "<g>", out.getvalue()[out.getvalue().index("<svg") :])
