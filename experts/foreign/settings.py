"""What a person writes beside foreign files: `expert.json` or `expert.yaml`, and the card that follows from it."""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal, TypeVar

import yaml
from pydantic import Field, model_validator

from experts.calibration import Calibration
from experts.measure import MEASURES
from fovea.config import Config, parse
from fovea.errors import ConfigError, LimitError, ModelError
from fovea.types import Code, ExpertCard, Performance
from fovea.verbal import words

TEXT_LIMIT = 8 << 20
"""Bytes that a configuration may have."""
FILE_LIMIT = 16 << 30
"""Bytes that a file of weights may have, packed and unpacked."""


class ForeignLabel(Config):
    """One label of ours, and what the foreign expert calls it."""

    source: str = ""
    """Its name there, such as Pleural_Thickening or a class of the model card; left out, the label itself."""
    code: Code | None = None
    """Its concept; our own table's where it is left out."""
    measures: tuple[str, ...] = ()
    """Names from `experts.measure.MEASURES`, for labels that are drawn."""
    location: Literal["", "side", "quadrant"] = ""
    """How the place is told: the patient's side, or the quarter of the scene that holds most of it."""
    smallest: int = Field(default=1, ge=1)
    """Pieces of fewer pixels of the image are dropped."""
    objects: int = Field(default=0, ge=0, le=1000)
    """How many connected pieces are told apart, the largest first, each with its own measures and score."""
    slope: float = Field(default=1.0, gt=0)
    """Slope of the logistic curve that makes a probability of the expert's logit; 1 leaves it as it is."""
    intercept: float = 0.0
    """Its intercept; 0 leaves the probability as it is."""
    threshold: float = Field(default=0.5, ge=0, le=1)
    """Present from this probability on."""
    cut: float = Field(default=0.5, ge=0, le=1)
    """A pixel belongs to the label from this probability on, where labels may overlap."""

    @model_validator(mode="after")
    def _known(self) -> ForeignLabel:
        unknown = [name for name in self.measures if name not in MEASURES]
        if unknown:
            raise ValueError(f"no measure {', '.join(unknown)}; there are {', '.join(MEASURES)}")
        return self

    @property
    def calibration(self) -> Calibration:
        """How the expert's number is read."""
        return Calibration(self.slope, self.intercept, self.threshold, self.cut)


class ForeignConfig(Config):
    """One foreign expert: what every kind needs to be told."""

    kind: str
    """The entry point in `fovea.experts` that opens it."""
    name: str = Field(pattern=r"^[\w.-]+$")
    """What calls name it by."""
    task: str
    """One line for the prompt: what it is good for."""
    modalities: tuple[str, ...] = Field(min_length=1)
    """Modalities it takes, such as DX, CT or optical."""
    channels: tuple[str, ...] = Field(default=("*",), min_length=1)
    """Names of the channels it reads, in its own order, from one image or from several on one grid; "*" is the first
    channel of the first image that fits."""
    meta: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    """Values that a study's `meta` may have, where it has the key: `{view: [PA, AP]}`."""
    labels: dict[str, ForeignLabel] = Field(min_length=1)
    """What it answers, in order."""
    arguments: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    """Groups of labels under one name, beside each label for itself and `all`."""
    summary: str = ""
    """What it is, in one line; left out, what the foreign files say."""
    licence: str = ""
    """Licence of the weights; left out, what the foreign files say."""
    data: str = ""
    """What it was trained on; left out, what the foreign files say."""
    performance: tuple[Performance, ...] = ()
    """How good it is, as somebody measured it."""

    @model_validator(mode="after")
    def _consistent(self) -> ForeignConfig:
        taken = sorted({"all", *self.labels} & set(self.arguments))
        strange = sorted({label for group in self.arguments.values() for label in group} - set(self.labels))
        if taken or strange or "all" in self.labels:
            raise ValueError(f"arguments {taken} are taken, and {strange} are no labels; no label is named 'all'")
        if any("\n" in text for text in (self.task, self.summary, self.licence, self.data)):
            raise ValueError("task, summary, licence and data: one line each")
        return self

    def code(self, label: str) -> Code:
        """The concept of a label; our own table's where none is given."""
        return self.labels[label].code or Code("99FOVEA", label, words(label))

    def source(self, label: str) -> str:
        """What the foreign expert calls a label."""
        return self.labels[label].source or label


C = TypeVar("C", bound=ForeignConfig)


class _Loader(yaml.SafeLoader):
    """YAML without aliases, so that a small file cannot stand for a huge one."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("an alias")
        return super().compose_node(parent, index)


def tree(path: Path) -> dict[str, Any]:
    """A JSON or YAML file of keys and values; raises ModelError or LimitError."""
    try:
        if path.stat().st_size > TEXT_LIMIT:
            raise LimitError(f"a configuration of more than {TEXT_LIMIT >> 20} MB", "a small one")
        data = yaml.load(path.read_text(), _Loader)  # noqa: S506 -- a SafeLoader
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise ModelError(
            f"{path.name} cannot be read ({type(error).__name__})", "JSON, or YAML without aliases"
        ) from error
    if not isinstance(data, dict):
        raise ModelError(f"{path.name} holds {type(data).__name__}", "keys and values")
    return data


def read(folder: Path | None, model: type[C], kind: str) -> tuple[C, Path]:
    """What a person wrote, and its file; raises ModelError naming every fault."""
    if folder is None:
        raise ModelError(f"an expert of kind {kind} without a folder", "one that holds expert.json or expert.yaml")
    found = [file for name in ("expert.json", "expert.yaml") if (file := folder / name).is_file()]
    if len(found) != 1:
        raise ModelError(
            f"a folder of kind {kind} with {len(found)} files that tell what it is", "one expert.json or .yaml"
        )
    try:
        config = parse(model, tree(found[0]))
    except ConfigError as error:
        raise ModelError(f"{found[0].name}: {error.given}", remedy="Correct it and open the folder again.") from None
    if config.kind != kind:
        raise ModelError(f"an expert of kind {config.kind!r}", f"one of kind {kind}")
    return config, found[0]


def inside(folder: Path, name: str, limit: int = FILE_LIMIT) -> Path:
    """A file of the folder by its relative name; raises ModelError for any other, LimitError for too big a one."""
    path = folder / name
    if not path.is_file() or not path.resolve().is_relative_to(folder.resolve()):
        raise ModelError("a file that the folder's configuration names is not there", "a file inside the folder")
    if path.stat().st_size > limit:
        raise LimitError(f"a file of more than {limit >> 20} MB", "a smaller one")
    return path


def version_of(folder: Path, files: Iterable[Path]) -> str:
    """The first 12 digits of a SHA-256 over these files: whatever changes an answer changes it."""
    whole = sha256()
    for path in sorted(set(files)):
        with path.open("rb") as file:
            part = sha256()
            while block := file.read(1 << 22):
                part.update(block)
        whole.update(f"{path.relative_to(folder).as_posix()}\n{part.hexdigest()}\n".encode())
    return whole.hexdigest()[:12]


def card_of(
    config: ForeignConfig, version: str, *, summary: str = "", licence: str = "", data: str = "", accepts: str = ""
) -> ExpertCard:
    """The card: what the person wrote, and where nothing is written, what the foreign files say."""
    limits = [f"{key} {' or '.join(values)}" for key, values in config.meta.items()]
    channels = "the first channel" if "*" in config.channels else f"channels {', '.join(config.channels)}"
    return ExpertCard(
        name=config.name,
        version=version,
        task=config.task,
        summary=" ".join((config.summary or summary).split()),
        modalities=config.modalities,
        arguments={label: (label,) for label in config.labels} | {"all": tuple(config.labels)} | config.arguments,
        accepts="; ".join(filter(None, (", ".join(config.modalities), *limits, channels, accepts))),
        performance=config.performance,
        licence=config.licence or licence or "unknown",
        data=" ".join((config.data or data).split()),
    )
