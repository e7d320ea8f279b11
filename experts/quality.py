"""Whether a picture is fit to be read: blur, noise, clipping, missing data and, of scenes, cloud.

Nothing is trained. Each label has a measure, a limit and a spread: the score is the probability that the true value
lies above the limit, where the logarithm of what is measured errs with the spread as standard deviation (a normal
error). No measure changes when all values are multiplied or shifted.

- blur: the standard deviation in pixels of the Gaussian that edges look to have been blurred with, from how much less
  steep they are once blurred further (Zhuo & Sim 2011), at the strongest edges.
- noise: the standard deviation of noise over the range of values (1st to 99th percentile), from the median response of
  the operator of Immerkær 1996, which does not see planes.
- clipping: the share of valid pixels at the highest value, and at the lowest one where it is no background that reaches
  the border of the picture.
- missing_data: the share of pixels without data.
- cloud: the share of valid pixels that the channel "quality" calls cloud, or else that are bright, white, hazy in the
  sense of the haze-optimised transform, and no vegetation (the first tests of Fmask; Zhu & Woodcock 2012), or that
  reflect more than 0.01 in the cirrus band (Zhu et al. 2015).

Blur and noise are the median over slices or windows, and over channels. A large scene is read by windows.

The module is the kind `quality` of the entry points `fovea.experts`.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import log
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator
from scipy import ndimage
from scipy.stats import norm

from experts import untrained
from experts.measure import quadrant, side
from fovea.config import Config
from fovea.errors import ExpertError
from fovea.types import (
    Bools,
    Code,
    ExpertCard,
    Finding,
    Floats,
    Image,
    Mask,
    Measure,
    Origin,
    Study,
    Window,
)

Defect = Literal["blur", "noise", "clipping", "missing_data", "cloud"]
MEASURED = {
    "blur": "blur_sigma",
    "noise": "noise_share",
    "clipping": "clipped_share",
    "missing_data": "missing_share",
    "cloud": "cloud_share",
}
"""The measure of each label, of unit 1: pixels for blur, shares for the others."""
_FINE, _COARSE = 1.0, 2.0
"""Scales in pixels at which the steepness of edges is compared."""
_BLURRED = 12.0
"""The greatest blur that these scales tell apart."""
_LAPLACE = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], np.float32)
_VISIBLE = ("blue", "green", "red")
_SAMPLED = 2**20
"""About how many pixels the range of values is taken from."""
_FEW = 12
"""Fewer pixels than these do not tell noise or blur."""


class QualityLabel(Config):
    """When a defect is called."""

    limit: float = Field(gt=0)
    """Present above this value of its measure."""
    spread: float = Field(default=0.2, gt=0)
    """Standard deviation of the logarithm of what is measured about the truth."""
    rule: str
    """What set the limit."""
    code: Code | None = None
    """Its concept; our own table's where it is left out."""


_ENDS = "a fiftieth of the pixels has lost its value"
_LABELS: dict[Defect, QualityLabel] = {
    "blur": QualityLabel(limit=2.0, spread=0.25, rule="details of two pixels run together"),
    "noise": QualityLabel(limit=0.05, rule="a fifth of the range stands out by 4 sigma (Rose 1948: 3 to 5)"),
    "clipping": QualityLabel(limit=0.02, spread=0.1, rule=_ENDS),
    "missing_data": QualityLabel(limit=0.02, spread=0.1, rule=_ENDS),
}  # fmt: skip


class QualityConfig(Config):
    """Which defects are looked for."""

    name: str = Field(default="image_quality", pattern=r"^[\w.-]+$")
    """What calls name it by."""
    kind: Literal["quality"] = "quality"
    """The entry point that opens it."""
    task: str = "judges whether a picture is fit to be read: blur, noise, clipping, missing data"
    """One line for the prompt."""
    modalities: tuple[str, ...] = ("DX", "CR", "MG", "CT", "MR", "PT", "US", "optical")
    """Modalities it takes."""
    labels: dict[Defect, QualityLabel] = _LABELS
    """What it answers, in order."""
    clouds: tuple[int, ...] = (4, 5)
    """Classes of a channel "quality" that are cloud: thin cloud, cloud."""
    window: int = Field(default=1024, ge=64)
    """Rows and columns that are read at once."""

    @model_validator(mode="after")
    def _consistent(self) -> QualityConfig:
        if not self.labels:
            raise ValueError("labels: at least one")
        return self


SCENE = QualityConfig(
    name="scene_quality",
    task="judges whether a scene is fit to be read: blur, noise, clipping, missing data, cloud",
    modalities=("optical",),
    labels={**_LABELS, "cloud": QualityLabel(limit=0.05, spread=0.3, rule="a twentieth of the scene is hidden")},
)
"""All of them, for scenes with reflectance in blue, green and red, or with a channel "quality"."""


class QualityExpert(untrained.UntrainedExpert):
    """Measures the defects of the first image of a study."""

    def __init__(self, config: QualityConfig) -> None:
        self.config = config
        labels: tuple[str, ...] = tuple(config.labels)
        cloudy = "; reflectance in blue, green and red, or a channel quality" if "cloud" in labels else ""
        self.card = ExpertCard(
            config.name,
            untrained.version("quality/1", config.model_dump(mode="json")),
            config.task,
            "measures of edges, noise and the ends of the range; scores by how far they err",
            config.modalities,
            untrained.arguments(labels),
            f"{', '.join(config.modalities)}; the first image{cloudy}",
            data="none",
        )

    def refusal(self, study: Study) -> str:
        """Modality or bands that do not fit; "" where they do."""
        if study.modality not in self.config.modalities:
            return f"modality {study.modality!r}"
        image = study.images[0]
        if "cloud" in self.config.labels and "quality" not in [channel.name for channel in image.channels]:
            found = untrained.channels(image, {name: (name,) for name in _VISIBLE}, "reflectance")
            return found if isinstance(found, str) else ""
        return ""

    def answer(self, study: Study, labels: tuple[str, ...], by: Origin) -> tuple[Finding, ...]:
        seen = _Seen(study.images[0], self.config)
        if not seen.valid.any() and labels != ("missing_data",):
            raise ExpertError(
                f"{self.card.name} cannot answer: the image holds no data", "pixels", "Ask for missing_data."
            )
        seen.look(labels)
        return tuple(self._finding(label, seen, study.modality, by) for label in self.config.labels if label in labels)

    def _finding(self, label: Defect, seen: _Seen, modality: str, by: Origin) -> Finding:
        wanted, value, mask = self.config.labels[label], seen.values[label], seen.masks.get(label)
        code = wanted.code or untrained.own(label)
        if value is None:
            return Finding(label, code, False, 0.5, by)
        present = value > wanted.limit
        score = float(norm.cdf(log(value / wanted.limit) / wanted.spread)) if value > 0 else 0.0
        measures = (Measure(MEASURED[label], value, "1", value * wanted.spread),)
        if mask is None or not present:
            return Finding(label, code, present, score, by, measures=measures)
        place = quadrant(mask, seen.grid) if modality == "optical" else side(mask, seen.grid)
        return Finding(label, code, True, score, by, place, measures, Mask(mask))


class _Seen:
    """What is measured of an image, in two passes over its planes: slices of a volume, windows of one slice.

    `values` has the measure of each label, None where there is nothing to judge by; `masks` the pixels concerned.
    """

    def __init__(self, image: Image, config: QualityConfig) -> None:
        self.image, self.config, self.grid = image, config, image.grid
        self.channels = [place for place, channel in enumerate(image.channels) if channel.unit != "class"]
        self.valid = np.zeros(image.grid.shape, bool)
        self.values: dict[str, float | None] = {}
        self.masks: dict[str, Bools] = {}
        pixels = int(np.prod(image.grid.shape))
        self.low, self.high = (np.full(len(self.channels), end) for end in (np.inf, -np.inf))
        sampled = []
        for where, values, valid in self._planes():
            self.valid[where] = valid
            inside = values[self.channels][:, valid]
            self.low = np.minimum(self.low, inside.min(1, initial=np.inf))
            self.high = np.maximum(self.high, inside.max(1, initial=-np.inf))
            sampled.append(inside[:, :: 1 + pixels // _SAMPLED])
        sample = np.concatenate(sampled, 1)
        ends = np.percentile(sample, (1, 99), axis=1) if sample.size else np.zeros((2, len(self.channels)))
        self.ranges = np.where(ends[1] > ends[0], ends[1] - ends[0], self.high - self.low)

    def look(self, labels: tuple[str, ...]) -> None:
        """Measure what these labels need."""
        found: dict[str, list[float]] = {"blur": [], "noise": []}
        ends, clouds = np.zeros((2, *self.grid.shape), bool), np.zeros(self.grid.shape, bool)
        for where, values, valid in self._planes():
            if "cloud" in labels:
                clouds[where] = cloud(self.image, values, valid, self.config.clouds)
            for place, number in enumerate(self.channels):
                plane = values[number]
                if self.high[place] <= self.low[place] or not valid.any():
                    continue
                ends[0][where] |= valid & (plane == self.low[place])
                ends[1][where] |= valid & (plane == self.high[place])
                grain = noise(plane, valid) if {"blur", "noise"} & set(labels) else None
                width = blur(plane, valid, grain or 0.0) if "blur" in labels else None
                found["noise"] += [] if grain is None else [grain / float(self.ranges[place])]
                found["blur"] += [] if width is None else [width]
        n = np.count_nonzero(self.valid)
        self.masks = {"missing_data": ~self.valid, "clipping": ends[1] | _enclosed(ends[0]), "cloud": clouds}
        self.values = {label: float(np.median(list_)) if list_ else None for label, list_ in found.items()}
        for label, mask in self.masks.items():
            among = mask.size if label == "missing_data" else n
            self.values[label] = np.count_nonzero(mask) / among if among else None

    def _planes(self) -> Iterator[tuple[tuple[int, slice, slice], Floats, Bools]]:
        """Each plane: where it lies, values (channel, row, column) with 0 where there is no data, and validity."""
        slices, rows, columns = self.grid.shape
        step = self.config.window if slices == 1 else max(rows, columns)
        for top in range(0, rows, step):
            for left in range(0, columns, step):
                window = Window((top, min(top + step, rows)), (left, min(left + step, columns)))
                pixels, valid = self.image.read(window if slices == 1 else None, None)
                for number in range(slices):
                    there = valid[number] & np.isfinite(pixels[:, number]).all(axis=0)
                    where = number, slice(*window.rows), slice(*window.columns)
                    yield where, np.where(there, pixels[:, number], 0), there


def open(folder: Path | None) -> QualityExpert:
    """The expert of the recipe in a folder, or of the labels that any modality has; raises ModelError."""
    return QualityExpert(untrained.read(folder, QualityConfig, "quality") if folder else QualityConfig())


def noise(plane: Floats, valid: Bools) -> float | None:
    """The standard deviation of noise in the unit of the values, or None where there are too few pixels.

    Pixels among equal neighbours do not count, so that an empty background does not hide the noise; texture of the
    size of a pixel counts as noise.
    """
    values = plane.astype(np.float64)
    flat = ndimage.maximum_filter(values, 3) == ndimage.minimum_filter(values, 3)
    counted = ndimage.binary_erosion(valid, np.ones((3, 3), bool)) & ~flat
    if counted.sum() < _FEW:
        return None
    return float(np.median(np.abs(ndimage.convolve(values, _LAPLACE)[counted])) * 1.4826 / 6)


def blur(plane: Floats, valid: Bools, noise: float) -> float | None:
    """The standard deviation in pixels of the blur of the strongest edges; None where none rises above the noise.

    A step blurred by s has, smoothed by t, the steepness 1 / sqrt(s² + t²): the ratio at two t gives s.
    """
    values = plane.astype(np.float64)
    fine, coarse = (ndimage.gaussian_gradient_magnitude(values, scale) for scale in (_FINE, _COARSE))
    inner = ndimage.binary_erosion(valid, iterations=int(4 * _COARSE), border_value=0)
    if not inner.any():
        return None
    least = max(0.5 * float(np.quantile(fine[inner], 0.98)), 5 * noise / np.sqrt(4 * np.pi) / _FINE**2)
    edges = inner & (fine > least) & (fine == ndimage.maximum_filter(fine, 5))
    if edges.sum() < _FEW:
        return None
    strong = edges & (fine >= np.median(fine[edges]))
    ratio = max(float(np.median(fine[strong] / coarse[strong])) ** 2, 1 + 1e-6)
    return float(np.sqrt(np.clip((_COARSE**2 - ratio * _FINE**2) / (ratio - 1), 0, _BLURRED**2)))


def cloud(image: Image, values: NDArray[Any], valid: Bools, classes: tuple[int, ...]) -> Bools:
    """Pixels (row, column) that are cloud, from a channel "quality" or from reflectance (channel, row, column)."""
    names = [channel.name for channel in image.channels]
    if "quality" in names:
        return valid & np.isin(values[names.index("quality")], classes)
    blue, green, red = (values[names.index(name)] for name in _VISIBLE)
    mean = (blue + green + red) / 3
    bright = np.maximum(mean, 1e-6)
    white = (abs(blue - mean) + abs(green - mean) + abs(red - mean)) / bright < 0.7
    out = white & (mean > 0.2) & (blue - 0.5 * red > 0.08)
    for name in ("nir", "nir08"):
        if name in names:
            nir = values[names.index(name)]
            out &= nir - red < 0.8 * (nir + red)
            if "swir1" in names:
                out &= nir > 0.75 * values[names.index("swir1")]
            break
    if "cirrus" in names:
        out |= values[names.index("cirrus")] > 0.01
    return np.asarray(out & valid)


def _enclosed(mask: Bools) -> Bools:
    """The mask without pieces that reach the border of their slice: the background of a picture."""
    out = mask.copy()
    for plane in out:
        numbers = ndimage.label(plane)[0]
        rim = np.unique(np.concatenate((numbers[0], numbers[-1], numbers[:, 0], numbers[:, -1])))
        plane &= ~np.isin(numbers, rim[rim > 0])
    return out
