"""Landsat Collection 2 Level-1 and Level-2 scenes: band files beside their MTL metadata in text, XML or JSON.

Level 2 is surface reflectance and surface temperature, Level 1 reflectance and brightness temperature at the top of
the atmosphere (reflectance is divided by the sine of the sun's elevation). All coefficients come from the MTL file.
Sources: Landsat 8-9 Collection 2 Level 2 Science Product Guide (LSDS-1619), Landsat 8-9 Calibration and Validation
Algorithm Description (LSDS-1747), Landsat Collection 2 Quality Assessment Bands (USGS).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from functools import partial
from math import radians, sin
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from domains.formats.content import Content, file_hash, foreign, parallel
from domains.formats.rasters import geotiff
from domains.formats.rasters.sensors import ETM, OLI, SENSORS, TM5, SensorBand
from domains.remote_sensing.products import facts
from domains.remote_sensing.products.joined import (
    CLEAR,
    CLOUD,
    HAZE,
    SHADOW,
    SNOW,
    WATER,
    Flags,
    Layer,
    Numbers,
    join,
    split,
)
from fovea.errors import InputError, UnsupportedError
from fovea.image import Bools, Channel, Image

READER = "landsat/1"

_MTL = re.compile(r"(L[COTEM]0[4-9]_L[12]\w{2}_\d{6}_\d{8}_\d{8}_\d{2}_\w{2})_MTL\.(txt|xml|json)", re.IGNORECASE)
_SENSOR = {"4": TM5, "5": TM5, "7": ETM, "8": OLI, "9": OLI}
_FILL, _DILATED, _CIRRUS, _CLOUD, _SHADOW, _SNOW, _WATER = 0, 1, 2, 3, 4, 5, 7
_GRADES = (
    (_WATER, WATER), (_SNOW, SNOW), (_SHADOW, SHADOW), (_CIRRUS, HAZE), (_DILATED, CLOUD), (_CLOUD, CLOUD),
)  # fmt: skip
"""Bits of QA_PIXEL and what they mean; later ones count more."""
_DROPPED = 9
"""The bit of QA_RADSAT for pixels that TM and ETM+ did not detect."""
_PIXEL, _SATURATION = "FILE_NAME_QUALITY_L1_PIXEL", "FILE_NAME_QUALITY_L1_RADIOMETRIC_SATURATION"

Group = Mapping[str, str]


def begins(path: Path) -> bool:
    """Whether a file is the MTL metadata of a scene."""
    return bool(_MTL.fullmatch(path.name))


def files(path: Path) -> tuple[Path, ...]:
    """The metadata, and the files beside it whose names begin with the scene's."""
    match = _MTL.fullmatch(path.name)
    scene = f"{match[1].upper() if match else path.stem}_"
    beside = sorted(file for file in path.parent.iterdir() if file.is_file() and file.name.upper().startswith(scene))
    return (path, *(file for file in beside if file != path))


def read(path: Path) -> Content:
    """An image of reflectance, and one of temperature in kelvin where there are thermal bands.

    "quality" comes from QA_PIXEL; its fill and pixels that QA_RADSAT has as saturated are invalid. The panchromatic
    band is left apart. Raises UnsupportedError for Collection 1, InputError for a scene without QA_PIXEL or
    coefficients.
    """
    groups = _metadata(path)
    contents, image = groups.get("PRODUCT_CONTENTS", {}), groups.get("IMAGE_ATTRIBUTES", {})
    if contents.get("COLLECTION_NUMBER", "").lstrip("0") != "2":
        raise UnsupportedError("a Landsat scene of another collection", "Collection 2", "Download it from Collection 2")
    sensor = _SENSOR.get(image.get("SPACECRAFT_ID", "")[-1:], "")
    if not sensor:
        raise UnsupportedError("a scene of another spacecraft", "Landsat 4, 5, 7, 8 or 9")
    bands = {
        number: (band, file)
        for number, name in _band_files(contents)
        if (band := SENSORS[sensor].band(number)) and band.channel != "pan" and (file := _beside(path, name))
    }
    masks = [file for key in (_PIXEL, _SATURATION) if (file := _beside(path, contents.get(key, "")))]
    if not bands or contents.get(_PIXEL) not in [mask.name for mask in masks]:
        raise InputError(
            "a Landsat scene without its bands or QA_PIXEL", "both beside the MTL file", "Download them, too"
        )
    opened = parallel(partial(geotiff.read, nodata=0), [file for _, file in bands.values()])
    layers = [
        _layer(band, number, content.images[0], groups)
        for (number, (band, _)), content in zip(bands.items(), opened, strict=True)
    ]
    light, warm = split(layers)
    pixel, *saturation = (geotiff.read(mask) for mask in masks)
    graded = [Flags(pixel.images[0], flagged, True)]
    lit = graded + [Flags(mask.images[0], partial(_unsaturated, _bits(light, sensor))) for mask in saturation]
    images = tuple(join(group, flags) for group, flags in ((light, lit), (warm, graded)) if group)
    hashes = (file_hash(path), *(digest for content in (*opened, pixel, *saturation) for digest in content.hashes))
    return Content(images, _meta(contents, image, sensor), hashes)


def _band_files(contents: Group) -> Iterator[tuple[str, str]]:
    """Names of bands as the sensor's table has them ("B6_VCID_1", "ST_B10"), and of their files."""
    for key, name in contents.items():
        if key.startswith("FILE_NAME_BAND_"):
            band = key.removeprefix("FILE_NAME_BAND_")
            yield band if band.startswith("ST_") else f"B{band}", name


def _layer(band: SensorBand, number: str, image: Image, groups: Mapping[str, Group]) -> Layer:
    channel = Channel(band.channel, "K" if band.channel.startswith("tir") else "reflectance", band.wavelength)
    suffix = number.removeprefix("B")
    second, first = groups.get("LEVEL2_PROCESSING_RECORD"), groups.get("LEVEL1_RADIOMETRIC_RESCALING", {})
    if number.startswith("ST_"):
        scale, offset = _line(groups.get("LEVEL2_SURFACE_TEMPERATURE_PARAMETERS", {}), "TEMPERATURE", suffix)
        return Layer(channel, image, 0, scale, offset)
    if second is not None:
        scale, offset = _line(groups.get("LEVEL2_SURFACE_REFLECTANCE_PARAMETERS", {}), "REFLECTANCE", suffix)
        return Layer(channel, image, 0, scale, offset)
    if channel.unit == "K":
        scale, offset = _line(first, "RADIANCE", suffix)
        constants = groups.get("LEVEL1_THERMAL_CONSTANTS", {})
        k1, k2 = (facts.number(constants.get(f"K{i}_CONSTANT_BAND_{suffix}"), "thermal constant") for i in (1, 2))
        return Layer(channel, image, 0, scale, offset, planck=(k1, k2))
    scale, offset = _line(first, "REFLECTANCE", suffix)
    elevation = facts.number(groups.get("IMAGE_ATTRIBUTES", {}).get("SUN_ELEVATION"), "elevation of the sun")
    if elevation <= 0:
        raise InputError("reflective bands taken at night", "the sun above the horizon", "Read the thermal bands alone")
    light = sin(radians(elevation))
    return Layer(channel, image, 0, scale / light, offset / light)


def _line(group: Group, quantity: str, band: str) -> tuple[float, float]:
    """The factor and the addend that make a quantity of a band's numbers."""
    what = f"{quantity.lower()} scale"
    scale, offset = (facts.number(group.get(f"{quantity}_{part}_BAND_{band}"), what) for part in ("MULT", "ADD"))
    return scale, offset


def _bits(layers: list[Layer], sensor: str) -> int:
    """The bits of QA_RADSAT that speak of these bands."""
    bands = (SENSORS[sensor].channel(layer.channel.name) for layer in layers)
    bits = sum(1 << int(band.name[1:]) - 1 for band in bands if band)
    return bits if sensor == OLI else bits | 1 << _DROPPED


def flagged(numbers: Numbers, known: Bools) -> tuple[Bools, NDArray[np.uint8]]:
    """What QA_PIXEL says: where there are data, and numbers of QUALITY."""
    grades = np.full(numbers.shape[1:], CLEAR, np.uint8)
    for bit, grade in _GRADES:
        grades[numbers[0] >> bit & 1 > 0] = grade
    return known & (numbers[0] >> _FILL & 1 == 0), grades


def _unsaturated(bits: int, numbers: Numbers, _: Bools) -> tuple[Bools, None]:
    return numbers[0] & bits == 0, None


def _beside(path: Path, name: str) -> Path | None:
    """A file of that name beside the metadata, if there is one; a name with a folder in it is none."""
    if not name or Path(name).name != name:
        return None
    return next((file for file in (path.with_name(name),) if file.is_file()), None)


def _metadata(path: Path) -> Mapping[str, Group]:
    """The groups of an MTL file in any of its three forms."""
    kind = path.suffix.lower()
    if kind == ".xml":
        root = facts.xml(path)
        return {facts.local(group): {facts.local(e): (e.text or "").strip() for e in group} for group in root}
    text = facts.content(path).decode("utf-8", "replace")
    if kind == ".json":
        with foreign("an MTL file"):
            groups: dict[str, dict[str, Any]] = json.loads(text)["LANDSAT_METADATA_FILE"]
            return {name: {key: str(value) for key, value in group.items()} for name, group in groups.items()}
    found: dict[str, dict[str, str]] = {}
    group: dict[str, str] = {}
    for line in text.splitlines():
        key, _, value = (part.strip() for part in line.partition("="))
        if key == "GROUP":
            group = found.setdefault(value, {})
        elif key and value and key != "END_GROUP":
            group[key] = value.strip('"')
    return found


def _meta(contents: Group, image: Group, sensor: str) -> dict[str, str]:
    level = re.fullmatch(r"L[12][A-Z]{2}", contents.get("PROCESSING_LEVEL", ""))
    return facts.known(
        modality="optical",
        sensor=sensor,
        platform=f"Landsat {image['SPACECRAFT_ID'][-1]}",
        level=level[0] if level else "",
        date=facts.day(image.get("DATE_ACQUIRED", "")),
        baseline="Collection 2",
        cloud_cover=facts.percent(image.get("CLOUD_COVER")),
    )
