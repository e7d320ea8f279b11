"""Seeded damage to the bytes of a file: what transmission, bad writers and attackers do to it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from random import Random

import numpy as np

from fovea.errors import InputError
from fovea.types import Image

_EXTREME = (0, 1, 0x7F, 0x80, 0xFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, 0xFFFFFFFF)


def mutate(data: bytes, random: Random, others: Sequence[bytes] = (), protect: int = 0) -> bytes:
    """A damaged copy; the first `protect` bytes stay unless the file is cut shorter.

    One to four of: flipped bits, random bytes, extreme numbers of 2 or 4 bytes in either order (lengths and sizes among
    them), a part cut out, doubled or blanked, a part of another file, the end cut off.
    """
    changed = bytearray(data)
    for _ in range(random.randint(1, 4)):
        if len(changed) <= protect + 8:
            break
        _damage(changed, random, others, protect)
    return bytes(changed)


def check_damaged(path: Path, read: Callable[[Path], Iterable[Image]], times: int, protect: int = 0) -> None:
    """Damage a file so many times: each copy has to give images of finite values, or an InputError."""
    whole = path.read_bytes()
    for seed in range(times):
        path.write_bytes(mutate(whole, Random(seed), protect=protect))
        try:
            for image in read(path):
                assert np.isfinite(image.pixels).all()
        except InputError:
            continue


def _damage(data: bytearray, random: Random, others: Sequence[bytes], protect: int) -> None:
    # Most damage goes to the front, where headers are.
    reach = len(data) if random.random() < 0.4 else min(len(data), protect + 2048)
    at = random.randrange(protect, reach - 4)
    size = min(random.choice((1, 2, 4, 8, 64, 512)), len(data) - at)
    kind = random.randrange(8)
    if kind == 0:
        data[at] ^= 1 << random.randrange(8)
    elif kind == 1:
        data[at : at + size] = random.randbytes(size)
    elif kind == 2:
        width = random.choice((2, 4))
        order = random.choice(("little", "big"))
        data[at : at + width] = (random.choice(_EXTREME) % 256**width).to_bytes(width, order)
    elif kind == 3:
        del data[at : at + size]
    elif kind == 4:
        data[at:at] = data[at : at + size]
    elif kind == 5:
        data[at : at + size] = bytes(size)
    elif kind == 6 and others:
        other = random.choice(others)
        start = random.randrange(len(other))
        data[at : at + size] = other[start : start + size]
    else:
        del data[random.randrange(protect, len(data)) :]
