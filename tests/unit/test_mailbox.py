"""Mailboxes: each front end gets its own, once and in order, whatever dies in between."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mailbox_kit import FrontEnd, KernelSockets, Office, message

from elsewhere.agent.words import LETTER, Report
from elsewhere.mailbox import WINDOW


@pytest.fixture
async def office(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Office]:
    one = Office(monkeypatch)
    try:
        yield one
    finally:
        await one.close()


async def test_output_goes_to_all_and_a_reply_to_who_asked(office: Office) -> None:
    await office.connect()
    one, two = FrontEnd(office, "one"), FrontEnd(office, "two")
    one.asks(b"1")
    two.asks(b"2", "control")
    await office.carry()
    office.publish(b"out")
    of_one, of_two = KernelSockets.made
    of_one.answer("shell", b"reply to one")
    of_two.answer("control", b"reply to two")
    of_two.answer("stdin", b"name?")
    await office.carry()
    assert (of_one.asked, of_two.asked) == ([("shell", b"1")], [("control", b"2")])
    assert one.heard() == two.heard() == [b"out"]
    assert (one.heard("shell"), two.heard("shell")) == ([b"reply to one"], [])
    assert (two.heard("control"), two.heard("stdin")) == ([b"reply to two"], [b"name?"])
    assert len(office.outbox.spool) == 0


async def test_a_reply_never_overtakes_output(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("elsewhere.agent.outbox.PAUSE", 3600)
    await office.connect()
    one = FrontEnd(office, "one")
    one.asks(b"1")
    await office.carry()
    office.publish(b"at once")
    office.publish(b"later")
    KernelSockets.made[0].answer("shell", b"reply")
    await office.carry()
    assert [letter.channel for letter in one.letters] == ["iopub", "iopub", "shell"]


async def test_the_first_front_end_gets_what_was_said_before_it_and_later_ones_do_not(office: Office) -> None:
    office.publish(b"early")
    await office.connect()
    one = FrontEnd(office, "one")
    await office.carry()
    two = FrontEnd(office, "two")
    await office.carry()
    office.publish(b"late")
    await office.carry()
    assert one.heard() == [b"early", b"late"]
    assert two.heard() == [b"late"]


async def test_requests_wait_for_the_link_and_for_the_kernel(office: Office) -> None:
    office.line.report = Report(1, "starting")
    one = FrontEnd(office, "one")
    one.asks(b"1")
    await office.connect()
    assert KernelSockets.made == []
    office.line.heard(Report(1, "ready"))
    await office.carry()
    assert KernelSockets.made[0].asked == [("shell", b"1")]
    assert one.box.waiting == 0


async def test_a_front_end_that_is_back_gets_what_it_missed(office: Office) -> None:
    await office.connect()
    one = FrontEnd(office, "one")
    one.asks(b"1")
    await office.carry()
    office.publish(b"before")
    await office.carry()
    one.goes()
    await office.carry()
    office.publish(b"meanwhile")
    KernelSockets.made[0].answer("shell", b"reply")
    back = FrontEnd(office, "one", received=one.last)
    back.asks(b"2")
    await office.carry()
    assert (back.heard(), back.heard("shell")) == ([b"meanwhile"], [b"reply"])
    assert KernelSockets.made[0].asked == [("shell", b"1"), ("shell", b"2")]


async def test_the_next_life_of_home_gives_what_the_last_did_not(office: Office) -> None:
    await office.connect()
    one = FrontEnd(office, "one")
    one.asks(b"1")
    await office.carry()
    office.publish(b"a", b"b")
    office.publish(b"c")
    await office.carry()
    assert one.last == 3
    await office.home_dies()
    office.publish(b"d")
    KernelSockets.made[0].answer("shell", b"reply")
    back = FrontEnd(office, "one", received=1)  # the front end's socket had not taken b and c
    back.asks(b"2")
    await office.connect()
    assert back.heard() == [b"d"], "what was confirmed is not there any more"
    assert back.heard("shell") == [b"reply"]
    assert KernelSockets.made[0].asked == [("shell", b"1"), ("shell", b"2")]


async def test_what_home_had_but_the_front_end_had_not_is_given_by_the_next_life(office: Office) -> None:
    await office.connect()
    one = FrontEnd(office, "one")
    one.taking = False
    await office.carry()
    office.publish(b"a", b"b", b"c")
    await office.carry()
    await office.home_dies()
    back = FrontEnd(office, "one", received=1)
    await office.connect()
    assert back.heard() == [b"b", b"c"]


async def test_who_leaves_for_good_is_forgotten_and_nothing_is_kept_for_it(office: Office) -> None:
    await office.connect()
    one = FrontEnd(office, "one")
    one.asks(b"1")
    await office.carry()
    one.goes(for_good=True)
    await office.carry()
    assert KernelSockets.made[0].closed
    office.publish(b"for nobody")
    assert len(office.outbox.spool) == 0
    back = FrontEnd(office, "one")
    await office.carry()
    assert back.heard() == []


async def test_who_is_away_gives_way_to_who_is_here_when_there_is_no_room(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    office = Office(monkeypatch, memory=1000)
    await office.connect()
    away, here = FrontEnd(office, "away"), FrontEnd(office, "here")
    await office.carry()
    away.goes()
    await office.carry()
    for number in range(50):
        office.publish(b"%d" % number * 50)
        await office.carry()
    assert here.heard() == [b"%d" % number * 50 for number in range(50)]
    assert office.outbox.folded_messages == 0
    await office.close()


async def test_a_front_end_that_takes_nothing_costs_home_a_window_and_nobody_else_waits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    office = Office(monkeypatch, memory=100 << 20)
    await office.connect()
    stuck, quick = FrontEnd(office, "stuck"), FrontEnd(office, "quick")
    stuck.taking = False
    await office.carry()
    texts = [b"%d" % number + b"x" * 100_000 for number in range(100)]
    for text in texts:
        office.publish(text)
        await office.carry()
    assert quick.heard() == texts
    assert sum(len(letter.wire) for letter in stuck.letters) <= WINDOW + 100_100
    stuck.take_all()
    await office.carry()
    assert stuck.heard() == texts
    assert len(office.outbox.spool) == 0
    await office.close()


async def test_a_message_longer_than_the_window_comes_through(office: Office) -> None:
    await office.connect()
    one = FrontEnd(office, "one")
    one.taking = False
    await office.carry()
    office.publish(b"x" * (3 * WINDOW))
    await office.carry()
    assert one.heard() == [b"x" * (3 * WINDOW)]
    one.asks(b"y" * (3 * WINDOW))
    await office.carry()
    assert KernelSockets.made[0].asked == [("shell", b"y" * (3 * WINDOW))]


async def test_a_kernel_that_takes_nothing_holds_its_front_end_back(office: Office) -> None:
    await office.connect()
    one = FrontEnd(office, "one")
    one.asks(b"first")
    await office.carry()
    sockets = KernelSockets.made[0]
    sockets.crowded = True
    for _ in range(40):
        one.asks(b"x" * 100_000)
    await office.carry()
    asked = len(sockets.asked)
    assert asked < 10
    assert one.box.waiting > 3_000_000
    waiting = asyncio.ensure_future(one.box.drained(1000))
    sockets.take_again()
    await office.carry()
    await waiting
    assert len(sockets.asked) == 41


async def test_the_next_kernel_gets_sockets_of_its_own(office: Office) -> None:
    await office.connect()
    one = FrontEnd(office, "one")
    one.asks(b"1")
    await office.carry()
    office.alive = False
    office.mailboxes.kernel_gone()
    assert KernelSockets.made[0].closed
    one.asks(b"lost with the kernel")
    await office.carry()
    office.alive = True
    one.asks(b"2")
    await office.carry()
    assert KernelSockets.made[1].asked == [("shell", b"2")]


async def test_a_new_job_begins_anew_and_keeps_what_still_waits(office: Office) -> None:
    await office.connect()
    one = FrontEnd(office, "one")
    await office.carry()
    office.publish(b"a")
    await office.carry()
    await office.tear()
    one.asks(b"not sent yet")
    one.box.new_job(2)
    assert (one.box.launch, one.box.received) == (2, 0)
    assert one.box.waiting == len(message(b"not sent yet"))


async def test_garbage_on_its_stream_ends_the_mailbox_and_nothing_else(office: Office) -> None:
    await office.connect()
    one, two = FrontEnd(office, "one"), FrontEnd(office, "two")
    await office.carry()
    carrier = one.box._carrier
    assert carrier is not None
    carrier._stream.write(LETTER.pack(99, 1, 1, 1))  # type: ignore[attr-defined]
    await office.carry()
    office.publish(b"goes on")
    await office.carry()
    assert (one.heard(), two.heard()) == ([], [b"goes on"])


NAMES = ("one", "two")
steps = st.lists(
    st.one_of(
        st.tuples(st.just("publish"), st.integers(1, 4)),
        st.tuples(st.sampled_from(["ask one", "ask two", "answer"]), st.just(1)),
        st.tuples(st.just("carry"), st.integers(1, 3000)),
        st.tuples(st.sampled_from(["tear", "die"]), st.just(0)),
        st.tuples(st.sampled_from(["away one", "away two"]), st.just(0)),
        st.tuples(st.sampled_from(["slow one", "slow two"]), st.just(0)),
    ),
    max_size=30,
)


@given(steps)
@settings(max_examples=80, deadline=None)
def test_whatever_dies_each_front_end_gets_all_once_and_in_order(script: list[tuple[str, int]]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        asyncio.run(played(Office(patch), script))


async def played(office: Office, script: list[tuple[str, int]]) -> None:
    """Front ends keep what they heard over lives of home, as a browser does, and never ask for it again."""
    await office.connect()
    ends = {name: FrontEnd(office, name) for name in NAMES}
    await office.carry()
    heard: dict[str, list[bytes]] = {name: [] for name in NAMES}
    replies: dict[str, list[bytes]] = {name: [] for name in NAMES}
    published: list[bytes] = []
    answered = 0
    taken = dict.fromkeys(NAMES, 0)

    def back(name: str) -> None:
        """The front end's socket has taken what home gave it so far; it comes again with that."""
        end = ends[name]
        heard[name] += end.heard()
        replies[name] += end.heard("shell")
        taken[name] = max(taken[name], end.last)
        ends[name] = FrontEnd(office, name, received=taken[name])

    for what, size in script:
        what, _, name = what.partition(" ")
        if what == "publish":
            texts = [b"%d" % (len(published) + i) for i in range(size)]
            published += texts
            office.publish(*texts)
        elif what == "ask":
            ends[name].asks(b"request")
        elif what == "answer":
            for sockets in KernelSockets.made:
                sockets.answer("shell", b"reply %d" % answered)
            answered += 1
        elif what == "carry":
            await office.carry(size)
        elif what == "tear":
            await office.tear()
            await office.connect()
        elif what == "die":
            await office.home_dies()
            for one in NAMES:
                back(one)
            await office.connect()
        elif what == "away":
            ends[name].goes()
            back(name)
        else:
            ends[name].taking = False
    for end in ends.values():
        end.take_all()
    await office.carry()
    for name in NAMES:
        end = ends[name]
        assert heard[name] + end.heard() == published
        got = replies[name] + end.heard("shell")
        assert got == sorted(set(got), key=got.index)
        assert len(got) in (0, *range(answered + 1))
    assert len(office.outbox.spool) == 0
    await office.close()
