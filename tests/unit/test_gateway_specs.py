"""The gateway's kernelspecs: remembered, seen when they change, and a broken one spoils no other."""

from __future__ import annotations

import asyncio
import json
import logging
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
from jupyter_client.kernelspec import NoSuchKernel

from elsewhere.gateway.specs import File, GatewayKernelSpecManager

AWAY = {"kernel_provisioner": {"provisioner_name": "elsewhere", "config": {"backend": "local"}}}


class Directory:
    """A directory of kernelspecs."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def write(self, name: str, text: str) -> None:
        (self.path / name).mkdir(exist_ok=True)
        (self.path / name / "kernel.json").write_text(text)

    def add(self, name: str, metadata: object = AWAY, **fields: object) -> None:
        spec = {"argv": ["python3", "-m", "x"], "display_name": name, "language": "x", "metadata": metadata}
        self.write(name, json.dumps({**spec, **fields}))

    def remove(self, name: str) -> None:
        shutil.rmtree(self.path / name)


@pytest.fixture
def directory(tmp_path: Path) -> Directory:
    return Directory(tmp_path)


def manager_of(*directories: Directory, **traits: Any) -> GatewayKernelSpecManager:
    paths = [str(one.path) for one in directories]
    log = logging.getLogger("specs")
    return GatewayKernelSpecManager(kernel_dirs=paths, ensure_native_kernel=False, log=log, **traits)


def test_only_what_says_where_to_run_is_offered(directory: Directory) -> None:
    directory.add("away")
    directory.add("here", {})
    manager = manager_of(directory)
    assert list(manager.get_all_specs()) == ["away"]
    assert manager.get_kernel_spec("away").metadata == AWAY
    with pytest.raises(NoSuchKernel):
        manager.get_kernel_spec("here")


def test_with_a_default_cluster_all_are(directory: Directory) -> None:
    directory.add("here", {"debugger": True})
    local = manager_of(directory, default_cluster="local").get_kernel_spec("here")
    assert local.metadata == {"debugger": True, **AWAY}
    assert local.argv == [sys.executable, "-m", "x"]
    elsewhere = manager_of(directory, default_cluster="big").get_kernel_spec("here")
    assert elsewhere.metadata["kernel_provisioner"]["config"] == {"cluster": "big"}
    assert elsewhere.argv == ["python3", "-m", "x"]


async def test_what_was_read_is_remembered_until_a_look(directory: Directory) -> None:
    directory.add("one")
    manager = manager_of(directory)
    assert list(manager.get_all_specs()) == ["one"]
    directory.add("two")
    directory.remove("one")
    assert list(manager.get_all_specs()) == ["one"]
    await manager.look()
    assert list(manager.get_all_specs()) == ["two"]
    directory.add("two", display_name="another")
    await manager.look()
    assert manager.get_kernel_spec("two").display_name == "another"


async def test_a_look_reads_nothing_that_is_as_it_was(
    directory: Directory, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory.add("one")
    manager = manager_of(directory)
    await manager.look()

    def read() -> None:
        raise AssertionError("read again")

    monkeypatch.setattr(manager, "_read", read)
    await manager.look()
    assert list(manager.get_all_specs()) == ["one"]


async def test_many_who_ask_at_once_share_a_look_that_began_after_they_asked(
    directory: Directory, monkeypatch: pytest.MonkeyPatch
) -> None:
    manager = manager_of(directory)
    listed = manager._list_files
    looks: list[int] = []

    def count() -> frozenset[File]:
        looks.append(len(looks))
        if len(looks) == 1:
            directory.add("meanwhile")  # too late for this look
            return frozenset()
        return listed()

    monkeypatch.setattr(manager, "_list_files", count)
    await asyncio.gather(*(manager.look() for _ in range(50)))
    assert len(looks) == 2
    assert list(manager.get_all_specs()) == ["meanwhile"]


def test_what_a_caller_does_to_a_kernelspec_is_its_own_affair(directory: Directory) -> None:
    directory.add("one", env={"A": "1"})
    manager = manager_of(directory)
    spec = manager.get_kernel_spec("one")
    spec.env["A"] = "2"
    spec.metadata["kernel_provisioner"].clear()
    manager.get_all_specs()["one"]["spec"]["env"]["A"] = "3"
    again = manager.get_kernel_spec("one")
    assert (again.env, again.metadata) == ({"A": "1"}, AWAY)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", '"x"', '{"argv": 7}', '{"metadata": {"kernel_provisioner": 1}}', "\udc80"]
)
async def test_one_that_is_broken_is_left_out_and_told_once(
    directory: Directory, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    directory.add("good")
    directory.write("bad", "{}")
    (directory.path / "bad" / "kernel.json").write_bytes(text.encode(errors="surrogateescape"))
    manager = manager_of(directory)
    assert list(manager.get_all_specs()) == ["good"]
    directory.add("more")
    await manager.look()
    assert list(manager.get_all_specs()) == ["good", "more"]
    said = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(said) == 1
    assert said[0].startswith(f"the kernelspec 'bad' is left out: {directory.path}/bad/kernel.json")
    assert (await manager.missing("bad")).startswith("the kernelspec 'bad' cannot be used: ")
    directory.add("bad")
    assert await manager.missing("bad") == ""
    assert list(manager.get_all_specs()) == ["bad", "good", "more"]


async def test_one_whose_provisioner_is_not_installed_says_so(directory: Directory) -> None:
    directory.add("odd", {"kernel_provisioner": {"provisioner_name": "no-such", "config": {}}})
    why = await manager_of(directory).missing("odd")
    assert why.endswith("odd/kernel.json names is not installed")


async def test_a_name_that_is_not_there_gets_the_near_miss(directory: Directory) -> None:
    directory.add("python3-away")
    manager = manager_of(directory)
    assert await manager.missing("PYTHON3-away") == ""
    assert await manager.missing("python-away") == (
        "no kernelspec is called 'python-away' (did you mean `python3-away`?)"
    )


async def test_a_kernelspec_can_be_used_the_moment_it_is_there(directory: Directory) -> None:
    manager = manager_of(directory)
    assert manager.get_all_specs() == {}
    directory.add("new")
    assert await manager.missing("new") == ""
    assert manager.get_kernel_spec("new").display_name == "new"


def test_the_first_directory_wins(tmp_path: Path) -> None:
    first, second = Directory(tmp_path / "a"), Directory(tmp_path / "b")
    for one in (first, second):
        one.path.mkdir()
    first.add("one", display_name="first")
    second.add("one", display_name="second")
    assert manager_of(first, second, Directory(tmp_path / "none")).get_kernel_spec("one").display_name == (
        "first"
    )
