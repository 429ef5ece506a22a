"""What a person names on the command line (a kernelspec, a cluster, options of a launch), as a stanza."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from typing import Any

import click
from jupyter_client.kernelspec import KernelSpec, KernelSpecManager
from pydantic import TypeAdapter, ValidationError
from pydantic.fields import FieldInfo
from traitlets import TraitError

from elsewhere.backend import Backend
from elsewhere.errors import SettingsError, near_miss
from elsewhere.plugins import backend_names, load_backend
from elsewhere.settings import LaunchSettings, Resolved, Settings, resolve

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PROVISIONER = "elsewhere"


def pairs(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> dict[str, str]:
    """Return what was written as KEY=VALUE; a callback for options of click."""
    parts = [value.partition("=") for value in values]
    for value, (key, equals, _) in zip(values, parts, strict=True):
        if not key or not equals:
            raise click.BadParameter(f"{value!r} is not of the form key=value")
        if not _is_text(value):
            raise click.BadParameter(f"{value!r} is not UTF-8 text")
    return {key: value for key, _, value in parts}


def _is_text(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:  # bytes of a command line that are no text come as surrogates
        return False
    return True


launch_options: Callable[..., Any] = click.option(
    "-o",
    "options",
    metavar="KEY=VALUE",
    multiple=True,
    callback=pairs,
    help="An option of the launch, its value as in TOML, or text; repeatable.",
)


def read_spec(name: str) -> KernelSpec:
    """Return an installed kernelspec; SettingsError with the near miss, or with what is wrong in its file."""
    manager = KernelSpecManager()
    installed = manager.find_kernel_specs()
    folder = installed.get(name.lower())
    if folder is None:
        raise SettingsError(name, f"no kernelspec is called so{near_miss(name, installed)}")
    try:
        spec = manager.get_kernel_spec(name.lower())
    except (ValueError, TypeError, AttributeError, TraitError) as error:
        raise SettingsError(f"{folder}/kernel.json", f"is no kernelspec: {error}") from error
    return spec


def stanza_of(name: str, spec: KernelSpec) -> Mapping[str, Any]:
    """Return the kernelspec's stanza; SettingsError, which says what to do, if it has none of ours."""
    provisioner = spec.metadata.get("kernel_provisioner")
    if not isinstance(provisioner, Mapping) or provisioner.get("provisioner_name") != PROVISIONER:
        raise SettingsError(
            f"kernelspec {name!r}",
            "has no stanza of ours, so its kernels run where Jupyter does; derive one that has: "
            f"elsewhere specs add WHERE --from {name}",
        )
    stanza = provisioner.get("config", {})
    if not isinstance(stanza, Mapping):
        raise SettingsError(f"kernelspec {name!r}", "metadata.kernel_provisioner.config must be a table")
    return stanza


def stanza_for(where: str, settings: Settings) -> Mapping[str, Any]:
    """Return the stanza for a cluster of ``elsewhere.toml``, or for a backend with its defaults.

    Raises SettingsError with the near miss.
    """
    if where in settings.clusters:
        return {"cluster": where}
    backends = backend_names()
    if where not in backends:
        known = {*backends, *settings.clusters}
        raise SettingsError(where, f"is no cluster of elsewhere.toml and no backend{near_miss(where, known)}")
    return {"backend": where}


def with_options(
    stanza: Mapping[str, Any], options: Mapping[str, str], settings: Settings, where: str
) -> tuple[Mapping[str, Any], Resolved]:
    """Return the stanza with these options over its own, and what it means. Raises SettingsError.

    What only the cluster's settings know goes beside a ``backend`` that is named inline.
    """
    whole = dict(stanza)
    backend = _backend(whole, settings, where) if options else None
    if backend is not None:
        table = whole.get("options", {})
        asked = dict(table) if isinstance(table, Mapping) else {}
        of_launch = {**LaunchSettings.model_fields, **backend.Options.model_fields}
        inline = backend.Config.model_fields if "backend" in whole else {}
        for key, text in options.items():
            if key in inline and key not in of_launch:
                whole[key] = value_of(text, inline[key])
            else:
                asked[key] = value_of(text, of_launch.get(key))
        whole["options"] = asked
    return whole, resolve(whole, settings, where)


def _backend(stanza: Mapping[str, Any], settings: Settings, where: str) -> type[Backend[Any, Any]] | None:
    """Return None for a stanza of which ``resolve`` says what is wrong."""
    cluster, name = stanza.get("cluster"), stanza.get("backend")
    if isinstance(cluster, str):
        found = settings.cluster(cluster, where)
        return load_backend(found.type, str(found.where / "type"))
    return load_backend(name, where) if isinstance(name, str) else None


def value_of(text: str, field: FieldInfo | None) -> object:
    """Return the value in TOML, unless it is none, or the option takes only the text as it is."""
    try:
        parsed = tomllib.loads(f"value = [{text}, 0]")  # on one line, so that no comment is cut off
    except (tomllib.TOMLDecodeError, RecursionError):
        return text
    values = parsed.get("value")
    if len(parsed) > 1 or not isinstance(values, list) or len(values) != 2 or not _is_json(values[0]):
        return text
    if field is not None and not _takes(field, values[0]) and _takes(field, text):
        return text
    return values[0]


def _is_json(value: object) -> bool:
    """Dates and times are left as they were written."""
    if isinstance(value, list):
        return all(map(_is_json, value))
    if isinstance(value, dict):
        return all(map(_is_json, value.values()))
    return isinstance(value, bool | int | float | str)


def _takes(field: FieldInfo, value: object) -> bool:
    annotation: Any = field.annotation
    try:
        TypeAdapter(annotation).validate_json(json.dumps(value), strict=True)
    except ValidationError:
        return False
    return True
