"""The parts of the viewer's page."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from html import escape

import streamlit as st

from apps import wording
from apps.geometry import scale
from apps.outputs import Outputs, archive
from apps.pictures import annotated, color, draw, png
from apps.report.document import report_key, title, to_document, to_text
from apps.report.html import answer_fragment, study_page
from apps.service import Service, in_words
from apps.viewer.session import Session
from fovea.colors import drawn
from fovea.contracts import Writer
from fovea.errors import FoveaError
from fovea.overlay import overlay
from fovea.types import Study, View
from fovea.verbal import words

_SIZE = 768
STYLE = """<style>
[data-testid="stHeader"] {height: 2.2rem; background: transparent}
.block-container {padding: 2.4rem 2rem 2rem; max-width: 1500px}
[data-testid="stSidebarHeader"] {height: 1.5rem; margin: 0}
h1 {font-size: 1.35rem !important; line-height: 1.3 !important; font-weight: 650 !important;
  padding: .3rem 0 .2rem !important}
[data-testid="stCaptionContainer"] p {margin: 0}
[data-testid="stImage"], [data-testid="stImageContainer"] {background: #0b0e12; border-radius: 4px; width: 100%}
[data-testid="stImageContainer"] {display: flex; justify-content: center}
[data-testid="stImageContainer"] img {width: auto !important; max-width: 100%; max-height: 62vh}
[data-testid="stVerticalBlock"] {gap: .6rem}
.fovea-draft {background: #fdf1dc; color: #7a4a00; border-left: 3px solid #c98a1b; padding: 3px 10px; font-size: 12.5px}
</style>"""


@contextmanager
def said() -> Iterator[None]:
    """An error of Fovea becomes a message: what happened and what to do."""
    try:
        yield
    except FoveaError as error:
        text = in_words(error)
        st.error(f"{text['happened']} {text['remedy']}", icon=":material/error:")


def heading(service: Service, study: Study) -> None:
    """What is open, and that nothing here is reviewed."""
    grid = study.images[0].grid
    size = scale(grid)
    shape = f"{grid.shape[2]} × {grid.shape[1]} px" + (f", {grid.shape[0]} slices" if grid.shape[0] > 1 else "")
    st.html(f'<div class="fovea-draft">{wording.DRAFT}</div>')
    st.title(title(service.domain, study), anchor=False)
    st.caption(f"study {study.id} · {study.modality} · {shape} · pixel {size or 'size unknown'}")


def picture(service: Service, session: Session) -> None:
    """The picture with its controls, and under it the findings with their switches."""
    study = session.study
    view = _view(service, study)
    base = draw(service.domain, study, view)
    present = [claim for claim in session.claims if drawn(claim.finding)]
    place = st.empty()
    shown = [claim for claim, on in zip(present, _switches(service, present), strict=True) if on]
    pixels = overlay(base, [claim.finding for claim in shown], service.domain.vocabulary)
    place.image(png(annotated(pixels, base, study)), width="stretch", alt="The study, with findings switched on")


def _view(service: Service, study: Study) -> View:
    """What the controls above the picture say; only those are shown that have a choice."""
    presets, images = service.domain.presets, len(study.images)
    preset = st.segmented_control(
        "Display", presets, default=presets[0], format_func=words, key=f"preset-{service.domain.name}", required=True
    )
    left, right = st.columns([3, 2], vertical_alignment="bottom")
    image = (
        right.selectbox("Image", range(images), format_func=lambda i: f"Image {i + 1}", key=f"image-{study.id}")
        if images > 1
        else 0
    )
    slices = study.images[image].grid.shape[0]
    if slices == 1:
        return View(preset or presets[0], _SIZE, image=image)
    overview = right.toggle("All slices at a glance", key="overview")
    position = left.slider("Slice", 1, slices, (slices + 1) // 2, key=f"slice-{study.id}-{image}", disabled=overview)
    return View(preset or presets[0], _SIZE, None if overview else position - 1, image)


def _switches(service: Service, present: Sequence[wording.Claim]) -> list[bool]:
    """A checkbox a finding, with the colour that it has in the picture."""
    rules = []
    out = []
    columns = st.columns(2) if len(present) > 1 else [st.container()]
    for position, claim in enumerate(present):
        key = f"show-{claim.finding.by.name}-{claim.finding.label}"
        paint = color(claim.finding, service.domain.vocabulary)
        rules.append(
            f".st-key-{key} label p::before {{content: ''; display: inline-block; width: 11px; height: 11px;"
            f" margin-right: 7px; border-radius: 2px; background: {paint}}}"
        )
        out.append(columns[position % len(columns)].checkbox(wording.one_line(claim.finding), True, key=key))
    if rules:
        st.html(f"<style>{' '.join(rules)}</style>")
    return out


def questions(service: Service, session: Session) -> None:
    """Ask, and read the answers, newest first, each with its evidence and the experts behind it."""
    with st.form("ask", clear_on_submit=True, border=False):
        text = st.text_input("Question", placeholder="Ask about this study, in words", key="question")
        left, right = st.columns([3, 1], vertical_alignment="center")
        experts = left.checkbox("Experts may be asked", True, key="experts")
        sent = right.form_submit_button("Ask", type="primary", width="stretch")
    if sent and text.strip():
        with said(), st.spinner("Looking, measuring, answering …"):
            session.exchanges.append(service.ask(session.study, text.strip(), experts))
            st.rerun()
    for answer in reversed(session.exchanges):
        with st.container(border=True):
            st.text(answer.question)
            st.html(answer_fragment(answer))
    if not session.exchanges:
        st.caption("The answer comes with what stands behind it: which experts were asked, and what they measured.")


def report(service: Service, session: Session) -> None:
    """Write the draft report, read it and take it along."""
    if session.report is None:
        st.caption("The report describes the whole study: what the experts measured, and what the model makes of it.")
        if st.button("Write the draft report", type="primary", key="write"):
            with said(), st.spinner("Measuring and writing …"):
                session.report = service.report(session.study)
                st.rerun()
        return
    page = study_page(service.domain, session.report)
    key = report_key(session.study, service.provenance)
    data = to_text(to_document(service.domain, session.report, key))
    left, right, _ = st.columns([1, 1, 3])
    name = session.study.id
    left.download_button("Download HTML", page, f"{name}.html", "text/html", width="stretch", on_click="ignore")
    right.download_button("Download JSON", data, f"{name}.json", "application/json", width="stretch", on_click="ignore")
    outputs(service, session)
    st.iframe(page, height=1100)


def outputs(service: Service, session: Session) -> None:
    """Files of the report for other systems, as one ZIP, where the domain writes any."""
    domain, report, files = service.domain, session.report, session.item.files
    if report is None or not isinstance(domain, Writer):
        return
    with st.container(border=True), said():
        left, right = st.columns([4, 1], vertical_alignment="bottom")
        chosen = left.multiselect(
            "Files for other systems", domain.outputs, placeholder="All that the findings allow", key="outputs"
        )
        wanted = tuple(chosen)
        if right.button("Make the files", key="make", width="stretch"):
            session.files = None
            with st.spinner("Writing …"):
                session.files = wanted, *archive(domain, report, files, wanted, service.assistant.model_items)
        st.html(
            f'<div class="fovea-draft">{escape(wording.state_line(report))} No person has verified these files, unless'
            " one is named here. For an archive or a record they carry the patient's identity as the originals do."
            "</div>"
        )
        if session.files and session.files[0] == wanted:
            _download(session.study.id, *session.files[1:])


def _download(name: str, data: bytes, made: Outputs) -> None:
    """The button, what is in the ZIP, and what could not be written."""
    if made.files:
        label = f"Download {len(made.files)} file{'' if len(made.files) == 1 else 's'} as ZIP"
        st.download_button(label, data, f"{name}.zip", "application/zip", type="primary", on_click="ignore", key="zip")
        st.text("\n".join(made.files))
    for output, reason in made.refused.items():
        st.caption(f"No {output}: {reason}")
