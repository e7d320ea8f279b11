"""From line integrals to the picture a radiographer sends: scatter, blur, quanta, and the display's tone."""

from __future__ import annotations

import numpy as np
from numpy.random import Generator
from scipy.ndimage import gaussian_filter

from fovea.image import Floats


def resized(image: Floats, factor: int, shape: tuple[int, int]) -> Floats:
    """An image with pixels `factor` times larger, interpolated linearly to `shape`."""
    for axis, size in enumerate(shape):
        place = ((np.arange(size) + 0.5) / factor - 0.5).clip(0, image.shape[axis] - 1)
        first = np.minimum(place.astype(int), max(image.shape[axis] - 2, 0))
        weight = (place - first).astype(np.float32)
        weight = weight[:, None] if axis == 0 else weight
        low = image.take(first, axis)
        high = image.take(np.minimum(first + 1, image.shape[axis] - 1), axis)
        high -= low
        high *= weight
        image = low + high
    return image


def reduced(image: Floats, factor: int) -> Floats:
    """The means of blocks of `factor` × `factor` pixels; the last block repeats the border."""
    rows, columns = (-size % factor for size in image.shape)
    image = np.pad(image, ((0, rows), (0, columns)), mode="edge") if rows or columns else image
    image = np.add.reduceat(image, np.arange(0, image.shape[0], factor), axis=0)
    return np.asarray(image.reshape(image.shape[0], -1, factor).sum(2) / factor**2)


def fractal(rng: Generator, shape: tuple[int, int], roughness: float) -> Floats:
    """Noise of mean about 0 and deviation about 1 in octaves down to two pixels, each `roughness` times as strong
    as the next coarser one."""
    octaves = 6
    image = rng.standard_normal([max(2, -(-side // 2 ** (octaves + 1))) for side in shape], np.float32)
    power = 1.0
    for octave in range(octaves, 0, -1):
        rows, columns = (-(-side // 2**octave) for side in shape)
        strength = roughness ** (octaves + 1 - octave)
        image = resized(image, 2, (rows, columns))
        image += np.float32(strength) * rng.standard_normal((rows, columns), np.float32)
        power += strength**2
    return resized(image, 2, shape) / np.float32(np.sqrt(power))


def exposed(path: Floats, spacing: float, rng: Generator, portable: bool) -> Floats:
    """The logarithm of the detector's signal, bone bright, from the line integrals of attenuation.

    The signal is exp(-path), a wide halo of scatter (a tenth to a third of the direct signal nearby behind a
    grid, more without), the focal spot's and the detector's blur, and Poisson noise in its normal approximation.
    """
    direct = np.exp(-path)
    factor = 8
    halo = gaussian_filter(reduced(direct - direct**2, factor), rng.uniform(30, 50) / spacing / factor, truncate=2.5)
    share = rng.uniform(0.3, 0.6) if portable else rng.uniform(0.1, 0.3)
    signal = direct + np.float32(share) * resized(halo, factor, (path.shape[0], path.shape[1]))
    signal = gaussian_filter(signal, rng.uniform(0.3, 0.6) / spacing, truncate=2.5)
    quanta = 10 ** (rng.uniform(3.9, 4.6) if portable else rng.uniform(4.3, 5.0)) * spacing**2
    signal += np.sqrt(signal / np.float32(quanta)) * rng.standard_normal(path.shape, np.float32)
    return np.asarray(-np.log(np.maximum(signal, 1e-5)))


def toned(signal: Floats, spacing: float, rng: Generator) -> Floats:
    """The picture in [0, 1] as a vendor's processing would send it: range, local contrast, and a sigmoid tone."""
    factor = 4
    local = gaussian_filter(reduced(signal, factor), rng.uniform(8, 20) / spacing / factor, truncate=2)
    detail = resized(local, factor, (signal.shape[0], signal.shape[1]))
    np.subtract(signal, detail, out=detail)
    signal = signal + np.float32(rng.uniform(0.0, 0.9)) * detail
    low, high = np.percentile(signal[::5, ::5], (rng.uniform(1, 8), rng.uniform(97.5, 99.7)))
    signal -= low + rng.uniform(0.33, 0.5) * (high - low)
    signal *= -rng.uniform(3.4, 4.8) / (high - low)
    np.exp(signal, out=signal)
    signal += 1
    return np.asarray(np.divide(1, signal, out=signal))
