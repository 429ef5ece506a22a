"""The lines of the gateway's log."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from elsewhere.gateway.kernels import GatewayKernelManager
from elsewhere.gateway.logs import JsonLines, KernelLog, TextLines, without_secrets
from elsewhere.gateway.mapping import GatewayMappingKernelManager

KERNEL = "0a1b2c3d-0000-1111-2222-333344445555"


class Sink(logging.Handler):
    """Keeps what is written, as text and as JSON."""

    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []
        self.lines: list[dict[str, Any]] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(TextLines("%(levelname)s %(message)s").format(record))
        written = JsonLines("%(message)s", None, "%").format(record)
        assert "\n" not in written
        self.lines.append(json.loads(written))


@pytest.fixture
def sink() -> Iterator[Sink]:
    logger, sink = logging.getLogger("a.logger"), Sink()
    logger.addHandler(sink)
    logger.setLevel("DEBUG")
    yield sink
    logger.removeHandler(sink)


log = logging.getLogger("a.logger")


def test_a_line_is_one_object_with_time_level_logger_and_message(sink: Sink) -> None:
    log.warning("two\nlines, %s", "ünï\x00")
    (line,) = sink.lines
    assert line.pop("time").endswith("Z")
    assert line == {"level": "WARNING", "logger": "a.logger", "message": "two\nlines, ünï\x00"}


def test_an_exception_is_in_the_line(sink: Sink) -> None:
    try:
        raise ValueError("GET /x?token=abc")
    except ValueError:
        log.exception("oh")
    assert "ValueError" in sink.lines[0]["exception"]
    assert "ValueError" in sink.texts[0]
    assert "abc" not in sink.texts[0] + str(sink.lines)


def test_a_line_whose_arguments_do_not_fit_is_written_all_the_same(sink: Sink) -> None:
    class Bad:
        def __str__(self) -> str:
            raise RuntimeError

    for template, argument in (("%d", "x"), ("%s", Bad())):
        sink.emit(logging.LogRecord("a.logger", logging.INFO, "", 1, template, (argument,), None))
    assert ["do not fit" in line["message"] for line in sink.lines] == [True, True]


@pytest.mark.parametrize(
    "message",
    [
        f"Connecting to kernel {KERNEL}.",
        f"refused an agent for kernel '{KERNEL}': no",
        f"409 POST /api/kernels/{KERNEL}/restart (127.0.0.1): starting",
        f"Kernel: {KERNEL}",
    ],
)
def test_a_kernel_that_the_message_names_is_a_field(sink: Sink, message: str) -> None:
    log.info(message)
    assert sink.lines[0]["kernel_id"] == KERNEL
    assert sink.texts[0].count(KERNEL) == 1


def test_a_session_is_no_kernel(sink: Sink) -> None:
    log.info("session %s, kernels: many", KERNEL)
    assert "kernel_id" not in sink.lines[0]


def test_the_log_of_a_kernel_carries_its_id_as_soon_as_there_is_one(sink: Sink) -> None:
    owner = SimpleNamespace(kernel_id="")
    mine = KernelLog(log, owner)
    mine.info("no id yet")
    owner.kernel_id = KERNEL
    mine.info("restarting (%d/%d)", 1, 5)
    mine.info("kernel %s: so", KERNEL)
    mine.info("also", extra={"more": 1})
    assert [line.get("kernel_id") for line in sink.lines] == [None, KERNEL, KERNEL, KERNEL]
    assert sink.texts == [
        "INFO no id yet",
        f"INFO restarting (1/5) (kernel {KERNEL})",
        f"INFO kernel {KERNEL}: so",
        f"INFO also (kernel {KERNEL})",
    ]


async def test_what_stock_classes_log_for_a_kernel_carries_its_id(sink: Sink) -> None:
    manager = GatewayKernelManager(parent=GatewayMappingKernelManager(log=log))
    manager.kernel_id = KERNEL
    restarter = manager.restarter_class(kernel_manager=manager, parent=manager)
    restarter.log.info("restart failed")
    assert sink.lines[0]["kernel_id"] == KERNEL


@pytest.mark.parametrize(
    ("text", "safe"),
    [
        ("GET /api/x?token=abc (1.2.3.4)", "GET /api/x?token=[secret] (1.2.3.4)"),
        ("/x?a=1&auth_token=abc&b=2", "/x?a=1&auth_token=[secret]&b=2"),
        ("uri='/x?TOKEN=abc', version=1", "uri='/x?TOKEN=[secret]', version=1"),
        ("/x?token=[secret]", "/x?token=[secret]"),
        ("/x?_xsrf=2|a|b", "/x?_xsrf=[secret]"),
        ("Authorization: token abc", "Authorization: token [secret]"),
        ("{'Authorization': 'Bearer a.b-c'}", "{'Authorization': 'Bearer [secret]'}"),
        ("/x?name=token the token=y", "/x?name=token the token=y"),
    ],
)
def test_what_lets_in_is_not_written(text: str, safe: str) -> None:
    assert without_secrets(text) == safe
