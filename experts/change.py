"""What changed between two dates: another expert looks at each, and what it finds is compared.

A study holds the two dates as its images, the earlier first; `pair` joins two studies. Maps are compared pixel by
pixel, on one grid: what each label gained and lost, and from and to which others. Lesions of a patient are compared by
their measures, which need no common grid: volume, longest diameter, and the response classes of RECIST 1.1 (Eisenhauer
et al. 2009) as a statement derived from the sum of diameters.

The module is the kind `change` of the entry points `fovea.experts`.
"""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field, model_validator
from scipy.stats import norm

from experts import index, recist, untrained
from experts.measure import MEASURES, Context, change_matrix, quadrant, side, without_specks
from fovea import registry
from fovea.config import Config
from fovea.contracts import Expert
from fovea.errors import ExpertError, InputError, ModelError
from fovea.types import Bools, Bytes, ExpertCard, Finding, Mask, Measure, Origin, Source, Strip, Study

_SIZES = ("area_ha", "area_cm2", "volume")
"""Sizes of a mask, of which a grid supports one."""


class ChangeConfig(Config):
    """What is compared, and how."""

    name: str = Field(default="change", pattern=r"^[\w.-]+$")
    """What calls name it by."""
    kind: Literal["change"] = "change"
    """The entry point that opens it."""
    task: str = "compares two dates: what was gained and lost, where, and how much"
    """One line for the prompt."""
    expert: str = "index"
    """The kind of the expert that looks at each date; it lies in the subfolder "expert" where it needs a folder."""
    compare: Literal["maps", "lesions"] = "maps"
    """maps: pixel by pixel, on one grid. lesions: by volume and longest diameter, whatever the grids."""
    labels: tuple[str, ...] = ()
    """Which of that expert's labels; left out, all of them."""
    recist: tuple[str, ...] = ()
    """Of lesions, the labels whose target lesions give the response by RECIST 1.1, one label an organ."""
    smallest: float = Field(default=0.005, gt=0, lt=1)
    """The least share of the valid area from which a gain or loss is called present."""
    specks: int = Field(default=4, ge=1)
    """Pieces of change of fewer pixels are dropped: outlines never lie in the same place twice."""
    sure: float = Field(default=0.95, gt=0.5, lt=1)
    """The probability from which a growth or shrinkage of lesions is called present."""

    @model_validator(mode="after")
    def _consistent(self) -> ChangeConfig:
        if self.recist and self.compare != "lesions":
            raise ValueError("recist: only where lesions are compared")
        if self.expert == "change":
            raise ValueError("expert: another kind than change")
        return self


class ChangeExpert(untrained.UntrainedExpert):
    """Asks an expert about each of two dates, and compares its findings."""

    def __init__(self, config: ChangeConfig, expert: Expert) -> None:
        self.config, self.expert = config, expert
        self.labels = config.labels or expert.card.labels
        unknown = [label for label in (*self.labels, *config.recist) if label not in expert.card.labels]
        if unknown:
            raise ModelError(f"labels {', '.join(unknown)} to compare", f"some of {', '.join(expert.card.labels)}")
        if len(self.labels) >= Strip.NODATA:
            raise ModelError(f"{len(self.labels)} labels to compare", f"at most {Strip.NODATA - 1}")
        ends = ("gain", "loss") if config.compare == "maps" else ("growth", "shrinkage")
        told = tuple(f"{label}_{end}" for label in self.labels for end in ends)
        where = "on one grid" if config.compare == "maps" else "of one patient"
        self.card = ExpertCard(
            config.name,
            untrained.version("change/1", config.model_dump(mode="json"), expert.card.version),
            config.task,
            f"compares what {expert.card.name} finds at two dates",
            expert.card.modalities,
            untrained.arguments((*told, *(recist.CODES if config.recist else ()))),
            f"two images {where}, the earlier first; each: {expert.card.accepts}",
            licence=expert.card.licence,
            data=expert.card.data,
        )

    def refusal(self, study: Study) -> str:
        """Dates or grids that do not fit; "" where they do."""
        places = self._places(study)
        if len(places) != 2:
            return f"{len(places)} of {len(study.images)} images can be looked at, not two dates"
        first, second = (study.images[place].grid for place in places)
        if self.config.compare == "maps" and not first.same(second):
            return "two dates on different grids: warp the one to the other's grid"
        return ""

    def answer(self, study: Study, labels: tuple[str, ...], by: Origin) -> tuple[Finding, ...]:
        dates = tuple(_Date(study, place, self.expert, self.labels) for place in self._places(study))
        found = self._maps(dates, by) if self.config.compare == "maps" else self._lesions(dates, by)
        if self.config.recist:
            found |= self._response(dates, by)
        return tuple(found[label] for label in labels)

    def _places(self, study: Study) -> list[int]:
        return [place for place in range(len(study.images)) if self.expert.accepts(untrained.alone(study, place))]

    def _maps(self, dates: tuple[_Date, ...], by: Origin) -> dict[str, Finding]:
        """Gain and loss of each label; "from" and "to" measures count a pixel of several labels for the first one."""
        before, after = dates
        grid, valid = before.grid, before.valid & after.valid
        if not valid.any():
            raise ExpertError(f"{self.card.name} cannot answer: no pixel has data at both dates")
        matrix = change_matrix(before.classes(valid), after.classes(valid), grid, len(self.labels))
        found = {}
        for row, label in enumerate(self.labels, 1):
            spread = float(np.hypot(before.spread(label, valid), after.spread(label, valid)))
            for end, now, then, areas in (
                ("gain", after, before, matrix.areas[:, row]),
                ("loss", before, after, matrix.areas[row]),
            ):
                mask = now.mask(label) & ~then.mask(label) & valid
                mask = without_specks(mask, self.config.specks)
                share = MEASURES["fraction"](mask, grid, Context(valid))
                size = next(filter(None, (MEASURES[name](mask, grid, Context(valid)) for name in _SIZES)), None)
                others = [
                    Measure(f"{'from' if end == 'gain' else 'to'}_{other}", float(area), matrix.unit)
                    for other, area in zip(("none", *self.labels), areas, strict=True)
                    if other != label
                ]
                found[f"{label}_{end}"] = self._changed(
                    f"{label}_{end}", mask, [m for m in (size, share) if m], others, spread, now, label, by
                )
        return found

    def _changed(
        self, name: str, mask: Bools, sizes: list[Measure], others: list[Measure], spread: float, date: _Date,
        label: str, by: Origin,
    ) -> Finding:  # fmt: skip
        """The score: that the label is there, times that the share exceeds the least one, as far as outlines err."""
        share = sizes[-1].value
        likely = float(norm.cdf((share - self.config.smallest) / max(spread, 1e-9)))
        score, code = date.found[label].score * likely, untrained.own(name)
        if share < self.config.smallest:
            return Finding(name, code, False, score, by, image=date.place)
        sizes = [replace(m, uncertainty=spread * (m.value / share if share else 0)) for m in sizes]
        where = quadrant(mask, date.grid) if date.grid.georeferenced else side(mask, date.grid)
        return Finding(name, code, True, score, by, where, (*sizes, *others), Mask(mask), date.place)

    def _lesions(self, dates: tuple[_Date, ...], by: Origin) -> dict[str, Finding]:
        """Growth and shrinkage of each label: by volume, or by the longest diameter where there is none."""
        found = {}
        for label in self.labels:
            measures, changes = [], {}
            for name in ("volume", "longest_diameter"):
                before, after = (date.measure(label, name) for date in dates)
                if before and after and (before.value or after.value):
                    spread = float(np.hypot(before.uncertainty or 0.0, after.uncertainty or 0.0))
                    changes[name] = Measure(f"{name}_change", after.value - before.value, after.unit, spread)
                    measures += [
                        replace(before, name=f"{name}_before"),
                        replace(after, name=f"{name}_after"),
                        changes[name],
                    ]
                    if before.value:
                        measures.append(_relative(f"{name}_relative_change", before, after))
            change = changes.get("volume") or changes.get("longest_diameter")
            for end, sign, date in (("growth", 1, dates[1]), ("shrinkage", -1, dates[0])):
                z = sign * change.value / max(change.uncertainty or 0.0, 1e-9) if change else 0.0
                score = date.found[label].score * float(norm.cdf(z))
                present = score >= self.config.sure
                name = f"{label}_{end}"
                found[name] = Finding(
                    name, untrained.own(name), present, score, by, "", tuple(measures), None, date.place
                )
        return found

    def _response(self, dates: tuple[_Date, ...], by: Origin) -> dict[str, Finding]:
        """The classes of RECIST 1.1, of which one is present: the likeliest."""
        spans = [[recist.diameters(date.found[label], date.grid) for label in self.config.recist] for date in dates]
        before, after, targets = recist.sums(*spans)
        gone = float(np.prod([1 - dates[1].found[label].score for label in self.config.recist]))
        chances = dict.fromkeys(recist.CODES, 0.0)
        measures: tuple[Measure, ...] = ()
        if targets:
            chances |= recist.response(before, after, gone)
            change = Measure(
                "sum_of_diameters_change",
                after.value - before.value,
                "mm",
                float(np.hypot(before.uncertainty or 0.0, after.uncertainty or 0.0)),
            )
            relative = _relative("sum_of_diameters_relative_change", before, after)
            measures = (Measure("targets", float(targets), "1"), before, after, change, relative)
        else:
            chances["not_evaluable"] = 1.0
        likeliest = max(chances, key=chances.__getitem__)
        return {
            name: Finding(name, code, name == likeliest, chances[name], by, "", measures, None, dates[1].place)
            for name, code in recist.CODES.items()
        }


class _Date:
    """What the expert found at one date."""

    def __init__(self, study: Study, place: int, expert: Expert, labels: tuple[str, ...]) -> None:
        self.place, self.labels, self.grid = place, labels, study.images[place].grid
        self.found = {finding.label: finding for finding in expert.run(untrained.alone(study, place), "all")}
        self._image = study.images[place]

    @cached_property
    def valid(self) -> Bools:
        """Where the image has data."""
        return self._image.read(None, None)[1]

    def mask(self, label: str) -> Bools:
        """The mask of a label; empty where it is absent. Raises ExpertError where there is none to compare."""
        region = self.found[label].region
        if self.found[label].present and not isinstance(region, Mask):
            raise ExpertError(f"{label} was found without a mask", "an expert that draws", "Compare lesions, not maps.")
        return region.data if isinstance(region, Mask) else np.zeros(self.grid.shape, bool)

    def classes(self, valid: Bools) -> Bytes:
        """The class of each pixel: the first label that it has, counted from 1."""
        out = np.zeros(self.grid.shape, np.uint8)
        for number in range(len(self.labels), 0, -1):
            out[self.mask(self.labels[number - 1])] = number
        out[~valid] = Strip.NODATA
        return out

    def spread(self, label: str, valid: Bools) -> float:
        """The standard uncertainty of the label's share: what its expert says, else that of its outline."""
        share = self.found[label].measure("fraction")
        share = share or MEASURES["fraction"](self.mask(label) & valid, self.grid, Context(valid))
        return share.uncertainty or 0.0 if share else 0.0

    def measure(self, label: str, name: str) -> Measure | None:
        """A measure of a label: what its expert says, else that of its mask; 0 where it is absent."""
        finding = self.found[label]
        unit = {"volume": "mL", "longest_diameter": "mm"}[name]
        if not finding.present:
            return Measure(name, 0.0, unit, 0.0)
        region = finding.region
        return finding.measure(name) or (
            MEASURES[name](region.data, self.grid, Context()) if isinstance(region, Mask) else None
        )


def pair(before: Study, after: Study) -> Study:
    """Two studies as one of two dates; raises InputError unless both are of one domain and modality.

    `meta` is that of the first without its date; "date_before" and "date_after" hold the dates where they are known.
    """
    if (before.domain, before.modality) != (after.domain, after.modality):
        raise InputError(
            f"{before.modality} of {before.domain} and {after.modality} of {after.domain}", "one domain and modality"
        )
    dates = {
        f"date_{end}": study.meta["date"]
        for end, study in (("before", before), ("after", after))
        if "date" in study.meta
    }
    meta = {key: value for key, value in before.meta.items() if key != "date"} | dates
    hashes = (*before.source.hashes, *after.source.hashes)
    source = Source(hashes, f"pair of {before.source.reader} and {after.source.reader}")
    return Study(before.domain, (*before.images, *after.images), source, meta)


def save(config: ChangeConfig, folder: Path, expert: Path | None = None) -> None:
    """Write a recipe, with a copy of the folder of the expert that looks at each date, as `open` takes them."""
    if expert is not None:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as part:
            shutil.copytree(expert, Path(part) / "expert")
            shutil.rmtree(folder / "expert", ignore_errors=True)
            (Path(part) / "expert").rename(folder / "expert")
    untrained.save(config, folder)


def open(folder: Path | None) -> ChangeExpert:
    """The expert of the recipe in a folder; without one, vegetation and open water by spectral indices.

    Raises ModelError, and PluginError for a kind of expert that is not installed.
    """
    if folder is None:
        return ChangeExpert(ChangeConfig(), index.open(None))
    config = untrained.read(folder, ChangeConfig, "change")
    inner = folder / "expert"
    return ChangeExpert(config, registry.expert_kind(config.expert).open(inner if inner.is_dir() else None))


def _relative(name: str, before: Measure, after: Measure) -> Measure:
    """after / before - 1, with its standard uncertainty to first order."""
    ratio = after.value / before.value
    spread = np.hypot(after.uncertainty or 0.0, ratio * (before.uncertainty or 0.0)) / before.value
    return Measure(name, ratio - 1, "1", float(spread))
