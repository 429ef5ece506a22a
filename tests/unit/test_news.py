"""Word of changes between threads, and streams that a server ends before itself."""

from __future__ import annotations

import asyncio
import threading
from datetime import datetime, timedelta, timezone

import pytest

from elsewhere.gateway.detail import KernelDetail, stamp
from elsewhere.gateway.news import News, Streams


async def test_quick_changes_in_another_thread_come_as_one_and_the_last_is_not_missed() -> None:
    state = 0
    seen: list[int] = []
    last = asyncio.Event()

    def came() -> None:
        seen.append(state)
        if state == 1000:
            last.set()

    news = News(came)

    def change() -> None:
        nonlocal state
        for _ in range(1000):
            state += 1
            news.ring()

    thread = threading.Thread(target=change)
    thread.start()
    thread.join()  # the loop does nothing meanwhile
    await last.wait()
    assert seen == [1000]
    news.ring()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert seen == [1000, 1000]


def test_news_for_a_loop_that_is_closed_are_dropped() -> None:
    async def make() -> News:
        return News(lambda: None)

    news = asyncio.run(make())
    news.ring()


class Stream:
    def __init__(self, streams: Streams, ends_by: str) -> None:
        self.streams, self.ends_by = streams, ends_by
        self.asked: list[str] = []
        streams.opened(self)

    def end(self) -> None:
        self._asked("end")

    def drop(self) -> None:
        self._asked("drop")

    def _asked(self, how: str) -> None:
        self.asked.append(how)
        if how == self.ends_by:
            self.streams.ended(self)


@pytest.mark.looptime
async def test_streams_are_asked_to_end_before_they_are_dropped() -> None:
    streams = Streams()
    polite, stuck, hopeless, late = (Stream(streams, how) for how in ("end", "drop", "never", "end"))
    streams.ended(late)
    streams.ended(late)
    await streams.aclose()
    assert (polite.asked, stuck.asked, late.asked) == (["end"], ["end", "drop"], [])
    assert hopeless.asked == ["end", "drop"]
    assert len(streams) == 1
    assert Stream(streams, "end").asked == ["end"], "who comes after the end is told at once"


def detail(**values: object) -> KernelDetail:
    now = datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone.utc)
    asked = {
        "id": "k",
        "name": "python3",
        "last_activity": now,
        "execution_state": "idle",
        "connections": 0,
        "state": "idle",
        "status": "kernel ready",
    }
    return KernelDetail.model_validate({**asked, **values})


def test_times_have_microseconds_and_z_even_on_the_full_second() -> None:
    elsewhere = timezone(timedelta(hours=2))
    assert stamp(datetime(2026, 1, 2, 3, 4, 5, tzinfo=elsewhere)) == "2026-01-02T01:04:05.000000Z"
    one = detail(steps={"asked": datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=timezone.utc)})
    assert '"last_activity":"2026-01-02T03:04:05.000000Z"' in one.model_dump_json()
    assert '"steps":{"asked":"2026-01-02T03:04:05.000006Z"}' in one.model_dump_json()
    assert KernelDetail.model_validate_json(one.model_dump_json()) == one


def test_what_moves_while_a_kernel_computes_is_no_news() -> None:
    later = datetime(2026, 2, 2, tzinfo=timezone.utc)
    assert detail().differs(None)
    assert not detail().differs(detail(last_activity=later, spooled_bytes=5))
    changes: list[dict[str, object]] = [{"state": "busy"}, {"reason": "x"}, {"steps": {"asked": later}}]
    for change in changes:
        assert detail(**change).differs(detail())
