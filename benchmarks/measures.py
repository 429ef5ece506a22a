"""What is measured of a kernel, by the same client code for every provisioner."""

from __future__ import annotations

import subprocess
import sys
import time
from typing import Any

from jupyter_client.blocking.client import BlockingKernelClient
from jupyter_client.manager import KernelManager

PATIENCE = 120.0
ASK_AGAIN = 10.0
"""Seconds after which an unanswered kernel_info_request is sent again (a peer may have gone with it)."""

QUIET = 2.0
"""Seconds without output after which, once the reply is here, nothing is expected to come any more."""

COLD = """
import sys
from jupyter_client.manager import KernelManager
km = KernelManager(kernel_name=sys.argv[1])
km.start_kernel()
kc = km.client()
kc.start_channels(hb=False)
asked = kc.kernel_info()
while kc.get_shell_msg(timeout=120)["parent_header"].get("msg_id") != asked:
    pass
print("replied", flush=True)
kc.stop_channels()
km.shutdown_kernel()
"""


class Session:
    """One kernel and one client of it, from ``start`` to ``stop``."""

    def __init__(self, kernel_name: str) -> None:
        self.manager = KernelManager(kernel_name=kernel_name)
        self.client: BlockingKernelClient

    def start(self) -> tuple[float, float]:
        """Return the seconds to the first kernel_info_reply, and to the first execute_reply."""
        begin = time.perf_counter()
        self.manager.start_kernel()
        self.client = self.manager.client()
        self.client.start_channels(hb=False)
        self._first_reply()
        informed = time.perf_counter() - begin
        self._reply_to(self.client.execute("pass"), PATIENCE)
        return informed, time.perf_counter() - begin

    def restart(self) -> float:
        """Return the seconds of a graceful restart, to the new kernel's first reply."""
        begin = time.perf_counter()
        self.manager.restart_kernel()
        self._first_reply()
        return time.perf_counter() - begin

    def stop(self) -> float:
        """Return the seconds that the shutdown takes."""
        self.client.stop_channels()
        begin = time.perf_counter()
        self.manager.shutdown_kernel()
        return time.perf_counter() - begin

    def settle(self) -> None:
        """Take what is still on its way, so that it counts for nobody."""
        self._reply_to(self.client.kernel_info(), PATIENCE)
        while self._iopub(0.3) is not None:
            pass

    def round_trips(self, count: int) -> list[float]:
        """Return the seconds from sending ``pass`` until both reply and idle are here."""
        took = []
        for _ in range(count):
            begin = time.perf_counter()
            asked = self.client.execute("pass")
            self._reply_to(asked, PATIENCE)
            self._until_idle(asked)
            took.append(time.perf_counter() - begin)
        return took

    def prints(self, count: int) -> tuple[float, int]:
        """Return the rate at which flushed prints come, in lines a second, and how many did not."""
        seconds, texts = self._output(f"for i in range({count}): print(i, flush=True)")
        lines = "".join(texts).split()
        return len(lines) / seconds, count - len(set(lines))

    def output(self, count: int, size: int) -> tuple[float, int]:
        """Return the MB a second of ``count`` messages with ``size`` bytes of text, and how many are lost."""
        code = f"text = 'x' * {size - 1} + '\\n'\nfor i in range({count}): print(text, end='', flush=True)"
        seconds, texts = self._output(code)
        received = sum(map(len, texts))
        return received / seconds / 1e6, round((count * size - received) / size)

    def _output(self, code: str) -> tuple[float, list[str]]:
        """Return the seconds to idle, and the texts that came.

        Stock may drop idle as it drops output: then the seconds to the last message that came.
        """
        begin = last = time.perf_counter()
        asked = self.client.execute(code)
        texts: list[str] = []
        replied = False
        while True:
            message = self._iopub(QUIET)
            if message is None:
                if replied:
                    return last - begin, texts
                replied = self._reply_to(asked, QUIET)
                continue
            last = time.perf_counter()
            if message["parent_header"].get("msg_id") != asked:
                continue
            if message["msg_type"] == "stream":
                texts.append(message["content"]["text"])
            elif _is_idle(message):
                replied = replied or self._reply_to(asked, PATIENCE)
                return last - begin, texts

    def _first_reply(self) -> None:
        end = time.perf_counter() + PATIENCE
        while time.perf_counter() < end:
            if self._reply_to(self.client.kernel_info(), ASK_AGAIN):
                return
        raise TimeoutError("the kernel does not answer")

    def _reply_to(self, asked: str, timeout: float) -> bool:
        end = time.perf_counter() + timeout
        while (left := end - time.perf_counter()) > 0:
            try:
                message = self.client.get_shell_msg(timeout=left)
            except Exception as error:  # queue.Empty, wrapped or not by the release
                if type(error).__name__ != "Empty":
                    raise
                return False
            if message["parent_header"].get("msg_id") == asked:
                return True
        return False

    def _until_idle(self, asked: str) -> None:
        while True:
            message = self._iopub(PATIENCE)
            if message is None:
                raise TimeoutError("no idle message came")
            if message["parent_header"].get("msg_id") == asked and _is_idle(message):
                return

    def _iopub(self, timeout: float) -> dict[str, Any] | None:
        try:
            message: dict[str, Any] = self.client.get_iopub_msg(timeout=timeout)
        except Exception as error:
            if type(error).__name__ != "Empty":
                raise
            return None
        return message


def _is_idle(message: dict[str, Any]) -> bool:
    return bool(message["msg_type"] == "status" and message["content"]["execution_state"] == "idle")


def cold_start(kernel_name: str) -> float:
    """Return the seconds from the start of a new Python to its first kernel's first reply."""
    begin = time.perf_counter()
    with subprocess.Popen([sys.executable, "-c", COLD, kernel_name], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        seconds = time.perf_counter() - begin
    if line != b"replied\n" or process.returncode:
        raise RuntimeError(f"the cold start of {kernel_name} failed with code {process.returncode}")
    return seconds
