"""Segmentation with MONAI: scans with masks in any layout, any network of monai.networks.nets.

Shapes: B batch, C image channels, K classes, patch = task.patch.
    batch      {"image": float32 [B, C, *patch], "label": uint8 [B, 1, *patch]}
    logits     float32 [B, K, *patch]

All randomness of a training batch follows from (seed, step): a checkpoint needs to remember one number.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.transforms import Compose, RandCropByPosNegLabeld, RandFlipd, RandScaleIntensityd, RandShiftIntensityd

from braintorrent.config import validate
from braintorrent.contracts import Prediction, mean_metrics
from braintorrent.errors import ConfigError
from braintorrent.tasks._building import first_line, make_optimiser
from braintorrent.tasks._bundle_files import bundle_files
from braintorrent.tasks._cases import Case, list_cases, load_cases
from braintorrent.tasks._measures import Measures, dice, measures
from braintorrent.tasks._meta import tracking
from braintorrent.tasks._options import Options, make_loss, make_network
from braintorrent.tasks._pipeline import Segmenter, inferer, instantiate, patch_3d
from braintorrent.tasks.layouts import Entry


class Segmentation:
    """A contracts.Task: cached cases, random patches, sliding-window inference, Dice."""

    score = "dice"

    def __init__(
        self, options: Options, folder: Path, device: torch.device, where: str, split: Path | None = None
    ) -> None:
        self.options, self.folder, self.device, self.where, self.split = options, folder, device, where, split
        self._loss = make_loss(options, where)
        self._try_out()
        self._parts: dict[str, list[Case]] = {}
        self._patches = _patches(options)
        self._inferer = instantiate(inferer(options))

    @property
    def samples(self) -> int:
        """Training cases."""
        return len(self.cases("training"))

    @property
    def steps(self) -> int:
        """Optimiser steps per version."""
        return self.options.steps

    def cases(self, part: str) -> list[Case]:
        """The preprocessed cases of "training", "validation" or "test"; read when first asked for, then kept."""
        if part not in self._parts:
            self._parts[part] = load_cases(self._listed[part], self.options)
        return self._parts[part]

    @cached_property
    def _listed(self) -> dict[str, list[Entry]]:
        return list_cases(self.folder, self.split, self.options)

    def network(self, seed: int) -> torch.nn.Module:
        """A freshly initialised network on the device; weights are drawn on the CPU, from `seed` alone."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return make_network(self.options, self.where).to(self.device)

    def optimiser(self, parameters: Any) -> torch.optim.Optimizer:
        """The agreed optimiser of `parameters`."""
        return make_optimiser(self.options, parameters, self.where)

    def batch(self, seed: int, step: int) -> dict[str, torch.Tensor]:
        """Training batch number `step`: each case once per epoch, in an order drawn anew for each epoch."""
        cases, size = self.cases("training"), self.options.batch
        self._patches.set_random_state(int(np.random.SeedSequence([seed, step]).generate_state(1)[0]))
        samples = []
        for position in range(step * size, (step + 1) * size):
            epoch, place = divmod(position, len(cases))
            case = cases[np.random.default_rng([seed, epoch]).permutation(len(cases))[place]]
            whole = {"image": case.image, "label": case.label, "inside": case.foreground, "outside": case.background}
            with tracking(False):
                samples += self._patches(whole)
        batch = {key: torch.stack([sample[key] for sample in samples]) for key in ("image", "label")}
        if self.options.dims == 2:
            batch = {key: value.squeeze(-1) for key, value in batch.items()}
        return {key: value.to(self.device) for key, value in batch.items()}

    def loss(self, model: torch.nn.Module, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Scalar training loss of one batch."""
        loss: torch.Tensor = self._loss(model(batch["image"]), batch["label"])
        return loss

    def evaluate(self, model: torch.nn.Module, part: str, *, arrays: bool = False) -> list[Prediction]:
        """Dice per case of "training", "validation" or "test" (read when first asked for).

        Metrics: "dice", the mean over the foreground classes present in the case, and "dice_<label>" of each;
        MONAI's compute_dice. arrays: also image [C, H, W, D], truth and output [H, W, D].
        """
        model.eval()
        with torch.inference_mode():
            return [self._predict(model, case, arrays) for case in self.cases(part)]

    def summary(self, predictions: Sequence[Prediction]) -> dict[str, float]:
        """Means over cases, each metric over those that have it."""
        return mean_metrics(predictions)

    def measure(self, model: torch.nn.Module, part: str) -> Iterator[tuple[str, Measures]]:
        """Case by case (name, label -> measures): Dice as in `evaluate`, distances and volumes in mm and mL.

        All on the grid that the network sees: the scan's own voxels, or those of task.spacing.
        """
        model.eval()
        for case in self.cases(part):
            with torch.inference_mode():
                output = self._segment(model, case)
            yield case.name, measures(output, case.label, self.options.labels, case.spacing)

    def segment(self, model: torch.nn.Module, path: Path, where: str) -> tuple[np.ndarray, np.ndarray]:
        """(labels uint8 [H, W, D] on the grid of the file, its affine [4, 4]); DataError names `where`."""
        return Segmenter(self.options, self.device)(model, path, where)

    def bundle(self) -> dict[str, Any]:
        """What a MONAI bundle of this task holds beside weights; see _bundle_files."""
        return bundle_files(self.options)

    def _segment(self, model: torch.nn.Module, case: Case) -> torch.Tensor:
        logits: torch.Tensor = self._inferer(case.image.to(self.device)[None], model)
        # The same as argmax, which torch computes several times more slowly along any axis but the last.
        return logits[0].max(0, keepdim=True).indices.to(torch.uint8).cpu()

    def _predict(self, model: torch.nn.Module, case: Case, arrays: bool) -> Prediction:
        output = self._segment(model, case)
        metrics = self._dice(output, case.label)
        if not arrays:
            return Prediction(case.name, metrics)
        return Prediction(case.name, metrics, case.image.numpy(), case.label[0].numpy(), output[0].numpy())

    def _dice(self, output: torch.Tensor, truth: torch.Tensor) -> dict[str, float]:
        found = dice(output, truth, self.options.labels)
        present = {re.sub(r"[^A-Za-z0-9_.-]", "-", f"dice_{label}"): value for label, value in found.items()}
        mean = {"dice": sum(present.values()) / len(present)} if present else {}
        return mean | present

    def _try_out(self) -> None:
        """One empty patch through network and loss, so that what does not fit together is said at start."""
        model, options = self.network(0).eval(), self.options
        self.optimiser(model.parameters())
        image = torch.zeros(1, options.channels, *options.patch, device=self.device)
        try:
            with torch.inference_mode():
                logits = model(image)
                if logits.shape != (1, len(options.labels), *options.patch):
                    raise ValueError(f"the output is {list(logits.shape)}, labels are {len(options.labels)}")
                self._loss(logits, image[:, :1].to(torch.uint8))
        except Exception as error:  # networks and losses complain with anything
            raise ConfigError(
                f"{self.where}: network {options.network} and loss {options.loss} do not work on a patch of "
                f"{options.patch}: {first_line(error)}"
            ) from None


def _patches(options: Options) -> Compose:
    both = ["image", "label"]
    crop = RandCropByPosNegLabeld(
        both, label_key="label", spatial_size=patch_3d(options), pos=options.foreground, neg=1 - options.foreground,
        num_samples=1, fg_indices_key="inside", bg_indices_key="outside",
    )  # fmt: skip
    return Compose(
        [
            crop,
            RandFlipd(both, prob=options.flip, spatial_axis=0),
            RandScaleIntensityd("image", factors=options.intensity, prob=1.0),
            RandShiftIntensityd("image", offsets=options.intensity, prob=1.0),
        ]
    )


def open_task(options: dict[str, Any], data: Path, device: str, where: str, split: Path | None = None) -> Segmentation:
    """The task of a lab folder. ConfigError: wrong options (`where` names their place); DataError: wrong scans."""
    task = open_inference(options, data, device, where, split)
    for part in ("training", "validation"):  # what is wrong with them is said now, not hours later
        task.cases(part)
    return task


def open_inference(
    options: dict[str, Any], data: Path, device: str, where: str, split: Path | None = None
) -> Segmentation:
    """As `open_task`, but no scan is read before it is asked for."""
    return Segmentation(validate(Options, options, where), data, torch.device(device), where, split)
