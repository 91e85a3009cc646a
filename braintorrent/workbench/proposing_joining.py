"""Whether a lab's data fits a federation that exists, said before anything runs."""

from __future__ import annotations

from pathlib import Path

from braintorrent.config import Federation
from braintorrent.errors import DataError
from braintorrent.workbench.proposing_facts import Facts


def check_fit(federation: Federation, path: Path, found: Facts) -> None:
    """DataError in one line where kind, labels, channels or dimensions differ; other tasks judge by themselves."""
    task = federation.task
    if federation.kind not in ("segmentation", "classification"):
        return
    if federation.kind != found.kind:
        has = "masks" if found.kind == "segmentation" else "classes"
        raise DataError(f"{path}: task.kind: the federation does {federation.kind}, this data has {has}")
    _labels(path, [str(name) for name in task.get("labels", [])], found)
    if (channels := task.get("channels", 1)) != found.channels:
        raise DataError(f"{path}: task.channels: the federation has {channels}, these images have {found.channels}")
    if task.get("dims", 3) == 3 and len(found.shape) == 2:
        raise DataError(f"{path}: task.dims: the federation has volumes, this data flat images")


def _labels(path: Path, agreed: list[str], found: Facts) -> None:
    """Names that differ by case are one word; classes given by name may lack some; all else fits by number."""
    where, theirs = f"{path}: task.labels", [name.lower() for name in agreed]
    if not found.named:
        if len(found.labels) > len(agreed):
            raise DataError(f"{where}: the federation has {len(agreed)}, this data {len(found.labels)}")
    elif found.by_name:
        for name in found.labels:
            if name.lower() not in theirs:
                raise DataError(f"{where}: no {name!r}, which this data has; there are {', '.join(agreed)}")
    else:
        for value in range(max(len(found.labels), len(agreed))):
            ours, others = (names[value] if value < len(names) else "nothing" for names in (found.labels, agreed))
            if ours.lower() != others.lower():
                raise DataError(f"{where}: the federation maps {value} to {others}, this data to {ours}")
