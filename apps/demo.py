"""The demo: both domains' models made side by side, examined, and put to work on held-out studies."""

from __future__ import annotations

import csv
import os
import shutil
import subprocess
import sys
import time
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path
from threading import Event, Thread
from typing import TYPE_CHECKING

import psutil
import typer

from fovea import registry
from fovea.errors import ConfigError, FoveaError

if TYPE_CHECKING:
    from curriculum.recipe import Recipe

DOMAINS = ("radiology", "remote_sensing")
_TAIL, _SAMPLES = 15, 6


class DemoError(FoveaError):
    """A part of the demo ended with an error: its last lines say why."""


@dataclass(frozen=True)
class Job:
    """A command with the name that its output is marked with."""

    name: str
    command: tuple[str, ...]


@dataclass
class Outcome:
    """How a job ended: its exit code, seconds, and last lines."""

    job: Job
    code: int = 0
    seconds: float = 0.0
    tail: deque[str] = field(default_factory=lambda: deque(maxlen=_TAIL))


def run_demo(configs: Path | None = None) -> None:
    """Train, examine and report in both domains at once, one thread each; what is complete is reused.

    `configs` holds a recipe a domain. Raises DemoError when a part fails.
    """
    from curriculum.recipe import Recipe
    from curriculum.tracking import ensure
    from fovea.config import load

    started = time.monotonic()
    folder = configs or _configs()
    files = {name: folder / f"{name}.yaml" for name in DOMAINS}
    recipes = {name: load(Recipe, file) for name, file in files.items()}
    runs = {name: recipe.out for name, recipe in recipes.items()}
    with Peak() as peak:
        for recipe in recipes.values():
            ensure(recipe)
        run_jobs([_fovea(name, "train", str(file), "--resume") for name, file in files.items()])
        for name, out in runs.items():
            typer.echo(f"\n{name}: right answers on held-out studies in percent, with 95 % interval")
            print_evaluation(out / "evaluation.csv")
            copy_samples(recipes[name], out / "samples")
        typer.echo()
        run_jobs([_fovea(name, *_report(out)) for name, out in runs.items()])
    typer.echo(f"\n{time.monotonic() - started:.0f} s, at most {peak.bytes / 2**30:.1f} GiB\n\nTo look at:")
    for out in runs.values():
        typer.echo(f"  {out / 'reports' / 'index.html'}")
    typer.echo(f"  fovea app --demo {next(iter(runs.values())).parent}")


def _report(out: Path) -> tuple[str, ...]:
    return "report", str(out), str(out / "samples"), "--out", str(out / "reports")


def copy_samples(recipe: Recipe, folder: Path, n: int = _SAMPLES) -> None:
    """Put a few held-out studies of a finished run where the viewer finds them, all modalities in turn."""
    from curriculum.data.corpus import prepare

    held_out = prepare(recipe, registry.domain(recipe.domain)).split("test")
    groups = [[item for item in held_out if item.modality == m] for m in sorted({i.modality for i in held_out})]
    mixed = [item for row in zip_longest(*groups) for item in row if item is not None]
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for position, item in enumerate(mixed[:n], start=1):
        source = Path(item.path)
        target = folder / f"study{position:02}{source.suffix}"
        if source.is_dir():
            shutil.copytree(source, target)
        else:
            shutil.copyfile(source, target)


def run_jobs(jobs: Sequence[Job], environment: Mapping[str, str] | None = None) -> list[Outcome]:
    """Run commands side by side and show their output line by line, each marked with its job's name.

    Each gets one thread. When all have ended, raises DemoError if one failed; stops them when interrupted.
    """
    settings = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "MKL_NUM_THREADS": "1",
        "PYTHONUNBUFFERED": "1",
        **(environment or {}),
    }
    width = max(len(job.name) for job in jobs)
    children = [
        subprocess.Popen(  # noqa: S603  our own commands
            job.command, env=settings, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
        )
        for job in jobs
    ]
    outcomes = [Outcome(job) for job in jobs]
    readers = [
        Thread(target=_follow, args=(child, outcome, width), daemon=True)
        for child, outcome in zip(children, outcomes, strict=True)
    ]
    try:
        for reader in readers:
            reader.start()
        for reader in readers:
            reader.join()
    finally:
        for child in children:
            if child.poll() is None:
                child.terminate()
            child.wait()
    failed = [outcome for outcome in outcomes if outcome.code]
    for outcome in failed:
        typer.echo(f"\n{outcome.job.name} ended with exit code {outcome.code}; its last lines:", err=True)
        for line in outcome.tail:
            typer.echo(f"  {line}", err=True)
    if failed:
        raise DemoError(
            f"{' and '.join(outcome.job.name for outcome in failed)} failed", remedy="See the last lines above."
        )
    return outcomes


def _follow(child: subprocess.Popen[str], outcome: Outcome, width: int) -> None:
    started = time.monotonic()
    with child:  # closes the pipe and waits
        for line in child.stdout or ():
            text = line.rstrip()
            if text:
                outcome.tail.append(text)
                typer.echo(f"{outcome.job.name:{width}} | {text}")
    outcome.code = child.returncode
    outcome.seconds = time.monotonic() - started


class Peak:
    """The largest resident memory of this process and all its children while the block runs, in bytes."""

    def __init__(self, every: float = 0.5) -> None:
        self.bytes = 0
        self._every, self._stop = every, Event()
        self._thread = Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Peak:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        own = psutil.Process()
        while True:
            total = 0
            for process in (own, *own.children(recursive=True)):
                with suppress(psutil.Error):
                    total += process.memory_info().rss
            self.bytes = max(self.bytes, total)
            if self._stop.wait(self._every):
                return


def print_evaluation(path: Path) -> None:
    """An evaluation as a table: a row an arm, a column a kind of question, the n of each kind in the head."""
    from rich.console import Console
    from rich.table import Table

    if not path.exists():
        raise DemoError(f"there is no {path.name}", "an evaluation after the training")
    with path.open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    kinds = list(dict.fromkeys(row["kind"] for row in rows))
    kinds.sort(
        key=lambda kind: ("measuring", "other", "all").index(kind) if kind in ("measuring", "other", "all") else 9
    )
    counts = {row["kind"]: row["n"] for row in rows}
    table = Table("stage", "arm", *(f"{kind}\nn {counts[kind]}" for kind in kinds), box=None, padding=(0, 2, 0, 0))
    for stage, arm in dict.fromkeys((row["stage"], row["arm"]) for row in rows):
        cells = {row["kind"]: row for row in rows if (row["stage"], row["arm"]) == (stage, arm)}
        table.add_row(stage, arm, *(_cell(cells.get(kind)) for kind in kinds))
    Console(width=None if sys.stdout.isatty() else 200, markup=False, highlight=False).print(table)


def _cell(row: Mapping[str, str] | None) -> str:
    if row is None:
        return ""
    return f"{100 * float(row['accuracy']):.0f} [{100 * float(row['low']):.0f}, {100 * float(row['high']):.0f}]"


def _fovea(name: str, *arguments: str) -> Job:
    return Job(name, (sys.executable, "-m", "apps.cli", *arguments))


def _configs() -> Path:
    """The recipes beside the working folder, or beside the code."""
    places = (Path("configs"), Path(__file__).parents[1] / "configs")
    for place in places:
        if all((place / f"{name}.yaml").is_file() for name in DOMAINS):
            return place
    raise ConfigError("no folder configs with the demo's recipes", "the repository as working folder", "Run it there.")
