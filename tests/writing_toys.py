"""A toy domain that also writes files for other systems."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import apps_toys as toys

from fovea.errors import UnsupportedError
from fovea.types import Report


class Writing(toys.Toy):
    """Writes a list of labels and, of volumes, slices; the catalog names what is written with it."""

    outputs = ("csv", "slices", "catalog")

    def __init__(self) -> None:
        self.calls = 0

    def write(
        self,
        report: Report,
        source: Path | Sequence[Path],
        folder: Path,
        outputs: Sequence[str] = (),
        models: Sequence[Mapping[str, Any]] = (),
    ) -> tuple[Path, ...]:
        assert not isinstance(source, Path)
        assert all(path.is_file() for path in source)
        self.calls += 1
        if "slices" in outputs and report.study.modality != "CT":
            raise UnsupportedError("a film", "a volume")
        folder.mkdir(parents=True, exist_ok=True)
        labels = [finding.label for answer in report.answers for finding in answer.findings]
        texts = {
            "csv": ("findings.csv", "\n".join(dict.fromkeys(labels))),
            "slices": ("inner/slices.txt", report.state),
            "catalog": ("catalog.txt", " ".join(outputs)),
        }
        paths = []
        for name in outputs or self.outputs:
            file, text = texts[name]
            (folder / file).parent.mkdir(exist_ok=True)
            (folder / file).write_text(text)
            paths.append(folder / file)
        return tuple(paths)


class Oracle(toys.Oracle):
    """The oracle, whose domain writes."""

    def __init__(self, version: str = "1") -> None:
        super().__init__(version)
        self.domain = Writing()
