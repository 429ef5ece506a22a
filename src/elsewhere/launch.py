"""A kernelspec, the user's wishes and the site's policy become a launch. Pure."""

from __future__ import annotations

import fnmatch
import getpass
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from stat import S_ISREG
from string import Template
from typing import Protocol

from elsewhere.backend import Launch, Mark, Options, Order
from elsewhere.errors import SettingsError
from elsewhere.settings import LaunchSettings, Resolved

THIS_PYTHON = ("python", f"python{sys.version_info[0]}", "python{}.{}".format(*sys.version_info[:2]))
"""What jupyter_client takes for the interpreter that it runs in, where a kernel runs beside it."""

FILES_LIMIT = 8 * 2**20
"""Bytes of a kernelspec's directory at most: it travels with each job."""

_ALWAYS = ("KERNEL_*", "JPY_SESSION_NAME")
_NEVER = ("JPY_PARENT_PID", "PYTHONEXECUTABLE")
# Not xeus: it reads an endpoint back into 32 bytes, so a path of more than 25 ends it (xeus 6.0.5).
_SPEAKS_IPC = re.compile(r"(ipykernel|ipykernel_launcher)(\.py)?")
_PYTHON = re.compile(r"python[0-9.]*")
_PLACEHOLDER = re.compile(r"\{([A-Za-z0-9_]+)\}")
_OF_THE_JOB = ("connection_file", "resource_dir", "prefix")


class Spec(Protocol):
    """What is used of a kernelspec: jupyter_client's ``KernelSpec`` has it."""

    argv: list[str]
    env: dict[str, str]
    resource_dir: str


@dataclass(frozen=True)
class Host:
    """What a launch may take from the process that asks for it."""

    env: Mapping[str, str] = field(repr=False)
    cwd: str | None
    username: str

    @classmethod
    def current(cls) -> Host:
        """Return what holds for this process now."""
        try:
            cwd = os.getcwd()
        except OSError:
            cwd = None
        try:
            username = getpass.getuser()
        except (KeyError, OSError):  # a container's user without a name
            username = str(os.getuid())
        return cls(dict(os.environ), cwd, username)


def read_files(directory: str) -> dict[str, bytes]:
    """Return a kernelspec's files (relative name → content); SettingsError where they are too many."""
    found, total = {}, 0
    for folder, _, names in os.walk(directory):
        for name in names:
            path = Path(folder, name)
            try:
                status = path.stat()
                if not S_ISREG(status.st_mode):
                    continue
                total += status.st_size
                if total > FILES_LIMIT:
                    raise SettingsError(
                        directory,
                        f"the kernelspec uses {{resource_dir}}, but its files are more than the "
                        f"{FILES_LIMIT // 2**20} MiB that can be sent along",
                    )
                found[path.relative_to(directory).as_posix()] = path.read_bytes()
            except OSError as error:
                raise SettingsError(str(path), f"cannot be read: {error.strerror}") from error
    return found


def plan(
    mark: Mark,
    kernel_name: str,
    spec: Spec,
    resolved: Resolved,
    start: Mapping[str, object],
    host: Host,
    files: Callable[[str], Mapping[str, bytes]] = read_files,
) -> Launch[Options]:
    """Return what to start.

    ``start`` are the keyword arguments of the start, as ``start_kernel`` got them: ``env`` (without
    one: the host's environment), ``cwd`` (default: the host's; a relative one starts there),
    ``extra_arguments``; others are placeholders of the argv by their names. argv is left unfilled:
    {connection_file}, {resource_dir} and {prefix} are paths in the job. ``files`` is asked for the
    content of the kernelspec's directory if {resource_dir} is used.

    Raises SettingsError, which names the word or variable that cannot be passed.
    """
    where = f"kernelspec {kernel_name!r}"
    extra = start.get("extra_arguments") or []
    if not isinstance(extra, Sequence) or isinstance(extra, str):
        raise SettingsError("extra_arguments", "must be a list of words")
    argv = tuple(_word(word, f"{where}: argv[{index}]") for index, word in enumerate([*spec.argv, *extra]))
    if not argv:
        raise SettingsError(f"{where}: argv", "is empty, so there is nothing to start")
    given = start.get("env")
    if given is not None and not isinstance(given, Mapping):
        raise SettingsError("env", "must be a table of names and values")
    env = environment(spec.env, given, resolved.launch.pass_env, host.env, where)
    uses_files = any("{resource_dir}" in word for word in argv)
    return Launch(
        mark=mark,
        kernel_name=kernel_name,
        username=env.get("KERNEL_USERNAME") or host.username,
        python=resolved.options.python or _interpreter(argv[0]),
        order=Order(
            argv=argv,
            env=env,
            cwd=_directory(start.get("cwd"), host.cwd),
            transport=transport(argv, resolved.launch),
            files=dict(files(spec.resource_dir)) if uses_files else {},
            placeholders=dict(_placeholders(argv, start)),
        ),
        options=resolved.options,
    )


def environment(
    of_spec: Mapping[str, str],
    given: Mapping[str, str] | None,
    pass_env: Iterable[str],
    of_host: Mapping[str, str],
    where: str,
) -> dict[str, str]:
    """Return what the kernel gets beside the environment of its job.

    That is, of the environment ``given`` for the start: what differs from the host's own (stock
    hosts give all of theirs), and KERNEL_* and JPY_SESSION_NAME in any case; of the host's own: what
    ``pass_env`` names; and the kernelspec's, in which $NAME stands for what was given.
    """
    whole = of_host if given is None else given
    env = {
        name: value
        for name, value in whole.items()
        if name not in of_host or of_host[name] != value or _named(name, _ALWAYS)
    }
    patterns = tuple(pass_env)
    env.update({name: whole.get(name, of_host[name]) for name in of_host if _named(name, patterns)})
    for name, value in of_spec.items():
        env[name] = Template(_word(value, f"{where}: env.{name}")).safe_substitute(whole)
    return {_variable(name): _word(value, f"env.{name}") for name, value in env.items() if name not in _NEVER}


def transport(argv: Sequence[str], settings: LaunchSettings) -> str:
    """Return how the kernel is asked to listen: as set, else "ipc" where it is known to speak it."""
    if settings.transport:
        return settings.transport
    return "ipc" if any(_SPEAKS_IPC.fullmatch(os.path.basename(word)) for word in argv) else "tcp"


def _named(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def _word(value: object, where: str) -> str:
    if not isinstance(value, str):
        raise SettingsError(where, f"must be text, not {value!r}")
    if "\0" in value:
        raise SettingsError(where, "holds a NUL byte, which no program can be given")
    return value


def _variable(name: object) -> str:
    if not isinstance(name, str) or not name or "=" in name or "\0" in name:
        raise SettingsError("env", f"{name!r} cannot be the name of a variable")
    return name


def _interpreter(program: str) -> str:
    return program if _PYTHON.fullmatch(os.path.basename(program)) else "python3"


def _directory(wanted: object, of_host: str | None) -> str | None:
    if wanted is None or wanted == "":
        return of_host
    if not isinstance(wanted, str | os.PathLike):
        raise SettingsError("cwd", f"must be a path, not {wanted!r}")
    path = _word(os.fspath(wanted), "cwd")
    return os.path.join(of_host, path) if of_host else path


def _placeholders(argv: Sequence[str], start: Mapping[str, object]) -> Iterator[tuple[str, str]]:
    for name in {name for word in argv for name in _PLACEHOLDER.findall(word)}:
        value = start.get(name)
        if name not in _OF_THE_JOB and isinstance(value, str | int | float | os.PathLike):
            yield name, _word(str(value), name)
