"""The demo's labs: semi-synthetic scans from the MNI152 template, each lab with its own scanner.

A case is the skull-stripped template (Fonov et al., NeuroImage 2011; T1, grey and white matter at 1 mm, shipped
inside the nilearn wheel) under a random affine and elastic deformation at 2 mm, seen by the lab's scanner.
Anatomy varies less than between patients, so Dice here says how labs learn from each other, not how well
brains are segmented. Lab folders are laid out as in the Medical Segmentation Decathlon.

Shapes: volumes [X, Y, Z] of 2 mm voxels; fields and warps as grid_sample wants them, [1, C, X, Y, Z].
"""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from braintorrent.errors import LocalError
from braintorrent.learning.opening import cores

if TYPE_CHECKING:
    from torch import Tensor

LABELS = ("background", "CSF", "grey", "white")
SPACING = 2.0  # mm
SHAPE = (80, 96, 80)  # voxels; the brain at rest is 74 x 92 x 76
COUNTS = {"training": 6, "validation": 1, "test": 3}


def make_labs(
    folder: Path, names: list[str], seed: int, counts: dict[str, int] | None = None,
    progress: Callable[[str], None] = lambda _: None,
) -> dict[str, Path]:  # fmt: skip
    """Write one Decathlon folder per lab, name -> `folder/name`. Same seed, same scans.

    counts: cases per part of a lab. A lab's position decides its scanner. LocalError without the template.
    """
    template, scanners = _template(), list(SCANNERS.items())

    def make(position: int, name: str) -> None:
        scanner, scan = scanners[position % len(scanners)]
        progress(f"{name}: scanning ({scanner})")
        rng = np.random.default_rng([seed, position])
        listed = {
            part: [_write(folder / name, f"{part}_{n}", *_case(template, scan, rng)) for n in range(count)]
            for part, count in (counts or COUNTS).items()
        }
        described = {
            "name": f"MNI152 template, deformed; scanner: {scanner}", "tensorImageSize": "3D",
            "modality": {"0": "T1"}, "labels": {str(value): label for value, label in enumerate(LABELS)}, **listed,
        }  # fmt: skip
        (folder / name / "dataset.json").write_text(json.dumps(described, indent=1))

    with ThreadPoolExecutor(cores()) as threads:  # torch and zlib compute outside Python's lock
        list(threads.map(make, range(len(names)), names))
    return {name: folder / name for name in names}


def _template() -> Tensor:
    """T1 in 0..1, then one channel per label that sum to 1: [1, 5, *SHAPE] at 2 mm, centred on the brain."""
    import torch

    try:
        from nilearn import datasets

        # These read files of the wheel itself; nothing here reaches for the network.
        loaders = (datasets.load_mni152_template, datasets.load_mni152_gm_template, datasets.load_mni152_wm_template)
        volumes = [np.asarray(load(resolution=1).dataobj, np.float32) for load in loaders]
    except ImportError:
        raise LocalError("the demo's scans need nilearn; run: pip install 'braintorrent[demo]'") from None
    except (OSError, ValueError, AttributeError) as error:
        raise LocalError(f"nilearn came without the MNI152 template ({error}); reinstall nilearn") from None
    t1, grey, white = torch.nn.functional.avg_pool3d(torch.from_numpy(np.stack(volumes)), int(SPACING))
    inside = torch.maximum((t1 > 0.05).float(), grey + white).clamp(0, 1)
    csf = (inside - grey - white).clamp(0)
    whole = torch.stack([t1, 1 - inside, csf, grey, white])
    box = []
    for axis, length in enumerate(SHAPE):
        occupied = inside.amax(dim=[a for a in range(3) if a != axis]).nonzero()
        start = (int(occupied.min()) + int(occupied.max()) + 1 - length) // 2
        start = min(max(start, 0), inside.shape[axis] - length)
        box.append(slice(start, start + length))
    return whole[:, box[0], box[1], box[2]][None]


def _case(template: Tensor, scan: Scanner, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """One subject: image float32 and label int64, [X, Y, Z]."""
    import torch

    shape = template.shape[2:]
    turn = torch.from_numpy(np.eye(3) + rng.normal(0, 0.05, (3, 3)))
    shift = torch.from_numpy(rng.normal(0, 0.02, (3, 1)))
    grid = torch.nn.functional.affine_grid(torch.cat([turn, shift], 1)[None].float(), [1, 1, *shape], False)
    warp = torch.cat([_smooth(rng, shape, knots=7) for _ in range(3)], 1) * 0.05  # of half the volume's width
    moved = torch.nn.functional.grid_sample(template, grid + warp.movedim(1, -1), align_corners=False)[0]
    image, label = moved[0], moved[1:].max(0).indices  # argmax, several times as fast
    image = image * torch.exp(0.2 * _smooth(rng, shape, knots=3)[0, 0])  # every coil's bias field
    return scan(image.clamp(0), rng), label


def _smooth(rng: np.random.Generator, shape: tuple[int, ...], knots: int) -> Tensor:
    """A smooth random field of unit deviation at its knots, [1, 1, *shape]."""
    import torch

    coarse = torch.from_numpy(rng.standard_normal((1, 1, knots, knots, knots), np.float32))
    return torch.nn.functional.interpolate(coarse, size=tuple(shape), mode="trilinear", align_corners=True)


Scanner = Callable[["Tensor", np.random.Generator], "Tensor"]


def _plain(image: Tensor, rng: np.random.Generator) -> Tensor:
    return image


def _dark(image: Tensor, rng: np.random.Generator) -> Tensor:
    return image ** rng.uniform(1.8, 2.4)


def _bright(image: Tensor, rng: np.random.Generator) -> Tensor:
    return image ** rng.uniform(0.45, 0.6)


def _thick(image: Tensor, rng: np.random.Generator) -> Tensor:
    """Slices of 6 mm along z, and noise, in the air too: the other labs' scans are zero outside the brain."""
    import torch

    thick = torch.nn.functional.avg_pool3d(image[None, None], (1, 1, 3), stride=1, padding=(0, 0, 1))
    return _noisy(thick[0, 0], 0.05, rng)


def _noisy(image: Tensor, deviation: float, rng: np.random.Generator) -> Tensor:
    """Rician noise, the magnitude of a complex signal with noise in both parts (Gudbjartsson and Patz, 1995)."""
    import torch

    real, imaginary = torch.from_numpy(deviation * rng.standard_normal((2, *image.shape), np.float32))
    return torch.hypot(image + real, imaginary)


SCANNERS: dict[str, Scanner] = {"plain": _plain, "dark": _dark, "bright": _bright, "thick slices": _thick}


def _write(lab: Path, name: str, image: Tensor, label: Tensor) -> dict[str, str]:
    import nibabel

    affine, entry = np.diag([SPACING, SPACING, SPACING, 1.0]), {}
    arrays = {"image": (image.numpy() * 1000).astype(np.int16), "label": label.numpy().astype(np.uint8)}
    for (key, array), place in zip(arrays.items(), ("imagesTr", "labelsTr"), strict=True):
        entry[key] = f"./{place}/{name}.nii.gz"
        (lab / place).mkdir(parents=True, exist_ok=True)
        nibabel.save(nibabel.Nifti1Image(array, affine), lab / entry[key])
    return entry
