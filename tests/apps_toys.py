"""A small domain with three kinds of study and an assistant that knows the truth: for the tests of apps."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from random import Random
from types import MappingProxyType
from typing import Any

import numpy as np

from fovea.errors import InputError, UnsupportedError
from fovea.types import (
    DETECTOR,
    LPS,
    Answer,
    Call,
    Channel,
    Code,
    Facts,
    Finding,
    Grid,
    Image,
    Mask,
    Measure,
    Origin,
    Panel,
    Picture,
    Question,
    Reply,
    Report,
    Sample,
    Sentence,
    Source,
    Study,
    Term,
    View,
    Window,
)

MAGIC = b"TOYSTUDY\0"
SHAPES = {"film": (1, 200, 160), "scene": (1, 180, 180), "volume": (12, 96, 96)}
ORIGIN = Origin("toy_segmentation", "1.2.0", "0" * 64)


class Toy:
    """Files of one line of JSON after a magic number; pixels are made from a seed."""

    name = "toy"
    presets = ("default", "inverted")
    vocabulary = (
        Term("pleural_effusion", Code("SCT", "60046008", "Pleural effusion"), color=(64, 160, 255)),
        Term("nodule", Code("SCT", "27925004", "Nodule"), color=(255, 170, 0)),
        Term("pneumothorax", Code("SCT", "36118008", "Pneumothorax"), color=(230, 60, 160)),
    )

    def sniff(self, path: Path) -> bool:
        return path.is_file() and path.read_bytes().startswith(MAGIC)

    def studies(self, path: Path) -> list[tuple[Path, ...]]:
        files = sorted(path.rglob("*")) if path.is_dir() else [path]
        series: dict[str, list[Path]] = {}
        for file in filter(self.sniff, files):
            series.setdefault(self._header(file).get("series", str(file)), []).append(file)
        return [tuple(group) for group in series.values()]

    def load(self, path: Path | Sequence[Path], window: Window | None = None) -> Study:
        files = [path] if isinstance(path, Path) else list(path)
        header = self._header(files[0])
        if header["kind"] == "broken":
            raise InputError("slices with different spacing", "one spacing", "Send the whole series again.")
        if header["kind"] == "bug":
            raise KeyError("DOE^JANE")
        hashes = tuple(sha256(file.read_bytes()).hexdigest() for file in files)
        meta = {"film": {"modality": "DX", "view": "PA"}, "scene": {"modality": "optical", "acquired": "2024-05-01"}}
        image = self._image(header["kind"], header["seed"])
        return Study(self.name, (image,), Source(hashes, "toy 1"), meta.get(header["kind"], {"modality": "CT"}))

    def _header(self, path: Path) -> dict[str, Any]:
        try:
            return dict(json.loads(path.read_bytes()[len(MAGIC) :]))
        except ValueError as error:
            raise InputError("a torn header", "one line of JSON", "Copy the file again.") from error

    def _image(self, kind: str, seed: int) -> Image:
        rng = np.random.default_rng(seed)
        slices, rows, columns = SHAPES[kind]
        y, x = np.mgrid[:rows, :columns]
        waves = sum(np.sin(rng.uniform(0.02, 0.12) * (x * rng.normal() + y * rng.normal())) for _ in range(6))
        pixels = np.repeat(((waves - waves.min()) / np.ptp(waves))[None, None], slices, 1)
        affine = np.diag([0.8, 0.8, 2.5, 1.0])
        if kind == "scene":
            grid = Grid.from_gdal((10, 0, 500000, 0, -10, 3300000), "EPSG:32636", rows, columns)
        else:
            grid = Grid(affine, LPS if kind == "volume" else DETECTOR, (slices, rows, columns))
        return Image.from_array((Channel("intensity"),), grid, pixels.astype(np.float32))

    def render(self, study: Study, view: View) -> Picture:
        image = study.images[view.image]
        slices, rows, columns = image.grid.shape
        shown = [view.slice] if view.slice is not None else list(range(0, slices, max(1, slices // 4)))[:4]
        across = 1 if len(shown) == 1 else 2
        tile = view.size // across
        out = np.zeros((view.size, view.size, 3), np.uint8)
        panels = []
        for place, slice_ in enumerate(shown):
            factor = tile / max(rows, columns)
            height, width = int(rows * factor), int(columns * factor)
            top, left = place // across * tile + (tile - height) // 2, place % across * tile + (tile - width) // 2
            plane = image.pixels[0, slice_][
                (np.arange(height) / factor).astype(int)[:, None], (np.arange(width) / factor).astype(int)
            ]
            plane = 1 - plane if view.preset == "inverted" else plane
            out[top : top + height, left : left + width] = (plane[..., None] * 220).astype(np.uint8)
            panels.append(Panel(view.image, slice_, (top, top + height), (left, left + width), (rows, columns)))
        return Picture(out, tuple(panels))

    def describe(self, study: Study) -> str:
        return {"DX": "Chest radiograph, PA view", "CT": "CT of the torso, 12 slices"}.get(
            study.modality, "optical scene, 180 x 180 pixels"
        )

    def questions(self, study: Study, facts: Facts, rng: Random) -> list[Question]:
        return []

    def answer(self, question: Question, facts: Facts) -> Reply:
        return Reply("Yes.", True)

    def caption(self, study: Study, facts: Facts, rng: Random) -> str:
        return "waves"

    def export(self, report: Report, format: str) -> bytes:
        raise UnsupportedError(f"format {format!r}", "none")

    def synth(self, directory: Path, n: int, seed: int) -> list[Sample]:
        kinds = sorted(SHAPES)
        return [Sample(str(write(directory, kinds[i % 3], seed + i)), str(i), Facts((), frozenset())) for i in range(n)]


def write(directory: Path, kind: str, seed: int = 0, name: str = "", **header: str) -> Path:
    """A toy file in `directory`."""
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / (name or f"{kind}{seed}.toy")
    path.write_bytes(MAGIC + json.dumps({"kind": kind, "seed": seed, **header}).encode())
    return path


class Oracle:
    """An assistant without a network: two findings and an absent one, a contradiction and a failed expert."""

    experts = ()
    model_items = ()

    def __init__(self, version: str = "1") -> None:
        self.domain = Toy()
        self.provenance: Mapping[str, str] = MappingProxyType(
            {"model": f"toy-vlm {version}", "weights": "f" * 64, "experts": str(ORIGIN)}
        )
        self.asked = 0

    def findings(self, study: Study) -> tuple[Finding, ...]:
        shape = study.images[0].grid.shape
        s, y, x = np.mgrid[: shape[0], : shape[1], : shape[2]]
        middle = shape[0] // 2
        low = (y > shape[1] * 0.72) & (x > shape[2] * 0.55) & (x < shape[2] * 0.9) & (abs(s - middle) < 4)
        disc = ((y - shape[1] * 0.3) ** 2 + (x - shape[2] * 0.3) ** 2 < 60) & (abs(s - middle - 1) < 2)
        effusion, nodule, pneumothorax = (term.code for term in Toy.vocabulary)
        return (
            Finding(
                "pleural_effusion", effusion, True, 0.91, ORIGIN, "left",
                (Measure("area", 23.14, "cm2", 1.2),), Mask(low),
            ),
            Finding(
                "nodule", nodule, True, 0.74, ORIGIN, "right",
                (Measure("count", 1, "1"), Measure("longest_diameter", 12.42, "mm")), Mask(disc),
            ),
            Finding("pneumothorax", pneumothorax, False, 0.03, ORIGIN),
        )  # fmt: skip

    def ask(self, study: Study, question: str, use_experts: bool = True) -> Answer:
        self.asked += 1
        if not use_experts:
            return Answer(question, "There is a nodule.", 0.71, (Sentence("There is a nodule.", "model"),))
        sentences = (
            Sentence("There is a left pleural effusion of 23.1 cm2.", "expert", (0,)),
            Sentence("There is a right pneumothorax.", "contradicted", (2,)),
            Sentence("The heart is of normal size.", "failed"),
            Sentence("The bones look <b>intact</b>.", "model"),
        )
        calls = (
            Call("toy_segmentation", "all", self.findings(study)),
            Call("toy_classification", "heart", failure="needs a frontal view"),
        )
        return Answer(question, " ".join(s.text for s in sentences), 0.83, sentences, calls)

    def report(self, study: Study) -> Report:
        size = self.ask(study, "How large is the nodule?")
        sentence = Sentence("The longest diameter is 12.4 mm.", "expert", (1,))
        size = Answer(size.question, sentence.text, 0.9, (sentence,), size.calls[:1])
        return Report(study, (self.ask(study, "Write a report."), size), self.provenance)
