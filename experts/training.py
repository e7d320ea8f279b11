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

from experts.preparation import choose, prepare
from experts.settings import ExpertConfig
from experts.variation import Variation
from fovea.errors import ConfigError
from fovea.progress import track
from fovea.types import Bools, Code, Facts, Mask, Study

Pairs = Sequence[tuple[Study, Facts]]
Log = Callable[[str, float, int], None]


@dataclass(frozen=True, eq=False)
class Data:
    """Studies as the network reads them, on the CPU; each may have another shape. Without a slice axis of one slice.

    `pixels` float16 (feature, …) of each study; `planes` uint8 (plane, …): validity, then the masks as bits, eight to a
    plane; `sizes` int (study, label), the pixels of each mask, and `spots` (study, label, spot, axis), some of them;
    `present` and `assessed` bool (study, label); `drawn` bool: whether the truth has the label's mask, or knows that it
    is empty.
    """

    pixels: tuple[Tensor, ...]
    planes: tuple[Tensor, ...]
    sizes: Tensor
    spots: Tensor
    present: Tensor
    assessed: Tensor
    drawn: Tensor
    codes: dict[str, Code]
    digests: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.pixels)

    @property
    def areas(self) -> Tensor:
        """How many pixels each study has."""
        return torch.tensor([pixels[0].numel() for pixels in self.pixels])

    @property
    def sides(self) -> list[tuple[int, int]]:
        """The smallest and the largest number of pixels along each axis."""
        shapes = [pixels.shape[1:] for pixels in self.pixels]
        return [(min(sides), max(sides)) for sides in zip(*shapes, strict=True)]

    def masks(self, study: int) -> Tensor:
        """The masks of a study, float (label, …)."""
        return _unpack(self.planes[study][None], self.sizes.shape[1])[0]


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
        shapes = np.zeros((len(labels) if masks else 0, *seen.valid.shape), bool)
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
    pixels, planes, *tables = zip(*rows, strict=True)
    sizes, spots, present, assessed, drawn = (torch.stack(table) for table in tables)
    return Data(pixels, planes, sizes, spots, present, assessed, drawn, codes, tuple(digests))


def apart(config: ExpertConfig, train: Pairs, validation: Pairs) -> tuple[Pairs, Pairs, Pairs]:
    """What the network learns from, what tells when to stop (nothing without `patience`), and what calibrates.

    They follow one another in the order given, in which the studies of a patient or place usually stand together.
    """
    if not config.training.patience:
        return train, (), validation
    if len(validation) >= 40:
        return train, validation[: len(validation) // 4], validation[len(validation) // 4 :]
    last = len(train) - max(len(train) // 8, 1)
    return train[:last], train[last:], validation


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
    config: ExpertConfig,
    data: Data,
    indices: Tensor,
    vary: Variation,
    generator: torch.Generator,
    device: torch.device,
) -> tuple[Tensor, Tensor, Tensor]:
    """Features (study, feature, …), validity (study, 1, …) and masks (study, label, …) of some studies, varied.

    Where a study is larger than the window, every other window is around a pixel of some mask, of a small one rather
    than a large one. MONAI's crops by label take labels that exclude each other; ours may overlap, and are kept as
    bits.
    """
    spare, pixels, planes = vary.spare(), [], []
    size = [side + more for side, more in zip(vary.size, spare, strict=True)]
    for study in indices.tolist():
        start = _start(data, study, vary.size, generator)
        start = [first - more // 2 for first, more in zip(start, spare, strict=True)]
        pixels.append(_window(data.pixels[study], start, size))
        planes.append(_window(data.planes[study], start, size))
    varied, bits = vary(torch.stack(pixels).to(device).float(), torch.stack(planes).to(device))
    valid = bits[:, :1].float()
    varied = (varied * valid).contiguous(memory_format=_layout(config))
    return varied, valid, _unpack(bits, data.sizes.shape[1])


def _start(data: Data, study: int, size: Sequence[int], generator: torch.Generator) -> list[int]:
    """The first pixel of a window of a study."""
    room = torch.tensor(data.pixels[study].shape[1:]) - torch.tensor(size)
    if not room.any():
        return room.tolist()
    sizes = data.sizes[study]
    if torch.rand(1, generator=generator) < 0.5 and sizes.any():
        rarity = torch.where(sizes > 0, sizes.clamp(min=1).float().rsqrt(), 0.0)
        label = torch.multinomial(rarity, 1, generator=generator)
        spot = data.spots[study, label, torch.randint(32, (1,), generator=generator)][0]
        first = spot - torch.tensor(size) // 2
    else:
        first = (torch.rand(len(size), generator=generator) * (room + 1)).long()
    return first.minimum(room).clamp(min=0).tolist()


def _window(array: Tensor, start: Sequence[int], size: Sequence[int]) -> Tensor:
    """A part of an array (channel, …), 0 where it reaches beyond."""
    bounds = [
        (max(first, 0), min(first + side, n)) for first, side, n in zip(start, size, array.shape[1:], strict=True)
    ]
    inner = array[(slice(None), *(slice(*bound) for bound in bounds))]
    if inner.shape[1:] == torch.Size(size):
        return inner
    out = array.new_zeros(len(array), *size)
    out[(slice(None), *(slice(a - first, b - first) for (a, b), first in zip(bounds, start, strict=True)))] = inner
    return out


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
    score: Callable[[], float] | None = None,
) -> int:
    """Train a network in place: AdamW, one cycle of the rate, each study so many `times` in every pass.

    With `score`, which is better the higher, it is asked every `check` steps and at the end; training stops after
    `patience` checks without a better one, and the best weights are kept. Returns how many steps the weights have seen.

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
    best = _Best(network, training.patience, training.steps)
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
        done = step + 1
        if score and (done % training.check == 0 or done == training.steps):
            network.eval()
            value_now = score()
            network.train()
            if log:
                log(f"{config.name}/validation score", value_now, step)
            if best.missed(value_now, done):
                break
    network.eval()
    return best.restore()


class _Best:
    """The best weights of a network so far."""

    def __init__(self, network: nn.Module, patience: int, steps: int) -> None:
        self._network, self._patience, self.step = network, patience, steps
        self._score, self._waited = -math.inf, 0
        self._weights: dict[str, Tensor] = {}

    def missed(self, score: float, step: int) -> bool:
        """Remember the weights if the score is better; whether there have been too many that are not."""
        if score > self._score:
            self._score, self._waited, self.step = score, 0, step
            self._weights = {name: value.detach().clone() for name, value in self._network.state_dict().items()}
        else:
            self._waited += 1
        return 0 < self._patience <= self._waited

    def restore(self) -> int:
        """Put them back; returns their step."""
        if self._weights:
            self._network.load_state_dict(self._weights)
        return self.step


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
