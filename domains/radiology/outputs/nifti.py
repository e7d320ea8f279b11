"""Masks as NIfTI label volumes on the study's own grid, with the names of the labels beside them.

Choices:

- Value n is the n-th label of the vocabulary, 0 none of them; labels that no vocabulary holds follow. The intent is
  "label" (1002), so that readers do not interpolate.
- Labels that overlap, or that several experts drew, stand in a file each; all others share one.
- The affine is the study's, turned from LPS to the RAS of NIfTI, which holds it in float32. The quaternion is left out
  where it cannot hold the affine (shear).
- Beside each volume: `.json` with label, code, colour, score and expert of each value, and `.label.txt`, the label
  descriptions that ITK-SNAP reads.

Source: https://nifti.nimh.nih.gov/pub/dist/src/niftilib/nifti1.h
"""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from domains.radiology.vocabulary import TERMS
from fovea.errors import UnsupportedError
from fovea.files import whole
from fovea.image import Bools
from fovea.jsonable import to_json
from fovea.types import LPS, Finding, Grid, Mask, Patch, Report, Term

_LABEL = 1002
_SCANNER = 1
"""The code of an affine to coordinates of the scanner."""
_LONGEST = 2**15 - 1
"""The longest axis of NIfTI-1; NIfTI-2 holds longer ones."""


def write(report: Report, source: Sequence[Path], folder: Path) -> tuple[Path, ...]:  # noqa: ARG001 # all is in the report
    """Label volumes of all present findings that have a mask; of further images as "image-2-…".

    Raises UnsupportedError where there is no mask in the space of a patient.
    """
    folder.mkdir(parents=True, exist_ok=True)
    numbers = _numbers(report)
    paths: list[Path] = []
    for index, image in enumerate(report.study.images):
        chosen = _drawn(report, index)
        if image.grid.frame != LPS or not chosen:
            continue
        prefix = f"image-{index + 1}-" if index else ""
        for name, findings in _groups(chosen, image.grid).items():
            stem = folder / f"{prefix}{name}"
            volume = np.zeros(image.grid.shape, np.uint8 if max(numbers.values()) < 256 else np.uint16)
            for finding in findings:
                volume[_mask(finding, image.grid)] = numbers[finding.label]
            paths += [
                _save(stem.with_name(f"{stem.name}.nii.gz"), _encoded(volume, image.grid)),
                _save(stem.with_name(f"{stem.name}.json"), _sidecar(report, findings, numbers)),
                _save(stem.with_name(f"{stem.name}.label.txt"), _snap(findings, numbers)),
            ]
    if not paths:
        raise UnsupportedError(
            "findings without a mask in the space of a patient", "masks on a CT or MR volume", "Name another output."
        )
    return tuple(paths)


def _numbers(report: Report) -> dict[str, int]:
    """The value of each label."""
    labels = {finding.label for answer in report.answers for finding in answer.findings}
    return {label: number for number, label in enumerate((*TERMS, *sorted(labels - set(TERMS))), 1)}


def _drawn(report: Report, image: int) -> list[Finding]:
    """The newest finding with a mask of each label and expert."""
    found = {(f.label, f.by): f for answer in report.answers for f in answer.findings if f.image == image}
    return [f for f in found.values() if f.present and (isinstance(f.region, Mask) or _patches(f))]


def _patches(finding: Finding) -> list[Patch]:
    return [item.region for item in finding.instances if isinstance(item.region, Patch)]


def _mask(finding: Finding, grid: Grid) -> Bools:
    """A finding's mask, or those of its objects together, bool (slice, row, column)."""
    if isinstance(finding.region, Mask):
        return finding.region.data
    whole = np.zeros(grid.shape, bool)
    for patch in _patches(finding):
        where = tuple(slice(start, start + size) for start, size in zip(patch.start, patch.data.shape, strict=True))
        whole[where] |= patch.data
    return whole


def _groups(findings: Sequence[Finding], grid: Grid) -> dict[str, list[Finding]]:
    """Findings by the name of the file that they share: one for all where no two touch the same pixel."""
    labels = [finding.label for finding in findings]
    taken = np.zeros(grid.shape, bool)
    for finding in findings:
        mask = _mask(finding, grid)
        if (taken & mask).any() or labels.count(finding.label) > 1:
            break
        taken |= mask
    else:
        return {"findings": list(findings)}
    names = [f.label if labels.count(f.label) == 1 else f"{f.label}-{number}" for number, f in enumerate(findings, 1)]
    return {f"findings-{re.sub(r'[^A-Za-z0-9_-]', '_', n)}": [f] for n, f in zip(names, findings, strict=True)}


def _encoded(volume: NDArray[Any], grid: Grid) -> bytes:
    from nibabel import Nifti1Image, Nifti2Image

    affine = np.diag((-1.0, -1.0, 1.0, 1.0)) @ grid.affine
    kind: Any = Nifti1Image if max(grid.shape) <= _LONGEST else Nifti2Image
    image = kind(np.ascontiguousarray(volume.transpose(2, 1, 0)), affine)
    image.header.set_xyzt_units("mm")
    image.header.set_intent(_LABEL, name="labels")
    image.set_sform(affine, _SCANNER)
    image.set_qform(affine, _SCANNER)
    if not np.allclose(image.get_qform(), affine, rtol=1e-5, atol=1e-3):
        image.set_qform(None)
    return gzip.compress(image.to_bytes(), mtime=0)


def _sidecar(report: Report, findings: Sequence[Finding], numbers: dict[str, int]) -> bytes:
    labels = [
        {
            "value": numbers[f.label], "label": f.label, "code": to_json(f.code), "color": _color(f), "score": f.score,
            "by": str(f.by),
        }
        for f in findings
    ]  # fmt: skip
    whole = {"study": report.study.id, "digest": report.study.digest, "state": report.state, "labels": labels}
    return (json.dumps(whole, indent=1) + "\n").encode()


def _snap(findings: Sequence[Finding], numbers: dict[str, int]) -> bytes:
    lines = ['    0     0    0    0        0  0  0    "Clear Label"']
    for finding in sorted(findings, key=lambda f: numbers[f.label]):
        red, green, blue = _color(finding)
        lines.append(f'{numbers[finding.label]:5d} {red:5d}{green:5d}{blue:5d}        1  1  1    "{finding.label}"')
    return ("\n".join(lines) + "\n").encode()


def _color(finding: Finding) -> tuple[int, int, int]:
    return TERMS.get(finding.label, Term(finding.label, finding.code)).color


def _save(path: Path, content: bytes) -> Path:
    with whole(path) as partial:
        partial.write_bytes(content)
    return path
