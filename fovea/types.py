"""The nouns: frozen, NumPy only. Those of pictures and geometry stand in `fovea.image`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import cached_property
from hashlib import sha256
from typing import Any, ClassVar, Literal

from fovea.errors import ExpertError, InputError
from fovea.image import DETECTOR as DETECTOR
from fovea.image import LPS as LPS
from fovea.image import PIXEL as PIXEL
from fovea.image import SLIDE as SLIDE
from fovea.image import Bools as Bools
from fovea.image import Bytes as Bytes
from fovea.image import Channel as Channel
from fovea.image import Floats as Floats
from fovea.image import Grid as Grid
from fovea.image import Image as Image
from fovea.image import Pixels as Pixels
from fovea.image import Span as Span
from fovea.image import Window as Window


@dataclass(frozen=True)
class Source:
    """Where a study came from, without names: SHA-256 of each file, and the reader with its version."""

    hashes: Sequence[str]
    reader: str


@dataclass(frozen=True, eq=False)
class Study:
    """What is read as one: a CT series, the views of a radiograph, a scene.

    `meta` holds safe facts only (modality, view, body part, sensor, acquisition date of a scene);
    `meta["modality"]` is always there, and `meta["modality_from"]` is "values" where it is a guess. `id` and `digest`
    derive from the content and from how it was read, never from names of files.
    """

    domain: str
    images: tuple[Image, ...]
    source: Source
    meta: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def digest(self) -> str:
        """SHA-256 over the files' hashes and the reader: the key of caches."""
        return sha256("\n".join((*self.source.hashes, self.source.reader)).encode()).hexdigest()

    @property
    def id(self) -> str:
        """The first 12 digits of the digest."""
        return self.digest[:12]

    @property
    def modality(self) -> str:
        return self.meta["modality"]


@dataclass(frozen=True)
class Code:
    """A concept in a coding scheme, by the scheme's designator in DICOM PS3.16 ("SCT", "RADLEX") or our own table's."""

    scheme: str
    value: str
    meaning: str


@dataclass(frozen=True, eq=False)
class Mask:
    """bool (slice, row, column) on the grid of the image."""

    data: Bools


@dataclass(frozen=True)
class Box:
    """Half-open index corners in order (slice, row, column)."""

    start: tuple[float, float, float]
    stop: tuple[float, float, float]


@dataclass(frozen=True)
class OrientedBox:
    """A rectangle on one slice: centre (row, column), length and width in pixels, and the angle of its long
    side in degrees, from the column axis towards the row axis (clockwise on screen), in [-90, 90)."""

    center: tuple[float, float]
    length: float
    width: float
    angle: float
    slice: int = 0


@dataclass(frozen=True)
class Polygon:
    """Vertices (row, column) on one slice."""

    points: tuple[tuple[float, float], ...]
    slice: int = 0


Region = Mask | Box | OrientedBox | Polygon


@dataclass(frozen=True, eq=False)
class Patch:
    """A mask cut to its extent: bool (slice, row, column), and the index of its first pixel on the image's grid."""

    start: tuple[int, int, int]
    data: Bools


@dataclass(frozen=True)
class Measure:
    """A measured value with its unit (UCUM: "mm", "cm2", "mL", "m2", "ha", "deg", "1") and, where known, its
    standard uncertainty in the same unit."""

    name: str
    value: float
    unit: str
    uncertainty: float | None = None


@dataclass(frozen=True)
class Origin:
    """Who claims it: name, version, and the digest of the study that was looked at."""

    name: str
    version: str
    digest: str = ""

    def __str__(self) -> str:
        return f"{self.name}@{self.version}"


@dataclass(frozen=True, eq=False)
class Instance:
    """One of the objects that a finding covers: its place, its own probability in [0, 1], and what it measures."""

    region: Patch | Box | OrientedBox | Polygon
    score: float
    measures: tuple[Measure, ...] = ()
    location: str = ""


@dataclass(frozen=True, eq=False)
class Finding:
    """One measured claim about one label of the vocabulary.

    `present` is the decision at the operating threshold, `score` the calibrated probability in [0, 1];
    `location` is a closed word ("left", "right", "both", "north-east"); a region and the measures cover
    all instances of the label, `count` among them. `instances` are told apart by experts that can, the most
    important one first.
    """

    label: str
    code: Code
    present: bool
    score: float
    by: Origin
    location: str = ""
    measures: tuple[Measure, ...] = ()
    region: Region | None = None
    image: int = 0
    slices: Span | None = None
    instances: tuple[Instance, ...] = ()

    def measure(self, name: str) -> Measure | None:
        """The measure of that name, if there is one."""
        return next((measure for measure in self.measures if measure.name == name), None)


@dataclass(frozen=True, eq=False)
class Facts:
    """What is known to be true of a study: present findings, every label that was looked for, and where it belongs.

    A label in `assessed` without a finding is absent. `attributes` are further truths ("view": "PA").
    """

    findings: tuple[Finding, ...]
    assessed: frozenset[str]
    attributes: Mapping[str, str] = field(default_factory=dict)

    def finding(self, label: str) -> Finding | None:
        """The present finding of that label, if there is one."""
        return next((f for f in self.findings if f.label == label and f.present), None)


@dataclass(frozen=True)
class Sample:
    """One study on disk with its truth: `path` is what `Domain.load` takes, `group` the patient or place."""

    path: str
    group: str
    facts: Facts


@dataclass(frozen=True)
class Performance:
    """How good an expert is: filled in by its evaluation."""

    metric: str
    label: str
    value: float
    low: float
    high: float
    n: int
    data: str
    date: str


@dataclass(frozen=True)
class ExpertCard:
    """What an expert takes, answers and is worth. `arguments` maps each argument to the labels that it answers."""

    name: str
    version: str
    task: str
    summary: str
    modalities: tuple[str, ...]
    arguments: Mapping[str, tuple[str, ...]]
    accepts: str = ""
    performance: tuple[Performance, ...] = ()
    licence: str = "Apache-2.0"
    data: str = ""

    @property
    def labels(self) -> tuple[str, ...]:
        """All labels that some argument answers, in order."""
        return tuple(dict.fromkeys(label for labels in self.arguments.values() for label in labels))

    def asked(self, argument: str) -> tuple[str, ...]:
        """The labels of an argument; raises ExpertError naming the nearest one there is."""
        if argument in self.arguments:
            return self.arguments[argument]
        near = get_close_matches(argument, self.arguments, 1)
        raise ExpertError(
            f"{self.name} has no argument {argument!r}",
            f"one of {', '.join(self.arguments)}",
            f"Did you mean {near[0]!r}?" if near else "",
        )


Kind = Literal["presence", "side", "count", "size", "area", "class", "report"]
MEASURING: frozenset[str] = frozenset({"side", "count", "size", "area"})
"""The kinds of question that need a measurement."""


@dataclass(frozen=True)
class Question:
    """A question in words, with what it asks for: a label of the vocabulary and, for size and area, a measure."""

    kind: Kind
    text: str
    label: str = ""
    measure: str = ""


@dataclass(frozen=True)
class Reply:
    """An answer in words and as a value: bool, int, float in `unit`, a closed word, or the labels of a report."""

    text: str
    value: bool | int | float | str | frozenset[str]
    unit: str = ""


Role = Literal["system", "user", "assistant", "tool"]


@dataclass(frozen=True)
class Part:
    """A piece of a message: text, or the index of one of the record's images."""

    text: str = ""
    image: int | None = None


@dataclass(frozen=True)
class Message:
    role: Role
    parts: tuple[Part, ...]


@dataclass(frozen=True)
class Record:
    """One training conversation.

    `images` are keys of rendered pictures, in the order in which parts name them; `group` is the patient or
    place to split by; `kind` is the question's.
    """

    id: str
    group: str
    kind: str
    messages: tuple[Message, ...]
    images: tuple[str, ...] = ()

    def to_chat(self) -> list[dict[str, Any]]:
        """The layout of transformers' chat templates."""
        return [
            {
                "role": message.role,
                "content": [
                    {"type": "image"} if p.image is not None else {"type": "text", "text": p.text}
                    for p in message.parts
                ],
            }
            for message in self.messages
        ]


Support = Literal["expert", "model", "contradicted", "failed"]


@dataclass(frozen=True)
class Sentence:
    """A sentence and what stands behind it: indices into the answer's findings, or the model alone."""

    text: str
    support: Support
    evidence: tuple[int, ...] = ()


@dataclass(frozen=True, eq=False)
class Call:
    """One call of an expert: what it was asked, and its findings or the reason why there are none."""

    expert: str
    argument: str
    findings: tuple[Finding, ...] = ()
    failure: str = ""


@dataclass(frozen=True, eq=False)
class Answer:
    """What the model said, how sure it was (mean token probability in [0, 1]), and the evidence."""

    question: str
    text: str
    confidence: float
    sentences: tuple[Sentence, ...]
    calls: tuple[Call, ...] = ()

    @property
    def findings(self) -> tuple[Finding, ...]:
        """The findings of all calls, in order: what `Sentence.evidence` counts."""
        return tuple(finding for call in self.calls for finding in call.findings)


State = Literal["draft", "in review", "preliminary", "final", "amended", "entered in error"]


@dataclass(frozen=True, eq=False)
class Report:
    """A report of one study; what a model writes is a draft until a named person moves it on."""

    study: Study
    answers: tuple[Answer, ...]
    provenance: Mapping[str, str]
    state: State = "draft"
    reviewer: str = ""

    def __post_init__(self) -> None:
        if self.state != "draft" and not self.reviewer:
            raise InputError(
                f"state {self.state!r} without a reviewer", "a named person behind every state past 'draft'"
            )


@dataclass(frozen=True)
class View:
    """How to draw a study: a preset of the domain, the longest side in pixels, and one slice, or an overview."""

    preset: str = "default"
    size: int = 512
    slice: int | None = None
    image: int = 0


@dataclass(frozen=True)
class Panel:
    """Where one slice of one image stands in a picture: half-open rows and columns of the picture, and the
    (rows, columns) that the slice has in the image."""

    image: int
    slice: int
    rows: Span
    columns: Span
    shape: tuple[int, int]


@dataclass(frozen=True, eq=False)
class Picture:
    """A drawn study: uint8 (row, column, 3), and where its slices stand."""

    pixels: Bytes
    panels: tuple[Panel, ...]


@dataclass(frozen=True, eq=False)
class Strip:
    """A part of a classified raster: its half-open rows and columns, and for each pixel the class and how sure it is.

    `classes` uint8 (row, column): 0 is none of the labels, n the n-th label, `Strip.NODATA` no data; `confidence`
    float32 (row, column) in [0, 1], the probability of that class, NaN where there is no data.
    """

    NODATA: ClassVar[int] = 255

    rows: Span
    columns: Span
    classes: Bytes
    confidence: Floats


@dataclass(frozen=True)
class Term:
    """One label of a closed vocabulary: its code, synonyms, what is visible, and its colour in overlays."""

    label: str
    code: Code
    synonyms: tuple[str, ...] = ()
    descriptors: tuple[str, ...] = ()
    color: tuple[int, int, int] = (255, 255, 0)
    modalities: tuple[str, ...] = ()
