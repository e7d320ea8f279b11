"""Tiny foreign experts as their makers would deliver them, and studies for them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fovea.types import LPS, Channel, Grid, Image, Source, Study

Tree = dict[str, Any]
BUNDLE: Tree = {
    "imports": ["$import os", "$__import__('os').system('false')"],
    "image_key": "image",
    "spacing": [2.0, 2.0, 2.0],
    "device": "$torch.device('cuda:0' if torch.cuda.is_available() else 'cpu')",
    "network_def": {
        "_target_": "UNet",
        "spatial_dims": 3,
        "in_channels": 1,
        "out_channels": 3,
        "channels": [4, 8],
        "strides": [2],
        "norm": "batch",
    },
    "network": "$@network_def.to(@device)",
    "preprocessing": {
        "_target_": "Compose",
        "transforms": [
            {"_target_": "LoadImaged", "keys": "@image_key"},
            {"_target_": "EnsureChannelFirstd", "keys": "@image_key"},
            {"_target_": "Orientationd", "keys": "@image_key", "axcodes": "RAS"},
            {"_target_": "Spacingd", "keys": "@image_key", "pixdim": "$@spacing", "mode": "bilinear"},
            {
                "_target_": "ScaleIntensityRanged",
                "keys": "@image_key",
                "a_min": -100,
                "a_max": 200,
                "b_min": 0,
                "b_max": 1,
                "clip": True,
            },
            {"_target_": "CropForegroundd", "keys": "@image_key", "source_key": "@image_key", "margin": 2},
            {"_target_": "EnsureTyped", "keys": "@image_key", "device": "@device"},
        ],
    },
    "inferer": {"_target_": "SlidingWindowInferer", "roi_size": [16, 16, 16], "sw_batch_size": 4, "overlap": 0.5},
    "postprocessing": {
        "_target_": "Compose",
        "transforms": [
            {"_target_": "Activationsd", "keys": "pred", "softmax": True},
            {
                "_target_": "Invertd",
                "keys": "pred",
                "transform": "@preprocessing",
                "orig_keys": "image",
                "nearest_interp": False,
                "to_tensor": True,
            },
            {"_target_": "AsDiscreted", "keys": "pred", "argmax": True},
        ],
    },
}
METADATA: Tree = {
    "version": "0.1.0",
    "description": "A tiny network of chance",
    "copyright": "Apache-2.0",
    "data_source": "nothing",
    "network_data_format": {
        "inputs": {"image": {"num_channels": 1}},
        "outputs": {"pred": {"channel_def": {"0": "background", "1": "organ", "2": "Lesion"}}},
    },
}
PERSON: Tree = {
    "kind": "monai_bundle",
    "name": "tiny_bundle",
    "task": "draws organs",
    "modalities": ["CT"],
    "labels": {
        "organ": {"measures": ["volume", "count"], "location": "side", "objects": 3},
        "tumour": {"source": "lesion", "code": {"scheme": "SCT", "value": "108369006", "meaning": "Neoplasm"}},
    },
}


def write(path: Path, data: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(data))
    return path


def bundle(
    folder: Path, config: Tree = BUNDLE, metadata: Tree = METADATA, person: Tree = PERSON, seed: int = 0
) -> Path:
    """A MONAI bundle with weights of chance, and `expert.json`."""
    from monai.networks import nets

    definition = config["network_def"]
    if isinstance(definition, dict):
        torch.manual_seed(seed)
        network = getattr(nets, definition["_target_"])(**{k: v for k, v in definition.items() if k[0] != "_"})
        (folder / "models").mkdir(parents=True)
        torch.save({"model": network.state_dict()}, folder / "models" / "model.pt")
    write(folder / "configs" / "inference.json", config)
    write(folder / "configs" / "metadata.json", metadata)
    write(folder / "expert.json", person)
    return folder


def volume(shape: tuple[int, int, int] = (20, 28, 24), channels: tuple[str, ...] = ("HU",), seed: int = 0) -> Study:
    """A volume of smooth noise in a patient, slices to the head, lying a little askew."""
    from scipy.ndimage import gaussian_filter

    rng = np.random.default_rng(seed)
    pixels = np.stack([gaussian_filter(rng.normal(size=shape), 2) * 1500 + 50 for _ in channels]).astype(np.float32)
    affine = np.diag([1.5, 1.7, 2.5, 1.0])
    affine[:3, 3] = (-20.0, 13.0, 40.0)
    turn = np.deg2rad(7)
    affine = np.array([[np.cos(turn), -np.sin(turn), 0, 0], [np.sin(turn), np.cos(turn), 0, 0],
                       [0, 0, 1, 0], [0, 0, 0, 1]]) @ affine  # fmt: skip
    image = Image.from_array(tuple(Channel(name, "HU") for name in channels), Grid(affine, LPS, shape), pixels)
    return study("radiology", image, modality="CT")


def study(domain: str, *images: Image, **meta: str) -> Study:
    from hashlib import sha256

    digests = [sha256(image.pixels.tobytes() + image.grid.affine.tobytes()).hexdigest() for image in images]
    return Study(domain, images, Source(digests, "test"), meta)


def radiograph(shape: tuple[int, int] = (60, 80), seed: int = 0) -> Study:
    """A picture of smooth noise on a detector."""
    rng = np.random.default_rng(seed)
    pixels = np.kron(rng.uniform(100, 3000, (1, 1, shape[0] // 4, shape[1] // 4)), np.ones((4, 4))).astype(np.float32)
    grid = Grid(np.diag([0.5, 0.5, 1.0, 1.0]), "detector mm", (1, *shape))
    return study("radiology", Image.from_array((Channel("value"),), grid, pixels), modality="DX", view="PA")


BANDS = ("red", "green", "nir")


def scene(shape: tuple[int, int] = (90, 150), names: tuple[str, ...] = BANDS, seed: int = 0) -> Study:
    """A scene in metres, its bands named, with a corner without data."""
    rng = np.random.default_rng(seed)
    blocks = rng.uniform(0, 1, (len(names), 1, shape[0] // 10, shape[1] // 10))
    pixels = np.kron(blocks, np.ones((10, 10))).astype(np.float32)
    valid = np.ones((1, *shape), bool)
    valid[:, :12, :9] = False
    pixels[:, ~valid] = np.nan
    grid = Grid.from_gdal((10.0, 0.0, 500_000.0, 0.0, -10.0, 5_000_000.0), "EPSG:32633", *shape)
    image = Image.from_array(tuple(Channel(name, "reflectance") for name in names), grid, pixels, valid)
    return study("remote_sensing", image, modality="optical")


def item(file: str, task: str = "semantic-segmentation", size: int = 64, batch: int = -1, **taken: Any) -> Tree:
    """A STAC item with the mlm extension for a network of three bands and three classes."""
    axes = ["batch", "channel", "height", "width"]
    spatial = task.endswith("segmentation")
    return {
        "type": "Feature",
        "stac_version": "1.1.0",
        "stac_extensions": ["https://stac-extensions.github.io/mlm/v1.5.1/schema.json"],
        "id": "tiny",
        "geometry": None,
        "properties": {
            "datetime": "2026-01-01T00:00:00Z",
            "description": "Brighter of two bands",
            "license": "MIT",
            "mlm:name": "tiny",
            "mlm:architecture": "Comparison",
            "mlm:tasks": [task],
            "mlm:input": [
                {
                    "name": "image",
                    "bands": ["B08", {"name": "B04"}, "green"],
                    "input": {"shape": [batch, 3, size, size], "dim_order": axes, "data_type": "float32"},
                    "value_scaling": [{"type": "min-max", "minimum": 0, "maximum": 0.5}],
                    "resize_type": None,
                    "pre_processing_function": None,
                    **taken,
                }
            ],
            "mlm:output": [
                {
                    "name": "classes",
                    "tasks": [task],
                    "result": {
                        "shape": [batch, 3, size, size] if spatial else [batch, 3],
                        "dim_order": axes if spatial else axes[:2],
                        "data_type": "float32",
                    },
                    "classification:classes": [
                        {"value": 0, "name": "other"},
                        {"value": 1, "name": "Trees"},
                        {"value": 2, "name": "Soil"},
                    ],
                    "post_processing_function": None,
                }
            ],
        },
        "links": [],
        "assets": {"model": {"href": f"./{file}", "roles": ["mlm:model", "mlm:weights"]}},
    }


RASTER: Tree = {
    "kind": "torch_export",
    "name": "tiny_raster",
    "task": "maps trees and soil",
    "modalities": ["optical"],
    "activation": "softmax",
    "bands": {"B08": "nir", "B04": "red"},
    "labels": {
        "forest": {"source": "Trees", "measures": ["area_ha", "fraction"], "location": "quadrant", "objects": 2},
        "bare_ground": {"source": "Soil"},
    },
}


class Comparison(torch.nn.Module):
    """Trees where the first band is above the second by a tenth, soil where it is below by that, else other."""

    def __init__(self, pooled: bool = False) -> None:
        super().__init__()
        self.register_buffer("weight", torch.tensor([1.0, -1.0, 0.0]))
        self.pooled = pooled

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        lead = 20 * (pixels * self.weight[:, None, None]).sum(1)
        logits = torch.stack((torch.full_like(lead, 2.0), lead, -lead), 1)
        return logits.mean((2, 3)) if self.pooled else logits


_MADE: dict[tuple[Any, ...], bytes] = {}
"""What was exported before, for that takes seconds."""


def export(path: Path, network: torch.nn.Module, batch: int = -1, size: int = 64) -> Path:
    """The network as .pt2 or .onnx."""
    key = (path.name, type(network), getattr(network, "pooled", None), batch, size)
    if key in _MADE:
        path.write_bytes(_MADE[key])
        return path
    example = torch.zeros(2 if batch < 0 else batch, 3, size, size)
    dynamic = {"pixels": {0: torch.export.Dim("batch", min=1, max=64)}} if batch < 0 else None
    program = torch.export.export(network.eval(), (example,), dynamic_shapes=dynamic)
    if path.suffix == ".pt2":
        torch.export.save(program, path)
    else:
        torch.onnx.export(program, f=str(path), dynamo=True, verbose=False, external_data=False)
    _MADE[key] = path.read_bytes()
    return path


def raster(
    folder: Path, suffix: str, pooled: bool = False, batch: int = -1, person: Tree = RASTER, **taken: Any
) -> Path:
    """An exported network with its card and `expert.json`."""
    folder.mkdir(parents=True, exist_ok=True)
    export(folder / f"net{suffix}", Comparison(pooled), batch)
    kind = "torch_export" if suffix == ".pt2" else "onnx"
    task = "scene-classification" if pooled else "semantic-segmentation"
    write(folder / "item.json", item(f"net{suffix}", task, batch=batch, **taken))
    write(folder / "expert.json", {**person, "kind": kind})
    return folder
