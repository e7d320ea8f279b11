"""Findings, measures and evidence in words for a reader: the same on the terminal, in the viewer and in reports."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from fovea.types import Answer, Finding, Measure, Report, Support
from fovea.verbal import figure, number, words

DRAFT = "Draft, not reviewed. Not for clinical use."

SUPPORT: Mapping[Support, str] = {
    "expert": "supported by expert",
    "model": "model only",
    "contradicted": "contradicted by expert",
    "failed": "expert failed",
}
"""What stands behind a sentence, in the words of its badge."""

_UNITS = {"1": "", "deg": "°", "m2": " m²", "cm2": " cm²", "mm2": " mm²", "km2": " km²"}
_SQUARE = re.compile(r"(?<=\d )([cmk]?m)2\b")


def state_line(report: Report) -> str:
    """The state of a report, for a reader: that nobody has checked it, or who has."""
    return DRAFT if report.state == "draft" else f"State: {report.state}, by {report.reviewer}."


def chance(score: float) -> str:
    """A calibrated probability as a natural frequency: "about 9 in 10", "fewer than 1 in 100"."""
    if score < 0.01:
        return "fewer than 1 in 100"
    if score > 0.99:
        return "more than 99 in 100"
    if 0.05 <= score <= 0.95:
        return f"about {min(9, max(1, round(score * 10)))} in 10"
    return f"about {round(score * 100)} in 100"


def quantity(measure: Measure) -> str:
    """The value with its unit and, where known, its uncertainty: "23.1 ± 1.2 cm²"."""
    if measure.name == "fraction":
        return figure(measure)
    unit = _UNITS.get(measure.unit, f" {measure.unit}")
    spread = f" ± {_rounded(measure.uncertainty)}" if measure.uncertainty else ""
    return f"{number(measure.value)}{spread}{unit}"


def _rounded(uncertainty: float) -> str:
    """One significant digit, or two where the first is a 1: 0.005, 0.4, 1.2, 30."""
    digits = 2 if f"{uncertainty:e}".startswith("1") else 1
    return number(float(f"{uncertainty:.{digits}g}"))


def typeset(text: str) -> str:
    """A sentence of the model with its square units as they are printed: "23 cm2" → "23 cm²"."""
    return _SQUARE.sub(r"\1²", text)


def measures(finding: Finding) -> str:
    """All measures in one line: "count 2, longest diameter 12.4 mm"."""
    return ", ".join(f"{words(measure.name)} {quantity(measure)}" for measure in finding.measures)


def one_line(finding: Finding) -> str:
    """A finding for a list: "left pleural effusion, area 23.1 cm²", or "no nodule"."""
    if not finding.present:
        return f"no {words(finding.label)}"
    name = " ".join(part for part in (finding.location, words(finding.label)) if part)
    return ", ".join(part for part in (name, measures(finding)) if part)


@dataclass(frozen=True, eq=False)
class Claim:
    """A finding with its number in a report: the same claim of one expert, met in several answers, is one."""

    number: int
    finding: Finding

    @property
    def mark(self) -> str:
        return f"F{self.number}"


def claims(answers: Iterable[Answer]) -> list[Claim]:
    """All findings behind the answers, each once, present ones first."""
    unique: dict[tuple[object, ...], Finding] = {}
    for answer in answers:
        for finding in answer.findings:
            unique.setdefault(_identity(finding), finding)
    ordered = sorted(unique.values(), key=lambda finding: not finding.present)
    return [Claim(position, finding) for position, finding in enumerate(ordered, start=1)]


def cited(answer: Answer, evidence: Iterable[int], known: Sequence[Claim]) -> list[Claim]:
    """The claims that a sentence of `answer` points to."""
    by_identity = {_identity(claim.finding): claim for claim in known}
    return [by_identity[_identity(answer.findings[index])] for index in evidence]


def mark(finding: Finding, known: Sequence[Claim]) -> str:
    """The mark under which a finding is listed."""
    return next(claim.mark for claim in known if _identity(claim.finding) == _identity(finding))


def _identity(finding: Finding) -> tuple[object, ...]:
    return finding.by.name, finding.by.version, finding.label, finding.image
