"""STAC items as scenes, and the items of collections and catalogs, of versions 1.0 and 1.1, from local files alone.

Choices:

- Assets lie in the folder of their item; other places, absolute or by "..", and links on the disk that lead outside are
  refused, and so are remote ones: nothing is fetched. Schemas are not validated.
- Bands are named by `eo:bands` or the common `bands`; assets without are read only where no other asset has any. Of
  assets of one band the first is taken (catalogs list a band as GeoTIFF and again as JPEG 2000); thumbnails, overviews
  and true-colour renderings are left out.
- Scale, offset and nodata come from `raster:bands`, the common `bands` or the asset. A file that scales itself has to
  agree with them.
- Sentinel-2 in Earth Search says by `earthsearch:boa_offset_applied` that the pixels hold the offset already: then the
  declared one is not added again. An offset that contradicts the processing baseline raises InputError.
- A file without a georeference takes `proj:code` and `proj:transform`; one with has to agree with them.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

import numpy as np

from domains.formats.content import Content, file_hash, foreign
from domains.formats.rasters import geotiff
from domains.formats.rasters.bands import COMMON_NAMES, Band, Naming, name_bands, sensor
from domains.formats.rasters.raster import Raster
from domains.formats.rasters.sensors import SENSORS, SENTINEL2
from domains.remote_sensing.products import facts, landsat, sentinel2
from domains.remote_sensing.products.joined import Flags, Layer, join, split
from fovea.errors import GeometryError, InputError, UnsupportedError
from fovea.image import Channel, Grid, Image

if TYPE_CHECKING:
    from pystac import Asset, Item

READER = "stac/1"

_HEAD = 2**20
"""Bytes of a JSON file in which an item, collection or catalog has to say that it is one."""
_APART = frozenset({"thumbnail", "overview", "metadata", "visual"})
_RASTERS = (".tif", ".tiff", ".jp2")
_MASKS = {"scl": sentinel2.classified, "qa_pixel": landsat.flagged}
"""Names of assets that hold classes or flags, and what these mean."""

Described = Mapping[str, Any]
"""One band as an asset describes it."""


def begins(path: Path) -> bool:
    """Whether a file is a STAC item."""
    return _type(path) == "Feature"


def lists(path: Path) -> bool:
    """Whether a file is a STAC collection or catalog."""
    return _type(path) in ("Collection", "Catalog")


def items(path: Path) -> list[Path]:
    """The items of a collection or catalog and of those below it, all in its own folder, in order of their paths."""
    found: set[Path] = set()
    seen: set[Path] = set()
    waiting = [path]
    while waiting:
        place = waiting.pop()
        if place in seen:
            continue
        seen.add(place)
        for link in _json(place).get("links", ()):
            if isinstance(link, dict) and link.get("rel") in ("item", "child"):
                target = _local(str(link.get("href", "")), place.parent, path.parent)
                (found.add if link["rel"] == "item" else waiting.append)(target)
    return sorted(found)


def files(path: Path) -> tuple[Path, ...]:
    """The item, then the local files of its assets that are there."""
    places: set[Path] = set()
    try:
        for asset in _item(path).assets.values():
            if not urlsplit(asset.href).scheme:
                places.add(_local(asset.href, path.parent))
    except InputError:
        pass  # `read` says what is wrong
    return (path, *sorted(place for place in places if place.is_file() and place != path))


def read(path: Path) -> Content:
    """The bands of an item on the finest of their grids, and its classes or flags as "quality".

    Raises UnsupportedError for remote assets, InputError for those outside, without a file, or at odds with the item,
    GeometryError for grids that do not fit.
    """
    item = _item(path)
    properties = item.properties
    instrument = sensor({"PLATFORM": _text(properties, "platform"), "SATELLITE": _text(properties, "constellation")})
    contents: list[Content] = []
    layers: dict[str, Layer] = {}
    with foreign("a STAC item"):
        data = list(_data(item))
    for asset, bands in data:
        place = _local(asset.href, path.parent)
        names = [_named(band, instrument) for band in bands]
        if bands and all(name and name[0] in layers for name in names):
            continue
        contents.append(_opened(place, bands))
        image = _placed(contents[-1].images[0], asset, properties)
        for index, channel in enumerate(image.channels):
            layer = _layer(image, index, channel, bands[index] if bands else {}, names[index] if bands else None)
            layers.setdefault(layer.channel.name, _corrected(layer, item, instrument))
    if not layers:
        raise InputError("a STAC item without assets of data", "GeoTIFF or JPEG 2000 with the role data")
    masks = [(geotiff.read(_local(asset.href, path.parent)), decode) for asset, decode in _masks(item)]
    flags = [Flags(mask.images[0], decode, True) for mask, decode in masks]
    images = tuple(join(group, flags) for group in split(list(layers.values())) if group)
    read = [*contents, *(mask for mask, _ in masks)]
    light = COMMON_NAMES & set(layers)
    meta = _meta(item, instrument, "optical" if light else contents[0].meta["modality"])
    return Content(images, meta, (file_hash(path), *(digest for content in read for digest in content.hashes)))


def _type(path: Path) -> str:
    """What kind of STAC object a file is, by its first bytes, or ""."""
    if path.suffix.lower() not in (".json", ".geojson"):
        return ""
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD)
    except OSError:
        return ""
    kind = re.search(rb'"type"\s*:\s*"(Feature|Collection|Catalog)"', head)
    return kind[1].decode() if kind and re.search(rb'"stac_version"\s*:', head) else ""


def _json(path: Path) -> dict[str, Any]:
    text = facts.content(path)
    with foreign("a STAC file"):
        found = json.loads(text)
    if not isinstance(found, dict):
        raise InputError("a STAC file that holds no object", "an item, a collection or a catalog")
    return found


def _item(path: Path) -> Item:
    """The item in its newest form; its links, which may lead anywhere, are not kept."""
    from pystac import Item, STACError

    found = _json(path) | {"links": []}
    with foreign("a STAC item", STACError):
        item = Item.from_dict(found, migrate=True)
    if not all(isinstance(asset.href, str) for asset in item.assets.values()):
        raise InputError("a STAC item with an asset that names no file", "a href for each asset", "Mend the item")
    return item


def _local(href: str, folder: Path, root: Path | None = None) -> Path:
    """The file that a reference means; raises UnsupportedError for a remote one, InputError for one outside."""
    if urlsplit(href).scheme not in ("", "file"):
        raise UnsupportedError(
            "a STAC file that refers to remote files",
            "files in its own folder",
            "Download them and make the references relative",
        )
    name = urlsplit(href).path if href.startswith("file:") else href
    place = folder / name if (folder / name).exists() else folder / unquote(name)
    place = Path(os.path.normpath(place)) if ".." in Path(unquote(name)).parts else place
    if not place.resolve().is_relative_to((root or folder).resolve()):
        raise InputError("a STAC file that refers to files outside its folder", "files in its own folder", "Copy them")
    return place


def _data(item: Item) -> Iterator[tuple[Asset, list[Described]]]:
    """The assets that hold data, each with its bands; where any are named, only those assets."""
    found = []
    for key, asset in item.assets.items():
        roles = {role.lower() for role in asset.roles or ()} | {key.lower()}
        raster = urlsplit(asset.href).path.lower().endswith(_RASTERS)
        if raster and not roles & _APART and key.lower() not in _MASKS and (not asset.roles or "data" in roles):
            found.append((asset, _described(asset)))
    named = [pair for pair in found if any("name" in band or "common" in band for band in pair[1])]
    yield from named or found


def _masks(item: Item) -> Iterator[tuple[Asset, Any]]:
    for key, asset in item.assets.items():
        if key.lower() in _MASKS:
            yield asset, _MASKS[key.lower()]


def _described(asset: Asset) -> list[Described]:
    """What an asset says of each of its bands, without prefixes: name, common, wavelength, scale, offset, nodata."""
    own = asset.extra_fields
    spectral, measured = own.get("bands") or own.get("eo:bands") or [], own.get("raster:bands") or []
    count = max(len(spectral), len(measured))
    if (spectral and len(spectral) != count) or (measured and len(measured) != count):
        raise InputError(f"an asset of {len(spectral)} bands in one list and {len(measured)} in another", "as many")
    bands: list[Described] = []
    for index in range(count):
        given = {**own, **(measured[index] if measured else {}), **(spectral[index] if spectral else {})}
        aliases = {
            "name": ("name",), "common": ("eo:common_name", "common_name"),
            "wavelength": ("eo:center_wavelength", "center_wavelength"), "scale": ("raster:scale", "scale"),
            "offset": ("raster:offset", "offset"), "nodata": ("nodata",), "unit": ("unit",),
        }  # fmt: skip
        values = {key: next((given[a] for a in names if a in given), None) for key, names in aliases.items()}
        bands.append({key: value for key, value in values.items() if value is not None})
    return bands


def _named(band: Described, instrument: str) -> Naming | None:
    """The channel by the band's name in its sensor, its name, its common name, or its wavelength."""
    name, common = str(band.get("name", "")), str(band.get("common", ""))
    known = SENSORS.get(instrument)
    found = known and (known.band(name) or known.common(common))
    given = facts.number(band["wavelength"], "wavelength") * 1000 if "wavelength" in band else None
    if found:
        return found.channel, given or found.wavelength
    tries = [Band(text) for text in (name, common) if text]
    tries += [Band(tags={"central_wavelength_um": str(given / 1000)})] if given else []
    named = [name_bands([attempt], instrument)[0] for attempt in tries]
    best = next(((text, typical) for text, typical in named if not text.startswith("band_")), None)
    return (best[0], given or best[1]) if best else None


def _opened(place: Path, bands: Sequence[Described]) -> Content:
    """A file with the nodata values of its item; raises InputError where it has another number of bands."""
    given = [band["nodata"] for band in bands if "nodata" in band]
    nodata = [_float(value) for value in given] if given and len(given) == len(bands) else None
    content = geotiff.read(place, nodata=nodata)
    count = len(content.images[0].channels)
    if bands and count != len(bands):
        raise InputError(f"an asset of {count} bands that describes {len(bands)}", "as many", "Mend the item")
    return content


def _float(value: object) -> float:
    """A nodata value, which may be "nan" or "inf"."""
    try:
        return float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        raise InputError("a nodata value that is no number", "a number or nan", "Mend the item") from None


def _layer(image: Image, place: int, channel: Channel, band: Described, name: Naming | None) -> Layer:
    """A band of a file under its name in the item, scaled as the item says."""
    declared = "scale" in band or "offset" in band
    scale = facts.number(band.get("scale", 1), "scale")
    offset = facts.number(band.get("offset", 0), "offset")
    label, wavelength = name or (channel.name, channel.wavelength)
    warm = label.startswith("tir")
    unit = channel.unit
    if declared and label in COMMON_NAMES:
        unit = ("K" if str(band.get("unit", "")).lower() in ("k", "kelvin") else "") if warm else "reflectance"
    return Layer(Channel(label, unit, wavelength), image, place, scale, offset)


def _corrected(layer: Layer, item: Item, instrument: str) -> Layer:
    """Without an offset that the pixels hold already, and unscaled where the file scales itself."""
    if instrument == SENTINEL2 and layer.channel.unit == "reflectance" and layer.scale != 1:
        baseline = facts.version(_text(item.properties, "s2:processing_baseline"))
        if item.properties.get("earthsearch:boa_offset_applied") is True:
            layer = replace(layer, offset=0.0)
        elif baseline and (baseline >= sentinel2.OFFSETS_FROM) != (layer.offset != 0):
            raise InputError(
                f"Sentinel-2 of processing baseline {baseline} {'with' if layer.offset else 'without'} an offset",
                "an offset from 04.00 on, or that the pixels hold it already",
                "Mend scale and offset in the item",
            )
    own = layer.image.read.scales[layer.place] if isinstance(layer.image.read, Raster) else (1.0, 0.0)
    if own == (1, 0):
        return layer
    if (layer.scale, layer.offset) != (1, 0) and not np.allclose(own, (layer.scale, layer.offset), 1e-6, 1e-9):
        raise InputError("a file that scales its numbers otherwise than its item", "one scale and offset")
    return replace(layer, scale=1.0, offset=0.0)


def _placed(image: Image, asset: Asset, properties: Mapping[str, Any]) -> Image:
    """The image on the grid that the item tells, which has to agree with the file's own."""
    told_of = (asset.extra_fields, properties)
    codes = [of["proj:code"] for of in told_of if of.get("proj:code")]
    codes += [f"EPSG:{of['proj:epsg']}" for of in told_of if of.get("proj:epsg")]
    code = codes[0] if codes else None
    transform = asset.extra_fields.get("proj:transform")
    grid = image.grid
    if not isinstance(code, str) or not re.fullmatch(r"EPSG:\d+", code):
        return image
    told = grid
    if isinstance(transform, list) and len(transform) in (6, 9):
        numbers = tuple(facts.number(value, "transform") for value in transform[:6])
        told = Grid.from_gdal(numbers, code, *grid.shape[1:])
    if not grid.georeferenced:
        return replace(image, grid=told)
    frame = grid.frame if grid.frame.startswith("EPSG:") else code
    if frame != code or np.abs(told.affine - grid.affine).max() > 0.01 * min(grid.spacing[1:]):
        raise GeometryError("a file that lies elsewhere than its STAC item says", "one place", "Mend proj: of the item")
    return image


def _text(properties: Mapping[str, Any], key: str) -> str:
    value = properties.get(key)
    return value if isinstance(value, str) else ""


def _meta(item: Item, instrument: str, modality: str) -> dict[str, str]:
    properties = item.properties
    platform = re.fullmatch(r"(sentinel|landsat)-([1-9][a-d]?)", _text(properties, "platform").lower())
    between = {"sentinel": "-", "landsat": " "}
    return facts.known(
        modality=modality,
        sensor=instrument,
        platform=f"{platform[1].capitalize()}{between[platform[1]]}{platform[2].upper()}" if platform else "",
        date=facts.day(_text(properties, "datetime") or _text(properties, "start_datetime") or str(item.datetime)),
        baseline=facts.version(_text(properties, "s2:processing_baseline")),
        cloud_cover=facts.percent(properties.get("eo:cloud_cover")),
    )
