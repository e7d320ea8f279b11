"""What foreign experts share: which channels they read, what they remember, and how masks become findings."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy.special import logit

from experts import measure
from experts.foreign.settings import ForeignConfig, ForeignLabel
from fovea.errors import ExpertError, InputError
from fovea.types import Bools, ExpertCard, Finding, Floats, Grid, Instance, Mask, Origin, Pixels, Study

Place = tuple[int, int]
"""An image of a study, and a channel of that image."""
UNDRAWN = 0.5 - 1e-6
"""The highest probability of a label of which nothing is drawn."""
_REMEMBERED = 4
"""Studies whose findings an expert keeps, so that several questions about one cost one pass."""


class ForeignExpert(ABC):
    """An expert with a card that somebody else has trained."""

    volumes: bool | None = None
    """Whether it reads images of several slices, of one slice, or both."""

    def __init__(self, config: ForeignConfig, card: ExpertCard) -> None:
        self.config, self.card = config, card
        self._seen: OrderedDict[str, dict[str, Finding]] = OrderedDict()

    def accepts(self, study: Study) -> bool:
        """Whether the modality is one of the card's, and the study has the channels that are read."""
        return not isinstance(places(self.config, study, self.volumes), str)

    def run(self, study: Study, argument: str) -> tuple[Finding, ...]:
        """A finding for each label of the argument; raises ExpertError."""
        labels = self.card.asked(argument)
        found = places(self.config, study, self.volumes)
        if isinstance(found, str):
            raise ExpertError(f"{self.card.name} does not take this study: {found}")
        known = self._seen.get(study.digest, {})
        if any(label not in known for label in labels):
            try:
                known |= self.look(study, found, argument, Origin(self.card.name, self.card.version, study.digest))
            except InputError as error:
                raise ExpertError(f"{self.card.name} cannot read this study: {error}") from error
        self._seen[study.digest] = known
        self._seen.move_to_end(study.digest)
        while len(self._seen) > _REMEMBERED:
            self._seen.popitem(last=False)
        return tuple(known[label] for label in labels)

    @abstractmethod
    def look(self, study: Study, found: Sequence[Place], argument: str, by: Origin) -> Mapping[str, Finding]:
        """Findings of the argument's labels at least, from the channels `found`; raises ExpertError."""

    def failed(self, error: Exception) -> ExpertError:
        """That the foreign network could not work on a study."""
        return ExpertError(f"{self.card.name} failed on this study ({type(error).__name__})", "one that suits it")

    def probability(self, label: str, share: float) -> float:
        """The calibrated probability of a label whose probability the expert gives as `share`."""
        return self.config.labels[label].calibration.probability(float(logit(np.clip(share, 1e-6, 1 - 1e-6))))

    def named(self, label: str, share: float, by: Origin, image: int) -> Finding:
        """A finding without a place."""
        score = self.probability(label, share)
        present = score >= self.config.labels[label].threshold
        return Finding(label, self.config.code(label), present, score, by, image=image)


def places(config: ForeignConfig, study: Study, volumes: bool | None) -> list[Place] | str:
    """Where the channels of an expert are found, in its order, or why the study is not taken."""
    if study.modality not in config.modalities:
        return f"modality {study.modality!r}, not {' or '.join(config.modalities)}"
    for key, values in config.meta.items():
        if study.meta.get(key, values[0]) not in values:
            return f"{key} {study.meta[key]!r}, not {' or '.join(values)}"
    fitting = [i for i, image in enumerate(study.images) if volumes in (None, image.grid.shape[0] > 1)]
    if not fitting:
        return "no image with several slices" if volumes else "no image of one slice"
    found: list[Place] = []
    for name in config.channels:
        there = [
            (i, c) for i in fitting for c, channel in enumerate(study.images[i].channels) if name in ("*", channel.name)
        ]
        # of images that all have every channel, the first is read
        images = {i for i, _ in there}
        if not there or (len(images) > 1 and name != "*" and not _whole(config, study, min(images))):
            return f"channel {name!r} {'is missing' if not there else 'is there twice'}"
        found.append(there[0])
    first = study.images[found[0][0]].grid
    if any(not first.same(study.images[i].grid) for i, _ in found):
        return "the images of its channels do not lie on one grid"
    return found


def _whole(config: ForeignConfig, study: Study, image: int) -> bool:
    return set(config.channels) <= {channel.name for channel in study.images[image].channels}


def pixels(study: Study, found: Sequence[Place]) -> Pixels:
    """The channels (channel, slice, row, column), and where all of them have finite data (slice, row, column)."""
    # not image.pixels: a large picture is not kept
    read = {image: study.images[image].read(None, None) for image in dict.fromkeys(image for image, _ in found)}
    values = np.stack([read[image][0][channel] for image, channel in found])
    valid = np.logical_and.reduce([known for _, known in read.values()]) & np.isfinite(values).all(axis=0)
    if not valid.any():
        raise InputError("an image without data", "some valid pixels")
    return values, valid


@dataclass(frozen=True, eq=False)
class Drawing:
    """Masks of a study by label on the grid of one of its images, and each label's probability.

    `shares` is the mean probability of the drawn pixels, and where none is drawn the highest one there is; `valid`
    tells where there is data, and `coarseness` how many pixels of the image one of the network covers. `maps` are the
    probabilities (slice, row, column) of labels whose objects are told apart; `pixels` are values of one channel.
    """

    masks: Mapping[str, Bools]
    shares: Mapping[str, float]
    grid: Grid
    image: int
    valid: Bools
    coarseness: float = 1.0
    maps: Mapping[str, Floats] = field(default_factory=dict)
    pixels: Floats | None = None
    unit: str = ""

    def finding(self, expert: ForeignExpert, label: str, by: Origin) -> Finding:
        """What is said of one label, measured as our own experts measure."""
        wanted, mask = expert.config.labels[label], self.masks[label]
        plain = expert.named(label, self.shares[label], by, self.image)
        if not plain.present or not mask.any():
            return Finding(label, plain.code, False, plain.score, by, image=self.image)
        context = measure.Context(
            self.valid, self.masks, self.coarseness, self.maps.get(label), pixels=self.pixels, unit=self.unit
        )
        found = [measure.MEASURES[name](mask, self.grid, context) for name in wanted.measures]
        touched = np.flatnonzero(mask.any(axis=(1, 2)))
        place = {"side": measure.side, "quadrant": measure.quadrant}.get(wanted.location)
        return Finding(
            label,
            plain.code,
            True,
            plain.score,
            by,
            place(mask, self.grid) if place else "",
            tuple(item for item in found if item),
            Mask(mask),
            self.image,
            (int(touched[0]), int(touched[-1]) + 1) if len(mask) > 1 else None,
            self._objects(wanted, mask, context) if wanted.objects else (),
        )

    def _objects(self, wanted: ForeignLabel, mask: Bools, context: measure.Context) -> tuple[Instance, ...]:
        return measure.instances(
            mask, self.grid, wanted.measures, context, smallest=wanted.smallest, limit=wanted.objects
        )


def rival(likely: Floats, other: Floats) -> Floats:
    """Of exclusive labels, one against the likeliest other: above 0.5 where it is the likeliest of all."""
    return np.asarray(likely / np.maximum(likely + other, 1e-12), np.float32)


def mean_of(probability: Floats, mask: Bools) -> float:
    """The mean probability of the pixels of a mask, or the highest of all, below 0.5, where it is empty."""
    return float(probability[mask].mean()) if mask.any() else min(float(probability.max(initial=0.0)), UNDRAWN)
