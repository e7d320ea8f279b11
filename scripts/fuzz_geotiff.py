"""Read mutants of small rasters and say what became of them: scripts/fuzz_geotiff.py [number] [seed] [folder of more].

Each mutant ends as an image or as an error of the InputError family, in less than two seconds of processor time and
with less than a gigabyte, both for this process and its children together; else the mutant is kept beside the temporary
folder and the exit status is 1.
"""

from __future__ import annotations

import os
import resource
import struct
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import psutil

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import mutations  # noqa: E402
from geotiff_files import seeds as written  # noqa: E402

from domains.formats.rasters import geotiff  # noqa: E402 # the folders above come first
from fovea.errors import InputError  # noqa: E402

SECONDS, BYTES = 2.0, 2**30
LIMIT = 2**27
"""Bytes as float32 that a mutant may ask for: with more, a gigabyte for all processes would say nothing."""
_WORDS = (0, 1, 2, 7, 0x7F, 0xFF, 0xFFFF, 0x7FFF, 0x10000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0xFFFFFFF0)


def mutate(data: bytes, rng: Random) -> bytes:
    """Damage of the kinds that any file may have, or one to three changes of a TIFF directory, or both."""
    changed = bytearray(data)
    if rng.random() < 0.6:
        for _ in range(rng.choice((1, 1, 2, 3))):
            _entry(changed, rng)
    return mutations.mutate(bytes(changed), rng) if changed == data or rng.random() < 0.1 else bytes(changed)


def _entry(data: bytearray, rng: Random) -> None:
    """A field of an entry of the first directory, two entries' values swapped, or the next directory's offset."""
    order = "<" if data[:2] == b"II" else ">"
    big = data[2:4] in (b"+\0", b"\0+")
    if data[:2] not in (b"II", b"MM") or len(data) < 16:
        return
    offset = struct.unpack_from(order + ("Q" if big else "I"), data, 8 if big else 4)[0]
    head, size = (8, 20) if big else (2, 12)
    if offset + head > len(data):
        return
    count = struct.unpack_from(order + ("Q" if big else "H"), data, offset)[0]
    entries = [offset + head + i * size for i in range(min(count, 64)) if offset + head + (i + 1) * size <= len(data)]
    if not entries:
        return
    at, value = rng.choice(entries), 12 if big else 8
    what = rng.choice(("tag", "type", "count", "value", "value", "swap", "next"))
    word = rng.choice((*_WORDS, rng.randrange(2**32), offset, len(data)))
    if what == "tag":
        struct.pack_into(order + "H", data, at, rng.choice((256, 257, 258, 259, 262, 277, 278, 322, 323, 324, 34735)))
    elif what == "type":
        struct.pack_into(order + "H", data, at + 2, rng.randrange(20))
    elif what == "swap":
        other = rng.choice(entries)
        one, two = data[at + value : at + size], data[other + value : other + size]
        data[at + value : at + size], data[other + value : other + size] = two, one
    elif what == "next" and entries[-1] + size + 4 <= len(data):
        struct.pack_into(order + "I", data, entries[-1] + size, word)
    else:
        struct.pack_into(order + "I", data, at + (4 if what == "count" else value), word)


@dataclass
class Outcome:
    """What became of the mutants: counts by kind, the slowest by processor and clock, and those that broke a rule."""

    counts: Counter[str] = field(default_factory=Counter)
    slowest: tuple[float, float] = 0.0, 0.0
    peak: int = 0
    broken: list[tuple[str, bytes]] = field(default_factory=list)


def fuzz(seeds: Sequence[bytes], number: int, seed: int, folder: Path) -> Outcome:
    """Read so many mutants, each by its header, as a whole and reduced."""
    rng, outcome = Random(seed), Outcome()
    for turn in range(number):
        data = mutate(rng.choice(seeds), rng)
        path = folder / f"mutant_{turn % 8}.tif"
        path.write_bytes(data)
        start, before = time.perf_counter(), _spent()
        try:
            image = geotiff.read(path, limit=LIMIT).images[0]
            _ = image.pixels
            rows, columns = image.grid.shape[1:]
            _ = image.window(shape=(-(-rows // 3), -(-columns // 3))).pixels
            kind = "read"
        except InputError as error:
            kind = "ended its process" if "ended its process" in str(error) else type(error).__name__
        except Exception as error:  # noqa: BLE001 # any other error is what is looked for
            kind = f"a foreign {type(error).__name__}"
            outcome.broken.append((kind, data))
        passed, spent = time.perf_counter() - start, _spent() - before
        outcome.counts[kind] += 1
        outcome.slowest = max(outcome.slowest[0], spent), max(outcome.slowest[1], passed)
        if spent > SECONDS or passed > 5 * SECONDS:
            outcome.broken.append((f"{spent:.1f} s of {passed:.1f} s, {kind}", data))
        if turn % 50 == 49 or turn == number - 1:
            outcome.peak = max(outcome.peak, _peak())
    return outcome


def _spent() -> float:
    """Seconds of processor time of this process and all children, ended ones too."""
    living = sum(sum(child.cpu_times()[:2]) for child in psutil.Process().children())
    return sum(os.times()[:4]) + living


def _peak() -> int:
    """The most bytes that this process has held, and the most that one of its children has."""
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    gone = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    return 1024 * (own + max([gone, *(_high_water(child.pid) for child in psutil.Process().children())]))


def _high_water(process: int) -> int:
    status = Path(f"/proc/{process}/status")
    if not status.exists():
        return 0
    return next((int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith("VmHWM")), 0)


def main(arguments: Sequence[str]) -> int:
    """Print the outcome as a table."""
    number, seed = int(arguments[0]) if arguments else 20_000, int(arguments[1]) if arguments[1:] else 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            files = [path.read_bytes() for path in written(folder)]
        for more in arguments[2:]:
            files += [p.read_bytes() for p in sorted(Path(more).rglob("*.tif")) if p.stat().st_size < 2**17]
        outcome = fuzz(files, number, seed, folder)
        for count, (what, data) in enumerate(outcome.broken):
            kept = Path(tempfile.gettempdir()) / f"mutant_{seed}_{count}.tif"
            kept.write_bytes(data)
            print(f"broken: {what}: {kept}")
    for kind, times in outcome.counts.most_common():
        print(f"{times:8d}  {kind}")
    spent, passed = outcome.slowest
    print(f"{len(files)} seeds, slowest {spent:.2f} s of processor and {passed:.2f} s by the clock,", end=" ")
    print(f"peak {outcome.peak / 2**20:.0f} MiB")
    return int(bool(outcome.broken) or outcome.peak > BYTES)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
