"""Sentinel-1 GRD products in SAFE folders: recognised as one scene, and read where their rasters lie on a map grid.

As they are delivered, the rasters lie in the radar's own geometry, which no affine grid describes: they are refused
with what to do. Source: Sentinel-1 Product Specification, S1-RS-MDA-52-7441.
"""

from __future__ import annotations

import re
from pathlib import Path

from domains.formats.content import Content
from domains.formats.rasters import geotiff
from domains.formats.rasters.sensors import SENSORS, SENTINEL1
from domains.remote_sensing.products import facts
from domains.remote_sensing.products.joined import Layer, join
from fovea.errors import GeometryError, InputError, UnsupportedError
from fovea.image import Channel

READER = "sentinel-1/1"

_MEASUREMENT = re.compile(r"s1[a-d]-(?:iw|ew|s\d)-(grd|slc)[a-z]?-(vv|vh|hh|hv)-(\d{8})t\d{6}-.+\.tiff?", re.IGNORECASE)


def begins(path: Path) -> bool:
    """Whether a file is the manifest of a product."""
    return path.name == "manifest.safe" and (path.parent / "measurement").is_dir()


def files(path: Path) -> tuple[Path, ...]:
    """All files below the folder of the manifest, which comes first."""
    return (path, *sorted(file for file in path.parent.rglob("*") if file.is_file() and file != path))


def read(path: Path) -> Content:
    """The amplitude of each polarisation in digital numbers.

    Raises UnsupportedError for complex products, GeometryError for rasters that are placed by control points.
    """
    rasters = sorted((path.parent / "measurement").iterdir())
    found = [(match, file) for file in rasters if (match := _MEASUREMENT.fullmatch(file.name))]
    if not found:
        raise InputError("a Sentinel-1 product without measurements", "a GeoTIFF for each polarisation")
    if any(match[1].lower() == "slc" for match, _ in found):
        raise UnsupportedError("a single look complex product", "ground range detected (GRD)", "Download the GRD")
    layers: list[Layer] = []
    hashes: list[str] = []
    for match, file in found:
        band = SENSORS[SENTINEL1].band(match[2])
        try:
            content = geotiff.read(file, nodata=0)
        except GeometryError:
            raise GeometryError(
                "a Sentinel-1 scene in the geometry of the radar",
                "a map grid",
                "Run the range-Doppler terrain correction of a SAR toolbox and load its GeoTIFF",
            ) from None
        if band:
            layers.append(Layer(Channel(band.channel, "digital number"), content.images[0]))
            hashes += content.hashes
    meta = facts.known(modality="radar", sensor=SENTINEL1, level="GRD", date=facts.day(found[0][0][3]))
    return Content((join(layers),), meta, tuple(hashes))
