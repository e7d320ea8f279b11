"""Read damaged DICOM files: scripts/fuzz_dicom.py [N] [SEED] [FOLDER of more seeds].

Prints how many were read and refused, the slowest file and the largest memory of all processes together; exits with 1
when an error of another family came out, a file took longer than 2 s, or more than 1 GiB was held.
"""

from __future__ import annotations

import resource
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from random import Random

import psutil

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from dicom_files import seeds
from mutations import mutate

from domains.formats import dicom
from fovea.errors import InputError

SECONDS, BYTES = 2.0, 2**30
_SEED_BYTES = 200_000


def main(count: int, seed: int, more: Path | None) -> int:
    resource.setrlimit(resource.RLIMIT_DATA, (2 * BYTES, resource.RLIM_INFINITY))  # what asks for more is found out
    random = Random(seed)
    with tempfile.TemporaryDirectory() as folder:
        originals = seeds(Path(folder))
        if more:
            found = (p.read_bytes() for p in sorted(more.rglob("*")) if p.is_file() and p.stat().st_size < _SEED_BYTES)
            originals += [data for data in found if data[128:132] == b"DICM"]
        path = Path(folder, "mutant")
        outcomes: Counter[str] = Counter()
        slowest, largest, wrong = 0.0, 0, 0
        for number in range(count):
            path.write_bytes(mutate(random.choice(originals), random, originals, 132 if random.random() < 0.9 else 0))
            started = time.perf_counter()
            try:
                outcomes[_outcome(path)] += 1
            except Exception as error:  # noqa: BLE001 # what must not happen is counted
                wrong += 1
                outcomes[f"WRONG {type(error).__name__}"] += 1
                Path(f"fuzz_{seed}_{number}.dcm").write_bytes(path.read_bytes())
            took = time.perf_counter() - started
            if took > SECONDS:
                Path(f"slow_{seed}_{number}.dcm").write_bytes(path.read_bytes())
            slowest = max(slowest, took)
            if number % 20 == 0:
                largest = max(largest, _memory())
        print(f"{count} files from {len(originals)} seeds: {dict(outcomes.most_common())}")
        print(f"slowest {slowest:.2f} s, memory of all processes at most {largest / 2**20:.0f} MiB")
    return int(wrong > 0 or slowest > SECONDS or largest > BYTES)


def _outcome(path: Path) -> str:
    try:
        dicom.is_dicom(path)
        for image in dicom.read([path]).images:
            _ = image.pixels
    except InputError as error:
        return type(error).__name__
    return "read"


def _memory() -> int:
    """Peak memory where the system keeps it, of this process and its children."""
    me = psutil.Process()
    return sum(_peak(process) for process in (me, *me.children(recursive=True)))


def _peak(process: psutil.Process) -> int:
    try:
        for line in Path(f"/proc/{process.pid}/status").read_text().splitlines():
            if line.startswith("VmHWM"):
                return int(line.split()[1]) * 1024
        return int(process.memory_info().rss)
    except (OSError, psutil.Error):
        return 0


if __name__ == "__main__":
    given = sys.argv[1:]
    sys.exit(
        main(
            int(given[0]) if given else 50_000,
            int(given[1]) if len(given) > 1 else 0,
            Path(given[2]) if len(given) > 2 else None,
        )
    )
