"""Sentinel-1 GRD products in SAFE folders: calibrated to sigma nought, and laid on a map by their geolocation grid.

Choices:

- Numbers are squared, freed of thermal noise and calibrated in the rows and columns of the radar; then power, not
  amplitude, is interpolated and averaged. Pixels of 0, the border of a scene, are invalid and do not bleed.
- Places are those of the annotation's geolocation grid, which lies on the terrain at its points and on nothing between
  them. This is no terrain correction: what stands above its neighbouring points is moved towards the radar by about its
  height over them, divided by the tangent of the incidence angle. `meta["geometry"]` gives the heights and the error.
- Border noise that processors before version 2.9 left beside the border is kept.
- Rasters that somebody laid on a map grid are read as their numbers: calibration does not apply to their pixels.

Source: Sentinel-1 Product Specification, S1-RS-MDA-52-7441.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from domains.formats.content import Content, file_hash
from domains.formats.rasters import gcps, geotiff
from domains.formats.rasters.earth import GEOGRAPHIC
from domains.formats.rasters.sensors import SENSORS, SENTINEL1, SensorBand
from domains.remote_sensing.products import calibration, facts
from domains.remote_sensing.products.joined import Layer, join
from fovea.errors import InputError, UnsupportedError
from fovea.image import Channel, Image, Matrix
from fovea.verbal import number

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

READER = "sentinel-1/2"

_MEASUREMENT = re.compile(r"s1[a-d]-(?:iw|ew|s\d)-(grd|slc)[a-z]?-(vv|vh|hh|hv)-(\d{8})t\d{6}-.+\.tiff?", re.IGNORECASE)
_MOST_POINTS = 2048
"""Of a geolocation grid: a scene of half a minute has 210."""


def begins(path: Path) -> bool:
    """Whether a file is the manifest of a product."""
    return path.name == "manifest.safe" and (path.parent / "measurement").is_dir()


def files(path: Path) -> tuple[Path, ...]:
    """All files below the folder of the manifest, which comes first."""
    return (path, *sorted(file for file in path.parent.rglob("*") if file.is_file() and file != path))


def read(path: Path) -> Content:
    """Sigma nought of each polarisation, linear.

    Raises UnsupportedError for complex products, InputError for annotation that is missing or incomplete, GeometryError
    for a geolocation grid that folds.
    """
    found = _measurements(path.parent / "measurement")
    day = facts.day(found[0][1].name.split("-")[4][:8])
    meta = facts.known(modality="radar", sensor=SENTINEL1, level="GRD", date=day)
    opened = [geotiff.read(file, nodata=0, power=True) for _, file in found]
    hashes = [digest for content in opened for digest in content.hashes]
    if any(content.images[0].grid.georeferenced for content in opened):
        numbers = [Layer(Channel(band.channel, "digital number"), _number(file)) for band, file in found]
        return Content((join(numbers),), meta, tuple(hashes))
    layers = []
    for (band, file), content in zip(found, opened, strict=True):
        factor, noise = (_annotation(path.parent, f"calibration/{k}-{file.stem}") for k in ("calibration", "noise"))
        layers.append(_layer(band, content.images[0], facts.xml(factor), facts.xml(noise)))
        hashes += [file_hash(factor), file_hash(noise)]
    grid = _annotation(path.parent, found[0][1].stem)
    placed, told = _placed(join(layers), facts.xml(grid))
    return Content((placed,), {**meta, "geometry": told}, (*hashes, file_hash(grid)))


def _number(file: Path) -> Image:
    return geotiff.read(file, nodata=0).images[0]


def _layer(band: SensorBand, power: Image, factor: Element, noise: Element) -> Layer:
    """Sigma nought of one polarisation, in the rows and columns of the radar."""
    read = calibration.Calibrated(power, calibration.amplitudes(factor), calibration.Noise.read(noise))
    channel = Channel(band.channel, calibration.UNIT)
    return Layer(channel, Image((channel,), power.grid, read))


def _measurements(folder: Path) -> list[tuple[SensorBand, Path]]:
    """The file of each polarisation, in the order of the sensor's registry."""
    named = [(match, file) for file in sorted(folder.iterdir()) if (match := _MEASUREMENT.fullmatch(file.name))]
    if any(match[1].lower() == "slc" for match, _ in named):
        raise UnsupportedError("a single look complex product", "ground range detected (GRD)", "Download the GRD")
    sensor = SENSORS[SENTINEL1]
    found = [(band, file) for match, file in named if (band := sensor.band(match[2]))]
    if not found:
        raise InputError("a Sentinel-1 product without measurements", "a GeoTIFF for each polarisation")
    return sorted(found, key=lambda pair: sensor.bands.index(pair[0]))


def _annotation(product: Path, name: str) -> Path:
    """A file of the annotation."""
    path = product / "annotation" / f"{name}.xml"
    if not path.is_file():
        kind = name.partition("/")[2].partition("-")[0] or "geolocation"
        raise InputError(f"a Sentinel-1 product without its {kind} annotation", "a whole product", "Fetch it again")
    return path


def _placed(image: Image, root: Element) -> tuple[Image, str]:
    """The scene on the map, and what there is to say of its place."""
    rows, columns = image.grid.shape[1:]
    size = tuple(facts.number(facts.text(root, name), name) for name in ("numberOfLines", "numberOfSamples"))
    if size != (rows, columns):
        raise InputError(
            f"an annotation of {size[0]:g} x {size[1]:g} pixels for {rows} x {columns}", "one of its raster"
        )
    points = _points(root)
    spacing = [facts.number(facts.text(root, f"{name}PixelSpacing"), "pixel spacing") for name in ("range", "azimuth")]
    if not 0.1 < min(spacing) < 1e4:
        raise InputError(f"a pixel spacing of {min(spacing):g} m", "metres of a radar's pixel", "Fetch it again")
    where = gcps.Points(points[:, :2], points[:, 3:1:-1], GEOGRAPHIC)
    placed, error = gcps.place(image, where, spacing=float(f"{min(spacing):.2g}"))
    low, high = (number(height) for height in np.quantile(points[:, 4], (0, 1)))
    return placed, f"{len(points)} points at heights from {low} to {high} m, {gcps.told(error)}, no terrain correction"


def _points(root: Element) -> Matrix:
    """Line, pixel, latitude, longitude and height (n, 5) of the geolocation grid; whole numbers are centres."""
    names = ("line", "pixel", "latitude", "longitude", "height")
    found = list(facts.elements(root, "geolocationGridPoint"))
    if not 4 <= len(found) <= _MOST_POINTS:
        raise InputError(f"a geolocation grid of {len(found)} points", f"4 to {_MOST_POINTS}", "Fetch it again")
    return np.array([[facts.number(facts.text(point, name), name) for name in names] for point in found])
