"""``elsewhere survey``: whose each job is, by real ledgers and managers that are told what to say."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jupyter_core.paths
import pytest
from click.testing import CliRunner, Result

from elsewhere import plugins
from elsewhere.backend import (
    Backend,
    ClusterConfig,
    JobId,
    Observation,
    Options,
    Parcel,
    Phase,
    Sighting,
)
from elsewhere.cli import main, survey
from elsewhere.cli.findings import Answer, KnownHome, Question, Wanted, judged
from elsewhere.errors import Rejected, Unreachable
from elsewhere.gateway.ledger import Ledger
from elsewhere.records import KernelRecord
from elsewhere.settings import Settings, resolve

SAID: dict[tuple[str, str], list[Sighting]] = {}
"""What the manager of a name says of a home."""


class FarConfig(ClusterConfig):
    name: str = "far"


class Far(Backend[Options, Any]):
    """Asks nobody but the test."""

    Config = FarConfig
    config: FarConfig
    closed = 0

    def render(self, launch: object) -> Any:
        raise AssertionError("nothing is submitted")

    async def submit(self, request: Any, parcel: Parcel) -> JobId:
        raise AssertionError("nothing is submitted")

    async def cancel(self, job_id: JobId, *, grace: float) -> None:
        raise AssertionError("nothing is cancelled")

    async def survey(self) -> Observation:
        if self.config.name == "silent":
            raise Unreachable("connection refused")
        if self.config.name == "closed":
            raise Rejected("who are you?")
        if self.config.name == "slow":
            await asyncio.Event().wait()
        return Observation(tuple(SAID.get((self.config.name, self.home_id), ())), complete=True)

    async def close(self) -> None:
        Far.closed += 1


class _Entry:
    def load(self) -> type[Backend[Any, Any]]:
        return Far


@pytest.fixture(autouse=True)
def jupyter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A Jupyter of its own whose one backend is ``far``."""
    for name in ("DATA", "CONFIG", "RUNTIME"):
        monkeypatch.setenv(f"JUPYTER_{name}_DIR", str(tmp_path / name.lower()))
    monkeypatch.setenv("JUPYTER_CONFIG_PATH", "")
    monkeypatch.setenv("JUPYTER_PATH", "")
    for name in ("ENV_CONFIG_PATH", "SYSTEM_CONFIG_PATH"):
        monkeypatch.setattr(jupyter_core.paths, name, [])
    monkeypatch.delenv("ELSEWHERE_CONFIG", raising=False)
    monkeypatch.setattr(plugins, "_installed", lambda: {"far": _Entry()})
    SAID.clear()
    Far.closed = 0


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """The default data directory of a gateway."""
    return tmp_path / "data" / "elsewhere-gateway"


def ledger(directory: Path, kernels: Mapping[str, tuple[int, Mapping[str, object]]]) -> str:
    """Write a ledger as a gateway does, and return its home's id."""

    async def write() -> str:
        ledger = Ledger(directory)
        await ledger.open()
        try:
            home_id = (await ledger.identity()).home_id
            for kernel_id, (launch, stanza) in kernels.items():
                record = KernelRecord(
                    kernel_id, "k", "me", launch, 1, stanza, {}, "key", "hmac-sha256", "hash"
                )
                await ledger.launching(record)
            return home_id
        finally:
            await ledger.aclose()

    return asyncio.run(write())


def clusters(tmp_path: Path, *names: str) -> None:
    (tmp_path / "config").mkdir(exist_ok=True)
    text = "".join(f'[clusters.{name}]\ntype = "far"\nname = "{name}"\n' for name in names)
    (tmp_path / "config" / "elsewhere.toml").write_text(text)


def job(kernel_id: str, launch: int = 1, **more: Any) -> Sighting:
    return Sighting(
        kernel_id, launch, JobId(f"{kernel_id}.{launch}"), more.pop("phase", Phase.RUNNING), **more
    )


def run(*words: str) -> Result:
    result = CliRunner().invoke(main, ["survey", *words])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def found(*words: str, exit_code: int = 0) -> Any:
    result = run(*words, "--json")
    assert result.exit_code == exit_code, result.output
    return json.loads(result.stdout)


def test_each_job_is_told_for_what_it_is(tmp_path: Path, data: Path) -> None:
    clusters(tmp_path, "one")
    stanza = {"cluster": "one"}
    kernels = dict.fromkeys(("mine", "lost", "newer"), (3, stanza))
    home = ledger(data, {**kernels, "asked": (0, stanza)})
    SAID["one", home] = [
        job("mine", 3, host="node1"),
        job("mine", 2, phase=Phase.QUEUED, reason="Resources"),
        job("newer", 4),
        job("newer", 3, phase=Phase.ENDED, exit_code=-9),
        job("stranger", 1, reason="CG\tending\x1b[31m"),
    ]
    told = found()
    assert told["problems"] == []
    kinds = {(row["kernel_id"], row["launch"]): row["kind"] for row in told["jobs"]}
    assert kinds == {
        ("mine", 3): "ours",
        ("mine", 2): "older launch",
        ("newer", 4): "orphan",
        ("newer", 3): "ours",
        ("stranger", 1): "orphan",
        ("lost", 3): "missing",
        ("asked", 0): "missing",
    }
    (mine,) = (row for row in told["jobs"] if row["job_id"] == "mine.3")
    assert mine == {
        "cluster": "one", "home": home, "job_id": "mine.3", "kernel_id": "mine", "launch": 3,
        "phase": "running", "host": "node1", "kind": "ours", "reason": None, "exit_code": None,
    }  # fmt: skip
    result = run()
    assert result.exit_code == 0
    assert "one\tmine.2\tmine\t2\tqueued\t\tolder launch\tResources" in result.stdout.splitlines()
    assert "one\tnewer.3\tnewer\t3\tended\t\tours\texit code -9" in result.stdout.splitlines()
    assert "one\t\tlost\t3\t\t\tmissing\tthe manager shows no job of it" in result.stdout.splitlines()
    assert len(result.stdout.splitlines()) == 7
    assert "CG ending?[31m" in result.stdout
    counts = "5 jobs (2 ours, 1 older launch, 2 orphan, 2 missing)"
    assert result.stderr == f"home {home} ({data}) on one: {counts}\n"
    assert Far.closed == 2


def test_what_the_ledger_wants_before_or_after_is_ours() -> None:
    """Else a kernel that is launched, or ended, while the manager answers would be taken for an orphan."""
    before = KnownHome("h", Path("/"), {"ended": Wanted(1, {}), "again": Wanted(1, {})})
    after = KnownHome("h", Path("/"), {"begun": Wanted(1, {}), "again": Wanted(2, {})})
    question = Question(before, resolve({"backend": "far"}, Settings(), ""), ["ended", "again"])
    answer = Answer(question, [job("ended"), job("begun"), job("again", 2)])
    assert {row.kind for row in judged(answer, after)} == {"ours"}
    rows = list(judged(Answer(question, []), after))
    assert rows == []


def test_a_silent_manager_is_told_and_the_others_are_shown(tmp_path: Path, data: Path) -> None:
    clusters(tmp_path, "one", "silent", "slow", "closed")
    home = ledger(data, {"gone": (1, {"cluster": "removed"}), "quiet": (1, {"cluster": "silent"})})
    SAID["one", home] = [job("stranger")]
    told = found("--timeout", "0.1", exit_code=1)
    assert [row["kernel_id"] for row in told["jobs"]] == ["stranger"]
    assert sorted(told["problems"]) == [
        "cluster closed: the manager did not answer: who are you?",
        "cluster silent: the manager did not answer: connection refused",
        "cluster slow: the manager has not answered for 0.1 s",
        "kernel gone: cluster: no cluster is called `removed` (known: closed, one, silent, slow)",
    ]
    result = run("--timeout", "0.1")
    assert result.exit_code == 1
    assert "stranger" in result.stdout
    assert "connection refused" in result.stderr
    assert " on one: 1 job (1 orphan)" in result.stderr


def test_one_cluster_is_asked_by_name_of_cluster_or_backend(tmp_path: Path, data: Path) -> None:
    clusters(tmp_path, "one", "silent")
    inline = {"backend": "far", "name": "two"}
    home = ledger(data, {"a": (1, {"cluster": "one"}), "b": (1, inline), "c": (1, inline)})
    SAID["one", home] = [job("a")]
    SAID["two", home] = [job("b"), job("c")]
    SAID["far", home] = [job("z")]
    assert [row["kernel_id"] for row in found("one")["jobs"]] == ["a"]
    rows = found("far")["jobs"]
    assert {row["kernel_id"]: row["kind"] for row in rows} == {"b": "ours", "c": "ours", "z": "orphan"}
    (digest,) = {row["cluster"] for row in rows if row["kernel_id"] == "b"}
    assert [row["kernel_id"] for row in found(digest)["jobs"]] == ["b", "c"]
    assert "no kernel of a ledger is on far#0" in run("far#0").stderr
    assert "oen: is no cluster of elsewhere.toml and no backend (did you mean `one`?)" in run("oen").stderr


def test_without_a_ledger_it_says_what_can_be_done(tmp_path: Path, data: Path) -> None:
    clusters(tmp_path, "one")
    result = run()
    assert (result.exit_code, result.stdout) == (1, "")
    assert str(data) in result.stderr
    assert "--data-directory" in result.stderr
    assert "--home" in result.stderr
    assert "there is no ledger in" in run("--data-directory", str(tmp_path / "x")).stderr
    SAID["one", "abc"] = [job("k")]
    assert [row["kind"] for row in found("--home", "abc")["jobs"]] == ["unknown"]
    assert "home abc, which has no ledger here, on one: 1 job (1 unknown)" in run("--home", "abc").stderr
    assert run("--home", "A-b").exit_code == 2


def test_without_any_cluster_it_says_so(data: Path) -> None:
    ledger(data, {})
    assert "there is no cluster to ask" in run().stderr
    result = run("far")
    assert (result.exit_code, result.stdout) == (0, "")
    assert ": no jobs" in result.stderr


def test_ledgers_of_gateways_that_were_started_here_are_found(tmp_path: Path, data: Path) -> None:
    clusters(tmp_path, "one")
    elsewhere = tmp_path / "other gateway"
    first, second = (
        ledger(data, {"a": (1, {"cluster": "one"})}),
        ledger(elsewhere, {"b": (1, {"cluster": "one"})}),
    )
    SAID["one", first], SAID["one", second] = [job("a")], [job("b"), job("a")]
    runtime = tmp_path / "runtime"
    runtime.mkdir()
    started = {"pid": 1, "url": "u", "token": "t", "elsewhere": "0", "data_directory": str(elsewhere)}
    for number, text in enumerate(
        [
            json.dumps(started),
            "{",
            "[]",
            '{"elsewhere": "0"}',
            "{}",
        ]
    ):
        (runtime / f"jpserver-{number}.json").write_text(text)
    rows = {(row["home"], row["kernel_id"]): row["kind"] for row in found()["jobs"]}
    assert rows == {(first, "a"): "ours", (second, "b"): "ours", (second, "a"): "orphan"}
    assert {row["home"] for row in found("--home", second)["jobs"]} == {second}
    assert {row["home"] for row in found("--data-directory", str(data))["jobs"]} == {first}
    assert set(os.listdir(elsewhere)) == {"ledger.db", "ledger.lock"}


def test_a_ledger_that_cannot_be_read_is_told(data: Path) -> None:
    data.mkdir(parents=True)
    (data / "ledger.db").write_text("nonsense, and not a database at all" * 100)
    assert "cannot be read" in run().stderr


def test_without_the_extra_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clusters(tmp_path, "one")
    monkeypatch.delitem(sys.modules, "elsewhere.cli.homes", raising=False)
    monkeypatch.delitem(sys.modules, "elsewhere.gateway.inspection", raising=False)
    monkeypatch.delitem(sys.modules, "elsewhere.gateway.ledger", raising=False)
    monkeypatch.setitem(sys.modules, "sqlalchemy", None)
    assert "pip install 'elsewhere[gateway]'" in run().stderr
    assert found("--home", "abc") == {"jobs": [], "problems": []}


def test_the_table_at_a_terminal(
    tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clusters(tmp_path, "one")
    home = ledger(data, {})
    monkeypatch.setattr(survey.sys.stdout, "isatty", lambda: True)  # type: ignore[attr-defined]
    monkeypatch.setenv("COLUMNS", "200")
    SAID["one", home] = [job("k", reason="[bold]")]
    main(["survey"], standalone_mode=False)
    shown = capsys.readouterr().out
    assert "job id" in shown
    assert "[bold]" in shown
