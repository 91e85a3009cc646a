"""The options of a segmentation task, and what they name: a network and a loss, by class name."""

from __future__ import annotations

from typing import Any, Literal

import monai.losses
import monai.networks.nets
import torch
from pydantic import Field, ValidationInfo, field_validator

from braintorrent.config import Section
from braintorrent.tasks._building import build, class_of, taken
from braintorrent.tasks._plain import plain_names


class Options(Section):
    """[task] of federation.toml where kind = "segmentation"."""

    kind: Literal["segmentation"]
    labels: list[str] = Field(min_length=2, max_length=256, description="class names; the index is the label's value")
    channels: int = Field(1, ge=1, description="channels of an image")
    modality: list[str] = Field(default_factory=list, description="of each channel; compared with the data's listing")
    dims: Literal[2, 3] = Field(3, description="2: a network on slices along the last axis; 3: on volumes")
    spacing: list[float] | None = Field(None, description="voxel size in mm to resample to; left out: as stored")
    network: str = Field("UNet", description="a class of monai.networks.nets")
    network_args: dict[str, Any] = Field(
        default_factory=dict, description="its arguments; spatial_dims, in_channels and out_channels are filled in"
    )
    loss: str = Field("DiceCELoss", description="a class of monai.losses")
    loss_args: dict[str, Any] = Field(default_factory=lambda: {"to_onehot_y": True, "softmax": True})
    optimiser: str = Field("Adam", description="a class of torch.optim")
    lr: float = Field(1e-3, gt=0, description="learning rate")
    optimiser_args: dict[str, Any] = Field(default_factory=dict)
    patch: list[int] = Field(min_length=2, max_length=3, description="voxels per axis of a training patch and window")
    batch: int = Field(4, ge=1, description="patches per step")
    steps: int = Field(12, ge=1, description="optimiser steps per version")
    foreground: float = Field(0.67, ge=0, le=1, description="share of patches centred on a labelled voxel")
    flip: float = Field(0.5, ge=0, le=1, description="chance to mirror a patch left to right")
    intensity: float = Field(0.1, ge=0, lt=1, description="random scale and shift of intensities, at most")
    overlap: float = Field(0.25, ge=0, lt=1, description="overlap of inference windows")

    @field_validator("labels", "modality")
    @classmethod
    def _plain(cls, names: list[str]) -> list[str]:
        plain_names(names)
        return names

    @field_validator("modality")
    @classmethod
    def _one_modality_per_channel(cls, modality: list[str], info: ValidationInfo) -> list[str]:
        if modality and len(modality) != info.data.get("channels", len(modality)):
            raise ValueError(f"names {len(modality)} channels, channels says {info.data['channels']}")
        return modality

    @field_validator("patch")
    @classmethod
    def _one_size_per_axis(cls, patch: list[int], info: ValidationInfo) -> list[int]:
        dims = info.data.get("dims", len(patch))
        if len(patch) != dims or min(patch) < 1:
            raise ValueError(f"needs {dims} sizes of at least 1, as dims = {dims}")
        return patch

    @field_validator("spacing")
    @classmethod
    def _three_sizes(cls, spacing: list[float] | None) -> list[float] | None:
        if spacing is not None and (len(spacing) != 3 or min(spacing) <= 0):
            raise ValueError("needs 3 sizes in mm above 0")
        return spacing


def make_network(options: Options, where: str) -> torch.nn.Module:
    """A freshly initialised network or a ConfigError that names what is wrong."""
    cls = class_of(monai.networks.nets, options.network, torch.nn.Module, f"{where}: network")
    return build(cls, network_arguments(options), f"{where}: network_args")


def network_arguments(options: Options) -> dict[str, Any]:
    """network_args, and what follows from the other options where the class takes it."""
    known = {
        "spatial_dims": options.dims, "in_channels": options.channels, "out_channels": len(options.labels),
        "pretrained": False,
    }  # fmt: skip
    return {**taken(getattr(monai.networks.nets, options.network), known), **options.network_args}


def make_loss(options: Options, where: str) -> torch.nn.Module:
    """The loss: called with logits [B, classes, ...] and labels [B, 1, ...]."""
    cls = class_of(monai.losses, options.loss, torch.nn.Module, f"{where}: loss")
    return build(cls, options.loss_args, f"{where}: loss_args")
