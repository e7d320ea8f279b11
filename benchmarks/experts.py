"""Sliding windows over a volume and a scene against MONAI's, in one run: python -m benchmarks.experts [volume] [scene]
[memory].

Both sides have one network with the same weights, trained here for some minutes, and begin with the same file or
array. MONAI's is `monai.inferers.sliding_window_inference` as its documentation uses it: the features of the whole
picture in memory, windows as large as the network was made for, `overlap=0.25`, `sw_batch_size=4`, `mode="gaussian"`,
then the class of each pixel. Ours draws strip after strip, in larger windows that share as many pixels, without those
that hold no data, with batch normalisation fused and channels last; what a layer frees stays for the next. "same
windows" is without the larger ones; what they share is then rounded up to what the network reduces to one, which in
volumes is a third to a half. The sides take turns, and the best of the rounds counts; Dice is the mean over the labels,
against the truth where there is data.
"""

from __future__ import annotations

import copy
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import torch
from monai.inferers import sliding_window_inference
from numpy.typing import NDArray
from rasterio.transform import Affine
from scipy.ndimage import rotate, zoom

from domains.remote_sensing import reader
from experts.calibration import Calibration
from experts.network import card_of, fused
from experts.preparation import prepare
from experts.scenes import SceneMap
from experts.segmentation import LAYOUTS, SegmentationExpert, build, rivals
from experts.segmentation_training import segmentation_loss
from experts.settings import ExpertConfig
from fovea.types import LPS, Channel, Grid, Image, Source, Study

ROUNDS = 3
TRANSFORM = Affine(10, 0, 399_960, 0, -10, 5_500_020)
COLORS = np.array([[0.3, 0.3, 0.3, 0.3], [0.1, 0.2, 0.4, 0.05], [0.1, 0.3, 0.1, 0.6], [0.6, 0.5, 0.5, 0.4]], np.float32)
"""The four bands of none of the labels and of each."""
HOUNSFIELD = np.array([20, 60, 110, 0, -1000], np.float32)
"""Of tissue, of each label, and of the air around a body."""
Classes = NDArray[Any]
Row = tuple[str, float, float, float, float]
"""What was compared, the seconds of ours and of MONAI's, and the Dice of both."""


def main(chosen: list[str]) -> None:
    if "stream" in chosen:
        stream(int(chosen[-1]))
        return
    print(f"{'':66}{'ours':>10}{'MONAI':>10}{'ratio':>8}{'Dice':>9}{'MONAI':>9}")
    for part, compare in {"volume": volume, "scene": scene}.items():
        for name, ours, peer, dice, other in compare() if not chosen or part in chosen else ():
            print(f"{name:66}{ours:>8.1f} s{peer:>8.1f} s{peer / ours:>7.2f}×{dice:>9.4f}{other:>9.4f}", flush=True)
    if not chosen or "memory" in chosen:
        for size in (5_000, 40_000):  # in processes that hold nothing yet
            subprocess.run([sys.executable, "-m", "benchmarks.experts", "stream", str(size)], check=True)


def scene(size: int = 4096) -> Iterator[Row]:
    """A GeoTIFF of four bands, read and given a class each pixel; once with data that lies turned in the raster."""
    config = _config("optical", ("red", "green", "blue", "nir"), (1, 256, 256), (1, 10, 10), (0, 1))
    network = _trained(config, _scene(config, 512, 1), _truth((1, 512, 512), 1), (1, 96, 96), 150)
    truth, pixels = _truth((1, size, size), 2)[0], _scene(config, size, 2).images[0].pixels[:, 0]
    turned = rotate(np.ones((size // 16, size // 16), np.uint8), 14, reshape=True, order=0)
    turned = turned[(np.arange(size) * len(turned) / size).astype(int)][
        :, (np.arange(size) * len(turned) / size).astype(int)
    ]
    with tempfile.TemporaryDirectory() as name:
        for what, valid in (("turned in its raster", turned > 0), ("filling its raster", np.ones((size, size), bool))):
            path = _write(Path(name) / f"{what}.tif", np.where(valid, pixels, 0))
            for cut, window in (("", None), (", same windows", config.size)):
                yield _compared(
                    f"scene of 4 x {size}², {what}{cut}",
                    lambda path=path, window=window: _mapped(_expert(config, network), reader.load(path), window),
                    lambda path=path: _monai(config, network, _loaded(config, path)),
                    np.where(valid, truth, 255),
                )  # fmt: skip


def volume(shape: tuple[int, int, int] = (128, 256, 256)) -> Iterator[Row]:
    """A volume in memory, given a class each voxel; once with air around the body."""
    config = _config("CT", ("HU",), (32, 96, 96), (3, 1.5, 1.5), (-160, 240))
    small = _in_air(_truth((64, 160, 160), 1))
    network = _trained(config, _volume(config, small, 1), small, config.size, 400)
    truth = _truth(shape, 2)
    for what, classes in (("a body in air", _in_air(truth)), ("no air", truth)):
        study = _volume(config, classes, 2)
        for cut, window in (("", None), (", same windows", config.size)):
            yield _compared(
                f"volume of {' x '.join(map(str, shape))}, {what}{cut}",
                lambda study=study, window=window: _drawn(_expert(config, network), study, window),
                lambda study=study: _monai(config, network, study),
                classes,
            )


def stream(size: int) -> None:
    """Print the seconds and the most memory of mapping a scene with one band; the network is small, for the time."""
    config = _config("optical", ("red",), (1, 256, 256), (1, 10, 10), (0, 1))
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Conv2d(2, 3, 3, padding=1))
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "scene.tif"
        tile = np.random.default_rng(0).integers(1, 10_000, (512, 512)).astype(np.uint16)
        with rasterio.open(path, "w", **_profile(size, size, 1)) as file:
            for _, window in file.block_windows(1):
                file.write(tile[None, : window.height, : window.width], window=window)
            file.scales = (1e-4,)
            file.descriptions = ("red",)
        before, started, seen = _most(), time.perf_counter(), 0
        for strip in SceneMap(_expert(config, network), reader.load(path)).strips():
            seen += strip.classes.size
    if seen != size**2:
        raise RuntimeError(f"{seen} pixels were mapped")
    print(f"{size}² pixels in {time.perf_counter() - started:.0f} s, at most {_most():.0f} MiB, {before:.0f} before")


def _compared(name: str, ours: Callable[[], Classes], peer: Callable[[], Classes], truth: Classes) -> Row:
    best, maps = [float("inf")] * 2, [truth, truth]
    for _ in range(ROUNDS):
        for side, work in enumerate((ours, peer)):
            started = time.perf_counter()
            maps[side] = work()
            best[side] = min(best[side], time.perf_counter() - started)
    return name, best[0], best[1], _dice(maps[0], truth), _dice(maps[1], truth)


def _dice(found: Classes, truth: Classes) -> float:
    there = truth != 255
    pairs = [((found == n) & there, truth == n) for n in (1, 2, 3)]
    return float(np.mean([2 * (a & b).sum() / (a.sum() + b.sum()) for a, b in pairs]))


def _mapped(expert: SegmentationExpert, study: Study, window: tuple[int, int, int] | None) -> Classes:
    out = np.zeros(study.images[0].grid.shape[1:], np.uint8)
    for strip in SceneMap(expert, study, window).strips():
        out[slice(*strip.rows), slice(*strip.columns)] = strip.classes
    return out


def _drawn(expert: SegmentationExpert, study: Study, window: tuple[int, int, int] | None) -> Classes:
    seen = prepare(expert.config, study)
    out = np.zeros(seen.valid.shape, np.uint8)

    def read(spans: tuple[tuple[int, int], ...]) -> Any:
        part = tuple(slice(*span) for span in spans)
        return seen.pixels[:, *part], seen.valid[part]

    for block in expert.blocks(read, seen.valid.shape, window):
        out[tuple(slice(*span) for span in block.spans)] = _decided(block.probabilities)
    return out


def _monai(config: ExpertConfig, network: torch.nn.Module, study: Study) -> Classes:
    seen = prepare(config, study)
    flat = config.size[0] == 1
    inputs = torch.from_numpy(seen.pixels[None, :, 0] if flat else seen.pixels[None])
    with torch.inference_mode():
        logits = sliding_window_inference(inputs, config.size[flat:], 4, network, overlap=0.25, mode="gaussian")
        classes = _decided(rivals(logits[0]))
    return np.where(seen.valid[0] if flat else seen.valid, classes, 255)


def _decided(probabilities: torch.Tensor) -> Classes:
    best, label = probabilities.max(0)
    return torch.where(best >= 0.5, label + 1, 0).numpy()


def _loaded(config: ExpertConfig, path: Path) -> Study:
    """The whole scene in memory, as rasterio reads it."""
    with rasterio.open(path) as file:
        stored = file.read()
        pixels, grid = stored * np.float32(1e-4), Grid.from_gdal(tuple(file.transform)[:6], "EPSG:32633", *file.shape)
    return _study(config, grid, pixels[:, None], (stored > 0).all(0)[None])


def _expert(config: ExpertConfig, network: torch.nn.Module) -> SegmentationExpert:
    ready = fused(copy.deepcopy(network)).to(memory_format=LAYOUTS[config.size[0] > 1])
    calibrations = dict.fromkeys(config.labels, Calibration())
    return SegmentationExpert(config, calibrations, ready, card_of(config, ready, ("0",)))


def _config(
    modality: str, channels: tuple[str, ...], size: tuple[int, int, int], spacing: tuple[float, float, float],
    values: tuple[float, float],
) -> ExpertConfig:  # fmt: skip
    given = {
        "name": "compared", "task": "compared", "modalities": (modality,), "channels": channels, "size": size,
        "spacing": spacing, "low": values[0], "high": values[1], "exclusive": True,
        "labels": {"first": {}, "second": {}, "third": {}},
    }  # fmt: skip
    return ExpertConfig.model_validate(given)


def _trained(
    config: ExpertConfig, study: Study, truth: Classes, crop: tuple[int, int, int], steps: int
) -> torch.nn.Module:
    torch.manual_seed(0)
    network, rng = build(config).train(), np.random.default_rng(0)
    optimizer = torch.optim.AdamW(network.parameters(), 1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-2, steps)
    pixels, masks = prepare(config, study).pixels, np.stack([truth == n for n in (1, 2, 3)]).astype(np.float32)
    for _ in range(steps):
        inputs, wanted = [], []
        for _ in range(2 if config.size[0] > 1 else 6):
            starts = [int(rng.integers(0, n - m + 1)) for n, m in zip(truth.shape, crop, strict=True)]
            part = tuple(slice(start, start + n) for start, n in zip(starts, crop, strict=True))
            inputs.append(torch.from_numpy(pixels[:, *part]))
            wanted.append(torch.from_numpy(masks[:, *part]))
        given, drawn = (torch.stack(parts).squeeze(2) for parts in (inputs, wanted))
        loss = segmentation_loss(network(given), drawn, torch.ones_like(drawn), exclusive=True)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
    return network.eval()


def _truth(shape: tuple[int, int, int], seed: int) -> Classes:
    """Classes 0 to 3 with smooth outlines."""
    rng = np.random.default_rng(seed)
    coarse = [max(n // 32, 1) + (n > 1) for n in shape]
    fields = [_stretched(rng.normal(size=coarse).astype(np.float32), shape) for _ in range(3)]
    return np.argmax([np.full(shape, 0.2, np.float32), *fields], axis=0)


def _in_air(truth: Classes) -> Classes:
    """The classes within a body, and 4 around it."""
    rows, columns = np.mgrid[-1 : 1 : truth.shape[1] * 1j, -1 : 1 : truth.shape[2] * 1j]
    return np.where((rows / 0.55) ** 2 + (columns / 0.85) ** 2 < 1, truth, 4)


def _stretched(field: NDArray[np.float32], shape: tuple[int, ...]) -> NDArray[np.float32]:
    factors = [n / m for n, m in zip(shape, field.shape, strict=True)]
    return np.asarray(zoom(field, factors, order=1, grid_mode=True, mode="nearest"), np.float32)


def _scene(config: ExpertConfig, size: int, seed: int) -> Study:
    noise = np.random.default_rng(seed).standard_normal((4, 1, size, size), np.float32) * np.float32(0.08)
    values = (np.moveaxis(COLORS[_truth((1, size, size), seed)], 3, 0) + noise).clip(1e-3, 1)
    return _study(config, Grid.from_gdal(tuple(TRANSFORM)[:6], "EPSG:32633", size, size), values)


def _volume(config: ExpertConfig, classes: Classes, seed: int) -> Study:
    noise = np.random.default_rng(seed).standard_normal(classes.shape, np.float32) * np.float32(15)
    grid = Grid(np.diag([1.5, 1.5, 3.0, 1.0]), LPS, classes.shape)
    return _study(config, grid, (HOUNSFIELD[classes] + noise)[None])


def _study(
    config: ExpertConfig, grid: Grid, values: NDArray[np.float32], valid: NDArray[np.bool_] | None = None
) -> Study:
    channels = tuple(Channel(name) for name in config.channels)
    image = Image.from_array(channels, grid, values, valid)
    return Study("", (image,), Source(("0" * 64,), ""), {"modality": config.modalities[0]})


def _write(path: Path, values: NDArray[np.float32]) -> Path:
    with rasterio.open(path, "w", **_profile(*values.shape[1:], len(values))) as file:
        file.write((values * 10_000).astype(np.uint16))
        file.scales = (1e-4,) * len(values)
        file.descriptions = ("red", "green", "blue", "nir")
    return path


def _profile(rows: int, columns: int, bands: int) -> dict[str, Any]:
    return {
        "driver": "GTiff", "width": columns, "height": rows, "count": bands, "dtype": "uint16", "crs": "EPSG:32633",
        "transform": TRANSFORM, "tiled": True, "blockxsize": 512, "blockysize": 512, "nodata": 0, "compress": "zstd",
        "zstd_level": 1, "bigtiff": "IF_SAFER",
    }  # fmt: skip


def _most() -> float:
    """The most memory that this process has held, in MiB (Linux); its children hold a few tiles each."""
    return float(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0]) / 1024


if __name__ == "__main__":
    main(sys.argv[1:])
