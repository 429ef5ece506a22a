"""What of the host's environment reaches a kernel: what is meant for it, and nothing else."""

from __future__ import annotations

import ast

import pytest

from client_kit import run, started
from elsewhere.backends.local import LOGIN_ENVIRONMENT
from site_kit import Site

ASK = "import os; dict(os.environ)"


def environment(site: Site, **kwargs: object) -> dict[str, str]:
    """The environment that a kernel has, started with the host's as it is now."""
    with started("away", **kwargs) as (_, client):
        found = ast.literal_eval(run(client, ASK).value)
    assert isinstance(found, dict)
    return found


def test_a_servers_secrets_stay_with_the_server(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.spec(pass_env=["WANTED_*"])
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("JPY_PARENT_PID", "1")
    monkeypatch.setenv("JPY_API_TOKEN", "secret")
    monkeypatch.setenv("PYTHONPATH", "/only/for/the/host")
    monkeypatch.setenv("KERNEL_USERNAME", "alice")
    monkeypatch.setenv("WANTED_BY_THE_SITE", "yes")
    monkeypatch.setenv("PATH_LIKE_BUT_NOT_LOGIN", "no")
    found = environment(site)
    for name in ("AWS_SECRET_ACCESS_KEY", "JPY_PARENT_PID", "JPY_API_TOKEN", "PYTHONPATH"):
        assert name not in found
    assert "PATH_LIKE_BUT_NOT_LOGIN" not in found
    assert found["KERNEL_USERNAME"] == "alice"
    assert found["WANTED_BY_THE_SITE"] == "yes"
    assert found["IPYTHONDIR"] == str(site.root / "ipython"), "the kernelspec's own"
    assert {"PATH", "HOME"} <= set(found)
    assert {"PATH", "HOME"} <= set(LOGIN_ENVIRONMENT)


def test_what_is_given_for_the_start_arrives(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.spec(env={"FROM_SPEC": "spec sees ${GIVEN}"})
    monkeypatch.setenv("ONLY_HOST", "host")
    found = environment(site, env={"GIVEN": "given", "KERNEL_ID_LIKE": "k", "JPY_SESSION_NAME": "a.ipynb"})
    assert found["GIVEN"] == "given"
    assert found["FROM_SPEC"] == "spec sees given"
    assert found["KERNEL_ID_LIKE"] == "k"
    assert found["JPY_SESSION_NAME"] == "a.ipynb"
    assert "ONLY_HOST" not in found


def test_no_secret_of_the_link_is_in_the_kernels_environment_or_argv(site: Site) -> None:
    site.spec()
    found = environment(site)
    assert sorted(name for name in found if name.startswith("ELSEWHERE")) == ["ELSEWHERE_JOB"]
