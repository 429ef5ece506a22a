"""Backends are found by the entry point group ``elsewhere.backends``, ours as well as others'."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from functools import lru_cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from elsewhere.backend import Backend
from elsewhere.errors import SettingsError, near_miss

GROUP = "elsewhere.backends"


def _installed() -> dict[str, EntryPoint]:
    return _found(tuple(sys.path), entry_points)


@lru_cache(maxsize=1)
def _found(path: tuple[str, ...], find: Callable[..., Iterable[EntryPoint]]) -> dict[str, EntryPoint]:
    """Look through all that is installed once, and not at each start of a kernel."""
    return {entry.name: entry for entry in find(group=GROUP)}


def backend_names() -> list[str]:
    """Return the names of the backends that are installed, sorted; loads none of them."""
    return sorted(_installed())


def load_backend(name: str, where: str) -> type[Backend[Any, Any]]:
    """Return a backend's class; raise SettingsError, which says ``where`` it was named.

    Where the manager's client library is missing, the error says what to install.
    """
    installed = _installed()
    if name not in installed:
        raise SettingsError(where, f"no backend is called `{name}`{near_miss(name, installed)}")
    entry = installed[name]
    try:
        backend = entry.load()
    except Exception as error:
        raise SettingsError(where, _why_not(entry, error)) from error
    if not (isinstance(backend, type) and issubclass(backend, Backend)):
        raise SettingsError(where, f"the backend `{name}` ({entry.value}) is not a subclass of Backend")
    return backend


def _why_not(entry: EntryPoint, error: Exception) -> str:
    if isinstance(error, ModuleNotFoundError) and error.name and entry.dist:
        extras = entry.extras or [
            extra for extra in entry.dist.metadata.get_all("Provides-Extra") or () if extra == entry.name
        ]
        if extras and error.name.partition(".")[0] != entry.module.partition(".")[0]:
            wanted = f"{entry.dist.name}[{','.join(extras)}]"
            return f"the backend `{entry.name}` needs {error.name}: pip install '{wanted}'"
    return f"the backend `{entry.name}` cannot be loaded: {type(error).__name__}: {error}"
