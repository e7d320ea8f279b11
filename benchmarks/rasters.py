"""Random chips of a compressed scene against rasterio, rio-tiler and torchgeo; and a scene too large for the memory.

    python -m benchmarks.rasters [chips] [stream]

All readers get the same list of windows, in the order in which it was drawn, and keep their file open; 64 of the chips
are compared. They take turns, and the best of the rounds counts. GDAL's cache of blocks has its default of 5 % of the
machine's memory in this process, which may be more than the whole scene; in the rows "same memory" it has what ours
holds in all processes.
"""

from __future__ import annotations

import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import rasterio
from numpy.typing import NDArray
from rasterio.transform import Affine
from rasterio.windows import Window as RasterWindow

from domains.formats.rasters import chips, geotiff
from fovea.image import Window

ROUNDS = 3
CHIP = 256
TILE = 10_980
"""Pixels a side of a Sentinel-2 tile at 10 m. Its ten bands of 10 and 20 m fill 2.2 GiB when decoded."""
TRANSFORM = Affine(10, 0, 399960, 0, -10, 5500020)
SAME_MEMORY = chips.MEMORY + 2 * 2**26
Row = tuple[str, float, float]
"""What was compared, and the best seconds of ours and of the peer."""
Chips = dict[int, NDArray[Any]]
Reader = Callable[[Path, Sequence[Window], bool], Chips]


def compare(size: int = 8192, rounds: int = ROUNDS) -> Iterator[Row]:
    """Rows for deflate and zstd, as they are measured; raises RuntimeError where two readers give other values."""
    with tempfile.TemporaryDirectory() as name:
        for codec in ("deflate", "zstd"):
            path = write(Path(name) / codec / "scene.tif", size, codec)
            yield from _round(path, codec, windows(size), rounds)
        yield from _warped(path, rounds)
        path = write(Path(name) / "tile" / "scene.tif", TILE, "zstd", bands=10, ZSTD_LEVEL=1)
        yield from _round(path, f"zstd, ten bands of {TILE}²", windows(TILE), 1)


def windows(size: int, seed: int = 0) -> list[Window]:
    """Places of as many chips as would cover the scene once, drawn evenly: what training sees of it in an epoch."""
    number = (size // CHIP) ** 2
    tops, lefts = np.random.default_rng(seed).integers(0, size - CHIP + 1, (2, number)).tolist()
    return [Window((row, row + CHIP), (column, column + CHIP)) for row, column in zip(tops, lefts, strict=True)]


def write(path: Path, size: int, codec: str, bands: int = 4, **more: Any) -> Path:
    """A tiled scene of uint16 with slopes and noise, as compressible as a satellite's; equal tiles recur."""
    path.parent.mkdir(exist_ok=True)
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:512, :512]
    ground = 1500 + 800 * np.sin(rows / 97) + 700 * np.cos(columns / 131)
    tiles = [(ground + rng.normal(300, 60, (bands, 512, 512))).clip(1).astype(np.uint16) for _ in range(16)]
    profile = {
        "driver": "GTiff", "width": size, "height": size, "count": bands, "dtype": "uint16", "crs": "EPSG:32633",
        "transform": TRANSFORM, "tiled": True, "blockxsize": 512, "blockysize": 512, "compress": codec, "predictor": 2,
        "interleave": "pixel", "BIGTIFF": "IF_SAFER", **more,
    }  # fmt: skip
    with rasterio.open(path, "w", **profile) as file:
        for turn, (_, window) in enumerate(file.block_windows(1)):
            file.write(tiles[turn % 16][:, : window.height, : window.width], window=window)
    return path


def _round(path: Path, codec: str, wanted: list[Window], rounds: int) -> list[Row]:
    some = wanted[:64]
    found = {name: read(path, some, True) for name, read in READERS.items()}
    for name, chip in found.items():
        if any(not np.array_equal(chip[i], found["fovea"][i]) for i in range(len(some))):
            raise RuntimeError(f"{name} reads other values")
    best = dict.fromkeys(READERS, float("inf"))
    for _ in range(rounds):
        for name, read in READERS.items():
            started = time.perf_counter()
            read(path, wanted, False)
            best[name] = min(best[name], time.perf_counter() - started)
    ours = best.pop("fovea")
    return [(f"{len(wanted)} chips of {CHIP}², {codec} / {name}", ours, peer) for name, peer in best.items()]


def _fovea(path: Path, wanted: Sequence[Window], keep: bool) -> Chips:
    scene = _scene(path)
    return {i: pixels[:, 0] if keep else None for i, pixels, _ in chips.read(scene, wanted)}  # type: ignore[misc]


def _scene(path: Path) -> Any:
    """Opened once a file, as the peers' are: the header is no part of what is compared."""
    if path not in _scenes:
        _scenes[path] = geotiff.read(path).images[0]
    return _scenes[path]


_scenes: dict[Path, Any] = {}


def _rasterio(memory: int) -> Reader:
    def read(path: Path, wanted: Sequence[Window], keep: bool) -> Chips:
        found: Chips = {}
        with rasterio.Env(GDAL_CACHEMAX=memory), rasterio.open(path) as file:
            for index, window in enumerate(wanted):
                pixels = file.read(window=RasterWindow(window.columns[0], window.rows[0], CHIP, CHIP))
                found[index] = pixels if keep else None
        return found

    return read


def _rio_tiler(path: Path, wanted: Sequence[Window], keep: bool) -> Chips:
    from rio_tiler.io import Reader as Tiler

    found: Chips = {}
    with rasterio.Env(GDAL_CACHEMAX=_default()), Tiler(str(path)) as file:
        crs = file.crs
        for index, window in enumerate(wanted):
            part = file.part(_box(window), dst_crs=crs, bounds_crs=crs, max_size=None)
            found[index] = np.asarray(part.array.data) if keep else None
    return found


def _torchgeo(path: Path, wanted: Sequence[Window], keep: bool) -> Chips:
    from torchgeo.datasets import RasterDataset

    if path not in _datasets:
        _datasets[path] = RasterDataset(str(path))
    dataset, found = _datasets[path], {}
    with rasterio.Env(GDAL_CACHEMAX=_default()):
        time_span = dataset.bounds[2]
        for index, window in enumerate(wanted):
            west, south, east, north = _box(window)
            sample = dataset[slice(west, east), slice(south, north), time_span]
            found[index] = sample["image"].numpy() if keep else None
    return found


_datasets: dict[Path, Any] = {}


def _box(window: Window) -> tuple[float, float, float, float]:
    west, north = TRANSFORM @ (window.columns[0], window.rows[0])
    east, south = TRANSFORM @ (window.columns[1], window.rows[1])
    return west, south, east, north


def _default() -> int:
    return int(psutil.virtual_memory().total * 0.05)


READERS: dict[str, Reader] = {
    "fovea": _fovea,
    "rasterio, kept open": _rasterio(_default()),
    "rasterio, kept open, same memory": _rasterio(SAME_MEMORY),
    "rio-tiler part": _rio_tiler,
    "torchgeo RasterDataset": _torchgeo,
}


def _warped(path: Path, rounds: int) -> list[Row]:
    """A window of 2048² pixels reprojected, which both do by bilinear weights, against rasterio's WarpedVRT."""
    from rasterio.enums import Resampling
    from rasterio.vrt import WarpedVRT

    from domains.formats.rasters.warp import warp
    from fovea.image import Grid

    scene = geotiff.read(path).images[0]
    step = 0.9e-4  # finer than the scene both ways: where pixels are merged, GDAL and this package weight otherwise
    grid = Grid.from_gdal((step, 0, 14.1, 0, -step, 49.4), "EPSG:4326", 2048, 2048)
    place = {"transform": Affine(*grid.to_gdal()), "width": 2048, "height": 2048, "crs": "EPSG:4326"}
    best = [float("inf"), float("inf")]
    for _ in range(rounds):
        started = time.perf_counter()
        ours = warp(scene, grid).pixels
        middle = time.perf_counter()
        with (
            rasterio.open(path) as file,
            WarpedVRT(file, resampling=Resampling.bilinear, tolerance=0.02, **place) as vrt,
        ):
            theirs = vrt.read()
        best = [min(best[0], middle - started), min(best[1], time.perf_counter() - middle)]
    if np.abs(ours[:, 0] - theirs)[:, 2:-2, 2:-2].mean() > 6:  # of a noise of 60 from pixel to pixel
        raise RuntimeError("WarpedVRT reads other values")
    return [("2048² reprojected, zstd / rasterio WarpedVRT", best[0], best[1])]


def stream(size: int = 40_000) -> tuple[float, int]:
    """Seconds and the most bytes, of this process and its children together, of reading all of a large scene once."""
    with tempfile.TemporaryDirectory() as name:
        path = write(Path(name) / "scene.tif", size, "zstd", bands=1, ZSTD_LEVEL=1)
        scene = geotiff.read(path).images[0]
        spans = [(start, min(start + 1024, size)) for start in range(0, size, 1024)]
        total, started = 0, time.perf_counter()
        with _watched() as peak:
            for _, pixels, _ in chips.read(scene, [Window(rows, columns) for rows in spans for columns in spans]):
                total += pixels.size
        if total != size**2:
            raise RuntimeError(f"{total} pixels were read")
        return time.perf_counter() - started, peak[0]


@contextmanager
def _watched() -> Iterator[list[int]]:
    """The most bytes that the processes held together, looked at every 20 ms."""
    peak, done = [0], threading.Event()
    own = psutil.Process()

    def look() -> None:
        while not done.wait(0.02):
            held = 0
            for process in (own, *own.children(recursive=True)):
                try:
                    held += process.memory_info().rss
                except psutil.NoSuchProcess:
                    continue
            peak[0] = max(peak[0], held)

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield peak
    finally:
        done.set()
        thread.join()


def main(chosen: list[str]) -> None:
    """Print the rows of what was chosen, of all where nothing was."""
    warnings.simplefilter("ignore")
    if not chosen or "chips" in chosen:
        for name, ours, peer in compare():
            print(f"{name:86}{1000 * ours:>8.0f} ms{1000 * peer:>8.0f} ms{peer / ours:>7.2f}×", flush=True)
    if not chosen or "stream" in chosen:
        seconds, peak = stream()
        print(f"40000² pixels in {seconds:.1f} s, at most {peak / 2**20:.0f} MiB in all processes")


if __name__ == "__main__":
    main(sys.argv[1:])
