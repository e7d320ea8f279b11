"""Memory between the parts of a run."""

from __future__ import annotations

import ctypes
import gc
import sys


def release() -> None:
    """Give freed memory back to the system; glibc keeps it otherwise, and two runs would not fit side by side."""
    gc.collect()
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # not in musl
        if trim:
            trim(0)
