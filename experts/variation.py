"""What makes each showing of a study a little different, by MONAI's random transforms."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from experts.settings import ExpertConfig

_RESAMPLED = 0.7
"""Share of the batches that are turned and scaled; the others are seen as sharp as they are."""
_MARGIN = 1.26
"""How much more than a window is read, for the corners of one that is turned and scaled."""


class Variation:
    """Position, scale and a small turn; contrast and brightness; mirroring and quarter turns where a recipe allows.

    MONAI draws the parameters of each study. They are applied to the batch as a whole, which on a CPU takes a third of
    the time of a transform a study; mirroring and quarter turns are the same for all of a batch. `sides` are the
    (smallest, largest) number of pixels of the studies along each axis.
    """

    def __init__(self, config: ExpertConfig, sides: Sequence[tuple[int, int]], seed: int) -> None:
        from monai.transforms.intensity.array import RandScaleIntensity, RandShiftIntensity
        from monai.transforms.spatial.array import RandAffineGrid, RandFlip, RandRotate90

        training, dims = config.training, len(sides)
        self.size = [
            min(training.crop or side, side) if axis >= dims - 2 else side
            for axis, side in enumerate(config.size[-dims:])
        ]
        axes = [(size, side == (size, size)) for side, size in zip(sides, self.size, strict=True)]
        self._spare = [0 if whole else 2 * round((_MARGIN - 1) * size / 2) for size, whole in axes]
        shift = [0.08 * size if whole and not training.crop else 0.0 for size, whole in axes]
        self._affine = RandAffineGrid(
            rotate_range=[0.12] if dims == 2 else [0.12, 0.0, 0.0],
            translate_range=shift,
            scale_range=[0.12] * dims,
            lazy=True,
        )
        self._own = len(config.channels)
        self._gain = RandScaleIntensity(0.15, prob=1.0, channel_wise=True)  # of a batch, whose first axis is the study
        self._offset = RandShiftIntensity(0.06, prob=1.0, channel_wise=True)
        turns = (RandFlip(0.5, -1), RandFlip(0.5, -2), RandRotate90(0.5, max_k=1, spatial_axes=(-2, -1)))
        square = self.size[-1] == self.size[-2]
        self._turns: tuple[RandFlip | RandRotate90, ...] = (turns if square else turns[:2]) if training.turns else ()
        for number, transform in enumerate((self._affine, self._gain, self._offset, *self._turns)):
            transform.set_random_state(seed=(seed + 7919 * number) % 2**32)  # each its own numbers
        self._resampled = True

    def spare(self) -> list[int]:
        """How many pixels more than `size` the next batch is to have; half of them on either side."""
        self._resampled = bool(self._affine.R.uniform() < _RESAMPLED)
        return self._spare if self._resampled else [0] * len(self.size)

    def __call__(self, pixels: Tensor, planes: Tensor) -> tuple[Tensor, Tensor]:
        """Features (study, feature, …) and planes of bits (study, plane, …), both of the size that `spare` asked for.

        They come back in `size`; what lies outside is 0.
        """
        with _plain_tensors():
            if self._resampled:
                theta = torch.stack([self._matrix() for _ in pixels]).to(pixels)
                pixels = self._resample(pixels, theta, "bilinear")
                planes = self._resample(planes.float(), theta, "nearest").to(torch.uint8)
            for turn in self._turns:  # once for both, so that they stay together
                turned = turn(pixels.flatten(0, 1)), turn(planes.flatten(0, 1), randomize=False)
                pixels, planes = (
                    new.view(*old.shape[:2], *new.shape[1:]) for new, old in zip(turned, (pixels, planes), strict=True)
                )
            lit = torch.as_tensor(self._gain(pixels[:, : 2 * self._own]))  # the channels and their detail
            own = torch.as_tensor(self._offset(lit[:, : self._own]))
            return torch.cat((own, lit[:, self._own :], pixels[:, 2 * self._own :]), 1), planes

    def _matrix(self) -> Tensor:
        self._affine(self.size)
        matrix: Tensor = torch.as_tensor(self._affine.get_transformation_matrix())
        return matrix

    def _resample(self, values: Tensor, theta: Tensor, mode: str) -> Tensor:
        from monai.networks.layers.spatial_transforms import AffineTransform

        out: Tensor = AffineTransform(self.size, mode=mode, align_corners=False, zero_centered=True)(values, theta)
        return out


@contextmanager
def _plain_tensors() -> Iterator[None]:
    """MONAI's transforms without the history that they keep of each tensor."""
    from monai.data.meta_obj import get_track_meta, set_track_meta

    before = get_track_meta()
    set_track_meta(False)
    try:
        yield
    finally:
        set_track_meta(before)
