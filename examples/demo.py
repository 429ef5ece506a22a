"""Run ``first.ipynb`` on a kernel elsewhere, through a gateway that is started and stopped here.

The kernelspec is made by ``elsewhere specs add local`` in a Jupyter of its own below a temporary
directory, so that nothing of the user's is read or changed.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import nbformat
from gateway import Failed, a_gateway, execute
from nbconvert import HTMLExporter
from nbformat import NotebookNode
from rich.console import Console
from rich.text import Text
from steps import Steps

from elsewhere.errors import ElsewhereError

HERE = Path(__file__).resolve().parent
KERNEL = "python3-local"
PLAIN = {"TERM": "dumb", "NO_COLOR": "1", "PYTHONWARNINGS": "ignore"}


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
            notebook, page = run(options.notebook, options.build, console)
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


def run(notebook: Path, build: Path, console: Console) -> tuple[Path, Path]:
    """Execute a notebook; returns where it and its HTML page are then."""
    try:
        nb: NotebookNode = nbformat.read(notebook, as_version=4)
    except (nbformat.ValidationError, ValueError) as error:
        raise Failed(f"{notebook} is not a notebook: {error}") from error
    steps = Steps(console)
    log = build / "gateway.log"
    with a_gateway(log) as gateway:
        console.print(Text(f"$ {gateway.command}", "bold"))
        serves = f"the gateway serves at {gateway.url}; its log is {_shown(log)}"
        console.print(Text(serves, "dim"), end="\n\n")
        execute(nb, KERNEL, gateway, steps)
    steps.tell("gateway ended", "by SIGTERM, and with it all kernels (--shutdown-kernels)")
    executed = build / notebook.name
    nbformat.write(nb, executed)
    return executed, _to_html(executed)


def _to_html(notebook: Path) -> Path:
    page = notebook.with_suffix(".html")
    exporter = HTMLExporter()
    exporter.mathjax_url = exporter.require_js_url = exporter.mermaid_js_url = ""  # a page of its own
    text, _ = exporter.from_filename(str(notebook))
    page.write_text(text, encoding="utf-8")
    return page


def _say_how_to_go_on(console: Console, notebook: Path, page: Path) -> None:
    bin_ = _shown(Path(sys.executable).parent)
    console.print()
    console.print("executed notebook ", Text(_shown(notebook), "green"))
    console.print("as a page         ", Text(_shown(page), "green"))
    console.print()
    console.print("To go on:")
    for what, why in (
        (f"{bin_}/elsewhere specs add local", "for your own Jupyter"),
        (f"{bin_}/jupyter console --kernel {KERNEL}", "a prompt on it"),
        ("make serve", "a gateway for your JupyterLab"),
        ("docs/tutorial.md", "JupyterLab, papermill, more"),
    ):
        console.print("  ", Text(f"{what:<49} ", "bold"), Text(why, "dim"), sep="")


def _shown(path: Path) -> str:
    path = path.absolute()
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


if __name__ == "__main__":
    sys.exit(main())
