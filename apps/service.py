"""The one object that command line, viewer and batch call: it opens a model once, loads studies, asks and reports."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from threading import Lock
from typing import Any, Protocol

from fovea import registry
from fovea.contracts import Domain, Expert
from fovea.errors import FoveaError, InputError, UnsupportedError
from fovea.types import Answer, Report, Study


class Assistant(Protocol):
    """What is needed of a trained model with its experts; `curriculum.assistant.Assistant` is one."""

    @property
    def domain(self) -> Domain: ...

    @property
    def experts(self) -> tuple[Expert, ...]: ...

    @property
    def provenance(self) -> Mapping[str, str]:
        """Names, versions and digests of all that answers; equal for equal models."""
        ...

    @property
    def model_items(self) -> Sequence[Mapping[str, Any]]:
        """STAC items of the experts that can be described."""
        ...

    def ask(self, study: Study, question: str, use_experts: bool = True) -> Answer: ...

    def report(self, study: Study) -> Report: ...


def open_assistant(reference: str) -> Assistant:
    """The model of a run folder, a stage folder or "models:/name@alias"; raises ModelError."""
    from curriculum.assistant import Assistant as Trained

    return Trained.open(reference)


@dataclass(frozen=True, eq=False)
class Service:
    """A model of one domain, opened at its first use and asked by one caller at a time."""

    domain: Domain
    opener: Callable[[], Assistant]
    _lock: Lock = field(default_factory=Lock, repr=False)

    @classmethod
    def open(cls, reference: str) -> Service:
        """Open a model now; its domain is the service's. Raises ModelError."""
        assistant = open_assistant(reference)
        return cls(assistant.domain, lambda: assistant)

    @cached_property
    def assistant(self) -> Assistant:
        """The model with its experts; the first use reads the weights."""
        return self.opener()

    @property
    def provenance(self) -> Mapping[str, str]:
        return self.assistant.provenance

    def load(self, files: Sequence[Path]) -> Study:
        """One study from its files; raises InputError."""
        return self.domain.load(files)

    def load_one(self, path: Path) -> Study:
        """The study that a file or folder holds; raises InputError where it holds none, or several."""
        studies = [item for item in find_studies([path], (self.domain,)).items if item.domain]
        if not studies:
            raise UnsupportedError(
                f"input that {self.domain.name} does not recognise",
                f"a file or series of {self.domain.name}",
                "`fovea inspect FILE` says what it is.",
            )
        if len(studies) > 1:
            raise InputError(f"a folder of {len(studies)} studies", "one study", "Name the files of one of them.")
        return self.load(studies[0].files)

    def ask(self, study: Study, question: str, use_experts: bool = True) -> Answer:
        """The answer with its evidence."""
        with self._lock:
            return self.assistant.ask(study, question, use_experts)

    def report(self, study: Study) -> Report:
        """The draft report of a study."""
        with self._lock:
            return self.assistant.report(study)


@dataclass(frozen=True)
class Item:
    """Files that are read as one, and the domain that recognises them; without one they are a file nobody reads."""

    files: tuple[Path, ...]
    domain: str = ""


@dataclass(frozen=True)
class Inputs:
    """What was found under the given paths: in order, each file at most once; plain text files are left out."""

    items: tuple[Item, ...]
    left_out: tuple[Path, ...]


def find_studies(paths: Sequence[Path], domains: Iterable[Domain]) -> Inputs:
    """Files, folders and series as studies; a file that several domains recognise goes to the first of them.

    A binary file that no domain recognises is an item without a domain, so that it cannot be overlooked.
    Raises InputError for a path that does not exist.
    """
    missing = sum(not path.exists() for path in paths)
    if missing:
        raise InputError(f"{missing} of {len(paths)} paths do not exist", "files or folders", "Check the spelling.")
    specialties = tuple(domains)
    items: list[Item] = []
    left_out: list[Path] = []
    claimed: set[Path] = set()
    for root, wanted in _roots(paths):
        for domain in specialties:
            for group in domain.studies(root):
                files = tuple(file for file in group if file in wanted and file not in claimed)
                if files:
                    items.append(Item(files, domain.name))
                    claimed.update(files)
        for file in sorted(wanted - claimed):
            claimed.add(file)
            if _is_text(file):
                left_out.append(file)
            else:
                items.append(Item((file,)))
    return Inputs(tuple(items), tuple(left_out))


def _roots(paths: Sequence[Path]) -> list[tuple[Path, set[Path]]]:
    """Where to look and which files there were asked for: files named one by one may be a series of their folder."""
    folders = [(path, _files(path)) for path in paths if path.is_dir()]
    named: dict[Path, set[Path]] = {}
    for path in paths:
        if path.is_file():
            named.setdefault(path.parent, set()).add(path)
    single = [(next(iter(files)) if len(files) == 1 else folder, files) for folder, files in named.items()]
    return folders + single


def _files(folder: Path) -> set[Path]:
    """All files below that are not hidden."""
    return {
        path
        for path in folder.rglob("*")
        if path.is_file() and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    }


def _is_text(path: Path) -> bool:
    """Whether the first bytes are UTF-8 without NUL; a file that cannot be read is no text."""
    try:
        with path.open("rb") as stream:
            head = stream.read(4096)
    except OSError:
        return False
    try:
        head.decode()
    except UnicodeDecodeError as error:
        return error.reason == "unexpected end of data" and b"\0" not in head
    return b"\0" not in head


def installed_domains() -> dict[str, Domain]:
    """All domains whose packages are there, by name."""
    return {name: plugin.value() for name, plugin in registry.plugins("fovea.domains").items() if not plugin.lacks}


def in_words(error: FoveaError) -> dict[str, str]:
    """A failure for a reader: what happened and what to do."""
    happened = error.given.rstrip(".") + (f"; expected {error.expected}" if error.expected else "")
    return {"happened": happened[:1].upper() + happened[1:] + ".", "remedy": error.remedy or _REMEDY}


_REMEDY = "Leave this input out, or mend it and run again."
