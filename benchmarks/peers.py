"""Jupyter Enterprise Gateway 3.3.0 as it is released, in a virtual environment of its own with its own pins.

It wants jupyter_client 6 and ipykernel before 7. Its Python launcher for remote kernels is in its source
distribution only.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path

from gateway_kit import Gateway, free_port
from site_kit import Site, until

ROOT = Path(__file__).resolve().parent.parent
RELEASE = "jupyter_enterprise_gateway==3.3.0"
PINS = (RELEASE, "ipykernel<7")
PLACE = ROOT / "build" / "peers" / "enterprise_gateway"
LAUNCHER = "etc/kernel-launchers/python/scripts/launch_ipykernel.py"
TOKEN = "of-enterprise-gateway"
USER = {"KERNEL_USERNAME": "bench"}
"""It starts nothing for root."""
LOCAL, DISTRIBUTED = "eg-local", "eg-distributed"


def installed() -> Path:
    """Return its environment's directory, made at the first call (a minute, from the package index)."""
    made = PLACE / "made"
    if not made.exists():
        print(f"installing {RELEASE} into {PLACE.relative_to(ROOT)}", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(PLACE)], check=True)
        pip = [str(PLACE / "bin" / "python"), "-m", "pip", "--disable-pip-version-check", "-q"]
        subprocess.run([*pip, "install", *PINS], check=True)
        source = ["download", "--no-deps", "--no-binary", ":all:", "--dest", str(PLACE), RELEASE]
        subprocess.run([*pip, *source], check=True)
        (archive,) = PLACE.glob("*.tar.gz")
        with tarfile.open(archive) as packed:
            (member,) = [name for name in packed.getnames() if name.endswith(LAUNCHER)]
            content = packed.extractfile(member)
            assert content is not None
            (PLACE / "launch_ipykernel.py").write_bytes(content.read())
        made.touch()
    return PLACE


class EnterpriseGateway(Gateway):
    """One that runs on this machine, with a local kernel and one that it takes for remote."""

    def __init__(self, site: Site) -> None:
        super().__init__(site)
        self.log = site.root / "enterprise-gateway.log"
        self._place = installed()
        self._share = site.root / "enterprise-gateway"
        python = str(self._place / "bin" / "python")
        self._spec(LOCAL, [python, "-m", "ipykernel_launcher", "-f", "{connection_file}"], {})
        proxy = "enterprise_gateway.services.processproxies.distributed.DistributedProcessProxy"
        words = ("kernel-id", "response-address", "public-key", "port-range")
        told = [
            part
            for word in words
            for part in (f"--RemoteProcessProxy.{word}", f"{{{word.replace('-', '_')}}}")
        ]
        mode = ["--RemoteProcessProxy.spark-context-initialization-mode", "none"]
        argv = [python, str(self._place / "launch_ipykernel.py"), *told, *mode]
        self._spec(DISTRIBUTED, argv, {"process_proxy": {"class_name": proxy}})

    def _spec(self, name: str, argv: list[str], metadata: dict[str, object]) -> None:
        path = self._share / "kernels" / name / "kernel.json"
        path.parent.mkdir(parents=True)
        spec = {"argv": argv, "display_name": name, "language": "python", "metadata": metadata}
        path.write_text(json.dumps(spec))

    @property
    def token(self) -> str:
        return TOKEN

    def start(self, *more: str, stdin: int | None = None) -> None:
        options = {
            "ip": "127.0.0.1",
            "port": str(self.port),
            "auth_token": TOKEN,
            "remote_hosts": "['localhost']",
            "response_port": str(free_port()),
        }
        argv = [
            str(self._place / "bin" / "jupyter-enterprisegateway"),
            *(f"--EnterpriseGatewayApp.{name}={value}" for name, value in options.items()),
            *more,
        ]
        environ = {**os.environ, "JUPYTER_PATH": str(self._share)}
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(argv, stdin=stdin, stdout=log, stderr=log, env=environ)
        until(lambda: self._answers() or self.ended(), "Enterprise Gateway answers")
        assert not self.ended(), self.log.read_text()

    def _answers(self) -> bool:
        try:
            return self.ask("GET", "/api")[0] == 200
        except OSError:
            return False
