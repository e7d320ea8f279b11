"""What a plugin has to offer. `fovea.testing` holds the same contracts as tests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Any, Protocol, runtime_checkable

from fovea.types import (
    ExpertCard,
    Facts,
    Finding,
    Picture,
    Question,
    Reply,
    Report,
    Sample,
    Study,
    Term,
    View,
    Window,
)


@runtime_checkable
class Domain(Protocol):
    """What a specialty knows: its files, its pictures, its words."""

    name: str
    vocabulary: tuple[Term, ...]
    presets: tuple[str, ...]
    """Names that `View.preset` may take; the first is the default."""

    def sniff(self, path: Path) -> bool:
        """Whether `path` (a file, or a folder that is one study) looks like this domain's, by content; reads little."""
        ...

    def studies(self, path: Path) -> list[tuple[Path, ...]]:
        """The files under `path` grouped into studies, each of which `load` takes; what is not ours is left out."""
        ...

    def load(self, path: Path | Sequence[Path], window: Window | None = None) -> Study:
        """Read one study without any identifier; raises a leaf of InputError."""
        ...

    def render(self, study: Study, view: View) -> Picture:
        """Draw it for model and person: a square of `view.size` pixels, aspect kept, unused border black."""
        ...

    def describe(self, study: Study) -> str:
        """One line for the prompt: modality, view, and what the header says that is safe."""
        ...

    def questions(self, study: Study, facts: Facts, rng: Random) -> list[Question]:
        """Questions that a user would ask of such a study and that `facts` can answer, freshly worded by `rng`."""
        ...

    def answer(self, question: Question, facts: Facts) -> Reply:
        """The answer that the facts give: from ground truth as from an expert's findings."""
        ...

    def caption(self, study: Study, facts: Facts, rng: Random) -> str:
        """Text that an image-text pair needs: what is visible, in words that vary with `rng`."""
        ...

    def export(self, report: Report, format: str) -> bytes:
        """The report in a format of the trade; raises UnsupportedError naming the formats there are."""
        ...

    def synth(self, directory: Path, n: int, seed: int) -> list[Sample]:
        """Write `n` valid files with ground truth; the same seed writes the same bytes."""
        ...


@runtime_checkable
class Writer(Protocol):
    """A domain that also writes what was found as files for the systems of its trade: a PACS, a GIS, a record."""

    outputs: tuple[str, ...]
    """What it writes, such as "dicom-seg", "fhir" or "cog"."""

    def write(
        self,
        report: Report,
        source: Path | Sequence[Path],
        folder: Path,
        outputs: Sequence[str] = (),
        models: Sequence[Mapping[str, Any]] = (),
    ) -> tuple[Path, ...]:
        """Write the named outputs (all that the findings allow where none is named), each file whole or not at all.

        `source` are the files from which the report's study was loaded: references and the patient's identity come
        from there, and go nowhere else. `models` are STAC items (MLM extension) of what made the findings, for outputs
        that name them. Names and UIDs derive from the content, so that the same report gives the same files. Raises
        UnsupportedError for an output that is not there or does not suit the study.
        """
        ...


@runtime_checkable
class Expert(Protocol):
    """A network, or anything else, that measures."""

    @property
    def card(self) -> ExpertCard: ...

    def accepts(self, study: Study) -> bool:
        """Whether the study is of a kind that this expert takes."""
        ...

    def run(self, study: Study, argument: str) -> tuple[Finding, ...]:
        """A finding, present or not, for each label that the card gives for `argument`; raises ExpertError."""
        ...


@runtime_checkable
class ExpertKind(Protocol):
    """What the entry point group `fovea.experts` names: it opens experts of its kind."""

    def open(self, folder: Path | None) -> Expert:
        """The expert saved in `folder`; kinds that need no weights take None."""
        ...
