"""Captions of radiological studies: what is visible at a glance, and what is not there, in words that vary.

A caption gives no number, and is silent on findings too small for the eye of a model that sees little of the image.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from domains.radiology.text import a, count_of, name, place, plural
from domains.radiology.vocabulary import ORGANS, TERMS
from fovea.types import Facts, Finding, Study

_KINDS = {
    "CT": ("CT", "CT scan", "CT study", "CT examination"),
    "MR": ("MR scan", "MR study", "MR examination"),
    "DX": ("radiograph", "X-ray", "plain film", "radiographic image"),
}
_OPENINGS = ("{angle} {noun}.", "{kind}{of_part}{view}.", "This is {a_noun}{view}.", "Shown is {a_noun}{view}.")
_SEEN = (
    "There {be} {what}{side}.", "{What}{side} {be} seen.", "The {kind} shows {what}{side}.",
    "{What} can be made out{side}.", "One sees {what}{side}.", "{What}{side}.",
)  # fmt: skip
_DESCRIBED = ("{Descriptor}{side}: {what}.", "{What}{side}, seen as {descriptor}.", "{What}{side}, with {descriptor}.")
_DENIED = ("No {x}.", "There is no {x}.", "No sign of {x}.", "No {x} is seen.", "There is no evidence of {x}.")
_ORGANS = ("The {x} is in view.", "The {x} is seen.", "The {kind} takes in the {x}.", "Visible organ: {x}.")
_NARROW = (
    "The heart is of normal size.", "Normal width of the heart.", "The heart is not enlarged.",
    "The {kind} shows a heart of normal size.", "The heart is slender.",
)  # fmt: skip
_NORMAL = (
    "The {kind} shows no finding.", "An unremarkable chest.", "A normal chest, with {descriptor}.",
    "An unremarkable chest, with {descriptor}.", "Normal chest.",
)  # fmt: skip
_VISIBLE = {"nodule": 15.0, "liver_lesion": 20.0, "kidney_lesion": 20.0}
"""Longest diameter in mm from which a finding is described."""
_EXTENT: dict[str, Sequence[tuple[str, float, tuple[str, ...]]]] = {
    "area": (
        ("area", 60, ("large", "extensive", "marked")),
        ("area", 20, ("moderate",)),
        ("area", 0, ("small", "slight")),
    ),
    "liver": (("volume", 2000, ("large", "enlarged")), ("volume", 1100, ("",)), ("volume", 0, ("small",))),
    "spleen": (("volume", 400, ("large", "enlarged")), ("volume", 100, ("",)), ("volume", 0, ("small",))),
}
"""The words for a measure above a limit, largest first: cm2 of a projection, mL of an organ."""


def caption(study: Study, facts: Facts, rng: Random) -> str:
    """An opening and the visible findings with their side, extent and looks, organs, and some of what is absent."""
    kind = rng.choice(_KINDS.get("DX" if study.modality == "CR" else study.modality, ("image",)))
    present = [finding for finding in facts.findings if finding.present]
    shown = [finding for finding in present if finding.label not in ORGANS and _visible(finding)]
    organs = [finding for finding in present if finding.label in ORGANS]
    sentences = [_finding(finding, kind, rng) for finding in shown]
    if any(finding.label == "heart" for finding in organs) and not facts.finding("cardiomegaly"):
        sentences.append(rng.choice(_NARROW).format(kind=kind))
    elif organs and (not shown or rng.random() < 0.6):
        sentences += [_organ(finding, kind, rng) for finding in rng.sample(organs, rng.randint(1, min(2, len(organs))))]
    named = {finding.label for finding in present}
    absent = [label for label in TERMS if label in facts.assessed - named and label not in (*ORGANS, "no_finding")]
    for label in rng.sample(absent, rng.randint(0, min(3, len(absent)))):
        sentences.append(rng.choice(_DENIED).format(x=_noun(label, rng)))
    rng.shuffle(sentences)
    return " ".join([_opening(study, facts, kind, rng), *sentences])


def _visible(finding: Finding) -> bool:
    size = finding.measure("longest_diameter")
    return size is None or size.value >= _VISIBLE.get(finding.label, 0)


def _opening(study: Study, facts: Facts, kind: str, rng: Random) -> str:
    view = facts.attributes.get("view") or study.meta.get("view", "")
    words = {
        "PA": ("PA", "posteroanterior", "frontal"),
        "AP": ("AP", "anteroposterior", "frontal"),
        "LATERAL": ("lateral",),
    }.get(view, ("",))
    angle = rng.choice(words) if rng.random() < 0.8 else ""
    usual = "chest" if study.modality in ("DX", "CR") else ""
    part = study.meta.get("body_part", usual)
    noun = f"{part} {kind}".strip()
    text = rng.choice(_OPENINGS).format(
        angle=angle,
        view=f", {angle} view" if angle else "",
        noun=noun,
        a_noun=a(noun),
        of_part=f" of the {part}" if part else "",
        kind=kind,
    )
    return _capital(" ".join(text.split()))


def _finding(finding: Finding, kind: str, rng: Random) -> str:
    descriptors = TERMS[finding.label].descriptors
    if finding.label == "no_finding":
        return rng.choice(_NORMAL).format(kind=kind, descriptor=rng.choice(descriptors))
    several = finding.label in _VISIBLE and count_of(finding) > 1
    noun = plural(name(finding.label)) if several else _noun(finding.label, rng)
    extent = rng.choice(_extent(finding)) if rng.random() < 0.6 else ""
    what = noun if several else a(f"{extent} {noun}" if extent and a(noun) != noun else noun)
    side = f" {place(finding)}" if finding.location and rng.random() < 0.85 else ""
    described = descriptors and not several and rng.random() < 0.5
    descriptor = rng.choice(descriptors) if described else ""
    return rng.choice(_DESCRIBED if described else _SEEN).format(
        what=what,
        What=_capital(what),
        be="are" if several else "is",
        side=side,
        kind=kind,
        descriptor=descriptor,
        Descriptor=_capital(descriptor),
    )


def _organ(finding: Finding, kind: str, rng: Random) -> str:
    extent = rng.choice(_extent(finding))
    noun = _noun(finding.label, rng)
    return rng.choice(_ORGANS).format(x=f"{extent} {noun}".strip(), kind=kind)


def _extent(finding: Finding) -> tuple[str, ...]:
    """Words for how large a finding is; one empty word where nothing is to be said."""
    steps = _EXTENT.get(finding.label) or (_EXTENT["area"] if finding.measure("area") else ())
    for measure, limit, found in steps:
        value = finding.measure(measure)
        if finding.label not in ("left_lung", "right_lung", "heart") and value and value.value >= limit:
            return found
    return ("",)


def _noun(label: str, rng: Random) -> str:
    """The label or one of its synonyms."""
    return rng.choice((name(label), name(label), *TERMS[label].synonyms))


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
