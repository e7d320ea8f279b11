"""What one visitor of the viewer has open: the runs to choose from, the study, and what was said about it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp
from typing import Protocol
from weakref import finalize

from apps import wording
from apps.outputs import Outputs
from apps.service import Item, Service, find_studies, installed_domains, open_assistant
from fovea.types import Answer, Report, Study

_SUFFIX = re.compile(r"(\.nii)?\.[A-Za-z0-9]{1,5}$")


@dataclass(frozen=True, eq=False)
class Run:
    """A domain's trained model, opened when first asked, and the folder of its sample studies."""

    service: Service
    samples: Path


def open_runs(demo: Path) -> dict[str, Run]:
    """The runs in a demo folder, one a domain; loads no model."""

    def run(name: str, folder: Path) -> Run:
        return Run(Service(domains[name], lambda: open_assistant(str(folder))), folder / "samples")

    domains = installed_domains()
    return {name: run(name, demo / name) for name in domains if (demo / name).is_dir()}


@dataclass(eq=False)
class Session:
    """The open study with all answers so far."""

    item: Item
    study: Study
    exchanges: list[Answer] = field(default_factory=list)
    report: Report | None = None
    files: tuple[tuple[str, ...], bytes, Outputs] | None = None
    """What was asked of the writer, the ZIP of its outputs, and what they are."""

    @property
    def claims(self) -> list[wording.Claim]:
        """Every finding that an expert has given, in the report or in an answer."""
        return wording.claims([*(self.report.answers if self.report else ()), *self.exchanges])


class Upload(Protocol):
    """A file as Streamlit hands it over."""

    name: str

    def getvalue(self) -> bytes: ...


class Uploads:
    """Files of a visitor, kept under neutral names until the session ends, and recognised by content."""

    def __init__(self) -> None:
        self.items: tuple[Item, ...] = ()
        self.folder = Path(mkdtemp(prefix="fovea-"))
        self._key = ""
        finalize(self, rmtree, self.folder, ignore_errors=True)

    def take(self, files: Sequence[Upload], runs: Mapping[str, Run]) -> None:
        """Replace the files by these; each domain of the runs is asked what it recognises."""
        contents = [(file.getvalue(), _SUFFIX.search(file.name)) for file in files]
        key = sha256(b"".join(sha256(data).digest() for data, _ in contents)).hexdigest()
        if key == self._key:
            return
        self._key, self.items = key, ()
        rmtree(self.folder, ignore_errors=True)
        batch = self.folder / key[:12]
        batch.mkdir(parents=True)
        for position, (data, suffix) in enumerate(contents):
            (batch / f"{position:04}{suffix[0].lower() if suffix else ''}").write_bytes(data)
        found = find_studies([batch], [run.service.domain for run in runs.values()])
        self.items = (*found.items, *(Item((path,)) for path in found.left_out))
