"""Reports of radiological studies as JSON and as plain text."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping

from domains.radiology.text import describe
from fovea.errors import UnsupportedError
from fovea.jsonable import to_json
from fovea.types import Answer, Report
from fovea.verbal import describe_finding

_SUPPORT = {
    "expert": "measured", "model": "the model's own",
    "contradicted": "contradicts the expert", "failed": "expert failed",
}  # fmt: skip


def export(report: Report, format: str) -> bytes:
    """The report as "json" or "text", the same bytes at every call; raises UnsupportedError naming the formats."""
    formats: Mapping[str, Callable[[Report], str]] = {"json": _json, "text": _text}
    if format not in formats:
        raise UnsupportedError(f"format {format!r}", f"one of {', '.join(formats)}")
    return formats[format](report).encode()


def _json(report: Report) -> str:
    study = report.study
    images = [
        {
            "channels": to_json(image.channels),
            "frame": image.grid.frame,
            "shape": list(image.grid.shape),
            "affine": image.grid.affine.tolist(),
        }
        for image in study.images
    ]
    whole = {
        "state": report.state,
        "reviewer": report.reviewer,
        "study": {
            "id": study.id,
            "domain": study.domain,
            "meta": to_json(study.meta),
            "source": to_json(study.source),
            "images": images,
        },
        "answers": to_json(report.answers),
        "provenance": to_json(report.provenance),
    }
    return json.dumps(whole, indent=1, sort_keys=True) + "\n"


def _text(report: Report) -> str:
    reviewed = f"reviewed by {report.reviewer}" if report.reviewer else "not reviewed"
    lines = ["RADIOLOGY REPORT", f"State: {report.state}, {reviewed}", f"Study: {report.study.id}", ""]
    lines += ["TECHNIQUE", describe(report.study), ""]
    for answer in report.answers:
        lines += [answer.question.upper(), *_sentences(answer), ""]
    findings = [f"{describe_finding(f)} [{f.by}]" for answer in report.answers for f in answer.findings]
    failures = [
        f"{call.expert}({call.argument}) failed: {call.failure}"
        for answer in report.answers
        for call in answer.calls
        if call.failure
    ]
    if findings or failures:
        lines += ["MEASUREMENTS", *dict.fromkeys(findings), *dict.fromkeys(failures), ""]
    lines += ["PROVENANCE", *(f"{key}: {value}" for key, value in sorted(report.provenance.items()))]
    return "\n".join(lines) + "\n"


def _sentences(answer: Answer) -> list[str]:
    return [f"{sentence.text} [{_SUPPORT[sentence.support]}]" for sentence in answer.sentences] or [answer.text]
