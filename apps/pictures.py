"""Studies drawn for a person: cut to the picture, with scale bar, directions and slice numbers, findings on top."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterable
from dataclasses import replace
from io import BytesIO

import numpy as np
from PIL import Image as Pillow
from PIL import ImageDraw, ImageFont

from apps.geometry import edges, north_of, round_length, scale
from fovea.colors import color_of
from fovea.contracts import Domain
from fovea.image import Matrix
from fovea.overlay import overlay
from fovea.types import Bytes, Finding, Panel, Picture, Study, Term, View
from fovea.verbal import number

_FRONTAL = {"PA", "AP"}


def draw(domain: Domain, study: Study, view: View) -> Picture:
    """The domain's picture without its unused border."""
    picture = domain.render(study, view)
    top, left = min(p.rows[0] for p in picture.panels), min(p.columns[0] for p in picture.panels)
    bottom, right = max(p.rows[1] for p in picture.panels), max(p.columns[1] for p in picture.panels)
    panels = tuple(
        replace(
            panel,
            rows=(panel.rows[0] - top, panel.rows[1] - top),
            columns=(panel.columns[0] - left, panel.columns[1] - left),
        )
        for panel in picture.panels
    )
    return Picture(picture.pixels[top:bottom, left:right], panels)


def marks(picture: Picture, study: Study) -> Bytes:
    """What a reader needs on a picture, uint8 RGBA (row, column, 4): directions, slice numbers and a scale bar.

    Directions are letters at the edges of a patient, and in a scene an arrow to true north.
    """
    canvas = Pillow.new("RGBA", picture.pixels.shape[1::-1])
    pen = ImageDraw.Draw(canvas)
    size = max(13, min(picture.pixels.shape[:2]) // 42)
    font = ImageFont.load_default(size)
    for position, panel in enumerate(picture.panels):
        grid = study.images[panel.image].grid
        if grid.shape[0] > 1:
            _write(pen, font, f"{panel.slice + 1}/{grid.shape[0]}", panel, "lt")
        left, top, right = edges(grid, study.meta.get("view", "") in _FRONTAL)
        _write(pen, font, left, panel, "lm")
        _write(pen, font, top, panel, "mt")
        _write(pen, font, right, panel, "rm")
        if (north := north_of(grid)) is not None:
            _arrow(pen, font, size, panel, north)
        if position == 0:
            _scale_bar(pen, font, panel, study)
    return np.asarray(canvas)


def annotated(pixels: Bytes, picture: Picture, study: Study) -> Bytes:
    """`pixels`, the picture or an overlay of it, with its marks."""
    over = marks(picture, study)
    weight = over[..., 3:].astype(np.float32) / 255
    return (pixels * (1 - weight) + over[..., :3] * weight).round().astype(np.uint8)


def _write(
    pen: ImageDraw.ImageDraw, font: ImageFont.ImageFont | ImageFont.FreeTypeFont, text: str, panel: Panel, anchor: str
) -> None:
    margin = 6
    x = {"l": panel.columns[0] + margin, "m": sum(panel.columns) / 2, "r": panel.columns[1] - margin}[anchor[0]]
    y = {"t": panel.rows[0] + margin, "m": sum(panel.rows) / 2}[anchor[1]]
    pen.text((x, y), text, (255, 255, 255), font, anchor, stroke_width=2, stroke_fill=(0, 0, 0))


def _arrow(
    pen: ImageDraw.ImageDraw, font: ImageFont.ImageFont | ImageFont.FreeTypeFont, size: int, panel: Panel, north: Matrix
) -> None:
    """An arrow to the north with its letter, at the upper right; `size` is that of the font."""
    middle = np.array([panel.columns[1] - 2 * size, panel.rows[0] + 2.5 * size])
    across, tip, tail = np.array([-north[1], north[0]]) * size / 2, middle + north * size, middle - north * size
    arrow = [tip, tail + across, tail + north * size / 2, tail - across]
    pen.polygon([(float(x), float(y)) for x, y in arrow], (255, 255, 255), (0, 0, 0), 2)
    x, y = tip + north * size / 2
    pen.text((x, y), "N", (255, 255, 255), font, "mm", stroke_width=2, stroke_fill=(0, 0, 0))


def _scale_bar(
    pen: ImageDraw.ImageDraw, font: ImageFont.ImageFont | ImageFont.FreeTypeFont, panel: Panel, study: Study
) -> None:
    """A round length, at most a third of the panel, at its lower left."""
    size = scale(study.images[panel.image].grid)
    if size is None:
        return
    width = panel.columns[1] - panel.columns[0]
    per_pixel = size.column * panel.shape[1] / width
    length = round_length(per_pixel * width / 3)
    x, y = panel.columns[0] + 10, panel.rows[1] - 12
    stop = x + length / per_pixel
    pen.rectangle((x - 1, y - 2, stop + 1, y + 2), (0, 0, 0))
    pen.rectangle((x, y - 1, stop, y + 1), (255, 255, 255))
    name = f"{number(length / 1000)} km" if size.unit == "m" and length >= 1000 else f"{number(length)} {size.unit}"
    if size.unit == "mm" and length >= 10:
        name = f"{number(length / 10)} cm"
    pen.text((x, y - 6), name, (255, 255, 255), font, "lb", stroke_width=2, stroke_fill=(0, 0, 0))


def layer(picture: Picture, finding: Finding, vocabulary: Iterable[Term]) -> Bytes | None:
    """One finding alone, uint8 RGBA (row, column, 4), to lay over the picture; None where it shows nowhere.

    Drawn over black and over white, a colour c of weight w is c·w and c·w + 255·(1 − w): both follow.
    """
    terms = tuple(vocabulary)
    black, white = (
        overlay(Picture(np.full_like(picture.pixels, value), picture.panels), (finding,), terms).astype(np.float32)
        for value in (0, 255)
    )
    weight = 1 - (white - black)[..., :1] / 255
    if not (weight > 0.01).any():
        return None
    color = np.divide(black, weight, out=np.zeros_like(black), where=weight > 0.01)
    return np.concatenate((color, weight * 255), -1).round().clip(0, 255).astype(np.uint8)


def color(finding: Finding, vocabulary: Iterable[Term]) -> str:
    """The colour of a finding's overlay as #rrggbb."""
    return "#{:02x}{:02x}{:02x}".format(*color_of(finding.label, vocabulary))


def png(pixels: Bytes) -> bytes:
    """uint8 (row, column, 3 or 4) as PNG; grey pictures are stored as grey."""
    if pixels.shape[-1] == 3 and (pixels == pixels[..., :1]).all():
        pixels = pixels[..., 0]
    out = BytesIO()
    Pillow.fromarray(pixels).save(out, "PNG")
    return out.getvalue()


def data_uri(pixels: Bytes) -> str:
    """The PNG as a data URI."""
    return f"data:image/png;base64,{b64encode(png(pixels)).decode()}"
