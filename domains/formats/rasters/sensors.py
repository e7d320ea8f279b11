"""The bands of the sensors that files come from: name in the file, channel, wavelength, resolution.

Channels are matched by name or wavelength, never by position. Sources: Sentinel-2 User Handbook (ESA), Landsat 8-9
Data Users Handbook (USGS), Chander, Markham and Helder 2009 for TM and ETM+, Planet imagery specifications, HLS User
Guide v2.0 (NASA); common names after the STAC electro-optical extension v2.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fovea.errors import InputError
from fovea.image import Channel

_TOLERANCE = 0.02
"""How far, as a share of it, a channel may lie from a wavelength that is asked for."""


@dataclass(frozen=True)
class SensorBand:
    """One band: its name in files, our channel, STAC's common name, centre in nm, pixel in m; None where it varies."""

    name: str
    channel: str
    common: str
    wavelength: float | None
    resolution: float | None


@dataclass(frozen=True)
class Sensor:
    """A sensor and its bands, in the order of its numbers."""

    name: str
    bands: tuple[SensorBand, ...]

    def band(self, text: str) -> SensorBand | None:
        """The band of that name, with or without zeros and prefixes: "B8A", "B08", "SR_B5", "coastal_blue"."""
        wanted = _plain(text)
        return next((band for band in self.bands if _plain(band.name) == wanted), None)

    def common(self, name: str) -> SensorBand | None:
        """The one band of that STAC common name; None where several share it."""
        found = [band for band in self.bands if band.common == name]
        return found[0] if len(found) == 1 else None

    def channel(self, name: str) -> SensorBand | None:
        """The band that is read as the channel of that name."""
        return next((band for band in self.bands if band.channel == name), None)


SENTINEL2, SENTINEL1, NAIP = "Sentinel-2", "Sentinel-1", "NAIP"
OLI, TM, TM5, ETM = "Landsat 8/9", "Landsat 4-7", "Landsat 4-5", "Landsat 7"
PLANET4, PLANET8, HLS_S30, HLS_L30 = "PlanetScope 4-band", "PlanetScope 8-band", "HLS S30", "HLS L30"

_MSI = (
    ("B01", "coastal", "coastal", 443, 60), ("B02", "blue", "blue", 490, 10), ("B03", "green", "green", 560, 10),
    ("B04", "red", "red", 665, 10), ("B05", "rededge1", "rededge071", 705, 20),
    ("B06", "rededge2", "rededge075", 740, 20), ("B07", "rededge3", "rededge078", 783, 20),
    ("B08", "nir", "nir", 842, 10), ("B8A", "nir08", "nir08", 865, 20), ("B09", "nir09", "nir09", 945, 60),
    ("B10", "cirrus", "cirrus", 1375, 60), ("B11", "swir1", "swir16", 1610, 20), ("B12", "swir2", "swir22", 2190, 20),
)  # fmt: skip
_OLI = (
    ("B1", "coastal", "coastal", 443, 30), ("B2", "blue", "blue", 482, 30), ("B3", "green", "green", 561, 30),
    ("B4", "red", "red", 655, 30), ("B5", "nir", "nir08", 865, 30), ("B6", "swir1", "swir16", 1609, 30),
    ("B7", "swir2", "swir22", 2201, 30), ("B8", "pan", "pan", 590, 15), ("B9", "cirrus", "cirrus", 1373, 30),
    ("B10", "tir1", "lwir11", 10895, 100), ("B11", "tir2", "lwir12", 12005, 100),
)  # fmt: skip
_TM5 = (
    ("B1", "blue", "blue", 485, 30), ("B2", "green", "green", 569, 30), ("B3", "red", "red", 660, 30),
    ("B4", "nir", "nir08", 840, 30), ("B5", "swir1", "swir16", 1676, 30), ("B6", "tir1", "lwir", 11435, 120),
    ("B7", "swir2", "swir22", 2223, 30),
)  # fmt: skip
_ETM = (
    ("B1", "blue", "blue", 483, 30), ("B2", "green", "green", 560, 30), ("B3", "red", "red", 662, 30),
    ("B4", "nir", "nir08", 835, 30), ("B5", "swir1", "swir16", 1648, 30), ("B6", "tir1", "lwir", 11335, 60),
    ("B6_VCID_1", "tir1", "lwir", 11335, 60), ("B6_VCID_2", "tir1_high_gain", "lwir", 11335, 60),
    ("B7", "swir2", "swir22", 2206, 30), ("B8", "pan", "pan", 706, 15),
)  # fmt: skip
_EITHER = (
    ("B1", "blue", "blue", 485, 30), ("B2", "green", "green", 560, 30), ("B3", "red", "red", 660, 30),
    ("B4", "nir", "nir08", 835, 30), ("B5", "swir1", "swir16", 1650, 30), ("B6", "tir1", "lwir", 11450, None),
    ("B7", "swir2", "swir22", 2220, 30), ("B8", "pan", "pan", 710, 15),
)  # fmt: skip
_DOVE = (
    ("blue", "blue", "blue", 485, 3), ("green", "green", "green", 545, 3), ("red", "red", "red", 630, 3),
    ("nir", "nir", "nir", 820, 3),
)  # fmt: skip
_SUPERDOVE = (
    ("coastal_blue", "coastal", "coastal", 443, 3), ("blue", "blue", "blue", 490, 3),
    ("green_i", "green05", "green05", 531, 3), ("green", "green", "green", 565, 3),
    ("yellow", "yellow", "yellow", 610, 3), ("red", "red", "red", 665, 3),
    ("rededge", "rededge1", "rededge071", 705, 3), ("nir", "nir", "nir08", 865, 3),
)  # fmt: skip
_AERIAL = tuple((name, name, name, None, None) for name in ("red", "green", "blue", "nir"))
_RADAR = tuple((name.upper(), name, name, None, 10) for name in ("vv", "vh", "hh", "hv"))

_Row = tuple[str, str, str, float | None, float | None]


def _sensor(name: str, rows: Sequence[_Row], resolution: float | None = None) -> Sensor:
    return Sensor(name, tuple(SensorBand(*row[:4], resolution or row[4]) for row in rows))


SENSORS: Mapping[str, Sensor] = {
    sensor.name: sensor
    for sensor in (
        _sensor(SENTINEL2, _MSI), _sensor(OLI, _OLI), _sensor(TM5, _TM5), _sensor(ETM, _ETM), _sensor(TM, _EITHER),
        _sensor(NAIP, _AERIAL), _sensor(PLANET4, _DOVE), _sensor(PLANET8, _SUPERDOVE), _sensor(SENTINEL1, _RADAR),
        _sensor(HLS_S30, _MSI, 30), _sensor(HLS_L30, tuple(row for row in _OLI if row[1] != "pan"), 30),
    )
}  # fmt: skip
"""By the name that stands in `Study.meta`; "Landsat 4-7" is where TM and ETM+ cannot be told apart."""

CHANNELS: Mapping[str, str] = {
    band.common: band.channel for name in (TM5, OLI, PLANET8, SENTINEL2) for band in SENSORS[name].bands
}
"""STAC's common names to our channels; "nir08" is B8A of Sentinel-2, which has a "nir" beside it."""


def select(channels: Sequence[Channel], wanted: Sequence[str | float]) -> list[int]:
    """Places of the channels that are asked for by name or by centre wavelength in nm.

    STAC's common names are understood. A wavelength takes the nearest channel within 2 %. Raises InputError naming all
    that are missing.
    """
    places = {channel.name: place for place, channel in reversed(list(enumerate(channels)))}
    found = [
        places.get(want, places.get(CHANNELS.get(want, ""))) if isinstance(want, str) else _nearest(channels, want)
        for want in wanted
    ]
    missing = [str(want) for want, place in zip(wanted, found, strict=True) if place is None]
    if missing:
        raise InputError(
            f"a scene of channels {', '.join(channel.name for channel in channels)}",
            f"also {', '.join(missing)}",
            "Take a scene of a sensor that has them.",
        )
    return [place for place in found if place is not None]


def _nearest(channels: Sequence[Channel], wavelength: float) -> int | None:
    near = [(abs(c.wavelength - wavelength), i) for i, c in enumerate(channels) if c.wavelength]
    distance, place = min(near, default=(float("inf"), -1))
    return place if distance <= _TOLERANCE * wavelength else None


def _plain(text: str) -> str:
    plain = text.strip().upper()
    number = re.fullmatch(r"(?:SR_|ST_)?B0*(\d+)(A|_VCID_[12])?", plain)
    return f"B{number[1]}{number[2] or ''}" if number else plain
