"""From the tower's tokens to the decoder's."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fovea.errors import ConfigError


class ShuffleMLP(nn.Module):
    """Merge squares of `factor` × `factor` neighbouring tokens into one, then a two-layer MLP (pixel shuffle as in
    InternVL 1.5; factor 1 is LLaVA-1.5's connector)."""

    def __init__(self, channels: int, width: int, grid: tuple[int, int], factor: int = 1) -> None:
        super().__init__()
        if grid[0] % factor or grid[1] % factor:
            raise ConfigError(f"factor {factor} for a grid of {grid} tokens", "a factor that divides both sides")
        self.grid, self.factor = grid, factor
        self.norm = nn.LayerNorm(channels * factor**2)
        self.up, self.act, self.down = (
            nn.Linear(channels * factor**2, width * 2),
            nn.GELU(),
            nn.Linear(width * 2, width),
        )
        self.place = nn.Parameter(0.02 * torch.randn(grid[0] * grid[1] // factor**2, width))

    @property
    def tokens(self) -> int:
        """How many tokens an image takes in the decoder."""
        return self.grid[0] * self.grid[1] // self.factor**2

    def forward(self, tokens: Tensor) -> Tensor:
        """(batch, rows·columns, channel) to (batch, rows·columns / factor², width)."""
        (rows, columns), f = self.grid, self.factor
        x = (
            tokens.view(len(tokens), rows // f, f, columns // f, f, -1)
            .permute(0, 1, 3, 2, 4, 5)
            .flatten(3)
            .flatten(1, 2)
        )
        out: Tensor = self.down(self.act(self.up(self.norm(x)))) + self.place
        return out
