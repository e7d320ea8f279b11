"""Findings as the text that a language model reads, and calls of experts as the text that it writes."""

from __future__ import annotations

import re
from collections.abc import Iterable

from fovea.types import Call, ExpertCard, Finding, Measure, Question, Term

_CALL = re.compile(r"<call>\s*([\w.-]+)\s*\(\s*([^()]*?)\s*\)\s*</call>")


def number(value: float) -> str:
    """At most three significant digits and never an exponent: 0.0412, 3.14, 27.5, 812, 12300."""
    if value == 0 or abs(value) < 1e-4:
        return "0"
    if abs(value) >= 999.5:
        digits = len(str(int(abs(value)))) - 3
        return str(int(round(value, -digits)))
    text = f"{value:.3g}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def figure(measure: Measure) -> str:
    """The value and unit of a measure as they are written everywhere; a fraction in percent: 12.4 mm, 3, 34.7 %."""
    if measure.name == "fraction":
        return f"{number(100 * measure.value)} %"
    return number(measure.value) + ("" if measure.unit == "1" else f" {measure.unit}")


def words(label: str) -> str:
    """A label or the name of a measure as words: "longest_diameter" → "longest diameter"."""
    return label.replace("_", " ")


def describe_finding(finding: Finding) -> str:
    """One line: `nodule: yes 0.93; left; count 2; longest diameter 12.4 mm`, or `nodule: no 0.04`."""
    head = f"{words(finding.label)}: {'yes' if finding.present else 'no'} {finding.score:.2f}"
    if not finding.present:
        return head
    measures = [f"{words(m.name)} {figure(m)}" for m in finding.measures]
    return "; ".join(part for part in (head, finding.location, *measures) if part)


def describe_call(call: Call) -> str:
    """What an expert gave back: its findings, a line each, or that it failed."""
    if call.failure:
        return f"{call.expert} failed: {call.failure}"
    return "\n".join(describe_finding(finding) for finding in call.findings) or f"{call.expert}: nothing"


def describe_card(card: ExpertCard) -> str:
    """One line of the prompt: what can be called, with which arguments."""
    return f"{card.name}({' | '.join(card.arguments)}): {card.task}"


def call_text(expert: str, argument: str) -> str:
    """The call as the model writes it; `read_calls` is the inverse."""
    return f"<call>{expert}({argument})</call>"


def read_calls(text: str) -> list[tuple[str, str]]:
    """All calls in a text as (expert, argument)."""
    return [(match[1], match[2]) for match in _CALL.finditer(text)]


def all_calls(cards: Iterable[ExpertCard]) -> list[str]:
    """Every valid call: the language that constrained decoding allows."""
    return [call_text(card.name, argument) for card in cards for argument in card.arguments]


LOCATIONS = (
    "both", "left", "right", "north-west", "north-east", "south-west", "south-east", "north", "south", "west", "east",
    "center",
)  # fmt: skip
"""The closed words of `Finding.location`: sides of a patient, parts of a scene."""

_LOCATION = re.compile(rf"(?<![\w-])({'|'.join(LOCATIONS)})(?![\w-])")
_NUMBER = re.compile(r"(?<![\w.])-?\d+(?:\.\d+)?")
_DENIAL = re.compile(r"^(no|none|there is no|there are no)\b")
NONE = "none"
"""The value of a reply to a question about something that is not there."""


def read_value(
    question: Question, text: str, vocabulary: Iterable[Term]
) -> bool | int | float | str | frozenset[str] | None:
    """The value that an answer in words gives, by rule; None where it gives none.

    Presence: the first word. Side: the first closed location word. Count, size, area: the first number (a denial
    counts as 0, or as NONE). Class: the first label named. Report: the labels named in sentences that are no denial.
    """
    plain = " ".join(text.lower().split())
    if question.kind == "presence":
        return {"yes": True, "no": False}.get(plain.partition(" ")[0].strip(",.;:"))
    if question.kind == "report":
        claims = [s for s in re.split(r"(?<=[.!?])\s+", plain) if not _DENIAL.match(s)]
        return frozenset(label for claim in claims for label, _ in named(claim, vocabulary))
    if question.kind == "class":
        labels = named(plain, vocabulary)
        return min(labels, key=lambda label: label[1])[0] if labels else None
    if _DENIAL.match(plain):
        return 0 if question.kind == "count" else NONE
    if question.kind == "side":
        place = _LOCATION.search(plain)
        return place[1] if place else None
    figure = _NUMBER.search(plain)
    if not figure:
        return None
    return int(float(figure[0])) if question.kind == "count" else float(figure[0])


def named(text: str, vocabulary: Iterable[Term]) -> list[tuple[str, int]]:
    """Labels named in a lower-case text with the place of their first mention; the longest name at a place wins."""
    spans = [
        (match.start(), match.end(), term.label)
        for term in vocabulary
        for name in (words(term.label), *term.synonyms)
        for match in re.finditer(rf"(?<!\w){re.escape(name.lower())}s?(?!\w)", text)
    ]
    kept: dict[str, int] = {}
    for start, end, label in sorted(spans):
        if not any(s <= start and end <= e and e - s > end - start for s, e, _ in spans):
            kept.setdefault(label, start)
    return list(kept.items())
