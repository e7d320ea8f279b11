"""Compares every file of a folder with what the reference readers make of it, and prints a table a format.

    python benchmarks/agreement.py FOLDER [--json FILE]

Each file is read in a child process, since reference readers may hang or die of broken files. Exit code 1 where a value
or a place differs. Needs SimpleITK beside the package.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

_SECONDS = 60.0
_VERDICTS = ("agree", "same library", "split", "differ", "gap", "alone", "not compared", "refused", "died")
_WORDS = {
    "agree": "read, and equal to every reference that reads it, one of which decodes with another library than we do",
    "same library": "read, and equal to the library that we decode with, which is no independent witness",
    "split": "read, equal to one reference and unlike the other",
    "differ": "read, and unlike every reference that reads it",
    "gap": "refused, though a reference reads pixels",
    "alone": "read by us alone",
    "not compared": "read, and laid out otherwise by the only reference",
    "refused": "refused, as by every reference",
    "died": "ended the process that read it, or took more than a minute",
}


def verdict(row: dict[str, Any]) -> str:
    """One of the words above for a row of `references.compare`."""
    if row["ours"] == "died":
        return "died"
    said = {name: text for name, text in row["references"].items() if not text.startswith("cannot read")}
    if row["ours"] != "read":
        return "gap" if said else "refused"
    if not said:
        return "alone"
    equal = {name for name, text in said.items() if not text.startswith(("differs", "not compared"))}
    if any(text.startswith("differs") for text in said.values()):
        return "split" if equal else "differ"
    if not equal:
        return "not compared"
    return "agree" if equal - {row["library"]} else "same library"


def compared(files: Iterable[Path]) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Each file with its row; one whose reading ends the child, or takes too long, gets a row that says so."""
    child = _Child()
    for path in files:
        row = child.ask(path)
        if row is None:
            child.end()
            child = _Child()
            row = {"format": "unknown", "ours": "died", "library": "", "references": {}}
        yield path, row
    child.end()


class _Child:
    def __init__(self) -> None:
        context = get_context("spawn")
        self._ours, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs,), daemon=True)
        self._process.start()
        theirs.close()

    def ask(self, path: Path) -> dict[str, Any] | None:
        """The row of a file, or None where the child did not answer."""
        try:
            self._ours.send(str(path))
            return json.loads(self._ours.recv()) if self._ours.poll(_SECONDS) else None  # type: ignore[no-any-return]
        except (EOFError, OSError):
            return None

    def end(self) -> None:
        self._ours.close()
        self._process.kill()
        self._process.join()


def _serve(connection: Connection) -> None:
    from benchmarks.references import compare

    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    while True:
        try:
            path = connection.recv()
        except EOFError:
            return
        connection.send(json.dumps(compare(Path(path))))


def table(rows: Iterable[dict[str, Any]]) -> str:
    """A line a format with the number of files of each verdict."""
    counts: dict[str, Counter[str]] = {}
    for row in rows:
        counts.setdefault(row["format"], Counter())[verdict(row)] += 1
    lines = [f"{'format':24}{'files':>7}" + "".join(f"{name:>14}" for name in _VERDICTS)]
    for name, found in sorted(counts.items()):
        lines.append(f"{name:24}{found.total():7}" + "".join(f"{found[word]:14}" for word in _VERDICTS))
    return "\n".join([*lines, "", *(f"{name}: {word}" for name, word in _WORDS.items())])


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Compare what we read with reference readers.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--json", type=Path, help="also write one row a file here")
    options = parser.parse_args(arguments)
    files = sorted(path for path in options.folder.rglob("*") if path.is_file())
    rows = []
    for path, row in compared(files):
        row["path"] = str(path.relative_to(options.folder))
        rows.append(row)
        word = verdict(row)
        if word in ("differ", "split", "gap", "died"):
            why = (
                row["ours"] if word in ("gap", "died") else "; ".join(f"{k} {v}" for k, v in row["references"].items())
            )
            print(f"{word:8}{row['path']}: {why}", flush=True)
    print(f"\n{table(rows)}")
    if options.json:
        options.json.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return int(any(verdict(row) == "differ" for row in rows))


if __name__ == "__main__":
    sys.exit(main())
