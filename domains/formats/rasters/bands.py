"""What the header of a raster says about its bands: common names, wavelengths, sensor, date, modality.

Only words of the closed tables below come out, so that free text of a header (names, places, remarks)
stays inside. A band is named by evidence, never by its position: what is ambiguous ("B5" is near
infrared on Landsat 8 and red edge on Sentinel-2) stays "band_5" until the header names the sensor.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date

from domains.formats.rasters.sensors import CHANNELS, ETM, NAIP, SENSORS, SENTINEL2, TM, TM5
from domains.formats.rasters.sensors import OLI as OLI

MODALITIES = ("optical", "elevation", "classes", "radar", "raster")
"""Light as reflectance or digital numbers; heights; a map of class colours; backscatter; any other measured raster."""

Naming = tuple[str, float | None]
"""Common name of a band, and its centre wavelength in nm where known."""


@dataclass(frozen=True)
class Band:
    """The header of one band: its description, GDAL's color interpretation, data type, unit and tags."""

    description: str = ""
    color: str = "undefined"
    dtype: str = "uint8"
    unit: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)


_SIGNATURES = {"B8A": SENTINEL2, "B08": SENTINEL2, "B12": SENTINEL2, "SR_B6": OLI, "ST_B10": OLI, "ST_B6": TM}
"""Band names that only one of the sensors has."""

_ALIASES = {
    "coastal": "coastal", "coastal aerosol": "coastal", "blue": "blue", "green": "green", "yellow": "yellow",
    "red": "red", "red edge": "rededge1", "rededge": "rededge1", "red edge 1": "rededge1", "rededge1": "rededge1",
    "red edge 2": "rededge2", "rededge2": "rededge2", "red edge 3": "rededge3", "rededge3": "rededge3",
    "nir": "nir", "nir1": "nir", "near infrared": "nir", "nearinfrared": "nir", "nir08": "nir08", "nir narrow": "nir08",
    "nir09": "nir09", "water vapour": "nir09", "cirrus": "cirrus", "swir": "swir1", "swir1": "swir1", "swir 1": "swir1",
    "swir2": "swir2", "swir 2": "swir2", "pan": "pan", "panchromatic": "pan", "thermal": "tir1", "tir": "tir1",
    "tir1": "tir1", "tir2": "tir2", "coastal blue": "coastal", "green i": "green05", **CHANNELS,
}  # fmt: skip
_COLORS = {
    "red": "red", "green": "green", "blue": "blue", "coastal": "coastal", "rededge": "rededge1", "nir": "nir",
    "pan": "pan",
}  # fmt: skip
_OTHERS = {
    "elevation": "elevation", "dem": "elevation", "dsm": "elevation", "dtm": "elevation", "height": "elevation",
    "altitude": "elevation", "ndvi": "ndvi", "ndwi": "ndwi", "nbr": "nbr", "evi": "evi", "slope": "slope",
}  # fmt: skip
COMMON_NAMES = frozenset(_ALIASES.values())
"""Names of bands of light, after the common names of the STAC electro-optical extension."""

_RANGES: Mapping[str, tuple[float, float, float]] = {
    "coastal": (420, 443, 450), "blue": (450, 490, 515), "green": (515, 560, 590), "yellow": (590, 610, 630),
    "red": (630, 665, 690), "rededge1": (690, 705, 725), "rededge2": (725, 740, 760), "rededge3": (760, 783, 800),
    "nir": (800, 842, 900), "nir09": (900, 945, 1000), "cirrus": (1350, 1375, 1400), "swir1": (1550, 1610, 1750),
    "swir2": (2050, 2190, 2350), "tir1": (10400, 10895, 11600), "tir2": (11600, 12005, 12500),
}  # fmt: skip
"""First, typical and last wavelength in nm of each common name."""

_SENSORS = (
    (re.compile(r"sentinel[-_ ]?2|^s2[abc]?\b|^s2[abc]_", re.I), SENTINEL2),
    (re.compile(r"landsat[-_ ]?[89]|^l[co]0?[89]\b", re.I), OLI),
    (re.compile(r"landsat[-_ ]?[45]|^lt0?[45]\b", re.I), TM5),
    (re.compile(r"landsat[-_ ]?7|^le0?7\b", re.I), ETM),
    (re.compile(r"planetscope|superdove", re.I), "PlanetScope"),
    (re.compile(r"worldview[-_ ]?(?=[1-4])|^wv0?[1-4]$", re.I), "WorldView"),
    (re.compile(r"pleiades|^phr1?[ab]?$", re.I), "Pleiades"),
    (re.compile(r"^spot[-_ ]?[1-7]", re.I), "SPOT"),
    (re.compile(r"^naip\b", re.I), NAIP),
)
_SENSOR_KEYS = frozenset({"SATELLITEID", "SATELLITE", "SPACECRAFT_ID", "SPACECRAFT_NAME", "PLATFORM", "SENSOR"})
_DATE_KEYS = ("ACQUISITIONDATETIME", "ACQUISITION_DATE", "DATE_ACQUIRED", "SENSING_TIME", "TIFFTAG_DATETIME")
_DATE = re.compile(r"((?:19|20)\d\d)[-:/]?([01]\d)[-:/]?([0-3]\d)(?!\d)")


def sensor(tags: Mapping[str, str], descriptions: Sequence[str] = ()) -> str:
    """The sensor by the tags or by band names that no other has; "" when neither says."""
    given = {key.upper(): value.strip() for key, value in tags.items()}
    values = [given[key] for key in sorted(_SENSOR_KEYS) if key in given]
    named = (name for value in values for pattern, name in _SENSORS if pattern.search(value))
    signed = (_SIGNATURES[text] for text in descriptions if text in _SIGNATURES)
    return next(named, "") or next(signed, "")


def acquired(tags: Mapping[str, str]) -> str:
    """The day of acquisition as YYYY-MM-DD, or "" when no tag gives a valid one."""
    given = {key.upper(): value for key, value in tags.items()}
    for key in _DATE_KEYS:
        found = _DATE.match(given.get(key, "").strip())
        if found:
            try:
                return date(int(found[1]), int(found[2]), int(found[3])).isoformat()
            except ValueError:
                continue
    return ""


def name_bands(bands: Sequence[Band], sensor: str = "") -> list[Naming]:
    """A name and, where known, a wavelength for each band; names are unique, unknown bands are "band_<number>"."""
    wavelengths = [_wavelength(band.tags) for band in bands]
    names = [_described(band.description, sensor) for band in bands]
    for index, (band, wavelength) in enumerate(zip(bands, wavelengths, strict=True)):
        if not names[index][0] and not wavelength:
            names[index] = _COLORS.get(band.color, "gray" if len(bands) == 1 and band.color == "gray" else ""), None
    taken = {name for name, _ in names}
    for name, index in _nearest(wavelengths):
        if name not in taken and not names[index][0]:
            names[index] = name, None
    result: list[Naming] = []
    seen: set[str] = set()
    for number, ((name, typical), wavelength) in enumerate(zip(names, wavelengths, strict=True), 1):
        unique = name if name and name not in seen else f"band_{number}"
        seen.add(unique)
        result.append((unique, wavelength or typical))
    return result


def modality(bands: Sequence[Band], names: Sequence[str], palette: bool) -> str:
    """One of MODALITIES. Numbers alone never make a raster optical or a terrain model."""
    first = bands[0]
    if palette or (len(bands) == 1 and first.tags.get("LAYER_TYPE") == "thematic"):
        return "classes"
    if len(bands) == 1 and (names[0] == "elevation" or first.unit == "m"):
        return "elevation"
    if len(bands) > 2 or COMMON_NAMES & set(names):
        return "optical"
    return "optical" if len(bands) == 1 and first.dtype in ("uint8", "uint16") and names[0] == "gray" else "raster"


def _described(description: str, sensor: str) -> Naming:
    text = description.strip()
    plain = re.sub(r"[-_\s]+", " ", text.lower())
    instrument = SENSORS.get(sensor)
    known = _ALIASES.get(plain) or _OTHERS.get(plain)
    if known:
        band = instrument.channel(known) if instrument else None
        return known, band.wavelength if band else None
    # The harmonised Landsat and Sentinel-2 products agree on these three, and write them with a zero.
    harmonised = text.upper() in ("B02", "B03", "B04")
    band = (instrument or SENSORS[SENTINEL2]).band(text) if instrument or harmonised else None
    return (band.channel, band.wavelength if instrument else None) if band else ("", None)


def _wavelength(tags: Mapping[str, str]) -> float | None:
    """In nm, from GDAL's IMAGERY domain (micrometres) or the wavelength items of ENVI headers."""
    given = {key.lower(): value for key, value in tags.items()}
    text = given.get("central_wavelength_um") or given.get("wavelength") or given.get("center_wavelength") or ""
    number = re.match(r"\s*(\d+(?:\.\d+)?)", text)
    if not number:
        return None
    value = float(number[1])
    micrometres = "central_wavelength_um" in given or given.get("wavelength_units", "").lower().startswith("micro")
    value = value * 1000 if micrometres or value < 30 else value
    return round(value, 3) if 200 <= value <= 50000 else None


def _nearest(wavelengths: Sequence[float | None]) -> Iterator[tuple[str, int]]:
    """For each common name the band nearest to its typical wavelength, if one lies in its range."""
    for name, (first, typical, last) in _RANGES.items():
        inside = [(abs(nm - typical), index) for index, nm in enumerate(wavelengths) if nm and first <= nm < last]
        if inside:
            yield name, min(inside)[1]
