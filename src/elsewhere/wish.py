"""What somebody asked to be started, and how he then reaches it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast

from .launch import Host, Spec
from .settings import Resolved

if TYPE_CHECKING:
    from jupyter_client.connect import KernelConnectionInfo


@dataclass(frozen=True)
class Wish:
    """What somebody asked to be started. ``stanza`` is where ``resolved`` comes from."""

    kernel_name: str
    spec: Spec
    resolved: Resolved
    start: Mapping[str, object]
    host: Host
    owner: str = ""
    stanza: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class Connection:
    """How jupyter_client reaches the kernel here."""

    ip: str
    ports: Mapping[str, int]
    key: str
    signature_scheme: str

    @property
    def info(self) -> KernelConnectionInfo:
        """As jupyter_client's clients and managers take it, which compare the key as bytes."""
        info = {
            "transport": "ipc",
            "ip": self.ip,
            **self.ports,
            "key": self.key.encode(),
            "signature_scheme": self.signature_scheme,
        }
        return cast("KernelConnectionInfo", info)
