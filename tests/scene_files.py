"""Scenes whose truth is known, and small experts that map them."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import torch
from numpy.typing import NDArray
from rasterio.transform import Affine
from scipy.ndimage import zoom
from torch import nn

from experts.calibration import Calibration
from experts.network import card_of
from experts.preparation import prepare
from experts.segmentation import SegmentationExpert, build
from experts.segmentation_training import segmentation_loss
from experts.settings import ExpertConfig
from fovea.types import Channel, Grid, Image, Source, Study

TRANSFORM = Affine(10, 0, 399_960, 0, -10, 5_500_020)
LABELS = ("water", "forest", "built_up")


def recipe(**more: Any) -> ExpertConfig:
    given: dict[str, Any] = {
        "name": "cover", "task": "maps cover", "modalities": ("optical",), "channels": ("red", "green", "blue", "nir"),
        "size": (1, 256, 256), "spacing": (1.0, 10.0, 10.0), "low": 0.0, "high": 1.0, "exclusive": True,
        "labels": {label: {} for label in LABELS}, "training": {"width": 8},
    }  # fmt: skip
    return ExpertConfig.model_validate(given | more)


def truth(rows: int, columns: int, seed: int = 0) -> NDArray[np.int64]:
    """Classes of smooth outlines: 0 to 3."""
    rng = np.random.default_rng(seed)
    fields = [zoom(rng.normal(size=(rows // 48 + 4, columns // 48 + 4)), 48, order=3)[:rows, :columns] for _ in LABELS]
    return np.argmax([np.full((rows, columns), 0.2), *fields], axis=0)


def pixels(classes: NDArray[np.int64], seed: int = 0) -> NDArray[np.float32]:
    """Four noisy channels (channel, row, column) that tell the classes."""
    colors = np.array([[0.3, 0.3, 0.3, 0.3], [0.1, 0.2, 0.4, 0.05], [0.1, 0.3, 0.1, 0.6], [0.6, 0.5, 0.5, 0.4]])
    noise = np.random.default_rng(seed).normal(0, 0.08, (4, *classes.shape))
    return np.asarray(np.moveaxis(colors[classes], 2, 0) + noise, np.float32).clip(0.001, 1)


def border(rows: int, columns: int) -> NDArray[np.bool_]:
    """Where a scene has data that lies turned in its raster."""
    r, c = np.mgrid[:rows, :columns] / np.array([rows, columns])[:, None, None] - 0.5
    turned = np.abs(0.97 * r - 0.24 * c), np.abs(0.24 * r + 0.97 * c)
    return (turned[0] < 0.4) & (turned[1] < 0.4)


def write(path: Path, values: NDArray[np.float32], valid: NDArray[np.bool_]) -> Path:
    """A GeoTIFF of reflectances in steps of 1/10000, 0 where there is no data."""
    stored = np.where(valid, (values * 10_000).clip(1), 0).astype(np.uint16)
    profile = {
        "driver": "GTiff", "width": values.shape[2], "height": values.shape[1], "count": 4, "dtype": "uint16",
        "crs": "EPSG:32633", "transform": TRANSFORM, "tiled": True, "blockxsize": 256, "blockysize": 256, "nodata": 0,
        "compress": "deflate",
    }  # fmt: skip
    with rasterio.open(path, "w", **profile) as file:
        file.write(stored)
        file.scales = (1e-4,) * 4
        file.descriptions = ("red", "green", "blue", "nir")
    return path


def study(values: NDArray[np.float32], valid: NDArray[np.bool_] | None = None, grid: Grid | None = None) -> Study:
    """A scene in memory; its pixels (channel, row, column) lie 10 m apart."""
    channels = tuple(Channel(name) for name in ("red", "green", "blue", "nir"))
    grid = grid or Grid.from_gdal(tuple(TRANSFORM)[:6], "EPSG:32633", *values.shape[1:])
    image = Image.from_array(channels, grid, values[:, None], None if valid is None else valid[None])
    return Study("remote_sensing", (image,), Source(("0" * 64,), "test/1"), {"modality": "optical"})


def expert(config: ExpertConfig, network: nn.Module, cut: float = 0.5) -> SegmentationExpert:
    calibrations = dict.fromkeys(config.labels, Calibration(cut=cut))
    return SegmentationExpert(config, calibrations, network, card_of(config, network, ("0",)))


@cache
def trained(steps: int = 80) -> nn.Module:
    """The U-Net of `recipe`, after some steps on parts of a scene."""
    config, rng = recipe(size=(1, 96, 96)), np.random.default_rng(1)
    torch.manual_seed(0)
    network = build(config).train()
    optimizer = torch.optim.AdamW(network.parameters(), 1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-2, steps)
    classes = truth(512, 512, 7)
    seen = prepare(config, study(pixels(classes, 7))).pixels[:, 0]
    masks = np.stack([classes == n for n in (1, 2, 3)]).astype(np.float32)
    for _ in range(steps):
        corners = rng.integers(0, 512 - 96, (6, 2))
        cut = [np.stack([a[:, r : r + 96, c : c + 96] for r, c in corners]) for a in (seen, masks)]
        inputs, wanted = map(torch.from_numpy, cut)
        loss = segmentation_loss(network(inputs), wanted, torch.ones_like(wanted), exclusive=True)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return network.eval()


class Smooth(nn.Module):
    """Means over 9 x 9 pixels of the first features, less a level: what it says of a pixel is known exactly."""

    def __init__(self, labels: int, level: float = 0.3) -> None:
        super().__init__()
        self.labels, self.level = labels, level

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return 20 * (nn.functional.avg_pool2d(pixels[:, : self.labels], 9, 1, 4) - self.level)


class Same(nn.Module):
    """Says that a label is as probable as its feature is large, in 2-D and in 3-D."""

    def __init__(self, labels: int) -> None:
        super().__init__()
        self.labels = labels

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return torch.logit(pixels[:, : self.labels], 1e-6)
