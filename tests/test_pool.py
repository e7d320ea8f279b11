"""Experts stay warm, as long as they fit."""

from __future__ import annotations

from pathlib import Path
from threading import Barrier, Thread

import pytest
import scene_files as files
import torch
from torch import nn

from experts.network import save
from experts.pool import Pool, Pooled, size
from experts.segmentation import build
from fovea.contracts import Expert
from fovea.errors import ExpertError


def opened(names: list[str]):
    """An opener that makes experts of 4000 bytes and notes what it made."""

    def opener(kind: str, folder: Path | None):
        names.append(folder.name)
        return files.expert(files.recipe(), nn.Linear(999, 1))

    return opener


def test_the_least_recently_used_goes_first(tmp_path):
    names: list[str] = []
    pool = Pool(8000, opened(names))
    first = pool.get("segmentation", tmp_path / "a")
    assert size(first) == 4000
    pool.get("segmentation", tmp_path / "b")
    assert pool.get("segmentation", tmp_path / "a") is first
    pool.get("segmentation", tmp_path / "c")
    assert (len(pool), pool.bytes) == (2, 8000)
    assert pool.get("segmentation", tmp_path / "a") is first
    pool.get("segmentation", tmp_path / "b")
    assert names == ["a", "b", "c", "b"]


def test_an_expert_larger_than_the_limit_is_refused(tmp_path):
    pool = Pool(3999, opened([]))
    with pytest.raises(ExpertError, match="limit of the pool"):
        pool.get("segmentation", tmp_path / "a")
    assert (len(pool), pool.bytes) == (0, 0)


def test_threads_open_each_expert_once_and_different_ones_at_the_same_time(tmp_path):
    names: list[str] = []
    meet, opener, found = Barrier(2, timeout=60), opened(names), []

    def slow(kind: str, folder: Path | None):
        meet.wait()  # both are being opened
        return opener(kind, folder)

    pool = Pool(10_000, slow)

    def ask(name: str) -> None:
        found.append((name, pool.get("segmentation", tmp_path / name)))

    threads = [Thread(target=ask, args=(name,)) for name in "abababab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(names) == ["a", "b"]
    assert len({id(expert) for _, expert in found}) == 2


def test_threads_never_hold_more_than_the_limit(tmp_path):
    pool = Pool(12_000, opened([]))
    seen: list[int] = []

    def work(seed: int) -> None:
        for step in range(60):
            pool.get("segmentation", tmp_path / str((seed * 7 + step * 5) % 9))
            seen.append(pool.bytes)

    threads = [Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(seen) == 240
    assert max(seen) <= 12_000


def test_an_expert_that_was_trained_again_is_opened_anew(tmp_path):
    def train(seed: int) -> None:
        torch.manual_seed(seed)
        config = files.recipe()
        expert = files.expert(config, build(config))
        save(tmp_path, config, expert.calibrations, expert.network, expert.card)

    pool = Pool(2**26)
    train(0)
    first = pool.get("segmentation", tmp_path)
    assert pool.get("segmentation", tmp_path) is first
    train(1)
    second = pool.get("segmentation", tmp_path)
    assert second.card.version != first.card.version
    assert len(pool) == 1


def test_an_expert_that_made_room_answers_again(tmp_path):
    names: list[str] = []
    pool = Pool(4000, opened(names))
    one, two = (Pooled(pool, "segmentation", tmp_path / name) for name in ("a", "b"))
    assert (names, pool.bytes) == (["a", "b"], 4000)
    assert isinstance(one, Expert)
    assert one.card == two.opened().card
    study = files.study(files.pixels(files.truth(64, 64, 1), 1))
    assert one.accepts(study)
    assert names == ["a", "b", "a"]
    assert one.accepts(study)
    assert (names, len(pool)) == (["a", "b", "a"], 1)
