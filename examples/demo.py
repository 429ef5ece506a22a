"""Run ``first.ipynb`` on a kernel elsewhere, through stock nbclient, and tell each step with its time.

The kernelspec is made by ``elsewhere specs add local`` in a Jupyter of its own below a temporary
directory, so that nothing of the user's is read or changed.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, DeadKernelError
from nbconvert import HTMLExporter
from nbformat import NotebookNode
from rich.console import Console
from rich.text import Text

from elsewhere.errors import ElsewhereError
from elsewhere.kernels import Kernel

HERE = Path(__file__).resolve().parent
LOOK = 0.02
CANCEL_AGAIN = 5.0
KERNEL = "python3-local"
PLAIN = {"TERM": "dumb", "NO_COLOR": "1", "PYTHONWARNINGS": "ignore"}


class Failed(Exception):
    """Why the demo cannot go on, in one message."""


def main() -> int:
    """Run the demo; returns the exit code."""
    options = _options()
    console = Console(highlight=False, soft_wrap=True)
    errors = Console(stderr=True, highlight=False, soft_wrap=True)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with a_jupyter_of_its_own(options.build) as added:
            console.print(
                Text("$ elsewhere specs add local", "bold"), Text(added, "dim"), sep="\n", end="\n\n"
            )
            notebook, page = run(options.notebook, options.build, Steps(console))
    except KeyboardInterrupt:
        errors.print(Text("demo: interrupted; the kernel and its job are ended", "red"))
        return 1
    except (Failed, ElsewhereError, OSError) as error:
        place = f"{error.filename}: {error.strerror}" if isinstance(error, OSError) else str(error)
        errors.print(Text("demo: ", "red"), Text.from_ansi(place), sep="")
        return 1
    _say_how_to_go_on(console, notebook, page)
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Run a notebook on a kernel elsewhere.")
    parser.add_argument("notebook", nargs="?", type=Path, default=HERE / "first.ipynb")
    parser.add_argument("--build", type=Path, default=HERE.parent / "build" / "demo", help="where results go")
    return parser.parse_args()


@contextlib.contextmanager
def a_jupyter_of_its_own(build: Path) -> Iterator[str]:
    """Have Jupyter keep to a temporary directory with one kernelspec of ours; yields what adding it said."""
    build.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="elsewhere-demo-", ignore_cleanup_errors=True) as place:
        for name in ("data", "config", "runtime", "ipython"):
            Path(place, name).mkdir(mode=0o700)
        settings = Path(place, "elsewhere.toml")
        settings.touch()
        os.environ.pop("JUPYTER_PATH", None)
        os.environ.update(
            JUPYTER_DATA_DIR=f"{place}/data",
            JUPYTER_CONFIG_DIR=f"{place}/config",
            JUPYTER_RUNTIME_DIR=f"{place}/runtime",
            IPYTHONDIR=f"{place}/ipython",
            ELSEWHERE_CONFIG=str(settings),
        )
        for_the_kernel = {
            "IPYTHONDIR": f"{place}/ipython",
            "MPLCONFIGDIR": str(build.resolve() / "matplotlib"),
        }
        argv = [sys.executable, "-m", "elsewhere.cli", "specs", "add", "local", "--user"]
        for name, value in for_the_kernel.items():
            argv += ["--env", f"{name}={value}"]
        added = subprocess.run(argv, capture_output=True, text=True, env={**os.environ, **PLAIN})
        if added.returncode:
            raise Failed(f"elsewhere specs add local: {added.stderr.strip()}")
        yield added.stdout.strip()


class Steps:
    """Prints each step when it is reached, with the seconds since the first."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._begin: float | None = None
        self._told: set[str] = set()

    def tell(self, step: str, detail: str = "", at: float | None = None) -> None:
        """Print one step."""
        at = time.time() if at is None else at
        if self._begin is None:
            self._begin = at
        line = Text.assemble((f"{at - self._begin:6.2f} s", "cyan"), f"  {step:<14}", (detail, "dim"))
        line.rstrip()
        if self._console.is_terminal:
            line.truncate(self._console.width, overflow="ellipsis")
        self._console.print(line)

    def tell_new(self, steps: Mapping[str, float], details: Mapping[str, str]) -> None:
        """Print those of a kernel's steps that were not told yet."""
        for step, at in list(steps.items()):
            if step not in self._told:
                self._told.add(step)
                self.tell(step, details.get(step, ""), at)


def run(notebook: Path, build: Path, steps: Steps) -> tuple[Path, Path]:
    """Execute a notebook; returns where it and its HTML page are then."""
    try:
        nb: NotebookNode = nbformat.read(notebook, as_version=4)  # type: ignore[no-untyped-call]
    except (nbformat.ValidationError, ValueError) as error:
        raise Failed(f"{notebook} is not a notebook: {error}") from error
    began: dict[int, float] = {}

    def begin(cell: NotebookNode, cell_index: int) -> None:
        began[cell_index] = time.time()

    def end(cell: NotebookNode, cell_index: int, execute_reply: object) -> None:
        if "execution_count" in cell:
            took = time.time() - began[cell_index]
            steps.tell(f"cell {cell.execution_count}", f"{took:.2f} s  {_title(nb.cells, cell_index)}")

    client = NotebookClient(
        nb,
        kernel_name=KERNEL,
        timeout=120,
        resources={"metadata": {"path": str(build)}},
        on_cell_execute=begin,
        on_cell_executed=end,
    )
    launch = Launch(client)
    try:
        _in_a_thread(launch.execute(steps))
    except CellExecutionError as error:
        raise Failed(f"a cell failed:\n{error}") from error
    except DeadKernelError as error:
        raise Failed(launch.kernel.reason if launch.kernel else str(error)) from error
    executed = build / notebook.name
    nbformat.write(nb, executed)  # type: ignore[no-untyped-call]
    return executed, _to_html(executed)


class Launch:
    """The execution of one notebook. ``kernel`` is what the provisioner knows, once it is asked."""

    def __init__(self, client: NotebookClient) -> None:
        self.kernel: Kernel | None = None
        self._client = client

    async def execute(self, steps: Steps) -> None:
        """Execute all cells; whatever happens, the kernel and its job are gone when this is over."""
        watching = asyncio.create_task(self._watch(steps))
        try:
            await self._client.async_execute()
        finally:
            watching.cancel()
        steps.tell("end", "the kernel, its agent and its job are gone")

    async def _watch(self, steps: Steps) -> None:
        while True:
            kernel = getattr(getattr(self._client.km, "provisioner", None), "kernel", None)
            if kernel is not None:
                self.kernel = kernel
                steps.tell_new(kernel.steps, _details(kernel))
            await asyncio.sleep(LOOK)


def _details(kernel: Kernel) -> dict[str, str]:
    host, job_id = kernel.where
    return {
        "asked": f"nbclient wants a kernel of {KERNEL}",
        "submitted": f"job {job_id}",
        "running": f"on {host}" if host else "",
        "agent home": "the agent in the job has called the switchboard",
        "kernel ready": "nbclient talks to it, through the agent",
    }


def _in_a_thread(work: Coroutine[Any, Any, None]) -> None:
    """Run it, and cancel it when interrupted: in a main thread nbclient would take the signals for itself."""
    begun: Future[Callable[[], object]] = Future()

    async def run() -> None:
        task, loop = asyncio.current_task(), asyncio.get_running_loop()
        assert task is not None
        begun.set_result(lambda: loop.call_soon_threadsafe(task.cancel))
        await work

    with ThreadPoolExecutor(1) as thread:
        done = thread.submit(asyncio.run, run())
        try:
            while not done.done():
                # The system may give a signal to any thread, and only a wait that ends hears of it.
                wait({done}, LOOK)
            done.result()
        except KeyboardInterrupt:
            while not done.done():
                with contextlib.suppress(RuntimeError):  # it has just ended
                    begun.result()()
                wait({done}, CANCEL_AGAIN)
            raise


def _title(cells: list[Any], index: int) -> str:
    """Return the heading above a cell, or else its first line."""
    above = cells[index - 1]["source"] if index and cells[index - 1]["cell_type"] == "markdown" else ""
    text = next((line.strip("# ") for line in above.splitlines() if line.startswith("#")), "")
    return text or str(cells[index]["source"]).partition("\n")[0]


def _to_html(notebook: Path) -> Path:
    page = notebook.with_suffix(".html")
    exporter = HTMLExporter()  # type: ignore[no-untyped-call]
    exporter.mathjax_url = exporter.require_js_url = exporter.mermaid_js_url = ""  # a page of its own
    text, _ = exporter.from_filename(str(notebook))
    page.write_text(text, encoding="utf-8")
    return page


def _say_how_to_go_on(console: Console, notebook: Path, page: Path) -> None:
    def shown(path: Path) -> str:
        path = path.absolute()
        return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)

    bin_ = shown(Path(sys.executable).parent)
    console.print()
    console.print("executed notebook ", Text(shown(notebook), "green"))
    console.print("as a page         ", Text(shown(page), "green"))
    console.print()
    console.print("To go on:")
    for what, why in (
        (f"{bin_}/elsewhere specs add local", "for your own Jupyter"),
        (f"{bin_}/jupyter console --kernel {KERNEL}", "a prompt on it"),
        ("docs/tutorial.md", "JupyterLab, papermill, more"),
    ):
        console.print("  ", Text(f"{what:<49} ", "bold"), Text(why, "dim"), sep="")


if __name__ == "__main__":
    sys.exit(main())
