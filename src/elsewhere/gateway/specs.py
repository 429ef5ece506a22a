"""The kernelspecs of a gateway: those that say where to run, and with a default cluster all others."""

from __future__ import annotations

import asyncio
import copy
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jupyter_client.kernelspec import KernelSpec, KernelSpecManager, NoSuchKernel
from traitlets import Float, Unicode

from elsewhere.errors import near_miss
from elsewhere.launch import THIS_PYTHON
from elsewhere.plugins import backend_names

File = tuple[str, int, int, int]
"""A kernel.json as it was: path, inode, time of its last change (ns), size (bytes)."""


class GatewayKernelSpecManager(KernelSpecManager):
    """Kernelspecs without a stanza of ours run on ``default_cluster``; without one they are not offered.

    What the directories hold is remembered: answers touch no disk, but for the first. Each start, and
    ``watch``, looks whether it has changed. One that cannot be read is left out; that is logged once.
    """

    default_cluster = Unicode(
        "", config=True, help="Cluster, or backend, for kernelspecs that do not say where to run."
    )
    look_every = Float(
        2.0, config=True, help="Seconds between looks for kernelspecs that were added, changed or removed."
    )

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._files: frozenset[File] | None = None
        self._specs: Mapping[str, KernelSpec] = {}
        self._problems: Mapping[str, str] = {}
        self._looks_asked = 0
        self._looks_done = 0
        self._turn = asyncio.Lock()

    def get_kernel_spec(self, kernel_name: str) -> KernelSpec:
        """Return a kernelspec that runs elsewhere, the caller's own copy. Raises NoSuchKernel."""
        spec = self._offered().get(kernel_name.lower())
        if spec is None:
            raise NoSuchKernel(kernel_name)
        return KernelSpec(resource_dir=spec.resource_dir, **copy.deepcopy(spec.to_dict()))

    def get_all_specs(self) -> dict[str, Any]:
        """Return all that can be launched here."""
        return {
            name: {"resource_dir": spec.resource_dir, "spec": copy.deepcopy(spec.to_dict())}
            for name, spec in self._offered().items()
        }

    async def missing(self, kernel_name: str) -> str:
        """Return why no kernel of this name can be started now, or an empty string."""
        await self.look()
        known = self._offered()
        if kernel_name.lower() in known:
            return ""
        problem = self._problems.get(kernel_name.lower())
        if problem:
            return f"the kernelspec {kernel_name!r} cannot be used: {problem}"
        return f"no kernelspec is called {kernel_name!r}{near_miss(kernel_name, known)}"

    async def look(self) -> None:
        """Read the directories anew if they have changed. Who asks while one looks shares the next look."""
        self._looks_asked += 1
        mine = self._looks_asked
        async with self._turn:
            if self._looks_done >= mine:
                return
            this = self._looks_asked
            files = await asyncio.to_thread(self._list_files)
            if files != self._files:
                self._keep(files, *await asyncio.to_thread(self._read))
            self._looks_done = this

    async def watch(self) -> None:
        """Look again and again, until cancelled."""
        while True:
            await asyncio.sleep(self.look_every)
            try:
                await self.look()
            except OSError as error:
                self.log.warning("cannot look for kernelspecs: %s", error)

    def _offered(self) -> Mapping[str, KernelSpec]:
        if self._files is None:
            self._keep(self._list_files(), *self._read())
        return self._specs

    def _keep(self, files: frozenset[File], specs: dict[str, KernelSpec], problems: dict[str, str]) -> None:
        for name, problem in problems.items():
            if self._problems.get(name) != problem:
                self.log.warning("the kernelspec %r is left out: %s", name, problem)
        self._files, self._specs, self._problems = files, specs, problems

    def _list_files(self) -> frozenset[File]:
        # Not by inotify: kernelspecs of a site are on network file systems, which tell nothing.
        found = set()
        for directory in map(Path, self.kernel_dirs):
            try:
                names = os.listdir(directory)
            except OSError:
                continue
            for name in names:
                path = directory / name / "kernel.json"
                try:
                    stat = path.stat()
                except OSError:
                    continue
                found.add((str(path), stat.st_ino, stat.st_mtime_ns, stat.st_size))
        return frozenset(found)

    def _read(self) -> tuple[dict[str, KernelSpec], dict[str, str]]:
        specs, problems = {}, {}
        for name, directory in sorted(self.find_kernel_specs().items()):
            try:
                spec = self._get_kernel_spec_by_name(name, directory)
                if self.default_cluster or _is_ours(spec):
                    specs[name] = self._placed(spec)
            except NoSuchKernel:
                problems[name] = f"the provisioner that {directory}/kernel.json names is not installed"
            except Exception as error:  # there is no end to what a kernel.json may hold
                problems[name] = f"{directory}/kernel.json: {error}"
        return specs, problems

    def _placed(self, spec: KernelSpec) -> KernelSpec:
        """Say where it runs, if it does not itself."""
        if not _is_ours(spec):
            config = {self._kind(): self.default_cluster}
            if self.default_cluster == "local" and spec.argv[:1] and spec.argv[0] in THIS_PYTHON:
                spec.argv = [sys.executable, *spec.argv[1:]]
            spec.metadata = {
                **spec.metadata,
                "kernel_provisioner": {"provisioner_name": "elsewhere", "config": config},
            }
        return spec

    def _kind(self) -> str:
        return "backend" if self.default_cluster in backend_names() else "cluster"


def _is_ours(spec: KernelSpec) -> bool:
    stanza = spec.metadata.get("kernel_provisioner", {})
    return bool(stanza.get("provisioner_name") == "elsewhere")
