"""What is sent to a service and what may come back: pixels, their grid, the modality, and nothing that names a person.

Arrays are little-endian: pixels float32 (channel, slice, row, column), validity uint8 (slice, row, column). Findings
are JSON as `fovea.jsonable.to_json` writes them, without `code` and `by`, which the folder's configuration gives.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from math import isfinite, prod
from typing import Any

import numpy as np
from pydantic import Field, field_validator

from experts.foreign.answers import ForeignExpert, Place, pixels
from experts.foreign.settings import ForeignConfig
from fovea.errors import ExpertError, InputError
from fovea.jsonable import from_json, to_json
from fovea.types import Finding, Origin, Study
from fovea.verbal import LOCATIONS

SAFE = frozenset({"body_part", "laterality", "resolution", "sensor", "view"})
"""Facts of a study that a configuration may allow to be sent."""
_KEYS = frozenset({"label", "present", "score", "location", "measures", "region", "slices", "instances", "image"})


class ServiceConfig(ForeignConfig):
    """An expert that another process runs."""

    service_version: str
    """The version that every answer must state; another one is a failure, so that answers of two are never mixed."""
    send: tuple[str, ...] = ()
    """Facts of `meta` that are sent beside the modality: body_part, laterality, resolution, sensor or view."""
    timeout: float = Field(default=120.0, gt=0, le=3600)
    """Seconds that one attempt may take in all."""
    attempts: int = Field(default=3, ge=1, le=10)
    """How often it is tried where no connection is made or the service is busy."""
    pause: float = Field(default=0.5, ge=0, le=60)
    """Seconds before the second attempt; each further pause is twice as long."""
    request_limit: int = Field(default=512, ge=1, le=8192)
    """MB that may be sent."""
    answer_limit: int = Field(default=64, ge=1, le=1024)
    """MB that may come back."""

    @field_validator("send")
    @classmethod
    def _safe(cls, send: tuple[str, ...]) -> tuple[str, ...]:
        if set(send) - SAFE:
            raise ValueError(f"only {', '.join(sorted(SAFE))}")
        return send


def question(
    expert: ForeignExpert, config: ServiceConfig, study: Study, found: Sequence[Place], argument: str
) -> tuple[dict[str, Any], bytes, bytes]:
    """What is asked, as JSON and the bytes of pixels and validity; raises ExpertError where it is too much."""
    grid = study.images[found[0][0]].grid
    size = prod(grid.shape) * (4 * len(found) + 1)
    if size > config.request_limit << 20:
        raise ExpertError(f"{expert.card.name} would be sent {size >> 20} MB", f"at most {config.request_limit}")
    values, valid = pixels(study, found)
    values = np.where(valid, values, np.float32(0))
    asked = {
        "argument": argument,
        "labels": list(expert.card.arguments[argument]),
        "modality": study.modality,
        "meta": {key: study.meta[key] for key in config.send if key in study.meta},
        "channels": [to_json(study.images[i].channels[c]) for i, c in found],
        "grid": {"affine": grid.affine.tolist(), "frame": grid.frame, "shape": list(grid.shape)},
    }
    return asked, values.astype("<f4").tobytes(), valid.astype(np.uint8).tobytes()


def answer(
    expert: ForeignExpert, config: ServiceConfig, data: Any, study: Study, image: int, argument: str, by: Origin
) -> dict[str, Finding]:
    """The findings in an answer by label; raises ExpertError for anything that is not as it must be."""
    name = expert.card.name
    if not isinstance(data, dict) or not isinstance(data.get("findings"), list):
        raise ExpertError(f"{name} answered without findings", "an object with version and findings")
    if data.get("version") != config.service_version:
        raise ExpertError(
            f"{name} answered in another version than it was set up for",
            "service_version",
            "Check it and write it anew.",
        )
    labels = expert.card.arguments[argument]
    entries = data["findings"]
    if sorted(str(e.get("label")) if isinstance(e, dict) else "" for e in entries) != sorted(labels):
        raise ExpertError(f"{name} answered other labels than were asked", f"each of {', '.join(labels)} once")
    shape = study.images[image].grid.shape
    try:
        found = [_finding(expert, entry, shape, image, by) for entry in entries]
    except (InputError, ValueError, TypeError, KeyError, AttributeError, OverflowError) as error:
        raise ExpertError(f"{name} answered a finding that is not well formed ({type(error).__name__})") from error
    return {finding.label: finding for finding in found}


def decoded(expert: ForeignExpert, text: bytes | str) -> Any:
    """JSON from a service; raises ExpertError."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ExpertError(f"{expert.card.name} answered something else than JSON") from error


def _finding(
    expert: ForeignExpert, entry: dict[str, Any], shape: tuple[int, int, int], image: int, by: Origin
) -> Finding:
    if set(entry) - _KEYS:
        raise ValueError("unknown keys")
    for part in (entry.get("region"), *(item.get("region") for item in entry.get("instances") or ())):
        if part is not None:
            _fits(part, shape)
    code = to_json(expert.config.code(entry["label"]))
    finding = from_json(Finding, {**entry, "code": code, "by": to_json(by), "image": image})
    scores = [finding.score, *(item.score for item in finding.instances)]
    measures = [*finding.measures, *(m for item in finding.instances for m in item.measures)]
    places = {finding.location, *(item.location for item in finding.instances)}
    if finding.present is not True and finding.present is not False:
        raise ValueError("present is no truth value")
    if not all(isfinite(score) and 0 <= score <= 1 for score in scores) or not places <= {"", *LOCATIONS}:
        raise ValueError("a score or a location out of range")
    if not all(isfinite(m.value) and (m.uncertainty is None or 0 <= m.uncertainty < float("inf")) for m in measures):
        raise ValueError("a measure that is no number")
    if len({m.name for m in finding.measures}) != len(finding.measures) or any(
        not isinstance(text, str) or len(text) > 64 or not text.isprintable()
        for m in measures
        for text in (m.name, m.unit)
    ):
        raise ValueError("a measure without a name of its own")
    if (finding.region is not None or finding.instances) and not finding.present:
        raise ValueError("an absent label with a place")
    if finding.slices is not None and not 0 <= finding.slices[0] < finding.slices[1] <= shape[0]:
        raise ValueError("slices out of range")
    return finding


def _fits(region: dict[str, Any], shape: tuple[int, int, int]) -> None:
    """Raises ValueError for a region that leaves the grid, before a mask of any size is made of it."""
    kind = region["region"]
    if kind in ("Mask", "Patch"):
        start = region.get("start", [0, 0, 0])
        size, runs = region["shape"], region["runs"]
        whole = all(isinstance(n, int) and n >= 0 for n in (*start, *size, *runs))
        if (
            not whole
            or len(size) != 3
            or len(start) != 3
            or any(a + n > m for a, n, m in zip(start, size, shape, strict=True))
        ):
            raise ValueError("a mask that leaves the grid")
        if (kind == "Mask" and tuple(size) != shape) or sum(runs) != prod(size) or not sum(runs[1::2]):
            raise ValueError("a mask of another shape, or an empty one")
    elif kind == "Box":
        if not all(0 <= a < b <= n for a, b, n in zip(region["start"], region["stop"], shape, strict=True)):
            raise ValueError("a box that leaves the grid")
    else:
        points = [region["center"]] if kind == "OrientedBox" else region["points"]
        inside = all(-0.5 <= r <= shape[1] and -0.5 <= c <= shape[2] for r, c in points)
        if not points or not inside or not 0 <= region.get("slice", 0) < shape[0]:
            raise ValueError("a region that leaves the grid")
        if kind == "OrientedBox" and not all(isfinite(region[key]) for key in ("length", "width", "angle")):
            raise ValueError("a box without a size")
