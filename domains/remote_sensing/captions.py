"""Captions of optical scenes: what is visible, in words that vary, without any exact number."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from domains.remote_sensing.text import share
from domains.remote_sensing.vocabulary import PLURAL, TERMS, name
from fovea.types import Facts, Finding, Study
from fovea.verbal import words

_OPENINGS = (
    "A {p} image of", "A {p} scene with", "A {p} view of", "{P} image showing", "This {p} scene shows",
    "{P} picture of", "Seen from above:", "The {p} image shows",
)  # fmt: skip
_AMOUNTS = (
    (0.4, ("mostly {x}", "large expanses of {x}", "a wide area of {x}", "predominantly {x}")),
    (0.15, ("plenty of {x}", "a good deal of {x}", "broad areas of {x}")),
    (0.03, ("some {x}", "patches of {x}", "a fair bit of {x}")),
    (0.0, ("small areas of {x}", "small patches of {x}", "a trace of {x}")),
)
"""Words for a share of the scene above the limit."""
_NUMBERS = (
    (10, ("many", "a lot of", "numerous")),
    (4, ("several", "some")),
    (2, ("a few", "two or three")),
    (0, ("a single", "one")),
)
"""Words for a number of at least the limit."""
_PLACES = (" in the {}", " towards the {}", ", above all in the {}")
_OBJECTS = ("also visible: {}", "the scene also holds {}", "one can make out {}", "it contains {}")


def caption(study: Study, facts: Facts, rng: Random) -> str:
    """Main cover first, the rest by share and place, then objects by rough number and size."""
    present = [f for f in facts.findings if f.present]
    cover = sorted((f for f in present if share(f)), key=share, reverse=True)
    objects = [f for f in present if not share(f)]
    platform = rng.choice(
        ("satellite", "remote sensing") if study.images[0].grid.physical else ("birds-eye", "top-down")
    )
    opening = rng.choice(_OPENINGS).format(p=platform, P=platform.capitalize())
    if not cover:
        return f"{opening} {_listed([_number(f, rng) for f in objects]) or 'open ground'}."
    shown = [_amount(f, rng) + _place(f, rng) for f in cover[: rng.randint(3, 6)]]
    if len(shown) > 2 and rng.random() < 0.5:
        sentences = [f"{opening} {shown[0]}", f"Around it lie {_listed(shown[1:])}"]
    else:
        sentences = [f"{opening} {_listed(shown)}"]
    if objects:
        line = rng.choice(_OBJECTS).format(_listed([_number(f, rng) + _place(f, rng, _PLACES[:1]) for f in objects]))
        sentences.append(line[0].upper() + line[1:])
    return " ".join(f"{sentence}." for sentence in sentences)


def _amount(finding: Finding, rng: Random) -> str:
    """Such as "patches of woodland" or "much water, a dark smooth surface"."""
    term = TERMS[finding.label]
    noun = name(finding.label)
    if finding.label not in PLURAL and rng.random() < 0.25:
        noun = rng.choice(term.synonyms)
    text = rng.choice(next(said for limit, said in _AMOUNTS if share(finding) > limit)).format(x=noun)
    return f"{text} ({rng.choice(term.descriptors)})" if rng.random() < 0.3 else text


def _place(finding: Finding, rng: Random, places: Sequence[str] = _PLACES) -> str:
    return rng.choice(places).format(finding.location) if finding.location and rng.random() < 0.7 else ""


def _number(finding: Finding, rng: Random) -> str:
    """Such as "several small ships"."""
    measured, length = finding.measure("count"), finding.measure("length")
    count = measured.value if measured else 2
    size = "" if not length else "small " if length.value < 25 else "large " if length.value > 60 else ""
    noun = words(finding.label) if count < 2 else name(finding.label)
    return f"{rng.choice(next(said for limit, said in _NUMBERS if count >= limit))} {size}{noun}"


def _listed(parts: Sequence[str]) -> str:
    return f"{', '.join(parts[:-1])} and {parts[-1]}" if len(parts) > 1 else "".join(parts)
