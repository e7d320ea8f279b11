"""Arrays in another size: area means where there are fewer pixels, linear interpolation where there are more."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fovea.types import Floats, Span

if TYPE_CHECKING:
    from scipy.sparse import csr_array


def resize(
    array: NDArray[Any],
    shape: tuple[int, ...],
    inside: tuple[slice, ...] | None = None,
    wanted: tuple[slice, ...] | None = None,
) -> Floats:
    """The last three axes in another size: area means where there are fewer pixels, linear interpolation where more.

    Exact for any ratio, and free of shift: the extent stays the same. With `inside`, only these pixels are read, and
    with `wanted`, only those are computed.
    """
    out = np.asarray(array, np.float32)
    for axis, (before, after) in enumerate(zip(array.shape[-3:], shape, strict=True)):
        rows, columns = (part[axis] if part else slice(None) for part in (wanted, inside))
        place = out.ndim - 3 + axis
        if before == after:
            out = out[(slice(None),) * place + (rows,)]
            continue
        weights = _weights(before, after)[rows, columns]
        out = np.moveaxis(np.moveaxis(out[(slice(None),) * place + (columns,)], place, -1) @ weights.T, -1, place)
    return np.ascontiguousarray(out)


def _weights(before: int, after: int) -> Floats:
    """What each of `before` pixels contributes to each of `after` pixels of the same extent, (after, before)."""
    ratio = before / after
    old = np.arange(before)
    if after < before:
        start = np.arange(after)[:, None] * ratio
        weights = np.clip(np.minimum(start + ratio, old + 1) - np.maximum(start, old), 0, 1) / ratio
    else:
        center = np.clip((np.arange(after)[:, None] + 0.5) * ratio - 0.5, 0, before - 1)
        weights = np.clip(1 - np.abs(center - old), 0, 1)
    return np.asarray(weights, np.float32)


def resample(
    array: NDArray[Any],
    shape: tuple[int, ...],
    inside: tuple[slice, ...] | None = None,
    wanted: tuple[slice, ...] | None = None,
    whole: tuple[int, ...] | None = None,
) -> Floats:
    """As `resize`, in a time that grows with the pixels and not with the side: the weights are a sparse matrix.

    With `whole` the array holds only what `inside` names of a picture of that size.
    """
    out = np.asarray(array, np.float32)
    full = slice(None)
    for axis, after in enumerate(shape):
        place = out.ndim - 3 + axis
        before = whole[axis] if whole else array.shape[place]
        rows, columns = (part[axis] if part else full for part in (wanted, inside))
        held = range(before)[columns]
        if not whole:
            out = out[(full,) * place + (columns,)]
        if before == after:
            shift = range(after)[rows]
            out = out[(full,) * place + (slice(shift.start - held.start, shift.stop - held.start),)]
            continue
        moved = np.moveaxis(out, place, 0)
        flat = _sparse(before, after, range(after)[rows], held) @ moved.reshape(len(moved), -1)
        out = np.moveaxis(flat.reshape(-1, *moved.shape[1:]), 0, place)
    return np.ascontiguousarray(out)


def reach(before: int, after: int, wanted: Span) -> Span:
    """The span of `before` pixels that `wanted` ones of `after` are made of."""
    if before == after:
        return wanted
    ratio = before / after
    start, stop = wanted[0] * ratio, wanted[1] * ratio
    return max(int(start) - 1, 0), min(int(np.ceil(stop)) + 1, before)


def _sparse(before: int, after: int, rows: range, columns: range) -> csr_array:
    """The weights of `_weights` for some rows and columns."""
    from scipy.sparse import csr_array

    ratio, new = before / after, np.arange(rows.start, rows.stop)
    if after < before:
        start = new * ratio
        old = start.astype(int)[:, None] + np.arange(int(np.ceil(ratio)) + 1)
        weights = np.clip(np.minimum(start[:, None] + ratio, old + 1) - np.maximum(start[:, None], old), 0, 1) / ratio
    else:
        center = np.clip((new + 0.5) * ratio - 0.5, 0, before - 1)
        old = center.astype(int)[:, None] + np.arange(2)
        weights = np.clip(1 - np.abs(center[:, None] - old), 0, 1)
    there = (old >= columns.start) & (old < columns.stop) & (weights > 0)
    place = np.broadcast_to(np.arange(len(new))[:, None], old.shape)
    values = weights[there].astype(np.float32)
    return csr_array((values, (place[there], old[there] - columns.start)), shape=(len(new), len(columns)))
