"""GeoTIFFs that tests write."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from rasterio.crs import CRS
from rasterio.transform import Affine

from domains.formats import geotiff
from fovea.types import Image

UTM = {"crs": "EPSG:32633", "transform": Affine(10, 0, 399960, 0, -10, 5500020)}
LOCAL = CRS.from_wkt('LOCAL_CS["plant",UNIT["metre",1]]')
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
