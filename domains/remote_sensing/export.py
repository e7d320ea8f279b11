"""Reports of scenes as JSON, GeoJSON (RFC 7946) and plain text."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fovea.errors import GeometryError, InputError, UnsupportedError
from fovea.jsonable import to_json
from fovea.types import Box, Finding, Grid, Mask, OrientedBox, Region, Report
from fovea.verbal import describe_finding

Points = NDArray[np.float64]
_DIGITS = 7
"""Decimals of a degree: about 1 cm on the ground."""
_STEP = 32
"""Pixels between two vertices of a long edge, so that it follows the curve that it has in longitude and latitude."""


FORMATS = ("geojson", "json", "text")


def export(report: Report, format: str) -> bytes:
    """The report in one of FORMATS; raises UnsupportedError for others."""
    if format not in FORMATS:
        raise UnsupportedError(f"format {format!r}", f"one of {', '.join(FORMATS)}")
    writers: Mapping[str, Callable[[Report], str]] = {"geojson": _geojson, "json": _json, "text": _text}
    return writers[format](report).encode()


def _json(report: Report) -> str:
    study = report.study
    about = {
        "id": study.id, "domain": study.domain, "meta": to_json(study.meta), "source": to_json(study.source),
        "images": [
            {"channels": to_json(image.channels), "frame": image.grid.frame, "affine": image.grid.affine.tolist(),
             "shape": image.grid.shape}
            for image in study.images
        ],
    }  # fmt: skip
    whole = {
        "state": report.state, "reviewer": report.reviewer, "provenance": to_json(report.provenance), "study": about,
        "answers": to_json(report.answers),
    }  # fmt: skip
    return json.dumps(whole, indent=1)


def _text(report: Report) -> str:
    lines = [f"Report of scene {report.study.id} ({report.state})"]
    lines += [f"{key}: {value}" for key, value in report.study.meta.items()]
    for answer in report.answers:
        lines += ["", answer.question, answer.text]
        lines += [f"  {call.expert}({call.argument}) failed: {call.failure}" for call in answer.calls if call.failure]
        lines += [f"  {describe_finding(finding)} [{finding.by}]" for finding in answer.findings]
    lines += ["", *(f"{key}: {value}" for key, value in report.provenance.items())]
    return "\n".join(lines) + "\n"


def _geojson(report: Report) -> str:
    """A feature for each present finding, in longitude and latitude on WGS 84; one without a region has no geometry.

    Raises GeometryError when the study has no coordinate reference system.
    """
    if not all(image.grid.georeferenced for image in report.study.images):
        raise GeometryError(
            "a scene without a coordinate reference system", "one on the Earth", "Export JSON or text instead"
        )
    unique = {(f.label, f.image, f.by): f for answer in report.answers for f in answer.findings if f.present}
    features = [_feature(finding, report) for finding in unique.values()]
    boxes = np.array([feature["bbox"] for feature in features if "bbox" in feature])
    whole: dict[str, Any] = {"type": "FeatureCollection", "features": features}
    if len(boxes):
        whole["bbox"] = [*boxes[:, :2].min(0).tolist(), *boxes[:, 2:].max(0).tolist()]
    return json.dumps(whole | {"report": {"study": report.study.id, "state": report.state}})


def _feature(finding: Finding, report: Report) -> dict[str, Any]:
    units = {m.name: "" if m.unit == "1" else f"_{m.unit}" for m in finding.measures}
    properties = {
        "label": finding.label, "code": f"{finding.code.scheme}:{finding.code.value}", "meaning": finding.code.meaning,
        "score": finding.score, "location": finding.location, "by": str(finding.by),
        **{f"{m.name}{units[m.name]}": m.value for m in finding.measures},
    }  # fmt: skip
    feature: dict[str, Any] = {"type": "Feature", "properties": properties, "geometry": None}
    if finding.region is None:
        return feature
    polygons = list(_degrees(finding.region, report.study.images[finding.image].grid))
    if polygons:
        feature["geometry"] = {"type": "MultiPolygon", "coordinates": polygons}
        corners = np.array([point for polygon in polygons for point in polygon[0]])
        feature["bbox"] = [*corners.min(0).tolist(), *corners.max(0).tolist()]
    return feature


def _degrees(region: Region, grid: Grid) -> Iterator[list[list[list[float]]]]:
    """Polygons of a region in degrees, cut at the antimeridian; outer rings run counter-clockwise, holes clockwise."""
    from rasterio.errors import CRSError, RasterioError
    from rasterio.warp import transform_geom

    a, b, c, d, e, f = grid.to_gdal()
    for rings in _outlines(region, grid):
        placed = [_dense(ring) @ np.array([[a, d], [b, e]]) + (c, f) for ring in rings]
        try:
            shape = transform_geom(
                grid.frame, "EPSG:4326", {"type": "Polygon", "coordinates": [ring.tolist() for ring in placed]}
            )
        except (RasterioError, CRSError):
            raise GeometryError("a region outside its coordinate reference system", "one inside") from None
        for polygon in [shape["coordinates"]] if shape["type"] == "Polygon" else shape["coordinates"]:
            yield [_wound(np.array(ring)[:, :2], index == 0) for index, ring in enumerate(polygon)]


def _outlines(region: Region, grid: Grid) -> Iterator[list[Points]]:
    """Closed rings (column, row) of each polygon, corners of pixels at whole numbers."""
    if isinstance(region, Mask):
        from rasterio.features import shapes

        if region.data.shape != grid.shape:
            raise InputError(f"a mask {region.data.shape}", f"one of the image's shape {grid.shape}")
        for shape, _ in shapes(region.data[0].astype(np.uint8), mask=region.data[0]):
            yield [np.array(ring, float) for ring in shape["coordinates"]]
        return
    if isinstance(region, Box):
        (_, top, left), (_, bottom, right) = region.start, region.stop
        corners = np.array([(left, top), (right, top), (right, bottom), (left, bottom)], float)
    elif isinstance(region, OrientedBox):
        turn = np.deg2rad(region.angle)
        along, across = np.array([np.cos(turn), np.sin(turn)]), np.array([-np.sin(turn), np.cos(turn)])
        signs = ((-1, -1), (1, -1), (1, 1), (-1, 1))
        offsets = [along * s * region.length / 2 + across * t * region.width / 2 for s, t in signs]
        corners = np.array(offsets) + region.center[::-1]
    else:
        corners = np.array(region.points, float)[:, ::-1]
    yield [np.concatenate((corners, corners[:1]))]


def _dense(ring: Points) -> Points:
    """The ring with vertices added on edges longer than `_STEP`."""
    pieces = []
    for start, stop in pairwise(ring):
        n = int(np.ceil(np.abs(stop - start).max() / _STEP)) or 1
        pieces.append(start + (stop - start) * (np.arange(n) / n)[:, None])
    return np.concatenate((*pieces, ring[-1:]))


def _wound(ring: Points, outer: bool) -> list[list[float]]:
    """The ring rounded, and turned to run as RFC 7946 wants it."""
    x, y = (ring - ring[0]).T
    area = float((x[:-1] * y[1:] - x[1:] * y[:-1]).sum())
    turned = ring if (area > 0) == outer else ring[::-1]
    return [[round(float(v), _DIGITS) for v in point] for point in turned]
