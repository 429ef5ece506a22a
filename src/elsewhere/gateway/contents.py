"""The contents of a gateway: none. Notebooks and files stay where the front ends are."""

from __future__ import annotations

from typing import Any

from jupyter_server.services.contents.manager import AsyncContentsManager


class NoContents(AsyncContentsManager):
    """Serves no files, and looks at none."""

    def get_extra_handlers(self) -> list[Any]:
        """Return none: the stock one serves the server's files."""
        return []

    def info_string(self) -> str:
        """Return what is served, as a line for the log."""
        return "Serving kernels that run elsewhere, and no contents"

    async def get_kernel_path(self, path: str, model: object = None) -> str:
        """Return the directory of a session's notebook, as a path below the kernels' root."""
        return path.rpartition("/")[0]
