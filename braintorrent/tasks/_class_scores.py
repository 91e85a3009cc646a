"""Metrics of a set of classified images, by MONAI. What is not defined on a set is left out."""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Sequence

import numpy as np
import torch
from monai.metrics import compute_confusion_matrix_metric, compute_roc_auc, get_confusion_matrix

HALF = 0.5  # from this probability on, a class that excludes no other is said to be there


def scores(output: torch.Tensor, truth: torch.Tensor, labels: Sequence[str], *, several: bool) -> dict[str, float]:
    """accuracy, auc (mean of each class against the rest), f1 (mean over classes), and f1_<label> of each.

    output: probabilities [N, K]; truth: 0 and 1 [N, K]. A class without both kinds of case has no AUC.
    """
    decided = decide(output, several=several)
    found = {"accuracy": (decided == truth).float().mean().item() if several
             else (decided * truth).sum(1).mean().item()}  # fmt: skip
    found |= _mean("auc", _auc(output, truth))
    matrix = get_confusion_matrix(decided, truth).sum(0)  # over cases: [K, 4]
    f1 = compute_confusion_matrix_metric("f1 score", matrix).tolist()
    names = [re.sub(r"[^A-Za-z0-9_.-]", "-", f"f1_{label}") for label in labels]
    return found | _mean("f1", f1) | {n: v for n, v in zip(names, f1, strict=True) if not math.isnan(v)}


def decide(output: torch.Tensor, *, several: bool) -> torch.Tensor:
    """0 and 1 [N, K] from probabilities: the likeliest class, or each that is at least as likely as not."""
    if several:
        return (output >= HALF).float()
    return torch.nn.functional.one_hot(output.argmax(1), output.shape[1]).float()


def _auc(output: torch.Tensor, truth: torch.Tensor) -> list[float]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # MONAI warns of each class that is all there or not at all
        return np.atleast_1d(compute_roc_auc(output, truth, average="none")).tolist()  # type: ignore[no-any-return]


def _mean(name: str, values: Sequence[float]) -> dict[str, float]:
    defined = [value for value in values if not math.isnan(value)]
    return {name: sum(defined) / len(defined)} if defined else {}
