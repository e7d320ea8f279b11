"""Findings on disk: an expert looks at a study once, whoever asks."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from fovea.contracts import Expert
from fovea.errors import InputError
from fovea.jsonable import from_json, to_json
from fovea.types import Finding, Study


@dataclass(frozen=True)
class FindingsCache:
    """Findings in a folder by study, expert, version and argument.

    An entry is written whole or not at all, so that several processes may share the folder. An entry that cannot be
    read is made again. Failures are not kept.
    """

    folder: Path

    def run(
        self, expert: Expert, study: Study, argument: str, load: Callable[[], Study] | None = None
    ) -> tuple[Finding, ...]:
        """What the expert finds, from the folder or afresh; raises ExpertError as the expert does.

        `load` brings the study with its pixels where `study` is only its header; it is called when there is no entry.
        """
        found = self.read(expert, study.digest, argument)
        if found is None:
            found = expert.run(load() if load else study, argument)
            self.write(expert, study.digest, argument, found)
        return found

    def read(self, expert: Expert, digest: str, argument: str) -> tuple[Finding, ...] | None:
        """The entry, or None where there is none that can be read."""
        key = _key(expert, digest, argument)
        try:
            entry = json.loads(self._path(key).read_text())
            return tuple(from_json(Finding, item) for item in entry["findings"]) if entry["key"] == key else None
        except (OSError, ValueError, KeyError, TypeError, InputError):
            return None

    def write(self, expert: Expert, digest: str, argument: str, findings: Iterable[Finding]) -> None:
        """Make or replace an entry."""
        key = _key(expert, digest, argument)
        path = self._path(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        entry = json.dumps({"key": key, "findings": to_json(tuple(findings))}, separators=(",", ":"))
        with tempfile.NamedTemporaryFile("w", dir=path.parent, suffix=".part", delete=False) as part:
            part.write(entry)
        Path(part.name).replace(path)

    def _path(self, key: dict[str, Any]) -> Path:
        name = sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()
        return self.folder / name[:2] / f"{name}.json"


def _key(expert: Expert, digest: str, argument: str) -> dict[str, Any]:
    return {"study": digest, "expert": expert.card.name, "version": expert.card.version, "argument": argument}
