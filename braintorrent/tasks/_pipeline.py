"""From a scan to its segmentation, as MONAI bundle configuration: the one place that says how.

Training's cache, the evaluation, `braintorrent predict` and the exported bundle all instantiate what is written
here, so that none of them can differ from the others in a voxel.

    reading         a file -> image float32 [C, H, W, D] with its affine
    common form     the same orientation, voxel size and intensities for every scan, at least a patch in size
    inferer         image [1, C, H, W, D] -> logits [1, K, H, W, D], window by window
    postprocessing  logits -> label [1, *grid of the scan as stored]
"""

from __future__ import annotations

import logging
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.bundle import ConfigParser
from monai.transforms import Compose

from braintorrent.errors import DataError
from braintorrent.tasks._meta import tracking
from braintorrent.tasks._options import Options, network_arguments

Config = dict[str, Any]
WINDOWS_AT_ONCE = 16
# The default of `labels` is announced to change with every Orientationd, although it is given.
warnings.filterwarnings("ignore", message=".*Orientationd.*", category=FutureWarning)
# MONAI tries each DICOM decoder that it knows of, and reports on those that are not there.
warnings.filterwarnings("ignore", message="NvImgCodec")
logging.getLogger("monai.data.nvimgcodec_pydicom_plugin").setLevel(logging.ERROR)


def reading(options: Options, keys: list[str]) -> list[Config]:
    """Files to volumes. A single 2-D image is a volume of one slice."""
    steps: list[Config] = [
        {"_target_": "LoadImaged", "keys": keys, "image_only": True},
        {"_target_": "EnsureChannelFirstd", "keys": keys},
    ]
    if options.dims == 2:
        one_slice = "$lambda image: image[..., None] if image.ndim == 3 else image"
        steps.append({"_target_": "Lambdad", "keys": keys, "func": one_slice})
    return steps


def common_form(options: Options, keys: list[str]) -> list[Config]:
    """What every scan goes through before a network sees it; keys: "image", and "label" where there is one."""
    steps: list[Config] = [{"_target_": "Orientationd", "keys": keys, "axcodes": "RAS", "labels": None}]
    if options.spacing is not None:
        mode = ["nearest" if key == "label" else "bilinear" for key in keys]
        steps.append({"_target_": "Spacingd", "keys": keys, "pixdim": list(options.spacing), "mode": mode})
    steps.append({"_target_": "NormalizeIntensityd", "keys": "image", "nonzero": True, "channel_wise": True})
    steps.append({"_target_": "SpatialPadd", "keys": keys, "spatial_size": patch_3d(options)})
    return steps


def inferer(options: Options) -> Config:
    """Windows of the patch's size; for a 2-D network slice by slice along the last axis."""
    arguments = {
        "roi_size": list(options.patch), "sw_batch_size": WINDOWS_AT_ONCE, "overlap": options.overlap,
        "mode": "gaussian",
    }  # fmt: skip
    if options.dims == 2:
        return {"_target_": "SliceInferer", "spatial_dim": 2, **arguments}
    return {"_target_": "SlidingWindowInferer", **arguments}


def postprocessing(options: Options) -> list[Config]:
    """Logits back to the scan's own grid, and to labels."""
    argmax = {"_target_": "AsDiscreted", "keys": "pred", "argmax": True}
    back = {"_target_": "Invertd", "keys": "pred", "transform": "@preprocessing", "orig_keys": "image"}
    if options.spacing is None:  # the way back only mirrors, turns and crops: labels take less memory on it
        return [argmax, {**back, "nearest_interp": True}]
    softmax = {"_target_": "Activationsd", "keys": "pred", "softmax": True}
    return [softmax, {**back, "nearest_interp": False}, argmax]


def inference(options: Options) -> Config:
    """preprocessing, inferer and postprocessing of one scan, {"image": file} -> "pred"."""
    steps = reading(options, ["image"]) + common_form(options, ["image"])
    return {
        "preprocessing": {"_target_": "Compose", "transforms": steps},
        "inferer": inferer(options),
        "postprocessing": {"_target_": "Compose", "transforms": postprocessing(options)},
    }


def instantiate(config: Any) -> Any:
    """The object that a configuration describes, as `python -m monai.bundle run` would make it."""
    return ConfigParser({"made": config}).get_parsed_content("made")


def network(options: Options) -> Config:
    """The network as configuration."""
    return {"_target_": f"monai.networks.nets.{options.network}", **network_arguments(options)}


def patch_3d(options: Options) -> list[int]:
    """The patch as a piece of a volume: for a 2-D network, one slice thick."""
    return [*options.patch, 1] if options.dims == 2 else list(options.patch)


class Segmenter:
    """Segments scans as they lie on disk, as the exported bundle does."""

    def __init__(self, options: Options, device: torch.device) -> None:
        self.options, self.device = options, device
        parser = ConfigParser(inference(options))
        self._preprocessing: Compose = parser.get_parsed_content("preprocessing")
        self._inferer = parser.get_parsed_content("inferer")
        self._postprocessing: Compose = parser.get_parsed_content("postprocessing")

    def __call__(self, model: torch.nn.Module, path: Path, where: str) -> tuple[np.ndarray, np.ndarray]:
        """(labels uint8 [H, W, D] on the grid of the file, its affine [4, 4]). DataError names `where`."""
        with tracking(True):
            read = len(reading(self.options, ["image"]))
            try:
                data = self._preprocessing({"image": str(path)}, end=read)
            except Exception as error:  # each reader library fails in its own way
                raise DataError(f"{where}: not readable as an image ({type(error).__name__})") from None
            check_image(data["image"], where, self.options)
            affine = data["image"].affine.numpy().astype(float)
            data = self._preprocessing(data, start=read)
            model.eval()
            with torch.inference_mode():
                logits = self._inferer(data["image"][None].to(self.device), model)[0]
            labels = self._postprocessing({"image": data["image"], "pred": logits})["pred"]
        return labels[0].cpu().numpy().astype(np.uint8), affine


def check_image(image: torch.Tensor, where: str, options: Options) -> None:
    """DataError unless image [C, H, W, D] is what the network takes."""
    if len(image) != options.channels:
        raise DataError(f"{where}: the image has {len(image)} channels; task.channels says {options.channels}")
    if image.ndim != 4:
        raise DataError(f"{where}: the image has {image.ndim - 1} axes; the network takes volumes, task.dims = 3")
    if not image.isfinite().all():
        raise DataError(f"{where}: the image has values that are not finite")
    check_affine(image, where)


def check_affine(image: Any, where: str) -> None:
    """DataError unless a MetaTensor's affine, voxel to world, can be undone."""
    affine = np.asarray(image.affine, float)
    if not np.isfinite(affine).all() or np.linalg.matrix_rank(affine[:3, :3]) < 3:
        raise DataError(f"{where}: the affine in its header is singular or not finite; mend the header")
