"""What the training of every kind of expert shares: the data in memory, its variation, and the loop."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from experts.preparation import choose, prepare
from experts.settings import ExpertConfig, TrainingConfig
from fovea.errors import ConfigError
from fovea.progress import track
from fovea.types import Code, Facts, Mask, Study

Pairs = Sequence[tuple[Study, Facts]]
Log = Callable[[str, float, int], None]
Vary = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


@dataclass(frozen=True, eq=False)
class Data:
    """Studies in the network's size, on the CPU. The slice axis is left out where there is only one.

    `pixels` float16 (study, channel, …); `planes` uint8 (study, plane, …): validity, then the masks as bits, eight to
    a plane; `present` and `assessed` bool (study, label); `drawn` bool: whether the truth has the label's mask, or
    knows that it is empty.
    """

    pixels: Tensor
    planes: Tensor
    present: Tensor
    assessed: Tensor
    drawn: Tensor
    codes: dict[str, Code]
    digests: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.pixels)

    def sizes(self, labels: int) -> Tensor:
        """How many pixels each mask has, (study, label)."""
        axes = tuple(range(2, self.planes.ndim))
        return torch.cat([_unpack(planes[None], labels).sum(axes) for planes in self.planes])


def usable(config: ExpertConfig, pairs: Pairs) -> Iterator[tuple[Study, Facts]]:
    """The studies that the expert takes; raises ConfigError where there is none."""
    n = 0
    for study, facts in pairs:
        if not isinstance(choose(config, study), str):
            n += 1
            yield study, facts
    if not n:
        raise ConfigError(f"none of {len(pairs)} studies is of the kind that {config.name} takes", "at least one")


def gather(config: ExpertConfig, pairs: Pairs, labels: Sequence[str], *, masks: bool) -> Data:
    """Read the usable studies and their truth for some labels; raises ConfigError where there is none."""
    flat = 0 if config.size[0] == 1 else slice(None)
    pixels, planes, truth, digests = [], [], [], []
    codes: dict[str, Code] = {}
    for study, facts in track(usable(config, pairs), f"{config.name}: reading", len(pairs)):
        seen = prepare(config, study)
        digests.append(study.digest)
        found = [facts.finding(label) for label in labels]
        codes |= {finding.label: finding.code for finding in facts.findings}
        assessed = [label in facts.assessed for label in labels]
        shapes = np.zeros((len(labels), *config.size), bool)
        drawn = []
        for place, finding in enumerate(found):
            region = finding.region if finding and finding.image == seen.image else None
            if masks and isinstance(region, Mask):
                shapes[place] = seen.shrink(region.data)
            drawn.append(assessed[place] and (finding is None or isinstance(region, Mask)))
        packed = np.packbits(shapes, axis=0, bitorder="little") if masks else shapes[:0]
        pixels.append(torch.from_numpy(seen.pixels[:, flat].astype(np.float16)))
        planes.append(torch.from_numpy(np.concatenate((seen.valid[None].view(np.uint8), packed))[:, flat]))
        truth.append(([f is not None for f in found], assessed, drawn))
    present, known, shown = (torch.tensor(rows) for rows in zip(*truth, strict=True))
    return Data(torch.stack(pixels), torch.stack(planes), present, known, shown, codes, tuple(digests))


def _unpack(planes: Tensor, labels: int) -> Tensor:
    """Masks as float (study, label, …) from planes of validity and bits."""
    bits = torch.arange(8, device=planes.device).view(1, 1, 8, *([1] * (planes.ndim - 2)))
    masks = (planes[:, 1:, None] >> bits) & 1
    return masks.flatten(1, 2)[:, :labels].float()


def batch(
    data: Data,
    indices: Tensor,
    labels: int,
    device: torch.device,
    vary: Vary,
) -> tuple[Tensor, Tensor, Tensor]:
    """Pixels (study, channel, …), validity (study, 1, …) and masks (study, label, …), varied, on the device."""
    pixels, planes = vary(data.pixels[indices].to(device).float(), data.planes[indices].to(device))
    layout = torch.channels_last if pixels.ndim == 4 else torch.channels_last_3d
    return pixels.contiguous(memory_format=layout), planes[:, :1].float(), _unpack(planes, labels)


def variation(config: TrainingConfig, generator: torch.Generator) -> Vary:
    """What makes each showing of a study a little different, masks alike.

    Position, scale and a small turn; contrast, brightness and noise; mirroring and quarter turns only where `turns`
    allows them, since a mirrored patient has his heart on the right. With `crop`, a part of the picture, every other
    time around a pixel of some mask.
    """

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return torch.rand(shape, generator=generator) * (high - low) + low

    def place(planes: Tensor, size: list[int]) -> tuple[Tensor, Tensor]:
        """Middle (study, axis) and half extent (axis,) of each part, in order x, y, z, of a whole from -1 to 1."""
        whole = torch.tensor(planes.shape[:1:-1])
        extent = torch.tensor(size[::-1]) / whole
        middle = uniform(-1, 1, len(planes), len(size)) * (1 - extent)
        for study in torch.nonzero(uniform(0, 1, len(planes)) < 0.5)[:, 0].tolist():
            shown = _unpack(planes[study : study + 1], 8 * (planes.shape[1] - 1))[0]
            sizes = shown.flatten(1).sum(1)
            if sizes.any():
                rarity = torch.where(sizes > 0, sizes.clamp(min=1).rsqrt(), 0.0)
                pixels = torch.nonzero(shown[int(torch.multinomial(rarity, 1, generator=generator))])
                pick = pixels[int(torch.randint(len(pixels), (1,), generator=generator))].flip(0)
                middle[study] = ((2 * pick + 1) / whole - 1).clamp(extent - 1, 1 - extent)
        return middle, extent

    def vary(pixels: Tensor, planes: Tensor) -> tuple[Tensor, Tensor]:
        n, dims = len(pixels), pixels.ndim - 2
        size = [
            min(config.crop or side, side) if axis >= dims - 2 else side for axis, side in enumerate(pixels.shape[2:])
        ]
        chance = uniform(0, 1, 4).tolist()
        if config.crop or chance[0] < 0.7:
            middle, extent = place(planes, size) if config.crop else (uniform(-0.08, 0.08, n, dims), torch.ones(dims))
            angle, scale = uniform(-0.12, 0.12, n), uniform(0.88, 1.12, n)
            theta = torch.zeros(n, dims, dims + 1)
            for axis in range(dims):
                theta[:, axis, axis] = scale * (torch.cos(angle) if axis < 2 else 1.0)
            theta[:, 0, 1], theta[:, 1, 0] = -scale * torch.sin(angle), scale * torch.sin(angle)
            theta[:, :, :dims] *= extent
            theta[:, :, dims] = middle
            grid = functional.affine_grid(theta, [n, 1, *size], align_corners=False).to(pixels.device)
            pixels = functional.grid_sample(pixels, grid, align_corners=False)
            planes = functional.grid_sample(planes.float(), grid, mode="nearest", align_corners=False).to(torch.uint8)
        if config.turns:
            flips = [axis for axis, c in ((-1, chance[1]), (-2, chance[2])) if c < 0.5]
            pixels, planes = pixels.flip(flips), planes.flip(flips)
            if chance[3] < 0.5 and pixels.shape[-1] == pixels.shape[-2]:
                pixels, planes = pixels.transpose(-1, -2), planes.transpose(-1, -2)
        each = (n, *([1] * (dims + 1)))
        gain, offset, noise = (uniform(*span, *each) for span in ((0.85, 1.15), (-0.06, 0.06), (0, 0.03)))
        grain = torch.randn(pixels.shape, generator=generator) * noise
        varied = pixels * gain.to(pixels.device) + (offset + grain).to(pixels.device)
        return torch.where(planes[:, :1] > 0, varied, 0.0), planes

    return vary


Network = TypeVar("Network", bound=nn.Module)


def seeded(build: Callable[[], Network], seed: int) -> Network:
    """A network whose first weights depend on the seed alone; random numbers elsewhere are left as they were."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build()


def has_bfloat16(device: torch.device) -> bool:
    """Whether the device multiplies bfloat16 in hardware; without that it is slower than float32."""
    if device.type == "cpu":
        able = torch.cpu.get_capabilities()
        return bool(able.get("amx_bf16") or able.get("avx512_bf16"))
    return device.type == "cuda" and torch.cuda.is_bf16_supported()


def fit(
    network: nn.Module,
    loss: Callable[[Tensor, torch.Generator], Tensor],
    n: int,
    config: ExpertConfig,
    seed: int,
    device: torch.device,
    log: Log | None,
) -> None:
    """Train a network in place: AdamW, one cycle of the rate, each study once in every pass.

    `loss` takes the indices of a batch's studies and the generator of their variation. `log` is told the loss now
    and then: name, value, step.
    """
    training, generator = config.training, torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(network.parameters(), lr=training.rate, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _cycle(step / training.steps))
    queue = torch.empty(0, dtype=torch.long)
    network.train()
    for step in track(range(training.steps), f"{config.name}: training"):
        while len(queue) < min(training.batch, n):
            queue = torch.cat((queue, torch.randperm(n, generator=generator)))
        indices, queue = queue[: training.batch], queue[training.batch :]
        with torch.autocast(device.type, torch.bfloat16, enabled=has_bfloat16(device)):
            value = loss(indices, generator)
        optimizer.zero_grad(set_to_none=True)
        value.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if log and (step % 10 == 0 or step == training.steps - 1):
            log(f"{config.name}/loss", float(value.detach()), step)
    network.eval()


def _cycle(progress: float) -> float:
    """The share of the highest rate: up over the first fifth, then down along a cosine (Smith 2018)."""
    if progress < 0.2:
        return 0.1 + 0.9 * progress / 0.2
    return 0.5 + 0.5 * math.cos(math.pi * (progress - 0.2) / 0.8)
