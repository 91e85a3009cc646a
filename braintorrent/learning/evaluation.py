"""Metrics of one case to metrics of a part."""

from __future__ import annotations

from collections.abc import Iterable

from braintorrent.contracts import Prediction


def mean_metrics(predictions: Iterable[Prediction]) -> dict[str, float]:
    """Mean of each metric over the cases that have it: a class absent from a case says nothing about it."""
    values: dict[str, list[float]] = {}
    for prediction in predictions:
        for name, value in prediction.metrics.items():
            values.setdefault(name, []).append(value)
    return {name: sum(found) / len(found) for name, found in values.items()}
