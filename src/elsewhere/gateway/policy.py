"""For whom a start is, and what the site lets them have: ``[clusters.NAME.policy]`` of elsewhere.toml."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from fnmatch import fnmatchcase
from typing import Any

from jupyter_client.kernelspec import KernelSpec
from tornado import web

from elsewhere.errors import SettingsError
from elsewhere.gateway.access import acting
from elsewhere.gateway.accounts import Account, Role
from elsewhere.settings import Policy, Settings, load, resolve

USERNAME = "KERNEL_USERNAME"


def owner_of(start: dict[str, Any]) -> str:
    """Return whose kernel it will be, and have it know: only a service may say for whom it asks."""
    account = acting()
    env = dict(start.get("env") or {})
    asked: str = env.get(USERNAME, "")
    if account.role is Role.SERVICE and asked:
        if not account.may_act_for(asked):
            raise web.HTTPError(403, f"{account.name} may not start kernels for {asked[:64]!r}")
        return asked
    if account.name:
        start["env"] = {**env, USERNAME: account.name}
    return account.name


def admitted(account: Account, stanza: Mapping[str, Any], kernels_on: Callable[[str], int]) -> str:
    """Return the cluster that a stanza is for. Raises HTTPError if the account may not have a kernel there.

    ``kernels_on``: how many it has on a cluster. A stanza that is wrong is told as a failed launch, in the
    notebook, and is for no cluster.
    """
    if account.is_admin:
        return ""  # nobody counts theirs
    try:
        resolved = resolve(stanza, load(), "kernelspec")
    except SettingsError:
        return ""
    check(account, resolved.cluster, resolved.policy, kernels_on)
    return resolved.cluster


def cluster_of(stanza: Mapping[str, object], settings: Settings) -> str:
    """Return the cluster that a stanza is for; none if it is wrong."""
    try:
        return resolve(stanza, settings, "kernel").cluster
    except SettingsError:
        return ""


def stanza_of(spec: KernelSpec | None) -> dict[str, Any]:
    """Return where a kernelspec says that its kernels run."""
    metadata: dict[str, Any] = spec.metadata if spec is not None else {}
    stanza: dict[str, Any] = metadata.get("kernel_provisioner", {}).get("config", {})
    return stanza


def check(account: Account, cluster: str, policy: Policy, kernels_on: Callable[[str], int]) -> None:
    """Raise HTTPError 403 for who may not use this cluster, 409 for who has as many kernels as they may.

    Admins decide for themselves. The sentence says which rule it is, and whom to ask.
    """
    if account.is_admin:
        return
    rules = f"[clusters.{cluster}.policy]"
    ask = f"; ask {policy.contact}" if policy.contact else ""
    if (policy.users or policy.groups) and not _is_named(account, policy):
        raise web.HTTPError(403, f"you may not use cluster `{cluster}` ({rules} users, groups){ask}")
    most = policy.kernels_per_user
    if most is not None and (kernels := kernels_on(cluster)) >= most:
        raise web.HTTPError(
            409,
            f"you have {kernels} kernel(s) on cluster `{cluster}`, and may have {most} "
            f"({rules} kernels_per_user); shut one down first{ask}",
        )


def _is_named(account: Account, policy: Policy) -> bool:
    named = any(fnmatchcase(account.name, pattern) for pattern in policy.users)
    return named or bool(set(account.groups) & set(policy.groups))
