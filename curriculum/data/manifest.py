"""Real files with their labels, from a JSON-lines manifest: path, kind, label, group, a line a file."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow

from curriculum.recipe import DataConfig
from experts import measure
from fovea.contracts import Domain
from fovea.errors import ConfigError
from fovea.types import Bools, Facts, Finding, Grid, Mask, Measure, Origin, Sample

TRUTH = Origin("annotation", "1")
Row = Mapping[str, Any]


def read_manifest(config: DataConfig, domain: Domain) -> list[Sample]:
    """Samples of the folders that are asked for; rows without a usable label are left out.

    A picture that stands in two folders becomes one sample, of the later file and with the facts of both. Raises
    ConfigError when the manifest or a folder's layout is unknown.
    """
    if config.path is None or not (config.path / "manifest.jsonl").is_file():
        given = "no data.path" if config.path is None else f"data.path {config.path}"
        raise ConfigError(given, "a folder with a manifest.jsonl", "Add data.path=FOLDER to the command.")
    unknown = [folder for folder in config.folders if folder not in _LAYOUTS]
    if unknown or not config.folders:
        raise ConfigError(f"data.folders {unknown}", f"some of {', '.join(_LAYOUTS)}")
    rows = [json.loads(line) for line in (config.path / "manifest.jsonl").read_text().splitlines()]
    samples: dict[tuple[str, str], Sample] = {}
    for folder in config.folders:
        for row in rows:
            if not row["path"].startswith(folder + "/"):
                continue
            facts = _LAYOUTS[folder](row, config.path, domain)
            if facts is not None:
                group = _SAME.get(row["group"], row["group"]) or row["path"]
                key = group, Path(row["path"]).stem
                before = samples[key].facts if key in samples else Facts((), frozenset())
                samples[key] = Sample(str(config.path / row["path"]), group, _joined(before, facts))
    return list(samples.values())


def _joined(before: Facts, after: Facts) -> Facts:
    """What both say; of a label that both know, what the later one says."""
    kept = tuple(finding for finding in before.findings if finding.label not in after.assessed)
    attributes = {**before.attributes, **after.attributes}
    return Facts((*kept, *after.findings), before.assessed | after.assessed, attributes)


def _finding(
    domain: Domain, label: str, mask: Bools | None = None, measures: tuple[Measure, ...] = (), location: str = ""
) -> Finding:
    code = next(term.code for term in domain.vocabulary if term.label == label)
    region = None if mask is None else Mask(mask[None])
    return Finding(label, code, True, 1.0, TRUTH, location, measures, region)


_SAME = {"p178": "p97"}
"""Groups of one patient: four of the five radiographs of p178 are p97's, published a second time."""

_PNEUMONIA = ("pneumonia",)
_BACTERIAL = ("bacterial_pneumonia", *_PNEUMONIA)
_DIAGNOSES: dict[str, tuple[str, ...]] = {
    "no finding": ("no_finding",),
    "pneumonia": _PNEUMONIA,
    "bacterial": _BACTERIAL,
    "streptococcus": ("streptococcal_pneumonia", *_BACTERIAL),
    "klebsiella": ("klebsiella_pneumonia", *_BACTERIAL),
    "mycoplasma bacterial pneumonia": ("mycoplasma_pneumonia", *_BACTERIAL),
    "legionella": _BACTERIAL,
    "pneumocystis": ("pneumocystis_pneumonia", *_PNEUMONIA),
    "covid-19": ("covid_19", *_PNEUMONIA),
    "influenza": _PNEUMONIA,
    "varicella": _PNEUMONIA,
    "lipoid": _PNEUMONIA,
    "ards": ("acute_respiratory_distress_syndrome",),
}
"""What a diagnosis says in the words of the vocabulary: itself, and what it is a kind of."""
_VAGUE = ("pneumonia", "bacterial")
"""Diagnoses without a cause: they do not exclude any."""
_VIEWS = {"PA": "PA", "AP": "AP", "AP Supine": "AP", "AP Erect": "AP"}


def _chest_findings(row: Row, root: Path, domain: Domain) -> Facts | None:  # noqa: ARG001
    """Frontal radiographs with their diagnoses, such as "COVID-19, ARDS"; causes that are not named are absent.

    CT slices, lateral views and rows without a known diagnosis are left out. Notes are not read.
    """
    label = row["label"]
    named = [name.strip().lower() for name in str(label.get("finding") or "").split(",")]
    if row["kind"] != "xray" or label.get("view") not in _VIEWS or not set(named) <= set(_DIAGNOSES):
        return None
    known = {term.label for term in domain.vocabulary}
    found = {name for diagnosis in named for name in _DIAGNOSES[diagnosis] if name in known}
    excluded = {"no_finding"} if set(named) & set(_VAGUE) else {name for names in _DIAGNOSES.values() for name in names}
    if named == ["ards"]:
        excluded -= set(_PNEUMONIA)  # whatever it came from
    return Facts(
        tuple(_finding(domain, name) for name in sorted(found)),
        frozenset(found | excluded & known),
        {"view": _VIEWS[label["view"]]},
    )


_ORGANS = ("left_lung", "right_lung", "cardiomediastinum")
_LESIONS = {
    "consolidation": "consolidation",
    "ground_glass_opacities": "ground_glass_opacity",
    **dict.fromkeys(
        ("endotracheal_tube", "nosogastric_tube", "central_venous_line", "tubings", "monitoring_probes"),
        "support_device",
    ),
}
"""What else is read of the masks; other structures were drawn once or have no word in the vocabulary."""


def _chest_masks(row: Row, root: Path, domain: Domain) -> Facts | None:
    """The same with a mask picture for each structure. An organ without one was not drawn, anything else is absent."""
    facts = _chest_findings(row, root, domain)
    if facts is None:
        return None
    masks: dict[str, Bools] = {}
    for name, file in row["label"]["masks"].items():
        label = name if name in _ORGANS else _LESIONS.get(name, "")
        mask = _read_mask((root / row["path"]).parent / file)
        if label and mask.any():
            masks[label] = masks.get(label, np.zeros_like(mask)) | mask
    found = [_finding(domain, label, mask, location=_side(label, masks)) for label, mask in masks.items()]
    return _joined(facts, Facts(tuple(found), frozenset(masks) | set(_LESIONS.values())))


def _side(label: str, masks: Mapping[str, Bools]) -> str:
    """The patient's side, by the middle between the lungs; none for organs, devices, and where a lung is missing."""
    if label in (*_ORGANS, "support_device") or not {"left_lung", "right_lung"} <= set(masks):
        return ""
    grid = Grid.plain(*masks[label].shape)
    middle = measure.midline(masks["left_lung"][None], masks["right_lung"][None], grid)
    return measure.side(masks[label][None], grid, middle)


def _read_mask(path: Path) -> Bools:
    with Pillow.open(path) as picture:
        mask: Bools = np.asarray(picture.convert("L")) > 127
    return mask


_GROUND = {"building": "building", "land": "bare_soil", "road": "road", "vegetation": "vegetation", "water": "water"}
_CLASSES = (*_GROUND, "unlabeled")
"""The classes of a mask by their number."""
_CHIP = 144


def _aerial_masks(row: Row, root: Path, domain: Domain) -> Facts | None:
    """Aerial pictures beside a picture of class numbers."""
    return _ground(_read_classes((root / row["path"]).parent / row["label"]["mask"]), domain)


def _chip(row: Row, root: Path, domain: Domain) -> Facts | None:
    """Pictures cut out of those: "tile1_001_0_288" is row 0, column 288 of part 1 of tile 1."""
    tile, part, top, left = Path(row["path"]).stem.split("_")
    classes = _read_classes(root / "rs" / "dubai_seg" / f"{tile}_image_part_{part}__mask.png")
    return _ground(classes[int(top) :, int(left) :][:_CHIP, :_CHIP], domain)


@lru_cache(maxsize=1)  # the parts of a picture come one after the other
def _read_classes(path: Path) -> NDArray[np.uint8]:
    with Pillow.open(path) as picture:
        return np.asarray(picture.convert("L"))


def _ground(classes: NDArray[np.uint8], domain: Domain) -> Facts:
    """Each class with its mask, its share, and its place unless it is nearly everywhere.

    Present from 1 %, absent where no pixel is of it, and in between neither.
    """
    found, assessed = [], set()
    for name, label in _GROUND.items():
        mask = classes == _CLASSES.index(name)
        share = float(mask.mean())
        if share >= 0.01:
            place = measure.quadrant(mask[None], Grid.plain(*mask.shape)) if share < 0.75 else ""
            found.append(_finding(domain, label, mask, (Measure("fraction", share, "1"),), place))
        if share >= 0.01 or not mask.any():
            assessed.add(label)
    return Facts(tuple(found), frozenset(assessed))


_LAYOUTS: dict[str, Callable[[Row, Path, Domain], Facts | None]] = {
    "med/cxr_findings": _chest_findings,
    "med/cxr_seg": _chest_masks,
    "rs/dubai_chips": _chip,
    "rs/dubai_seg": _aerial_masks,
}
