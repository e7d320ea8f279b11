"""A trained model with its experts, opened from disk: what the command line, the viewer and the batch ask."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from random import Random
from typing import Any

import torch
from torch import Tensor

from curriculum.data.findings import claimed
from curriculum.prompts import opening
from curriculum.strategy import LONG, SHORT, Case, converse
from curriculum.tracking import download
from experts.model_item import describe
from experts.pool import Pool, Pooled
from fovea import __version__, registry
from fovea.contracts import Domain, Expert
from fovea.errors import ExpertError, ModelError
from fovea.overlay import overlay
from fovea.types import MEASURING, Answer, Call, ExpertCard, Question, Report, Study, View
from models.vlm.model import VisionLanguageModel
from models.weights import digest, read_json, write_json

REPORT = "Write the report."
EXPERTS = Pool(2**32)
"""The experts of all assistants of a process, in at most 4 GiB."""


@dataclass(frozen=True, eq=False)
class Assistant:
    """One domain's model and experts."""

    domain: Domain
    model: VisionLanguageModel
    experts: tuple[Expert, ...]
    overlays: bool = True
    folders: Mapping[str, Path] = field(default_factory=dict)

    @classmethod
    def open(cls, reference: str, pool: Pool = EXPERTS) -> Assistant:
        """From a run's folder (its last stage), a model folder, or models:/NAME@ALIAS; raises ModelError.

        `pool` holds its experts, as long as they fit.
        """
        folder = download(reference) if reference.startswith("models:/") else Path(reference)
        stages = [folder / f"stage{n}" / "assistant" for n in (4, 3)] + [folder / "assistant", folder]
        found = next((stage for stage in stages if (stage / "assistant.json").exists()), None)
        if found is None:
            raise ModelError(f"{reference} holds no model", "a run's folder, a model folder, or models:/NAME@ALIAS")
        note = read_json(found / "assistant.json")
        folders = {name: found / "experts" / name for name in note["experts"]}
        experts = tuple(
            Pooled(pool, kind, folders[name] if folders[name].is_dir() else None)
            for name, kind in note["experts"].items()
        )
        model = VisionLanguageModel.open(found / "model")
        return cls(registry.domain(note["domain"]), model, experts, note["overlays"], folders)

    @cached_property
    def provenance(self) -> Mapping[str, str]:
        """Names, versions and digests of all that answers; equal for equal models."""
        experts = [f"{e.card.name}@{e.card.version}" for e in self.experts]
        model = digest(self.model)
        whole = sha256("\n".join([model, *experts, __version__]).encode()).hexdigest()
        return {
            "fovea": __version__,
            "domain": self.domain.name,
            "model": model[:16],
            "experts": ", ".join(experts) or "none",
            "digest": whole,
        }

    @cached_property
    def model_items(self) -> tuple[Mapping[str, Any], ...]:
        """The STAC items of those experts that can be described."""
        known = [(expert, self.folders.get(expert.card.name)) for expert in self.experts]
        items = (
            describe(expert.opened() if isinstance(expert, Pooled) else expert, folder)
            for expert, folder in known
            if folder and folder.is_dir()
        )
        return tuple(item for item in items if item)

    @property
    def cards(self) -> tuple[ExpertCard, ...]:
        return tuple(expert.card for expert in self.experts)

    def ask(self, study: Study, question: str, use_experts: bool = True) -> Answer:
        """Answer one question about a study."""
        return self._ask(study, [question], use_experts)[0]

    def report(self, study: Study) -> Report:
        """A draft: the report, and what the experts' findings let one ask about sizes, sides and counts."""
        first = self._ask(study, [REPORT], True, LONG)[0]
        rng = Random(study.digest)
        facts = claimed(first.calls)
        asked = {(q.kind, q.label): q for q in self.domain.questions(study, facts, rng) if _tells(q, facts.assessed)}
        present = {finding.label for finding in facts.findings}
        chosen = [q.text for q in asked.values() if q.label in present]
        return Report(study, (first, *self._ask(study, chosen, True)), self.provenance)

    def _ask(self, study: Study, questions: Sequence[str], use_experts: bool, limit: int = SHORT) -> list[Answer]:
        if not questions:
            return []
        picture = self.domain.render(study, View(size=self.model.tower.image_size))
        cards = tuple(e.card for e in self.experts if e.accepts(study)) if use_experts else ()
        first = opening(self.domain.describe(study), cards)
        seen = self._look(picture.pixels)
        able = {expert.card.name: expert for expert in self.experts}

        def execute(calls: Sequence[tuple[str, str]]) -> tuple[list[Call], Tensor | None]:
            done = [_run(able[name], study, argument) for name, argument in calls]
            findings = [finding for call in done for finding in call.findings]
            if not self.overlays or not findings:
                return done, None
            return done, self._look(overlay(picture, findings, self.domain.vocabulary))

        cases = [Case(question, first, seen, execute, limit) for question in questions]
        return converse(self.model, cases, cards, self.domain.vocabulary)

    def _look(self, pixels: object) -> Tensor:
        return self.model.look(torch.as_tensor(pixels)[None])[0]


def save_assistant(
    folder: Path, domain: str, model: Path, experts: Mapping[str, tuple[str, Path | None]], overlays: bool
) -> None:
    """Put a model and its experts (name to kind and folder) into one folder that `Assistant.open` takes."""
    places = ((folder / "experts" / name, place) for name, (_, place) in experts.items() if place)
    for target, source in [(folder / "model", model), *places]:
        if target.exists():
            shutil.rmtree(target)
        shutil.copytree(source, target)
    kinds = {name: kind for name, (kind, _) in experts.items()}
    write_json(folder / "assistant.json", {"domain": domain, "experts": kinds, "overlays": overlays})


def _tells(question: Question, assessed: frozenset[str]) -> bool:
    return question.kind in MEASURING and question.label in assessed


def _run(expert: Expert, study: Study, argument: str) -> Call:
    try:
        return Call(expert.card.name, argument, expert.run(study, argument))
    except ExpertError as error:
        return Call(expert.card.name, argument, failure=error.given)
