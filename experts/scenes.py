"""Class maps of rasters of any size: a segmentation expert over windows, strip after strip."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from experts.preparation import Sampled, Shape, chosen
from experts.segmentation import SegmentationExpert
from experts.windows import Block
from fovea.errors import ExpertError
from fovea.types import Grid, Strip, Study


class SceneMap:
    """How an expert maps a scene, on a `grid` of its own spacing: of a scene at that spacing, the image's own.

    Raises ExpertError for a study that the expert does not take, for a volume, and for an expert that reads pictures
    as a whole.
    """

    def __init__(self, expert: SegmentationExpert, study: Study, window: Shape | None = None) -> None:
        if expert.config.size[0] > 1:
            raise ExpertError(f"{expert.config.name} reads volumes", "an expert of single slices")
        self._expert, self._window = expert, window
        self._sampled = Sampled(expert.config, chosen(expert.config, study)[0])
        cuts = [expert.calibrations[label].cut for label in expert.config.drawn]
        self._cuts = torch.tensor(cuts)[:, None, None]

    @property
    def grid(self) -> Grid:
        """Where the pixels of the strips lie."""
        return self._sampled.grid

    def strips(self, start: int = 0) -> Iterator[Strip]:
        """The map in strips, from the `start`-th on: rows from the top down, and band after band of columns.

        A pixel has the likeliest of the labels that reach their cut; where labels are exclusive and cuts are 0.5, that
        is the likeliest of all and of none. None has the probability that the likeliest label leaves. Memory is that of
        one row of windows in one band, and no strip depends on where the work began. Windows are of `window` pixels
        (1, row, column); left out, as large as is fast.
        """
        for block in self._expert.blocks(self._sampled.read, self._sampled.shape, self._window, start):
            yield self._strip(block)

    def _strip(self, block: Block) -> Strip:
        shares, valid = block.probabilities[:, 0], torch.from_numpy(block.valid[0])
        best, label = torch.where(shares >= self._cuts, shares, -1).max(dim=0)
        none = best < 0
        classes = (label + 1).masked_fill_(none, 0).masked_fill_(~valid, Strip.NODATA)
        sure = torch.where(none, 1 - shares.amax(dim=0), best).clamp_(0, 1).masked_fill_(~valid, torch.nan)
        return Strip(block.spans[1], block.spans[2], classes.byte().numpy(), sure.numpy())
