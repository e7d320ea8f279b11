"""NAIP quarter quads: aerial photographs of 4 bands, red, green, blue and near infrared, as 8-bit digital numbers.

The files carry no names of bands; their order is that of the National Agriculture Imagery Program's specification.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from domains.formats.content import Content
from domains.formats.rasters import geotiff
from domains.formats.rasters.sensors import NAIP, SENSORS
from domains.remote_sensing.products import facts
from fovea.errors import UnsupportedError
from fovea.image import Channel

READER = "naip/1"

_QUAD = re.compile(r"m_\d{7}_(ne|nw|se|sw)_\d{1,2}_\d{1,3}_(\d{8})(_\d{8})?\.tif", re.IGNORECASE)


def begins(path: Path) -> bool:
    """Whether a file is named as a quarter quad."""
    return bool(_QUAD.fullmatch(path.name))


def files(path: Path) -> tuple[Path, ...]:
    """The raster alone."""
    return (path,)


def read(path: Path) -> Content:
    """Digital numbers of red, green, blue and, where there are four bands, near infrared."""
    content = geotiff.read(path)
    (image,) = content.images
    if len(image.channels) not in (3, 4):
        raise UnsupportedError(f"a NAIP scene of {len(image.channels)} bands", "3 or 4 bands")
    names = [band.channel for band in SENSORS[NAIP].bands][: len(image.channels)]
    match = _QUAD.fullmatch(path.name)
    meta = facts.known(
        modality="optical",
        sensor=NAIP,
        date=facts.day(match[2] if match else ""),
        geometry=content.meta.get("geometry", ""),
    )
    channels = tuple(Channel(name, "digital number") for name in names)
    return content._replace(images=(replace(image, channels=channels),), meta=meta)
