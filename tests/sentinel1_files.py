"""Sentinel-1 GRD products that tests write, in the layout that they are delivered in, from a field that is known."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from product_files import raster
from rasterio.control import GroundControlPoint

EARTH = 6_371_000.0
STAMP = "20210612t050000-20210612t050025-038300-04850a"


@dataclass(frozen=True)
class Flight:
    """A great circle over a turning sphere, looking to its right; `first` is longitude and latitude below its start."""

    first: tuple[float, float] = (12.0, 47.0)
    heading: float = -166.0
    near: float = 250_000.0
    pixel: float = 10.0

    def ground(self, rows: Any, columns: Any, shift: Any = 0.0) -> Any:
        """Longitude and latitude (n, 2) at rows and columns, `shift` metres farther from the flight."""
        lon, lat, course = np.deg2rad([*self.first, self.heading])
        up = np.array([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)])
        north = np.array([-np.sin(lat) * np.cos(lon), -np.sin(lat) * np.sin(lon), np.cos(lat)])
        along = np.cos(course) * north + np.sin(course) * np.array([-np.sin(lon), np.cos(lon), 0])
        flown = np.asarray(rows, float) * self.pixel / EARTH
        below = np.cos(flown)[:, None] * up + np.sin(flown)[:, None] * along
        aside = (self.near + np.asarray(columns, float) * self.pixel + shift) / EARTH
        place = np.cos(aside)[:, None] * below + np.sin(aside)[:, None] * np.cross(along, up)
        turned = np.degrees(7.29e-5 * np.asarray(rows, float) * self.pixel / 6800)
        east = np.degrees(np.arctan2(place[:, 1], place[:, 0])) - turned
        return np.stack([(east + 180) % 360 - 180, np.degrees(np.arcsin(place[:, 2]))], 1)


def lattice(shape: tuple[int, int], down: int = 10, across: int = 21) -> tuple[Any, Any]:
    """Rows and columns of a geolocation grid, first and last ones included."""
    sides = (np.linspace(0, size - 1, n).round() for size, n in zip(shape, (down, across), strict=True))
    rows, columns = (side.ravel() for side in np.meshgrid(*sides, indexing="ij"))
    return rows, columns


def factor(rows: Any, columns: Any) -> Any:
    """A of sigma nought, linear in both."""
    return 5000 - 3 * np.asarray(columns) + 0.5 * np.asarray(rows)


def thermal(rows: Any, columns: Any) -> Any:
    """Power of noise: a range vector that is linear, times 1.5 in the right half."""
    return (90_000 + 200.0 * np.asarray(columns) + 0 * np.asarray(rows)) * np.where(
        np.asarray(columns) >= 150, 1.5, 1.0
    )


def product(
    folder: Path,
    sigma: Callable[[Any, Any], Any],
    shape: tuple[int, int] = (200, 300),
    flight: Flight | None = None,
    border: int = 0,
    change: dict[str, tuple[str, str]] | None = None,
    old: bool = False,
) -> Path:
    """A product of the field `sigma(rows, columns)`; the first columns up to `border` hold no data.

    `change` replaces text in the annotations of a kind ("product", "calibration", "noise"); `old` writes the noise as
    processors before version 2.9 did.
    """
    flight = flight or Flight()
    root = folder / "S1A_IW_GRDH_1SDV_20210612T050000_20210612T050025_038300_04850A_ABCD.SAFE"
    (root / "annotation" / "calibration").mkdir(parents=True)
    rows, columns = np.arange(shape[0])[:, None], np.arange(shape[1])[None]
    noise = thermal(rows, 0 * columns if old else columns)
    where = lattice(shape)
    points = [
        GroundControlPoint(row + 0.5, column + 0.5, lon, lat, 0)
        for row, column, (lon, lat) in zip(*where, flight.ground(*where), strict=True)
    ]
    for order, (name, share) in enumerate((("vv", 1.0), ("vh", 0.2)), 1):
        numbers = np.sqrt(share * sigma(rows, columns) * factor(rows, columns) ** 2 + noise).round().astype(np.uint16)
        numbers[:, :border] = 0
        stem = f"s1a-iw-grd-{name}-{STAMP}-00{order}"
        raster(
            root / "measurement" / f"{stem}.tiff", numbers, crs="EPSG:4326", transform=None, gcps=points, blockysize=1
        )
        texts = {
            "product": (f"{stem}.xml", annotation(shape, flight)),
            "calibration": (f"calibration/calibration-{stem}.xml", calibrated(shape)),
            "noise": (f"calibration/noise-{stem}.xml", noise_xml(shape, old)),
        }
        for kind, (path, text) in texts.items():
            before, after = (change or {}).get(kind, ("", ""))
            assert before in text
            (root / "annotation" / path).write_text(text.replace(before, after) if before else text)
    (root / "manifest.safe").write_text("<xfdu/>")
    return root


def annotation(shape: tuple[int, int], flight: Flight) -> str:
    where = lattice(shape)
    points = "".join(
        f"<geolocationGridPoint><line>{row:.0f}</line><pixel>{column:.0f}</pixel><latitude>{lat!r}</latitude>"
        f"<longitude>{lon!r}</longitude><height>{12.5 + column:.1f}</height></geolocationGridPoint>"
        for row, column, (lon, lat) in zip(*where, flight.ground(*where).tolist(), strict=True)
    )
    return (
        "<product><imageAnnotation><imageInformation>"
        f"<rangePixelSpacing>{flight.pixel:e}</rangePixelSpacing><azimuthPixelSpacing>{flight.pixel:e}"
        f"</azimuthPixelSpacing><numberOfSamples>{shape[1]}</numberOfSamples><numberOfLines>{shape[0]}</numberOfLines>"
        f"</imageInformation></imageAnnotation><geolocationGrid>{points}</geolocationGrid></product>"
    )


def calibrated(shape: tuple[int, int]) -> str:
    """Vectors before, in and after the scene."""
    places = np.unique([*range(0, shape[1], 40), shape[1] - 1])
    vectors = "".join(
        f"<calibrationVector><line>{line}</line>{listed('pixel', places)}"
        f"{listed('sigmaNought', factor(line, places))}{listed('betaNought', 0 * places + 474.0)}</calibrationVector>"
        for line in (-60, shape[0] // 3, shape[0] + 50)
    )
    return f"<calibration><calibrationVectorList>{vectors}</calibrationVectorList></calibration>"


def noise_xml(shape: tuple[int, int], old: bool) -> str:
    places = np.unique([*range(0, shape[1], 40), shape[1] - 1])
    element, lut = ("noiseVector", "noiseLut") if old else ("noiseRangeVector", "noiseRangeLut")
    values = 90_000 + (0 if old else 200.0) * places
    vectors = "".join(
        f"<{element}><line>{line}</line>{listed('pixel', places)}{listed(lut, values)}</{element}>"
        for line in (0, shape[0] - 1)
    )
    blocks = "".join(
        "<noiseAzimuthVector><swath>IW1</swath><firstAzimuthLine>0</firstAzimuthLine>"
        f"<firstRangeSample>{left}</firstRangeSample><lastAzimuthLine>{shape[0] - 1}</lastAzimuthLine>"
        f"<lastRangeSample>{right}</lastRangeSample>{listed('line', [0, shape[0] - 1])}"
        f"{listed('noiseAzimuthLut', [scale, scale])}</noiseAzimuthVector>"
        for left, right, scale in ((0, 149, 1.0), (150, shape[1] - 1, 1.5))
    )
    return f"<noise><noiseRangeVectorList>{vectors}</noiseRangeVectorList>{'' if old else blocks}</noise>"


def listed(name: str, values: Any) -> str:
    return f'<{name} count="{len(values)}">{" ".join(f"{value:g}" for value in values)}</{name}>'
