"""Key pictures of a report: the slices that show what was found, with outlines, a legend and the state."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from domains.radiology.outputs.common import Item, notice
from domains.radiology.outputs.shapes import Rings, drawn, key_slices
from domains.radiology.render import render
from fovea.image import Bytes
from fovea.types import Measure, Picture, Report, View
from fovea.verbal import figure, number, words

_SIZE, _LINE, _MARGIN = 768, 24, 8
_MOST = 8
_SQUARES = {"mm2": "mm²", "cm2": "cm²", "m2": "m²"}


@dataclass(frozen=True, eq=False)
class KeyPicture:
    """uint8 (row, column, 3); `image` and `slice` tell what it shows, None for an overview; `items` what is marked."""

    pixels: Bytes
    image: int
    slice: int | None
    items: tuple[Item, ...]


def key_pictures(report: Report, burned: bool = True) -> list[KeyPicture]:
    """At most eight for each image with regions, or an overview where there is none.

    With `burned` the legend and the state of the report stand below the picture, in its pixels.
    """
    found = []
    for image in range(len(report.study.images)):
        lines = drawn(report, image)
        for place in key_slices(lines, _MOST):
            shown = [(item, rings) for item, rings in lines if place in rings]
            picture = render(report.study, View(size=_SIZE, slice=place, image=image))
            found.append(_key(report, picture, shown, image, place, burned))
    return found or [_key(report, render(report.study, View(size=_SIZE)), [], 0, None, burned)]


def quantity(measure: Measure) -> str:
    """A value with its standard uncertainty and unit: "12.4 ± 0.8 mm"."""
    if measure.name == "fraction":
        return figure(measure)
    shown = "" if measure.unit == "1" else f" {_SQUARES.get(measure.unit, measure.unit)}"
    spread = f" ± {number(float(f'{measure.uncertainty:.2g}'))}" if measure.uncertainty else ""
    return f"{number(measure.value)}{spread}{shown}"


def said(item: Item) -> str:
    """An item in one line: name, side, measures."""
    parts = [f"{words(measure.name)} {quantity(measure)}" for measure in item.measures]
    return ", ".join([f"{item.name} ({item.location})" if item.location else item.name, *parts])


def _key(
    report: Report, picture: Picture, shown: Sequence[tuple[Item, Rings]], image: int, place: int | None, burned: bool
) -> KeyPicture:
    canvas = Image.fromarray(picture.pixels)
    draw = ImageDraw.Draw(canvas)
    (panel, *_) = picture.panels
    for item, rings in shown:
        scale = np.array([panel.rows[1] - panel.rows[0], panel.columns[1] - panel.columns[0]]) / panel.shape
        for ring in rings[panel.slice]:
            points = (ring + 0.5) * scale + (panel.rows[0], panel.columns[0])
            draw.line([tuple(p) for p in np.vstack([points, points[:2]])[:, ::-1].tolist()], item.color, 2)
    items = tuple(item for item, _ in shown)
    pixels = np.asarray(_captioned(canvas, items, notice(report)) if burned else canvas, np.uint8)
    return KeyPicture(pixels, image, place, items)


def _captioned(picture: Image.Image, items: Sequence[Item], state: str) -> Image.Image:
    """The picture above the state and a line for each item."""
    height = picture.height + _LINE * (len(items) + 1) + 2 * _MARGIN
    canvas = Image.new("RGB", (picture.width, height))
    canvas.paste(picture)
    draw, font = ImageDraw.Draw(canvas), ImageFont.load_default(size=16)
    top = picture.height + _MARGIN
    draw.text((_MARGIN, top), state, (255, 200, 0), font)
    for place, item in enumerate(items, 1):
        line = top + _LINE * place
        draw.rectangle((_MARGIN, line + 4, _MARGIN + 12, line + 16), item.color)
        draw.text((_MARGIN + 20, line), said(item), (255, 255, 255), font)
    return canvas
