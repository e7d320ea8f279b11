"""What the training of every kind of expert shares: the data in memory, its variation, and the loop."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from experts.preparation import choose, prepare
from experts.settings import ExpertConfig
from fovea.errors import ConfigError
from fovea.progress import track
from fovea.types import Bools, Code, Facts, Mask, Study

Pairs = Sequence[tuple[Study, Facts]]
Log = Callable[[str, float, int], None]


@dataclass(frozen=True, eq=False)
class Data:
    """Studies in the network's size, on the CPU. The slice axis is left out where there is only one.

    `pixels` float16 (study, feature, …); `planes` uint8 (study, plane, …): validity, then the masks as bits, eight to
    a plane; `sizes` int (study, label), the pixels of each mask, and `spots` (study, label, spot, axis), some of them;
    `present` and `assessed` bool (study, label); `drawn` bool: whether the truth has the label's mask, or knows that it
    is empty.
    """

    pixels: Tensor
    planes: Tensor
    sizes: Tensor
    spots: Tensor
    present: Tensor
    assessed: Tensor
    drawn: Tensor
    codes: dict[str, Code]
    digests: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.pixels)


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
    rows: list[tuple[Tensor, ...]] = []
    codes: dict[str, Code] = {}
    digests = []
    for study, facts in track(usable(config, pairs), f"{config.name}: reading", len(pairs)):
        seen = prepare(config, study)
        digests.append(study.digest)
        codes |= {finding.label: finding.code for finding in facts.findings}
        shapes = np.zeros((len(labels) if masks else 0, *config.size), bool)
        truth = np.zeros((3, len(labels)), bool)
        for place, label in enumerate(labels):
            finding = facts.finding(label)
            region = finding.region if finding and finding.image == seen.image else None
            known = label in facts.assessed
            truth[:, place] = finding is not None, known, known and (finding is None or isinstance(region, Mask))
            if masks and isinstance(region, Mask):
                shapes[place] = seen.shrink(region.data)
        bits = np.concatenate((seen.valid[None].view(np.uint8), np.packbits(shapes, axis=0, bitorder="little")))
        flat = 0 if config.size[0] == 1 else slice(None)
        arrays = (seen.pixels[:, flat].astype(np.float16), bits[:, flat], *_spots(shapes[:, flat]), *truth)
        rows.append(tuple(map(torch.from_numpy, arrays)))
    pixels, planes, sizes, spots, present, assessed, drawn = (torch.stack(column) for column in zip(*rows, strict=True))
    return Data(pixels, planes, sizes, spots, present, assessed, drawn, codes, tuple(digests))


def _spots(shapes: Bools) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The size of each mask (label, …), and 32 of its pixels, evenly drawn (label, spot, axis); 0 for an empty mask."""
    sizes = shapes.sum(tuple(range(1, shapes.ndim)), dtype=np.int64)
    spots = np.zeros((len(shapes), 32, shapes.ndim - 1), np.int64)
    for label in np.flatnonzero(sizes):
        spots[label] = np.argwhere(shapes[label])[np.linspace(0, sizes[label] - 1, 32).astype(int)]
    return sizes, spots


def _unpack(planes: Tensor, labels: int) -> Tensor:
    """Masks as float (study, label, …) from planes of validity and bits."""
    bits = torch.arange(8, device=planes.device).view(1, 1, 8, *([1] * (planes.ndim - 2)))
    masks = (planes[:, 1:, None] >> bits) & 1
    return masks.flatten(1, 2)[:, :labels].float()


def batch(
    config: ExpertConfig, data: Data, indices: Tensor, generator: torch.Generator, device: torch.device
) -> tuple[Tensor, Tensor, Tensor]:
    """Features (study, feature, …), validity (study, 1, …) and masks (study, label, …) of some studies, varied.

    What makes each showing a little different: position, scale and a small turn; contrast and brightness; mirroring
    and quarter turns where the recipe allows them. With `crop`, a part of the picture, every other time around a
    pixel of some mask, of a small one rather than a large one.
    """
    training = config.training
    pixels, planes = data.pixels[indices].to(device).float(), data.planes[indices].to(device)
    n, dims, shape = len(indices), pixels.ndim - 2, pixels.shape[2:]
    size = [min(training.crop or side, side) if axis >= dims - 2 else side for axis, side in enumerate(shape)]
    middle = 0.16 * (torch.rand(n, dims, generator=generator) - 0.5)
    if training.crop:
        middle = _middles(data, indices, torch.tensor(size), torch.tensor(shape), generator)
    part = torch.tensor(size[::-1]) / torch.tensor(shape[::-1])
    if training.crop or torch.rand(1, generator=generator) < 0.7:
        grid = functional.affine_grid(_affine(middle, part, generator), [n, 1, *size], align_corners=False).to(device)
        pixels = functional.grid_sample(pixels, grid, align_corners=False)
        planes = functional.grid_sample(planes.float(), grid, mode="nearest", align_corners=False).to(torch.uint8)
    if training.turns:
        across, along, around = (torch.rand(3, generator=generator) < 0.5).tolist()
        axes = [axis for axis, wanted in ((-1, across), (-2, along)) if wanted]
        pixels, planes = pixels.flip(axes), planes.flip(axes)
        if around and pixels.shape[-1] == pixels.shape[-2]:
            pixels, planes = pixels.transpose(-1, -2), planes.transpose(-1, -2)
    light = torch.ones(2, n, pixels.shape[1])
    own = len(config.channels)
    light[0, :, : 2 * own] = 0.85 + 0.3 * torch.rand(n, 1, generator=generator)
    light[1] = 0
    light[1, :, :own] = 0.12 * (torch.rand(n, 1, generator=generator) - 0.5)
    gain, offset = light.view(2, n, -1, *([1] * dims)).to(device)
    valid = planes[:, :1].float()
    varied = (pixels * gain + offset) * valid
    varied = varied.contiguous(memory_format=_layout(config))
    return varied, valid, _unpack(planes, data.sizes.shape[1])


def _middles(data: Data, indices: Tensor, size: Tensor, shape: Tensor, generator: torch.Generator) -> Tensor:
    """Where the middle of a part lies in the whole, which reaches from -1 to 1: (study, axis), in order x, y, z."""
    n, part = len(indices), size / shape
    middle = (2 * torch.rand(n, len(shape), generator=generator) - 1) * (1 - part)
    sizes = data.sizes[indices]
    around = (torch.rand(n, generator=generator) < 0.5) & (sizes.sum(1) > 0)
    rarity = torch.where(sizes > 0, sizes.clamp(min=1).float().rsqrt(), 0.0)
    for study in torch.nonzero(around)[:, 0].tolist():
        label = torch.multinomial(rarity[study], 1, generator=generator)
        spot = data.spots[indices[study], label, torch.randint(32, (1,), generator=generator)][0]
        middle[study] = ((2 * spot + 1) / shape - 1).clamp(part - 1, 1 - part)
    return middle.flip(1)


def _affine(middle: Tensor, part: Tensor, generator: torch.Generator) -> Tensor:
    """Matrices (study, axis, axis + 1) for parts with these middles, turned by 7 degrees and scaled by 12 % at most."""
    n, dims = middle.shape
    turn, scale = torch.rand(2, n, generator=generator) * 0.24 - 0.12
    theta = torch.zeros(n, dims, dims + 1)
    theta[:, range(dims), range(dims)] = (1 + scale)[:, None]
    theta[:, 0, 0] = theta[:, 1, 1] = (1 + scale) * torch.cos(turn)
    theta[:, 0, 1], theta[:, 1, 0] = -(1 + scale) * torch.sin(turn), (1 + scale) * torch.sin(turn)
    theta[:, :, :dims] *= part
    theta[:, :, dims] = middle
    return theta


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
    times: Tensor,
    config: ExpertConfig,
    seed: int,
    device: torch.device,
    log: Log | None,
) -> None:
    """Train a network in place: AdamW, one cycle of the rate, each study so many `times` in every pass.

    An update whose gradient is not finite is left out. Volumes are trained in float32 on a CPU: there oneDNN's bfloat16
    gradients of small 3-D convolutions read memory that was never written, as of PyTorch 2.15, and are now and then not
    finite.

    `loss` takes the indices of a batch's studies and the generator of their variation. `log` is told the loss now
    and then: name, value, step.
    """
    training, generator = config.training, torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(network.parameters(), lr=training.rate, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _cycle(step / training.steps))
    every, queue = torch.arange(len(times)).repeat_interleave(times), torch.empty(0, dtype=torch.long)
    network.train()
    network.to(memory_format=_layout(config))
    exact = config.size[0] > 1 and device.type == "cpu"
    for step in track(range(training.steps), f"{config.name}: training"):
        while len(queue) < min(training.batch, len(times)):
            queue = torch.cat((queue, every[torch.randperm(len(every), generator=generator)]))
        indices, queue = queue[: training.batch], queue[training.batch :]
        with torch.autocast(device.type, torch.bfloat16, enabled=not exact and has_bfloat16(device)):
            value = loss(indices, generator)
        optimizer.zero_grad(set_to_none=True)
        value.backward()  # type: ignore[no-untyped-call]
        if nn.utils.clip_grad_norm_(network.parameters(), 1.0).isfinite():
            optimizer.step()
        schedule.step()
        if log and (step % 10 == 0 or step == training.steps - 1):
            log(f"{config.name}/loss", float(value.detach()), step)
    network.eval()


def _layout(config: ExpertConfig) -> torch.memory_format:
    """Channels last is faster in two dimensions, not in three.

    Of fewer than 16 channels oneDNN's gradient of a 1 x 1 convolution with a stride is then wrong and writes where it
    must not, as of PyTorch 2.15 (oneDNN issue 6035).
    """
    fast = config.size[0] == 1 and config.training.width >= 16
    return torch.channels_last if fast else torch.contiguous_format


def _cycle(progress: float) -> float:
    """The share of the highest rate: up over the first fifth, then down along a cosine (Smith 2018)."""
    if progress < 0.2:
        return 0.1 + 0.9 * progress / 0.2
    return 0.5 + 0.5 * math.cos(math.pi * (progress - 0.2) / 0.8)
