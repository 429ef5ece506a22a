"""For probes: whether the process lives, and whether it can do its work."""

from __future__ import annotations

import asyncio
import json
import logging

from jupyter_server.auth.decorator import allow_unauthenticated
from jupyter_server.services.kernels.handlers import KernelsAPIHandler

from elsewhere.core import Core
from elsewhere.errors import CoreClosed, ElsewhereError
from elsewhere.gateway.ledger import Ledger

PATIENCE = 2.0
"""Seconds within which each part has to answer."""
VALID = 1.0
"""Seconds for which an answer is given again: who asks needs no token."""

OK = "ok"

logger = logging.getLogger(__name__)


class Readiness:
    """Asks each part whether it answers; all who ask at once share one answer."""

    def __init__(self, core: Core, ledger: Ledger) -> None:
        self._core = core
        self._ledger = ledger
        self._asking = asyncio.Lock()
        self._parts: dict[str, str] = {}
        self._until = 0.0

    async def parts(self) -> dict[str, str]:
        """Return each part with ``ok``, or with what is wrong; never more than a few fixed words."""
        loop = asyncio.get_running_loop()
        async with self._asking:
            if loop.time() >= self._until:
                self._parts = {"core": await self._ask_core()}
                self._parts["ledger"] = await self._ask_ledger() if self._parts["core"] == OK else "not asked"
                self._until = loop.time() + VALID
            return self._parts

    async def _ask_core(self) -> str:
        try:
            await asyncio.wait_for(self._core.call(asyncio.sleep(0)), PATIENCE)
        except CoreClosed:
            return "closed"
        except asyncio.TimeoutError:
            return "does not answer"
        return OK

    async def _ask_ledger(self) -> str:
        try:
            await asyncio.wait_for(self._core.call(self._ledger.check()), PATIENCE)
        except ElsewhereError as error:
            logger.warning("not ready: %s", error)
            return "cannot be read"
        except asyncio.TimeoutError:
            return "does not answer"
        return OK


class HealthHandler(KernelsAPIHandler):
    """``/healthz``: without a token, and it tells nothing else."""

    @allow_unauthenticated
    async def get(self) -> None:
        """We answer, so we live."""
        self.finish(json.dumps({"status": OK}))


class ReadyHandler(KernelsAPIHandler):
    """``/readyz``: without a token. 503 says which part is not ready, and not why: that is in the log."""

    @allow_unauthenticated
    async def get(self) -> None:
        """HTTP opens after the ledger is read; what is asked here is whether all still answers."""
        readiness: Readiness = self.settings["elsewhere_readiness"]
        parts = await readiness.parts()
        ready = all(part == OK for part in parts.values())
        self.set_status(200 if ready else 503)
        self.finish(json.dumps({"status": OK if ready else "not ready", **parts}))
