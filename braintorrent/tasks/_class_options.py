"""The options of a classification task, and what they name: a network and a loss, by class name."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import monai.networks.nets
import torch
from pydantic import Field, ValidationInfo, field_validator, model_validator

from braintorrent.config import Section
from braintorrent.errors import ConfigError
from braintorrent.tasks._building import build, class_of, taken
from braintorrent.tasks._plain import plain_names


class Options(Section):
    """[task] of federation.toml where kind = "classification"."""

    kind: Literal["classification"]
    labels: list[str] = Field(min_length=1, max_length=1024, description="class names, in the network's order")
    multi_label: bool = Field(False, description="whether an image may have several classes, or none")
    channels: int = Field(1, ge=1, description="channels of an image: 1 grey, 3 colour")
    modality: list[str] = Field(default_factory=list, description="of each channel; compared with the data's listing")
    dims: Literal[2, 3] = Field(2, description="2: flat images; 3: volumes")
    size: list[int] = Field(min_length=2, max_length=3, description="pixels or voxels per axis all are resized to")
    normalise: Literal["image", "channel", "bytes"] = Field(
        "image", description="mean 0 and variance 1 of each image, or of each channel; bytes: 0..255 becomes -1..1"
    )
    network: str = Field("DenseNet121", description="a class of monai.networks.nets that classifies")
    network_args: dict[str, Any] = Field(
        default_factory=dict, description="its arguments; dimensions, channels, classes and image size are filled in"
    )
    loss: str = Field("", description="a class of torch.nn; CrossEntropyLoss, or BCEWithLogitsLoss where multi_label")
    loss_args: dict[str, Any] = Field(default_factory=dict)
    class_weights: Literal["none", "balanced"] | list[Annotated[float, Field(gt=0)]] = Field(
        "none", description="in the loss: balanced weighs rare classes of a lab up, a list weighs each"
    )
    optimiser: str = Field("Adam", description="a class of torch.optim")
    lr: float = Field(1e-3, gt=0, description="learning rate")
    optimiser_args: dict[str, Any] = Field(default_factory=dict)
    batch: int = Field(32, ge=1, description="images per step")
    steps: int = Field(50, ge=1, description="optimiser steps per version")
    flip: float = Field(0.5, ge=0, le=1, description="chance to mirror an image left to right")
    intensity: float = Field(0.1, ge=0, lt=1, description="random scale and shift of intensities, at most")

    @field_validator("labels", "modality")
    @classmethod
    def _plain(cls, names: list[str]) -> list[str]:
        plain_names(names)
        return names

    @field_validator("size")
    @classmethod
    def _one_size_per_axis(cls, size: list[int], info: ValidationInfo) -> list[int]:
        dims = info.data.get("dims", len(size))
        if len(size) != dims or min(size) < 1:
            raise ValueError(f"needs {dims} sizes of at least 1, as dims = {dims}")
        return size

    @model_validator(mode="after")
    def _enough_classes(self) -> Options:
        if len(set(self.labels)) < len(self.labels):
            raise ValueError("labels: a name is there twice")
        if len(self.labels) < 2 and not self.multi_label:
            raise ValueError("labels: classes that exclude each other are at least 2")
        if isinstance(self.class_weights, list) and len(self.class_weights) != len(self.labels):
            raise ValueError(f"class_weights: {len(self.class_weights)} weights for {len(self.labels)} labels")
        if self.modality and len(self.modality) != self.channels:
            raise ValueError(f"modality: names {len(self.modality)} channels, channels says {self.channels}")
        return self

    @property
    def loss_name(self) -> str:
        """The loss, where none is named the usual one."""
        return self.loss or ("BCEWithLogitsLoss" if self.multi_label else "CrossEntropyLoss")


def make_network(options: Options, where: str) -> torch.nn.Module:
    """A freshly initialised network, image [B, C, *size] -> logits [B, K], or a ConfigError that says what is wrong."""
    cls = class_of(monai.networks.nets, options.network, torch.nn.Module, f"{where}: network")
    classes = len(options.labels)
    known = {
        "spatial_dims": options.dims, "in_channels": options.channels, "n_input_channels": options.channels,
        "out_channels": classes, "num_classes": classes, "classes": classes, "img_size": options.size,
        "in_shape": [options.channels, *options.size], "classification": True, "post_activation": None,
        "pretrained": False,
    }  # fmt: skip
    network: torch.nn.Module = build(cls, taken(cls, known) | options.network_args, f"{where}: network_args")
    return network


def make_loss(options: Options, weights: torch.Tensor | None, where: str) -> torch.nn.Module:
    """The loss: called with logits [B, K] and targets, int64 [B] or float32 [B, K]. weights: float32 [K]."""
    cls = class_of(torch.nn, options.loss_name, torch.nn.Module, f"{where}: loss")
    arguments = dict(options.loss_args)
    if weights is not None:
        key = next(iter(taken(cls, {"pos_weight": 0, "weight": 0})), None)
        if key is None:
            raise ConfigError(f'{where}: class_weights: {options.loss_name} takes none; "none" leaves them out')
        arguments = {key: weights} | arguments
    loss: torch.nn.Module = build(cls, arguments, f"{where}: loss_args")
    return loss


def class_weights(options: Options, targets: torch.Tensor) -> torch.Tensor | None:
    """float32 [K]: as agreed, or by how rare a class is in a lab's training cases; 1 for one that it lacks."""
    if options.class_weights == "none":
        return None
    if options.class_weights != "balanced":
        return torch.tensor(options.class_weights)
    cases, classes = len(targets), len(options.labels)
    if options.multi_label:  # what is there weighs as much as what is not
        there = targets.sum(0)
        return torch.where(there > 0, (cases - there) / there.clamp_min(1), 1.0).clamp_min(1 / cases)
    counts = torch.bincount(targets, minlength=classes).float()
    return torch.where(counts > 0, cases / (classes * counts.clamp_min(1)), 1.0)
