"""A recipe: one YAML file that says how a domain's model is made."""

from __future__ import annotations

from collections import Counter
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from curriculum.data.importers.base import load_records
from experts.settings import ExpertConfig
from fovea.config import Config
from fovea.errors import InputError
from fovea.types import Kind


class RecordsConfig(Config):
    """A set that `fovea data import` wrote, for stages to train on beside the studies."""

    path: Path
    """Folder of the imported set; the folder's name is the set's in all that is reported."""
    root: Path | None = None
    """Where the source of the import lies now, if it has moved."""
    stages: tuple[Literal[1, 2, 3, 4], ...] = Field(min_length=1)
    """Which stages train on it. 1 takes texts about one picture, 2 texts about pictures, 3 and 4 all conversations."""
    share: float = Field(gt=0, le=1)
    """Share of a step's `batch` that is drawn from it, in pictures; the studies take what the sets leave."""

    @property
    def name(self) -> str:
        return self.path.resolve().name

    @field_validator("path")
    @classmethod
    def _is_imported(cls, path: Path) -> Path:
        try:
            load_records(path)
        except InputError as error:
            raise ValueError(str(error)) from None
        return path


class ReadyExpert(Config):
    """An expert that is not trained here: a rule without weights, a foreign model, or one of another run."""

    name: str
    """The name on its card."""
    kind: str
    """The entry point in `fovea.experts` that opens it."""
    folder: Path | None = None
    """Where it lies; kinds without weights need none."""


class DataConfig(Config):
    """Where the studies come from, and how they are divided by patient or place."""

    source: Literal["synth", "manifest"] = "synth"
    """synth: made by the domain. manifest: files listed in a JSON-lines manifest."""
    n: int = Field(default=600, ge=10)
    """How many studies `synth` makes."""
    path: Path | None = None
    """Folder of the manifest; its files are never copied."""
    folders: tuple[str, ...] = ()
    """Which of the manifest's folders to read."""
    validation: float = Field(default=0.1, gt=0, lt=0.5)
    """Share of patients or places that experts are calibrated on."""
    test: float = Field(default=0.2, gt=0, lt=0.5)
    """Share of patients or places that only the evaluation sees."""
    records: tuple[RecordsConfig, ...] = ()
    """Imported sets that are mixed in. Those without a split are divided by these shares too."""

    @model_validator(mode="after")
    def _can_be_mixed(self) -> Self:
        names = Counter(chosen.name for chosen in self.records)
        faults = [f"two sets named {name!r} in records, rename a folder" for name, n in names.items() if n > 1]
        for stage in (1, 2, 3, 4):
            total = sum(Fraction(str(chosen.share)) for chosen in self.records if stage in chosen.stages)
            if total > 1:
                faults.append(f"the shares of records in stage {stage} sum to {float(total):g}, at most 1")
        if faults:
            raise ValueError("; ".join(faults))
        return self


class Phase(Config):
    """A part of a stage and what it trains; everything else stays frozen."""

    share: float = Field(default=1.0, gt=0, le=1)
    """Share of the stage's steps."""
    train: tuple[str, ...]
    """Prefixes of parameter names: tower, connector, decoder; clip in stage 1."""


class StageConfig(Config):
    """How one stage is trained; what is left out is inherited from the stage before."""

    steps: int = Field(default=100, ge=1)
    """Optimizer steps."""
    batch: int | None = Field(default=None, ge=1)
    """Studies a step."""
    questions: int | None = Field(default=None, ge=1)
    """Conversations a study in one step; they share the image."""
    readings: int | None = Field(default=None, ge=0)
    """Conversations of text alone a step, in which findings are read: what a small new decoder has to learn first."""
    length: int | None = Field(default=None, ge=64)
    """Longest packed row in tokens."""
    lr: float | None = Field(default=None, gt=0)
    """Peak learning rate."""
    warmup: float | None = Field(default=None, ge=0, lt=1)
    """Share of steps until the peak; cosine decay to a tenth after it."""
    weight_decay: float | None = Field(default=None, ge=0)
    """Decoupled weight decay on matrices."""
    clip_norm: float | None = Field(default=None, gt=0)
    """Gradients are scaled down to this norm."""
    optimizer: Literal["adamw", "muon"] | None = None
    """muon: Muon for hidden matrices and AdamW for the rest."""
    checkpoint: int | None = Field(default=None, ge=1)
    """Steps between checkpoints."""
    phases: tuple[Phase, ...] | None = None
    """What is trained when."""


class Dialogues(Config):
    """Shares of stage-4 conversations by what the expert does; the rest is answered with a correct result."""

    none: float = Field(default=0.25, ge=0, le=1)
    """No expert is offered: the model answers from the image."""
    wrong: float = Field(default=0.12, ge=0, le=1)
    """The result belongs to another study."""
    failed: float = Field(default=0.06, ge=0, le=1)
    """The expert fails."""
    partly_false: float = Field(default=0.08, ge=0, le=1)
    """One finding of the result is false."""
    truth: float = Field(default=0.3, ge=0, le=1)
    """Share of correct results taken from ground truth instead of the expert's own output; its mistakes always are,
    as doubt is learned from results that are visibly another study's or false, not from near misses."""
    overlay: bool = True
    """Show the findings drawn over the picture as a second image."""
    direct: tuple[Kind, ...] = ("class",)
    """Kinds of question that are answered without an expert."""


class EvaluationConfig(Config):
    """How the held-out studies are examined."""

    questions: int = Field(default=8, ge=1)
    """Questions a study, drawn evenly over kinds."""
    tolerance: float = Field(default=0.2, gt=0)
    """A size or area counts as right within this share of the truth."""
    resamples: int = Field(default=1000, ge=100)
    """Bootstrap resamples over patients or places."""
    batch: int = Field(default=48, ge=1)
    """Prompts decoded together."""
    records: int = Field(default=500, ge=1)
    """Questions of each imported set's test split; drawn by the seed where there are more."""


DEFAULTS = StageConfig(
    steps=100, batch=8, questions=6, readings=8, length=1024, lr=2e-3, warmup=0.05, weight_decay=0.05, clip_norm=1.0,
    optimizer="adamw", checkpoint=200, phases=(Phase(train=("connector", "decoder")),),
)  # fmt: skip


class Recipe(Config):
    """All that is needed to make and examine the model of one domain."""

    domain: str
    """A registered domain."""
    out: Path
    """The run's folder."""
    seed: int = 0
    """Fixes data, order and weights."""
    licence: str = "Apache-2.0"
    """Licence of the weights: what that of the data allows."""
    data: DataConfig = DataConfig()
    image_size: int = Field(default=128, ge=32)
    """Side in pixels of the picture that the language model sees."""
    vocabulary: int = Field(default=1024, ge=300)
    """Tokens of the tokenizer that is trained on the domain's text."""
    tokenizer: str | None = None
    """A pretrained tokenizer (folder or hub name) instead."""
    experts: tuple[ExpertConfig, ...] = ()
    """Experts that are trained, and then offered in stage 4."""
    ready_experts: tuple[ReadyExpert, ...] = ()
    """Experts that are offered as they are."""
    clip: str | dict[str, Any]
    """Stage 1 starts from this: open_clip config keys for a new model, or a folder or hub name of a pretrained one."""
    tower: str | None = None
    """Another image tower for stages 2 to 4 than stage 1's: openclip:, timm: or hf: with a folder or hub name."""
    factor: int = Field(default=1, ge=1)
    """The connector merges factor × factor visual tokens into one."""
    decoder: str | dict[str, Any]
    """Pretrained decoder, or a transformers config with its model_type for a new one."""
    stage1: StageConfig = StageConfig(phases=(Phase(train=("clip",)),))
    stage2: StageConfig = StageConfig()
    stage3: StageConfig = StageConfig()
    stage4: StageConfig = StageConfig()
    dialogues: Dialogues = Dialogues()
    evaluation: EvaluationConfig = EvaluationConfig()
    experiment: str = "fovea"
    """MLflow experiment."""
    tracking: str | None = None
    """MLflow tracking URI; by default a sqlite file beside the run's folder."""

    @model_validator(mode="after")
    def _told_apart(self) -> Self:
        names = Counter([*(e.name for e in self.experts), *(e.name for e in self.ready_experts)])
        if doubled := [name for name, n in names.items() if n > 1]:
            raise ValueError(f"two experts named {', '.join(doubled)}: rename one")
        return self

    def stage(self, number: int) -> tuple[StageConfig, dict[str, Any]]:
        """The stage with everything set, and what it inherited. Phases are not inherited from stage 1."""
        values, inherited = DEFAULTS.model_dump(), {}
        for n in range(1, number + 1):
            own = getattr(self, f"stage{n}").model_dump(exclude_none=True, exclude_unset=True)
            inherited = {key: value for key, value in values.items() if key not in own}
            kept = DEFAULTS.phases if n == 1 and number > 1 else own.get("phases", values["phases"])
            values = {**values, **own, "phases": kept}
        return StageConfig.model_validate(values), inherited
