"""Check what is written for a PACS, of all studies under a folder: scripts/check_dicom_outputs.py FOLDER.

Each study that the domain radiology reads gets a report with a region, objects, an absent finding and a measure.
SEG, SR, Secondary Capture, GSPS and PDF of it go to dicom-validator (its tables: scripts/dicom_tables.py) and, where
Debian's dicom3tools is installed, to dciodvfy; what that says of the study's own first file too does not count. Prints
how many objects of each kind there are, why there are no others, and every error with the number of objects: where
writing failed for no reason that is told, that is one too. Exits with 1 where there is an error.
"""

from __future__ import annotations

import re
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
import dicom_tables
from output_reports import DICOM, RADIOLOGY, checked, complaints, finding, report

from apps.service import find_studies
from fovea.errors import FoveaError
from fovea.types import Finding, Instance, Mask, Measure, Patch, Study

_AT_ONCE = 50
"""Files that one call of a program checks."""


def main(folder: Path) -> int:
    with tempfile.TemporaryDirectory() as name:
        out, kinds, refused, failed = Path(name), Counter[str](), Counter[str](), Counter[str]()
        paths: list[Path] = []
        told: list[str] = []
        items = [item for item in find_studies([folder], (RADIOLOGY,)).items if item.domain]
        for number, item in enumerate(items):
            own = complaints(item.files[:1])
            for output in DICOM:
                try:
                    study = RADIOLOGY.load(item.files)
                    draft = report(study, *findings(study))
                    written = RADIOLOGY.write(draft, item.files, out / str(number), (output,))
                except FoveaError as error:
                    reason = type(error).__name__ + ": " + re.sub(r"\d+", "N", str(error))[:90]
                    (failed if "for which no" in reason else refused)[reason] += 1
                    continue
                told += [line for line in complaints(written) if line not in own]
                paths += written
                kinds[output] += len(written)
        dicom_tables.main(out / "tables")
        lines = (
            line
            for start in range(0, len(paths), _AT_ONCE)
            for one in checked(out / "tables", *paths[start : start + _AT_ONCE])
            for line in one
        )
        errors = {"writing": failed, "dicom-validator": Counter(lines), "dciodvfy": Counter(told)}
    sources = len({path.parent for path in paths})
    print(f"{sources} of {len(items)} studies, {len(paths)} objects: {dict(kinds)}")
    for reason, count in refused.most_common():
        print(f"{count} not written: {reason}")
    for program, found in errors.items():
        print(f"{program}: {found.total()} errors")
        for line, count in found.most_common():
            print(f"{count} objects: {line}")
    return any(errors.values())


def findings(study: Study) -> Iterator[Finding]:
    """A region in the middle of the first image, two objects in it, and a finding that is absent."""
    shape = study.images[0].grid.shape
    around = np.stack(np.meshgrid(*(np.linspace(-1, 1, n) if n > 1 else [0.0] for n in shape), indexing="ij"))
    yield finding("liver", region=Mask(np.hypot.reduce(around) < 0.5), measures=(Measure("area", 12.5, "cm2", 0.75),))
    patches = (Patch((shape[0] // 2, shape[1] // 2, column), np.ones((1, 1, 1), bool)) for column in (0, shape[2] - 1))
    yield finding("kidney_lesion", location="left", instances=tuple(Instance(patch, 0.6) for patch in patches))
    yield finding("spleen", present=False, score=0.04)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    sys.exit(main(Path(sys.argv[1])))
