"""Findings as the text that a language model reads, and calls of experts as the text that it writes; both ways."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from fovea.errors import InputError
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


LISTED = 8
"""How many instances of a finding are listed in a text and numbered in an overlay."""


@dataclass(frozen=True)
class StatedInstance:
    """What a text says of one instance: its score to two digits, and its measures to the digits written."""

    score: float
    location: str = ""
    measures: tuple[Measure, ...] = ()


@dataclass(frozen=True)
class Statement:
    """What a text says of one finding: no code, region, uncertainty or source.

    `score` and the measures are as rounded as they are written; the score is None where it is left out. `more` counts
    the instances that are left out.
    """

    label: str
    present: bool
    score: float | None
    location: str = ""
    measures: tuple[Measure, ...] = ()
    instances: tuple[StatedInstance, ...] = ()
    more: int = 0


def stated(finding: Finding, limit: int = LISTED) -> Statement:
    """What `describe_finding` says of a finding, and `read_finding` reads back."""
    if not finding.present:
        return Statement(finding.label, False, _two(finding.score))
    listed = tuple(
        StatedInstance(_two(item.score), item.location, tuple(map(_as_written, item.measures)))
        for item in finding.instances[:limit]
    )
    return Statement(
        finding.label,
        True,
        _two(finding.score),
        finding.location,
        tuple(map(_as_written, finding.measures)),
        listed,
        len(finding.instances) - len(listed),
    )


def _two(score: float) -> float:
    return float(f"{score:.2f}")


def _as_written(measure: Measure) -> Measure:
    """The measure that `figure` writes, without its uncertainty."""
    if measure.name == "fraction":
        return Measure(measure.name, float(number(100 * measure.value)) / 100, "1")
    return Measure(measure.name, float(number(measure.value)), measure.unit)


def describe_finding(finding: Finding, limit: int = LISTED) -> str:
    """One line: `nodule: yes 0.93; left; count 2; longest diameter 12.4 mm`, or `nodule: no 0.04`.

    Instances follow with the numbers that they have in the overlay, at most `limit` of them: `…; #1 0.95, left, longest
    diameter 12.4 mm; #2 0.71; and 7 more`.
    """
    return _line(stated(finding, limit))


def _line(statement: Statement) -> str:
    score = "" if statement.score is None else f" {statement.score:.2f}"
    head = f"{words(statement.label)}: {'yes' if statement.present else 'no'}{score}"
    parts = [head, statement.location, *map(_figure, statement.measures)]
    for place, item in enumerate(statement.instances, start=1):
        inner = (f"#{place} {item.score:.2f}", item.location, *map(_figure, item.measures))
        parts.append(", ".join(part for part in inner if part))
    parts.append(f"and {statement.more} more" if statement.more else "")
    return "; ".join(part for part in parts if part)


def _figure(measure: Measure) -> str:
    return f"{words(measure.name)} {figure(measure)}"


def describe_findings(findings: Iterable[Finding], budget: int) -> str:
    """The findings in at most `budget` characters, a line each, shortened no more than that takes.

    In this order: absent labels in one line (`no: effusion 0.02, mass 0.11`), fewer instances (`and 7 more`), no scores
    of what is absent, and findings left out, absent ones first, which the last line counts (`and 12 more findings`).
    """
    found = tuple(findings)
    whole = "\n".join(map(describe_finding, found))
    if len(whole) <= budget:
        return whole
    present = [finding for finding in found if finding.present]
    absent = [stated(finding) for finding in found if not finding.present]
    unscored = [replace(statement, score=None) for statement in absent]
    for limit, rest in ((LISTED, absent), (3, absent), (1, absent), (0, absent), (0, unscored)):
        text = _folded([describe_finding(finding, limit) for finding in present], rest, 0)
        if len(text) <= budget:
            return text
    lines = [describe_finding(finding, 0) for finding in present]
    kept = [(lines, unscored[:n]) for n in reversed(range(len(unscored)))]
    kept += [(lines[:n], []) for n in reversed(range(len(lines)))]
    texts = (_folded(some, rest, len(found) - len(some) - len(rest)) for some, rest in kept)
    return next((text for text in texts if len(text) <= budget), _folded([], [], len(found)))


def _folded(lines: Sequence[str], absent: Sequence[Statement], left_out: int) -> str:
    items = [words(s.label) + ("" if s.score is None else f" {s.score:.2f}") for s in absent]
    folded = [f"no: {', '.join(items)}"] if items else []
    return "\n".join((*lines, *folded, *([f"and {left_out} more finding{'s' * (left_out > 1)}"] if left_out else [])))


_HEAD = re.compile(r"(.+?): (yes|no)(?: (\d\.\d\d))?$")
_FIGURE = re.compile(r"(.+?) (-?\d+(?:\.\d+)?)(?: ((?!-?\d)\S+))?$")
_INSTANCE = re.compile(r"#\d+ (\d\.\d\d)$")
_MORE = re.compile(r"and (\d+) more$")
_LEFT_OUT = re.compile(r"and (\d+) more findings?$")
_ABSENT = re.compile(r"(.+?)(?: (\d\.\d\d))?$")
_FAILURE = re.compile(r"([\w.-]+) failed: (.*)$")
_NOTHING = re.compile(r"[\w.-]+: nothing$")


def read_finding(line: str, vocabulary: Iterable[Term] = ()) -> Statement:
    """The inverse of `describe_finding`: gives what `stated` does.

    Labels of the vocabulary are known by their words; of other labels, and of measures, blanks become "_". Raises
    InputError for a line of another form.
    """
    return _statement(line, _labels(vocabulary))


def _labels(vocabulary: Iterable[Term]) -> dict[str, str]:
    return {words(term.label): term.label for term in vocabulary}


def _statement(line: str, labels: dict[str, str]) -> Statement:
    first, *parts = line.split("; ")
    head = _HEAD.match(first)
    if not head:
        raise InputError("a line that is no finding", "'label: yes 0.93; …' or 'label: no 0.04'")
    more = _MORE.match(parts[-1]) if parts else None
    parts = parts[:-1] if more else parts
    split = next((place for place, part in enumerate(parts) if part.startswith("#")), len(parts))
    location, measures = _told(parts[:split], labels)
    instances = []
    for part in parts[split:]:
        score, *inner = part.split(", ")
        known = _INSTANCE.match(score)
        if not known:
            raise InputError("an instance without number and score", "'#1 0.91, …'")
        instances.append(StatedInstance(float(known[1]), *_told(inner, labels)))
    return Statement(
        labels.get(head[1], head[1].replace(" ", "_")),
        head[2] == "yes",
        float(head[3]) if head[3] else None,
        location,
        measures,
        tuple(instances),
        int(more[1]) if more else 0,
    )


def _told(parts: Sequence[str], labels: dict[str, str]) -> tuple[str, tuple[Measure, ...]]:
    """Location and measures; the first part is the location unless it reads as a measure."""
    placed = bool(parts) and (parts[0] in labels or not _FIGURE.match(parts[0]))
    return parts[0] if placed else "", tuple(map(_measure, parts[placed:]))


def _measure(text: str) -> Measure:
    match = _FIGURE.match(text)
    if not match:
        raise InputError("a measure without a figure", "'longest diameter 12.4 mm'")
    name, value = match[1].replace(" ", "_"), float(match[2])
    return Measure(name, value / 100, "1") if name == "fraction" else Measure(name, value, match[3] or "1")


@dataclass(frozen=True)
class ReadText:
    """What a text of findings says: statements, failures (expert to reason), and how many findings it leaves out."""

    statements: tuple[Statement, ...] = ()
    failures: tuple[tuple[str, str], ...] = ()
    left_out: int = 0


def read_findings(text: str, vocabulary: Iterable[Term] = ()) -> ReadText:
    """The inverse of `describe_findings`, and of `describe_call` for one call and for several, a line each.

    Raises InputError for a line of another form. No label may end in "failed" or be "yes" or "no".
    """
    labels = _labels(vocabulary)
    statements: list[Statement] = []
    failures: list[tuple[str, str]] = []
    left_out = 0
    for line in filter(None, text.split("\n")):
        if failure := _FAILURE.match(line):
            failures.append((failure[1], failure[2]))
        elif rest := _LEFT_OUT.match(line):
            left_out += int(rest[1])
        elif line.startswith("no: "):
            for match in filter(None, map(_ABSENT.match, line[4:].split(", "))):
                label = labels.get(match[1], match[1].replace(" ", "_"))
                statements.append(Statement(label, False, float(match[2]) if match[2] else None))
        elif not _NOTHING.match(line):
            statements.append(_statement(line, labels))
    return ReadText(tuple(statements), tuple(failures), left_out)


def describe_call(call: Call) -> str:
    """What an expert gave back: its findings, a line each, or that it failed."""
    if call.failure:
        return f"{call.expert} failed: {' '.join(call.failure.split())}"
    return "\n".join(describe_finding(finding) for finding in call.findings) or f"{call.expert}: nothing"


def describe_card(card: ExpertCard) -> str:
    """One line of the prompt: what can be called, with which arguments."""
    return f"{card.name}({' | '.join(card.arguments)}): {' '.join(card.task.split())}"


_CARD = re.compile(r"([\w.-]+)\(([^()]*)\): (.*)$")


def read_card(line: str) -> tuple[str, tuple[str, ...], str]:
    """The inverse of `describe_card`: name, arguments and task; raises InputError for a line of another form."""
    match = _CARD.match(line)
    if not match:
        raise InputError("a line that is no card", "'name(argument | argument): task'")
    return match[1], tuple(match[2].split(" | ")), match[3]


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
