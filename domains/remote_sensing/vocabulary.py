"""The closed labels of optical scenes: land cover and objects, with codes, synonyms, what is seen, and colours.

Codes are the class numbers of ESA WorldCover 10 m v200 (scheme "WORLDCOVER") where a label is one of its
classes, and our own table otherwise: scheme "FOVEA", or "99FOVEA" where experts without a vocabulary tell a label.
Synonyms are such that they can stand for the label in a sentence: mass nouns, or nouns with a plural in "s".
"""

from __future__ import annotations

from fovea.types import Code, Term
from fovea.verbal import words


def _term(
    label: str,
    code: tuple[str, str, str],
    synonyms: tuple[str, ...],
    descriptors: tuple[str, ...],
    color: tuple[int, int, int],
) -> Term:
    return Term(label, Code(*code), synonyms, descriptors, color, ("optical",))


VOCABULARY: tuple[Term, ...] = (
    _term(
        "water",
        ("WORLDCOVER", "80", "Permanent water bodies"),
        ("open water", "surface water"),
        ("dark smooth surface", "still dark blue surface"),
        (0, 110, 255),
    ),
    _term(
        "forest",
        ("WORLDCOVER", "10", "Tree cover"),
        ("woodland", "tree cover"),
        ("dark green canopy", "rough dark green texture"),
        (0, 120, 30),
    ),
    _term(
        "cropland",
        ("WORLDCOVER", "40", "Cropland"),
        ("farmland", "arable land"),
        ("patchwork of fields", "straight-edged parcels"),
        (240, 150, 255),
    ),
    _term(
        "grassland",
        ("WORLDCOVER", "30", "Grassland"),
        ("grass", "pasture"),
        ("light green open ground", "smooth pale green ground"),
        (190, 230, 60),
    ),
    _term(
        "bare_soil",
        ("WORLDCOVER", "60", "Bare / sparse vegetation"),
        ("bare ground", "bare land", "unpaved land"),
        ("bright brown ground", "pale ground without plants"),
        (200, 130, 60),
    ),
    _term(
        "built_up",
        ("WORLDCOVER", "50", "Built-up"),
        ("built-up land", "urban land"),
        ("dense gray blocks", "fine gray pattern"),
        (255, 40, 40),
    ),
    _term(
        "road",
        ("FOVEA", "RS-ROAD", "Road"),
        ("street", "paved track"),
        ("thin gray line", "narrow straight band"),
        (255, 255, 255),
    ),
    _term(
        "cloud",
        ("FOVEA", "RS-CLOUD", "Cloud"),
        (),
        ("white diffuse patch", "bright white veil"),
        (160, 255, 255),
    ),
    _term(
        "vegetation",
        ("FOVEA", "RS-VEGETATION", "Vegetation of any kind"),
        ("plant cover", "greenery"),
        ("green ground", "green patches"),
        (90, 255, 120),
    ),
    _term(
        "building",
        ("FOVEA", "RS-BUILDING", "Building"),
        ("house",),
        ("bright rectangle", "roof with sharp corners"),
        (255, 170, 0),
    ),
    _term(
        "ship",
        ("FOVEA", "RS-SHIP", "Ship"),
        ("vessel", "boat"),
        ("bright elongated spot", "narrow bright shape"),
        (255, 0, 200),
    ),
    _term(
        "tree",
        ("FOVEA", "RS-TREE", "Single tree"),
        ("tree crown",),
        ("round dark crown", "round green blob with a shadow"),
        (170, 90, 255),
    ),
    _term(
        "low_severity_burn",
        ("99FOVEA", "low_severity_burn", "low severity burn"),
        ("lightly burned land", "slightly scorched ground"),
        ("brown patches between live plants",),
        (170, 255, 195),
    ),
    _term(
        "moderate_low_severity_burn",
        ("99FOVEA", "moderate_low_severity_burn", "moderate low severity burn"),
        ("fairly burned land",),
        ("brown ground with some green left",),
        (255, 215, 0),
    ),
    _term(
        "moderate_high_severity_burn",
        ("99FOVEA", "moderate_high_severity_burn", "moderate high severity burn"),
        ("badly burned land",),
        ("dark brown ground with little green",),
        (166, 86, 40),
    ),
    _term(
        "high_severity_burn",
        ("99FOVEA", "high_severity_burn", "high severity burn"),
        ("charred land",),
        ("black ground without plants",),
        (140, 0, 0),
    ),
)

TERMS = {term.label: term for term in VOCABULARY}
COUNTED = frozenset({"building", "ship", "tree"})
"""Labels of single objects, which are counted."""
SIZED = {"ship": ("length", "m")}
"""Labels whose longest object is measured, with the measure and its unit."""
PLURAL = {"road": "roads", "cloud": "clouds", "building": "buildings", "ship": "ships", "tree": "trees"}
"""Labels that stand in the plural."""


def name(label: str) -> str:
    """The label as it stands in a sentence: "water", "built up land", "ships"."""
    return PLURAL.get(label) or ("built up land" if label == "built_up" else words(label))
