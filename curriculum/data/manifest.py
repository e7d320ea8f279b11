"""Real files with their labels, from a JSON-lines manifest: path, kind, label, group, a line a file."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image as Pillow

from curriculum.recipe import DataConfig
from fovea.contracts import Domain
from fovea.errors import ConfigError
from fovea.types import Bools, Facts, Finding, Mask, Measure, Origin, Sample

TRUTH = Origin("annotation", "1")
Row = Mapping[str, Any]


def read_manifest(config: DataConfig, domain: Domain) -> list[Sample]:
    """Samples of the folders that are asked for; rows without a usable label are left out.

    Raises ConfigError when the manifest or a folder's layout is unknown.
    """
    if config.path is None or not (config.path / "manifest.jsonl").is_file():
        raise ConfigError(f"data.path {config.path}", "a folder with a manifest.jsonl")
    rows = [json.loads(line) for line in (config.path / "manifest.jsonl").read_text().splitlines()]
    samples: list[Sample] = []
    for folder in config.folders:
        if folder not in _LAYOUTS:
            raise ConfigError(f"data.folders {folder!r}", f"one of {', '.join(_LAYOUTS)}")
        for row in rows:
            if row["path"].startswith(folder + "/"):
                facts = _LAYOUTS[folder](row, config.path, domain)
                if facts is not None:
                    samples.append(Sample(str(config.path / row["path"]), row["group"] or row["path"], facts))
    return samples


def _finding(
    domain: Domain, label: str, mask: Bools | None = None, measures: tuple[Measure, ...] = (), location: str = ""
) -> Finding:
    code = next(term.code for term in domain.vocabulary if term.label == label)
    region = None if mask is None else Mask(mask[None])
    return Finding(label, code, True, 1.0, TRUTH, location, measures, region)


def _read_mask(path: Path) -> Bools:
    with Pillow.open(path) as picture:
        mask: Bools = np.asarray(picture.convert("L")) > 127
    return mask


_CHEST = {"pneumonia": "pneumonia", "covid-19": "covid_19", "no finding": "no_finding"}


def _chest_findings(row: Row, root: Path, domain: Domain) -> Facts | None:  # noqa: ARG001
    """Radiographs with a diagnosis as a path such as Pneumonia/Viral/COVID-19."""
    label = row["label"]
    if row["kind"] != "xray" or not label.get("finding"):
        return None
    known = {term.label for term in domain.vocabulary}
    steps = [step.strip().lower() for step in str(label["finding"]).split("/")]
    found = [name for step in steps if (name := _CHEST.get(step, step.replace(" ", "_").replace("-", "_"))) in known]
    assessed = frozenset(name for name in _CHEST.values() if name in known)
    view = {"AP Supine": "AP", "AP Erect": "AP", "L": "LATERAL"}.get(label.get("view", ""), label.get("view", ""))
    attributes = {"view": view} if view in ("PA", "AP", "LATERAL") else {}
    return Facts(tuple(_finding(domain, name) for name in dict.fromkeys(found)), assessed | set(found), attributes)


_LUNG = {"left_lung": "left_lung", "right_lung": "right_lung", "consolidation": "consolidation",
         "ground_glass_opacities": "ground_glass_opacity", "cardiomediastinum": "cardiomediastinum"}  # fmt: skip


def _chest_masks(row: Row, root: Path, domain: Domain) -> Facts | None:
    """Radiographs with a mask picture for each structure; a structure without one was not drawn."""
    known = {term.label for term in domain.vocabulary}
    folder = (root / row["path"]).parent
    found = [
        _finding(domain, _LUNG[name], _read_mask(folder / file))
        for name, file in row["label"]["masks"].items()
        if _LUNG.get(name) in known
    ]
    return Facts(tuple(found), frozenset(finding.label for finding in found))


_GROUND = {"building": "building", "land": "bare_soil", "road": "road", "vegetation": "vegetation", "water": "water"}


def _chip(row: Row, root: Path, domain: Domain) -> Facts | None:  # noqa: ARG001
    """Aerial pictures with the fraction of each class; present from 1 %."""
    shares = {_GROUND[name]: share for name, share in row["label"]["fractions"].items() if name in _GROUND}
    found = [
        _finding(domain, label, measures=(Measure("fraction", share, "1"),))
        for label, share in shares.items()
        if share >= 0.01
    ]
    return Facts(tuple(found), frozenset(shares))


_COLORS = {"building": (60, 16, 152), "land": (132, 41, 246), "road": (110, 193, 228),
           "vegetation": (254, 221, 58), "water": (226, 169, 41)}  # fmt: skip


def _aerial_masks(row: Row, root: Path, domain: Domain) -> Facts | None:
    """Aerial pictures beside a picture that paints each class in its colour."""
    with Pillow.open((root / row["path"]).parent / row["label"]["mask"]) as picture:
        painted = np.asarray(picture.convert("RGB")).astype(int)
    found = []
    for name, color in _COLORS.items():
        mask = (abs(painted - np.array(color)).max(-1) < 24).astype(bool)
        if mask.mean() >= 0.01:
            share = (Measure("fraction", float(mask.mean()), "1"),)
            found.append(_finding(domain, _GROUND[name], mask, share))
    return Facts(tuple(found), frozenset(_GROUND.values()))


_LAYOUTS: dict[str, Callable[[Row, Path, Domain], Facts | None]] = {
    "med/cxr_findings": _chest_findings,
    "med/cxr_seg": _chest_masks,
    "rs/dubai_chips": _chip,
    "rs/dubai_seg": _aerial_masks,
}
