"""Packing the parcel: the agent and the secrets of one launch, as one file that Python runs."""

from __future__ import annotations

import base64
import importlib.abc
import importlib.util
import io
import json
import marshal
import struct
import types
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from . import __version__
from .agent import words
from .agent.boot import MEMBER
from .backend import Mark, Order, Parcel

_FIRST = frozenset(["__main__.py", "__init__.py", "boot.py", "order.py", "spawn.py"])
"""What runs before the kernel does: stored as it is, so that nothing waits for zlib."""

_EPOCH = (1980, 1, 1, 0, 0, 0)
_UNCHECKED_HASH = 1
"""PEP 552: such a .pyc is used without a look at its source; another Python version skips it."""


@dataclass(frozen=True)
class Home:
    """Where the agent calls: home's name, its authority (PEM), addresses as ``host:port``."""

    name: str
    authority: str
    addresses: tuple[str, ...]


@dataclass(frozen=True)
class Graces:
    """Seconds. ``idle``: without kernel or order; ``orphan``: without home; ``stop``: for SIGTERM;
    ``keepalive``: of silence on the link before it is tested."""

    idle: float = 60.0
    orphan: float = 60.0
    stop: float = 5.0
    keepalive: float = 15.0


@dataclass(frozen=True)
class SpoolLimits:
    """Bytes of output that the agent keeps for a home that does not take it."""

    memory: int = 8 * 1024 * 1024
    disk: int = 1024 * 1024 * 1024


@dataclass(frozen=True)
class Signing:
    """How the kernel's messages are signed."""

    key: str
    scheme: str = "hmac-sha256"


def order_fields(start: int, order: Order, kernel_name: str, signing: Signing) -> dict[str, Any]:
    """Return a start order as it travels: the ``start``-th kernel process of this job."""
    return {
        "start": start,
        "argv": list(order.argv),
        "env": dict(order.env),
        "cwd": order.cwd,
        "transport": order.transport,
        "placeholders": dict(order.placeholders),
        "files": {name: base64.b64encode(data).decode() for name, data in order.files.items()},
        "kernel_name": kernel_name,
        "key": signing.key,
        "signature_scheme": signing.scheme,
    }


def pack(
    mark: Mark, home: Home, token: str, order: Mapping[str, Any], graces: Graces, spool: SpoolLimits
) -> Parcel:
    """Return the parcel for one launch."""
    secrets = {
        "protocol": words.PROTOCOL,
        "version": __version__,
        "mark": {"home_id": mark.home_id, "kernel_id": mark.kernel_id, "launch": mark.launch},
        "home": {"name": home.name, "ca": home.authority, "addresses": list(home.addresses)},
        "token": token,
        "order": order,
        "graces": vars(graces),
        "spool": vars(spool),
    }
    archive = io.BytesIO(agent_archive())
    with zipfile.ZipFile(archive, "a") as out:
        out.writestr(zipfile.ZipInfo(MEMBER, _EPOCH), json.dumps(secrets).encode("utf-8", "surrogatepass"))
    return Parcel(archive.getvalue())


@cache
def agent_archive() -> bytes:
    """Return the agent as a zip archive: its sources, and them compiled for this Python.

    The compiled ones save a job with the same Python version the time to compile.
    """
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as out:
        _write(out, "elsewhere/__init__.py", b"")
        for path in sorted(Path(words.__file__).parent.glob("*.py")):
            name = "__main__.py" if path.name == "__main__.py" else f"elsewhere/agent/{path.name}"
            _write(out, name, path.read_bytes())
    return archive.getvalue()


def _write(out: zipfile.ZipFile, name: str, source: bytes) -> None:
    method = zipfile.ZIP_STORED if name.rpartition("/")[2] in _FIRST else zipfile.ZIP_DEFLATED
    out.writestr(zipfile.ZipInfo(name, _EPOCH), source, method, compresslevel=6)
    compiled = (
        importlib.util.MAGIC_NUMBER
        + struct.pack("<I", _UNCHECKED_HASH)
        + importlib.util.source_hash(source)
        + marshal.dumps(_code(name, source))
    )
    out.writestr(zipfile.ZipInfo(name + "c", _EPOCH), compiled, method, compresslevel=6)


def _code(name: str, source: bytes) -> types.CodeType:
    """Return the compiled module, from the cache that Python keeps of it if there is one."""
    module = name[: -len(".py")].replace("/", ".").replace("__main__", "elsewhere.agent.__main__")
    spec = importlib.util.find_spec(module) if source else None
    loader = spec.loader if spec else None
    code = loader.get_code(module) if isinstance(loader, importlib.abc.InspectLoader) else None
    return code or compile(source, name, "exec", dont_inherit=True)
