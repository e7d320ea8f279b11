"""Similar studies: the nearest ones of a collection, and what their known labels say of this one.

A collection is a folder: embeddings of unit length in a safetensors matrix, a line of JSON for each study (its id,
which derives from content, the labels it shows and those that were looked for, safe facts), calibration and card. No
picture, file name or patient is kept. The search is exact: the cosine with every study.

The score of a label is the share of the nearest studies that show it, each weighted with exp((cosine - 1) /
temperature), made a probability by a logistic curve fitted to the votes on each study of the collection by the
others; studies of its own patient or place do not vote there, and at run time none votes on itself.

The module is the kind `retrieval` of the entry points `fovea.experts`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from scipy.special import logit
from torch import Tensor

from experts import untrained
from experts.calibration import Calibration
from experts.examination import Trial
from experts.network import digest_of
from experts.resampling import resize
from fovea.config import Config
from fovea.errors import ConfigError, ExpertError, InputError, ModelError
from fovea.files import whole
from fovea.jsonable import from_json, to_json
from fovea.types import Code, ExpertCard, Facts, Finding, Floats, Measure, Origin, Study

Tower = Callable[[Study], NDArray[Any]]
"""Looks at a study and gives a vector, always of the same length."""
Items = Iterable[tuple[Study, Facts, str]]
"""Studies of known truth, each with the patient or place that it belongs to."""
DESCRIPTOR = "oriented gradients/1"
"""The tower that needs no weights: `describe`."""
LIMIT = 2**28
"""Bytes of a file of a collection."""
_PRIOR = 0.1
"""How much the share of the whole collection weighs beside the nearest studies."""
_FILES = ("config.json", "studies.jsonl", "embeddings.safetensors", "calibration.json")
"""What changes an answer."""
_SIDE, _CELLS, _TURNS = 64, 4, 9


class RetrievalConfig(Config):
    """What a collection answers, and by how many neighbours."""

    name: str = Field(default="similar_studies", pattern=r"^[\w.-]+$")
    """What calls name it by."""
    kind: Literal["retrieval"] = "retrieval"
    """The entry point that opens it."""
    task: str = "finds the most similar studies of a collection and says what they show"
    """One line for the prompt."""
    modalities: tuple[str, ...]
    """Modalities it takes."""
    labels: dict[str, Code] = Field(default_factory=dict)
    """What it answers; left out, all that the collection was looked through for."""
    k: int = Field(default=10, ge=1)
    """How many neighbours vote."""
    temperature: float = Field(default=0.1, gt=0)
    """The fall in cosine at which a neighbour weighs 1/e."""
    facts: tuple[str, ...] = ("modality", "view", "body_part", "sensor")
    """Keys of `Study.meta` that are kept of each study."""
    tower: str = DESCRIPTOR
    """What made the embeddings: the built-in descriptor, or the name of a tower that `open` is given."""


@dataclass(frozen=True)
class Neighbour:
    """A study of the collection: its id, the cosine with the study that was asked about, the labels that it shows and
    those that were looked for, and safe facts."""

    id: str
    cosine: float
    labels: tuple[str, ...]
    assessed: tuple[str, ...]
    facts: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Collection:
    """Embeddings float32 (study, feature) of unit length about `mean` (feature,), and what is known of each study."""

    embeddings: Tensor
    mean: Tensor
    studies: tuple[Neighbour, ...]

    def nearest(self, cosines: Tensor, barred: Tensor, k: int) -> list[Neighbour]:
        """The `k` studies with the greatest cosine, those that are `barred` left out."""
        best = torch.topk(cosines.masked_fill(barred, -torch.inf), min(k, len(self.studies)))
        found = zip(best.indices.tolist(), best.values.tolist(), strict=True)
        return [replace(self.studies[place], cosine=cosine) for place, cosine in found if cosine > -torch.inf]

    def share(self, label: str) -> float:
        """How many of the studies looked through for a label show it."""
        shown = [label in study.labels for study in self.studies if label in study.assessed]
        return (sum(shown) + 0.5) / (len(shown) + 1)


class RetrievalExpert(untrained.UntrainedExpert):
    """Answers by the known labels of the most similar studies."""

    def __init__(
        self,
        config: RetrievalConfig,
        collection: Collection,
        calibrations: Mapping[str, Calibration],
        card: ExpertCard,
        tower: Tower,
    ) -> None:
        self.config, self.collection, self.calibrations, self.card = config, collection, calibrations, card
        self.tower = tower

    def refusal(self, study: Study) -> str:
        """The modality, if it is none of the collection's."""
        return "" if study.modality in self.config.modalities else f"modality {study.modality!r}"

    def neighbours(self, study: Study) -> list[Neighbour]:
        """The nearest studies, the most similar first, never the study itself; raises ExpertError."""
        collection = self.collection
        vector = torch.from_numpy(embed(self.tower, study))
        if vector.shape != collection.mean.shape:
            raise ExpertError(f"an embedding of {len(vector)} numbers", f"{len(collection.mean)}, as in the collection")
        cosines = collection.embeddings @ _unit(vector - collection.mean)
        barred = torch.tensor([other.id == study.id for other in collection.studies])
        return collection.nearest(cosines, barred, self.config.k)

    def answer(self, study: Study, labels: tuple[str, ...], by: Origin) -> tuple[Finding, ...]:
        near = self.neighbours(study)
        return tuple(self._finding(label, near, by) for label in labels)

    def _finding(self, label: str, near: Sequence[Neighbour], by: Origin) -> Finding:
        calibration, known = self.calibrations[label], [other for other in near if label in other.assessed]
        score = calibration.probability(vote(label, near, self.collection.share(label), self.config.temperature))
        measures = [
            Measure("neighbours", float(len(known)), "1"),
            Measure("neighbours_showing", float(sum(label in other.labels for other in known)), "1"),
        ]
        if known:
            measures.append(Measure("nearest_cosine", known[0].cosine, "1"))
        present = score >= calibration.threshold
        return Finding(label, self.config.labels[label], present, score, by, measures=tuple(measures))


def vote(label: str, near: Sequence[Neighbour], share: float, temperature: float) -> float:
    """The logit of the weighted share of the neighbours that show a label, drawn a little to its share of all."""
    known = [other for other in near if label in other.assessed]
    weights = [float(np.exp((other.cosine - 1) / temperature)) for other in known]
    shown = sum(weight for weight, other in zip(weights, known, strict=True) if label in other.labels)
    return float(logit((shown + _PRIOR * share) / (sum(weights) + _PRIOR)))


def build(config: RetrievalConfig, items: Items, folder: Path, tower: Tower | None = None) -> ExpertCard:
    """Embed studies of known truth and write their collection; returns the card, with how good it is by leave-one-out.

    Items are (study, facts, patient or place); the latter is not kept. Without a tower, `describe` embeds.
    """
    vectors, groups, codes, digests = [], [], dict(config.labels), []
    studies: list[Neighbour] = []
    for study, facts, group in items:
        if study.modality not in config.modalities or study.id in {other.id for other in studies}:
            continue
        vectors.append(embed(tower or describe, study))
        shown = tuple(sorted({finding.label for finding in facts.findings if finding.present}))
        kept = {key: study.meta[key] for key in config.facts if key in study.meta}
        studies.append(Neighbour(study.id, 1.0, shown, tuple(sorted(facts.assessed)), kept))
        groups.append(group)
        digests.append(study.digest)
        if not config.labels:
            codes |= {label: codes.get(label, untrained.own(label)) for label in sorted(facts.assessed)}
            codes |= {finding.label: finding.code for finding in facts.findings if finding.label in facts.assessed}
    if len(studies) < 2 or not codes or "all" in codes:
        raise ConfigError(f"a collection of {len(studies)} studies and {len(codes)} labels", "two studies and a label")
    if (config.tower == DESCRIPTOR) != (tower is None):
        raise ConfigError(f"the tower {config.tower!r}", "its name where one is given, and only there")
    config = config.model_copy(update={"labels": codes})
    matrix = torch.from_numpy(np.stack(vectors))
    collection = Collection(_unit(matrix - matrix.mean(0)), matrix.mean(0), tuple(studies))
    trials = _left_out(config, collection, groups)
    data = digest_of(digests)
    rows = [row for label, trial in trials.items() for row in trial.rows(label, data)]
    labels = tuple(codes)
    card = ExpertCard(
        config.name,
        "",
        config.task,
        f"weighted vote of the {config.k} nearest of {len(studies)} studies, by {config.tower}",
        config.modalities,
        untrained.arguments(labels),
        ", ".join(config.modalities),
        tuple(rows),
        data=f"{len(studies)} studies, digest {data}",
    )
    return _save(folder, config, collection, {label: trial.calibration() for label, trial in trials.items()}, card)


def _left_out(config: RetrievalConfig, collection: Collection, groups: Sequence[str]) -> dict[str, Trial]:
    """The votes on each study by those of other patients or places, with the truth."""
    numbers = {group: number for number, group in enumerate(dict.fromkeys(groups))}
    group = torch.tensor([numbers[name] for name in groups])
    shares = {label: collection.share(label) for label in config.labels}
    trials = {label: Trial() for label in config.labels}
    for place, study in enumerate(collection.studies):
        cosines = collection.embeddings @ collection.embeddings[place]
        near = collection.nearest(cosines, group == group[place], config.k)
        for label in set(study.assessed).intersection(config.labels):
            trials[label].add(vote(label, near, shares[label], config.temperature), label in study.labels)
    return trials


def open(folder: Path | None, tower: Tower | None = None) -> RetrievalExpert:
    """The expert of the collection in a folder; raises ModelError.

    `tower` is what made the embeddings, where it was not the built-in descriptor.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if folder is None:
        raise ModelError("a retrieval expert without a folder", "the folder of a collection")
    config = untrained.read(folder, RetrievalConfig, "retrieval")
    try:
        if any((folder / name).stat().st_size > LIMIT for name in (*_FILES, "card.json")):
            raise ModelError("a collection with too large a file", f"at most {LIMIT / 2**20:.0f} MiB each")
        lines = (folder / "studies.jsonl").read_text().splitlines()
        studies = tuple(from_json(Neighbour, json.loads(line)) for line in lines)
        calibrations = {
            label: from_json(Calibration, item)
            for label, item in json.loads((folder / "calibration.json").read_text()).items()
        }
        card = from_json(ExpertCard, json.loads((folder / "card.json").read_text()))
        tensors = load_file(folder / "embeddings.safetensors")
        version = _version(folder)
    except (OSError, ValueError, AttributeError, InputError, SafetensorError) as error:
        raise ModelError(
            f"a collection that cannot be read ({type(error).__name__})", "what build wrote", "Build it again."
        ) from None
    _check(config, studies, calibrations, card, tensors, version)
    if (config.tower == DESCRIPTOR) != (tower is None):
        raise ModelError(f"a collection embedded by {config.tower!r}", "to be opened with that tower")
    collection = Collection(tensors["embeddings"], tensors["mean"], studies)
    return RetrievalExpert(config, collection, calibrations, card, tower or describe)


def embed(tower: Tower, study: Study) -> Floats:
    """What a tower sees of a study, float32 (feature,); raises ExpertError for what is no vector."""
    vector = np.asarray(tower(study), np.float32)
    if vector.ndim != 1 or not np.isfinite(vector).all():
        raise ExpertError(f"an embedding of shape {vector.shape}", "finite numbers in a row")
    return vector


def describe(study: Study) -> Floats:
    """What the first image looks like, float32 (424,), without a network.

    The picture at 64 x 64 pixels, its channels between their 1st and 99th percentile and averaged: a histogram of
    oriented gradients in each of 4 x 4 cells (Dalal & Triggs 2005), the picture at 16 x 16, a histogram of 16 values,
    and for the first four channels mean and deviation. Of a volume, the middle slice. Each part has unit length, so
    that all weigh alike; brightness and contrast do not matter.
    """
    image = study.images[0]
    shape = tuple(min(side, 8 * _SIDE) for side in image.grid.shape[1:])
    pixels, valid = image.read(None, (shape[0], shape[1]))
    middle = pixels.shape[1] // 2
    wanted = [place for place, channel in enumerate(image.channels) if channel.unit != "class"]
    there = valid[middle] & np.isfinite(pixels[:, middle]).all(axis=0)
    if not there.any():
        raise ExpertError("an image without data", "pixels to compare")
    low, high = np.percentile(pixels[wanted, middle][:, there], (1, 99), axis=1)[..., None, None]
    scaled = np.where(there, ((pixels[wanted, middle] - low) / np.maximum(high - low, 1e-6)).clip(0, 1), 0)
    gray = resize(scaled.mean(0)[None, None], (1, _SIDE, _SIDE))[0, 0]
    rows, columns = np.gradient(gray)
    turn = (np.arctan2(rows, columns) % np.pi / np.pi * _TURNS).astype(int) % _TURNS
    place = np.arange(_SIDE) * _CELLS // _SIDE
    cell = (place[:, None] * _CELLS + place) * _TURNS + turn
    gradients = np.sqrt(np.bincount(cell.ravel(), np.hypot(rows, columns).ravel(), _CELLS**2 * _TURNS))
    small = resize(gray[None, None], (1, 16, 16)).ravel()
    tones = np.histogram(gray, 16, (0, 1))[0]
    colors = np.zeros(8)
    for number, channel in enumerate(scaled[:4]):
        colors[2 * number : 2 * number + 2] = channel[there].mean(), channel[there].std()
    parts = (gradients, small - small.mean(), tones, colors)
    return np.concatenate([part / max(float(np.linalg.norm(part)), 1e-9) for part in parts]).astype(np.float32)


def _unit(vectors: Tensor) -> Tensor:
    return torch.nn.functional.normalize(vectors, dim=-1)


def _check(
    config: RetrievalConfig, studies: tuple[Neighbour, ...], calibrations: Mapping[str, Calibration], card: ExpertCard,
    tensors: Mapping[str, Tensor], version: str,
) -> None:  # fmt: skip
    """Raise ModelError unless the files of a collection belong together."""
    matrix, mean = tensors.get("embeddings"), tensors.get("mean")
    whole = (
        matrix is not None
        and mean is not None
        and matrix.ndim == 2
        and matrix.shape == (len(studies), len(mean))
        and matrix.dtype == mean.dtype == torch.float32
        and bool(((matrix.norm(dim=1) - 1).abs() < 1e-3).all())
        and bool(mean.isfinite().all())
    )
    if not whole or set(calibrations) != set(config.labels) or card.version != version:
        raise ModelError("files of a collection that do not belong together", "what build wrote", "Build it again.")


def _save(
    folder: Path, config: RetrievalConfig, collection: Collection, calibrations: Mapping[str, Calibration],
    card: ExpertCard,
) -> ExpertCard:  # fmt: skip
    from safetensors.torch import save_file

    untrained.save(config, folder)
    untrained.write(folder, "studies.jsonl", "".join(f"{json.dumps(to_json(item))}\n" for item in collection.studies))
    untrained.write(folder, "calibration.json", json.dumps({k: to_json(v) for k, v in calibrations.items()}, indent=1))
    with whole(folder / "embeddings.safetensors") as partial:
        save_file({"embeddings": collection.embeddings.contiguous(), "mean": collection.mean.contiguous()}, partial)
    card = replace(card, version=_version(folder))
    untrained.write(folder, "card.json", json.dumps(to_json(card), indent=1) + "\n")
    return card


def _version(folder: Path) -> str:
    return untrained.version("retrieval/1", *(sha256((folder / name).read_bytes()).hexdigest() for name in _FILES))
