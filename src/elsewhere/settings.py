"""What the site and the user wish: ``elsewhere.toml``, and the stanza of a kernelspec.

Every ``elsewhere.toml`` on Jupyter's config path is read; the nearest one that has a table
(``[switchboard]``, or the whole of ``[clusters.NAME]``) decides it. ``ELSEWHERE_CONFIG`` names one
file that is then the only one. What a cluster's backend makes of its keys is checked when the
cluster is used, so that a site's file may name backends that are not installed everywhere.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from jupyter_core.paths import jupyter_config_path
from pydantic import Field, field_validator, model_validator

from elsewhere.backend import Backend, ClusterConfig, Model, Options
from elsewhere.errors import SettingsError, near_miss
from elsewhere.plugins import backend_names, load_backend
from elsewhere.validation import Place, Problems

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

FILE = "elsewhere.toml"
_CLUSTER_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*\Z")
_OWN = ("type", "defaults", "limits", "policy")
_WILDCARDS = ("", "*", "0.0.0.0", "::")  # noqa: S104 - refused, not bound


class Switchboard(Model):
    """Where agents call home: the table ``[switchboard]``."""

    bind: str = Field("127.0.0.1", description="Address to listen on.")
    port: int = Field(0, ge=0, le=65535, description="Port to listen on; 0: any free one.")
    advertise: tuple[str, ...] = Field(
        (), description="Addresses that agents dial, as host:port or host (then the bound port)."
    )

    @field_validator("advertise")
    @classmethod
    def _addresses(cls, advertise: tuple[str, ...]) -> tuple[str, ...]:
        for address in advertise:
            _host_and_port(address, 0)
        return advertise

    @model_validator(mode="after")
    def _can_be_dialled(self) -> Switchboard:
        if self.bind in _WILDCARDS and not self.advertise:
            raise ValueError(
                f'`bind = "{self.bind}"` cannot be dialled: name what agents dial in `advertise`'
            )
        return self

    def addresses(self, bound_port: int) -> tuple[tuple[str, int], ...]:
        """Return what agents dial, as (host, port), given the port that was bound."""
        return tuple(_host_and_port(address, bound_port) for address in self.advertise or (self.bind,))


def _host_and_port(address: str, default: int) -> tuple[str, int]:
    found = re.fullmatch(r"(?:\[([^\]]+)\]|([^:\s]+))(?::(\d{1,5}))?", address)
    if found and (port := int(found[3] or default)) <= 65535:
        return found[1] or found[2], port
    if re.fullmatch(r"[0-9a-fA-F:]*:[0-9a-fA-F:]*:[0-9a-fA-F.:]*", address):
        return address, default
    raise ValueError(f'"{address}" is no address: write host:port, host, or [IPv6]:port')


class LaunchSettings(Model):
    """Launch settings that every backend has, written beside the backend's own options."""

    queue_timeout: float | None = Field(
        None, gt=0, allow_inf_nan=False, description="Seconds that a job may wait in the queue; default: any."
    )
    start_timeout: float = Field(
        60.0, gt=0, allow_inf_nan=False, description="Seconds from the running job to the ready kernel."
    )
    transport: Literal["ipc", "tcp"] | None = Field(
        None, description="How the kernel is asked to listen; default: ipc where the kernel can, else tcp."
    )
    idle_grace: float = Field(
        60.0, ge=0, allow_inf_nan=False, description="Seconds that an agent waits with no kernel."
    )
    orphan_grace: float | None = Field(
        None,
        ge=0,
        allow_inf_nan=False,
        description="Seconds that a kernel outlives its home; default: 60 under a notebook process alone, "
        "what the gateway says under a gateway.",
    )
    stop_grace: float = Field(
        5.0, ge=0, allow_inf_nan=False, description="Seconds that a kernel has to end before force is used."
    )
    spool_memory: int = Field(
        8 * 2**20, ge=0, description="Bytes of unread output that the agent keeps in memory."
    )
    spool_disk: int = Field(2**30, ge=0, description="Bytes of unread output that it keeps on disk.")
    pass_env: tuple[str, ...] = Field(
        (), description="Names or patterns (HF_*) of the host's environment that are passed to the kernel."
    )


class Limits(Model):
    """What one home may ask of one cluster at most: the table ``limits``."""

    submits_at_once: int = Field(8, ge=1, description="Submits under way at the same time.")
    kernels: int | None = Field(None, ge=1, description="Kernels on this cluster; default: no limit.")


class Policy(Model):
    """What a gateway lets people have of one cluster: the table ``policy``. Admins are not bound by it."""

    users: tuple[str, ...] = Field(
        (),
        description="Names or patterns (team-*) of who may use it; without users and groups: everybody.",
    )
    groups: tuple[str, ...] = Field((), description="Groups whose members may use it.")
    kernels_per_user: int | None = Field(
        None, ge=1, description="Kernels that one person may have on it, pending ones too; default: no limit."
    )
    contact: str = Field("", description="Whom to ask, said with each refusal.")


@dataclass(frozen=True)
class Cluster:
    """One configured cluster, as written; ``where`` is the place of its table."""

    name: str
    where: Place
    type: str
    config: Mapping[str, object] = field(default_factory=dict)
    defaults: Mapping[str, object] = field(default_factory=dict)
    limits: Limits = field(default_factory=Limits)
    policy: Policy = field(default_factory=Policy)


@dataclass(frozen=True)
class Settings:
    """All that ``elsewhere.toml`` says; without any file: defaults, and no cluster."""

    switchboard: Switchboard = field(default_factory=Switchboard)
    clusters: Mapping[str, Cluster] = field(default_factory=dict)

    def cluster(self, name: str, where: str = "cluster") -> Cluster:
        """Return a configured cluster; raise SettingsError, which says ``where`` it was asked for."""
        if name in self.clusters:
            return self.clusters[name]
        hint = near_miss(name, self.clusters) or f" (there is none in any {FILE} on Jupyter's config path)"
        raise SettingsError(where, f"no cluster is called `{name}`{hint}")


@dataclass(frozen=True)
class Resolved:
    """A stanza, checked: everything that is needed to launch by it.

    Equal stanzas have the same ``cluster`` and share one backend object: it is the configured name,
    or for an inline stanza the backend's name and a digest of the settings that were written.
    """

    cluster: str
    backend_name: str
    backend: type[Backend[Any, Any]]
    config: ClusterConfig
    options: Options
    launch: LaunchSettings
    limits: Limits
    policy: Policy = field(default_factory=Policy)


def load() -> Settings:
    """Read all files that count. Raise SettingsError, which tells everything wrong in them."""
    problems = Problems()
    switchboard: Switchboard | None = None
    clusters: dict[str, Cluster] = {}
    for path in _files():
        where = Place(f"{path.name} ({path})")
        data = _parse(path, where)
        problems.unknown(where, data, ("switchboard", "clusters"))
        if "switchboard" in data:
            here = where / "switchboard"
            found = problems.check(Switchboard, problems.table(here, data["switchboard"]), here)
            switchboard = switchboard or found
        here = where / "clusters"
        for name, stanza in problems.table(here, data.get("clusters", {})).items():
            cluster = _cluster(name, problems.table(here / name, stanza), here / name, problems)
            clusters.setdefault(name, cluster)
    problems.complain()
    return Settings(switchboard or Switchboard(), clusters)


def _files() -> list[Path]:
    if named := os.environ.get("ELSEWHERE_CONFIG"):
        return [Path(named)]
    return [path for folder in jupyter_config_path() if (path := Path(folder, FILE)).is_file()]


def _parse(path: Path, where: Place) -> dict[str, Any]:
    try:
        data: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
        return data
    except OSError as error:
        named = " (named by ELSEWHERE_CONFIG)" if os.environ.get("ELSEWHERE_CONFIG") else ""
        raise SettingsError(str(where), f"cannot be read{named}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise SettingsError(str(where), f"is not UTF-8 text (byte {error.start})") from error
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(str(where), f"is not valid TOML: {error}") from error


def _cluster(name: str, table: Mapping[str, Any], where: Place, problems: Problems) -> Cluster:
    if not _CLUSTER_NAME.match(name):
        problems.add(
            where, "a cluster's name has letters, digits, '-', '_' and '.', and starts with a letter or digit"
        )
    kind = table.get("type")
    if not isinstance(kind, str):
        known = ", ".join(backend_names())
        problems.add(where / "type", f"must name the backend of this cluster, in quotes (installed: {known})")
    limits = problems.table(where / "limits", table.get("limits", {}))
    policy = problems.table(where / "policy", table.get("policy", {}))
    return Cluster(
        name=name,
        where=where,
        type=str(kind),
        config={key: value for key, value in table.items() if key not in _OWN},
        defaults=problems.table(where / "defaults", table.get("defaults", {})),
        limits=problems.check(Limits, limits, where / "limits") or Limits(),
        policy=problems.check(Policy, policy, where / "policy") or Policy(),
    )


def resolve(stanza: Mapping[str, object], settings: Settings, where: str) -> Resolved:
    """Return what a kernelspec's ``metadata.kernel_provisioner.config`` means.

    The stanza names a configured ``cluster``, or a ``backend`` with that cluster's keys (and
    ``limits``) inline. Its ``options`` hold the backend's options and the launch settings, side by
    side; key by key they override the cluster's ``defaults``. Raises SettingsError, which tells
    everything wrong, each with its place: ``where`` and the key.
    """
    here, problems = Place(where), Problems()
    problems.table(here, stanza)
    problems.complain()
    if ("cluster" in stanza) == ("backend" in stanza):
        clusters = f" ({', '.join(sorted(settings.clusters))})" if settings.clusters else ""
        verb, joint = ("cannot name both", "and") if "cluster" in stanza else ("must name", "or")
        raise SettingsError(
            where,
            f"{verb} a `backend` ({', '.join(backend_names())}) {joint} a `cluster` of {FILE}{clusters}",
        )
    options = problems.table(here / "options", stanza.get("options", {}))
    if "cluster" in stanza:
        problems.unknown(here, stanza, ("cluster", "options"))
        cluster = settings.cluster(_text(stanza["cluster"], here / "cluster"), str(here / "cluster"))
        return _resolve(cluster, cluster.where / "type", options, here, problems)
    name = _text(stanza["backend"], here / "backend")
    inline = {key: value for key, value in stanza.items() if key not in ("backend", "options", "limits")}
    limits = problems.table(here / "limits", stanza.get("limits", {}))
    cluster = Cluster(
        name=f"{name}#{_digest([name, inline, limits])}",
        where=here,
        type=name,
        config=inline,
        limits=problems.check(Limits, limits, here / "limits") or Limits(),
    )
    return _resolve(cluster, here / "backend", options, here, problems)


def _resolve(
    cluster: Cluster, named: Place, options: Mapping[str, Any], here: Place, problems: Problems
) -> Resolved:
    try:
        backend = load_backend(cluster.type, str(named))
    except SettingsError as error:
        problems.add(named, error.problem)
        problems.complain()
        raise
    own = ("backend", "options", "limits") if cluster.where == here else _OWN
    config = problems.check(backend.Config, cluster.config, cluster.where, own)
    common = list(LaunchSettings.model_fields)
    wishes = {**cluster.defaults, **options}

    def whose(key: str) -> Place:
        by_default = key in cluster.defaults and key not in options
        return cluster.where / "defaults" if by_default else here / "options"

    launch = problems.check(
        LaunchSettings, {key: value for key, value in wishes.items() if key in common}, whose
    )
    asked = problems.check(
        backend.Options, {key: value for key, value in wishes.items() if key not in common}, whose, common
    )
    problems.complain()
    assert config is not None, "what is None has complained"
    assert asked is not None
    assert launch is not None
    return Resolved(
        cluster.name, cluster.type, backend, config, asked, launch, cluster.limits, cluster.policy
    )


def _text(value: object, where: Place) -> str:
    if isinstance(value, str):
        return value
    raise SettingsError(str(where), "must be a name in quotes")


def _digest(written: object) -> str:
    return hashlib.sha256(json.dumps(written, sort_keys=True, default=str).encode()).hexdigest()[:12]
