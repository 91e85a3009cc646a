"""Segmentation with MONAI: labelled volumes in a Decathlon folder, any network of monai.networks.nets.

Shapes: B batch, C image channels, K classes, patch = task.patch.
    batch      {"image": float32 [B, C, *patch], "label": uint8 [B, 1, *patch]}
    logits     float32 [B, K, *patch]

All randomness of a training batch follows from (seed, step): a checkpoint needs to remember one number.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.inferers import sliding_window_inference
from monai.metrics import compute_dice
from monai.networks.utils import one_hot
from monai.transforms import Compose, RandCropByPosNegLabeld, RandFlipd, RandScaleIntensityd, RandShiftIntensityd

from braintorrent.config import validate
from braintorrent.contracts import Prediction
from braintorrent.errors import ConfigError
from braintorrent.tasks._cases import Case, load_cases, patch_3d
from braintorrent.tasks._options import Options, make_loss, make_network, make_optimiser

WINDOWS_AT_ONCE = 16


class Segmentation:
    """A contracts.Task: cached cases, random patches, sliding-window inference, Dice."""

    score = "dice"

    def __init__(self, options: Options, folder: Path, device: torch.device, where: str) -> None:
        self.options, self.folder, self.device, self.where = options, folder, device, where
        self._loss = make_loss(options, where)
        self._try_out()
        self._parts = {part: load_cases(folder, part, options) for part in ("training", "validation")}
        self._patches = _patches(options)

    @property
    def samples(self) -> int:
        """Training cases."""
        return len(self._parts["training"])

    @property
    def steps(self) -> int:
        """Optimiser steps per version."""
        return self.options.steps

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
        cases, size = self._parts["training"], self.options.batch
        self._patches.set_random_state(int(np.random.SeedSequence([seed, step]).generate_state(1)[0]))
        samples = []
        for position in range(step * size, (step + 1) * size):
            epoch, place = divmod(position, len(cases))
            case = cases[np.random.default_rng([seed, epoch]).permutation(len(cases))[place]]
            samples += self._patches(
                {"image": case.image, "label": case.label, "inside": case.foreground, "outside": case.background}
            )
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
        if part not in self._parts:
            self._parts[part] = load_cases(self.folder, part, self.options)
        model.eval()
        with torch.inference_mode():
            return [self._predict(model, case, arrays) for case in self._parts[part]]

    def _predict(self, model: torch.nn.Module, case: Case, arrays: bool) -> Prediction:
        image = case.image.to(self.device)
        # For a 2-D network the slices are the batch: [C, H, W, D] -> [D, C, H, W], and back at the end.
        inputs = image.movedim(-1, 0) if self.options.dims == 2 else image[None]
        logits = sliding_window_inference(
            inputs, self.options.patch, WINDOWS_AT_ONCE, model, overlap=self.options.overlap, mode="gaussian"
        )
        output = logits.argmax(1, keepdim=True).to(torch.uint8).cpu()
        output = output.movedim(0, -1) if self.options.dims == 2 else output[0]
        metrics = self._dice(output, case.label)
        if not arrays:
            return Prediction(case.name, metrics)
        return Prediction(case.name, metrics, case.image.numpy(), case.label[0].numpy(), output[0].numpy())

    def _dice(self, output: torch.Tensor, truth: torch.Tensor) -> dict[str, float]:
        classes = len(self.options.labels)
        hot = [one_hot(volume[None], classes, dtype=torch.uint8) for volume in (output, truth)]
        dice = compute_dice(*hot, include_background=False, ignore_empty=True)[0].tolist()
        names = [re.sub(r"[^A-Za-z0-9_.-]", "-", f"dice_{label}") for label in self.options.labels[1:]]
        present = {name: value for name, value in zip(names, dice, strict=True) if not math.isnan(value)}
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
            reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise ConfigError(
                f"{self.where}: network {options.network} and loss {options.loss} do not work on a patch of "
                f"{options.patch}: {reason}"
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


def open_task(options: dict[str, Any], data: Path, device: str, where: str) -> Segmentation:
    """The task of a lab folder. ConfigError: wrong options (`where` names their place); DataError: wrong scans."""
    return Segmentation(validate(Options, options, where), data, torch.device(device), where)
