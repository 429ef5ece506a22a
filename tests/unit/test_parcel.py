"""The parcel: small, complete, the same each time but for its secrets, which are not shown."""

from __future__ import annotations

import ast
import io
import json
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

from elsewhere.agent import words
from elsewhere.agent.boot import MEMBER
from elsewhere.backend import Mark, Order, Parcel
from elsewhere.parcel import Graces, Home, Signing, SpoolLimits, agent_archive, order_fields, pack

LARGEST = 190 * 1024
"""Bytes, of which the compiled modules are two thirds. A Secret of Kubernetes takes 1 MiB, in base64."""


def packed(**order: Any) -> Parcel:
    order.setdefault("argv", ("python", "{connection_file}"))
    fields = order_fields(1, Order(**order), "python3", Signing("key"))
    home = Home("name", "PEM", ("a:1", "b:2"))
    return pack(Mark("home", "k", 3), home, "tok", fields, Graces(idle=7), SpoolLimits(1, 2))


def opened(parcel: Parcel) -> dict[str, Any]:
    with zipfile.ZipFile(io.BytesIO(parcel.content)) as archive:
        content: dict[str, Any] = json.loads(archive.read(MEMBER))
        return content


def test_it_is_small() -> None:
    size = len(packed().content)
    print(f"a parcel has {size / 1024:.0f} kB")
    assert size < LARGEST


def test_it_holds_what_the_agent_needs_to_know() -> None:
    content = opened(packed(files={"a": b"\xff"}, env={"Ä": "\udce4"}, cwd="/w", transport="ipc"))
    assert content["mark"] == {"home_id": "home", "kernel_id": "k", "launch": 3}
    assert content["home"] == {"name": "name", "ca": "PEM", "addresses": ["a:1", "b:2"]}
    assert (content["token"], content["protocol"]) == ("tok", words.PROTOCOL)
    assert (content["graces"]["idle"], content["spool"]) == (7, {"memory": 1, "disk": 2})
    order = content["order"]
    assert (order["files"], order["env"], order["cwd"]) == ({"a": "/w=="}, {"Ä": "\udce4"}, "/w")
    assert (order["transport"], order["key"], order["start"]) == ("ipc", "key", 1)


def test_it_is_not_shown() -> None:
    assert "tok" not in repr(packed())


def test_the_agent_is_the_same_each_time_and_a_parcel_does_not_change_it() -> None:
    before = agent_archive()
    packed()
    assert agent_archive() is before
    assert MEMBER not in zipfile.ZipFile(io.BytesIO(before)).namelist()


def test_it_is_complete_and_nothing_of_ours_is_left_out() -> None:
    """Every module that the agent imports of ours is in the archive, for it is all that it has."""
    with zipfile.ZipFile(io.BytesIO(agent_archive())) as archive:
        names = set(archive.namelist())
        for name in names:
            if not name.endswith(".py"):
                continue
            for node in ast.walk(ast.parse(archive.read(name))):
                if isinstance(node, ast.ImportFrom) and node.level:
                    wanted = [node.module] if node.module else [alias.name for alias in node.names]
                    for module in wanted:
                        assert f"elsewhere/agent/{module}.py" in names
                elif isinstance(node, ast.ImportFrom):
                    assert node.module != "elsewhere"
    assert {"__main__.py", "elsewhere/__init__.py", "elsewhere/agent/boot.py"} <= names


def test_its_compiled_modules_are_used_by_this_python(tmp_path: Path) -> None:
    archive = tmp_path / "agent.pyz"
    archive.write_bytes(agent_archive())
    program = f"""if True:
        import builtins, sys
        sys.path.insert(0, {str(archive)!r})
        compiled = []
        real = builtins.compile
        builtins.compile = lambda source, name, *args, **kwargs: (
            compiled.append(str(name)), real(source, name, *args, **kwargs))[1]
        import elsewhere.agent.main
        print(elsewhere.agent.main.__file__)
        print([name for name in compiled if "elsewhere" in name])
    """
    answer = subprocess.run([sys.executable, "-I", "-c", program], capture_output=True, check=True, text=True)
    where, compiled = answer.stdout.splitlines()
    assert where.startswith(str(archive))
    assert compiled == "[]"
