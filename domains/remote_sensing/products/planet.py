"""PlanetScope analytic ortho scenes: one file of 4 or 8 bands, its metadata and its usable data mask.

Surface reflectance files hold 10000 times the reflectance; others get theirs at the top of the atmosphere from the
coefficients of the metadata. Source: Planet Imagery Product Specifications (Planet Labs).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from domains.formats.content import Content, file_hash
from domains.formats.rasters import geotiff
from domains.formats.rasters.sensors import PLANET4, PLANET8, SENSORS, SensorBand
from domains.remote_sensing.products import facts
from domains.remote_sensing.products.joined import CLEAR, CLOUD, HAZE, SHADOW, SNOW, Flags, Layer, Numbers, join
from fovea.errors import InputError, UnsupportedError
from fovea.image import Bools, Channel

READER = "planetscope/1"

_SCENE = re.compile(r"(\d{8}_\d{6}_\w+?)_3B_AnalyticMS(_SR)?(?:_(4b|8b))?(?:_harmonized)?(_clip)?\.tif", re.IGNORECASE)
_COMPANIONS = r"_3B_(AnalyticMS\w*_metadata(_clip)?\.xml|udm2?(_clip)?\.tif)"
_SNOW, _SHADOW, _LIGHT_HAZE, _HEAVY_HAZE, _CLOUD, _UNUSABLE = 1, 2, 3, 4, 5, 7
"""Places of bands in UDM2."""
_GRADES = ((_SNOW, SNOW), (_SHADOW, SHADOW), (_LIGHT_HAZE, HAZE), (_HEAVY_HAZE, HAZE), (_CLOUD, CLOUD))


def begins(path: Path) -> bool:
    """Whether a file is the raster of an analytic scene."""
    return bool(_SCENE.fullmatch(path.name))


def files(path: Path) -> tuple[Path, ...]:
    """The raster, then its metadata and masks."""
    match = _SCENE.fullmatch(path.name)
    ours = re.compile(re.escape(match[1] if match else path.stem) + _COMPANIONS, re.IGNORECASE)
    return (path, *sorted(file for file in path.parent.iterdir() if ours.fullmatch(file.name)))


def read(path: Path) -> Content:
    """Reflectance, with "quality" from UDM2 where it lies beside.

    Raises InputError without coefficients, UnsupportedError for another number of bands.
    """
    match = _SCENE.fullmatch(path.name)
    beside = files(path)[1:]
    content = geotiff.read(path, nodata=0)
    image = content.images[0]
    sensor = {4: PLANET4, 8: PLANET8}.get(len(image.channels))
    if not sensor or not match:
        raise UnsupportedError(f"a PlanetScope scene of {len(image.channels)} bands", "4 or 8 bands")
    metadata = next((file for file in beside if file.suffix.lower() == ".xml"), None)
    usable = next((file for file in beside if "_udm2" in file.name.lower()), None)
    scales = [1e-4] * len(image.channels) if match[2] else _coefficients(metadata, len(image.channels))
    layers = [
        Layer(Channel(band.channel, "reflectance", band.wavelength), image, place, scale)
        for place, (band, scale) in enumerate(zip(_bands(image.channels, sensor), scales, strict=True))
    ]
    flags = [Flags(geotiff.read(usable).images[0], _graded, True)] if usable else []
    hashes = (*content.hashes, *(file_hash(file) for file in (metadata, usable) if file))
    cover = facts.text(facts.xml(metadata), "cloudCoverPercentage") if metadata else ""
    meta = facts.known(
        modality="optical",
        sensor="PlanetScope",
        level="surface reflectance" if match[2] else "top of atmosphere",
        date=facts.day(match[1][:8]),
        cloud_cover=facts.percent(cover),
    )
    return Content((join(layers, flags),), meta, hashes)


def _bands(channels: Sequence[Channel], sensor: str) -> list[SensorBand]:
    """By the names that the file gives its bands, or in the order of the specification where it names none."""
    instrument = SENSORS[sensor]
    named = [instrument.channel(channel.name) for channel in channels]
    known = [band for band in named if band]
    return known if len(known) == len(channels) else list(instrument.bands)


def _coefficients(metadata: Path | None, count: int) -> list[float]:
    """The factor from each band's numbers to reflectance."""
    root = facts.xml(metadata) if metadata else None
    found = {
        facts.text(band, "bandNumber"): facts.text(band, "reflectanceCoefficient")
        for band in (facts.elements(root, "bandSpecificMetadata") if root is not None else ())
    }
    if not all(str(number) in found for number in range(1, count + 1)):
        raise InputError(
            "a PlanetScope scene without its reflectance coefficients",
            "the _metadata.xml of the scene beside it",
            "Download it, too, or take the surface reflectance",
        )
    return [facts.number(found[str(number)], "reflectance coefficient") for number in range(1, count + 1)]


def _graded(numbers: Numbers, _: Bools) -> tuple[Bools, NDArray[np.uint8]]:
    if len(numbers) != 8:
        raise UnsupportedError(f"a usable data mask of {len(numbers)} bands", "the 8 bands of UDM2")
    grades = np.full(numbers.shape[1:], CLEAR, np.uint8)
    for place, grade in _GRADES:
        grades[numbers[place] > 0] = grade
    return numbers[_UNUSABLE] & 1 == 0, grades
