"""Derive a kernelspec from an installed one, and install it whole or not at all."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import UnionType
from typing import Any, Union, get_args, get_origin

from jupyter_client.kernelspec import KernelSpecManager
from jupyter_core.paths import ENV_JUPYTER_PATH, jupyter_data_dir, prefer_environment_over_user
from pydantic import BaseModel

from elsewhere.errors import SettingsError, near_miss
from elsewhere.launch import THIS_PYTHON
from elsewhere.plugins import backend_names, load_backend
from elsewhere.settings import LaunchSettings, Settings, resolve

_NAME = re.compile(r"[a-z0-9._-]+", re.IGNORECASE)


@dataclass(frozen=True)
class Wish:
    """What a person asked for; option values are still text."""

    where: str
    source: str
    name: str
    display_name: str | None = None
    options: Mapping[str, str] = field(default_factory=dict)
    env: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Derived:
    """A kernelspec to be installed: its kernel.json, and the directory that the other files come from."""

    kernel: Mapping[str, Any]
    files: Path


def derive(wish: Wish, settings: Settings) -> Derived:
    """Return the kernelspec; raise SettingsError if the source or anything in the wish is wrong."""
    if not _NAME.fullmatch(wish.name):
        raise SettingsError("--name", f"{wish.name!r} must have only letters, digits, '-', '_' and '.'")
    installed = KernelSpecManager().find_kernel_specs()
    folder = installed.get(wish.source.lower())
    if folder is None:
        raise SettingsError(
            "--from", f"no kernelspec is called `{wish.source}`{near_miss(wish.source, installed)}"
        )
    kernel = _read(wish.source, Path(folder))
    stanza = _stanza(wish, settings)
    backend = resolve(stanza, settings, "specs add").backend_name
    metadata = dict(kernel.get("metadata", {}))
    # The kernel would encrypt what only its agent reads; clients have ipc links of their own.
    metadata.pop("supported_encryption", None)
    metadata["kernel_provisioner"] = {"provisioner_name": "elsewhere", "config": stanza}
    kernel["metadata"] = metadata
    kernel["display_name"] = wish.display_name or f"{kernel.get('display_name', wish.source)} ({wish.where})"
    if backend == "local":  # its jobs run on this machine, so the program can be settled now
        kernel["argv"] = _absolute(kernel["argv"])
    if wish.env:
        kernel["env"] = {**kernel.get("env", {}), **wish.env}
    return Derived(kernel, Path(folder))


def _read(name: str, folder: Path) -> dict[str, Any]:
    file = folder / "kernel.json"
    if not file.exists():  # ipykernel's own, made up by jupyter_client
        made_up: dict[str, Any] = KernelSpecManager().get_kernel_spec(name).to_dict()
        return made_up
    try:
        kernel: object = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise SettingsError(str(file), f"is not valid JSON: {error}") from error
    if not isinstance(kernel, dict) or not kernel.get("argv"):
        raise SettingsError(str(file), "is no kernelspec: it has no argv")
    return kernel


def _stanza(wish: Wish, settings: Settings) -> dict[str, object]:
    """A configured cluster is named; a backend has those keys inline that only its cluster settings know."""
    if wish.where in settings.clusters:
        backend = load_backend(settings.clusters[wish.where].type, settings.clusters[wish.where].where.source)
        inline: set[str] = set()
        stanza: dict[str, object] = {"cluster": wish.where}
    else:
        known = {*backend_names(), *settings.clusters}
        if wish.where not in known:
            raise SettingsError(
                wish.where, f"is no backend and no cluster of elsewhere.toml{near_miss(wish.where, known)}"
            )
        backend = load_backend(wish.where, wish.where)
        inline = set(backend.Config.model_fields) - set(LaunchSettings.model_fields)
        inline -= set(backend.Options.model_fields)
        stanza = {"backend": wish.where}
    options: dict[str, object] = {}
    for key, text in wish.options.items():
        table = stanza if key in inline else options
        table[key] = _value(text, key, (LaunchSettings, backend.Options, backend.Config))
    return {**stanza, "options": options} if options else stanza


def _value(text: str, key: str, models: tuple[type[BaseModel], ...]) -> object:
    field = next((model.model_fields[key] for model in models if key in model.model_fields), None)
    if field is not None and _takes_text(field.annotation):
        return text
    try:
        return json.loads(text)
    except ValueError:
        return text


def _takes_text(annotation: Any) -> bool:
    if get_origin(annotation) in (Union, UnionType):
        return any(_takes_text(member) for member in get_args(annotation))
    # Python 3.10 takes list[str] for a class.
    is_class = get_origin(annotation) is None and isinstance(annotation, type)
    return is_class and issubclass(annotation, str | os.PathLike)


def _absolute(argv: list[str]) -> list[str]:
    program = sys.executable if argv[0] in THIS_PYTHON else shutil.which(argv[0])
    if program is None:
        raise SettingsError("--from", f"its program `{argv[0]}` is not found on this machine")
    return [os.path.abspath(program), *argv[1:]]


def kernels_directory(place: str | None, prefix: str | None) -> Path:
    """Return where kernelspecs go: below a prefix, else to the user or this Python's environment."""
    if prefix:
        return Path(prefix).absolute() / "share" / "jupyter" / "kernels"
    if place == "sys-prefix" or (place is None and prefer_environment_over_user()):
        return Path(ENV_JUPYTER_PATH[0]) / "kernels"
    return Path(jupyter_data_dir()) / "kernels"


def install(derived: Derived, target: Path, *, replace: bool) -> Path:
    """Put the kernelspec in place at once; an existing one is refused, or with ``replace`` exchanged."""
    if os.path.lexists(target) and not replace:
        raise SettingsError(str(target), "is there already; --replace replaces it")
    target.parent.mkdir(parents=True, exist_ok=True)
    # Beside the kernels' directory, so that nobody lists what is half done.
    with tempfile.TemporaryDirectory(prefix=".elsewhere-", dir=target.parent.parent) as scratch:
        new, old = Path(scratch, "new"), Path(scratch, "old")
        shutil.copytree(derived.files, new, ignore=shutil.ignore_patterns("kernel.json", "__pycache__"))
        new.chmod(0o755)
        text = json.dumps(derived.kernel, indent=1, ensure_ascii=False) + "\n"
        (new / "kernel.json").write_text(text, encoding="utf-8")
        if os.path.lexists(target):
            target.rename(old)
        try:
            new.rename(target)
        except OSError:
            if os.path.lexists(old):
                old.rename(target)
            raise
    return target
