"""The command line of ``elsewhere serve``: what it takes, and the near miss for what it does not."""

from __future__ import annotations

import logging
import re
import sys

import pytest

from elsewhere.errors import ElsewhereError
from elsewhere.gateway.app import GatewayApp
from elsewhere.gateway.options import EXAMPLES, check
from elsewhere.gateway.sentences import Sentences

CLASSES = [GatewayApp, *GatewayApp.classes]


@pytest.mark.parametrize(
    "argv",
    [
        [],
        ["--ip=0.0.0.0", "--port", "8888", "--allow-root", "--no-browser", "--debug"],
        ["--IdentityProvider.token=x", "--ServerApp.base_url=/a/", "--ServerApp.allow_origin", "*"],
        ["--MappingKernelManager.cull_idle_timeout=5", "--GatewayMappingKernelManager.max_kernels=3"],
        ["--KernelManager.shutdown_wait_time=3", "--GatewayKernelSpecManager.look_every=1"],
        ["--ServerApp.tornado_settings.x=1", "--OurOwnIdentityProvider.realm=x"],
        ["--help"],
        ["--help-all"],
        ["-h"],
        ["--version"],
    ],
)
def test_what_the_stock_server_takes_is_taken(argv: list[str]) -> None:
    check(argv, CLASSES)


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["--prot=3"], "elsewhere serve has no option --prot (did you mean `--port`?)"),
        (["--shutdown-kernel"], "has no option --shutdown-kernel (did you mean `--shutdown-kernels`?)"),
        (["--gateway-url=http://x"], "has no option --gateway-url (known: --allow-root, --certfile"),
        (["notebooks"], "elsewhere serve takes no argument: 'notebooks'"),
        (["--allow-root", "x"], "elsewhere serve takes no argument: 'x'"),
        (["--port", "1", "2"], "elsewhere serve takes no argument: '2'"),
        (
            ["--GatewayApp.orphan_grase=3"],
            "GatewayApp has no option 'orphan_grase' (did you mean `orphan_grace`?)",
        ),
        (["--GatwayApp.orphan_grace=3"], "there is no class GatwayApp (did you mean `GatewayApp`?)"),
        (["--$(touch x)=`y`"], "has no option --$(touch x)"),
    ],
)
def test_what_there_is_not_is_refused_with_the_near_miss(argv: list[str], said: str) -> None:
    with pytest.raises(ElsewhereError, match=re.escape(said)):
        check(argv, CLASSES)


def test_the_examples_of_the_help_are_taken() -> None:
    lines = [line.split("#")[0].split() for line in EXAMPLES.splitlines() if "elsewhere serve" in line]
    assert len(lines) == 4
    for _, _, *argv in lines:
        check(argv, CLASSES)


def _record(text: str, error: Exception | None = None) -> logging.LogRecord:
    record = logging.LogRecord("x", logging.INFO, __file__, 1, text, (), None)
    if error is not None:
        try:
            raise error
        except Exception:
            record.exc_info = sys.exc_info()
    return record


def test_an_error_that_is_expected_is_one_sentence_and_a_fault_of_ours_is_not() -> None:
    expected, fault = _record("a", ElsewhereError("no")), _record("b", KeyError("x"))
    assert Sentences().filter(expected)
    assert Sentences().filter(fault)
    assert expected.exc_info is None
    assert fault.exc_info is not None


def test_what_the_stock_server_says_and_is_not_so_is_not_said() -> None:
    stock = "Use Control-C to stop this server and shut down all kernels (twice to skip confirmation)."
    assert not Sentences().filter(_record(stock))
    assert Sentences().filter(_record("Jupyter Server is running at:"))
