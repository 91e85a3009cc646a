"""A MONAI bundle in the official layout, as a zoo bundle is written, and the tiny scans of a lab for it."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import nibabel
import numpy as np

METADATA = {
    "schema": "https://github.com/Project-MONAI/MONAI-extra-test-data/releases/download/0.8.1/meta_schema_20220324.json",
    "version": "0.1.0", "monai_version": "1.4.0", "pytorch_version": "2.4.0", "numpy_version": "1.26.4",
    "task": "a ball in noise", "description": "written by a test", "authors": "a test",
    "network_data_format": {"inputs": {}, "outputs": {}},
}  # fmt: skip

DETERMINISTIC = [
    {"_target_": "LoadImaged", "keys": ["image", "label"]},
    {"_target_": "EnsureChannelFirstd", "keys": ["image", "label"]},
    {"_target_": "NormalizeIntensityd", "keys": "image"},
    {"_target_": "EnsureTyped", "keys": ["image", "label"]},
]

TRAIN: dict[str, Any] = {
    "imports": ["$import glob", "$import os", "$import scripts.traps"],
    "bundle_root": ".",
    "ckpt_dir": "$@bundle_root + '/models'",
    "output_dir": "$@bundle_root + '/eval'",
    "dataset_dir": "/workspace/data/balls",
    "images": "$list(sorted(glob.glob(@dataset_dir + '/imagesTr/*.nii.gz')))",
    "labels": "$list(sorted(glob.glob(@dataset_dir + '/labelsTr/*.nii.gz')))",
    "val_interval": 1,
    "lr": 0.01,
    "device": "$torch.device('cpu')",
    "network_def": {
        "_target_": "UNet", "spatial_dims": 3, "in_channels": 1, "out_channels": 2, "channels": [4, 8],
        "strides": [2], "num_res_units": 0, "norm": "batch",
    },
    "network": "$@network_def.to(@device)",
    "loss": {"_target_": "DiceCELoss", "to_onehot_y": True, "softmax": True},
    "optimizer": {"_target_": "torch.optim.Adam", "params": "$@network.parameters()", "lr": "@lr"},
    "lr_scheduler": {"_target_": "torch.optim.lr_scheduler.StepLR", "optimizer": "@optimizer", "step_size": 2},
    "train": {
        "random_transforms": [{"_target_": "RandFlipd", "keys": ["image", "label"], "prob": 0.5, "spatial_axis": 0}],
        "preprocessing": {"_target_": "Compose", "transforms": "$@validate#deterministic + @train#random_transforms"},
        "dataset": {
            "_target_": "CacheDataset", "transform": "@train#preprocessing", "progress": False, "num_workers": 0,
            "data": "$[{'image': i, 'label': l} for i, l in zip(@images[:-1], @labels[:-1])]",
        },
        "dataloader": {
            "_target_": "DataLoader", "dataset": "@train#dataset", "batch_size": 2, "shuffle": True, "num_workers": 0,
        },
        "inferer": {"_target_": "SimpleInferer"},
        "postprocessing": {
            "_target_": "Compose",
            "transforms": [{"_target_": "AsDiscreted", "keys": ["pred", "label"], "argmax": [True, False],
                            "to_onehot": 2}],
        },
        "handlers": [
            {"_target_": "LrScheduleHandler", "lr_scheduler": "@lr_scheduler", "print_lr": True},
            {"_target_": "ValidationHandler", "validator": "@validate#evaluator", "epoch_level": True,
             "interval": "@val_interval"},
            {"_target_": "StatsHandler", "tag_name": "train_loss",
             "output_transform": "$monai.handlers.from_engine(['loss'], first=True)"},
            {"_target_": "TensorBoardStatsHandler", "log_dir": "@output_dir", "tag_name": "train_loss",
             "output_transform": "$monai.handlers.from_engine(['loss'], first=True)"},
            {"_target_": "CheckpointLoader", "load_path": "$@ckpt_dir + '/model.pt'",
             "load_dict": {"model": "@network"}},
        ],
        "key_metric": {
            "train_accuracy": {
                "_target_": "ignite.metrics.Accuracy",
                "output_transform": "$monai.handlers.from_engine(['pred', 'label'])",
            }
        },
        "trainer": {
            "_target_": "SupervisedTrainer", "max_epochs": 100, "device": "@device",
            "train_data_loader": "@train#dataloader", "network": "@network", "loss_function": "@loss",
            "optimizer": "@optimizer", "inferer": "@train#inferer", "postprocessing": "@train#postprocessing",
            "key_train_metric": "$@train#key_metric", "train_handlers": "@train#handlers",
        },
    },
    "validate": {
        "deterministic": DETERMINISTIC,
        "preprocessing": {"_target_": "Compose", "transforms": "@validate#deterministic"},
        "dataset": {
            "_target_": "CacheDataset", "transform": "@validate#preprocessing", "progress": False, "num_workers": 0,
            "data": "$[{'image': i, 'label': l} for i, l in zip(@images[-1:], @labels[-1:])]",
        },
        "dataloader": {"_target_": "DataLoader", "dataset": "@validate#dataset", "batch_size": 1, "num_workers": 0},
        "inferer": {"_target_": "SlidingWindowInferer", "roi_size": [12, 12, 12], "overlap": 0.25},
        "postprocessing": "@train#postprocessing",
        "handlers": [
            {"_target_": "StatsHandler", "iteration_log": False},
            {"_target_": "CheckpointSaver", "save_dir": "@ckpt_dir", "save_dict": {"model": "@network"},
             "save_key_metric": True, "key_metric_filename": "model.pt"},
        ],
        "key_metric": {
            "val_mean_dice": {
                "_target_": "MeanDice", "include_background": False,
                "output_transform": "$monai.handlers.from_engine(['pred', 'label'])",
            }
        },
        "evaluator": {
            "_target_": "SupervisedEvaluator", "device": "@device", "val_data_loader": "@validate#dataloader",
            "network": "@network", "inferer": "@validate#inferer", "postprocessing": "@validate#postprocessing",
            "key_val_metric": "@validate#key_metric", "val_handlers": "@validate#handlers",
        },
    },
    "initialize": ["$monai.utils.set_determinism(seed=123)"],
    "run": ["$@train#trainer.run()"],
}  # fmt: skip

TRAPS = '''"""What must never be reached raises, in every process that runs this bundle."""

import pickle

import torch


def forbidden(*_args, **_kwargs):
    raise AssertionError("unpickling was reached")


torch.load = pickle.load = pickle.loads = forbidden
'''


def make_bundle(folder: Path, *, traps: bool = False, **changes: Any) -> Path:
    """The bundle. traps: it replaces torch.load and pickle.load(s) by ones that raise; changes: top-level entries."""
    train = {**TRAIN, **changes}
    if not traps:
        train["imports"] = [line for line in train["imports"] if "traps" not in line]
    for name, content in {"metadata.json": METADATA, "train.json": train}.items():
        (folder / "configs").mkdir(parents=True, exist_ok=True)
        (folder / "configs" / name).write_text(json.dumps(content, indent=4))
    (folder / "configs" / "logging.conf").write_text(
        "[loggers]\nkeys=root\n[handlers]\nkeys=console\n[formatters]\nkeys=\n[logger_root]\nlevel=INFO\n"
        "handlers=console\n[handler_console]\nclass=StreamHandler\nlevel=INFO\nargs=(sys.stdout,)\n"
    )
    if traps:
        (folder / "scripts").mkdir()
        (folder / "scripts" / "__init__.py").write_text("")
        (folder / "scripts" / "traps.py").write_text(TRAPS)
    (folder / "models").mkdir()
    (folder / "models" / "model.pt").write_bytes(pickle.dumps({"model": "not one"}))
    (folder / "docs").mkdir()
    (folder / "docs" / "README.md").write_text("# A ball in noise\n")
    return folder


def make_scans(folder: Path, seed: int, count: int = 3, shape: tuple[int, ...] = (12, 12, 12)) -> Path:
    """`count` scans of a bright ball in noise, the last of which the bundle validates on."""
    rng = np.random.default_rng(seed)
    distance = np.sqrt(sum((axis - n / 2) ** 2 for axis, n in zip(np.indices(shape), shape, strict=True)))
    label = (distance < 4).astype(np.uint8)
    for number in range(count):
        image = (100 * label + rng.normal(50, 10, shape)).astype(np.float32)
        for part, array in {"imagesTr": image, "labelsTr": label}.items():
            (folder / part).mkdir(parents=True, exist_ok=True)
            nibabel.save(nibabel.Nifti1Image(array, np.eye(4)), folder / part / f"case{number}.nii.gz")
    return folder


def every_file(folder: Path) -> dict[str, bytes]:
    """Relative path -> content of all files below a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
