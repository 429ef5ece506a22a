"""The core of one process: a thread of its own with an event loop, whatever loops the host runs."""

from __future__ import annotations

import asyncio
import atexit
import logging
import os
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from typing import Any, TypeVar

from . import parcel
from .errors import CoreClosed, ElsewhereError
from .home import Home
from .identity import Identity
from .kernels import Kernel
from .rundir import RunDirectory
from .settings import Switchboard as SwitchboardSettings

EXIT_TIMEOUT = 15.0
"""Seconds that the end of the process waits for its kernels to be gone."""

T = TypeVar("T")
logger = logging.getLogger(__name__)


class Core:
    """One home in a thread. Any thread may call; at the interpreter's exit it ends what it started.
    ``home`` itself belongs to the core's loop.

    ``open_home`` runs on the core's loop and returns the home, opened; what it raises, the constructor
    raises.
    """

    _shared: Core | None = None
    _shared_lock = threading.Lock()

    def __init__(self, open_home: Callable[[], Coroutine[Any, Any, Home]]) -> None:
        self._kernels: set[Kernel] = set()
        self._loop = asyncio.new_event_loop()
        self._closed = False
        self._pid = os.getpid()
        self._thread = threading.Thread(target=self._run, name="elsewhere", daemon=True)
        self._thread.start()
        try:
            self.home: Home = self.submit(open_home()).result()
        except BaseException:
            self._stop_loop()
            raise
        atexit.register(self.close)

    @classmethod
    def shared(cls, settings: SwitchboardSettings) -> Core:
        """Return the core of this process, made at the first call (and anew after a fork)."""
        with cls._shared_lock:
            core = cls._shared
            if core is None or core._closed or core._pid != os.getpid():
                core = cls._shared = cls(lambda: _open_alone(settings))
            return core

    def share(self) -> None:
        """Be the core that ``shared`` returns in this process. Raises ElsewhereError if there is one."""
        with self._shared_lock:
            if self._shared is not None and not self._shared._closed:
                raise ElsewhereError("this process has a core already")
            Core._shared = self

    def kernel(self, kernel_id: str) -> Kernel:
        """Return a kernel to be started."""
        return Kernel(self.home, kernel_id)

    def keep(self, kernel: Kernel) -> None:
        """It is about to be started: end it with this core."""
        self._kernels.add(kernel)

    def forget(self, kernel: Kernel) -> None:
        """It has been ended."""
        self._kernels.discard(kernel)

    def submit(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        """Run a coroutine on the core's loop. Raises CoreClosed."""
        if self._closed or self._pid != os.getpid():
            work.close()
            raise CoreClosed("elsewhere has been shut down in this process")
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    async def call(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on the core's loop and wait for it on the caller's; cancellation crosses."""
        return await asyncio.wrap_future(self.submit(work))

    def soon(self, callback: Callable[..., object], *args: object) -> None:
        """Have the core's loop call this, after all that was asked of it before. Nothing once closed."""
        if not self._closed and self._pid == os.getpid():
            self._loop.call_soon_threadsafe(callback, *args)

    def close(self, *, keep_kernels: bool = False) -> None:
        """End every kernel, unless they are to be kept, and stop the thread. May be called again."""
        atexit.unregister(self.close)
        if self._closed or self._pid != os.getpid():
            return
        ending = self.submit(self._aclose(keep_kernels))
        self._closed = True
        try:
            ending.result(EXIT_TIMEOUT)
        except TimeoutError:
            logger.warning("some kernels were not gone after %g s", EXIT_TIMEOUT)
        finally:
            self._stop_loop()

    async def _aclose(self, keep_kernels: bool) -> None:
        if keep_kernels:
            self.home.leaves_kernels = True
            for kernel in self._kernels:
                kernel.leave()
            self._kernels.clear()
        ends = [kernel.end() for kernel in self._kernels]
        for result in await asyncio.gather(*ends, return_exceptions=True):
            if isinstance(result, ElsewhereError):
                logger.warning("while ending a kernel: %s", result)
            elif isinstance(result, BaseException):
                logger.error("while ending a kernel", exc_info=result)
        self._kernels.clear()
        await self.home.aclose()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_forever()
        finally:
            self._loop.close()

    def _stop_loop(self) -> None:
        self._closed = True
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(EXIT_TIMEOUT)


async def _open_alone(settings: SwitchboardSettings) -> Home:
    rundir = RunDirectory()
    try:
        home = Home(settings, rundir, Identity.create())
        parcel.agent_archive()
        await home.open()
    except BaseException:
        rundir.remove()
        raise
    return home
