"""A report as data: the JSON file, and what the index shows of it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

from apps.geometry import frame_name, scale
from apps.wording import claims, one_line, state_line
from fovea.contracts import Domain
from fovea.jsonable import from_json, to_json
from fovea.types import Answer, Report, Study

SCHEMA = "fovea.report/1"
TEMPLATES = Path(__file__).parent / "templates"


def template_version() -> str:
    """A digest of the schema and all templates: a report made with others is made anew."""
    files = sorted(TEMPLATES.iterdir())
    return sha256(b"\0".join([SCHEMA.encode(), *(file.read_bytes() for file in files)])).hexdigest()[:12]


def report_key(study: Study, provenance: Mapping[str, str]) -> str:
    """SHA-256 over everything that makes a report what it is: study, model with experts, and templates."""
    parts = [study.digest, json.dumps(dict(provenance), sort_keys=True), template_version()]
    return sha256("\n".join(parts).encode()).hexdigest()


def title(domain: Domain, study: Study) -> str:
    """The domain's line about the study, as a heading."""
    line = domain.describe(study).rstrip(".")
    return line[:1].upper() + line[1:]


def doubts(report: Report) -> int:
    """Sentences that an expert contradicts or that a failed expert could not support."""
    return sum(
        sentence.support in ("contradicted", "failed") for answer in report.answers for sentence in answer.sentences
    )


def to_document(domain: Domain, report: Report, key: str) -> dict[str, Any]:
    """The report as plain JSON data: `answers` are `fovea.types.Answer` and can be read back with `from_json`."""
    study = report.study
    return {
        "schema": SCHEMA,
        "key": key,
        "notice": state_line(report),
        "state": report.state,
        "reviewer": report.reviewer,
        "summary": {
            "title": title(domain, study),
            "present": [one_line(claim.finding) for claim in claims(report.answers) if claim.finding.present],
            "doubts": doubts(report),
        },
        "study": {
            "id": study.id,
            "digest": study.digest,
            "domain": study.domain,
            "meta": dict(study.meta),
            "source": to_json(study.source),
            "images": [
                {
                    "channels": to_json(image.channels),
                    "shape": list(image.grid.shape),
                    "affine": image.grid.affine.tolist(),
                    "frame": image.grid.frame,
                    "frame_name": frame_name(image.grid),
                    "pixel": to_json(scale(image.grid)),
                }
                for image in study.images
            ],
        },
        "answers": to_json(report.answers),
        "provenance": dict(report.provenance),
    }


def from_document(study: Study, document: Mapping[str, Any]) -> Report:
    """The report of a study as `to_document` told it; raises InputError on data of another form."""
    answers = tuple(from_json(Answer, answer) for answer in document["answers"])
    return Report(study, answers, document["provenance"], document["state"], document["reviewer"])


def to_text(document: Mapping[str, Any]) -> str:
    """JSON with a line for each outer entry and compact run lengths."""
    return json.dumps(document, ensure_ascii=False, allow_nan=False, separators=(",", ":")) + "\n"
