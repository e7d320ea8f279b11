"""One picture of what an expert found, which a reader understands without help: image, overlay, legend and measures."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib.resources import as_file, files
from typing import Literal

import numpy as np
from PIL import Image as Pillow
from PIL import ImageDraw, ImageFont

from apps.geometry import position
from apps.pictures import annotated, draw
from apps.report.document import title
from apps.wording import chance, measures, quantity
from fovea.colors import color_of, drawn
from fovea.contracts import Domain
from fovea.image import DETECTOR, LPS
from fovea.key_slices import key_slices
from fovea.overlay import overlay
from fovea.types import Bytes, ExpertCard, Finding, Instance, Study, View
from fovea.verbal import LISTED, words

NOTICE = "Not verified by a person."
_TILES, _GAP, _COLUMN, _SIZE = 4, 16, 480, 18
_SIDE = {1: 960, 2: 640}
_INK, _FADED, _PAPER, _WARNING = (25, 28, 33), (95, 103, 115), (255, 255, 255), (150, 60, 0)
_METRICS = {"dice": "Dice", "auroc": "AUROC"}
Rgb = tuple[int, int, int]
Font = ImageFont.FreeTypeFont


@dataclass(frozen=True, eq=False)
class Tile:
    """A drawn image or slice with its marks, uint8 (row, column, 3), and what it is."""

    pixels: Bytes
    caption: str


@dataclass(frozen=True)
class Line:
    """A line of the text column; `swatch` is a colour before it, `indent` in pixels."""

    text: str
    weight: Literal["plain", "bold"] = "plain"
    ink: Rgb = _INK
    swatch: Rgb | None = None
    indent: int = 0


def figure(
    domain: Domain, study: Study, card: ExpertCard, findings: Sequence[Finding], heading: str = "", note: str = ""
) -> Bytes:
    """The image or the key slices with the findings drawn, and beside them what was found; uint8 (row, column, 3).

    The heading is the study's unless another is given, such as that of a study that is drawn reduced.
    """
    tiles = _tiles(domain, study, findings)
    across = 1 if len(tiles) == 1 else 2
    rows = [tiles[place : place + across] for place in range(0, len(tiles), across)]
    side = max(max(tile.pixels.shape[1] for tile in row) for row in rows)
    heights = [max(tile.pixels.shape[0] for tile in row) + 2 * _SIZE for row in rows]
    told = [Line(""), Line(note, ink=_FADED)] if note else []
    lines = list(_wrapped([*_text(domain, study, card, findings), *told], _COLUMN))
    head = [*_fold(heading or title(domain, study), _font(26, "bold"), across * (side + _GAP) + _COLUMN)]
    top = _GAP + 34 * len(head) + 30
    height = top + max(sum(heights) + _GAP * len(rows), round(len(lines) * _SIZE * 1.35)) + 2 * _GAP
    width = _GAP + across * (side + _GAP) + _COLUMN + _GAP
    canvas = Pillow.new("RGB", (width, height), _PAPER)
    pen = ImageDraw.Draw(canvas)
    for place, text in enumerate(head):
        pen.text((_GAP, _GAP + 34 * place), text, _INK, _font(26, "bold"))
    pen.text((_GAP, top - 32), f"Read by {card.name}@{card.version}", _FADED, _font(_SIZE))
    pen.text((width - _GAP, top - 32), NOTICE, _WARNING, _font(_SIZE, "bold"), "ra")
    y = top
    for row, tall in zip(rows, heights, strict=True):
        for place, tile in enumerate(row):
            x = _GAP + place * (side + _GAP)
            canvas.paste(Pillow.fromarray(tile.pixels), (x, y))
            small = _font(_SIZE - 3)
            pen.text((x, y + tile.pixels.shape[0] + 6), _cut(tile.caption, small, side), _FADED, small)
        y += tall + _GAP
    _write(pen, lines, (_GAP + across * (side + _GAP), top))
    return np.asarray(canvas)


def _tiles(domain: Domain, study: Study, findings: Sequence[Finding]) -> list[Tile]:
    """The key slices of volumes and the images with findings; without any, the image that was looked at."""
    keys = key_slices(study, findings, _TILES)
    views = [(View(domain.presets[0], slice=key.slice, image=key.image), key.labels) for key in keys]
    covered = {key.image for key in keys}
    for image in dict.fromkeys(finding.image for finding in findings if drawn(finding)):
        if image not in covered:
            labels = tuple(f.label for f in findings if drawn(f) and f.image == image)
            views.append((View(domain.presets[0], image=image), labels))
    views = views[:_TILES] or [(View(domain.presets[0], image=findings[0].image if findings else 0), ())]
    side = _SIDE.get(len(views), 520)
    return [_tile(domain, study, replace(view, size=side), labels, findings) for view, labels in views]


def _tile(domain: Domain, study: Study, view: View, labels: Sequence[str], findings: Sequence[Finding]) -> Tile:
    picture = draw(domain, study, view)
    pixels = annotated(overlay(picture, findings, domain.vocabulary), picture, study)
    grid = study.images[view.image].grid
    what = f"Image {view.image + 1} of {len(study.images)}" if len(study.images) > 1 else "Whole image"
    if view.slice is not None:
        what = f"Slice {view.slice + 1} of {grid.shape[0]}, {position(grid, view.slice)}".rstrip(", ")
    elif grid.shape[0] > 1:
        what = f"Overview of {grid.shape[0]} slices"
    return Tile(pixels, f"{what}: {', '.join(map(words, labels))}" if labels else what)


def _text(domain: Domain, study: Study, card: ExpertCard, findings: Sequence[Finding]) -> Iterator[Line]:
    """What was found, what was not, and what the expert is worth."""
    present = [finding for finding in findings if finding.present]
    yield Line("Found" if present else "Nothing was found", "bold")
    for finding in present:
        yield Line("")
        name = ", ".join(part for part in (words(finding.label), finding.location) if part)
        yield Line(
            name, "bold", swatch=color_of(finding.label, domain.vocabulary) if drawn(finding) else None, indent=26
        )
        yield Line(f"probability {finding.score:.2f}, {chance(finding.score)}", indent=26)
        if finding.measures:
            yield Line(measures(finding), indent=26)
        if not drawn(finding):
            yield Line("not drawn in the picture", ink=_FADED, indent=26)
        for place, instance in enumerate(finding.instances[:LISTED], start=1):
            yield Line(_instance(place, instance), ink=_FADED, indent=26)
        if len(finding.instances) > LISTED:
            yield Line(f"and {len(finding.instances) - LISTED} more", ink=_FADED, indent=26)
    absent = [f"{words(finding.label)} ({_missed(card, finding)})" for finding in findings if not finding.present]
    if absent:
        yield from (Line(""), Line("Looked for and not found", "bold"), Line(", ".join(absent)))
    yield from (Line(""), Line("The expert", "bold"), Line(card.task[:1].upper() + card.task[1:] + "."))
    labels = {finding.label for finding in present}
    rows = [row for row in card.performance if row.label in labels and row.metric in _METRICS][:8]
    if rows:
        yield Line("In its own test, with 95 % intervals:", ink=_FADED)
    for row in rows:
        value = f"{_METRICS[row.metric]} {row.value:.2f} ({row.low:.2f} to {row.high:.2f}), n {row.n}"
        yield Line(f"{words(row.label)}: {value}", ink=_FADED)
    frames = {study.images[finding.image].grid.frame for finding in findings} & {LPS, DETECTOR}
    if frames:
        sides = "R and L are the patient's right and left"
        volume = ", A and P front and back, H and F head and feet, in mm from the scanner's origin"
        yield from (Line(""), Line(sides + (volume if LPS in frames else "") + ".", ink=_FADED))
    yield from (Line(""), Line(f"Study {study.id}", ink=_FADED))


def _missed(card: ExpertCard, finding: Finding) -> str:
    """The probability of an absent finding, and where it is likely, what would have been enough."""
    rows = [row for row in card.performance if row.label == finding.label and row.metric.startswith("threshold")]
    if finding.score < 0.5 or not rows or finding.score >= rows[0].value:
        return f"{finding.score:.2f}"
    return f"{finding.score:.2f}, below the threshold of {math.ceil(100 * rows[0].value) / 100:.2f}"


def _instance(place: int, instance: Instance) -> str:
    told = [f"{words(measure.name)} {quantity(measure)}" for measure in instance.measures]
    return ", ".join(part for part in (f"#{place}  {instance.score:.2f}", instance.location, *told) if part)


def _wrapped(lines: Sequence[Line], width: int) -> Iterator[Line]:
    for line in lines:
        for place, text in enumerate(_fold(line.text, _font(_SIZE, line.weight), width - line.indent)):
            yield replace(line, text=text, swatch=line.swatch if place == 0 else None)


def _fold(text: str, font: Font, width: float) -> Iterator[str]:
    """The text in lines of at most that many pixels; a word that is longer is cut."""
    line = ""
    for word in text.split(" "):
        while font.getlength(word) > width:
            fits = max(1, next(n for n in range(1, len(word) + 1) if font.getlength(word[:n]) > width) - 1)
            yield from ([line] if line else [])
            yield word[:fits]
            line, word = "", word[fits:]
        longer = f"{line} {word}" if line else word
        if font.getlength(longer) > width:
            yield line
            longer = word
        line = longer
    yield line


def _cut(text: str, font: Font, width: float) -> str:
    """The text, or as much of its start as fits."""
    first, *rest = _fold(text, font, width - font.getlength(" …"))
    return f"{first} …" if rest else first


def _write(pen: ImageDraw.ImageDraw, lines: Sequence[Line], corner: tuple[int, int]) -> None:
    x, y = corner
    for place, line in enumerate(lines):
        top = y + round(place * _SIZE * 1.35)
        if line.swatch:
            pen.rectangle((x, top + 2, x + 16, top + 18), line.swatch, (60, 60, 60))
        pen.text((x + line.indent, top), line.text, line.ink, _font(_SIZE, line.weight))


@lru_cache(maxsize=16)
def _font(size: int, weight: Literal["plain", "bold"] = "plain") -> Font:
    """Bitstream Vera Sans, which comes with ReportLab and knows ±, ² and ×."""
    with as_file(files("reportlab") / "fonts" / ("VeraBd.ttf" if weight == "bold" else "Vera.ttf")) as path:
        return ImageFont.truetype(path, size)
