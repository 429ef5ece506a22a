"""The kernelspecs of a gateway: those that say where to run, and with a default cluster all others."""

from __future__ import annotations

import sys
from typing import Any

from jupyter_client.kernelspec import KernelSpec, KernelSpecManager
from traitlets import Unicode

from elsewhere.launch import THIS_PYTHON


class GatewayKernelSpecManager(KernelSpecManager):
    """Kernelspecs without a stanza of ours run on ``default_cluster``; without one they are not offered."""

    default_cluster = Unicode(
        "", config=True, help="Cluster, or backend, for kernelspecs that do not say where to run."
    )

    def get_kernel_spec(self, kernel_name: str) -> KernelSpec:
        """Return a kernelspec that runs elsewhere. Raises NoSuchKernel."""
        spec = super().get_kernel_spec(kernel_name)
        if not _is_ours(spec.metadata) and self.default_cluster:
            config = {self._kind(): self.default_cluster}
            if self.default_cluster == "local" and spec.argv[:1] and spec.argv[0] in THIS_PYTHON:
                spec.argv = [sys.executable, *spec.argv[1:]]
            spec.metadata = {
                **spec.metadata,
                "kernel_provisioner": {"provisioner_name": "elsewhere", "config": config},
            }
        return spec

    def get_all_specs(self) -> dict[str, Any]:
        """Return all that can be launched here."""
        return {
            name: found
            for name, found in super().get_all_specs().items()
            if self.default_cluster or _is_ours(found["spec"].get("metadata", {}))
        }

    def _kind(self) -> str:
        from elsewhere.plugins import backend_names

        return "backend" if self.default_cluster in backend_names() else "cluster"


def _is_ours(metadata: dict[str, Any]) -> bool:
    return bool(metadata.get("kernel_provisioner", {}).get("provisioner_name") == "elsewhere")
