"""When values are the same, and what SimpleITK reads: shared by the comparisons of all formats."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
CLOSE = 1e-4
"""Places that are closer, in mm, are the same."""


class Differs(Exception):  # noqa: N818
    """What does not agree, in words."""


def same(found: Array, wanted: Array) -> str:
    """Compare values; raises Differs."""
    if found.shape != wanted.shape:
        raise Differs(f"values {found.shape} where there are {wanted.shape}")
    if np.array_equal(found, np.asarray(wanted, np.float32)):
        return "exact"
    largest = float(np.abs(wanted).max(initial=0))
    away = float(np.abs(found.astype(float) - wanted).max())
    if away <= 2 * np.finfo(np.float32).eps * largest:
        return "rounded"
    raise Differs(f"values up to {away:.6g} apart, of at most {largest:.6g}")


def brightness(found: Array, wanted: Array, top: float) -> str:
    """Colour that JPEG stores at half the size may be interpolated in any way; brightness may not."""
    inside = ((found > 0) & (found < top) & (wanted > 0) & (wanted < top)).all(0)
    away = np.abs(np.array((0.299, 0.587, 0.114)) @ (found - wanted))[inside].max(initial=0) * 255 / top
    if away > 1.01:
        raise Differs(f"brightness up to {away:.3g} levels of 255 apart")
    return "brightness"


def itk(path: Path) -> tuple[Array, Array]:
    """Values (i, j, k, volume, component) and the affine to LPS."""
    import SimpleITK

    SimpleITK.ProcessObject.SetGlobalWarningDisplay(False)
    image = SimpleITK.ReadImage(str(path))
    values, size = SimpleITK.GetArrayFromImage(image), image.GetDimension()
    parts = image.GetNumberOfComponentsPerPixel()
    values = values if parts > 1 else values[..., None]
    values = values.transpose(*reversed(range(size)), size)
    if size == 2:
        values = values[:, :, None]
    if size < 4:
        values = values[:, :, :, None]
    affine = np.eye(4)
    count = min(size, 3)
    turn = np.array(image.GetDirection()).reshape(size, size)[:count, :count]
    affine[:count, :count] = turn * np.array(image.GetSpacing())[:count]
    affine[:count, 3] = image.GetOrigin()[:count]
    if path.suffix == ".mnc" and SimpleITK.Version.ITKMajorVersion() < 6:  # it takes RAS for LPS: ITK pull request 4864
        affine = np.diag((-1.0, -1, 1, 1)) @ affine
    return values, affine
