"""What stock code takes for the control socket of a kernel, without a socket."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future

from elsewhere.agent.zmtp import encode_message
from elsewhere.core import Core
from elsewhere.kernels import Kernel


class ControlLine:
    """Sends what jupyter_client's ``Session.send`` gives it through the agent's connection."""

    def __init__(self, core: Core, kernel: Kernel) -> None:
        self._core = core
        self._kernel = kernel
        self._asked: set[Future[None]] = set()

    def send_multipart(self, parts: Sequence[bytes], copy: bool = True) -> None:
        """Send, now or when the agent is connected."""
        asked = self._core.submit(self._kernel.ask_control(encode_message(parts)))
        self._asked.add(asked)
        asked.add_done_callback(self._asked.discard)

    def close(self) -> None:
        """Ask nothing any more."""
        for asked in list(self._asked):
            asked.cancel()
