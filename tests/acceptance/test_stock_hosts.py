"""The programs that people run notebooks with, on kernels elsewhere, as they come."""

from __future__ import annotations

import os
import sys
import time
from contextlib import ExitStack
from queue import Empty
from typing import Any

import jupyter_kernel_test
import nbformat.v4
import papermill
import pexpect
import pytest
from jupyter_kernel_test.msgspec_v5 import validate_message
from nbclient import NotebookClient

from site_kit import PATIENCE, Site, new_site

v4: Any = nbformat.v4  # has no types


class TestKernelProtocol(jupyter_kernel_test.KernelTests):  # type: ignore[misc]
    """The Jupyter projects' own tests of a kernel."""

    kernel_name = "away"
    language_name = "python"
    file_extension = ".py"
    code_hello_world = "print('hello, world')"
    code_stderr = "import sys; print('test', file=sys.stderr)"
    code_page_something = "zip?"
    code_generate_error = "raise"
    code_inspect_sample = "zip"
    code_clear_output = "from IPython.display import clear_output; clear_output()"
    completion_samples = ({"text": "zi", "matches": {"zip"}},)
    complete_code_samples = ("1", "print('hello, world')", "def f(x):\n  return x*2\n\n\n")
    incomplete_code_samples = ("print('''hello", "def f(x):\n  x*2")
    invalid_code_samples = ("import = 7q",)
    code_execute_result = ({"code": "1+2+3", "result": "6"},)
    code_display_data = (
        {"code": "from IPython.display import HTML, display; display(HTML('<b>a</b>'))", "mime": "text/html"},
    )
    code_history_pattern = "1?2*"
    supported_history_operations = ("tail", "search")  # ipykernel numbers its own session 0 in a range
    code_history_sample = "1+2"

    @classmethod
    def setUpClass(cls) -> None:
        stack = ExitStack()
        cls.addClassCleanup(stack.close)
        stack.enter_context(new_site()).spec("away")
        super().setUpClass()

    def flush_channels(self) -> None:
        """Take what has come; the original waits for more of it, 0.1 s each."""
        for channel in (self.kc.shell_channel, self.kc.iopub_channel):
            while True:
                try:
                    validate_message(channel.get_msg(timeout=0))
                except Empty:
                    break

    def execute_helper(
        self,
        code: str,
        timeout: float = PATIENCE,
        silent: bool = False,
        store_history: bool = True,
        stop_on_error: bool = True,
    ) -> tuple[Any, list[Any]]:
        """As the original, but with more than 0.1 s for a message on a busy machine."""
        sent = self.kc.execute(
            code=code, silent=silent, store_history=store_history, stop_on_error=stop_on_error
        )
        reply = self.get_non_kernel_info_reply(timeout=PATIENCE)
        validate_message(reply, "execute_reply", sent)
        outputs = []
        deadline = time.monotonic() + PATIENCE
        states: list[str] = []
        while states[-1:] != ["idle"]:
            message = self.kc.iopub_channel.get_msg(timeout=deadline - time.monotonic())
            if message["parent_header"].get("msg_id") != sent:
                continue
            validate_message(message, message["msg_type"], sent)
            if message["msg_type"] == "status":
                states.append(message["content"]["execution_state"])
            elif message["msg_type"] != "execute_input":
                outputs.append(message)
        assert states == ["busy", "idle"]
        return reply, outputs


def notebook(site: Site) -> Any:
    """A small notebook with text, a result, rich output, and parameters for papermill."""
    cells = [
        v4.new_code_cell("amount = 2", metadata={"tags": ["parameters"]}),
        v4.new_code_cell("for i in range(3): print(i)"),
        v4.new_code_cell("amount * 21"),
        v4.new_code_cell("from IPython.display import HTML; display(HTML('<b>rich</b>'))"),
        v4.new_code_cell("import os; print(os.environ['ELSEWHERE_JOB'])"),
    ]
    kernelspec = {"name": site.spec(), "display_name": "away", "language": "python"}
    return v4.new_notebook(cells=cells, metadata={"kernelspec": kernelspec})


def expect_outputs(executed: Any, result: str) -> None:
    cells = executed.cells[-4:]
    assert cells[0].outputs[0].text == "0\n1\n2\n"
    assert cells[1].outputs[0].data["text/plain"] == result
    assert cells[2].outputs[0].data["text/html"] == "<b>rich</b>"
    assert cells[3].outputs[0].text.startswith("elsewhere-")


def test_nbclient(site: Site) -> None:
    book = notebook(site)
    NotebookClient(book, timeout=PATIENCE, startup_timeout=PATIENCE).execute()
    expect_outputs(book, "42")


async def test_nbclient_in_a_loop(site: Site) -> None:
    book = notebook(site)
    await NotebookClient(book, timeout=PATIENCE, startup_timeout=PATIENCE).async_execute()
    expect_outputs(book, "42")


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_papermill(site: Site) -> None:
    source, target = site.root / "in.ipynb", site.root / "out.ipynb"
    source.write_text(v4.writes(notebook(site)), encoding="utf-8")
    papermill.execute_notebook(
        str(source), str(target), parameters={"amount": 3}, progress_bar=False, start_timeout=PATIENCE
    )
    expect_outputs(v4.reads(target.read_text(encoding="utf-8")), "63")


def test_jupyter_console(site: Site) -> None:
    name = site.spec()
    environ = {**os.environ, "TERM": "dumb", "PROMPT_TOOLKIT_NO_CPR": "1"}
    argv = ["-m", "jupyter_console", f"--kernel={name}", "--simple-prompt"]
    console = pexpect.spawn(sys.executable, argv, env=environ, timeout=PATIENCE, encoding="utf-8")
    try:
        console.expect(r"In \[1\]:")
        console.sendline("print('for' + 'ty', 40 + 2)")
        console.expect("forty 42")
        console.expect(r"In \[2\]:")
        console.sendline("import os; os.environ['ELSEWHERE_JOB'].split('-')[0] + '!'")
        console.expect("'elsewhere!'")
        console.expect(r"In \[3\]:")
        console.sendline("exit")
        console.expect(pexpect.EOF)
        console.wait()
    finally:
        console.close(force=True)
    assert console.exitstatus == 0


class TestIopubWelcome(jupyter_kernel_test.IopubWelcomeTests):  # type: ignore[misc]
    """Clients of a kernel that greets its subscribers (JEP 65) are greeted here too."""

    kernel_name = "away"
    support_iopub_welcome = True

    @classmethod
    def setUpClass(cls) -> None:
        stack = ExitStack()
        cls.addClassCleanup(stack.close)
        stack.enter_context(new_site()).spec("away")
        super().setUpClass()


def test_a_host_whose_event_loops_are_uvloops(site: Site) -> None:
    """The core's loop is one of them then, and its transports are none of asyncio's."""
    site.spec()
    program = """
import uvloop
uvloop.install()
from jupyter_client.manager import start_new_kernel
manager, client = start_new_kernel(kernel_name="away", startup_timeout=60)
client.execute_interactive("print(6 * 7)", timeout=60)
client.stop_channels()
manager.shutdown_kernel()
"""
    with site.python(program) as process:
        printed, errors = process.communicate(timeout=PATIENCE)
    assert (printed, process.returncode) == ("42\n", 0), errors
