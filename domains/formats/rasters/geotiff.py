"""GeoTIFF and JPEG 2000 rasters, read by window through GDAL in processes of their own.

Choices:

- The driver is chosen by the file's first bytes, and only two are allowed. Remote paths, virtual rasters
  and GDAL's sidecars (.aux.xml, .ovr, world files, which may name other files) are not followed; a mask
  beside the file (.msk) is read as the TIFF it has to be.
- A transform with a coordinate reference system makes the grid, rotated and south-up ones too, and so do ground
  control points that lie within a quarter of a pixel of an affine transform. Other ground control points lay the
  raster on a metric grid (`gcps.py`), and `meta["geometry"]` says how well. A system without a transform and rational
  polynomials alone raise GeometryError. A file that names no system of the Earth has pixels without a size: frame
  PIXEL, and `meta["geometry"]` says so.
- A system without an EPSG code is kept as WKT without the names that people gave to it and its parts.
- A pixel is valid by the first of these that there is: the caller's mask or nodata value, a mask in the file, a mask
  beside it, an alpha band, the file's nodata value, which is compared with the numbers as stored. By nodata values a
  pixel is valid where no band has its own; of 8-bit colours, where not all have it. Every band has to be finite.
  Values at invalid pixels are 0.
- Values are scaled by the file's own scale and offset. Their unit is "reflectance" when the file scales
  them or holds floats, and they lie where reflectance lies; else "digital number".
- Of a file with several pages the first is read. A file that changes after its header was read is refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from domains.formats.content import Content, file_hash
from domains.formats.isolation import isolated
from domains.formats.rasters import gcps
from domains.formats.rasters import worker as raster_worker
from domains.formats.rasters.bands import Band, Naming, acquired, modality, name_bands, sensor
from domains.formats.rasters.earth import bounds as bounds
from domains.formats.rasters.earth import ground_size as ground_size
from domains.formats.rasters.raster import Level, Raster
from domains.formats.rasters.worker import Source, Stamp
from fovea.errors import InputError, UnsupportedError
from fovea.image import Channel, Floats, Grid, Image

LIMIT = 2**31
"""Bytes that one read may fill as float32."""
_BLOCK_LIMIT = 2**28
"""Bytes that one compressed block of the file may fill."""
_GLANCES = 16
"""Pixels a side of the samples that tell reflectance from other numbers."""
_MAGIC = {
    b"II*\0": "GTiff", b"MM\0*": "GTiff", b"II+\0": "GTiff", b"MM\0+": "GTiff",
    b"\0\0\0\x0cjP  ": "JP2OpenJPEG", b"\xff\x4f\xff\x51": "JP2OpenJPEG",
}  # fmt: skip
_METRES = frozenset({"m", "metre", "metres", "meter", "meters"})


def is_geotiff(path: Path) -> bool:
    """Whether the first bytes of a file are those of TIFF or JPEG 2000."""
    return bool(_driver(path))


def read(
    path: Path,
    *,
    nodata: float | Sequence[float] | None = None,
    mask: Path | None = None,
    limit: int = LIMIT,
    power: bool = False,
) -> Content:
    """One raster, whose pixels are read when asked for.

    `nodata` (one number, or one a band) or `mask` (a TIFF whose first band is 0 where there is no data) replace what
    the file says of validity. With `power` the values are the squares of the numbers, unscaled, and a raster of control
    points stays in its own rows and columns. `meta` has "modality" (one of `bands.MODALITIES`) and, where known,
    "sensor", "date" and "geometry". Raises UnsupportedError for other formats and complex numbers, GeometryError for a
    position that neither a transform nor control points give, LimitError for too many bands or too large blocks,
    InputError for a broken file. Later reads raise LimitError above `limit` bytes.
    """
    driver = _driver(path)
    if not driver:
        raise UnsupportedError("a file that is no TIFF or JPEG 2000 inside", "a GeoTIFF", "Convert it to GeoTIFF")
    path = _local(path)
    facts = _header(path, driver, limit)
    palette = tuple((r, g, b, a) for r, g, b, a in facts["palette"])
    data = [i for i, color in enumerate(facts["colors"], 1) if color != "alpha"]
    data = data[:1] if palette else data
    if not data:
        raise UnsupportedError("a raster of an alpha band alone", "at least one band of data")
    bands = [_band(facts, i) for i in data]
    instrument = sensor(facts["tags"], [band.description for band in bands])
    names = name_bands(bands, instrument)
    kind = modality(bands, [name for name, _ in names], bool(palette))
    source, mask = _source(path, driver, facts, tuple(data), nodata, mask)
    source = replace(source, power=power)
    (rows, columns), place = facts["shape"], facts["geometry"]
    raster = Raster(
        source,
        _levels(facts),
        "float32" if power else _dtype(facts["dtypes"][data[0] - 1]),
        tuple((1.0, 0.0) if power else (facts["scales"][i - 1], facts["offsets"][i - 1]) for i in data),
        palette,
        kind == "classes",
        limit,
    )
    plain = Image(_channels(raster, bands, names, kind), Grid.plain(rows, columns), raster)
    image, reason = (plain, "ground control points") if power and "points" in place else _placed(plain, place, kind)
    meta = {"modality": kind, "sensor": instrument, "date": acquired(facts["tags"]), "geometry": reason}
    return Content(
        (image,),
        {key: value for key, value in meta.items() if value},
        tuple(file_hash(file) for file in (path, mask) if file),
    )


def _placed(image: Image, place: dict[str, Any], modality: str) -> tuple[Image, str]:
    """The image where the file says that it lies, and what there is to say of that."""
    if "reason" in place:
        return image, place["reason"]
    if "transform" in place:
        return replace(image, grid=Grid.from_gdal(place["transform"], place["frame"], *image.grid.shape[1:])), ""
    found = np.array(place["points"])
    points = gcps.Points(found[:, :2] - 0.5, found[:, 2:], place["frame"])
    placed, error = gcps.place(image, points, resampling="nearest" if modality == "classes" else "bilinear")
    return placed, f"{len(found)} ground control points, {gcps.told(error)}"


def _header(path: Path, driver: str, limit: int) -> dict[str, Any]:
    return isolated(raster_worker.header, path, driver, min(limit, _BLOCK_LIMIT))


def _source(
    path: Path, driver: str, facts: dict[str, Any], data: tuple[int, ...], nodata: Any, mask: Path | None
) -> tuple[Source, Path | None]:
    """What the worker reads from, and the mask file that decides on validity, if one does."""
    stamp = _stamp(facts)
    if nodata is not None:
        given = np.broadcast_to(np.asarray(nodata, float), len(data)) if np.ndim(nodata) == 0 else np.asarray(nodata)
        if given.shape != (len(data),):
            raise InputError(f"{given.size} nodata values", f"one, or one for each of {len(data)} bands")
        values = tuple(float(value) for value in given)
        return Source(path, driver, stamp, data, nodata=values), None
    if mask is None and not facts["mask"] and path.with_name(path.name + ".msk").is_file():
        mask = path.with_name(path.name + ".msk")
    if mask is not None:
        mask = _local(mask)
        return Source(path, driver, stamp, data, mask_file=mask, mask_stamp=_mask(mask, tuple(facts["shape"]))), mask
    if facts["mask"]:
        return Source(path, driver, stamp, data, mask=True), None
    if "alpha" in facts["colors"]:
        return Source(path, driver, stamp, data, alpha=facts["colors"].index("alpha") + 1), None
    values = tuple(facts["nodata"][i - 1] for i in data)
    colored = len(data) > 1 and all(facts["dtypes"][i - 1] == "uint8" for i in data)
    return Source(path, driver, stamp, data, nodata=values, any_band=colored), None


def _mask(path: Path, shape: tuple[int, ...]) -> Stamp:
    """The stamp of a mask file, which has to be a TIFF of the same size."""
    if _driver(path) != "GTiff":
        raise UnsupportedError("a .msk file that is no TIFF", "a mask as GDAL writes it", "Remove it, or write it anew")
    facts = _header(path, "GTiff", LIMIT)
    if tuple(facts["shape"]) != shape:
        raise InputError("a .msk file of another size", "one of the raster's size", "Remove it, or write it anew")
    return _stamp(facts)


def _stamp(facts: dict[str, Any]) -> Stamp:
    size, time, inode = facts["stamp"]
    return int(size), int(time), int(inode)


def _levels(facts: dict[str, Any]) -> tuple[Level, ...]:
    full = Level(None, tuple(facts["shape"]), tuple(facts["block"]))
    return full, *(Level(i, (r, c), (br, bc)) for i, (r, c, br, bc) in enumerate(facts["levels"]))


def _dtype(name: str) -> str:
    return "uint8" if name == "bool" else name


def _band(facts: dict[str, Any], index: int) -> Band:
    unit = (facts["units"][index - 1] or "").strip().lower()
    return Band(
        facts["descriptions"][index - 1] or "",
        facts["colors"][index - 1],
        facts["dtypes"][index - 1],
        "m" if unit in _METRES else "",
        facts["band_tags"][index - 1],
    )


def _channels(raster: Raster, bands: list[Band], names: list[Naming], modality: str) -> tuple[Channel, ...]:
    if raster.palette:
        return tuple(Channel(name, "digital number") for name in ("red", "green", "blue"))
    if modality == "elevation":
        return (Channel("elevation", bands[0].unit),)
    if modality != "optical":
        return tuple(
            Channel(name.replace("gray", "value"), band.unit, nm) for band, (name, nm) in zip(bands, names, strict=True)
        )
    scaled = [pair != (1, 0) for pair in raster.scales]
    measured = [s or band.dtype.startswith("float") for s, band in zip(scaled, bands, strict=True)]
    units = ["digital number"] * len(bands)
    if any(measured):
        sample = _glance(raster)
        for i in np.flatnonzero(measured):
            low, high = np.percentile(sample[i], (2, 98)) if sample.size else (0, 0)
            if low > -0.3 and high < 1.6:
                units[i] = "reflectance"
            elif scaled[i]:
                units[i] = ""
    return tuple(Channel(name, unit, nm) for (name, nm), unit in zip(names, units, strict=True))


def _glance(raster: Raster) -> Floats:
    """Some valid pixels (band, pixel) from all over a scene, for few blocks."""
    rows, columns = raster.size
    down, across = raster.levels[0].block
    small = min(level.size[0] * level.size[1] for level in raster.levels) <= 2**22
    if small or rows * columns <= 16 * down * across:
        values, valid = raster.sample((0, rows, 0, columns), (min(rows, 64), min(columns, 64)))
        return values[:, valid]
    tops, lefts = (np.linspace(0, size - 1, 6).astype(int)[1:-1] for size in (rows, columns))
    parts = []
    for top in tops:
        for left in lefts:
            box = (int(top), min(int(top) + _GLANCES, rows), int(left), min(int(left) + _GLANCES, columns))
            values, valid = raster.sample(box, (box[1] - box[0], box[3] - box[2]))
            parts.append(values[:, valid])
    return np.concatenate(parts, 1)


def _driver(path: Path) -> str:
    """The driver that the first bytes of a file call for, or ""."""
    try:
        if not path.is_file():
            return ""
        with path.open("rb") as file:
            head = file.read(8)
    except OSError:
        return ""
    return next((driver for magic, driver in _MAGIC.items() if head.startswith(magic)), "")


def _local(path: Path) -> Path:
    """The absolute path of a file on this machine."""
    resolved = path.resolve()
    if not path.is_file() or resolved.as_posix().startswith("/vsi"):
        raise InputError("a path that is no local file", "a file on this machine", "Download it first")
    return resolved
