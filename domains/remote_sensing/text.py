"""Questions about optical scenes, their answers, and the prompt line.

An answer is one short sentence in which `fovea.verbal.read_value` finds its value again: a number as
`fovea.verbal.number` writes it, or a label or place by its own name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from random import Random

from domains.remote_sensing.vocabulary import COUNTED, PLURAL, SIZED, TERMS, name
from fovea.errors import InputError
from fovea.types import Facts, Finding, Kind, Question, Reply, Study
from fovea.verbal import NONE, figure, words

_ABSENT = 1 / 7
"""Share of the measuring questions that ask about something that is not there."""
_UNITS = {"ha": "hectares", "m2": "square metres", "m": "metres"}
_KINDS = {"optical": "Optical scene", "elevation": "Elevation model", "classes": "Map of classes"}

_PRESENCE = (
    "{Is} there {x} in the scene?", "Can you see any {x}?", "Does the scene show any {x}?", "{Is} any {x} visible?",
    "Do you find {x} here?", "Does this image contain {x}?", "{Is} {x} present in this area?",
    "Does any part of the image show {x}?",
)  # fmt: skip
_SIDE = (
    "In which quadrant {is} most of the {x}?", "Where {do} most of the {x} lie?",
    "Which quarter of the scene holds most of the {x}?", "Where in the scene {is} the {x} mainly found?",
    "In what part of the image {is} the {x} concentrated?", "Towards which corner {do} most of the {x} lie?",
)  # fmt: skip
_COUNT = (
    "How many {x} are there?", "Count the {x}.", "What is the number of {x} in the scene?",
    "How many {x} can be counted?", "Give the number of {x}.", "How many {x} does the image show?",
)  # fmt: skip
_SIZE = (
    "How long is the longest {one}?", "What is the length of the longest {one}?", "Measure the longest {one}.",
    "Give the length of the longest {one} in {unit}.", "How many {unit} long is the longest {one}?",
    "What length does the longest {one} have?",
)  # fmt: skip
_AREA = (
    "What area {do} the {x} cover?", "How many {unit} {do} the {x} cover?", "How large is the area of the {x}?",
    "Give the area of the {x} in {unit}.", "What is the total area of the {x}?",
    "How many {unit} {is} taken up by the {x}?",
)  # fmt: skip
_FRACTION = (
    "What percentage of the scene is covered by {x}?", "How many percent of the scene {do} the {x} cover?",
    "What share of the image is covered by {x}, in percent?", "Give the share of {x} in the scene in percent.",
    "How much of the scene, in percent, is taken up by {x}?",
)  # fmt: skip
_CLASS = (
    "What is the dominant land cover?", "Which land cover takes up most of the scene?",
    "What mostly covers the ground here?", "Which class prevails in this image?",
    "What kind of land does the scene mainly show?", "Name the main land cover.",
)  # fmt: skip
_REPORT = (
    "Describe the scene.", "Write a report of this scene.", "What does the image show?",
    "Report what is found in the scene.", "Give a full report.", "Summarise the findings of this scene.",
)  # fmt: skip


def describe(study: Study) -> str:
    """Modality, sensor, date, size of the scene and of its pixels, and the bands."""
    image, meta = study.images[0], study.meta
    rows, columns = image.grid.shape[1:]
    names = [channel.name for channel in image.channels]
    parts = (
        _KINDS.get(study.modality, "Raster"),
        meta.get("sensor", ""),
        meta.get("date", "") or " to ".join(meta[key] for key in ("date_before", "date_after") if key in meta),
        f"{columns} x {rows} pixels of {meta.get('resolution', 'unknown size')}",
        f"bands {' '.join(names)}" if len(names) <= 14 else f"{len(names)} bands",
    )
    return ", ".join(part for part in parts if part) + "."


def questions(study: Study, facts: Facts, rng: Random) -> list[Question]:
    """Questions that the facts can answer, in random wording and order; none is asked twice."""
    present = [f for f in facts.findings if f.present]
    absent = sorted(facts.assessed - {f.label for f in present})
    objects = [label for label in absent if label in COUNTED]
    asked = [
        Question("presence", _worded(rng, _PRESENCE, label), label)
        for label in (*_some(rng, [f.label for f in present], 2), *_some(rng, absent, 2))
    ]
    slots: tuple[tuple[Kind, list[str], list[str], int], ...] = (
        ("side", [f.label for f in present if f.location], absent, 2),
        ("count", [f.label for f in present if f.measure("count")], objects, 2),
        ("size", [f.label for f in present if _size(f)], [label for label in objects if label in SIZED], 1),
        ("area", [f.label for f in present if _area(f)], [label for label in absent if label not in SIZED], 2),
    )
    for kind, there, missing, n in slots:
        for label in _some(rng, there, n):
            other = rng.choice(missing) if missing and rng.random() < _ABSENT else label
            asked.append(_measuring(kind, other, facts, study.images[0].grid.physical, rng))
    if _dominant(facts):
        asked.append(Question("class", rng.choice(_CLASS)))
    asked.append(Question("report", rng.choice(_REPORT)))
    unique = list({(q.kind, q.label): q for q in asked}.values())
    rng.shuffle(unique)
    return unique


def answer(question: Question, facts: Facts) -> Reply:
    """The answer that the facts give; raises InputError when a finding lacks what is asked for."""
    if question.kind == "report":
        return _report(facts)
    if question.kind == "class":
        return _class(facts)
    found = facts.finding(question.label)
    be = "are" if question.label in PLURAL else "is"
    if question.kind == "presence":
        said = f"Yes, there {be} {name(question.label)}." if found else f"No, there {be} no {name(question.label)}."
        return Reply(said, bool(found))
    if not found:
        return Reply(f"There {be} no {name(question.label)}.", 0 if question.kind == "count" else NONE)
    answers: Mapping[Kind, Callable[[Finding, str], Reply]] = {
        "side": _side, "count": _count, "size": _measured, "area": _measured,
    }  # fmt: skip
    return answers[question.kind](found, question.measure)


def share(finding: Finding) -> float:
    """The part of the scene that a finding covers; 0 where that is not known."""
    fraction = finding.measure("fraction")
    return fraction.value if fraction else 0.0


def _some(rng: Random, labels: Iterable[str], n: int) -> list[str]:
    pool = list(labels)
    return rng.sample(pool, min(n, len(pool)))


def _worded(rng: Random, templates: Sequence[str], label: str, unit: str = "") -> str:
    """A template filled with the label, or now and then with a synonym of it."""
    one, many, plural = words(label), name(label), label in PLURAL
    if TERMS[label].synonyms and rng.random() < 0.3:
        one = many = rng.choice(TERMS[label].synonyms)
        many = f"{one}s" if plural else one
    is_, do = ("are", "do") if plural else ("is", "does")
    forms = {"x": many, "one": one, "unit": _UNITS.get(unit, unit), "do": do, "is": is_, "Is": is_.capitalize()}
    return rng.choice(templates).format(**forms)


def _measuring(kind: Kind, label: str, facts: Facts, physical: bool, rng: Random) -> Question:
    if kind in ("side", "count"):
        return Question(kind, _worded(rng, _SIDE if kind == "side" else _COUNT, label), label)
    found = facts.finding(label)
    if kind == "size":
        measure, unit = (found and _size(found)) or SIZED[label]
        return Question(kind, _worded(rng, _SIZE, label, unit), label, measure)
    usual = ("area", "m2" if label in COUNTED else "ha") if physical else ("fraction", "%")
    measure, unit = (found and _area(found)) or usual
    return Question(kind, _worded(rng, _AREA if measure == "area" else _FRACTION, label, unit), label, measure)


def _size(finding: Finding) -> tuple[str, str] | None:
    """The measure of the size of an object, and its unit."""
    size = finding.measure(SIZED[finding.label][0]) if finding.label in SIZED else None
    return (size.name, size.unit) if size else None


def _area(finding: Finding) -> tuple[str, str] | None:
    """The measure of the area and its unit: the share of the scene where no area is known."""
    area = finding.measure("area")
    if area:
        return "area", area.unit
    return ("fraction", "%") if finding.measure("fraction") else None


def _figure(finding: Finding, measure: str) -> tuple[str, str]:
    """A measure as it is written, and its unit; fractions in percent."""
    found = finding.measure(measure)
    if found is None:
        raise InputError(f"{words(finding.label)} without its {words(measure)}", "a finding with that measure")
    text, _, unit = figure(found).partition(" ")
    return text, unit


def _side(finding: Finding, _: str) -> Reply:
    if not finding.location:
        raise InputError(f"{words(finding.label)} without its place", "a finding with a location")
    be = "are" if finding.label in PLURAL else "is"
    return Reply(f"Most of the {name(finding.label)} {be} in the {finding.location}.", finding.location)


def _count(finding: Finding, _: str) -> Reply:
    count, text = _counted(finding)
    return Reply(f"There {'is' if count == 1 else 'are'} {text}.", count)


def _counted(finding: Finding) -> tuple[int, str]:
    count = int(float(_figure(finding, "count")[0]))
    return count, f"{count} {words(finding.label) if count == 1 else name(finding.label)}"


def _measured(finding: Finding, measure: str) -> Reply:
    text, unit = _figure(finding, measure)
    if (measure, unit) == _size(finding):
        return Reply(f"The longest {words(finding.label)} is {text} {unit} long.", float(text), unit)
    if measure in ("area", "fraction"):
        return Reply(f"{_covering(finding, text, unit)}.", float(text), unit)
    return Reply(f"The {words(measure)} of the {words(finding.label)} is {text} {unit}.", float(text), unit)


def _covering(finding: Finding, text: str, unit: str) -> str:
    """Such as "Clouds cover 12 % of the scene"."""
    many = name(finding.label)
    verb = "cover" if finding.label in PLURAL else "covers"
    return f"{many[0].upper()}{many[1:]} {verb} {text} {unit}{' of the scene' if unit == '%' else ''}"


def _dominant(facts: Facts) -> str:
    """The label with the largest share of the ground; clouds are not ground."""
    shares = {f.label: share(f) for f in facts.findings if f.present and f.label != "cloud" and share(f)}
    return max(shares, key=shares.__getitem__) if shares else ""


def _class(facts: Facts) -> Reply:
    label = _dominant(facts)
    if not label:
        return Reply("There is no cover that could be named.", NONE)
    return Reply(f"The dominant land cover is {name(label)}.", label)


def _report(facts: Facts) -> Reply:
    """One sentence a label, in the order of the vocabulary, so that two reports can be compared line by line."""
    found = {f.label: f for f in facts.findings if f.present}
    asked = [label for label in TERMS if label in facts.assessed | found.keys()]
    sentences = [_statement(found[label]) if label in found else f"No {name(label)}." for label in asked]
    return Reply(" ".join(sentences) or "There is nothing to report.", frozenset(found))


def _statement(finding: Finding) -> str:
    """Such as "There are 3 ships in the north-east, the longest 42 m."."""
    place = f" in the {finding.location}" if finding.location else ""
    size, area = _size(finding), _area(finding)
    if finding.measure("count"):
        count, text = _counted(finding)
        longest = f", the longest {' '.join(_figure(finding, size[0]))}" if size else ""
        total = f" of {' '.join(_figure(finding, 'area'))}" if area and area[0] == "area" and not size else ""
        return f"There {'is' if count == 1 else 'are'} {text}{total}{place}{longest}."
    if area:
        return f"{_covering(finding, *_figure(finding, area[0]))}{f', mostly{place}' if place else ''}."
    return f"There {'are' if finding.label in PLURAL else 'is'} {name(finding.label)}{place}."
