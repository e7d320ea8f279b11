"""Many studies to reports: each on its own, written whole or not at all, and done only once."""

from __future__ import annotations

import json
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from apps.outputs import drop_outputs, keep_outputs, kept_outputs, writer_of
from apps.report.document import SCHEMA, from_document, report_key, to_document, to_text
from apps.report.html import index_page, study_page
from apps.service import Inputs, Item, Service, in_words
from fovea.errors import FoveaError, InputError, UnsupportedError
from fovea.files import whole
from fovea.types import Study

INDEX = "index"
NO_REPORT, NO_FILES = "No report was written.", "The report is there; no file for other systems was written."


@dataclass(frozen=True)
class Done:
    """A report that is there: its study, and whether an earlier run had made it."""

    number: int
    id: str
    reused: bool


@dataclass(frozen=True)
class Failure:
    """An input without what was wanted: its number in the list, the start of its files' hash, and a reason in words."""

    number: int
    digest: str
    happened: str
    remedy: str
    missing: str = NO_REPORT


Outcome = Done | Failure


@dataclass(frozen=True)
class Batch:
    """What a run left: reports and failures in the order of the input."""

    done: tuple[Done, ...]
    failures: tuple[Failure, ...]
    index: Path


def write_reports(
    service: Service,
    inputs: Inputs,
    out: Path,
    notify: Callable[[Item, Outcome], None] = lambda _item, _outcome: None,
    outputs: Sequence[str] | None = None,
) -> Batch:
    """One HTML and one JSON file a study, named by its id, and an index with failures first.

    With `outputs`, a folder of that name holds the files of those outputs of the domain's `Writer`, () for all that a
    study and its findings allow. A study whose report is there, made by the same model and templates, is skipped. A
    failure stops only its own study. Raises InputError when `out` cannot be written, UnsupportedError for an output
    that the domain does not have.
    """
    if outputs is not None:
        writer_of(service.domain, outputs)
    _make(out)
    done: list[Done] = []
    failures: list[Failure] = []
    for number, item in enumerate(inputs.items, start=1):
        outcome = _attempt(service, item, number, out, outputs)
        (done if isinstance(outcome, Done) else failures).append(outcome)  # type: ignore[arg-type]
        notify(item, outcome)
    rows = sorted(_summaries(out), key=lambda row: (-row["doubts"], row["title"], row["id"]))
    listing = {"failures": [asdict(failure) for failure in failures], "reports": rows, "left_out": len(inputs.left_out)}
    write(out / f"{INDEX}.json", json.dumps({"schema": SCHEMA} | listing, ensure_ascii=False, indent=1))
    written = any(row["files"] or row["refused"] for row in rows)
    partly = " or without its files" if any(failure.missing == NO_FILES for failure in failures) else ""
    write(out / f"{INDEX}.html", index_page({**listing, "written": written, "partly": partly}))
    return Batch(tuple(done), tuple(failures), out / f"{INDEX}.html")


def write(path: Path, text: str) -> None:
    """Write a file so that a reader sees the old one or the new one, never a part."""
    with whole(path) as partial:
        partial.write_text(text, encoding="utf-8")


def _attempt(service: Service, item: Item, number: int, out: Path, outputs: Sequence[str] | None) -> Outcome:
    missing = NO_REPORT
    try:
        study, document, reused = _report(service, item, out)
        missing = NO_FILES
        if outputs is not None:
            report = from_document(study, document)  # the same whether it was made now or before
            models = service.assistant.model_items
            keep_outputs(service.domain, report, item.files, out / study.id, outputs, document["key"], models)
    except FoveaError as error:
        return Failure(number, _digest(item.files), **in_words(error), missing=missing)
    except OSError as error:
        text = f"The files could not be read or the report not written ({type(error).__name__})."
        return Failure(number, _digest(item.files), text, "Check permissions and free space, and run again.", missing)
    except Exception as error:  # noqa: BLE001  one study must not stop the others; the text tells no content
        text = f"An unforeseen fault stopped this study ({type(error).__name__} at {_place(error)})."
        return Failure(number, _digest(item.files), text, "Report this fault with the text of this line.", missing)
    return Done(number, study.id, reused)


def _report(service: Service, item: Item, out: Path) -> tuple[Study, dict[str, Any], bool]:
    """The study, its report as data, and whether that was there."""
    if item.domain != service.domain.name:
        raise _foreign(item, service.domain.name)
    study = service.load(item.files)
    key = report_key(study, service.provenance)
    page, data = out / f"{study.id}.html", out / f"{study.id}.json"
    stored = _stored(data)
    if page.exists() and stored.get("key") == key:
        return study, stored, True
    report = service.report(study)
    html, document = study_page(service.domain, report), to_document(service.domain, report, key)
    drop_outputs(out / study.id)
    write(page, html)
    write(data, to_text(document))
    return study, document, False


def _foreign(item: Item, domain: str) -> UnsupportedError:
    """Why a model of a domain does not read an item; a picture is of no domain by its looks alone."""
    from domains.formats.picture import is_picture

    if any(map(is_picture, item.files)):
        return UnsupportedError(
            f"a picture that does not tell what it shows, and does not look like one of {domain}",
            remedy=f"If it is one of {domain}, name its file alone; else leave it out.",
        )
    if not item.domain:
        return UnsupportedError(
            "a file that no domain recognises by its content", remedy="Leave it out, or convert it to a known format."
        )
    return UnsupportedError(
        f"a study of {item.domain}, while this model reads {domain}", remedy=f"Use a model of {item.domain} for it."
    )


def _stored(path: Path) -> dict[str, Any]:
    """The document of an earlier run; empty where there is none that can be read."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return document if isinstance(document, dict) and document.get("schema") == SCHEMA else {}


def _summaries(out: Path) -> Iterator[dict[str, Any]]:
    for path in sorted(out.glob("*.json")):
        document = _stored(path)
        if path.stem != INDEX and document:
            told = kept_outputs(out / path.stem, document["key"])
            files = {"files": list(told.files), "refused": dict(told.refused)}
            yield {"id": document["study"]["id"], **document["summary"], **files}


def _make(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
        write(out / ".writable", "")
        (out / ".writable").unlink()
    except OSError as error:
        raise InputError(
            f"the output folder cannot be written ({error.strerror})",
            "a folder with write permission",
            "Choose another --out.",
        ) from error


def _digest(files: Sequence[Path]) -> str:
    """The start of the SHA-256 of the files' bytes; of what can be read."""
    total = sha256()
    for file in files:
        try:
            with file.open("rb") as stream:
                while chunk := stream.read(1 << 20):
                    total.update(chunk)
        except OSError:
            total.update(b"unreadable")
    return total.hexdigest()[:12]


def _place(error: Exception) -> str:
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"{Path(frame.filename).name}:{frame.lineno}"
