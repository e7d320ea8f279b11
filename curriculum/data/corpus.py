"""The studies of a run: made or imported once, rendered once, divided by patient or place."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from random import Random
from typing import Any, Literal

import numpy as np

from curriculum.data.manifest import read_manifest
from curriculum.recipe import Recipe
from fovea.contracts import Domain
from fovea.errors import ConfigError
from fovea.jsonable import from_json, to_json
from fovea.progress import track
from fovea.types import Bytes, Channel, Facts, Grid, Image, Panel, Pixels, Sample, Source, Study, View, Window

Split = Literal["train", "validation", "test"]
CHUNK = 50


@dataclass(frozen=True, eq=False)
class Item:
    """One study with what every stage needs of it.

    `facts` are without regions, `truth` reads them with theirs; `study` is the header, `open_study` reads the pixels.
    """

    study: Study
    path: str
    group: str
    split: Split
    description: str
    facts: Facts
    panels: tuple[Panel, ...]
    picture: Bytes
    source: Path

    @property
    def id(self) -> str:
        return self.study.id

    @property
    def modality(self) -> str:
        return self.study.modality

    def truth(self) -> Facts:
        """The facts with their regions, from disk."""
        return from_json(Sample, json.loads(self.source.read_text())["sample"]).facts


@dataclass(frozen=True, eq=False)
class Corpus:
    """All items of a run, and the digest of what they say."""

    items: tuple[Item, ...]
    digest: str

    def split(self, name: Split) -> list[Item]:
        return [item for item in self.items if item.split == name]


def prepare(recipe: Recipe, domain: Domain) -> Corpus:
    """Make or import the samples if that is not done yet, and read them; a changed data recipe makes them anew."""
    folder = recipe.out / "data"
    wanted = f"{recipe.data.model_dump_json(exclude={'records'})} {recipe.seed} {recipe.image_size} {recipe.domain}"
    index = folder / "index.json"
    if not index.exists() or json.loads(index.read_text())["recipe"] != wanted:
        shutil.rmtree(folder, ignore_errors=True)
        ids = [_store(domain, sample, folder, recipe.image_size) for sample in _samples(recipe, domain, folder)]
        if len(set(ids)) < 10:
            raise ConfigError(f"{len(set(ids))} studies", "at least 10", "Name other folders, or make more.")
        index.write_text(json.dumps({"recipe": wanted, "ids": list(dict.fromkeys(ids))}))
    items = divide([_load(folder, id_, domain) for id_ in json.loads(index.read_text())["ids"]], recipe)
    digest = sha256()
    for item in items:
        digest.update(f"{item.id} {item.split} {json.dumps(to_json(item.facts))}".encode())
    return Corpus(tuple(items), digest.hexdigest())


def open_study(domain: Domain, item: Item) -> Study:
    """Read an item's files again."""
    return domain.load(Path(item.path))


def _samples(recipe: Recipe, domain: Domain, folder: Path) -> Iterator[Sample]:
    if recipe.data.source == "manifest":
        yield from track(read_manifest(recipe.data, domain), f"{domain.name}: import")
        return
    chunks = [(start, min(CHUNK, recipe.data.n - start)) for start in range(0, recipe.data.n, CHUNK)]
    for start, n in track(chunks, f"{domain.name}: synthetic studies"):
        seed = int.from_bytes(sha256(f"{recipe.seed}/{start}".encode()).digest()[:4], "big")
        for sample in domain.synth(folder / "samples" / f"{start:05d}", n, seed):
            yield replace(sample, group=f"{start}-{sample.group}")


def _store(domain: Domain, sample: Sample, folder: Path, size: int) -> str:
    study = domain.load(Path(sample.path))
    picture = domain.render(study, View(size=size))
    (folder / "truth").mkdir(parents=True, exist_ok=True)
    np.save(folder / "truth" / f"{study.id}.npy", picture.pixels, allow_pickle=False)
    row = {
        "sample": to_json(sample),
        "header": _header(study),
        "description": domain.describe(study),
        "panels": to_json(picture.panels),
    }
    (folder / "truth" / f"{study.id}.json").write_text(json.dumps(row))
    return study.id


def _load(folder: Path, id_: str, domain: Domain) -> Item:
    source = folder / "truth" / f"{id_}.json"
    row = json.loads(source.read_text())
    for finding in row["sample"]["facts"]["findings"]:
        finding["region"] = None
    sample = from_json(Sample, row["sample"])
    return Item(
        study=_study(row["header"], sample.path, domain),
        path=sample.path,
        group=sample.group,
        split="train",
        description=row["description"],
        facts=sample.facts,
        panels=tuple(from_json(Panel, panel) for panel in row["panels"]),
        picture=np.load(source.with_suffix(".npy"), allow_pickle=False),
        source=source,
    )


def _header(study: Study) -> dict[str, Any]:
    """What is known of a study without its pixels."""
    grids = [image.grid for image in study.images]
    return {
        "domain": study.domain,
        "source": to_json(study.source),
        "meta": dict(study.meta),
        "channels": [to_json(image.channels) for image in study.images],
        "grids": [{"affine": g.affine.tolist(), "frame": g.frame, "shape": list(g.shape)} for g in grids],
    }


def _study(header: dict[str, Any], path: str, domain: Domain) -> Study:
    """The study of a header; its images read the file when their pixels are asked for, and keep nothing."""

    def image(number: int) -> Image:
        def read(window: Window | None, shape: tuple[int, int] | None) -> Pixels:
            return domain.load(Path(path)).images[number].read(window, shape)

        grid = header["grids"][number]
        channels = tuple(from_json(Channel, channel) for channel in header["channels"][number])
        return Image(channels, Grid(np.array(grid["affine"]), grid["frame"], tuple(grid["shape"])), read)

    images = tuple(image(number) for number in range(len(header["grids"])))
    return Study(header["domain"], images, from_json(Source, header["source"]), header["meta"])


def divide(items: Sequence[Item], recipe: Recipe) -> list[Item]:
    """Whole groups to each split, in an order that only the seed decides."""
    place = places((item.group for item in items), recipe)
    return [replace(item, split=place[item.group]) for item in items]


def places(given: Iterable[str], recipe: Recipe) -> dict[str, Split]:
    """The split of each group, by the recipe's shares and its seed."""
    groups = sorted(set(given))
    Random(recipe.seed).shuffle(groups)
    tested = round(len(groups) * recipe.data.test)
    held = round(len(groups) * recipe.data.validation)
    return {
        group: "test" if i < tested else "validation" if i < tested + held else "train"
        for i, group in enumerate(groups)
    }
