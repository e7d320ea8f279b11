"""The domain of optical scenes from satellites and aircraft."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Any

from domains.remote_sensing.captions import caption
from domains.remote_sensing.export import FORMATS, export
from domains.remote_sensing.outputs import OUTPUTS, write
from domains.remote_sensing.render import PRESETS, render
from domains.remote_sensing.text import answer, describe, questions
from domains.remote_sensing.vocabulary import VOCABULARY
from fovea.types import Facts, Picture, Question, Reply, Report, Sample, Study, View, Window


class RemoteSensing:
    """Satisfies `fovea.contracts.Domain` and `Writer`; what needs GDAL is imported when it is used."""

    name = "remote_sensing"
    vocabulary = VOCABULARY
    presets = PRESETS
    formats = FORMATS
    outputs = OUTPUTS

    def sniff(self, path: Path) -> bool:
        from domains.remote_sensing import reader

        return reader.sniff(path)

    def studies(self, path: Path) -> list[tuple[Path, ...]]:
        from domains.remote_sensing import reader

        return reader.studies(path)

    def load(self, path: Path | Sequence[Path], window: Window | None = None) -> Study:
        from domains.remote_sensing import reader

        return reader.load(path, window)

    def render(self, study: Study, view: View) -> Picture:
        return render(study, view)

    def describe(self, study: Study) -> str:
        return describe(study)

    def questions(self, study: Study, facts: Facts, rng: Random) -> list[Question]:
        return questions(study, facts, rng)

    def answer(self, question: Question, facts: Facts) -> Reply:
        return answer(question, facts)

    def caption(self, study: Study, facts: Facts, rng: Random) -> str:
        return caption(study, facts, rng)

    def export(self, report: Report, format: str) -> bytes:
        return export(report, format)

    def write(
        self,
        report: Report,
        source: Path | Sequence[Path],  # noqa: ARG002 # a scene's identity is in the report
        folder: Path,
        outputs: Sequence[str] = (),
        models: Sequence[Mapping[str, Any]] = (),
    ) -> tuple[Path, ...]:
        return write(report, folder, outputs, models)

    def synth(self, directory: Path, n: int, seed: int) -> list[Sample]:
        from domains.remote_sensing.synth import synth

        return synth(directory, n, seed)
