"""A report as one HTML file that needs nothing else: style, pictures and overlays are inside, and no script."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from apps import wording
from apps.geometry import frame_name, scale
from apps.pictures import color, data_uri, draw, layer, marks
from apps.report.document import TEMPLATES, title
from fovea.colors import drawn, legend
from fovea.contracts import Domain
from fovea.errors import PluginError
from fovea.key_slices import key_slices
from fovea.types import Answer, Report, Study, View
from fovea.verbal import words

if TYPE_CHECKING:
    from jinja2 import Environment

_OVERVIEW, _SLICE = 768, 384
_IMAGES = 4


@dataclass(frozen=True)
class Layer:
    """A finding's transparent picture, with the number that its checkbox has."""

    mark: str
    name: str
    color: str
    uri: str


@dataclass(frozen=True)
class Figure:
    """A picture, the marks on top of it, and between them the layers; the legend names their colours."""

    uri: str
    marks: str
    width: int
    height: int
    caption: str
    legend: str
    layers: tuple[Layer, ...]


def study_page(domain: Domain, report: Report) -> str:
    """The whole page of one report."""
    known = wording.claims(report.answers)
    study = report.study
    return (
        _environment()
        .get_template("study.html")
        .render(
            report=report,
            study=study,
            title=title(domain, study),
            notice=wording.state_line(report),
            figures=figures(domain, study, known),
            claims=known,
            calls=list({(c.expert, c.argument, c.failure): c for a in report.answers for c in a.calls}.values()),
            colors={claim.mark: color(claim.finding, domain.vocabulary) for claim in known},
            geometry=[_geometry(study, index) for index in range(len(study.images))],
        )
    )


def index_page(context: dict[str, Any]) -> str:
    """The page that lists failures, then reports."""
    return _environment().get_template("index.html").render(notice=wording.DRAFT, **context)


def check_page(context: dict[str, Any]) -> str:
    """The page of a check of data."""
    return _environment().get_template("data_check.html").render(**context)


def answer_fragment(answer: Answer) -> str:
    """One answer with its badges and calls, as in the report, with the style that it needs."""
    return _environment().get_template("fragment.html").render(answer=answer, claims=wording.claims([answer]))


def figures(domain: Domain, study: Study, known: Sequence[wording.Claim]) -> list[Figure]:
    """An overview of each image, then the slices of a volume that show its findings."""
    out: list[Figure] = []
    covered: set[int] = set()
    for image in range(min(len(study.images), _IMAGES)):
        if image not in covered:
            picture_view = View(domain.presets[0], _OVERVIEW, image=image)
            out.append(_figure(domain, study, picture_view, known, covered))
    for key in key_slices(study, [claim.finding for claim in known]):
        view = View(domain.presets[0], _SLICE, key.slice, key.image)
        out.append(_figure(domain, study, view, known, covered))
    return out


def _figure(domain: Domain, study: Study, view: View, known: Sequence[wording.Claim], covered: set[int]) -> Figure:
    picture = draw(domain, study, view)
    covered.update(panel.image for panel in picture.panels)
    layers, shown = [], []
    for claim in known:
        if not drawn(claim.finding):
            continue
        pixels = layer(picture, claim.finding, domain.vocabulary)
        if pixels is not None:
            name, paint = words(claim.finding.label), color(claim.finding, domain.vocabulary)
            layers.append(Layer(claim.mark, name, paint, data_uri(pixels)))
            shown.append(claim.finding)
    height, width = picture.pixels.shape[:2]
    total = study.images[view.image].grid.shape[0]
    caption = "Overview of the slices" if total > 1 else "Whole image"
    if view.slice is not None:
        caption = f"Slice {view.slice + 1} of {total}"
    colors = legend(shown, domain.vocabulary)
    return Figure(
        data_uri(picture.pixels), data_uri(marks(picture, study)), width, height, caption, colors, tuple(layers)
    )


def _geometry(study: Study, index: int) -> dict[str, str]:
    grid = study.images[index].grid
    slices, rows, columns = grid.shape
    size = scale(grid)
    shape = f"{columns} × {rows} px" + (f", {slices} slices" if slices > 1 else "")
    return {"shape": shape, "pixel": str(size) if size else "not known", "frame": frame_name(grid)}


@lru_cache(maxsize=1)
def _environment() -> Environment:
    try:
        from jinja2 import Environment, FileSystemLoader, StrictUndefined
    except ModuleNotFoundError as error:
        raise PluginError("reports need jinja2", "the extra 'report'", "Install fovea[report].") from error
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "words": words,
        "chance": wording.chance,
        "quantity": wording.quantity,
        "typeset": wording.typeset,
        "oneline": wording.one_line,
        "support": lambda sentence: wording.SUPPORT[sentence.support],
    }
    environment.globals |= {"cited": wording.cited, "mark": wording.mark}
    return environment
