"""Files for other systems beside a report: a folder a study, replaced as a whole, and written only once."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo

from apps.service import in_words
from apps.wording import state_line
from fovea import __version__
from fovea.contracts import Domain, Writer
from fovea.errors import FoveaError, GeometryError, InputError, UnsupportedError
from fovea.files import whole
from fovea.types import Report

SCHEMA = "fovea.outputs/1"
LEDGER = "outputs.json"
"""Which files a folder holds, of which report, and what could not be written; it comes with them or not at all."""
_DAY = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True)
class Outputs:
    """Files by their names in the folder, and the reason for each output that the study does not allow."""

    files: tuple[str, ...]
    refused: Mapping[str, str]


def named(option: str) -> tuple[str, ...] | None:
    """What `--write` says: None for nothing, () for "all", else the names."""
    return None if not option else () if option == "all" else tuple(name.strip() for name in option.split(","))


def writer_of(domain: Domain, names: Sequence[str]) -> Writer:
    """The domain as a writer of those outputs; raises UnsupportedError where it is none, or has no such output."""
    writer: Any = domain
    if not isinstance(writer, Writer):
        raise UnsupportedError(f"{domain.name} writes no files for other systems", remedy="Leave out --write.")
    unknown = [name for name in names if name not in writer.outputs]
    if unknown:
        raise UnsupportedError(f"output {unknown[0]!r}", f"one of {', '.join(writer.outputs)}, or all")
    return writer


def write_outputs(
    domain: Domain,
    report: Report,
    source: Sequence[Path],
    folder: Path,
    names: Sequence[str] = (),
    models: Sequence[Mapping[str, Any]] = (),
) -> Outputs:
    """Write the named outputs, or all and say which could not be; raises UnsupportedError where a named one cannot.

    `models` are the STAC items of the experts, where there are some.
    """
    writer, refused = writer_of(domain, names), {}
    if not names:
        for name in writer.outputs:
            try:
                writer.write(report, source, folder, (name,))
            except (UnsupportedError, GeometryError) as error:
                refused[name] = in_words(error)["happened"]
        names = [name for name in writer.outputs if name not in refused]
    # together at last: some describe the others
    paths = writer.write(report, source, folder, names, models) if names else ()
    return Outputs(tuple(sorted(path.relative_to(folder).as_posix() for path in paths)), refused)


def keep_outputs(
    domain: Domain,
    report: Report,
    source: Sequence[Path],
    folder: Path,
    names: Sequence[str],
    report_key: str,
    models: Sequence[Mapping[str, Any]] = (),
) -> Outputs:
    """Make `folder` hold the outputs of this report and nothing else; where it does, nothing is written.

    What is unfinished lies in a hidden folder beside it, and is gone on with. Raises as `write_outputs`.
    """
    parts = [report_key, report.state, report.reviewer, json.dumps(list(names)), __version__]
    key = sha256("\n".join(parts).encode()).hexdigest()
    ledger = _ledger(folder)
    if folder.exists() and not ledger:
        raise InputError("a folder of other files where outputs go", "none", "Move it, or choose another --out.")
    if ledger.get("key") == key and all(_digest(folder / name) == told for name, told in ledger["files"].items()):
        return Outputs(tuple(ledger["files"]), ledger["refused"])
    partial = folder.with_name(f".{folder.name}.{key[:12]}.part")
    _clear(folder, keeping=partial)
    partial.mkdir(exist_ok=True)
    try:
        outputs = write_outputs(domain, report, source, partial, names, models)
    except FoveaError:
        _clear(folder)
        raise
    for path in [path for path in partial.rglob("*") if path.is_file()]:
        if path.relative_to(partial).as_posix() not in outputs.files:
            path.unlink()  # left by a process that was killed
    files = {name: _digest(partial / name) for name in outputs.files}
    told = {"schema": SCHEMA, "key": key, "report": report_key, "notice": state_line(report), "state": report.state,
            "files": files, "refused": outputs.refused}  # fmt: skip
    with whole(partial / LEDGER) as ledger_file:
        ledger_file.write_text(json.dumps(told, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    if folder.exists():
        folder.rename(folder.with_name(f".{folder.name}.old.part"))
    partial.rename(folder)
    _clear(folder)
    return outputs


def drop_outputs(folder: Path) -> None:
    """Remove the outputs of a report that is written anew, unfinished ones too."""
    if _ledger(folder):
        shutil.rmtree(folder)
    _clear(folder)


def kept_outputs(folder: Path, report_key: str) -> Outputs:
    """What a folder holds of a report; nothing where it is another report's."""
    ledger = _ledger(folder)
    if ledger.get("report") != report_key:
        return Outputs((), {})
    return Outputs(tuple(ledger["files"]), ledger["refused"])


def archive(
    domain: Domain,
    report: Report,
    source: Sequence[Path],
    names: Sequence[str],
    models: Sequence[Mapping[str, Any]] = (),
) -> tuple[bytes, Outputs]:
    """The outputs as a ZIP, the same bytes every time; raises as `write_outputs`."""
    memory = BytesIO()
    with TemporaryDirectory(prefix="fovea-") as place:
        outputs = write_outputs(domain, report, source, Path(place), names, models)
        with ZipFile(memory, "w") as whole:
            for name in outputs.files:
                whole.writestr(ZipInfo(name, _DAY), (Path(place) / name).read_bytes(), ZIP_DEFLATED)
    return memory.getvalue(), outputs


def _ledger(folder: Path) -> dict[str, Any]:
    """What `keep_outputs` noted; empty where there is nothing that can be read."""
    try:
        ledger = json.loads((folder / LEDGER).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    whole = isinstance(ledger, dict) and ledger.get("schema") == SCHEMA
    return ledger if whole and all(isinstance(ledger.get(name), dict) for name in ("files", "refused")) else {}


def _digest(path: Path) -> str:
    try:
        with path.open("rb") as stream:
            total = sha256()
            while chunk := stream.read(1 << 20):
                total.update(chunk)
    except OSError:
        return ""
    return total.hexdigest()


def _clear(folder: Path, keeping: Path | None = None) -> None:
    """Remove what earlier processes left beside a folder."""
    for path in folder.parent.glob(f".{folder.name}.*.part"):
        if path != keeping and path.is_dir():
            shutil.rmtree(path)
