"""When a gateway's process looks for garbage, and that it leaves Python's ways behind it."""

from __future__ import annotations

import asyncio
import gc

import pytest

from elsewhere.gateway.garbage import EVERY, YOUNG, Garbage


@pytest.mark.looptime
async def test_all_is_looked_at_from_time_to_time_and_python_gets_its_ways_back() -> None:
    before = gc.get_threshold()
    garbage = Garbage()
    looks: list[int] = []

    def looked(phase: str, info: dict[str, int]) -> None:
        if phase == "start" and info["generation"] == 2:
            looks.append(1)

    garbage.start()
    try:
        assert gc.get_threshold() == YOUNG
        gc.callbacks.append(looked)
        await asyncio.sleep(3 * EVERY + 1)
        assert len(looks) == 3
    finally:
        gc.callbacks.remove(looked)
        garbage.close()
        garbage.close()
    assert gc.get_threshold() == before
    assert gc.get_freeze_count() == 0
