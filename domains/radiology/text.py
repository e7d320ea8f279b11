"""Questions about radiological studies, their answers, and the prompt line.

An answer is one short sentence in which `fovea.verbal.read_value` finds its value again; a report has one a label.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from random import Random

from domains.radiology.vocabulary import ORGANS, TERMS
from fovea.types import Facts, Finding, Kind, Question, Reply, Study
from fovea.verbal import NONE, figure, number, words

_ABSENT = 1 / 6
"""For every measuring question about what is there, how many about what is not: one in seven of all."""
_SYNONYM = 0.3
"""How often a question uses a synonym."""
_SIZES: dict[str, tuple[str, ...]] = {
    "heart": ("cardiothoracic_ratio",),
    "nodule": ("longest_diameter",),
    "liver": ("volume",),
    "spleen": ("volume",),
    "left_kidney": ("volume",),
    "right_kidney": ("volume",),
    "liver_lesion": ("longest_diameter", "volume"),
    "kidney_lesion": ("longest_diameter",),
}
_AREAS = ("pleural_effusion", "pneumothorax")
_SIDED = (
    "pleural_effusion", "pneumothorax", "nodule", "consolidation", "ground_glass_opacity", "kidney_lesion",
)  # fmt: skip
_COUNTED = ("nodule", "liver_lesion", "kidney_lesion")
_UNCOUNTABLE = (
    "air", "ards", "cardiomegaly", "covid-19", "disease", "enlargement", "fluid", "hardware", "hydrothorax",
    "infection", "klebsiella", "mycoplasma", "pneumocystis", "pneumonia", "streptococcus", "syndrome",
)  # fmt: skip
_SHOWN = {"covid_19": "COVID-19", "ground_glass_opacity": "ground-glass opacity"}
_MODALITIES = {
    "CT": "CT", "MR": "MR", "DX": "radiograph", "CR": "radiograph", "RG": "radiograph", "MG": "mammogram",
    "US": "ultrasound", "PT": "PET", "NM": "scintigram", "XA": "angiogram", "RF": "fluoroscopy",
}  # fmt: skip

_PRESENCE = (
    "Is there {a}?", "Is {a} present?", "Do you see {a}?", "Does the study show {a}?", "Can {a} be seen?",
    "Is {a} visible?", "Are there signs of {a}?", "Does this patient have {a}?", "Would you report {a}?",
)  # fmt: skip
_NORMAL = (
    "Is this study normal?", "Is the chest normal?", "Is the study free of abnormalities?",
    "Does everything look normal?", "Would you call this study unremarkable?",
)  # fmt: skip
_SIDE = (
    "On which side is the {n}?", "Which side shows the {n}?", "Where is the {n}?", "Which side has the {n}?",
    "Which side is affected by the {n}?", "Name the side of the {n}.", "On what side do you see the {n}?",
)  # fmt: skip
_COUNT = (
    "How many {ns} are there?", "Count the {ns}.", "What is the number of {ns}?", "How many {ns} can be seen?",
    "Give the number of {ns}.", "How many {ns} does the study show?", "How many {ns} do you count?",
)  # fmt: skip
_MEASURES = {
    "longest_diameter": (
        "How large is the largest {n}?", "What is the longest diameter of the {n}?", "Measure the largest {n}.",
        "How many millimetres does the largest {n} measure?", "Give the diameter of the largest {n} in millimetres.",
        "What is the size of the largest {n}?", "How big is the {n}?",
    ),
    "volume": (
        "What is the volume of the {n}?", "Measure the volume of the {n}.", "What volume does the {n} have?",
        "Give the volume of the {n} in millilitres.", "How many millilitres does the {n} have?",
        "How much volume has the {n}?",
    ),
    "cardiothoracic_ratio": (
        "What is the cardiothoracic ratio?", "Give the cardiothoracic ratio.", "Measure the cardiothoracic ratio.",
        "How wide is the heart in relation to the chest?",
        "What is the ratio of the heart's width to that of the chest?", "Work out the cardiothoracic ratio.",
    ),
    "area": (
        "What is the area of the {n}?", "How large is the {n}?", "Measure the area of the {n}.",
        "How many square centimetres does the {n} cover?", "Give the area of the {n} in square centimetres.",
        "What area does the {n} cover?",
    ),
}  # fmt: skip
_REPORT = (
    "Write a report.", "Describe the findings.", "What does the study show?", "Report this study.",
    "Give a full report.", "Summarise the findings.", "What are the findings?", "Please report what you see.",
)  # fmt: skip


def name(label: str) -> str:
    """A label as it is written in a sentence."""
    return _SHOWN.get(label, words(label))


def a(noun: str) -> str:
    """A noun with its article, if it takes one."""
    if not {word.lower() for word in noun.split()}.isdisjoint(_UNCOUNTABLE):
        return noun
    return f"{'an' if noun[0].lower() in 'aeiou' or noun.startswith(('X-', 'MR')) else 'a'} {noun}"


def plural(noun: str) -> str:
    """More than one of a countable noun."""
    return noun + ("es" if noun.endswith("s") else "s")


def describe(study: Study) -> str:
    """Modality, part of the body, view, slices, and the size of a pixel: "Chest radiograph, PA view, …"."""
    grid, meta = study.images[0].grid, study.meta
    slices, rows, columns = grid.shape
    kind = _MODALITIES.get(study.modality, "image")
    part = meta.get("body_part", "")
    what = f"{part} {kind}" if part else kind
    size = f" of {number(grid.spacing[1])} mm" if grid.physical else " of unknown size"
    apart = f" every {number(grid.spacing[0])} mm" if grid.physical and slices > 1 else ""
    view = meta.get("view", "")
    parts = (
        what[0].upper() + what[1:],
        f"{meta['laterality']} side" if meta.get("laterality") in ("left", "right") else "",
        f"{view if view.isupper() and len(view) < 4 else view.lower()} view" if view else "",
        f"{slices} slices{apart}" if slices > 1 else "",
        f"{columns} x {rows} pixels{size}",
    )
    return ", ".join(part for part in parts if part) + "."


def questions(study: Study, facts: Facts, rng: Random) -> list[Question]:  # noqa: ARG001  (the contract's arguments)
    """Questions that the facts can answer, in random wording and order: presence of what is there and of as much that
    is not, every measurement, and some measurements of what is not there."""
    present = [finding for finding in facts.findings if finding.present]
    named = {finding.label for finding in present}
    absent = [label for label in TERMS if label in facts.assessed - named and label not in ORGANS]
    there = [finding.label for finding in present if finding.label not in ORGANS]
    asked = [
        Question("presence", _worded(rng, _NORMAL if label == "no_finding" else _PRESENCE, label), label)
        for label in (*there, *rng.sample(absent, min(len(absent), max(1, len(there)))))
    ]
    missing = [slot for label in absent for slot in _slots(label)]
    for finding in present:
        for kind, label, measure in _slots(finding.label):
            if not _known(finding, kind, measure):
                continue
            asked.append(_measuring(rng, kind, label, measure))
            if missing and rng.random() < _ABSENT:
                asked.append(_measuring(rng, *rng.choice(missing)))
    asked.append(Question("report", rng.choice(_REPORT)))
    unique = list({(q.kind, q.label, q.measure): q for q in asked}.values())
    rng.shuffle(unique)
    return unique


def answer(question: Question, facts: Facts) -> Reply:
    """The answer that the facts give; what they do not name counts as absent, and a measure that they lack as NONE."""
    label = question.label
    if question.kind == "report":
        return _report(facts)
    found = facts.finding(label)
    if label == "no_finding":
        return Reply("Yes, it is normal." if found else "No, it is not normal.", bool(found))
    if question.kind == "presence":
        return Reply(f"Yes, there is {a(name(label))}." if found else f"No, there is no {name(label)}.", bool(found))
    if question.kind == "count":
        count = count_of(found) if found else 0
        return Reply(
            f"There are no {name(label)}s." if not count else f"There {_be(count)} {_counted(label, count)}.", count
        )
    if not found:
        return Reply(f"There is no {name(label)}.", NONE)
    if question.kind == "side":
        if not found.location:
            return Reply(f"No side is known for the {name(label)}.", NONE)
        count = count_of(found)
        return Reply(f"The {_noun(label, count)} {_be(count)} {place(found)}.", found.location)
    measure = found.measure(question.measure)
    if measure is None:
        return Reply(f"No {words(question.measure)} is known for the {name(label)}.", NONE)
    of = "" if label == "heart" else f" of the {_noun(label, count_of(found))}"
    return Reply(f"The {words(measure.name)}{of} is {figure(measure)}.", float(number(measure.value)), measure.unit)


def place(finding: Finding) -> str:
    """The side of a finding in words: "on the left", "on both sides"."""
    return "on both sides" if finding.location == "both" else f"on the {finding.location}"


def _slots(label: str) -> Iterator[tuple[Kind, str, str]]:
    """What can be measured of a label: kind of question, label, measure."""
    if label in _SIDED:
        yield "side", label, ""
    if label in _COUNTED:
        yield "count", label, ""
    if label in _AREAS:
        yield "area", label, "area"
    for measure in _SIZES.get(label, ()):
        yield "size", label, measure


def _known(finding: Finding, kind: Kind, measure: str) -> bool:
    if kind == "side":
        return bool(finding.location)
    return finding.measure("count" if kind == "count" else measure) is not None


def _measuring(rng: Random, kind: Kind, label: str, measure: str) -> Question:
    templates = {"side": _SIDE, "count": _COUNT}.get(kind) or _MEASURES[measure]
    return Question(kind, _worded(rng, templates, label), label, measure)


def _worded(rng: Random, templates: Sequence[str], label: str) -> str:
    synonyms = TERMS[label].synonyms
    countable = [noun for noun in synonyms if a(noun) != noun] if label in _COUNTED else synonyms
    noun = rng.choice(countable) if countable and rng.random() < _SYNONYM else name(label)
    return rng.choice(templates).format(a=a(noun), n=noun, ns=plural(noun))


def _be(count: int) -> str:
    return "is" if count == 1 else "are"


def _noun(label: str, count: int) -> str:
    return name(label) if count == 1 else plural(name(label))


def _counted(label: str, count: int) -> str:
    return f"{count} {_noun(label, count)}"


def count_of(finding: Finding) -> int:
    """How many instances a present finding has: at least one."""
    count = finding.measure("count")
    return max(1, round(count.value)) if count else 1


def _report(facts: Facts) -> Reply:
    """One sentence a label, in the order of the vocabulary: what is there, with its measures, and what is not."""
    sentences, named = [], []
    for label in TERMS:
        found = facts.finding(label)
        if found and (sentence := _organ(found) if label in ORGANS else _statement(found)):
            sentences.append(sentence)
            named.append(label)
        elif not found and label in facts.assessed and label not in (*ORGANS, "no_finding"):
            sentences.append(f"No {name(label)}.")
    return Reply(" ".join(sentences) or "There is nothing to report.", frozenset(named))


def _organ(finding: Finding) -> str:
    """Such as "The liver has a volume of 1450 mL."; empty when nothing was measured."""
    measures = [finding.measure(kind) for kind in _SIZES.get(finding.label, ())]
    said = " and ".join(f"a {words(measure.name)} of {figure(measure)}" for measure in measures if measure)
    return f"The {name(finding.label)} has {said}." if said else ""


def _statement(finding: Finding) -> str:
    """Such as "There are 2 nodules on both sides, the largest 12.4 mm."."""
    label, count = finding.label, finding.measure("count")
    if label == "no_finding":
        return "The study shows no finding."
    several = count_of(finding)
    what = _counted(label, several) if count and label in _COUNTED else a(name(label))
    side = f" {place(finding)}" if finding.location else ""
    size = finding.measure("longest_diameter")
    largest = f", the largest {figure(size)}" if size else ""
    area, volume = finding.measure("area"), finding.measure("volume")
    amounts = (f", {figure(area)}" if area else "") + (f", {figure(volume)} in all" if volume else "")
    return f"There {_be(several) if count and label in _COUNTED else 'is'} {what}{side}{largest}{amounts}."
