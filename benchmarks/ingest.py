"""Reading against its peers, as ratios of one run: python -m benchmarks.ingest [volumes] [rasters] [scene].

Takes the packages of the extra "benchmarks". Every pair reads the same files in turns, checks that the values are
equal and keeps the best of several rounds; the ratio is the peer's time over ours.
"""

from __future__ import annotations

import os
import sys

os.environ.setdefault("OMP_NUM_THREADS", "1")


def main(chosen: list[str]) -> None:
    print(f"{'':66}{'ours':>10}{'peer':>10}{'ratio':>8}")
    if not chosen or "volumes" in chosen:
        from benchmarks import volumes

        for name, ours, peer in volumes.compare():
            print(f"{name:66}{1000 * ours:>7.1f} ms{1000 * peer:>7.1f} ms{peer / ours:>7.1f}×")


if __name__ == "__main__":
    main(sys.argv[1:])
