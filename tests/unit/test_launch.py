"""From kernelspec, wishes and policy to a launch."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from elsewhere.backend import Backend, ClusterConfig, Launch, Mark, Options
from elsewhere.errors import SettingsError
from elsewhere.launch import FILES_LIMIT, Host, plan, read_files
from elsewhere.settings import LaunchSettings, Limits, Resolved

MARK = Mark("home1", "kernel-1", 1)
IPYKERNEL = ["python3", "-m", "ipykernel_launcher", "-f", "{connection_file}"]
HOST = Host({"PATH": "/bin", "HOME": "/home/me", "TOKEN": "secret"}, "/work", "me")


def planned(
    argv: list[str] | None = None,
    spec_env: dict[str, Any] | None = None,
    start: dict[str, object] | None = None,
    host: Host = HOST,
    python: str | None = None,
    files: dict[str, bytes] | None = None,
    **launch: Any,
) -> Launch[Options]:
    def read(directory: str) -> dict[str, bytes]:
        assert files is not None, "the directory was read without need"
        assert directory == "/kernels/k"
        return files

    backend: Any = Backend
    resolved = Resolved(
        "c", "b", backend, ClusterConfig(), Options(python=python), LaunchSettings(**launch), Limits()
    )
    spec: Any = SimpleNamespace(
        argv=IPYKERNEL if argv is None else argv, env=spec_env or {}, resource_dir="/kernels/k"
    )
    return plan(MARK, "k", spec, resolved, start or {}, host, read)


def test_argv_stays_unfilled_and_takes_extra_arguments() -> None:
    launch = planned(start={"extra_arguments": ["--debug", "{prefix}"]})
    assert launch.order.argv == (*IPYKERNEL, "--debug", "{prefix}")
    assert launch.order.placeholders == {}
    assert (launch.mark, launch.kernel_name, launch.python) == (MARK, "k", "python3")


def test_keywords_of_the_start_are_placeholders_where_they_are_used() -> None:
    start: dict[str, object] = {"level": 3, "unused": "x", "resource_dir": "/mine", "queue": "{level}"}
    launch = planned(["run", "{level}", "{queue}", "{unknown}", "{connection_file}"], start=start)
    assert launch.order.placeholders == {"level": "3", "queue": "{level}"}


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        (None, {}),
        (dict(HOST.env), {}),
        ({**HOST.env, "NEW": "1"}, {"NEW": "1"}),
        ({**HOST.env, "PATH": "/opt/bin:/bin"}, {"PATH": "/opt/bin:/bin"}),
        (
            {"KERNEL_ID": "7", "JPY_SESSION_NAME": "a.ipynb"},
            {"KERNEL_ID": "7", "JPY_SESSION_NAME": "a.ipynb"},
        ),
        ({"JPY_PARENT_PID": "1", "PYTHONEXECUTABLE": "/x"}, {}),
    ],
)
def test_only_what_differs_from_the_host_is_passed(
    given: dict[str, str] | None, kept: dict[str, str]
) -> None:
    assert planned(start={"env": given} if given is not None else {}).order.env == kept


def test_some_variables_are_passed_even_if_they_are_the_hosts() -> None:
    env = {
        "KERNEL_USERNAME": "eve",
        "JPY_SESSION_NAME": "s",
        "HF_HOME": "/hf",
        "HF_X": "1",
        "TOKEN": "secret",
    }
    host = Host(env, "/", "me")
    launch = planned(host=host, pass_env=("HF_*",))
    assert launch.order.env == {name: env[name] for name in env if name != "TOKEN"}
    assert launch.username == "eve"


def test_the_site_passes_from_the_host_what_the_start_left_out() -> None:
    assert planned(start={"env": {}}, pass_env=("TOKEN",)).order.env == {"TOKEN": "secret"}
    assert planned(start={"env": {"TOKEN": "own"}}, pass_env=("TOKEN",)).order.env == {"TOKEN": "own"}


def test_the_kernelspecs_variables_are_filled_from_what_was_given() -> None:
    spec_env = {
        "PATH": "/opt/k:${PATH}",
        "HOME": "/home/me",
        "OTHER": "$NOT_THERE $5 $$",
        "JPY_PARENT_PID": "3",
    }
    assert planned(spec_env=spec_env).order.env == {
        "PATH": "/opt/k:/bin", "HOME": "/home/me", "OTHER": "$NOT_THERE $5 $",
    }  # fmt: skip
    assert planned(spec_env=spec_env, start={"env": {}}).order.env["PATH"] == "/opt/k:${PATH}"


@pytest.mark.parametrize(
    ("argv", "setting", "expected"),
    [
        (IPYKERNEL, None, "ipc"),
        (["python3.11", "-m", "ipykernel"], None, "ipc"),
        (["/env/bin/xpython", "-f", "{connection_file}"], None, "tcp"),
        (["python3.11", "-m", "xpython_launcher"], None, "tcp"),
        (["deno", "jupyter", "--conn", "{connection_file}"], None, "tcp"),
        (["/home/ipykernel/deno"], None, "tcp"),
        (IPYKERNEL, "tcp", "tcp"),
        (["deno"], "ipc", "ipc"),
    ],
)
def test_transport(argv: list[str], setting: str | None, expected: str) -> None:
    assert planned(argv, transport=setting).order.transport == expected


@pytest.mark.parametrize(
    ("program", "option", "expected"),
    [
        ("/env/bin/python3.12", None, "/env/bin/python3.12"),
        ("python", None, "python"),
        ("deno", None, "python3"),
        ("pythonic", None, "python3"),
        ("python3", "/usr/bin/python3", "/usr/bin/python3"),
    ],
)
def test_the_agents_interpreter(program: str, option: str | None, expected: str) -> None:
    assert planned([program], python=option).python == expected


@pytest.mark.parametrize(
    ("wanted", "of_host", "cwd"),
    [
        (None, "/work", "/work"),
        ("", "/work", "/work"),
        ("sub", "/work", "/work/sub"),
        ("/else", "/work", "/else"),
        (Path("sub"), "/work", "/work/sub"),
        (None, None, None),
        ("sub", None, "sub"),
    ],
)
def test_the_working_directory(wanted: object, of_host: str | None, cwd: str | None) -> None:
    assert planned(start={"cwd": wanted}, host=Host({}, of_host, "me")).order.cwd == cwd


def test_files_travel_only_when_they_are_used() -> None:
    assert planned().order.files == {}
    assert planned(["{resource_dir}/run.sh"], files={"run.sh": b"x"}).order.files == {"run.sh": b"x"}
    assert planned(spec_env={"LIB": "{resource_dir}/lib"}, files={"a": b"x"}).order.files == {}


@pytest.mark.parametrize(
    ("arguments", "where"),
    [
        ({"argv": []}, "kernelspec 'k': argv"),
        ({"argv": ["a", 3]}, "kernelspec 'k': argv[1]"),
        ({"argv": ["a", "b\0"]}, "kernelspec 'k': argv[1]"),
        ({"spec_env": {"THREADS": 4}}, "kernelspec 'k': env.THREADS"),
        ({"start": {"env": {"A": "b\0c"}}}, "env.A"),
        ({"start": {"env": {"A": None}}}, "env.A"),
        ({"start": {"env": {"A=B": "c"}}}, "env"),
        ({"start": {"env": ["A=B"]}}, "env"),
        ({"start": {"cwd": 3}}, "cwd"),
        ({"start": {"extra_arguments": "--debug"}}, "extra_arguments"),
    ],
)
def test_what_no_program_can_be_given_is_refused_by_name(arguments: dict[str, Any], where: str) -> None:
    with pytest.raises(SettingsError) as refused:
        planned(**arguments)
    assert refused.value.where == where


def test_a_secret_is_not_shown() -> None:
    assert "hidden" not in repr(
        planned(start={"env": {"A": "hidden"}}, host=Host({"B": "hidden"}, "/", "me"))
    )
    assert "secret" not in repr(HOST)


_words = st.text(st.characters(exclude_characters="\0"), max_size=12)
_bytes_as_text = st.binary(max_size=12).map(lambda raw: os.fsdecode(raw.replace(b"\0", b"")))
_names = st.text(st.characters(exclude_characters="\0="), min_size=1, max_size=12).filter(
    lambda name: name not in ("JPY_PARENT_PID", "PYTHONEXECUTABLE")
)


@settings(deadline=None)  # a busy machine is no failure
@given(
    argv=st.lists(_words | _bytes_as_text, min_size=1), env=st.dictionaries(_names, _words | _bytes_as_text)
)
def test_awkward_words_arrive_unchanged(argv: list[str], env: dict[str, str]) -> None:
    launch = planned(argv, start={"env": env}, host=Host({}, "/", "me"), files={})
    assert launch.order.argv == tuple(argv)
    assert launch.order.env == env


def test_reading_a_kernelspecs_files(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "run.sh").write_bytes(b"\0\xff")
    (tmp_path / "kernel.json").write_text("{}")
    os.mkfifo(tmp_path / "pipe")
    assert read_files(str(tmp_path)) == {"bin/run.sh": b"\0\xff", "kernel.json": b"{}"}


def test_too_large_a_directory_is_refused(tmp_path: Path) -> None:
    with (tmp_path / "big").open("wb") as out:
        out.truncate(FILES_LIMIT + 1)
    with pytest.raises(SettingsError, match="more than the 8 MiB"):
        read_files(str(tmp_path))


def test_the_host_is_this_process(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LOGNAME", "somebody")
    monkeypatch.chdir(tmp_path)
    host = Host.current()
    assert (host.username, host.cwd, host.env["LOGNAME"]) == ("somebody", str(tmp_path), "somebody")
    tmp_path.rmdir()
    assert Host.current().cwd is None
