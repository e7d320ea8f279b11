"""A child that dies, hangs, grows or lies costs one answer, and the next call gets a fresh one."""

from __future__ import annotations

import multiprocessing
import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from domains.formats import isolation
from domains.formats.content import check_size, file_hash
from domains.formats.isolation import isolated
from fovea.errors import InputError, LimitError

TASKS = """
import ctypes, os, time
import numpy as np

def echo(*given): return given
def die(): os.abort()
def crash(): ctypes.string_at(0)
def hang():
    while True: pass
def sleep(): time.sleep(60)
def grow(): return float(np.ones(2**31).sum())
def whoami(): return os.getpid()
def blank(rows): return np.zeros((rows, 3), ">i2"), np.ones(rows, bool)
def objects(): return np.array([None])
def shout(): print("noise"); return 1
"""


@pytest.fixture
def tasks(tmp_path, monkeypatch):
    (tmp_path / "foreign_tasks.py").write_text(TASKS)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(isolation, "_pools", [])
    import foreign_tasks

    return foreign_tasks


def test_values_and_arrays_come_back_as_they_were(tasks, tmp_path):
    given = (tmp_path, None, 1, 0.5, True, "ü", [1, [2]], {"a": [None]})
    assert isolated(tasks.echo, *given) == given
    pixels, valid = isolated(tasks.blank, 4)
    assert (pixels.shape, pixels.dtype.str, valid.dtype) == ((4, 3), ">i2", np.dtype(bool))
    assert isolated(tasks.shout) == 1


@pytest.mark.parametrize("end", ["die", "crash", "objects"])
def test_a_death_is_an_input_error_and_the_next_call_works(tasks, end):
    before = isolated(tasks.whoami)
    with pytest.raises(InputError, match="ended its process"):
        isolated(getattr(tasks, end))
    assert isolated(tasks.whoami) not in (before, os.getpid())


def test_a_task_that_hangs_or_grows_ends_at_its_limit(tasks):
    with pytest.raises(LimitError, match=r"0\.5 s"):
        isolated(tasks.hang, seconds=0.5)
    with pytest.raises(LimitError, match=r"0\.05 s"):
        isolated(tasks.sleep, seconds=0.05)
    with pytest.raises(LimitError, match="memory"):
        isolated(tasks.grow)
    assert isolated(tasks.echo, 1) == (1,)


def test_errors_of_ours_come_back_as_themselves(tasks, tmp_path):
    with pytest.raises(LimitError, match="1073741824 × 2 values"):
        isolated(check_size, 2**30, 2)
    with pytest.raises(InputError, match="FileNotFoundError"):
        isolated(file_hash, tmp_path / "none")
    assert isolated(tasks.whoami) == isolated(tasks.whoami)


def test_threads_work_side_by_side_and_a_fork_has_children_of_its_own(tasks):
    with ThreadPoolExecutor(4) as threads:
        rows = list(threads.map(lambda n: isolated(tasks.blank, n)[0].shape[0], range(40)))
    assert rows == list(range(40))
    mine = isolated(tasks.whoami)
    with multiprocessing.get_context("fork").Pool(1) as other:
        assert other.apply(isolated, (tasks.whoami,)) != mine
    assert isolated(tasks.whoami) == mine
