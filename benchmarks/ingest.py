"""Reading against its peers, as ratios of one run: python -m benchmarks.ingest [volumes] [chips] [stream].

Takes the packages of the extra "benchmarks". Every pair reads the same files in turns, checks that the values are
equal and keeps the best of several rounds; the ratio is the peer's time over ours.
"""

from __future__ import annotations

import subprocess
import sys

from benchmarks import rasters, volumes


def main(chosen: list[str]) -> None:
    print(f"{'':86}{'ours':>10}{'peer':>10}{'ratio':>8}")
    for part, compare in {"volumes": volumes.compare, "chips": rasters.compare}.items():
        for name, ours, peer in compare() if not chosen or part in chosen else ():
            print(f"{name:86}{1000 * ours:>7.0f} ms{1000 * peer:>7.0f} ms{peer / ours:>7.1f}×", flush=True)
    if not chosen or "stream" in chosen:  # in a process that holds nothing yet
        subprocess.run([sys.executable, "-m", "benchmarks.rasters", "stream"], check=True)


if __name__ == "__main__":
    main(sys.argv[1:])
