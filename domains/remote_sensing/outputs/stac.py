"""A STAC item of what was found on a scene: the files, the classes, what made them, where and when.

Choices:

- The item is of STAC 1.1 with the extensions label, classification, file, projection, raster and processing. It keeps
  to the common `bands`.
- A model has an item of its own (extension mlm), to which the result links as derived from it, with `mlm:name` at the
  link. The extension wants a model's layout and file in each item that declares it, so the result does not; and of a
  model that nobody described there is no item, only its name and version in `processing:software`.
- Time is the day of the scene, or from the one date to the other; an item has to have one, so there is none without.
- Geometry is the outline of the valid pixels on a reduced reading, less its holes, in longitude and latitude.
- The link `derived_from` names each file of the scene by its SHA-256 (RFC 6920): no place and no name.

Source: https://github.com/radiantearth/stac-spec/blob/v1.1.0/item-spec/item-spec.md and
https://github.com/stac-extensions/mlm/blob/main/best-practices.md
"""

from __future__ import annotations

import json
import re
from base64 import urlsafe_b64encode
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import date
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from domains.formats.content import file_hash
from domains.remote_sensing.outputs import polygons
from domains.remote_sensing.vocabulary import TERMS
from fovea.errors import GeometryError, InputError, UnsupportedError
from fovea.files import whole
from fovea.types import Finding, Image, Report, Strip

if TYPE_CHECKING:
    from pystac import Asset, Item

_SIDE = 256
"""Pixels a side of the reading that shows where a scene is valid."""
_COG = "image/tiff; application=geotiff; profile=cloud-optimized"
_TYPES = {
    ".tif": _COG, ".xml": "application/xml", ".geojson": "application/geo+json",
    ".gpkg": "application/geopackage+sqlite3", ".parquet": "application/vnd.apache.parquet",
}  # fmt: skip
_PLAIN = re.compile(r"[\w.-]+", re.ASCII)
_VECTORS = (".geojson", ".gpkg", ".parquet")
_LABEL = "https://stac-extensions.github.io/label/v1.0.1/schema.json"
_PROCESSING = "https://stac-extensions.github.io/processing/v1.1.0/schema.json"
_RASTER = "https://stac-extensions.github.io/raster/v2.0.0/schema.json"


def write(
    report: Report, folder: Path, files: Sequence[Path], models: Sequence[Mapping[str, Any]] = ()
) -> tuple[Path, ...]:
    """`item.json`, whose assets are `files`, which lie in the folder or below it, and `model-<id>.json` of each model.

    `models` are the STAC items, with the extension mlm, of those that found it. Raises UnsupportedError for a scene
    without a date, GeometryError for one without a place on the Earth, InputError for models whose ids are not plain
    names, each once.
    """
    ids = [str(model.get("id", "")) for model in models]
    if len(set(ids)) < len(ids) or not all(_PLAIN.fullmatch(text) for text in ids):
        raise InputError("items of models with unfit ids", "letters, digits, '.', '-' and '_', each id once")
    found = item(report, folder, files, models).to_dict(include_self_link=False)
    written = {_file(model): dict(model) for model in models} | {"item.json": found}
    return tuple(_replace(folder / name, content) for name, content in written.items())


def item(report: Report, folder: Path, files: Sequence[Path], models: Sequence[Mapping[str, Any]] = ()) -> Item:
    """The item that `write` writes."""
    import pystac
    from pystac import Item, Link
    from pystac.extensions.projection import ProjectionExtension

    study = report.study
    image = study.images[0]
    if not image.grid.georeferenced:
        raise GeometryError("a scene without a coordinate reference system", "one on the Earth", "Leave out stac")
    days = _days(study.meta)
    footprint = _footprint(image)
    assets = {_key(path, folder): (path, file_hash(path)) for path in sorted(files)}
    content = [study.digest, *((key, digest) for key, (_, digest) in assets.items()), *models]
    span = {"start_datetime": f"{days[0]}T00:00:00Z", "end_datetime": f"{days[1]}T23:59:59Z"}
    found = Item(
        id=f"{study.id}-{sha256(json.dumps(content).encode()).hexdigest()[:12]}",
        geometry={"type": "MultiPolygon", "coordinates": [p.__geo_interface__["coordinates"] for p in footprint]},
        bbox=polygons.bounds(footprint),
        datetime=None,
        properties=span | _told(report) | _labels(report, any(path.suffix in _VECTORS for path in files)),
        stac_extensions=[_LABEL, _PROCESSING, _RASTER],
    )
    code = image.grid.frame if image.grid.frame.startswith("EPSG:") else None
    ProjectionExtension.ext(found, add_if_missing=True).apply(
        code=code,
        wkt2=None if code else _wkt2(image.grid.frame),
        shape=list(image.grid.shape[1:]),
        transform=list(image.grid.to_gdal()),
    )
    for digest in dict.fromkeys(study.source.hashes):
        name = urlsafe_b64encode(bytes.fromhex(digest)).decode().rstrip("=")
        found.add_link(Link(pystac.RelType.DERIVED_FROM, f"ni:///sha-256;{name}", title="a file of the scene"))
    for model in models:
        _derive(found, model)
    if len(models) == 1:
        found.properties["processing:expression"] = {"format": "stac-mlm", "expression": f"./{_file(models[0])}"}
    for key, (path, digest) in assets.items():
        _add(found, key, path, digest, folder)
    return found


def _derive(found: Item, model: Mapping[str, Any]) -> None:
    """Link to a model's item, as the best practices of mlm want it."""
    from pystac import Link, MediaType, RelType

    told = {"mlm:name": str(model["properties"]["mlm:name"]), "processing:level": "L4"}
    found.add_link(Link(RelType.DERIVED_FROM, f"./{_file(model)}", MediaType.GEOJSON, "a model", told))


def _told(report: Report) -> dict[str, Any]:
    experts = {f.by.name: f.by.version for f in _findings(report)}
    software = experts | {"fovea": report.provenance["fovea"]} if "fovea" in report.provenance else experts
    platform = report.study.meta.get("platform", "")
    text = f"Findings of {', '.join(sorted(experts)) or 'no expert'} on one scene; state of the report: {report.state}"
    return {
        "description": f"{text}.", "processing:software": software, "processing:lineage": text,
        "processing:level": "L4",
        **({"platform": platform.lower()} if platform else {}),
    }  # fmt: skip


def _labels(report: Report, vector: bool) -> dict[str, Any]:
    """What the label extension says: the classes, how they were found, and how many of each."""
    present = [f for f in _findings(report) if f.present]
    classes = sorted({f.label for f in _findings(report)})
    objects = Counter({f.label: _count(f) for f in present})
    counts = [{"name": name, "count": count} for name, count in sorted(objects.items())]
    return {
        "label:description": "Present findings of the report, by label",
        "label:type": "vector" if vector else "raster",
        "label:properties": ["label"] if vector else None,
        "label:classes": [{"name": "label" if vector else None, "classes": classes}],
        "label:tasks": ["detection" if any(f.instances for f in present) else "segmentation"],
        "label:methods": ["automated"],
    } | ({"label:overviews": [{"property_key": "label", "counts": counts}]} if vector and counts else {})


def _count(finding: Finding) -> int:
    told = next((int(m.value) for m in finding.measures if m.name == "count"), 1)
    return len(finding.instances) or told


def _add(found: Item, key: str, path: Path, digest: str, folder: Path) -> None:
    from pystac import Asset
    from pystac.extensions.file import FileExtension

    raster = path.suffix == ".tif"
    asset = Asset(
        href=f"./{path.relative_to(folder).as_posix()}",
        media_type=_TYPES.get(path.suffix, "application/octet-stream"),
        roles=["metadata"] if path.suffix == ".xml" else ["data", "labels"] if path.stem != "confidence" else ["data"],
    )
    found.add_asset(key, asset)
    FileExtension.ext(asset, add_if_missing=True).apply(checksum=f"1220{digest}", size=path.stat().st_size)
    if raster:
        _bands(asset, path)


def _bands(asset: Asset, path: Path) -> None:
    """The one band of a map, and its classes as the file names them."""
    import rasterio
    from pystac.extensions.classification import Classification, ClassificationExtension

    with rasterio.open(path, driver="GTiff") as file:
        names = {int(key[6:]): name for key, name in file.tags(1).items() if key.startswith("class_")}
        colors = file.colormap(1) if names else {}
        band = {
            "name": file.descriptions[0], "data_type": file.dtypes[0], "nodata": int(file.nodata),
            "raster:scale": file.scales[0], "raster:sampling": "area",
        }  # fmt: skip
    asset.extra_fields["bands"] = [band]
    if names:
        classes = [
            Classification.create(
                number,
                TERMS[name].code.meaning if name in TERMS else f"Class {name}",
                name=name,
                color_hint="{:02X}{:02X}{:02X}".format(*colors[number][:3]),
            )
            for number, name in sorted(names.items())
        ]
        classes.append(Classification.create(Strip.NODATA, "No data", name="no_data"))
        classes[-1].nodata = True
        ClassificationExtension.ext(asset, add_if_missing=True).apply(classes=classes)


def _findings(report: Report) -> list[Finding]:
    return [finding for answer in report.answers for finding in answer.findings]


def _key(path: Path, folder: Path) -> str:
    """A name of the asset: where it lies, and its kind where that has another name's stem."""
    name = path.relative_to(folder).as_posix()
    return name.removesuffix(".tif").replace("/", "-") if name.endswith(".tif") else name.replace("/", "-")


def _file(model: Mapping[str, Any]) -> str:
    return f"model-{model['id']}.json"


def _replace(path: Path, content: Mapping[str, Any]) -> Path:
    with whole(path) as partial:
        partial.write_text(json.dumps(content, indent=1) + "\n")
    return path


def _days(meta: Mapping[str, str]) -> tuple[str, str]:
    """The first and the last day of the scene."""
    names = ("date",) if "date" in meta else ("date_before", "date_after")
    try:
        days = sorted(date.fromisoformat(meta.get(name, "")[:10]).isoformat() for name in names)
    except ValueError:
        raise UnsupportedError(
            "a STAC item of a scene without a date", "the day of acquisition in the scene's header", "Leave out stac"
        ) from None
    return days[0], days[-1]


def _footprint(image: Image) -> Any:
    """Where the scene is valid, as polygons in degrees; all of it where nothing is."""
    import shapely

    _, rows, columns = image.grid.shape
    shape = min(rows, _SIDE), min(columns, _SIDE)
    valid = image.window(shape=shape).valid
    grid = image.grid.resample((1, *shape))
    whole = np.array([shapely.box(0, 0, shape[1], shape[0])], object)
    if valid.all() or not valid.any():
        return polygons.degrees(whole, grid)[0]
    from fovea.types import Mask

    found = shapely.union_all(shapely.polygons(shapely.get_exterior_ring(polygons.outlines(Mask(valid), grid))))
    parts = shapely.get_parts(shapely.simplify(found, 1.0))
    parts = parts[shapely.area(parts) > 1]
    return polygons.degrees(parts if len(parts) else whole, grid)[0]


def _wkt2(frame: str) -> str:
    from pyproj import CRS

    return str(CRS.from_user_input(frame).to_wkt())
