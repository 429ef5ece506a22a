"""Whether a gateway is ready: which part does not answer, asked for once by all who ask."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from elsewhere.errors import CoreClosed, ElsewhereError
from elsewhere.gateway.health import VALID, Readiness

pytestmark = pytest.mark.looptime


class Core:
    """Runs what it is asked on this loop, when it does."""

    def __init__(self) -> None:
        self.state = "ok"

    async def call(self, work: Coroutine[Any, Any, Any]) -> Any:
        if self.state != "ok":
            work.close()
        if self.state == "closed":
            raise CoreClosed("closed")
        if self.state == "stuck":
            await asyncio.Event().wait()
        return await work


class Ledger:
    def __init__(self) -> None:
        self.state = "ok"
        self.asked = 0

    async def check(self) -> None:
        self.asked += 1
        if self.state == "broken":
            raise ElsewhereError("/secret/path: disk I/O error")
        if self.state == "stuck":
            await asyncio.Event().wait()


@pytest.mark.parametrize(
    ("core_state", "ledger_state", "parts"),
    [
        ("ok", "ok", {"core": "ok", "ledger": "ok"}),
        ("ok", "broken", {"core": "ok", "ledger": "cannot be read"}),
        ("ok", "stuck", {"core": "ok", "ledger": "does not answer"}),
        ("stuck", "ok", {"core": "does not answer", "ledger": "not asked"}),
        ("closed", "ok", {"core": "closed", "ledger": "not asked"}),
    ],
)
async def test_it_says_which_part_does_not_answer(
    core_state: str, ledger_state: str, parts: dict[str, str]
) -> None:
    core, ledger = Core(), Ledger()
    core.state, ledger.state = core_state, ledger_state
    assert await Readiness(core, ledger).parts() == parts  # type: ignore[arg-type]


async def test_many_who_ask_share_one_answer_until_it_is_old() -> None:
    core, ledger = Core(), Ledger()
    readiness = Readiness(core, ledger)  # type: ignore[arg-type]
    await asyncio.gather(*(readiness.parts() for _ in range(100)))
    assert ledger.asked == 1
    await asyncio.sleep(VALID)
    ledger.state = "broken"
    assert (await readiness.parts())["ledger"] == "cannot be read"
    ledger.state = "ok"
    await asyncio.sleep(VALID)
    assert (await readiness.parts())["ledger"] == "ok"
