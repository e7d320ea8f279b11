"""Sentinel-2 Level-1C and Level-2A products in SAFE folders, of the compact and of the first format (before 2016-12).

Reflectance is (number + offset) / quantification, both from the product's own metadata: neither the date nor the name
tells whether an offset was added (processing baseline 04.00 and later, and older scenes that were processed again).
Source: Sentinel-2 Products Specification Document, S2-PDGS-TAS-DI-PSD, issues 14 and 15.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from domains.formats.content import Content, file_hash, parallel
from domains.formats.rasters import geotiff
from domains.formats.rasters.sensors import SENSORS, SENTINEL2, SensorBand
from domains.remote_sensing.products import facts
from domains.remote_sensing.products.joined import (
    CLEAR,
    CLOUD,
    HAZE,
    SHADOW,
    SNOW,
    UNCLASSIFIED,
    WATER,
    Flags,
    Layer,
    Numbers,
    join,
)
from fovea.errors import InputError
from fovea.image import Bools, Channel

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

    from numpy.typing import NDArray

READER = "sentinel-2/1"

_PRODUCT = re.compile(r"(MTD_MSI|S2[A-D]_\w+_MTD_SAF)L(1C|2A)(_\w+)?\.xml")
_GRANULE = re.compile(r"(MTD_TL|S2[A-D]_\w+_MTD_L(1C|2A)_TL_\w+)\.xml")
_BAND = re.compile(r"_(B\d\d|B8A|SCL)(?:_([126]0)m)?\.jp2", re.IGNORECASE)
_MSI = SENSORS[SENTINEL2]
_ORDER = tuple(band.name for band in _MSI.bands)
OFFSETS_FROM = "04.00"
"""The first processing baseline that adds an offset."""
_CLASSES = np.full(256, UNCLASSIFIED, np.uint8)
_CLASSES[:12] = (
    CLEAR, CLEAR, CLEAR, SHADOW, CLEAR, CLEAR, WATER, UNCLASSIFIED, CLOUD, CLOUD, HAZE, SNOW,
)  # fmt: skip
"""From the Scene Classification Layer; 0 and 1 are no data and saturated, 2 is dark ground."""


def begins(path: Path) -> bool:
    """Whether a file is the metadata of a product, or of one of several granules that lie in one product."""
    if _PRODUCT.fullmatch(path.name):
        return len(_granules(path.parent)) == 1
    if not _GRANULE.fullmatch(path.name) or path.parent.parent.name != "GRANULE":
        return False
    product = path.parent.parent.parent
    return len(_granules(product)) > 1 and _metadata(product) is not None


def files(path: Path) -> tuple[Path, ...]:
    """All files below the folder of the metadata, which comes first."""
    return (path, *sorted(file for file in path.parent.rglob("*") if file.is_file() and file != path))


def read(path: Path) -> Content:
    """The bands as reflectance on the finest of their grids, and the scene classification as "quality".

    No data, saturated numbers and defective pixels are invalid. Raises InputError for metadata without quantification,
    or without the offsets that its processing baseline calls for.
    """
    alone = bool(_PRODUCT.fullmatch(path.name))
    product = path if alone else _metadata(path.parent.parent.parent)
    folder = _granules(path.parent)[0] if alone else path.parent
    if product is None:
        raise InputError("a granule without the metadata of its product", "MTD_MSIL1C.xml or MTD_MSIL2A.xml")
    root = facts.xml(product)
    found = _images(folder)
    names = [name for name in _ORDER if name in found]
    if not names:
        raise InputError("a Sentinel-2 product without band files", "JP2 files in IMG_DATA", "Fetch it again")
    offsets, scale, (nodata, *invalid) = _offsets(root, names), _quantification(root), _special_values(root)
    classes = ["SCL"] if "SCL" in found else []
    opened = parallel(partial(geotiff.read, nodata=nodata), [found[name] for name in names])
    layers = [
        Layer(
            Channel(band.channel, "reflectance", band.wavelength),
            content.images[0],
            scale=1 / scale,
            offset=offsets[band.name] / scale,
            invalid=tuple(invalid),
        )
        for band, content in zip(map(_band, names), opened, strict=True)
    ]
    masks = [geotiff.read(found[name]) for name in classes]
    flags = [Flags(mask.images[0], classified, True) for mask in masks]
    hashes = (file_hash(product), *(digest for content in (*opened, *masks) for digest in content.hashes))
    return Content((join(layers, flags),), _meta(root), hashes)


def _granules(product: Path) -> list[Path]:
    folder = product / "GRANULE"
    return sorted(entry for entry in folder.iterdir() if entry.is_dir()) if folder.is_dir() else []


def _metadata(product: Path) -> Path | None:
    names = sorted(entry for entry in product.iterdir() if _PRODUCT.fullmatch(entry.name))
    return names[0] if names else None


def _images(granule: Path) -> dict[str, Path]:
    """Each band's file: the one at its own resolution, else the finest."""
    found: dict[str, tuple[tuple[bool, int], Path]] = {}
    for path in sorted((granule / "IMG_DATA").rglob("*.jp2")):
        match = _BAND.search(path.name)
        if match:
            name, metres = match[1].upper(), int(match[2] or 0)
            native = 20 if name == "SCL" else _band(name).resolution
            rank = metres not in (0, native), metres
            if name not in found or rank < found[name][0]:
                found[name] = rank, path
    return {name: path for name, (_, path) in found.items()}


def _band(name: str) -> SensorBand:
    band = _MSI.band(name)
    if band is None:
        raise InputError("a Sentinel-2 product with bands of other names", f"{_ORDER[0]} to {_ORDER[-1]}")
    return band


def _quantification(root: Element) -> float:
    text = facts.text(root, "BOA_QUANTIFICATION_VALUE", "L2A_BOA_QUANTIFICATION_VALUE", "QUANTIFICATION_VALUE")
    value = facts.number(text, "quantification value")
    if value <= 0:
        raise InputError("a quantification value that is not positive", "such as 10000", "Fetch the product again")
    return value


def _offsets(root: Element, names: list[str]) -> Mapping[str, float]:
    """The offset of each band in its numbers' unit, by the band's id in the metadata; zero where none was added."""
    ids = {e.get("bandId", ""): e.get("physicalBand", "") for e in facts.elements(root, "Spectral_Information")}
    ids = ids or {str(i): name for i, name in enumerate(_ORDER)}
    given = [e for tag in ("BOA_ADD_OFFSET", "RADIO_ADD_OFFSET") for e in facts.elements(root, tag)]
    named = {ids.get(e.get("band_id", ""), ""): e.text for e in given}
    offsets = {
        band.name: facts.number(text, "radiometric offset") for name, text in named.items() if (band := _MSI.band(name))
    }
    baseline = facts.version(facts.text(root, "PROCESSING_BASELINE"))
    if not offsets and "" < baseline < OFFSETS_FROM:
        return dict.fromkeys(names, 0.0)
    missing = [name for name in names if name not in offsets]
    if missing:
        raise InputError(
            f"metadata of processing baseline {baseline or 'unknown'} without offsets for {', '.join(missing)}",
            "an offset for each band",
            "Fetch the product again",
        )
    return offsets


def _special_values(root: Element) -> tuple[float, ...]:
    """The number that stands for no data, then those for saturation."""
    pairs = [
        (facts.text(e, "SPECIAL_VALUE_TEXT"), facts.text(e, "SPECIAL_VALUE_INDEX"))
        for e in facts.elements(root, "Special_Values")
    ]
    given = {name: facts.number(value, "special value") for name, value in pairs if name in ("NODATA", "SATURATED")}
    return given.get("NODATA", 0.0), given.get("SATURATED", 65535.0)


def classified(numbers: Numbers, known: Bools) -> tuple[Bools, NDArray[np.uint8]]:
    """What the Scene Classification Layer says: where there are sound data, and numbers of QUALITY."""
    classes = numbers[0].clip(0, 255)
    return known & (classes > 1), _CLASSES[classes]


def _meta(root: Element) -> dict[str, str]:
    platform = re.fullmatch(r"Sentinel-2[A-D]", facts.text(root, "SPACECRAFT_NAME"))
    level = re.match(r"Level-(1C|2A)", facts.local(root))
    return facts.known(
        modality="optical",
        sensor=SENTINEL2,
        platform=platform[0] if platform else "",
        level=f"L{level[1]}" if level else "",
        date=facts.day(facts.text(root, "DATATAKE_SENSING_START", "PRODUCT_START_TIME")),
        baseline=facts.version(facts.text(root, "PROCESSING_BASELINE")),
        cloud_cover=facts.percent(facts.text(root, "Cloud_Coverage_Assessment", "CLOUD_COVERAGE_ASSESSMENT")),
    )
