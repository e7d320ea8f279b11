"""What was found on a scene, as files for a GIS and a catalog."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fovea.errors import UnsupportedError
from fovea.types import Report

OUTPUTS = ("cog", "geojson", "geopackage", "geoparquet", "stac")


def write(
    report: Report, folder: Path, outputs: Sequence[str] = (), models: Sequence[Mapping[str, Any]] = ()
) -> tuple[Path, ...]:
    """Write the named outputs, or all that the report allows; a STAC item describes those that are written with it.

    Class maps need a region and vectors a place on the Earth; a STAC item needs the scene's date as well, and alone
    brings GeoJSON with it. `models` are STAC items of what made the findings, to which it links. Raises
    UnsupportedError for a name that is not there, and where a named output cannot be.
    """
    from domains.remote_sensing.outputs import cog, stac, vector

    unknown = [name for name in outputs if name not in OUTPUTS]
    if unknown:
        raise UnsupportedError(f"output {unknown[0]!r}", f"one of {', '.join(OUTPUTS)}")
    chosen = set(outputs) or _possible(report)
    if chosen == {"stac"}:
        chosen.add("geojson")
    writers = {
        "cog": cog.write, "geojson": vector.write_geojson, "geopackage": vector.write_geopackage,
        "geoparquet": vector.write_geoparquet,
    }  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    paths = [path for name, writer in writers.items() if name in chosen for path in writer(report, folder)]
    if "stac" in chosen:
        paths += stac.write(report, folder, paths, models)
    return tuple(paths)


def _possible(report: Report) -> set[str]:
    """The outputs that a report allows."""
    from domains.remote_sensing.outputs import cog

    found = {"geojson", "geopackage", "geoparquet"}
    if not all(image.grid.georeferenced for image in report.study.images):
        found = set()
    elif not {"date", "date_before"}.isdisjoint(report.study.meta):
        found.add("stac")
    if any(f.present and cog.areas(f) for answer in report.answers for f in answer.findings):
        found.add("cog")
    return found
