"""An expert over a raster too large to be read as one picture: a map on disk, and an overview of it to look at."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fovea.contracts import Expert
from fovea.errors import ConfigError, ExpertError
from fovea.files import whole
from fovea.types import Finding, Image, Mask, Measure, Origin, Study

if TYPE_CHECKING:
    from apps.scenes import MappedScene
    from experts.segmentation import SegmentationExpert

LARGE = 2**24
"""Pixels (4096 x 4096) above which a scene is mapped in windows."""
_SIDE = 1024
"""The longer side of an overview in pixels."""
_FILES = ("classes.tif", "confidence.tif", "statistics.json", "objects.parquet")
NOTE = "Mapped in windows: a probability is the mean over the pixels that have the label."


@dataclass(frozen=True, eq=False)
class Mapped:
    """The files of a map, what it counts as findings without regions, and an overview: a reduced study with the same
    findings drawn on it."""

    files: tuple[Path, ...]
    findings: tuple[Finding, ...]
    overview: tuple[Study, tuple[Finding, ...]]


def mappable(expert: Expert, study: Study) -> bool:
    """Whether a study has a scene of more than `LARGE` pixels that the expert draws in windows at a native spacing."""
    grids = [image.grid for image in study.images]
    if not any(grid.georeferenced and grid.shape[1] * grid.shape[2] > LARGE for grid in grids):
        return False
    from experts.segmentation import SegmentationExpert

    return isinstance(expert, SegmentationExpert) and expert.config.spacing is not None and expert.config.size[0] == 1


def map_large(expert: Any, study: Study, argument: str, folder: Path | None) -> Mapped:
    """Map a scene into a folder, with objects.parquet (GeoParquet: a row an object, its extent and what it measures).

    A map that is there, of the same expert and scene, is taken as it is; one that was broken off goes on. Raises
    ConfigError without a folder, ExpertError for an argument that the map does not answer, and as `map_scene`.
    """
    if folder is None:
        raise ConfigError(f"a scene of more than {LARGE:,} pixels without --out", "a folder for its map")
    labels = [label for label in expert.card.arguments.get(argument, ()) if label in expert.config.drawn]
    if not labels:
        raise ExpertError(f"no map for {argument!r}", f"one of {', '.join((*expert.config.drawn, 'all'))}")
    told = _counted(expert, study, folder)
    by = Origin(expert.card.name, expert.card.version, study.digest)
    findings = tuple(_finding(expert, label, told[label], by) for label in labels)
    return Mapped(tuple(folder / name for name in _FILES), findings, _overview(expert, study, findings, folder))


def _counted(expert: SegmentationExpert, study: Study, folder: Path) -> dict[str, dict[str, Any]]:
    """What the map counts of each class, after it is made."""
    from apps.scenes import map_scene

    wanted = (expert.card.name, expert.card.version, study.digest)
    told = _statistics(folder)
    there = (told.get("expert"), told.get("version"), told.get("input")) == wanted
    if not there or not all((folder / name).is_file() for name in _FILES):
        (folder / "objects.parquet").unlink(missing_ok=True)
        _write_objects(map_scene(expert, study, folder), folder / "objects.parquet")
        told = _statistics(folder)
    return {item["label"]: item for item in told["classes"]}


def _statistics(folder: Path) -> dict[str, Any]:
    try:
        told = json.loads((folder / "statistics.json").read_text())
    except (OSError, ValueError):
        return {}
    return told if isinstance(told, dict) else {}


def _finding(expert: SegmentationExpert, label: str, told: dict[str, Any], by: Origin) -> Finding:
    code = expert.config.code(label)
    if not told["objects"]:
        return Finding(label, code, False, 0.0, by)
    large = told["area"] >= 10_000
    area = Measure("area", told["area"] / 10_000 if large else told["area"], "ha" if large else "m2")
    share, count = Measure("fraction", told["fraction"], "1"), Measure("count", told["objects"], "1")
    return Finding(label, code, True, told["confidence"], by, measures=(area, share, count))


def _overview(
    expert: SegmentationExpert, study: Study, findings: Sequence[Finding], folder: Path
) -> tuple[Study, tuple[Finding, ...]]:
    import rasterio

    from experts.preparation import chosen

    image = chosen(expert.config, study)[0]
    rows, columns = image.grid.shape[1:]
    scale = min(1.0, _SIDE / max(rows, columns))
    shape = max(1, round(rows * scale)), max(1, round(columns * scale))
    pixels, valid = image.read(None, shape)
    small = Image.from_array(image.channels, image.grid.resample((1, *shape)), pixels, valid)
    with rasterio.open(folder / "classes.tif") as file:
        classes = file.read(1, out_shape=shape)  # of the overviews: the class that most pixels have
    drawn = []
    for finding in findings:
        mask = classes[None] == expert.config.drawn.index(finding.label) + 1
        drawn.append(replace(finding, region=Mask(mask) if finding.present and mask.any() else None))
    return replace(study, images=(small,)), tuple(drawn)


def _write_objects(scene: MappedScene, path: Path) -> None:
    """A row an object, whole or not at all."""
    import shapely
    from geopandas import GeoDataFrame

    found, grid = scene.objects, scene.grid
    (top, bottom), (left, right) = found.rows.T - 0.5, found.columns.T - 0.5  # an index names the centre of its pixel
    corners = np.stack(
        [np.column_stack(corner) for corner in ((top, left), (top, right), (bottom, right), (bottom, left))], 1
    )
    flat = np.column_stack((np.zeros(4 * len(found)), corners.reshape(-1, 2)))
    world = grid.world(flat)[:, :2].reshape(-1, 4, 2)
    length, width, bearing = found.axes(grid)
    names = np.array([item.label for item in scene.classes])
    table = {
        "label": names[found.label], "area_m2": found.area, "length_m": length, "width_m": width,
        "bearing_deg": bearing, "confidence": found.confidence, "pixels": found.pixels,
    }  # fmt: skip
    with whole(path) as partial:
        GeoDataFrame(table, geometry=shapely.polygons(world), crs=grid.frame).to_parquet(
            partial, index=False, schema_version="1.1.0", write_covering_bbox=True, compression="zstd"
        )
