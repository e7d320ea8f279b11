"""Made-up optical scenes with ground truth: valid GeoTIFFs of places that do not exist."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from rasterio.crs import CRS
from rasterio.transform import Affine

from domains.remote_sensing.objects import Objects, place_buildings, place_ships
from domains.remote_sensing.optics import BANDS, WAVELENGTHS, Clouds, Sky, Surface, clouds, reflectance, sky
from domains.remote_sensing.terrain import Cover, Generator, Ground, Matrix, terrain
from domains.remote_sensing.vocabulary import TERMS
from fovea.types import Bools, Bytes, Facts, Finding, Floats, Mask, Measure, Origin, Sample

NO_DATA = 255
"""In cover maps: no data."""
SMALLEST_SHARE = 0.01
"""Land cover below this share of the valid pixels does not count as present."""
LABELS = frozenset({*(cover.label for cover in Cover), "building", "ship"})
"""What the truth knows of every scene."""
QUADRANTS = ("south-west", "south-east", "north-west", "north-east")

LANDS: tuple[tuple[str, float, float, float, float], ...] = (
    ("temperate", -4, 36, 44, 57), ("temperate", -98, -76, 34, 46), ("temperate", 110, 120, 27, 38),
    ("temperate", -63, -57, -38, -29), ("boreal", 26, 60, 57, 64), ("boreal", -115, -78, 50, 57),
    ("mediterranean", -8, 22, 36.5, 43), ("mediterranean", 117, 121, -34, -29), ("arid", -5, 32, 20, 31),
    ("arid", 42, 56, 19, 30), ("arid", 123, 142, -30, -21), ("tropical", -66, -46, -14, -2),
    ("tropical", 13, 30, -8, 6), ("tropical", 99, 106, 11, 20),
)  # fmt: skip
"""Climate, and the span of longitude and latitude in degrees, of regions that are mostly land."""


@dataclass(frozen=True, eq=False)
class Frame:
    """Where a scene lies: its CRS, its transform in GDAL's order, the same as steps on the ground, and the climate."""

    epsg: int
    transform: tuple[float, float, float, float, float, float]
    ground: Ground
    latitude: float
    climate: str

    @cached_property
    def quarter(self) -> Bytes:
        """The index in QUADRANTS of each pixel, (row, column), by the axes of the CRS."""
        a, b, _, d, e, _ = self.transform
        axes = Ground(self.ground.shape, np.array([[a, b], [d, e]]))
        return np.asarray((axes.north >= 0) * np.uint8(2) + (axes.east >= 0), np.uint8)


def synth(directory: Path, n: int, seed: int) -> list[Sample]:
    """Write `n` GeoTIFFs into a directory; scene i depends on (seed, i) only.

    Some neighbours (2k, 2k + 1) show one place at two dates; `group` names the place. Facts follow what can be
    seen: land under a cloud is cloud, buildings are also built-up land, ships are also water. Lengths and areas are
    those on the ellipsoid; bearings refer to true north, quadrants to the axes of the CRS.
    """
    directory.mkdir(parents=True, exist_ok=True)
    return [_write_scene(directory / f"{i:05d}.tif", seed, i) for i in range(n)]


def _write_scene(path: Path, seed: int, i: int) -> Sample:
    twins = np.random.default_rng((seed, i // 2, 0)).random() < 0.25
    place = i - i % 2 if twins else i
    rng = np.random.default_rng((seed, place, 1))
    frame = frame_somewhere(rng)
    land = terrain(rng, frame.ground, frame.climate)
    rng = np.random.default_rng((seed, i, 2))
    light = sky(rng, frame.latitude)
    veil = clouds(rng, frame.ground, light, 0.35)
    valid = _swath(rng, frame.ground)
    cover, veil = _without_slivers(land.cover, veil, valid)
    buildings = place_buildings(rng, land, _seen(cover, veil, valid))
    cover[buildings.mask(cover.shape)] = Cover.BUILT_UP
    ships = place_ships(rng, frame.ground, _seen(cover, veil, valid))
    bands = int(rng.choice([4, 5, 6], p=[0.6, 0.15, 0.25]))
    image = reflectance(rng, Surface(land, cover, buildings, ships), light, veil, bands)
    _write(path, rng, frame, image, valid, light)
    findings = (
        *_land_cover(frame, _seen(cover, veil, valid)),
        *_buildings(frame, buildings),
        *_ships(frame, ships),
    )
    attributes = {"season": light.season, "gsd": f"{np.sqrt(frame.ground.pixel_area):.2f}"}
    facts = Facts(findings, LABELS, attributes)
    return Sample(str(path), f"place-{seed}-{place}", facts)


def frame_somewhere(rng: Generator) -> Frame:
    """A scene of 256 to 320 pixels a side and 2 to 5 m a pixel somewhere on land."""
    climate, west, east, south, north = LANDS[rng.integers(len(LANDS))]
    longitude, latitude = rng.uniform(west, east), rng.uniform(south, north)
    shape = int(rng.integers(256, 321)), int(rng.integers(256, 321))
    side = round(rng.uniform(2, 5), 1)
    turn = np.deg2rad(rng.choice([-1, 1]) * rng.uniform(2, 15)) if rng.random() < 0.08 else 0.0
    up = 1 if turn == 0 and rng.random() < 0.06 else -1
    cos, sin = np.cos(turn), np.sin(turn)
    axes = np.array([[cos, -sin], [sin, cos]]) @ np.diag([side, side * up])
    epsg, centre, unit = _place(rng, longitude, latitude, side)
    if epsg == 4326 and rng.random() < 0.5:
        axes *= np.sqrt(np.abs(unit[1, 1] / unit[0, 0])) ** np.array([[-1], [1]])
    steps = np.linalg.inv(unit) @ axes if epsg == 4326 else axes
    (a, b), (d, e) = steps.tolist()
    c, f = (centre - steps @ np.array(shape[::-1]) / 2).tolist()
    return Frame(epsg, (a, b, c, d, e, f), Ground(shape, unit @ steps), latitude, climate)


def _place(rng: Generator, longitude: float, latitude: float, side: float) -> tuple[int, Matrix, Matrix]:
    """EPSG code, centre in its units, and true metres (east, north) for one unit of (x, y) there.

    UTM with its scale and convergence at the centre (first terms of the series in Snyder 1987, chapter 8), or WGS 84.
    """
    degree = metres_per_degree(latitude)
    if rng.random() < 0.15:
        return 4326, np.array([longitude, latitude]), np.diag(degree)
    zone = int((longitude + 180) // 6) + 1
    x, y = np.array([longitude - (zone * 6 - 183), latitude]) * degree * 0.9996
    scale = 0.9996 * (1 + (x / 6_371_000) ** 2 / 2)
    turn = np.arctan(np.tan(np.deg2rad(longitude - (zone * 6 - 183))) * np.sin(np.deg2rad(latitude)))
    unit = np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]]) / scale
    centre = np.array([500_000 + x, y if latitude >= 0 else 10_000_000 + y])
    return (32600 if latitude >= 0 else 32700) + zone, np.round(centre / side) * side, unit


def metres_per_degree(latitude: float) -> Matrix:
    """Length in metres of a degree of longitude and of latitude on the WGS 84 ellipsoid at a latitude in degrees."""
    major, squared = 6_378_137.0, 0.006_694_379_990_14
    phi = np.deg2rad(latitude)
    root = np.sqrt(1 - squared * np.sin(phi) ** 2)
    return np.deg2rad([major * np.cos(phi) / root, major * (1 - squared) / root**3])


def _swath(rng: Generator, ground: Ground) -> Bools:
    """Pixels with data: all, or those on one side of the edge of a swath."""
    if rng.random() < 0.72:
        return np.ones(ground.shape, bool)
    across, _ = ground.turned(rng.uniform(0, 2 * np.pi))
    return np.asarray(across < np.quantile(across[::8, ::8], rng.uniform(0.7, 0.97)))


def _seen(cover: Bytes, veil: Clouds, valid: Bools) -> Bytes:
    """The cover map as seen from above: clouds over land, `NO_DATA` outside the swath."""
    seen = np.where(veil.opacity > 0.5, np.uint8(Cover.CLOUD), cover)
    seen[~valid] = NO_DATA
    return seen


def _without_slivers(cover: Bytes, veil: Clouds, valid: Bools) -> tuple[Bytes, Clouds]:
    """Give what would not count as present to the cover that prevails, so that absent means nowhere to be seen."""
    smallest = SMALLEST_SHARE * valid.sum()
    if np.count_nonzero((veil.opacity > 0.5) & valid) < smallest:
        veil = Clouds(np.zeros_like(veil.opacity), np.zeros_like(veil.shadow))
    counts = np.bincount(_seen(cover, veil, valid)[valid], minlength=len(Cover))[: Cover.CLOUD]
    small = np.flatnonzero(counts < smallest)
    lasting = np.arange(NO_DATA + 1, dtype=np.uint8)
    lasting[small] = counts.argmax()
    return lasting[cover], veil


def _write(path: Path, rng: Generator, frame: Frame, image: Floats, valid: Bools, light: Sky) -> None:
    """Add noise, quantise (in place) and save in deflated tiles: mostly scaled integers, some floating point."""
    first, second = rng.integers(0, 256, (2, *image.shape), np.uint8)
    noise = np.subtract(first, second, dtype=np.int16)  # triangular, with a deviation of 104.5
    image += noise * np.float32(rng.uniform(0.0003, 0.0018) / 104.5)
    integer = rng.random() < 0.85
    offset = -0.1 if integer and rng.random() < 0.15 else 0.0
    nodata: float = int(rng.choice([0, 65535])) if integer else float(rng.choice([-9999.0, np.nan]))
    image -= np.float32(offset)
    image *= 10_000
    np.rint(image, image).clip(1, 65_534, out=image)
    data = image.astype(np.uint16) if integer else image / np.float32(10_000)
    data[:, ~valid] = nodata
    profile: dict[str, Any] = {
        "driver": "GTiff", "height": image.shape[1], "width": image.shape[2], "count": len(image), "dtype": data.dtype,
        "crs": CRS.from_epsg(frame.epsg), "transform": Affine(*frame.transform), "nodata": nodata,
        "tiled": True, "blockxsize": 160, "blockysize": 160, "compress": "deflate", "zlevel": 1,
        "predictor": 2 if integer else 1, "interleave": "band",
    }  # fmt: skip
    shift = rng.uniform(-12, 12)
    with rasterio.open(path, "w", **profile) as target:
        target.write(data)
        target.descriptions = BANDS[: len(image)]
        if integer:
            target.scales, target.offsets = (0.0001,) * len(image), (offset,) * len(image)
        day = f"{rng.integers(2016, 2026)}-{light.month:02d}-{rng.integers(1, 29):02d}"
        target.update_tags(ns="IMAGERY", ACQUISITIONDATETIME=f"{day} 10:{rng.integers(60):02d}:00")
        for band, centre in enumerate(WAVELENGTHS[: len(image)], 1):
            target.update_tags(band, ns="IMAGERY", CENTRAL_WAVELENGTH_UM=f"{(centre + shift) / 1000:.3f}")


def _land_cover(frame: Frame, seen: Bytes) -> list[Finding]:
    """A finding for each cover of at least 1 % of the valid pixels."""
    table = np.bincount((seen.astype(np.uint16) * 4 + frame.quarter).ravel(), minlength=4 * (NO_DATA + 1)).reshape(
        -1, 4
    )
    valid = table[:NO_DATA].sum()
    found = []
    for cover in Cover:
        count = int(table[cover].sum())
        if count >= SMALLEST_SHARE * valid:
            measures = (
                Measure("area", count * frame.ground.pixel_area / 1e4, "ha"),
                Measure("fraction", count / valid, "1"),
            )
            place = QUADRANTS[int(table[cover].argmax())]
            found.append(_finding(cover.label, seen == cover, place, measures))
    return found


def _buildings(frame: Frame, buildings: Objects) -> list[Finding]:
    if len(buildings) == 0:
        return []
    mask = buildings.mask(frame.ground.shape)
    measures = (
        Measure("count", float(len(buildings)), "1"),
        Measure("area", float(mask.sum() * frame.ground.pixel_area), "m2"),
    )
    return [_finding("building", mask, _quadrant(frame, mask), measures)]


def _ships(frame: Frame, ships: Objects) -> list[Finding]:
    if len(ships) == 0:
        return []
    longest = int(ships.length.argmax())
    measures = (
        Measure("count", float(len(ships)), "1"),
        Measure("length", float(ships.length[longest]), "m"),
        Measure("bearing", float((90 - np.rad2deg(ships.direction[longest])) % 180), "deg"),
    )
    mask = ships.mask(frame.ground.shape)
    return [_finding("ship", mask, _quadrant(frame, mask), measures)]


def _quadrant(frame: Frame, mask: Bools) -> str:
    """The quarter of the scene that holds most of a mask."""
    return QUADRANTS[int(np.bincount(frame.quarter[mask], minlength=4).argmax())]


def _finding(label: str, mask: Bools, place: str, measures: tuple[Measure, ...]) -> Finding:
    return Finding(label, TERMS[label].code, True, 1.0, Origin("truth", "1"), place, measures, Mask(mask[None]))
