"""GeoTIFFs that tests write."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from rasterio.control import GroundControlPoint
from rasterio.crs import CRS
from rasterio.enums import Resampling
from rasterio.shutil import copy
from rasterio.transform import Affine

from domains.formats.rasters import geotiff
from fovea.types import Image

UTM = {"crs": "EPSG:32633", "transform": Affine(10, 0, 399960, 0, -10, 5500020)}
LOCAL = CRS.from_wkt('LOCAL_CS["plant",UNIT["metre",1]]')
POINTS = [GroundControlPoint(r, c, 10 + c / 60, 50 - r / 60) for r in (0, 30) for c in (0, 50)]
BENT = [
    GroundControlPoint(r, c, 10 + c / 6000 + (r / 4000) ** 2 + (c / 3000) ** 2, 50 - r / 6000)
    for r in range(0, 49, 12) for c in range(0, 65, 16)
]  # fmt: skip
NAME = "doe_jane_19700101"


def write(path: Path, data: Any, *, tags: dict[str, str] | None = None, bands: Any = (), **profile: Any) -> Path:
    """A GeoTIFF of `data` (band, row, column); `bands` holds a dict of attributes for each band."""
    data = np.asarray(data)
    shape = dict(zip(("count", "height", "width"), data.shape, strict=True))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with rasterio.open(path, "w", driver="GTiff", dtype=data.dtype, **shape, **profile) as file:
            file.write(data)
            file.update_tags(**(tags or {}))
            for index, band in enumerate(bands, 1):
                if "description" in band:
                    file.set_band_description(index, band["description"])
                if "unit" in band:
                    file.set_band_unit(index, band["unit"])
                file.update_tags(index, **band.get("tags", {}))
                file.update_tags(index, ns="IMAGERY", **band.get("imagery", {}))
    return path


def scene(path: Path, bands: int = 3, shape: tuple[int, int] = (40, 60), dtype: str = "uint16", **profile: Any) -> Path:
    """Random values from 1 to 200."""
    data = np.random.default_rng(bands).integers(1, 200, (bands, *shape)).astype(dtype)
    return write(path, data, **{**UTM, **profile})


def image(path: Path) -> Image:
    return geotiff.read(path).images[0]


def seeds(folder: Path) -> list[Path]:
    """Small files of many layouts, for mutation: one of each compression, tiles, strips, masks, points, JPEG 2000."""
    rng = np.random.default_rng(0)
    data = rng.integers(1, 200, (3, 48, 64)).astype(np.uint8)
    wide = np.cumsum(rng.integers(0, 3, (2, 48, 64)), 2).astype(np.uint16)
    tiles = {"tiled": True, "blockxsize": 16, "blockysize": 16}
    made = [
        write(folder / f"{name}.tif", wide, **UTM, **tiles, compress=name, predictor=2)
        for name in ("deflate", "lzw", "zstd")
    ]
    made += [write(folder / f"{name}.tif", data, **UTM, compress=name) for name in ("packbits", "lerc", "webp")]
    made += [
        write(folder / "plain.tif", data, **UTM),
        write(folder / "jpeg.tif", data, **UTM, compress="jpeg", photometric="ycbcr"),
        write(folder / "big.tif", wide, **UTM, BIGTIFF="YES", interleave="band", nodata=7),
        write(folder / "motorola.tif", wide.astype(np.float32), **UTM, ENDIANNESS="BIG", compress="deflate"),
        write(folder / "palette.tif", data[:1] % 3, **UTM, photometric="palette"),
        write(folder / "points.tif", data, crs="EPSG:4326", gcps=POINTS),
        write(folder / "bent.tif", data, crs="EPSG:4326", gcps=BENT),
        write(folder / "wkt.tif", data, transform=UTM["transform"], crs="+proj=laea +lat_0=12 +lon_0=45 +units=m"),
        write(
            folder / "told.tif", wide, **UTM, tags={"SENSING_TIME": "2021-06-12"}, bands=[{"description": "B04"}] * 2
        ),
    ]
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(made[0], "r+") as file:
        file.build_overviews([2, 4], Resampling.average)
        file.write_mask(data[0] > 50)
        file.scales, file.offsets = (1e-4, 1e-4), (-0.1, -0.1)
    with rasterio.open(made[6]) as file, rasterio.Env():
        copy(file, folder / "picture.jp2", driver="JP2OpenJPEG")
    return [*made, folder / "picture.jp2"]
