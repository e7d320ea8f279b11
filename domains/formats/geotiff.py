"""GeoTIFF and JPEG 2000 rasters, read by window through GDAL under limits.

Choices:

- The driver is chosen by the file's first bytes, and only two are allowed. Remote paths, virtual rasters
  and GDAL's sidecars (.aux.xml, .ovr, world files, which may name other files) are not followed; a mask
  beside the file (.msk) is read as the TIFF it has to be.
- A transform with a coordinate reference system makes the grid, rotated and south-up ones too. A system
  without a transform, ground control points and rational polynomials alone raise GeometryError. A file
  that names no system of the Earth has pixels without a size: frame PIXEL, and `meta["geometry"]` says so.
- A system without an EPSG code is kept as WKT without the names that people gave to it and its parts.
- A pixel is valid where the nodata value, alpha band or mask says so and every band is finite; values
  at invalid pixels are 0.
- Values are scaled by the file's own scale and offset. Their unit is "reflectance" when the file scales
  them or holds floats, and they lie where reflectance lies; else "digital number".
- Of a file with several pages the first is read.
"""

from __future__ import annotations

import logging
import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from rasterio._err import CPLE_BaseError  # rasterio lets GDAL's own errors through, and exports no base of them
from rasterio.enums import ColorInterp, Resampling
from rasterio.errors import CRSError, NodataShadowWarning, NotGeoreferencedWarning, RasterioError, RPCError
from rasterio.warp import transform as transform_points
from rasterio.windows import Window as RasterWindow

from domains.formats.bands import Band, Naming, acquired, modality, name_bands, sensor
from domains.formats.content import Content, file_hash
from fovea.errors import GeometryError, InputError, LimitError, UnsupportedError
from fovea.image import Bools, Channel, Floats, Grid, Image, Pixels, Window

LIMIT = 2**31
"""Bytes that one read, or one compressed block of the file, may fill."""
_MAX_BANDS = 1024
_AVERAGED = 2**27
"""Samples that a reduced read averages; of larger scenes without overviews it takes the nearest."""

_MAGIC = {
    b"II*\0": "GTiff", b"MM\0*": "GTiff", b"II+\0": "GTiff", b"MM\0+": "GTiff",
    b"\0\0\0\x0cjP  ": "JP2OpenJPEG", b"\xff\x4f\xff\x51": "JP2OpenJPEG",
}  # fmt: skip
_OPTIONS: Mapping[str, Any] = {
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",
    "GDAL_PAM_ENABLED": False,
    "GDAL_GEOREF_SOURCES": "INTERNAL",
    "GDAL_CACHEMAX": 2**27,  # in bytes: rasterio hands it to GDALSetCacheMax
    "CPL_VSIL_CURL_ALLOWED_EXTENSIONS": ".none",
}
_NAMED = re.compile(r'\b(?!PROJECTION|METHOD|PARAMETER|EXTENSION|AUTHORITY|ID\b)([A-Z_0-9]+)\["((?:[^"]|"")*)"')
_CODE = re.compile(r',(?:AUTHORITY|ID)\["(?!EPSG"|ESRI")(?:[^"]|"")*",[^\]]*\]')
_WORDS = frozenset({"metre", "degree", "Greenwich", "WGS_1984", "Easting", "Northing", "Latitude", "Longitude"})
"""Names in WKT that tell nothing."""
_METRES = frozenset({"m", "metre", "metres", "meter", "meters"})


def is_geotiff(path: Path) -> bool:
    """Whether the first bytes of a file are those of TIFF or JPEG 2000."""
    return bool(_driver(path))


def read(path: Path, *, limit: int = LIMIT) -> Content:
    """One raster, whose pixels are read when asked for.

    `meta` has "modality" (one of `bands.MODALITIES`) and, where known, "sensor", "date" and "geometry". Raises
    UnsupportedError for other formats and complex numbers, GeometryError for a position that an affine transform
    cannot give, LimitError for too many bands or too large blocks, InputError for a broken file. Later reads raise
    LimitError above `limit` bytes.
    """
    driver = _driver(path)
    if not driver:
        raise UnsupportedError("a file that is no TIFF or JPEG 2000 inside", "a GeoTIFF", "Convert it to GeoTIFF")
    with _opened(path, driver) as file:
        _check(file, limit)
        grid, geometry = _geometry(file)
        palette = _palette(file)
        data = [i for i, color in enumerate(file.colorinterp, 1) if color != ColorInterp.alpha]
        data = data[:1] if palette else data
        bands = [_band(file, i) for i in data]
        tags = {**file.tags(), **file.tags(ns="IMAGERY")}
        scales = tuple((file.scales[i - 1], file.offsets[i - 1]) for i in data)
    if not bands:
        raise UnsupportedError("a raster of an alpha band alone", "at least one band of data")
    mask = _mask_beside(path, grid.shape[1:])
    reader = _Reader(path, driver, tuple(data), scales, palette, grid.shape[1:], mask, limit)
    instrument = sensor(tags, [band.description for band in bands])
    names = name_bands(bands, instrument)
    kind = modality(bands, [name for name, _ in names], bool(palette))
    meta = {"modality": kind, "sensor": instrument, "date": acquired(tags), "geometry": geometry}
    return Content(
        (Image(_channels(reader, bands, names, kind), grid, reader),),
        {key: value for key, value in meta.items() if value},
        tuple(file_hash(file) for file in (path, mask) if file),
    )


def ground_size(grid: Grid) -> tuple[float, float] | None:
    """Metres on the ground of the pixel at the centre, along rows' and columns' axes, whatever the unit of the CRS.

    By the WGS 84 ellipsoid; None without a CRS, or where the CRS does not reach.
    """
    if not grid.georeferenced:
        return None
    row, column = (grid.shape[1] - 1) / 2, (grid.shape[2] - 1) / 2
    at = grid.world(np.array([(0, row, column), (0, row + 1, column), (0, row, column + 1)]))
    try:
        lon, lat = (np.deg2rad(v) for v in transform_points(grid.frame, "EPSG:4326", at[:, 0], at[:, 1])[:2])
    except (RasterioError, CPLE_BaseError, CRSError):
        return None
    squash = 1 - 0.0066943799901413165
    normal = 6378137 / np.sqrt(1 - (1 - squash) * np.sin(lat) ** 2)
    center, down, right = np.stack(
        [normal * np.cos(lat) * np.cos(lon), normal * np.cos(lat) * np.sin(lon), squash * normal * np.sin(lat)], axis=1
    )
    sizes = float(np.linalg.norm(down - center)), float(np.linalg.norm(right - center))
    return sizes if np.isfinite(sizes).all() and min(sizes) > 0 else None


@dataclass(frozen=True)
class _Reader:
    """Reads windows of one file and opens it for each read: threads and processes may share it."""

    path: Path
    driver: str
    bands: tuple[int, ...]
    scales: tuple[tuple[float, float], ...]
    palette: tuple[tuple[int, int, int, int], ...]
    size: tuple[int, int]
    mask: Path | None
    limit: int

    def __call__(self, window: Window | None, shape: tuple[int, int] | None) -> Pixels:
        """float32 (channel, 1, row, column) and bool (1, row, column); reduced reads average the valid pixels."""
        return self.read(window, shape, Resampling.nearest if self.palette else Resampling.average)

    def read(self, window: Window | None, shape: tuple[int, int] | None, resampling: Resampling) -> Pixels:
        size, top, left = self.size, 0, 0
        if window is not None:
            size = Grid.plain(*size).crop(window).shape[1:]
            top, left = window.rows[0], window.columns[0]
        out = shape or size
        if min(out) < 1:
            raise InputError(f"reduced shape {out}", "at least one row and one column")
        count = 3 if self.palette else len(self.bands)
        if count * out[0] * out[1] * 4 > self.limit:
            raise LimitError(
                f"{count} x {out[0]} x {out[1]} pixels to be read at once",
                f"at most {self.limit / 2**20:.0f} MiB as float32",
                "Read windows or a reduced shape, or raise the limit if the file is trusted",
            )
        where = RasterWindow(left, top, size[1], size[0])
        with _opened(self.path, self.driver) as file:
            if _samples(file, size, out) * len(self.bands) > _AVERAGED:
                resampling = Resampling.nearest
            values: Floats = file.read(
                list(self.bands), window=where, out_shape=(len(self.bands), *out), out_dtype="float32",
                resampling=resampling,
            )  # fmt: skip
            valid: Bools = file.dataset_mask(window=where, out_shape=out) != 0
        if self.mask is not None:
            with _opened(self.mask, "GTiff") as file:
                valid &= file.read(1, window=where, out_shape=out) != 0
        if self.palette:
            table = np.array(self.palette, np.float32)
            colors = table.take(values[0].astype(np.intp), axis=0, mode="clip")
            values, valid = np.moveaxis(colors[..., :3], 2, 0), valid & (colors[..., 3] > 0)
        else:
            for band, (scale, offset) in zip(values, self.scales, strict=True):
                if (scale, offset) != (1, 0):
                    band *= np.float32(scale)
                    band += np.float32(offset)
            valid &= np.isfinite(values).all(0)
        return np.ascontiguousarray(np.where(valid, values, np.float32(0))[:, None]), valid[None]


@contextmanager
def _opened(path: Path, driver: str) -> Iterator[Any]:
    """A dataset of a local file under our options; errors of rasterio and GDAL become InputError without names."""
    logging.getLogger("rasterio").setLevel(logging.CRITICAL)  # its messages name files, ours must not
    for silent in (NotGeoreferencedWarning, NodataShadowWarning):
        if not any(f[0] == "ignore" and f[2] is silent for f in warnings.filters):
            warnings.simplefilter("ignore", silent)  # `warnings.catch_warnings` is not safe between threads
    if not path.is_file() or path.resolve().as_posix().startswith("/vsi"):
        raise InputError("a path that is no local file", "a file on this machine", "Download it first")
    try:
        with rasterio.Env(**_OPTIONS), rasterio.open(path.resolve(), driver=driver) as file:
            yield file
    except (RasterioError, CPLE_BaseError, CRSError, RPCError, UnicodeDecodeError):
        raise InputError("a raster that cannot be decoded", "a whole file", "Export or download it again") from None


def _check(file: Any, limit: int) -> None:
    if file.count > _MAX_BANDS:
        raise LimitError(f"{file.count} bands", f"at most {_MAX_BANDS}", "Select bands with gdal_translate -b")
    if any("complex" in kind for kind in file.dtypes):
        raise UnsupportedError("complex numbers", "real ones", "Convert them to amplitude first")
    rows, columns = file.block_shapes[0]
    together = file.count if file.tags(ns="IMAGE_STRUCTURE").get("INTERLEAVE") == "PIXEL" else 1
    block = rows * columns * together * np.dtype(file.dtypes[0]).itemsize
    if block > limit:
        raise LimitError(
            f"blocks of {block / 2**20:.0f} MiB", f"at most {limit / 2**20:.0f} MiB", "Retile it with gdal_translate"
        )


def _geometry(file: Any) -> tuple[Grid, str]:
    """The grid, and the reason when it has no physical size."""
    crs = file.crs
    if file.transform.is_identity:
        points = "ground control points" if file.gcps[0] else "rational polynomials" if file.rpcs else ""
        if points:
            raise GeometryError(
                f"{points} without a transform", "an affine transform", "Warp it to a grid with gdalwarp"
            )
        if crs:
            raise GeometryError(
                "a coordinate reference system without a transform", "both", "Set the transform with gdal_edit -a_ullr"
            )
        return Grid.plain(*file.shape), "no georeference"
    if not crs:
        return Grid.plain(*file.shape), "no coordinate reference system"
    if not (crs.is_geographic or crs.is_projected):
        return Grid.plain(*file.shape), "local coordinates"
    code = crs.to_epsg()
    return Grid.from_gdal(tuple(file.transform), f"EPSG:{code}" if code else _unnamed(crs.to_wkt()), *file.shape), ""


def _unnamed(wkt: str) -> str:
    """WKT without its names, which are free text of the file; a datum that PROJ knows keeps its own."""

    def known(found: re.Match[str]) -> str:
        kind, name = found.groups()
        keep = name in _WORDS or (kind in ("DATUM", "ENSEMBLE", "MEMBER") and _is_datum(name))
        return f'{kind}["{name if keep else "unknown"}"'

    return _NAMED.sub(known, _CODE.sub("", wkt))


def _is_datum(name: str) -> bool:
    from pyproj.crs import Datum  # type: ignore[attr-defined]  # documented there, but not in its __all__
    from pyproj.exceptions import CRSError

    try:
        return bool(Datum.from_name(name.replace("_", " ")))
    except CRSError:
        return False


def _palette(file: Any) -> tuple[tuple[int, int, int, int], ...]:
    if file.colorinterp[0] != ColorInterp.palette:
        return ()
    colors = file.colormap(1)
    return tuple(colors.get(i, (0, 0, 0, 0)) for i in range(max(colors) + 1))


def _band(file: Any, index: int) -> Band:
    unit = (file.units[index - 1] or "").strip().lower()
    return Band(
        file.descriptions[index - 1] or "",
        file.colorinterp[index - 1].name,
        file.dtypes[index - 1],
        "m" if unit in _METRES else "",
        {**file.tags(index), **file.tags(index, ns="IMAGERY")},
    )


def _channels(reader: _Reader, bands: list[Band], names: list[Naming], modality: str) -> tuple[Channel, ...]:
    if reader.palette:
        return tuple(Channel(name, "digital number") for name in ("red", "green", "blue"))
    if modality == "elevation":
        return (Channel("elevation", bands[0].unit),)
    if modality != "optical":
        return tuple(
            Channel(name.replace("gray", "value"), band.unit, nm) for band, (name, nm) in zip(bands, names, strict=True)
        )
    scaled = [pair != (1, 0) for pair in reader.scales]
    measured = [s or band.dtype.startswith("float") for s, band in zip(scaled, bands, strict=True)]
    units = ["digital number"] * len(bands)
    if any(measured):
        rows, columns = reader.size
        sample, valid = reader.read(None, (min(rows, 64), min(columns, 64)), Resampling.nearest)
        for i in np.flatnonzero(measured):
            low, high = np.percentile(sample[i][valid], (2, 98)) if valid.any() else (0, 0)
            if low > -0.3 and high < 1.6:
                units[i] = "reflectance"
            elif scaled[i]:
                units[i] = ""
    return tuple(Channel(name, unit, nm) for (name, nm), unit in zip(names, units, strict=True))


def _samples(file: Any, size: tuple[int, int], out: tuple[int, int]) -> int:
    """Pixels that a reduced read of one band has to touch, at the overview that serves it."""
    reduction = min(size[0] / out[0], size[1] / out[1])
    factor = max((f for f in file.overviews(1) if f <= reduction), default=1)
    return int(size[0] * size[1] / factor**2)


def _driver(path: Path) -> str:
    """The driver that the first bytes of a file call for, or ""."""
    try:
        with path.open("rb") as file:
            head = file.read(8)
    except OSError:
        return ""
    return next((driver for magic, driver in _MAGIC.items() if head.startswith(magic)), "")


def _mask_beside(path: Path, shape: tuple[int, int]) -> Path | None:
    """The mask file beside a raster, if there is one; it has to be a TIFF of the same size."""
    mask = path.with_name(path.name + ".msk")
    if not mask.is_file():
        return None
    if _driver(mask) != "GTiff":
        raise UnsupportedError("a .msk file that is no TIFF", "a mask as GDAL writes it", "Remove it, or write it anew")
    with _opened(mask, "GTiff") as file:
        if file.shape != shape:
            raise InputError("a .msk file of another size", "one of the raster's size", "Remove it, or write it anew")
    return mask
