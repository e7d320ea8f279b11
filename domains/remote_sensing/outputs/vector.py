"""Findings and their objects as vectors: GeoJSON, GeoPackage and GeoParquet, with the same features in each.

Choices:

- A finding is one feature, with the measures of all its objects; each of its objects is another. They are told apart by
  "kind" in GeoJSON, and lie in two layers (GeoPackage) or two files (GeoParquet).
- Each says the state of the report ("draft" until a person verifies it): a feature may be copied without the others.
- Names of measures end in their unit ("area_m2"), those of uncertainties in "uncertainty" besides. An object without
  an area gets that of its outline on the ellipsoid of WGS 84; an oriented box its length, width and bearing too.
- GeoJSON (RFC 7946) is in longitude and latitude and is cut at the antimeridian; the others are in the coordinate
  reference system of the first image, with the corners of pixels at their exact places.
- GeoPackage notes when it was written: the day of the scene stands there, or 1970-01-01, so that the same report gives
  the same bytes.

Source: https://www.rfc-editor.org/rfc/rfc7946, https://www.geopackage.org/spec131, https://geoparquet.org/releases/v1.1.0
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from domains.remote_sensing.outputs import polygons
from domains.remote_sensing.outputs.polygons import Area, Shapes
from fovea.errors import GeometryError
from fovea.files import whole
from fovea.types import Finding, Measure, OrientedBox, Report

if TYPE_CHECKING:
    from geopandas import GeoDataFrame

Outlines = tuple[Shapes, NDArray[np.intp]]
"""Polygons in pixels, and the feature that each belongs to."""
_KINDS = ("finding", "object")


@dataclass(frozen=True, eq=False)
class Feature:
    """A row of a table of features: what is known of a region on one of the images."""

    kind: str
    properties: dict[str, Any]
    region: Area | None
    image: int


def features(report: Report) -> list[Feature]:
    """The present findings, the newest of each label, image and expert, each followed by its objects.

    Raises GeometryError where an image has no coordinate reference system.
    """
    if not all(image.grid.georeferenced for image in report.study.images):
        raise GeometryError(
            "a scene without a coordinate reference system", "one on the Earth", "Export JSON or text instead"
        )
    unique = {(f.label, f.image, f.by): f for answer in report.answers for f in answer.findings if f.present}
    found: list[Feature] = []
    for finding in unique.values():
        about = _named(finding, finding.score, finding.location, report.state)
        found.append(Feature("finding", about | _values(finding.measures), finding.region, finding.image))
        for number, item in enumerate(finding.instances, 1):
            about = {"object": number} | _named(finding, item.score, item.location, report.state)
            found.append(Feature("object", about | _values(item.measures), item.region, finding.image))
    return found


def geojson(report: Report) -> str:
    """A feature collection; a feature without a region has no geometry. Raises GeometryError without a place."""
    rows = features(report)
    shapes = _in_degrees(rows, _outlines(rows, report), report)
    collection: dict[str, Any] = {"type": "FeatureCollection"}
    there = shapes[[shape is not None for shape in shapes]]
    if len(there):
        collection["bbox"] = polygons.bounds(there)
    collection["features"] = [
        {"type": "Feature", "properties": {"kind": row.kind} | row.properties}
        | ({"geometry": None} if shape is None else {"geometry": shape.__geo_interface__} | _box(shape))
        for row, shape in zip(rows, shapes, strict=True)
    ]
    return json.dumps(collection | {"report": {"study": report.study.id, "state": report.state}})


def write_geojson(report: Report, folder: Path) -> tuple[Path, ...]:
    """`findings.geojson`."""
    path = folder / "findings.geojson"
    with whole(path) as partial:
        partial.write_text(geojson(report))
    return (path,)


def write_geopackage(report: Report, folder: Path) -> tuple[Path, ...]:
    """`findings.gpkg` with the layers "finding" and, where there are any, "object"."""
    import pyogrio

    path = folder / "findings.gpkg"
    meta = report.study.meta
    day = meta.get("date") or meta.get("date_after") or "1970-01-01"
    pyogrio.set_gdal_config_options({"OGR_CURRENT_DATE": f"{day[:10]}T00:00:00.000Z"})
    try:
        with whole(path) as partial:
            for kind, table in _tables(report).items():
                pyogrio.write_dataframe(table, partial, layer=kind, driver="GPKG", geometry_type="MultiPolygon")
    finally:
        pyogrio.set_gdal_config_options({"OGR_CURRENT_DATE": None})
    return (path,)


def write_geoparquet(report: Report, folder: Path) -> tuple[Path, ...]:
    """`findings.parquet` and, where there are any objects, `objects.parquet`, with the extent of each row."""
    found = []
    for kind, table in _tables(report).items():
        path = folder / f"{kind}s.parquet"
        with whole(path) as partial:
            table.to_parquet(partial, index=False, schema_version="1.1.0", write_covering_bbox=True, compression="zstd")
        found.append(path)
    return tuple(found)


def _named(finding: Finding, score: float, location: str, state: str) -> dict[str, Any]:
    code = finding.code
    return {
        "label": finding.label, "code": f"{code.scheme}:{code.value}", "meaning": code.meaning, "score": score,
        "location": location, "by": str(finding.by), "state": state,
    }  # fmt: skip


def _values(measures: Sequence[Measure]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for measure in measures:
        name = measure.name if measure.unit == "1" else f"{measure.name}_{measure.unit}"
        values[name] = measure.value
        if measure.uncertainty is not None:
            values[f"{name}_uncertainty"] = measure.uncertainty
    return values


def _in_degrees(rows: Sequence[Feature], outlines: Sequence[Outlines], report: Report) -> Shapes:
    """A multipolygon for each feature, or None; what objects do not tell of their size is added to their properties."""
    import shapely

    shapes = np.full(len(rows), None, object)
    for image, (flat, owners) in zip(report.study.images, outlines, strict=True):
        turned, parts = polygons.degrees(flat, image.grid)
        shapely.multipolygons(turned, indices=owners[parts], out=shapes)
    _measure(rows, shapes, report)
    return shapes


def _tables(report: Report) -> dict[str, GeoDataFrame]:
    """The features of each kind in the coordinate reference system of the first image."""
    import shapely
    from geopandas import GeoDataFrame, GeoSeries

    rows = features(report)
    outlines = _outlines(rows, report)
    _in_degrees(rows, outlines, report)
    frame = report.study.images[0].grid.frame
    shapes = np.full(len(rows), None, object)
    for image, (flat, owners) in zip(report.study.images, outlines, strict=True):
        placed = polygons.native(flat, image.grid)
        if image.grid.frame != frame and len(placed):
            placed = GeoSeries(placed, crs=image.grid.frame).to_crs(frame).to_numpy()
        shapely.multipolygons(placed, indices=owners, out=shapes)
    tables = {}
    for kind in _KINDS:
        chosen = [n for n, row in enumerate(rows) if row.kind == kind]
        if chosen or kind == "finding":
            names = dict.fromkeys(name for n in chosen for name in rows[n].properties)
            columns = {name: [rows[n].properties.get(name) for n in chosen] for name in names or ("label",)}
            tables[kind] = GeoDataFrame(columns, geometry=shapes[chosen], crs=frame)
    return tables


def _outlines(rows: Sequence[Feature], report: Report) -> list[Outlines]:
    """For each image the polygons in pixels of all its features, and the feature of each."""
    import rasterio

    found = []
    with rasterio.Env():  # one for all, which costs less than one for each object
        for image, whole in enumerate(report.study.images):
            mine = [
                (n, polygons.outlines(row.region, whole.grid))
                for n, row in enumerate(rows)
                if row.region and row.image == image
            ]
            owners = np.repeat([n for n, _ in mine], [len(part) for _, part in mine]).astype(np.intp)
            found.append((np.concatenate([np.zeros(0, object), *(part for _, part in mine)]), owners))
    return found


def _measure(rows: Sequence[Feature], shapes: Shapes, report: Report) -> None:
    """Add the area of an object, and of an oriented box length, width and bearing, where its measures lack them."""
    from pyproj import Geod

    geod = Geod(ellps="WGS84")
    for row, shape in zip(rows, shapes, strict=True):
        if row.kind != "object" or shape is None:
            continue
        told = {name.partition("_")[0] for name in row.properties}
        if "area" not in told:
            row.properties["area_m2"] = round(abs(geod.geometry_area_perimeter(shape)[0]), 3)
        if isinstance(row.region, OrientedBox):
            sizes = polygons.side_lines(row.region, report.study.images[row.image].grid)
            for name, unit, value in zip(("length", "width", "bearing"), ("m", "m", "deg"), sizes, strict=True):
                if name not in told:
                    row.properties[f"{name}_{unit}"] = round(value, 3)


def _box(shape: Any) -> dict[str, list[float]]:
    return {"bbox": polygons.bounds(np.array([shape], object))}
