"""``elsewhere render``: what is printed of a request, and how options of the command line are read."""

from __future__ import annotations

import enum
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import jupyter_core.paths
import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field

from elsewhere import plugins
from elsewhere.backend import Backend, ClusterConfig, JobId, Launch, Mark, Observation, Options, Parcel
from elsewhere.cli import main
from elsewhere.cli.render import lines, plain
from elsewhere.cli.stanzas import with_options
from elsewhere.errors import Rejected, SettingsError
from elsewhere.settings import Settings


class FarConfig(ClusterConfig):
    host: str | None = None


class FarOptions(Options):
    partition: str | None = None
    memory: int | str | None = None
    cores: int = 1
    flags: tuple[str, ...] = ()
    begin: str | None = None
    refused: bool = False


class Far(Backend[FarOptions, Any]):
    """A batch manager: its request is a script."""

    Config = FarConfig
    Options = FarOptions

    def render(self, launch: Launch[FarOptions]) -> str:
        if launch.options.refused:
            raise Rejected("the partition is closed")
        return f"#!/bin/sh\n#FAR -J {launch.mark}\n#FAR -p {launch.options.partition}\n"

    async def submit(self, request: Any, parcel: Parcel) -> JobId:
        raise AssertionError("nothing is submitted")

    async def survey(self) -> Observation:
        raise AssertionError("nobody is asked")

    async def cancel(self, job_id: JobId, *, grace: float) -> None:
        raise AssertionError("there is nothing to cancel")


class Table(Far):
    """A manager with a manifest."""

    def render(self, launch: Launch[FarOptions]) -> Any:
        return {"name": str(launch.mark), "spec": {"cores": launch.options.cores, "args": ["a", "b"]}}


BACKENDS = {"far": Far, "table": Table}


class _Entry:
    def __init__(self, name: str) -> None:
        self.name = name

    def load(self) -> type[Backend[Any, Any]]:
        return BACKENDS[self.name]


@pytest.fixture
def jupyter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A Jupyter of its own, without kernelspecs; returns the directory for them."""
    monkeypatch.setenv("JUPYTER_DATA_DIR", str(tmp_path / "user"))
    monkeypatch.setenv("JUPYTER_CONFIG_DIR", str(tmp_path / "config"))
    monkeypatch.setenv("JUPYTER_CONFIG_PATH", "")
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "data"))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    for name in ("ENV_JUPYTER_PATH", "SYSTEM_JUPYTER_PATH", "ENV_CONFIG_PATH", "SYSTEM_CONFIG_PATH"):
        monkeypatch.setattr(jupyter_core.paths, name, [])
    monkeypatch.delenv("ELSEWHERE_CONFIG", raising=False)
    monkeypatch.setattr(plugins, "_installed", lambda: {name: _Entry(name) for name in BACKENDS})
    return tmp_path / "data" / "kernels"


def spec(folder: Path, stanza: object, **more: Any) -> None:
    folder.mkdir(parents=True)
    provisioner = {"provisioner_name": "elsewhere", "config": stanza}
    kernel = {"argv": ["python3"], "display_name": "x", "language": "python", **more}
    kernel.setdefault("metadata", {"kernel_provisioner": provisioner})
    (folder / "kernel.json").write_text(json.dumps(kernel))


def run(*words: str) -> Result:
    return CliRunner().invoke(main, ["render", *words])


def told(*words: str, exit_code: int = 1) -> str:
    """What is said of a command that fails."""
    result = run(*words)
    assert (result.exit_code, result.stdout) == (exit_code, ""), result.output
    assert isinstance(result.exception, SystemExit)
    return result.stderr


SCRIPT = "#!/bin/sh\n#FAR -J elsewhere-000000000000-1-00000000-0000-0000-0000-000000000000\n#FAR -p debug\n"


def test_a_script_is_printed_as_it_is(jupyter: Path) -> None:
    spec(jupyter / "batch", {"backend": "far", "options": {"partition": "long"}})
    assert run("batch", "-o", "partition=debug").stdout == SCRIPT
    assert run("Batch").stdout == SCRIPT.replace("debug", "long")
    assert json.loads(run("batch", "-o", "partition=debug", "--json").stdout) == SCRIPT


def test_a_manifest_is_printed_as_text_or_json(jupyter: Path) -> None:
    spec(jupyter / "pod", {"backend": "table"})
    name = "elsewhere-000000000000-1-00000000-0000-0000-0000-000000000000"
    assert run("pod", "-o", "cores=2").stdout == f'name: "{name}"\nspec:\n  cores: 2\n  args: ["a", "b"]\n'
    assert json.loads(run("pod", "--json").stdout) == {"name": name, "spec": {"cores": 1, "args": ["a", "b"]}}


def test_no_secret_is_printed(jupyter: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KERNEL_PASSWORD", "canary-of-the-host")
    spec(jupyter / "pod", {"backend": "table"}, env={"TOKEN": "canary-of-the-spec"})
    for words in ([], ["--json"]):
        assert "canary" not in run("pod", *words).output


def test_a_cluster_of_the_settings_file_is_used(jupyter: Path, tmp_path: Path) -> None:
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "elsewhere.toml").write_text(
        '[clusters.mine]\ntype = "far"\ndefaults = {partition = "long"}'
    )
    spec(jupyter / "batch", {"cluster": "mine"})
    assert run("batch").stdout == SCRIPT.replace("debug", "long")
    assert run("batch", "-o", "partition=debug").stdout == SCRIPT
    assert "host: unknown key" in told("batch", "-o", "host=x")


def test_what_is_wrong_is_told_with_the_near_miss(jupyter: Path) -> None:
    spec(jupyter / "batch", {"backend": "far"})
    spec(jupyter / "here", None, metadata={})
    spec(jupyter / "list", ["far"])
    spec(jupyter / "lost", {"cluster": "nowhere"})
    spec(jupyter / "nothing", {})
    spec(jupyter / "broken", {"backend": "far"})
    (jupyter / "broken" / "kernel.json").write_text("{")
    assert "bacth: no kernelspec is called so (did you mean `batch`?)" in told("bacth")
    assert "no kernelspec is called so" in told("../../etc")
    assert "elsewhere specs add WHERE --from here" in told("here")
    assert "must be a table" in told("list")
    assert "no cluster is called `nowhere`" in told("lost", "-o", "cores=3")
    assert "must name a `backend`" in told("nothing", "-o", "cores=3")
    assert "is no kernelspec" in told("broken")
    assert "options.partion: unknown key (did you mean `partition`?)" in told("batch", "-o", "partion=x")
    assert 'options.cores: must be a whole number, not the text "many"' in told("batch", "-o", "cores=many")
    assert "the partition is closed" in told("batch", "-o", "refused=true")
    assert "'cores' is not of the form key=value" in told("batch", "-o", "cores", exit_code=2)
    assert "is not UTF-8 text" in told("batch", "-o", "partition=\udcff", exit_code=2)


def asked(**options: str) -> Mapping[str, Any]:
    stanza, _ = with_options({"backend": "far"}, options, Settings(), "here")
    asked: Mapping[str, Any] = stanza["options"]
    return asked


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("partition", "debug", "debug"),
        ("partition", '"debug"', "debug"),
        ("partition", "7", "7"),
        ("partition", "true", "true"),
        ("partition", "", ""),
        ("partition", "7 # not a comment", "7 # not a comment"),
        ("partition", "1, 2", "1, 2"),
        ("partition", "1]\nb = [2", "1]\nb = [2"),
        ("partition", "$(id)", "$(id)"),
        ("partition", "x=y", "x=y"),
        ("begin", "2030-01-01T00:00:00", "2030-01-01T00:00:00"),
        ("begin", "12:30:00", "12:30:00"),
        ("memory", "7", 7),
        ("memory", "7G", "7G"),
        ("cores", "7", 7),
        ("flags", '["a", "b"]', ["a", "b"]),
    ],
)
def test_values_are_toml_where_the_option_takes_that_else_text(
    jupyter: Path, key: str, text: str, value: object
) -> None:
    assert asked(**{key: text}) == {key: value}


def test_what_only_the_cluster_knows_goes_beside_a_backend(jupyter: Path) -> None:
    stanza, resolved = with_options({"backend": "far"}, {"host": "login"}, Settings(), "here")
    assert stanza == {"backend": "far", "host": "login", "options": {}}
    assert resolved.config.host == "login"  # type: ignore[attr-defined]
    options = {"options": {"cores": 1, "partition": "x"}}
    stanza, _ = with_options({"backend": "far", **options}, {"cores": "2"}, Settings(), "here")
    assert stanza["options"] == {"cores": 2, "partition": "x"}


WORDS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20) | st.sampled_from(
    ["[" * 5000, "{a=1}", "nan", "-inf", "0x7", '"\\u0000"', "'''", "]", "1]#", '"a" , "b"', "\x00"]
)


@given(WORDS)
def test_no_word_is_anything_but_a_value(text: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plugins, "_installed", lambda: {name: _Entry(name) for name in BACKENDS})
        found = asked(partition=text)
    assert set(found) == {"partition"}
    assert isinstance(found["partition"], str)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plugins, "_installed", lambda: {name: _Entry(name) for name in BACKENDS})
        try:
            found = asked(cores=text)
        except SettingsError as error:
            assert "options.cores" in str(error)
        else:
            assert isinstance(found["cores"], int)


class Colour(enum.Enum):
    RED = "red"


class Limits(NamedTuple):
    cores: int


class Manifest(BaseModel):
    api: str = Field("v1", serialization_alias="apiVersion")


@dataclass(frozen=True)
class Request:
    mark: Mark
    path: Path
    colour: Colour
    limits: Limits
    manifest: Manifest
    files: Mapping[str, bytes]
    names: frozenset[str]
    script: str
    hidden: str = field(default="shown all the same", repr=False)
    nothing: None = None


def test_every_kind_of_request_becomes_data() -> None:
    request = Request(
        Mark("abc", "k", 3),
        Path("/x"),
        Colour.RED,
        Limits(2),
        Manifest(),
        {"a": b"\xff1"},
        frozenset("ba"),
        "#!/bin/sh\necho\n",
    )
    data = plain(request)
    assert data == {
        "mark": "elsewhere-abc-3-k",
        "path": "/x",
        "colour": "red",
        "limits": {"cores": 2},
        "manifest": {"apiVersion": "v1"},
        "files": {"a": "\\xff1"},
        "names": ["a", "b"],
        "script": "#!/bin/sh\necho\n",
        "hidden": "shown all the same",
        "nothing": None,
    }
    shown = list(lines(data))
    assert "script: |" in shown
    assert "  #!/bin/sh" in shown
    assert 'names: ["a", "b"]' in shown
    assert "nothing: null" in shown


def test_long_and_nested_lists_have_a_line_for_each() -> None:
    assert list(lines({"argv": ["x" * 60, "y" * 60], "empty": [], "none": {}})) == [
        "argv:",
        f'  - "{"x" * 60}"',
        f'  - "{"y" * 60}"',
        "empty: []",
        "none: {}",
    ]
    assert list(lines([{"a": 1, "b": [[1], 2]}, "x\x1b[31m"])) == [
        "-",
        "  a: 1",
        "  b:",
        "    - [1]",
        "    - 2",
        '- "x\\u001b[31m"',
    ]
