"""Reports of scenes as JSON, GeoJSON (RFC 7946) and plain text."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping

from domains.remote_sensing.outputs.vector import geojson
from fovea.errors import UnsupportedError
from fovea.jsonable import to_json
from fovea.types import Report
from fovea.verbal import describe_finding

FORMATS = ("geojson", "json", "text")


def export(report: Report, format: str) -> bytes:
    """The report in one of FORMATS; raises UnsupportedError for others."""
    if format not in FORMATS:
        raise UnsupportedError(f"format {format!r}", f"one of {', '.join(FORMATS)}")
    writers: Mapping[str, Callable[[Report], str]] = {"geojson": geojson, "json": _json, "text": _text}
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
