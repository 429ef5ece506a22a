"""The light kernel of our tests is a kernel: judged by jupyter_kernel_test, without anything of ours."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import jupyter_kernel_test
import pytest

from client_kit import Message, run, started
from site_kit import STUB, Site, new_site


@pytest.fixture(autouse=True, scope="module")
def a_stock_kernelspec() -> Iterator[None]:
    with new_site() as site:
        path = site.root / "share" / "kernels" / "stub" / "kernel.json"
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps({"argv": [*STUB], "display_name": "stub", "language": "stub"}))
        yield


class TestStubKernel(jupyter_kernel_test.KernelTests):  # type: ignore[misc]
    """Its own tests of the protocol."""

    kernel_name = "stub"
    language_name = "stub"
    file_extension = ".stub"
    code_hello_world = "echo hello, world"
    code_stderr = "warn oh"
    code_generate_error = "no such word"
    code_inspect_sample = "echo"
    code_execute_result: list[dict[str, str]] = [{"code": "show 3", "result": "3"}]  # noqa: RUF012
    completion_samples: list[dict[str, Any]] = [{"text": "pri", "matches": {"print"}}]  # noqa: RUF012
    complete_code_samples = ["print 3"]  # noqa: RUF012
    incomplete_code_samples = ["echo \\"]  # noqa: RUF012
    invalid_code_samples = ["bah"]  # noqa: RUF012
    supported_history_operations = ("tail",)


@pytest.mark.parametrize("mode", ["signal", "message"])
def test_it_sleeps_is_interrupted_and_remembers(site: Site, mode: str) -> None:
    with started(site.spec("ours", STUB, interrupt_mode=mode)) as (manager, client):
        run(client, "set x 4")

        def interrupt(message: Message) -> None:
            if message["msg_type"] == "stream":
                manager.interrupt_kernel()

        assert run(client, "echo now\nsleep 600", heard=interrupt).status == "error"
        assert run(client, "get x\nprint 3").text == "40\n1\n2\n"
        assert run(client, "ask who?", answer="me").text == "me"
