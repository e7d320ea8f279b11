"""Foreign decoders in processes of their own, which may die without taking the caller along.

A task is a module-level function. It runs in one of a few warm child processes, with a limit on its
memory and on its time. What crosses the border is JSON and raw array bytes (in memory that both sides map, where they
fit), never a pickle, so that a child that a hostile file took over cannot run code here. An error of ours comes back as
itself; a child that dies, grows or hangs ends as an InputError or LimitError of this one file, and the next file gets a
fresh child.
"""

from __future__ import annotations

import importlib
import json
import mmap
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from domains.formats.content import LIMIT
from fovea import errors
from fovea.errors import FoveaError, InputError, LimitError

Reply = TypeVar("Reply")
SECONDS = 30.0
"""Processor time of a task unless the caller says so."""
_PATIENCE = 20
"""How many times that long a task may take by the clock: other processes want the processor too."""
_HEADROOM = 2**30 * 3 // 2
"""Bytes of private memory that a child may hold beside an image of the largest size: code, tables, copies."""
_SHARED = 2**25
"""Bytes of shared memory of a child; what is larger goes through its socket, at a third of the speed."""
_FRAME = struct.Struct("<Q")


def isolated(function: Callable[..., Reply], *arguments: Any, seconds: float = SECONDS) -> Reply:
    """Call a module-level function in a child process.

    Arguments are paths, numbers, texts, None, and lists and dicts of them; the function returns the same, or arrays,
    or a tuple of them (tuples inside JSON come back as lists). Raises what the function raises of our errors,
    LimitError when it takes more than `seconds` of processor time, and InputError when the child dies.
    """
    message = {
        "module": function.__module__,
        "name": function.__qualname__,
        "arguments": _plain(arguments),
        "seconds": seconds,
    }
    return _pool().call(message, seconds)  # type: ignore[no-any-return]


class _Pool:
    """Idle children, most recently used first; as many live as tasks run at once."""

    def __init__(self) -> None:
        self.owner = os.getpid()
        self._idle: list[_Child] = []
        self._lock = threading.Lock()

    def call(self, message: Any, seconds: float) -> Any:
        child = self._alive() or _Child()
        try:
            answer = child.call(message, seconds)
        except BaseException:
            child.close()
            raise
        with self._lock:
            self._idle.append(child)
        if isinstance(answer, FoveaError):
            raise answer
        return answer

    def _alive(self) -> _Child | None:
        """An idle child; those that somebody ended meanwhile are let go."""
        while True:
            with self._lock:
                child = self._idle.pop() if self._idle else None
            if child is None or child.alive:
                return child
            child.close()


_pools: list[_Pool] = []


def _pool() -> _Pool:
    """The pool of this process: a fork must not talk through its parent's sockets."""
    if not _pools or _pools[-1].owner != os.getpid():
        _pools[:] = [_Pool()]
    return _pools[0]


class _Child:
    """One process, the socket to it, and memory for its arrays; it ends by itself when the socket closes."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair()
        shared = os.memfd_create("arrays") if hasattr(os, "memfd_create") else -1
        self._shared = _mapped(shared)
        root = str(Path(__file__).parents[2])
        paths = os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])
        environment = {**os.environ, "PYTHONPATH": paths, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
        with theirs:
            self._process = subprocess.Popen(  # noqa: S603 # our own module, by its name
                [sys.executable, "-m", "domains.formats.isolation", str(theirs.fileno()), str(shared)],
                pass_fds=[fd for fd in (theirs.fileno(), shared) if fd >= 0],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
        if shared >= 0:
            os.close(shared)
        self._socket = ours

    def call(self, message: Any, seconds: float) -> Any:
        """The answer, or the error of ours that the task raised; other failures raise."""
        self._socket.settimeout(_PATIENCE * seconds)
        try:
            _send(self._socket, message)
            return _received(self._socket, self._shared)
        except TimeoutError:
            end = signal.SIGPROF.name
        except (OSError, EOFError, ValueError, LookupError, TypeError):
            end = self._last_words()
        if end == signal.SIGPROF.name:
            raise LimitError(
                f"a file whose decoding takes more than {seconds:g} s", "", "Convert it with a tool you trust."
            )
        raise InputError(
            f"a file whose decoding ended its process{f' ({end})' if end else ''}",
            "a whole, valid file",
            "Fetch or export it again.",
        )

    @property
    def alive(self) -> bool:
        """Whether the process still runs."""
        return self._process.poll() is None

    def close(self) -> None:
        self._socket.close()
        self._process.kill()
        self._process.wait()

    def _last_words(self) -> str:
        try:
            code = self._process.wait(1)
        except subprocess.TimeoutExpired:
            return ""
        return signal.Signals(-code).name if code < 0 else ""

    def __del__(self) -> None:
        if self._process.returncode is None:
            self.close()


def _mapped(descriptor: int) -> mmap.mmap | None:
    """The memory behind a descriptor, or None where the system has none to share."""
    if descriptor < 0:
        return None
    os.ftruncate(descriptor, _SHARED)
    return mmap.mmap(descriptor, _SHARED)


def _send(connection: socket.socket, value: Any, shared: mmap.mmap | None = None) -> None:
    """A JSON text whose arrays are replaced by their kind, shape and place; then the bytes of those without a place."""
    arrays: list[tuple[NDArray[Any], list[Any]]] = []
    plain = _plain(value, arrays)
    end = 0
    for array, entry in arrays:
        start = -(-end // 64) * 64
        if shared is not None and array.size and start + array.nbytes <= _SHARED:
            np.ndarray(array.shape, array.dtype, shared, start)[...] = array
            entry.append(start)
            end = start + array.nbytes
    text = json.dumps(plain).encode()
    connection.sendall(_FRAME.pack(len(text)) + text)
    for array, entry in arrays:
        if len(entry) == 2:
            connection.sendall(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)


def _received(connection: socket.socket, shared: mmap.mmap | None = None) -> Any:
    (size,) = _FRAME.unpack(_bytes(connection, _FRAME.size))
    if size > 2**26:
        raise ValueError(size)
    return _restored(json.loads(bytes(_bytes(connection, size))), connection, shared)


def _bytes(connection: socket.socket, size: int) -> bytearray | memoryview:
    block = bytearray(size)
    _fill(connection, memoryview(block))
    return block


def _fill(connection: socket.socket, view: memoryview) -> None:
    while view:
        count = connection.recv_into(view)
        if not count:
            raise EOFError
        view = view[count:]


def _plain(value: Any, arrays: list[tuple[NDArray[Any], list[Any]]] | None = None) -> Any:
    """As JSON has it; arrays and what describes them are appended to `arrays`, where that is given."""
    if isinstance(value, np.ndarray) and arrays is not None:
        arrays.append((value, [value.dtype.str, list(value.shape)]))
        return {"__array__": arrays[-1][1]}
    if isinstance(value, FoveaError):
        return {"__error__": [type(value).__name__, value.given, value.expected, value.remedy]}
    if isinstance(value, Path):
        return {"__path__": str(value)}
    if isinstance(value, tuple) and arrays is not None:
        return {"__tuple__": [_plain(item, arrays) for item in value]}
    if isinstance(value, (list, tuple)):
        return [_plain(item, arrays) for item in value]
    if isinstance(value, dict):
        return {str(key): _plain(item, arrays) for key, item in value.items()}
    return value


def _restored(value: Any, connection: socket.socket, shared: mmap.mmap | None = None) -> Any:
    if isinstance(value, list):
        return [_restored(item, connection, shared) for item in value]
    if not isinstance(value, dict):
        return value
    if "__array__" in value:
        kind, shape, *place = value["__array__"]
        dtype = np.dtype(kind)
        if dtype.kind not in "biuf" or int(np.prod(shape, dtype=object)) > 4 * LIMIT:
            raise ValueError(kind)
        if place:
            return np.ndarray([int(size) for size in shape], dtype, shared, place[0]).copy()
        array = np.empty([int(size) for size in shape], dtype)
        _fill(connection, array.reshape(-1).view(np.uint8).data)
        return array
    if "__error__" in value:
        name, *texts = value["__error__"]
        return getattr(errors, name)(*texts) if name in vars(errors) else FoveaError(*texts)
    if "__path__" in value:
        return Path(value["__path__"])
    if "__tuple__" in value:
        return tuple(_restored(item, connection, shared) for item in value["__tuple__"])
    return {key: _restored(item, connection, shared) for key, item in value.items()}


def _serve(connection: socket.socket, shared: mmap.mmap | None) -> None:
    """Answer calls until the other side is gone."""
    while True:
        try:
            message = _received(connection)
        except EOFError:
            return
        function = getattr(importlib.import_module(message["module"]), message["name"])
        answer: Any
        signal.setitimer(signal.ITIMER_PROF, message["seconds"])  # its signal ends the process, wherever it is
        try:
            answer = function(*message["arguments"])
        except FoveaError as error:
            answer = error
        except MemoryError:
            answer = LimitError("a file that needs more memory to decode than is allowed", "", "Split or shrink it.")
        signal.setitimer(signal.ITIMER_PROF, 0)
        _send(connection, answer, shared)


def _confine() -> None:
    """Limit the memory, take no part in Ctrl-C, leave no core files."""
    import resource

    resource.setrlimit(resource.RLIMIT_DATA, (4 * LIMIT + _HEADROOM, resource.RLIM_INFINITY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def main(arguments: Sequence[str]) -> None:
    """The child's side: the arguments are the numbers of its socket and of its shared memory."""
    _confine()
    with socket.socket(fileno=int(arguments[0])) as connection:
        _serve(connection, _mapped(int(arguments[1])))


if __name__ == "__main__":
    main(sys.argv[1:])
