"""A page for people (Encapsulated PDF, PS3.3 A.45.1): what was found and measured, the key picture, who says so."""

from __future__ import annotations

from html import escape
from io import BytesIO
from typing import Any

import numpy as np
from highdicom.base import SOPClass
from PIL import Image as Pillow
from pydicom import Dataset
from pydicom.uid import EncapsulatedPDFStorage, ExplicitVRLittleEndian
from reportlab.graphics.shapes import Drawing, Rect
from reportlab.lib import colors
from reportlab.lib.pagesizes import A4
from reportlab.lib.styles import ParagraphStyle
from reportlab.lib.units import mm
from reportlab.pdfgen.canvas import Canvas
from reportlab.platypus import Flowable, Image, KeepTogether, Paragraph, SimpleDocTemplate, Spacer, Table

from domains.radiology.outputs.common import (
    Item,
    findings,
    identity,
    items,
    moment,
    notice,
    settle,
    verified,
)
from domains.radiology.outputs.originals import Originals
from domains.radiology.outputs.pictures import key_pictures, quantity
from domains.radiology.text import describe
from fovea.types import Report, Sentence
from fovea.verbal import words

NAME = "dicom-pdf"
_INK, _FAINT, _RULE, _ALERT = (colors.HexColor(code) for code in ("#1c2733", "#5b6875", "#c9d1d9", "#a33b00"))
_BODY = ParagraphStyle("body", fontName="Helvetica", fontSize=9.5, leading=13, textColor=_INK)
_SMALL = ParagraphStyle("small", _BODY, fontSize=7.5, leading=10, textColor=_FAINT)
_TITLE = ParagraphStyle("title", _BODY, fontName="Helvetica-Bold", fontSize=16, leading=20)
_HEAD = ParagraphStyle("head", _BODY, fontName="Helvetica-Bold", fontSize=10.5, leading=14, spaceBefore=9, spaceAfter=3)
_CELL_HEAD = ParagraphStyle("cell", _SMALL, fontName="Helvetica-Bold")
_SUPPORT = {
    "expert": "measured", "model": "the model's own",
    "contradicted": "contradicts the expert", "failed": "expert failed",
}  # fmt: skip
_WIDTH = 174 * mm - 12
_ROWS = 40
"""The most rows of the table; what is left out is counted."""


def make(report: Report, images: Originals, _segments: object) -> list[Dataset]:
    """One document. The page names no patient: who it is about stands in the elements around it.

    Where the source may have an identity burned in, so may the page, which shows a picture of it.
    """
    date, time = moment(report, images)
    document = page(report, date)
    made = SOPClass(
        study_instance_uid=images.header.StudyInstanceUID,
        sop_class_uid=EncapsulatedPDFStorage,
        modality="DOC",
        transfer_syntax_uid=ExplicitVRLittleEndian,
        **identity(report, images, NAME, 1),
    )
    made.copy_patient_and_study_information(images.header)
    made.ConversionType, made.BurnedInAnnotation = "SYN", "NO" if images.clean else "YES"
    made.AcquisitionDateTime = date + time
    made.DocumentTitle = f"Findings, {notice(report)}"[:64]
    made.VerificationFlag = "VERIFIED" if verified(report) else "UNVERIFIED"
    made.ConceptNameCodeSequence, made.SourceInstanceSequence = (
        [_code("18748-4", "LN", "Diagnostic imaging report")],
        [],
    )
    for header in {str(f.header.SOPInstanceUID): f.header for frames in images.images for f in frames}.values():
        source = Dataset()
        source.ReferencedSOPClassUID, source.ReferencedSOPInstanceUID = header.SOPClassUID, header.SOPInstanceUID
        made.SourceInstanceSequence.append(source)
    made.MIMETypeOfEncapsulatedDocument, made.EncapsulatedDocument = "application/pdf", document
    made.EncapsulatedDocumentLength = len(document)
    return [settle(made, report, images)]


def page(report: Report, date: str) -> bytes:
    """The PDF, A4, the same bytes for the same report."""
    memory = BytesIO()
    template = SimpleDocTemplate(
        memory, pagesize=A4, leftMargin=18 * mm, rightMargin=18 * mm, topMargin=18 * mm, bottomMargin=20 * mm,
        title="Findings", author="Fovea", subject=notice(report), invariant=1, pageCompression=1,
    )  # fmt: skip
    parts: list[Flowable] = [
        Paragraph("Findings", _TITLE),
        Paragraph(escape(describe(report.study)), _BODY),
        Paragraph(f"Study {report.study.id} &nbsp;·&nbsp; Date {date[:4]}-{date[4:6]}-{date[6:]}", _SMALL),
        Spacer(1, 5),
        _banner(report),
        *_picture(report),
        *_table(report),
        *_answers(report),
        *_provenance(report),
    ]
    template.build(parts, onFirstPage=_foot(report), onLaterPages=_foot(report))
    return memory.getvalue()


def _banner(report: Report) -> Table:
    color = _INK if verified(report) else _ALERT
    style = ParagraphStyle("banner", _BODY, fontName="Helvetica-Bold", textColor=color)
    return Table([[Paragraph(escape(notice(report)), style)]], [_WIDTH], style=[("BOX", (0, 0), (-1, -1), 1, color)])


def _picture(report: Report) -> list[Flowable]:
    """The first key picture, its legend beside it."""
    key = key_pictures(report, burned=False)[0]
    memory = BytesIO()
    Pillow.fromarray(np.asarray(key.pixels)).save(memory, "PNG")
    memory.seek(0)
    size = 92 * mm
    legend = [[_swatch(item), Paragraph(escape(_place(item)), _BODY)] for item in key.items]
    where = "Overview" if key.slice is None else f"Slice {key.slice + 1}"
    beside: list[Flowable] = [Paragraph(where, _HEAD)]
    if legend:
        beside.append(Table(legend, [7 * mm, 65 * mm], style=[("VALIGN", (0, 0), (-1, -1), "MIDDLE")], hAlign="LEFT"))
    table = Table(
        [[Image(memory, size, size), beside]],
        [size + 4 * mm, _WIDTH - size - 4 * mm],
        style=[("VALIGN", (0, 0), (-1, -1), "TOP"), ("LEFTPADDING", (0, 0), (0, 0), 0)],
    )
    return [Spacer(1, 8), table]


def _swatch(item: Item) -> Drawing:
    """A square in the colour of an item."""
    drawing = Drawing(8, 8)
    drawing.add(Rect(0, 0, 8, 8, fillColor=colors.Color(*(value / 255 for value in item.color)), strokeColor=None))
    return drawing


def _place(item: Item) -> str:
    return f"{item.name} ({item.location})" if item.location else item.name


def _table(report: Report) -> list[Flowable]:
    head = [
        Paragraph(text, _CELL_HEAD) for text in ("Finding", "Probability", "Measures (± standard uncertainty)", "By")
    ]
    told = items(report)
    rows = [
        [
            _place(item),
            f"{item.score:.2f}",
            "; ".join(f"{words(m.name)} {quantity(m)}" for m in item.measures),
            str(item.finding.by),
        ]
        for item in told[:_ROWS]
    ]
    absent = [f"{words(one.label)} ({one.score:.2f})" for one in findings(report) if not one.present]
    cells = [[Paragraph(escape(text), _BODY) for text in row] for row in rows]
    found: list[Flowable] = [Paragraph("Findings and measures", _HEAD)]
    if cells:
        rules = [
            ("LINEBELOW", (0, 0), (-1, -1), 0.4, _RULE),
            ("VALIGN", (0, 0), (-1, -1), "TOP"),
            ("LEFTPADDING", (0, 0), (0, -1), 0),
        ]
        found.append(Table([head, *cells], [48 * mm, 22 * mm, 66 * mm, _WIDTH - 136 * mm], style=rules, repeatRows=1))
    else:
        found.append(Paragraph("Nothing was found to be present.", _BODY))
    if len(told) > _ROWS:
        found.append(Paragraph(f"{len(told) - _ROWS} more are in the measurement report.", _SMALL))
    if absent:
        found.append(Paragraph(escape("Looked for and absent (probability): " + ", ".join(absent) + "."), _BODY))
    failed = [f"{call.expert}: {call.failure}" for answer in report.answers for call in answer.calls if call.failure]
    return found + [Paragraph(escape(f"Failed: {text}"), _BODY) for text in dict.fromkeys(failed)]


def _answers(report: Report) -> list[Flowable]:
    found: list[Flowable] = []
    for answer in report.answers:
        sentences = answer.sentences or (Sentence(answer.text, "model"),)
        told = " ".join(
            f'{escape(s.text)} <font color="#5b6875" size="7.5">[{escape(_SUPPORT[s.support])}]</font>'
            for s in sentences
        )
        found.append(KeepTogether([Paragraph(escape(answer.question), _HEAD), Paragraph(told, _BODY)]))
    return found


def _provenance(report: Report) -> list[Flowable]:
    told = [f"{key}: {value}" for key, value in sorted(report.provenance.items())]
    told.append(f"reader: {report.study.source.reader}")
    return [Paragraph("Provenance", _HEAD), Paragraph(escape("; ".join(told)), _SMALL)]


def _foot(report: Report) -> Any:
    def draw(canvas: Canvas, _template: SimpleDocTemplate) -> None:
        canvas.saveState()
        canvas.setFont("Helvetica", 7.5)
        canvas.setFillColor(_FAINT)
        canvas.drawString(18 * mm, 11 * mm, notice(report))
        canvas.drawRightString(A4[0] - 18 * mm, 11 * mm, f"{report.study.id}, page {canvas.getPageNumber()}")
        canvas.restoreState()

    return draw


def _code(value: str, scheme: str, meaning: str) -> Dataset:
    made = Dataset()
    made.CodeValue, made.CodingSchemeDesignator, made.CodeMeaning = value, scheme, meaning
    return made
