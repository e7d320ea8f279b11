"""What experts without a trained network share: a recipe in a folder, a version, and one way to be asked."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any, TypeVar

from fovea.config import Config, parse
from fovea.errors import ConfigError, ExpertError, ModelError
from fovea.files import whole
from fovea.types import Code, ExpertCard, Finding, Image, Origin, Source, Study
from fovea.verbal import words

C = TypeVar("C", bound=Config)
LIMIT = 2**20
"""Bytes of a recipe."""


class UntrainedExpert(ABC):
    """An expert that answers by a rule: `refusal` says what it does not take, `answer` gives the findings."""

    card: ExpertCard

    @abstractmethod
    def refusal(self, study: Study) -> str:
        """Why the study is not taken; "" where it is."""

    @abstractmethod
    def answer(self, study: Study, labels: tuple[str, ...], by: Origin) -> tuple[Finding, ...]:
        """A finding for each of these labels; raises ExpertError."""

    def accepts(self, study: Study) -> bool:
        """Whether the study is of a kind that this expert takes; reads no pixels."""
        return not self.refusal(study)

    def run(self, study: Study, argument: str) -> tuple[Finding, ...]:
        """A finding for each label of the argument; raises ExpertError for another argument or study."""
        labels = self.card.asked(argument)
        reason = self.refusal(study)
        if reason:
            raise ExpertError(f"{self.card.name} does not take this study: {reason}", self.card.accepts)
        return self.answer(study, labels, Origin(self.card.name, self.card.version, study.digest))


def arguments(labels: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
    """Each label for itself, and all of them."""
    return {label: (label,) for label in labels} | {"all": labels}


def own(label: str) -> Code:
    """The concept of a label in our own table."""
    return Code("99FOVEA", label, words(label))


def version(method: str, *parts: Any) -> str:
    """The first 12 digits of a SHA-256 over the method's name and revision, and all that changes an answer."""
    return sha256(json.dumps([method, *parts], sort_keys=True).encode()).hexdigest()[:12]


def read(folder: Path, model: type[C], kind: str) -> C:
    """The recipe `config.json` of a folder; raises ModelError where it cannot be read or is of another kind."""
    path = folder / "config.json"
    try:
        size = path.stat().st_size
        if size > LIMIT:
            raise ModelError(f"a recipe of {size} bytes", f"at most {LIMIT}")
        data = json.loads(path.read_text())
        if not isinstance(data, dict) or data.get("kind", kind) != kind:
            raise ModelError("a recipe of another kind of expert", f"the kind {kind}")
        return parse(model, data)
    except (OSError, ValueError, ConfigError) as error:
        told = str(error) if isinstance(error, ConfigError) else type(error).__name__
        raise ModelError(
            f"the recipe of a {kind} expert cannot be read: {told}", "a config.json in its folder"
        ) from None


def write(folder: Path, name: str, content: str) -> None:
    """Write a text file whole or not at all."""
    with whole(folder / name) as partial:
        partial.write_text(content)


def save(config: Config, folder: Path) -> None:
    """Write a recipe as the folder that `open` of its kind takes."""
    write(folder, "config.json", config.model_dump_json(indent=1) + "\n")


def alone(study: Study, place: int) -> Study:
    """One image of a study as a study of its own, with a digest of its own."""
    source = Source(study.source.hashes, f"{study.source.reader} image {place}")
    return replace(study, images=(study.images[place],), source=source)


def channels(image: Image, names: Mapping[str, tuple[str, ...]], unit: str) -> dict[str, int] | str:
    """The index of the first channel of each role that has one of its names and the unit, or what is missing."""
    found: dict[str, int] = {}
    there = {channel.name: place for place, channel in reversed(list(enumerate(image.channels)))}
    for role, options in names.items():
        places = [there[name] for name in options if name in there]
        if not places:
            return f"no band {role}"
        physical = [place for place in places if image.channels[place].unit == unit]
        if not physical:
            return f"band {role} in {image.channels[places[0]].unit or 'no unit'}, not {unit}"
        found[role] = physical[0]
    return found
