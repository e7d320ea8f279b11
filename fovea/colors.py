"""The colour of each label: the same in every picture, with a name, so that a legend can be read."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from functools import lru_cache
from hashlib import sha256
from types import MappingProxyType

from fovea.types import Finding, Term
from fovea.verbal import words

Color = tuple[int, int, int]

NAMES: Mapping[str, Color] = MappingProxyType(
    {
        "black": (0, 0, 0), "gray": (128, 128, 128), "light gray": (200, 200, 200), "white": (255, 255, 255),
        "dark red": (140, 0, 0), "red": (255, 40, 40), "vermilion": (213, 94, 0), "salmon": (238, 119, 119),
        "orange": (255, 140, 0), "amber": (255, 170, 0), "apricot": (250, 180, 90), "tan": (200, 130, 60),
        "brown": (166, 86, 40), "dark brown": (100, 60, 20), "olive": (128, 128, 0), "gold": (255, 215, 0),
        "yellow": (240, 228, 66), "sand": (221, 204, 119), "yellow green": (190, 230, 60), "lime": (188, 246, 12),
        "bright green": (90, 255, 120), "green": (127, 201, 127), "dark green": (0, 120, 30), "mint": (170, 255, 195),
        "teal": (0, 158, 115), "sea green": (68, 170, 153), "cyan": (70, 240, 240), "pale cyan": (160, 255, 255),
        "pale blue": (153, 187, 255), "sky blue": (86, 180, 233), "blue": (0, 110, 255), "dark blue": (0, 114, 178),
        "navy": (51, 34, 136), "slate": (117, 112, 179), "light violet": (170, 90, 255), "violet": (145, 30, 180),
        "purple": (128, 0, 128), "lilac": (220, 190, 255), "magenta": (255, 0, 255), "pale magenta": (240, 150, 255),
        "rose": (255, 0, 200), "mauve": (204, 121, 167), "wine": (136, 34, 85), "hot pink": (255, 105, 180),
        "pink": (250, 190, 212),
    }
)  # fmt: skip
"""Colours that have a name of their own; others take that of the nearest."""

SAFE: tuple[Color, ...] = (
    (230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66), (0, 114, 178), (213, 94, 0), (204, 121, 167),
    (17, 119, 51), (68, 170, 153), (136, 204, 238), (221, 204, 119), (204, 102, 119), (170, 68, 153),
    (119, 170, 221), (153, 221, 255), (187, 204, 51), (170, 170, 0), (238, 221, 136), (238, 136, 102),
    (255, 170, 187),
)  # fmt: skip
"""For labels of no vocabulary, told apart by the colour-blind: Okabe and Ito 2008, then "muted" and "light" of P. Tol's
"Colour Schemes" (SRON/EPS/TN/09-002, 2021), without those too dark to be seen over a radiograph."""
_APART = 60.0


def color_of(label: str, vocabulary: Iterable[Term]) -> Color:
    """The colour of a label: its term's, or one of SAFE that its name decides and that is far from all terms' colours.

    Two labels of no vocabulary may share one; their legend says so.
    """
    terms = {term.label: term.color for term in vocabulary}
    if label in terms:
        return terms[label]
    choice = _free(frozenset(terms.values()))
    return choice[int.from_bytes(sha256(label.encode()).digest()[:4], "big") % len(choice)]


@lru_cache(maxsize=16)
def _free(used: frozenset[Color]) -> tuple[Color, ...]:
    """Those of SAFE that are far from all that are used; all where none is."""
    return tuple(color for color in SAFE if all(_distance(color, other) >= _APART for other in used)) or SAFE


def name_of(color: Color) -> str:
    """The name of the nearest colour that has one."""
    return min(NAMES, key=lambda name: _distance(NAMES[name], color))


def legend(findings: Iterable[Finding], vocabulary: Iterable[Term]) -> str:
    """What the colours of an overlay stand for: "brown: liver; gold: liver lesion", or "" where nothing is drawn.

    Colours of one name carry their code, "red (#ff2828)".
    """
    terms = tuple(vocabulary)
    shown: dict[Color, dict[str, None]] = {}
    for finding in findings:
        if drawn(finding):
            shown.setdefault(color_of(finding.label, terms), {})[words(finding.label)] = None
    names = [name_of(color) for color in shown]
    entries = []
    for (color, labels), name in zip(shown.items(), names, strict=True):
        code = " (#{:02x}{:02x}{:02x})".format(*color) if names.count(name) > 1 else ""
        entries.append(f"{name}{code}: {' and '.join(labels)}")
    return "; ".join(entries)


def drawn(finding: Finding) -> bool:
    """Whether an overlay shows a finding."""
    return finding.present and (finding.region is not None or bool(finding.instances))


def _distance(a: Color, b: Color) -> float:
    """How different two colours look: the weighted distance in RGB of T. Riemersma ("Colour metric", 2012)."""
    red = (a[0] + b[0]) / 2
    weights = (2 + red / 256, 4.0, 2 + (255 - red) / 256)
    return math.sqrt(sum(w * (x - y) ** 2 for w, x, y in zip(weights, a, b, strict=True)))
