"""Windows that are blended: what comes out is what the network says of the whole, wherever it is cut."""

from __future__ import annotations

import platform
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from experts.memory import kept
from experts.windows import Windows, blocks
from fovea.errors import ConfigError

CASES = [((77, 130), (32, 32), 8), ((40, 41, 70), (16, 24, 32), 8), ((20, 33), (32, 32), 16)]


def picture(shape: tuple[int, ...], seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).normal(size=(2, *shape)).astype(np.float32)


def reader(pixels: NDArray[np.float32], valid: NDArray[np.bool_] | None = None):
    known = np.ones(pixels.shape[1:], bool) if valid is None else valid

    def read(spans):
        part = tuple(slice(*span) for span in spans)
        return pixels[:, *part], known[part]

    return read


def gathered(predict, pixels, windows: Windows, labels: int = 3, valid=None, **more) -> Tensor:
    out = torch.full((labels, *pixels.shape[1:]), torch.nan)
    for block in blocks(predict, reader(pixels, valid), pixels.shape[1:], windows, labels, **more):
        out[:, *(slice(*span) for span in block.spans)] = block.probabilities
    return out


def network(dims: int) -> nn.Module:
    """It sees three pixels each way, reduces by two, and says of no data that there is nothing."""
    torch.manual_seed(0)
    kind, pool = (nn.Conv2d, nn.AvgPool2d) if dims == 2 else (nn.Conv3d, nn.AvgPool3d)
    layers = (
        kind(2, 4, 3, padding=1, bias=False),
        nn.ReLU(),
        pool(2),
        kind(4, 3, 1, bias=False),
        nn.Upsample(scale_factor=2),
    )
    return nn.Sequential(*layers).eval()


@pytest.mark.parametrize(("shape", "size", "overlap"), CASES)
def test_weights_add_up_to_one_everywhere(shape, size, overlap) -> None:
    windows = Windows(size, (overlap,) * len(size), margin=3, align=4)
    ones = gathered(lambda x: torch.ones(len(x), 3, *x.shape[2:]), picture(shape), windows)
    torch.testing.assert_close(ones, torch.ones_like(ones))


@pytest.mark.parametrize(("shape", "size", "overlap"), CASES)
@pytest.mark.parametrize("band", [48, 8192])
def test_a_network_that_sees_less_than_the_margin_says_what_it_says_of_the_whole(shape, size, overlap, band) -> None:
    pixels, net = picture(shape), network(len(shape))
    windows = Windows(size, (overlap,) * len(size), margin=4, align=2)
    padded = [n for length in reversed(shape) for n in (0, 64 - length % 64)]
    with torch.inference_mode():
        whole = net(nn.functional.pad(torch.from_numpy(pixels), padded)[None])[0][:, *(slice(0, n) for n in shape)]
        parts = gathered(net, pixels, windows, band=band, batch=3)
    torch.testing.assert_close(parts, whole, atol=1e-5, rtol=1e-5)


def test_blocks_do_not_depend_on_where_the_work_begins() -> None:
    pixels, net, windows = picture((150, 200)), network(2), Windows((32, 32), (12, 12), 2, 2)

    def run(start: int = 0):
        found = blocks(net, reader(pixels), (150, 200), windows, 3, band=64, start=start)
        return [(block.spans, block.probabilities.clone()) for block in found]

    with torch.inference_mode():
        whole = run()
        assert len({spans for spans, _ in whole}) == len(whole)
        for start in (1, 4, len(whole) // 2, len(whole) - 1):
            for (spans, found), (other, again) in zip(whole[start:], run(start), strict=True):
                assert spans == other
                assert torch.equal(found, again)


def test_windows_without_data_are_not_looked_at() -> None:
    pixels, valid = picture((64, 256)), np.zeros((64, 256), bool)
    valid[:, 200:] = True
    looked: list[int] = []

    def predict(x: Tensor) -> Tensor:
        looked.append(len(x))
        return torch.ones(len(x), 3, *x.shape[2:])

    out = gathered(predict, pixels, Windows((64, 64), (16, 16)), valid=valid)
    assert sum(looked) == 2
    assert not out[:, :, :144].any()


def test_a_cut_that_cannot_be_is_refused() -> None:
    for size, overlap, margin, align in ((32, 20, 0, 1), (32, 8, 5, 1), (32, 8, 0, 32)):
        with pytest.raises(ConfigError):
            Windows((size,), (overlap,), margin, align)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the thresholds are glibc's")
def test_memory_stays_until_the_end() -> None:
    def used() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

    with kept():
        large = torch.ones(2**25)  # 128 MiB
        del large
        inside = used()
    assert inside - used() > 2**26
    with pytest.raises(KeyError), kept():
        raise KeyError
    large = torch.ones(2**25)
    held = used()
    del large
    assert held - used() > 2**26, "a map of its own again"
