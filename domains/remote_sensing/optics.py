"""What a sensor sees of a place: reflectance by cover and season, light and shadow, clouds, haze, blur and noise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from domains.remote_sensing.objects import Objects, oblongs
from domains.remote_sensing.terrain import Cover, Generator, Ground, Mosaic, Terrain, fractal, level
from fovea.types import Bools, Bytes, Floats

BANDS = ("blue", "green", "red", "nir", "swir1", "swir2")
WAVELENGTHS = (490.0, 560.0, 665.0, 842.0, 1610.0, 2200.0)
"""Centres of the bands in nm."""

Spectrum = NDArray[np.float32]

SPECTRA: dict[str, tuple[float, ...]] = {
    "broadleaf": (0.022, 0.050, 0.028, 0.40, 0.19, 0.080),
    "turning": (0.035, 0.070, 0.075, 0.30, 0.20, 0.100),
    "conifer": (0.016, 0.032, 0.020, 0.25, 0.10, 0.040),
    "grass": (0.035, 0.085, 0.050, 0.38, 0.23, 0.12),
    "hay": (0.062, 0.105, 0.115, 0.27, 0.31, 0.21),
    "crop": (0.028, 0.070, 0.033, 0.47, 0.20, 0.09),
    "ripe": (0.085, 0.145, 0.190, 0.32, 0.37, 0.25),
    "rape": (0.040, 0.130, 0.110, 0.45, 0.23, 0.11),
    "dark soil": (0.050, 0.068, 0.085, 0.13, 0.20, 0.17),
    "brown soil": (0.075, 0.110, 0.155, 0.22, 0.30, 0.26),
    "red soil": (0.065, 0.100, 0.170, 0.24, 0.33, 0.28),
    "sand": (0.160, 0.230, 0.300, 0.36, 0.44, 0.40),
    "rock": (0.135, 0.160, 0.180, 0.20, 0.24, 0.22),
    "clear water": (0.035, 0.032, 0.014, 0.006, 0.003, 0.002),
    "green water": (0.030, 0.055, 0.028, 0.012, 0.004, 0.003),
    "silty water": (0.065, 0.100, 0.085, 0.032, 0.008, 0.005),
    "asphalt": (0.075, 0.085, 0.092, 0.11, 0.13, 0.12),
    "concrete": (0.190, 0.215, 0.230, 0.26, 0.28, 0.26),
    "gravel": (0.140, 0.175, 0.205, 0.24, 0.30, 0.28),
    "tile": (0.080, 0.115, 0.230, 0.28, 0.30, 0.26),
    "slate": (0.085, 0.090, 0.095, 0.11, 0.13, 0.13),
    "white": (0.480, 0.500, 0.510, 0.52, 0.48, 0.42),
    "metal": (0.280, 0.300, 0.310, 0.32, 0.30, 0.28),
    "blue roof": (0.240, 0.190, 0.130, 0.19, 0.22, 0.20),
    "rust": (0.070, 0.090, 0.170, 0.21, 0.25, 0.22),
    "cloud": (0.720, 0.730, 0.740, 0.76, 0.60, 0.45),
}
"""Typical surface reflectance in the six bands, in round numbers."""

ROOFS = ("tile", "slate", "white", "metal", "blue roof", "concrete", "rust", "gravel")
HULLS = ("white", "metal", "rust", "concrete", "tile", "blue roof")


@dataclass(frozen=True)
class Sky:
    """When a scene is taken: the season, the month (1 to 12), and where the sun stands, in degrees."""

    season: str
    month: int
    azimuth: float
    elevation: float

    @property
    def green(self) -> float:
        """How green the plants are, in [0, 1]."""
        return {"winter": 0.25, "spring": 0.8, "summer": 0.75, "autumn": 0.45}[self.season]


def sky(rng: Generator, latitude: float) -> Sky:
    """A morning of any month at a latitude in degrees."""
    month = int(rng.integers(1, 13))
    northern = ("winter", "spring", "summer", "autumn")[month % 12 // 3]
    southern = ("summer", "autumn", "winter", "spring")[month % 12 // 3]
    declination = -23.4 * np.cos(np.deg2rad((month + 0.3) * 30))
    elevation = float(np.clip(84 - abs(latitude - declination) + rng.uniform(-15, 0), 24, 72))
    azimuth = rng.uniform(125, 165) if latitude > declination else rng.uniform(15, 55)
    return Sky(northern if latitude >= 0 else southern, month, float(azimuth), elevation)


@dataclass(frozen=True, eq=False)
class Clouds:
    """Opacity in [0, 1] of clouds, and of the shadows that they cast, (row, column)."""

    opacity: Floats
    shadow: Floats


def clouds(rng: Generator, ground: Ground, light: Sky, chance: float) -> Clouds:
    """Broken clouds with soft edges in some scenes, a clear sky in the others."""
    if rng.random() >= chance:
        return Clouds(np.zeros(ground.shape, np.float32), np.zeros(ground.shape, np.float32))
    length = rng.uniform(80, 260) / np.tan(np.deg2rad(light.elevation))
    walk = ground.index(_towards(light)[None] * length) - ground.index(np.zeros((1, 2)))
    down, right = np.round(walk[0]).astype(int).tolist()
    (rows, columns), (top, left) = ground.shape, (max(0, -down), max(0, -right))
    field = fractal(rng, (rows + abs(down), columns + abs(right)), rng.uniform(0.5, 1.0), 72)
    softness = np.float32(rng.uniform(0.25, 0.5))
    opacity = ((field - np.float32(level(field, rng.uniform(0.03, 0.35)))) / softness + 0.5).clip(0, 1)
    opacity *= opacity * (3 - 2 * opacity)
    above, sunward = (opacity[y : y + rows, x : x + columns] for y, x in ((top, left), (top + down, left + right)))
    return Clouds(above, sunward)


def _towards(light: Sky) -> NDArray[np.float64]:
    """The unit vector (east, north) on the ground towards the sun."""
    azimuth = np.deg2rad(light.azimuth)
    return np.array([np.sin(azimuth), np.cos(azimuth)])


class Material(NamedTuple):
    """How a kind of surface looks: a mix of two spectra, and how strongly textures change mix and brightness.

    Textures have deviation 1: `grain` is as fine as a pixel, `patch` tens of pixels wide. A single tree stands
    where the grain exceeds `trees`.
    """

    under: Spectrum
    over: Spectrum
    mix: float
    mix_grain: float
    mix_patch: float
    tone_grain: float
    tone_patch: float
    trees: float = 9.0


class Palette:
    """Spectra of one scene: the typical ones, each a little brighter or darker, a little off in each band."""

    def __init__(self, rng: Generator, bands: int) -> None:
        names = list(SPECTRA)
        table = np.array(list(SPECTRA.values()), np.float32)[:, :bands]
        bright = rng.normal(0, 0.14, (len(names), 1)) + rng.normal(0, 0.04, table.shape)
        self._spectra: dict[str, Spectrum] = dict(zip(names, (table * np.exp(bright)).astype(np.float32), strict=True))

    def __getitem__(self, name: str) -> Spectrum:
        return self._spectra[name]

    def blend(self, a: str, b: str, share: float) -> Spectrum:
        """`share` of b in a."""
        first, second = self._spectra[a], self._spectra[b]
        return first + (second - first) * np.float32(share)


def materials(rng: Generator, palette: Palette, green: float) -> list[Material]:
    """The surfaces of a scene: one a cover, then 16 states of crops, then 8 kinds of blocks."""
    soil = str(rng.choice(["dark soil", "brown soil", "red soil", "sand", "rock"]))
    bed = str(rng.choice(["dark soil", "brown soil"]))
    water = palette.blend("clear water", str(rng.choice(["green water", "silty water"])), rng.uniform(0, 1))
    meadow = palette.blend("hay", "grass", float(np.clip(green + rng.normal(0, 0.25), 0.2, 1)))
    leaves = palette.blend("turning", "broadleaf", min(1.0, green * 1.3))
    road = palette[str(rng.choice(["asphalt", "asphalt", "concrete", "gravel"]))]
    grove, garden = rng.uniform(1.9, 4.5), rng.uniform(1.7, 3.5)
    rough = rng.uniform(0.015, 0.035, 2)
    firm = [
        Material(water * 1.6 + np.float32(0.01), water, 0.5, 0.0, 0.02, 0.015, 0.03),
        Material(palette["conifer"], leaves, rng.uniform(0.1, 0.9), 0.08, 0.25, rng.uniform(0.1, 0.19), 0.08),
        Material(palette[bed], palette["crop"], 0.5, 0.0, 0.1, 0.03, 0.05),
        Material(palette.blend("hay", bed, 0.3), meadow, 0.75, rng.uniform(0.02, 0.05), 0.18, rough[0], 0.07, grove),
        Material(palette[soil], palette.blend(soil, "hay", 0.4), 0.25, 0.03, 0.15, rough[1], 0.1, grove + 1),
        Material(palette["asphalt"], palette["concrete"], 0.4, 0.05, 0.2, 0.05, 0.05),
        Material(road, road, 0.5, 0.0, 0.0, 0.03, 0.03),
        Material(palette["cloud"], palette["cloud"], 0.5, 0.0, 0.0, 0.01, 0.05),
    ]
    return (
        firm
        + [_field(rng, palette, bed, green) for _ in range(16)]
        + [_block(rng, palette, garden, green) for _ in range(8)]
    )


def _field(rng: Generator, palette: Palette, bed: str, green: float) -> Material:
    """One of the states in which crops stand: from ploughed to full grown or ripe."""
    crop = str(rng.choice(["crop", "ripe", "rape", "hay"], p=[0.62, 0.17, 0.06, 0.15]))
    grown = float(np.clip(rng.beta(1.5, 1.0) * (0.45 + 0.75 * green), 0, 0.97))
    return Material(palette[bed] * np.float32(rng.uniform(0.8, 1.25)), palette[crop], grown, 0.02, 0.06, 0.015, 0.04)


def _block(rng: Generator, palette: Palette, garden: float, green: float) -> Material:
    """The ground between buildings: from bare pavement to lawns with trees."""
    paved = palette.blend("asphalt", str(rng.choice(["concrete", "gravel"])), rng.uniform(0, 0.8))
    yard = palette.blend("hay", "grass", 0.3 + 0.6 * green)
    share, grain, patch = rng.uniform((0, 0.05, 0), (0.7, 0.18, 0.4))
    return Material(paved, yard, float(share), float(grain), float(patch), 0.05, 0.04, garden)


@dataclass(frozen=True, eq=False)
class Surface:
    """What lies on the ground of one scene: `cover` uint8 (row, column) of `Cover`, buildings and ships."""

    terrain: Terrain
    cover: Bytes
    buildings: Objects
    ships: Objects


def reflectance(rng: Generator, surface: Surface, light: Sky, veil: Clouds, bands: int) -> Floats:
    """Reflectance at the sensor, float32 (band, row, column), before noise."""
    terrain = surface.terrain
    palette = Palette(rng, bands)
    grain = rng.standard_normal(terrain.ground.shape, np.float32)
    grain += np.roll(grain, 1, 0)
    grain += np.roll(grain, 1, 1)
    grain /= 2
    image, tone, trees = _cover(rng, surface, materials(rng, palette, light.green), grain, light)
    tone *= _slopes(terrain, surface.cover, light)
    image *= tone
    canopy = rng.uniform(5, 16) * (1 + 0.12 * grain) * ((surface.cover == Cover.FOREST) + np.float32(0.4) * trees)
    _put_ships(rng, image, surface, palette)
    shade = _shade(rng, surface, canopy.astype(np.float32), light)
    image[:, shade] *= 1 - _shadow_depth(bands)[:, 0]
    _put_roofs(rng, image, surface.buildings, palette, light, terrain.ground)
    _put_clouds(rng, image, veil, palette, bands)
    return _blur(_haze(rng, image), rng.uniform(0.05, 0.2))


def _cover(
    rng: Generator, surface: Surface, kinds: list[Material], grain: Floats, light: Sky
) -> tuple[Floats, Floats, Bools]:
    """Reflectance of the flat, evenly lit ground (band, row, column), the brightness of its texture, single trees."""
    terrain, cover = surface.terrain, surface.cover
    patch = fractal(rng, terrain.ground.shape, 0.45, 128)
    kind = cover
    for mosaic, code, first, last in (
        (terrain.parcels, Cover.CROPLAND, 8, 24),
        (terrain.blocks, Cover.BUILT_UP, 24, 32),
    ):
        if mosaic is not None:
            drawn = rng.integers(first, last, len(mosaic.bounds)).astype(np.uint8)
            kind = np.where(cover == code, drawn[mosaic.cell], kind)
    table = np.array([k[2:] for k in kinds], np.float32).T
    mix = table[0][kind] + table[1][kind] * grain + table[2][kind] * patch
    wet = cover == Cover.WATER
    mix[wet] = 1 - np.exp(-np.maximum(terrain.depth[wet], 0) / np.float32(rng.uniform(0.3, 3)))
    row, column = _steps(terrain.ground, light)
    trees = grain > table[5][kind]
    tone = 1 + table[3][kind] * (grain - np.roll(grain, (-row, -column), (0, 1))) + table[4][kind] * patch
    tone -= np.float32(0.5) * trees
    if terrain.parcels is not None:
        rows = _rows(rng, terrain.parcels, terrain.ground.pitch, cover == Cover.CROPLAND)
        mix += rows
        tone += rows / 2
    under, over = (np.stack([k[i] for k in kinds], 1) for i in (0, 1))
    image: Floats = np.take(over - under, kind, 1)
    image *= mix.clip(0, 1)
    image += np.take(under, kind, 1)
    return image, tone.clip(0.3, 1.9), trees


def _rows(rng: Generator, parcels: Mosaic, pitch: float, crop: Bools) -> Floats:
    """Rows of crops, a sine with its own direction, period and strength in each parcel, and the balks between."""
    cells = len(parcels.bounds)
    along = rng.random(cells) < 0.75
    period = rng.uniform(2.3, 6, cells) * pitch
    strength = rng.uniform(0, 0.12, cells) * (rng.random(cells) < 0.75)
    across = np.where(along[parcels.cell], parcels.v, parcels.u)
    sine = np.sin(across * (2 * np.pi / period).astype(np.float32)[parcels.cell])
    balk = np.float32(rng.normal(0, 0.2)) * (parcels.edge < 0.7 * pitch)
    return (sine * strength.astype(np.float32)[parcels.cell] + balk) * crop


def _steps(ground: Ground, light: Sky, metres: float | None = None) -> tuple[int, int]:
    """Whole (rows, columns) of a walk towards the sun, one pixel long unless given in metres."""
    walk = _towards(light) * (ground.pitch if metres is None else metres)
    row, column = ground.index(walk[None])[0] - ground.index(np.zeros((1, 2)))[0]
    return round(float(row)), round(float(column))


def _slopes(terrain: Terrain, cover: Bytes, light: Sky) -> Floats:
    """Brightness of slopes under a low sun, 1 where it is flat: the cosine of incidence over that of flat ground."""
    down, right = (np.zeros_like(terrain.relief) for _ in range(2))
    down[1:] = terrain.relief[1:] - terrain.relief[:-1]
    right[:, 1:] = terrain.relief[:, 1:] - terrain.relief[:, :-1]
    weights = np.linalg.inv(terrain.ground.step) @ _towards(light) / np.tan(np.deg2rad(light.elevation))
    shade = 1 - (right * np.float32(weights[0]) + down * np.float32(weights[1]))
    gentle = np.array([0, 1, 0.4, 0.8, 1, 0.2, 0.2, 1], np.float32)[cover]
    return np.asarray(1 + gentle * (shade - 1).clip(-0.45, 0.4))


def _shade(rng: Generator, surface: Surface, height: Floats, light: Sky) -> Bools:
    """Where buildings and trees keep the sun out, (row, column)."""
    buildings, ground = surface.buildings, surface.terrain.ground
    inside = buildings.inside > 0
    tall = np.broadcast_to(rng.uniform(4, 20, (len(buildings), 1, 1)).astype(np.float32), inside.shape)
    height[buildings.rows[inside], buildings.columns[inside]] = tall[inside]
    fall = ground.pitch * np.tan(np.deg2rad(light.elevation))
    shade = np.zeros(height.shape, bool)
    for k in range(1, 1 + min(12, int(height.max() / fall))):
        row, column = _steps(ground, light, k * ground.pitch)
        shade |= np.roll(height, (-row, -column), (0, 1)) - np.float32(k * fall) > height
    return shade


def _shadow_depth(bands: int) -> Floats:
    """How much light a shadow takes, (band, 1, 1): skylight is blue."""
    return np.array([0.52, 0.58, 0.62, 0.66, 0.70, 0.72], np.float32)[:bands, None, None]


def _put_roofs(rng: Generator, image: Floats, buildings: Objects, palette: Palette, light: Sky, ground: Ground) -> None:
    """Paint roofs, flat or with a ridge whose two sides are lit differently."""
    n = len(buildings)
    names = rng.choice(ROOFS, n, p=[0.25, 0.13, 0.13, 0.15, 0.06, 0.12, 0.06, 0.10])
    colors = np.array([palette[name] for name in names], np.float32).reshape(n, len(image))
    colors *= np.exp(rng.normal(0, 0.15, (n, 1))).astype(np.float32)
    side = -np.sin(buildings.direction) * _towards(light)[0] + np.cos(buildings.direction) * _towards(light)[1]
    ridge = (side * (rng.random(n) < 0.5) * rng.uniform(0.1, 0.3, n)).astype(np.float32)
    tone = 1 + ridge[:, None, None] * np.sign(buildings.v)
    _paint(image, buildings, colors, tone, ground)


def _put_ships(rng: Generator, image: Floats, surface: Surface, palette: Palette) -> None:
    """Paint hulls with a bright superstructure, and wakes behind ships under way."""
    ships, ground, wet = surface.ships, surface.terrain.ground, surface.cover == Cover.WATER
    n = len(ships)
    if n == 0:
        return
    moving = np.flatnonzero(rng.random(n) < 0.5)
    trail = rng.uniform(1.0, 4.0, len(moving)) * ships.length[moving]
    ahead = np.stack([np.cos(ships.direction[moving]), np.sin(ships.direction[moving])], -1)
    stern = ships.points[moving] - ahead * (trail + ships.length[moving])[:, None] / 2
    wakes = oblongs(ground, stern, ships.direction[moving], trail, ships.width[moving] * 3)
    behind = (0.5 - wakes.u / trail[:, None, None]).clip(0, 1)
    spread = np.abs(wakes.v) / (ships.width[moving, None, None] * (0.35 + 0.9 * behind))
    foam = (1 - spread).clip(0, 1) * (1 - behind) * (wakes.inside > 0) * wet[wakes.rows, wakes.columns]
    which, *place = np.nonzero(foam)
    rows, columns = wakes.rows[which, *place], wakes.columns[which, *place]
    image[:, rows, columns] += foam[which, *place].astype(np.float32) * np.float32(rng.uniform(0.04, 0.15))
    colors = np.array([palette[name] for name in rng.choice(HULLS, n)], np.float32)
    half = (ships.length / 2).astype(np.float32)[:, None, None]
    bridge = np.abs(ships.u + half * rng.uniform(0.2, 0.6, (n, 1, 1)).astype(np.float32)) < half * 0.2
    _paint(image, ships, colors, 0.85 + 0.5 * bridge, ground)


def _paint(image: Floats, objects: Objects, colors: Floats, tone: Floats, ground: Ground) -> None:
    """Put objects into the image in their colours (object, band), blended at their edges."""
    opacity = (0.5 + objects.inside / np.float32(np.sqrt(ground.pixel_area))).clip(0, 1)
    which, *place = np.nonzero(opacity)
    alpha = opacity[which, *place]
    rows, columns = objects.rows[which, *place], objects.columns[which, *place]
    image[:, rows, columns] *= 1 - alpha
    image[:, rows, columns] += colors[which].T * (alpha * tone[which, *place])


def _put_clouds(rng: Generator, image: Floats, veil: Clouds, palette: Palette, bands: int) -> None:
    """Darken what lies in the shadow of clouds, then lay the clouds over it."""
    if not veil.opacity.any():
        return
    billows = 1 + fractal(rng, veil.opacity.shape, 0.5, 64) * np.float32(0.06)
    image *= 1 - veil.shadow * np.float32(0.85) * _shadow_depth(bands)
    image *= 1 - veil.opacity
    bright = palette["cloud"] * np.float32(rng.uniform(0.75, 1.1))
    image += bright[:, None, None] * (veil.opacity * billows)


def _haze(rng: Generator, image: Floats) -> Floats:
    """Path radiance and extinction of an atmosphere that scatters blue most."""
    thickness = rng.uniform(0.0, 0.045)
    color = np.array(WAVELENGTHS, np.float32)[: len(image), None, None]
    path = (thickness * (490 / color) ** rng.uniform(1.5, 3.0)).astype(np.float32)
    image *= (1 - 2 * path) * np.float32(rng.uniform(0.92, 1.08))
    image += path
    return image


def _blur(image: Floats, share: float) -> Floats:
    """The point spread of the optics: `share` of the light goes to either neighbour along each axis; in place."""
    for axis in (1, 2):
        exchange = np.diff(image, axis=axis)
        exchange *= np.float32(share)
        before, after = (image[:, :-1], image[:, 1:]) if axis == 1 else (image[:, :, :-1], image[:, :, 1:])
        before += exchange
        after -= exchange
    return image
