"""The domain of radiology."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

from domains.radiology.outputs import OUTPUTS
from domains.radiology.vocabulary import PRESETS, VOCABULARY

if TYPE_CHECKING:
    from fovea.types import Facts, Finding, Picture, Question, Reply, Report, Sample, Study, View, Window


class Radiology:
    """Satisfies `fovea.contracts.Domain` and `Writer`; what reads, draws and writes is imported when it is used."""

    name = "radiology"
    vocabulary = VOCABULARY
    presets = PRESETS
    outputs = OUTPUTS

    def sniff(self, path: Path) -> bool:
        from domains.radiology import reader

        return reader.sniff(path)

    def studies(self, path: Path) -> list[tuple[Path, ...]]:
        from domains.radiology import reader

        return reader.studies(path)

    def load(self, path: Path | Sequence[Path], window: Window | None = None) -> Study:
        from domains.radiology import reader

        return reader.load(path, window)

    def findings(self, paths: Path | Sequence[Path], study: Study, source: Sequence[Path] = ()) -> tuple[Finding, ...]:
        """What DICOM SEG, SR, RTSTRUCT and overlay planes say of a study: see `domains.radiology.findings`."""
        from domains.radiology.findings import findings

        return findings(paths, study, source)

    def render(self, study: Study, view: View) -> Picture:
        from domains.radiology.render import render

        return render(study, view)

    def describe(self, study: Study) -> str:
        from domains.radiology.text import describe

        return describe(study)

    def questions(self, study: Study, facts: Facts, rng: Random) -> list[Question]:
        from domains.radiology.text import questions

        return questions(study, facts, rng)

    def answer(self, question: Question, facts: Facts) -> Reply:
        from domains.radiology.text import answer

        return answer(question, facts)

    def caption(self, study: Study, facts: Facts, rng: Random) -> str:
        from domains.radiology.captions import caption

        return caption(study, facts, rng)

    def export(self, report: Report, format: str) -> bytes:
        from domains.radiology.export import export

        return export(report, format)

    def write(
        self,
        report: Report,
        source: Path | Sequence[Path],
        folder: Path,
        outputs: Sequence[str] = (),
        models: Sequence[Mapping[str, Any]] = (),  # noqa: ARG002 # no output of this trade names them
    ) -> tuple[Path, ...]:
        from domains.radiology.outputs import write

        return write(report, source, folder, outputs)

    def synth(self, directory: Path, n: int, seed: int) -> list[Sample]:
        from domains.radiology.synth import synth

        return synth(directory, n, seed)
