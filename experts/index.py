"""Spectral indices: rules on the reflectance of two bands, that need no training.

NDVI (nir, red; Rouse et al. 1974), NDWI (green, nir; McFeeters 1996), MNDWI (green, swir1; Xu 2006), NBR (nir, swir2)
and its fall between two dates, dNBR (Key & Benson 2006). A negative reflectance, which atmospheric correction leaves on
dark ground, counts as 0; where both bands are 0 there is no data.

The score of a label is the probability that it covers at least the least share of the scene, under this noise model:
the reflectance of a band has the standard uncertainty `absolute + relative * reflectance` (by default that of the
specification of MODIS and Landsat surface reflectance, 0.005 + 0.05 * reflectance; Vermote & Kotchenova 2008), two
bands err independently, and the pixels of one scene err together, as they do where atmosphere and calibration are at
fault. The uncertainties of the measures come from the same model, those of an area also from its outline.

The module is the kind `index` of the entry points `fovea.experts`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator
from scipy.stats import norm

from experts import untrained
from experts.ground import areas
from experts.measure import MEASURES, Context, quadrant
from fovea.config import Config
from fovea.errors import ExpertError
from fovea.types import (
    Bools,
    Code,
    ExpertCard,
    Finding,
    Floats,
    Grid,
    Image,
    Mask,
    Measure,
    Origin,
    Study,
    Window,
)

_BANDS: Mapping[str, tuple[str, ...]] = {
    "red": ("red",), "green": ("green",), "nir": ("nir", "nir08"), "swir1": ("swir1", "swir16"),
    "swir2": ("swir2", "swir22"),
}  # fmt: skip
"""Names that a band may have in a scene, the first one first."""
INDICES: Mapping[str, tuple[str, str]] = {
    "ndvi": ("nir", "red"), "ndwi": ("green", "nir"), "mndwi": ("green", "swir1"), "nbr": ("nir", "swir2"),
    "dnbr": ("nir", "swir2"),
}  # fmt: skip
"""The bands a and b of (a - b) / (a + b); dnbr is that of the first date less that of the second."""
_ERRORS = np.linspace(-4, 4, 161)
"""The common error of a scene, in standard deviations."""
_CHANCES = np.diff(norm.cdf(np.linspace(-4.025, 4.025, 162)))
"""How likely each is: together a little less than 1, as greater errors are not ruled out."""
Values = NDArray[Any]
_BINS = 8000
"""Bins of the histogram that percentiles come from, over -2 to 2: 0.0005 wide."""


class IndexLabel(Config):
    """One label: the pixels whose index lies in a half-open range."""

    index: Literal["ndvi", "ndwi", "mndwi", "nbr", "dnbr"]
    """Which index."""
    least: float
    """Pixels from this value on belong to the label."""
    below: float = 3.0
    """… and below this one."""
    darker: float = 2.0
    """Pixels that reach this reflectance in one of the bands never do: clouds and snow are brighter than water."""
    source: str
    """Where the limits come from."""
    code: Code | None = None
    """Its concept; our own table's where it is left out."""

    @model_validator(mode="after")
    def _ordered(self) -> IndexLabel:
        if self.least >= self.below:
            raise ValueError("least must lie under below")
        return self


class IndexConfig(Config):
    """What is mapped, and how well reflectance is known."""

    name: str = Field(default="spectral_index", pattern=r"^[\w.-]+$")
    """What calls name it by."""
    kind: Literal["index"] = "index"
    """The entry point that opens it."""
    task: str = "maps vegetation and open water by spectral indices and measures their areas"
    """One line for the prompt."""
    modalities: tuple[str, ...] = ("optical",)
    """Modalities it takes."""
    labels: dict[str, IndexLabel]
    """What it answers, in order."""
    absolute: float = Field(default=0.005, ge=0)
    """Standard uncertainty of reflectance: the part that is the same everywhere."""
    relative: float = Field(default=0.05, ge=0)
    """… and the part that grows with reflectance."""
    smallest: float = Field(default=0.01, gt=0, lt=1)
    """The least share of the valid area from which a label is called present."""
    unclear: tuple[int, ...] = (3, 4, 5)
    """Classes of a channel "quality" that are no data: cloud shadow, thin cloud, cloud."""
    window: int = Field(default=1024, ge=64)
    """Rows and columns that are read at once."""

    @model_validator(mode="after")
    def _consistent(self) -> IndexConfig:
        kinds = {label.index == "dnbr" for label in self.labels.values()}
        if len(kinds) != 1 or "all" in self.labels:
            raise ValueError("labels: at least one, none named 'all', those of dnbr not beside others")
        if self.absolute + self.relative <= 0:
            raise ValueError("absolute and relative: an uncertainty above 0")
        return self

    @property
    def dates(self) -> int:
        """How many dates are compared."""
        return 2 if any(label.index == "dnbr" for label in self.labels.values()) else 1

    @property
    def bands(self) -> dict[str, tuple[str, ...]]:
        """The bands that are read, with the names that each may have."""
        needed = {band for label in self.labels.values() for band in INDICES[label.index]}
        return {band: names for band, names in _BANDS.items() if band in needed}


_WATER = Code("WORLDCOVER", "80", "Permanent water bodies")
LAND_COVER = IndexConfig(
    labels={
        "vegetation": IndexLabel(
            index="ndvi",
            least=0.3,
            source="sparse vegetation has an NDVI of about 0.2 to 0.5 (USGS, Remote Sensing Phenology)",
            code=Code("FOVEA", "RS-VEGETATION", "Vegetation of any kind"),
        ),
        "water": IndexLabel(
            index="ndwi", least=0.0, darker=0.25, source="McFeeters 1996: open water above 0", code=_WATER
        ),
    }
)
"""Vegetation and open water from green, red and near infrared: what `open` takes without a folder."""
OPEN_WATER = IndexConfig(
    name="open_water",
    task="maps open water by the modified water index, also between buildings",
    labels={
        "water": IndexLabel(index="mndwi", least=0.0, darker=0.25, source="Xu 2006: open water above 0", code=_WATER)
    },
)
"""Open water from green and shortwave infrared."""
_SEVERITY = "Key & Benson 2006, FIREMON landscape assessment: dNBR 0.1, 0.27, 0.44, 0.66"
BURN_SEVERITY = IndexConfig(
    name="burn_severity",
    task="maps how severely land burned between two dates and measures the areas",
    labels={
        name: IndexLabel(index="dnbr", least=least, below=below, source=_SEVERITY)
        for name, least, below in (
            ("low_severity_burn", 0.1, 0.27),
            ("moderate_low_severity_burn", 0.27, 0.44),
            ("moderate_high_severity_burn", 0.44, 0.66),
            ("high_severity_burn", 0.66, 3.0),
        )
    },
)
"""Classes of burn severity from near and shortwave infrared before and after a fire."""


class IndexExpert(untrained.UntrainedExpert):
    """Maps labels by thresholds on spectral indices, read by windows: reflectance is never held as a whole."""

    def __init__(self, config: IndexConfig) -> None:
        self.config = config
        labels = tuple(config.labels)
        names = ", ".join(dict.fromkeys(label.index.upper() for label in config.labels.values()))
        dates = "two dates on one grid, the earlier first" if config.dates == 2 else "one scene"
        self.card = ExpertCard(
            config.name,
            untrained.version("index/1", config.model_dump(mode="json")),
            config.task,
            f"thresholds on {names}; scores by a noise model of reflectance",
            config.modalities,
            untrained.arguments(labels),
            f"{', '.join(config.modalities)}; {dates}; bands {', '.join(config.bands)} as reflectance",
            data="none: "
            + "; ".join(dict.fromkeys(f"{label.index.upper()}: {label.source}" for label in config.labels.values())),
        )

    def refusal(self, study: Study) -> str:
        """Modality, bands, their unit, dates or grid that do not fit; "" where all do."""
        if study.modality not in self.config.modalities:
            return f"modality {study.modality!r}"
        places, missing = self._places(study)
        if len(places) < self.config.dates:
            return missing or f"{len(places)} image with the bands, not two dates"
        if self.config.dates == 2:
            if len(places) > 2:
                return f"{len(places)} images with the bands, not two dates"
            first, second = (study.images[place].grid for place in places)
            if not first.same(second):
                return "two dates on different grids"
        return ""

    def answer(self, study: Study, labels: tuple[str, ...], by: Origin) -> tuple[Finding, ...]:
        place = self._places(study)[0][0]
        grid = study.images[place].grid
        tally = {label: _Tally(self.config.labels[label], grid) for label in labels}
        for window, dates in self._windows(study):
            area = areas(grid, window.rows, window.columns)
            for label in labels:
                wanted = self.config.labels[label]
                bands = [[values[band] for band in INDICES[wanted.index]] for values in dates]
                dark = np.max(bands, axis=(0, 1)) < wanted.darker
                tally[label].add(window, area, *self._index(wanted.index, bands), dark)
        if not all(item.valid.any() for item in tally.values()):
            raise ExpertError(f"{self.card.name} cannot answer: no pixel of the scene has data")
        return tuple(self._finding(label, item, grid, by, place) for label, item in tally.items())

    def _places(self, study: Study) -> tuple[list[int], str]:
        """The images that have all bands as reflectance, and what the first one without lacks."""
        found = [untrained.channels(image, self.config.bands, "reflectance") for image in study.images]
        missing = next((item for item in found if isinstance(item, str)), "")
        return [place for place, item in enumerate(found) if not isinstance(item, str)], missing

    def _windows(self, study: Study) -> Iterator[tuple[Window, list[dict[str, Floats]]]]:
        """Window by window, for each date the bands (row, column), NaN where there is no data."""
        places = self._places(study)[0][: self.config.dates]
        rows, columns = study.images[places[0]].grid.shape[1:]
        side = self.config.window
        for top in range(0, rows, side):
            for left in range(0, columns, side):
                window = Window((top, min(top + side, rows)), (left, min(left + side, columns)))
                yield window, [self._bands(study.images[place], window) for place in places]

    def _bands(self, image: Image, window: Window) -> dict[str, Floats]:
        pixels, valid = image.read(window, None)
        there = valid[0] & np.isfinite(pixels[:, 0]).all(axis=0)
        names = [channel.name for channel in image.channels]
        if "quality" in names:
            there = there & ~np.isin(pixels[names.index("quality"), 0], self.config.unclear)
        found = untrained.channels(image, self.config.bands, "reflectance")
        return {
            band: np.where(there, pixels[number, 0].clip(0), np.float32(np.nan))
            for band, number in (found.items() if isinstance(found, dict) else ())
        }

    def _index(self, name: str, dates: list[list[Floats]]) -> tuple[Values, Values]:
        """The index and its standard uncertainty, float64 (row, column), NaN where there is none."""
        first, *second = [difference(a, b, self.config.absolute, self.config.relative) for a, b in dates]
        if name != "dnbr":
            return first
        return first[0] - second[0][0], np.hypot(first[1], second[0][1])

    def _finding(self, label: str, tally: _Tally, grid: Grid, by: Origin, place: int) -> Finding:
        wanted = self.config.labels[label]
        share, shares = tally.shares()
        noise = float(np.sqrt(np.average((shares - np.average(shares, weights=_CHANCES)) ** 2, weights=_CHANCES)))
        mask, measures = tally.mask[None], list(tally.statistics(wanted.index))
        present = share >= self.config.smallest
        if present:
            for name, unit in (("fraction", 1.0), ("area_ha", tally.area / 10_000)):
                item = MEASURES[name](mask, grid, Context(tally.valid[None]))
                if item:
                    spread = float(np.hypot(item.uncertainty or 0.0, noise * unit))
                    measures.insert(0, replace(item, uncertainty=spread))
        return Finding(
            label,
            wanted.code or untrained.own(label),
            present,
            float(_CHANCES @ (shares >= self.config.smallest)),
            by,
            _where(mask, grid) if present else "",
            tuple(measures),
            Mask(mask) if present else None,
            place,
        )


class _Tally:
    """What is counted of one label, window by window."""

    def __init__(self, label: IndexLabel, grid: Grid) -> None:
        self.label = label
        self.mask, self.valid = np.zeros((2, *grid.shape[1:]), bool)
        self.area = self.inside = 0.0
        self.entered = np.zeros(len(_ERRORS) + 1)
        self.sums = np.zeros(2)
        self.histogram = np.zeros(_BINS, np.int64)

    def add(self, window: Window, area: Values, index: Values, spread: Values, dark: Bools) -> None:
        """Count a window: what area belongs to the label under each common error."""
        known = np.isfinite(index) & np.isfinite(area)
        mask = known & dark & (index >= self.label.least) & (index < self.label.below)
        spans = slice(*window.rows), slice(*window.columns)
        self.mask[spans], self.valid[spans] = mask, known
        self.area += float(area[known].sum())
        self.inside += float(area[mask].sum())
        self.sums += index[known].sum(), spread[known].sum()
        self.histogram += np.histogram(index[known], _BINS, (-2, 2))[0]
        asked = known & dark
        for sign, limit in ((1, self.label.least), (-1, self.label.below)):
            places = np.searchsorted(_ERRORS, (limit - index[asked]) / spread[asked])
            self.entered += sign * np.bincount(places, area[asked], len(self.entered))

    def shares(self) -> tuple[float, Values]:
        """The share of the valid area, and that under each common error."""
        return self.inside / self.area, self.entered.cumsum()[:-1] / self.area

    def statistics(self, name: str) -> tuple[Measure, ...]:
        """Mean and 10th, 50th and 90th percentile of the index over the valid pixels; percentiles to 0.0005."""
        n = int(self.histogram.sum())
        mean, spread = (float(value) for value in self.sums / n)
        ranks = np.searchsorted(self.histogram.cumsum(), np.array([0.1, 0.5, 0.9]) * n)
        points = zip((10, 50, 90), (-2 + (ranks + 0.5) * 4 / _BINS).tolist(), strict=True)
        percentiles = (Measure(f"{name}_p{p}", value, "1", spread) for p, value in points)
        return Measure(f"{name}_mean", mean, "1", spread), *percentiles


def open(folder: Path | None) -> IndexExpert:
    """The expert of the recipe in a folder, or of `LAND_COVER` without one; raises ModelError."""
    return IndexExpert(untrained.read(folder, IndexConfig, "index") if folder else LAND_COVER)


def difference(first: Floats, second: Floats, absolute: float, relative: float) -> tuple[Values, Values]:
    """(a - b) / (a + b) and its standard uncertainty to first order, both NaN where a + b is 0.

    d/da is 2b / (a + b)², d/db is -2a / (a + b)²; a and b err by `absolute + relative * value`, independently.
    """
    a, b = first.astype(float), second.astype(float)
    whole = np.where(a + b > 0, a + b, np.nan)
    spread = 2 * np.hypot(b * (absolute + relative * a), a * (absolute + relative * b)) / whole**2
    return (a - b) / whole, np.maximum(spread, 1e-9)


def _where(mask: Bools, grid: Grid) -> str:
    """The quarter that holds most of the mask; of large masks every n-th pixel is asked."""
    n = int(np.ceil(np.sqrt(mask.size / 2**22)))
    if n == 1:
        return quadrant(mask, grid)
    part = mask[:, ::n, ::n]
    return quadrant(part, grid.resample((1, part.shape[1], part.shape[2])))
