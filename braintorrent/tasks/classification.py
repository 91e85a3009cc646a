"""Classification with MONAI: whole images, flat or volumes, in any layout; any classifying network of
monai.networks.nets; classes that exclude each other, or not.

Shapes: B batch, C channels, K classes, size = task.size.
    batch      {"image": float32 [B, C, *size], "label": int64 [B], or float32 [B, K] where task.multi_label}
    logits     float32 [B, K]

All randomness of a training batch follows from (seed, step): a checkpoint needs to remember one number.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from braintorrent.config import validate
from braintorrent.contracts import Prediction
from braintorrent.errors import ConfigError
from braintorrent.tasks._building import first_line, make_optimiser
from braintorrent.tasks._class_options import Options, class_weights, make_loss, make_network
from braintorrent.tasks._class_scores import decide, scores
from braintorrent.tasks._images import Images, list_images, load_images, prepare
from braintorrent.tasks.layouts import Entry

IMAGES_AT_ONCE = 256


class Classification:
    """A contracts.Task: cached images, mirrored and brightened at random, AUC."""

    score = "auc"

    def __init__(self, options: Options, folder: Path, device: torch.device, where: str, split: Path | None) -> None:
        self.options, self.folder, self.device, self.where, self.split = options, folder, device, where, split
        self._parts: dict[str, Images] = {}
        self._try_out()

    @property
    def samples(self) -> int:
        """Training images."""
        return len(self.cases("training").names)

    @property
    def steps(self) -> int:
        """Optimiser steps per version."""
        return self.options.steps

    def cases(self, part: str) -> Images:
        """The images of "training", "validation" or "test"; read when first asked for, then kept."""
        if part not in self._parts:
            self._parts[part] = load_images(self._listed[part], self.options)
        return self._parts[part]

    def network(self, seed: int) -> torch.nn.Module:
        """A freshly initialised network on the device; weights are drawn on the CPU, from `seed` alone."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return make_network(self.options, self.where).to(self.device)

    def optimiser(self, parameters: Any) -> torch.optim.Optimizer:
        """The agreed optimiser of `parameters`."""
        return make_optimiser(self.options, parameters, self.where)

    def batch(self, seed: int, step: int) -> dict[str, torch.Tensor]:
        """Training batch number `step`: each image once per epoch, in an order drawn anew for each epoch."""
        cases, size = self.cases("training"), self.options.batch
        epochs, places = np.divmod(np.arange(step * size, (step + 1) * size), len(cases.names))
        orders = {epoch: _order(seed, int(epoch), len(cases.names)) for epoch in np.unique(epochs)}
        chosen = torch.tensor([orders[epoch][place] for epoch, place in zip(epochs, places, strict=True)])
        generator = torch.Generator().manual_seed(int(np.random.SeedSequence([seed, step]).generate_state(1)[0]))
        images = self._varied(cases.images[chosen], generator)
        return {"image": images.to(self.device), "label": cases.targets[chosen].to(self.device)}

    def loss(self, model: torch.nn.Module, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Scalar training loss of one batch."""
        loss: torch.Tensor = self._loss(_logits(model, batch["image"]), batch["label"])
        return loss

    def evaluate(self, model: torch.nn.Module, part: str, *, arrays: bool = False) -> list[Prediction]:
        """Each image of "training", "validation" or "test" (read when first asked for).

        metrics: "accuracy", 1 or 0, or the share of classes that are right; output: probabilities [K]; truth: 0 and
        1 [K]. arrays: also image [C, *size].
        """
        cases = self.cases(part)
        if not cases.names:
            return []
        output, truth = self._probabilities(model, cases.images), self._hot(cases.targets)
        decided = decide(output, several=self.options.multi_label)
        right = (decided == truth).float().mean(1) if self.options.multi_label else (decided * truth).sum(1)
        return [
            Prediction(
                name, {"accuracy": right[i].item()}, cases.images[i].numpy() if arrays else None, truth[i].numpy(),
                output[i].numpy(),
            )
            for i, name in enumerate(cases.names)
        ]  # fmt: skip

    def summary(self, predictions: Sequence[Prediction]) -> dict[str, float]:
        """accuracy, auc, f1 and f1_<label> over a part; auc is missing where all images have the same class."""
        if not predictions:
            return {}
        output, truth = (
            torch.from_numpy(np.stack([np.asarray(getattr(p, name)) for p in predictions]))
            for name in ("output", "truth")
        )
        return scores(output, truth, self.options.labels, several=self.options.multi_label)

    def probabilities(self, model: torch.nn.Module, image: Path) -> dict[str, float]:
        """Label -> probability for one image file; DataError if it cannot be read or does not fit the network."""
        prepared = prepare(image, self.options, "image")
        found = self._probabilities(model, prepared[None])[0].tolist()
        return dict(zip(self.options.labels, found, strict=True))

    @cached_property
    def _listed(self) -> dict[str, list[Entry]]:
        return list_images(self.folder, self.split, self.options)

    @cached_property
    def _loss(self) -> torch.nn.Module:
        weights = class_weights(self.options, self.cases("training").targets)
        return make_loss(self.options, weights, self.where).to(self.device)

    def _probabilities(self, model: torch.nn.Module, images: torch.Tensor) -> torch.Tensor:
        model.eval()
        with torch.inference_mode():
            logits = torch.cat([_logits(model, some.to(self.device)).cpu() for some in images.split(IMAGES_AT_ONCE)])
        return logits.sigmoid() if self.options.multi_label else logits.softmax(1)

    def _hot(self, targets: torch.Tensor) -> torch.Tensor:
        if self.options.multi_label:
            return targets
        return torch.nn.functional.one_hot(targets, len(self.options.labels)).float()

    def _varied(self, images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        count, axes = len(images), (-1,) + (1,) * (images.ndim - 1)
        mirrored = torch.rand(count, generator=generator) < self.options.flip
        images = torch.where(mirrored.view(axes), images.flip(2), images)  # axis 2 is x
        scale, shift = (2 * torch.rand(2, count, generator=generator) - 1) * self.options.intensity
        return images * (1 + scale.view(axes)) + shift.view(axes)

    def _try_out(self) -> None:
        """One empty image through network and loss, so that what does not fit together is said at start."""
        model, options = self.network(0).eval(), self.options
        self.optimiser(model.parameters())
        weights = None if options.class_weights == "none" else torch.ones(len(options.labels))
        loss = make_loss(options, weights, self.where).to(self.device)
        image = torch.zeros(1, options.channels, *options.size, device=self.device)
        target = torch.zeros(1, dtype=torch.int64, device=self.device)
        try:
            with torch.inference_mode():
                logits = _logits(model, image)
                if logits.shape != (1, len(options.labels)):
                    raise ValueError(f"the output is {list(logits.shape)}, labels are {len(options.labels)}")
                if loss(logits, logits if options.multi_label else target).ndim:
                    raise ValueError("the loss is not one number")
        except Exception as error:  # networks and losses complain with anything
            raise ConfigError(
                f"{self.where}: network {options.network} and loss {options.loss_name} do not work on an image of "
                f"{options.size}: {first_line(error)}"
            ) from None


@lru_cache(4)
def _order(seed: int, epoch: int, cases: int) -> np.ndarray:
    return np.random.default_rng([seed, epoch]).permutation(cases)


def _logits(model: torch.nn.Module, images: torch.Tensor) -> torch.Tensor:
    """Some networks, as ViT, return what else they saw, too."""
    output = model(images)
    return output[0] if isinstance(output, tuple | list) else output


def open_task(
    options: dict[str, Any], data: Path, device: str, where: str, split: Path | None = None
) -> Classification:
    """The task of a lab folder. ConfigError: wrong options (`where` names their place); DataError: wrong images."""
    task = open_inference(options, data, device, where, split)
    for part in ("training", "validation"):  # what is wrong with them is said now, not hours later
        task.cases(part)
    return task


def open_inference(
    options: dict[str, Any], data: Path, device: str, where: str, split: Path | None = None
) -> Classification:
    """As `open_task`, but no image is read before it is asked for."""
    return Classification(validate(Options, options, where), data, torch.device(device), where, split)
