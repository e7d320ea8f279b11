"""The recipe of an expert: what it takes, what it answers, and how it is trained."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal

from pydantic import Field, PositiveFloat, model_validator

from experts.measure import MEASURES
from experts.operating import read_rule
from fovea.config import Config
from fovea.errors import ConfigError
from fovea.types import Code, Term
from fovea.verbal import words


class RuleConfig(Config):
    """A label that no network draws: it is present when a measure of another label exceeds a limit."""

    measure: str
    """The name under which the measure is found, such as cardiothoracic_ratio."""
    of: str
    """The label whose mask is measured, such as heart."""
    above: float
    """Present above this value."""


class LabelConfig(Config):
    """What is said of one label."""

    measures: tuple[str, ...] = ()
    """Names from `experts.measure.MEASURES`, such as count, area_cm2 or longest_diameter."""
    location: Literal["", "side", "quadrant", "zone", "within"] = ""
    """How the place is told: the patient's side; the quarter of the scene that holds most of it; the upper, middle or
    lower third of the lungs, which `midline` names; or which of the labels of `within` holds most of it."""
    within: tuple[str, ...] = ()
    """Labels that may hold this one, such as the lobes of the lungs or the segments of the liver."""
    instances: int = Field(default=0, ge=0)
    """How many connected pieces, the largest first, are also told one by one, each with its own measures and score."""
    smallest: int = Field(default=1, ge=1)
    """Pieces of fewer network pixels are dropped."""
    rule: RuleConfig | None = None
    """For a label that follows from a measure."""
    reported: bool = True
    """false: drawn for the sake of others, such as lungs for the midline between them, and not told."""
    operating: str = "youden"
    """The rule that sets the probability from which the label is called present: youden, f1, "sensitivity>=0.95",
    "specificity>=0.9" or "cost:fn=5,fp=1". A label with a `rule` does not need it."""
    code: Code | None = None
    """Its concept; taken from the vocabulary or from the training findings where it is left out."""

    @model_validator(mode="after")
    def _known(self) -> LabelConfig:
        named = (*self.measures, *([self.rule.measure] if self.rule else ()))
        unknown = [name for name in named if name not in MEASURES]
        if unknown:
            raise ValueError(f"no measure {', '.join(unknown)}; there are {', '.join(MEASURES)}")
        if (self.location == "within") != bool(self.within):
            raise ValueError("within: the labels that may hold this one, with `location: within` and only then")
        read_rule(self.operating)
        return self


class TrainingConfig(Config):
    """How long and with what a network is trained."""

    steps: int = Field(default=240, ge=1)
    """Updates of the weights."""
    batch: int = Field(default=16, ge=1)
    """Studies per update."""
    rate: float = Field(default=4e-3, gt=0)
    """Highest learning rate of the one-cycle schedule."""
    width: int = Field(default=16, ge=4)
    """Channels of the first level; the levels below have more."""
    crop: int = Field(default=0, ge=0, multiple_of=32)
    """Side of the part of a picture that one update shows, in pixels; 0 is the whole. Parts cost less where what is
    sought can be told without the rest: things seen from above, not the left lung."""
    rare: float = Field(default=1.0, ge=1)
    """How many times more a pixel of a rare label may weigh in the cross-entropy than one of none: the root of how
    rare it is, up to this. Above 1, studies with rare labels are also shown more often."""
    turns: bool = False
    """Whether mirrored and quarter-turned pictures are as likely: true of scenes from above, not of patients."""
    calibration: Literal["logistic", "platt", "temperature", "isotonic"] = "logistic"
    """How evidence becomes a probability: by slope and intercept, which few studies leave near the network's own; by
    Platt's, which few studies draw towards even chances; by a slope alone; or by a monotone curve, which needs hundreds
    of studies."""
    patience: int = Field(default=0, ge=0)
    """Checks in a row without a better score after which training stops; the weights of the best one are kept. For the
    checks the first quarter of the validation studies is held apart from calibration, or the last eighth of the
    training studies where there are fewer than 40 for validation. 0: no check, nothing is held apart."""
    check: int = Field(default=50, ge=1)
    """Updates between two checks."""


class ExpertConfig(Config):
    """One expert."""

    name: str = Field(pattern=r"^[\w.-]+$")
    """What calls name it by."""
    kind: str = "segmentation"
    """The entry point in `fovea.experts` that trains and opens it."""
    task: str
    """One line for the prompt: what it is good for."""
    modalities: tuple[str, ...]
    """Modalities it takes, such as DX, CT or optical."""
    channels: tuple[str, ...] = ("*",)
    """Names of the channels it reads, in order; "*" is the first one, whatever its name."""
    meta: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    """Values that a study's `meta` may have, where it has the key: `{view: [PA, AP]}`."""
    size: tuple[int, int, int] = (1, 256, 256)
    """Slices, rows and columns of the network's input; more than one slice makes the network 3-D."""
    spacing: tuple[PositiveFloat, PositiveFloat, PositiveFloat] | None = None
    """The distance between slices, rows and columns that the network sees, in mm (a scene: in metres on the ground). It
    then reads windows of `size` at that spacing, however large the picture; left out, the whole picture at `size`."""
    overlap: float = Field(default=0.25, ge=0, le=0.5)
    """With a spacing: the share of `size` that neighbouring windows have in common, where they are blended."""
    low: float | None = None
    """The value that the network sees as 0; left out, the 1st percentile of each image."""
    high: float | None = None
    """The value that the network sees as 1; left out, the 99th percentile of each image."""
    labels: dict[str, LabelConfig]
    """What it answers, in order."""
    exclusive: bool = False
    """Whether a pixel has one label at most: true of land cover, not of a heart before a lung."""
    midline: tuple[str, str] | None = None
    """The paired labels between which the patient's midline lies, such as the two lungs; else the body's centre."""
    licence: str = "Apache-2.0"
    """Licence of the weights."""
    training: TrainingConfig = TrainingConfig()

    @model_validator(mode="after")
    def _consistent(self) -> ExpertConfig:
        drawn = self.drawn
        needed = {config.rule.of for config in self.labels.values() if config.rule} | set(self.midline or ())
        needed |= {label for config in self.labels.values() for label in config.within}
        if needed - set(drawn):
            raise ValueError(f"{', '.join(sorted(needed - set(drawn)))} must be among the labels without a rule")
        if not drawn or "all" in self.labels or not self.arguments["all"]:
            raise ValueError("labels must hold one without a rule, one that is reported, and none named 'all'")
        if not self.midline and any(config.location == "zone" for config in self.labels.values()):
            raise ValueError("midline: the two lungs, between which the thirds of `location: zone` lie")
        if (self.low is None) != (self.high is None) or (self.low is not None and self.low >= (self.high or 0.0)):
            raise ValueError("low and high: both or neither, low below high")
        if self.exclusive and self.training.rare > 1:
            raise ValueError("rare: 1 where labels are exclusive; its weight is for labels that may overlap")
        if any(n % 32 for n in self.size[1:]) or (self.size[0] > 1 and self.size[0] % 16):
            raise ValueError(f"size {self.size}: rows and columns in multiples of 32, slices 1 or a multiple of 16")
        return self

    @property
    def drawn(self) -> tuple[str, ...]:
        """The labels that the network itself answers, in order."""
        return tuple(label for label, config in self.labels.items() if config.rule is None)

    @property
    def arguments(self) -> dict[str, tuple[str, ...]]:
        """Each label that is reported for itself, and all of them."""
        told = tuple(label for label, config in self.labels.items() if config.reported)
        return {label: (label,) for label in told} | {"all": told}

    def coded(self, vocabulary: Iterable[Term]) -> ExpertConfig:
        """The same with the codes of a vocabulary; raises ConfigError for a label that it does not hold."""
        codes = {term.label: term.code for term in vocabulary}
        unknown = [label for label, config in self.labels.items() if config.code is None and label not in codes]
        if unknown:
            raise ConfigError(f"{self.name} has labels {unknown}", f"labels of the vocabulary: {', '.join(codes)}")
        return self.coded_by(codes)

    def coded_by(self, codes: Mapping[str, Code]) -> ExpertConfig:
        """The same with codes for labels that have none."""
        labels = {
            label: config.model_copy(update={"code": config.code or codes.get(label)})
            for label, config in self.labels.items()
        }
        return self.model_copy(update={"labels": labels})

    def code(self, label: str) -> Code:
        """The concept of a label; our own table's where none is known."""
        return self.labels[label].code or Code("99FOVEA", label, words(label))
