"""What the data's own listing calls its values and channels, against what the labs agreed on."""

from __future__ import annotations

from collections.abc import Sequence

from braintorrent.errors import DataError
from braintorrent.tasks.layouts import Dataset


def check_names(dataset: Dataset, labels: Sequence[str], modality: Sequence[str], channels: int) -> None:
    """DataError naming the first value or channel for which the listing has another word; case does not matter."""
    source = "classes" if dataset.layout == "medmnist" else "dataset.json"
    for key, theirs, ours in (("labels", dataset.labels, labels), ("modality", dataset.modality, modality)):
        for value, (listed, agreed) in enumerate(zip(theirs, ours, strict=False)):
            if listed.strip().casefold() != agreed.strip().casefold():
                raise DataError(f"{dataset.root}: {source} maps {value} to {listed}, task.{key} to {agreed}")
    if dataset.modality and len(dataset.modality) != channels:
        raise DataError(
            f"{dataset.root}: {source} has {len(dataset.modality)} channels in its modality; "
            f"task.channels says {channels}"
        )
