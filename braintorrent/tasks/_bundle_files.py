"""The configuration of a MONAI bundle for a segmentation task: what `python -m monai.bundle run` reads.

Layout and property names: https://docs.monai.io/en/latest/bundle_intro.html. The weights are read from safetensors,
never by torch.load.
"""

from __future__ import annotations

from typing import Any

from braintorrent.tasks._options import Options
from braintorrent.tasks._pipeline import Config, inference, network
from braintorrent.tasks._plain import check_plain

WEIGHTS = "models/model.safetensors"


def bundle_files(options: Options) -> dict[str, Any]:
    """inference: configs/inference.json; network_data_format: of configs/metadata.json; task: one line.

    ConfigError if a value of the options would be read as an instruction.
    """
    check_plain(options.model_dump(exclude_none=True), "task")
    return {
        "inference": _inference(options),
        "network_data_format": _data_format(options),
        "task": f"Segmentation of {', '.join(options.labels[1:])}",
    }


def _inference(options: Options) -> Config:
    pipeline = inference(options)
    save = {
        "_target_": "SaveImaged", "keys": "pred", "output_dir": "@output_dir", "output_ext": ".nii.gz",
        "output_dtype": "$np.uint8", "output_postfix": "seg", "separate_folder": False, "resample": False,
    }  # fmt: skip
    pipeline["postprocessing"]["transforms"].append(save)
    return {
        "imports": ["$import glob", "$import os", "$import numpy as np", "$from safetensors.torch import load_model"],
        "bundle_root": ".",
        "dataset_dir": "$@bundle_root + '/data'",
        "output_dir": "$@bundle_root + '/eval'",
        "datalist": "$sorted(glob.glob(os.path.join(@dataset_dir, '*.nii*')))",
        "device": "$torch.device('cuda:0' if torch.cuda.is_available() else 'cpu')",
        "network_def": network(options),
        "network": "$@network_def.to(@device)",
        "preprocessing": pipeline["preprocessing"],
        "dataset": {
            "_target_": "Dataset", "data": "$[{'image': file} for file in @datalist]", "transform": "@preprocessing",
        },
        "dataloader": {
            "_target_": "DataLoader", "dataset": "@dataset", "batch_size": 1, "shuffle": False, "num_workers": 0,
        },
        "inferer": pipeline["inferer"],
        "postprocessing": pipeline["postprocessing"],
        "evaluator": {
            "_target_": "SupervisedEvaluator", "device": "@device", "val_data_loader": "@dataloader",
            "network": "@network", "inferer": "@inferer", "postprocessing": "@postprocessing", "amp": False,
        },
        "initialize": [f"$load_model(@network_def, @bundle_root + '/{WEIGHTS}')"],
        "run": ["$@evaluator.run()"],
    }  # fmt: skip


def _data_format(options: Options) -> dict[str, Any]:
    """Shapes, types and the meaning of channels of what goes into the network and comes out of it."""
    common = {"type": "image", "dtype": "float32", "spatial_shape": list(options.patch), "is_patch_data": True}
    names = options.modality or [f"image {index}" for index in range(options.channels)]
    channels = {str(index): name for index, name in enumerate(names)}
    return {
        "inputs": {
            "image": {
                **common, "format": "magnitude", "modality": ", ".join(options.modality) or "any",
                "num_channels": options.channels, "value_range": [], "channel_def": channels,
            }
        },
        "outputs": {
            "pred": {
                **common, "format": "segmentation", "num_channels": len(options.labels), "value_range": [0, 1],
                "channel_def": {str(value): label for value, label in enumerate(options.labels)},
            }
        },
    }  # fmt: skip
