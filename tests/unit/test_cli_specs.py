"""``elsewhere specs`` and the front door of the command line."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jupyter_core.paths
import pytest
from click.testing import CliRunner, Result

from elsewhere import __version__, plugins
from elsewhere.backend import Backend, ClusterConfig, Options
from elsewhere.cli import derive, main, specs


class FarConfig(ClusterConfig):
    host: str | None = None


class FarOptions(Options):
    partition: str | None = None
    cores: int = 1


class Far(Backend[FarOptions, Any]):
    Config = FarConfig
    Options = FarOptions


class _Entry:
    def __init__(self, name: str) -> None:
        self.name = name

    def load(self) -> type[Backend[Any, Any]]:
        return Far


@pytest.fixture
def jupyter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A Jupyter of its own with the kernelspecs `mine` (with a logo) and `shell`; returns its data."""
    data = tmp_path / "data"
    monkeypatch.setenv("JUPYTER_DATA_DIR", str(tmp_path / "user"))
    monkeypatch.setenv("JUPYTER_CONFIG_DIR", str(tmp_path / "config"))
    monkeypatch.setenv("JUPYTER_CONFIG_PATH", "")
    monkeypatch.setenv("JUPYTER_PATH", str(data))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.setenv("JUPYTER_PREFER_ENV_PATH", "0")
    for name in ("ENV_JUPYTER_PATH", "SYSTEM_JUPYTER_PATH", "ENV_CONFIG_PATH", "SYSTEM_CONFIG_PATH"):
        monkeypatch.setattr(jupyter_core.paths, name, [])
    monkeypatch.delenv("JUPYTER_NO_CONFIG", raising=False)
    monkeypatch.delenv("ELSEWHERE_CONFIG", raising=False)
    monkeypatch.setattr(plugins, "_installed", lambda: {name: _Entry(name) for name in ("local", "far")})
    spec(
        data / "kernels" / "mine",
        ["python3", "-m", "ipykernel_launcher", "-f", "{connection_file}"],
        metadata={"debugger": True, "supported_encryption": ["curve"]},
        env={"A": "1", "B": "2"},
        codemirror_mode="mine",
    )
    (data / "kernels" / "mine" / "logo.svg").write_text("<svg/>")
    spec(data / "kernels" / "shell", ["sh", "{connection_file}"])
    return data


def spec(folder: Path, argv: list[str], **more: Any) -> None:
    folder.mkdir(parents=True)
    kernel = {"argv": argv, "display_name": folder.name.title(), "language": "x", **more}
    (folder / "kernel.json").write_text(json.dumps(kernel))


def run(*words: str) -> Result:
    return CliRunner().invoke(main, words)


def added(jupyter: Path, *words: str) -> dict[str, Any]:
    """Run ``specs add``; return the kernel.json of the one new kernelspec."""
    kernels = jupyter / "share" / "jupyter" / "kernels"
    before = set(kernels.glob("*"))
    result = run("specs", "add", *words, "--prefix", str(jupyter))
    assert result.exit_code == 0, result.output
    (new,) = set(kernels.glob("*")) - before
    assert str(new) in result.stdout
    kernel: dict[str, Any] = json.loads((new / "kernel.json").read_text())
    return kernel


def test_version_and_help() -> None:
    assert run("--version").output == f"elsewhere, version {__version__}\n"
    assert "elsewhere specs add local" in run("--help").output
    assert "Examples:" in run("specs", "add", "-h").output


def test_starting_up_imports_no_command() -> None:
    code = (
        "import sys, elsewhere.cli; sys.exit(bool({'pydantic', 'jupyter_client', 'rich'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_derived_spec_has_everything_of_its_source(jupyter: Path) -> None:
    kernel = added(jupyter, "local", "--from", "mine")
    assert kernel == {
        "argv": [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"],
        "display_name": "Mine (local)",
        "language": "x",
        "metadata": {
            "debugger": True,
            "kernel_provisioner": {"provisioner_name": "elsewhere", "config": {"backend": "local"}},
        },
        "env": {"A": "1", "B": "2"},
        "codemirror_mode": "mine",
    }
    assert (jupyter / "share/jupyter/kernels/mine-local/logo.svg").read_text() == "<svg/>"
    assert os.listdir(jupyter / "share" / "jupyter") == ["kernels"]


def test_names_variables_and_options_are_taken(jupyter: Path) -> None:
    words = ["--from", "mine", "--name", "Gpu", "--display-name", "On a GPU", "--env", "B=x=y", "--env", "C="]
    options = ["-o", "partition=7", "-o", "cores=7", "-o", "host=login", "-o", 'pass_env=["HF_*"]']
    kernel = added(jupyter, "far", *words, *options)
    assert (jupyter / "share/jupyter/kernels/gpu").is_dir()
    assert kernel["display_name"] == "On a GPU"
    assert kernel["env"] == {"A": "1", "B": "x=y", "C": ""}
    assert kernel["argv"][0] == "python3"
    assert kernel["metadata"]["kernel_provisioner"]["config"] == {
        "backend": "far",
        "host": "login",
        "options": {"partition": "7", "cores": 7, "pass_env": ["HF_*"]},
    }


def test_other_programs_are_made_absolute_too(jupyter: Path) -> None:
    assert added(jupyter, "local", "--from", "shell")["argv"][0] == shutil.which("sh")


def test_a_configured_cluster_is_named(jupyter: Path, tmp_path: Path) -> None:
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "elsewhere.toml").write_text('[clusters.mine]\ntype = "far"\nhost = "x"')
    kernel = added(jupyter, "mine", "--from", "mine", "-o", "cores=2")
    assert kernel["metadata"]["kernel_provisioner"]["config"] == {"cluster": "mine", "options": {"cores": 2}}
    assert "host: unknown key" in run("specs", "add", "mine", "--from", "mine", "-o", "host=y").stderr


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (
            ["locl", "--from", "mine"],
            "locl: is no backend and no cluster of elsewhere.toml (did you mean `local`?)",
        ),
        (["local", "--from", "mien"], "no kernelspec is called `mien` (did you mean `mine`?)"),
        (
            ["far", "--from", "mine", "-o", "partion=x"],
            "options.partion: unknown key (did you mean `partition`?)",
        ),
        (
            ["far", "--from", "mine", "-o", "cores=x"],
            'options.cores: must be a whole number, not the text "x"',
        ),
        (["far", "--from", "mine", "--name", "a/b"], "'a/b' must have only letters"),
        (["local", "--from", "gone"], "its program `not-here-at-all` is not found on this machine"),
        (["local", "--from", "bad"], "is not valid JSON"),
        (["local", "--from", "empty"], "is no kernelspec: it has no argv"),
    ],
)
def test_what_is_wrong_is_told_before_anything_is_written(jupyter: Path, words: list[str], told: str) -> None:
    spec(jupyter / "kernels" / "gone", ["not-here-at-all"])
    spec(jupyter / "kernels" / "empty", [])
    spec(jupyter / "kernels" / "bad", [])
    (jupyter / "kernels" / "bad" / "kernel.json").write_text("{")
    result = run("specs", "add", *words, "--prefix", str(jupyter))
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: ")
    assert told in result.stderr
    assert not (jupyter / "share").exists()


@pytest.mark.parametrize("words", [["-o", "cores"], ["-o", "=3"], ["--user", "--prefix", "x"], ["--nope"]])
def test_wrong_usage_has_an_exit_code_of_its_own(jupyter: Path, words: list[str]) -> None:
    assert run("specs", "add", "local", *words).exit_code == 2


def test_an_existing_spec_is_replaced_only_on_demand(jupyter: Path) -> None:
    words = ["specs", "add", "local", "--from", "mine", "--prefix", str(jupyter)]
    assert run(*words).exit_code == 0
    again = run(*words, "--env", "A=3")
    assert again.exit_code == 1
    assert "is there already; --replace replaces it" in again.stderr
    (jupyter / "share/jupyter/kernels/mine-local/stale").touch()
    assert run(*words, "--env", "A=3", "--replace").exit_code == 0
    folder = jupyter / "share/jupyter/kernels/mine-local"
    assert json.loads((folder / "kernel.json").read_text())["env"]["A"] == "3"
    assert sorted(os.listdir(folder)) == ["kernel.json", "logo.svg"]


def test_a_failed_replacement_leaves_the_old_one(jupyter: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = jupyter / "kernels" / "mine"
    rename = Path.rename

    def fail(self: Path, to: Path) -> Path:
        if self.name == "new":
            raise OSError(28, "No space left on device")
        return rename(self, to)

    monkeypatch.setattr(Path, "rename", fail)
    with pytest.raises(OSError, match="No space"):
        derive.install(derive.Derived({"argv": ["x"]}, target), target, replace=True)
    assert json.loads((target / "kernel.json").read_text())["codemirror_mode"] == "mine"


def test_a_place_that_cannot_be_written_is_one_clear_error(jupyter: Path) -> None:
    (jupyter / "file").touch()
    result = run("specs", "add", "local", "--from", "mine", "--prefix", str(jupyter / "file" / "below"))
    assert result.exit_code == 1
    assert "Not a directory" in result.stderr


def test_the_user_is_the_default_and_told_where_another_one_hides_it(jupyter: Path, tmp_path: Path) -> None:
    result = run("specs", "add", "local", "--from", "mine")
    assert str(tmp_path / "user" / "kernels" / "mine-local") in result.stdout
    assert result.stderr == ""
    hidden = run("specs", "add", "local", "--from", "mine", "--name", "shell")
    assert "Jupyter finds another one of that name first" in hidden.stderr
    unseen = run("specs", "add", "local", "--from", "mine", "--name", "x", "--prefix", str(tmp_path))
    assert "is not on Jupyter's path" in unseen.stderr


def test_the_kernelspec_that_jupyter_makes_up_can_be_derived_from(jupyter: Path) -> None:
    kernel = added(jupyter, "local")
    assert kernel["argv"][:3] == [sys.executable, "-m", "ipykernel_launcher"]
    assert kernel["metadata"]["kernel_provisioner"]["config"] == {"backend": "local"}


@pytest.fixture
def listed(jupyter: Path) -> Callable[..., Any]:
    def stanza(name: str, config: Any, argv: tuple[str, ...] = ("deno",)) -> None:
        provisioner = {"provisioner_name": "elsewhere", "config": config}
        spec(jupyter / "kernels" / name, list(argv), metadata={"kernel_provisioner": provisioner})

    stanza("good", {"backend": "far", "host": "x"}, ("python3", "-m", "ipykernel_launcher"))
    stanza("typo", {"backend": "far", "options": {"corse": 3}})
    stanza("lost", {"cluster": "nowhere"})
    stanza("strange", ["far"])
    spec(jupyter / "kernels" / "broken", [])
    (jupyter / "kernels" / "broken" / "kernel.json").write_text('{"argv": 3')

    def listed(*words: str) -> Any:
        result = run("specs", "list", *words)
        assert result.exit_code == 0, result.output
        return result.stdout

    return listed


def test_the_list_has_only_ours_and_tells_what_is_broken(jupyter: Path, listed: Callable[..., str]) -> None:
    rows = {row["name"]: row for row in json.loads(listed("--json"))}
    assert set(rows) == {"broken", "good", "lost", "strange", "typo"}
    assert rows["good"] == {
        "name": "good", "display_name": "Good", "cluster": "", "backend": "far", "transport": "ipc",
        "resource_dir": str(jupyter / "kernels" / "good"), "problem": None,
    }  # fmt: skip
    assert rows["typo"]["problem"] == "kernelspec 'typo': options.corse: unknown key (did you mean `cores`?)"
    assert rows["typo"]["backend"] == "far"
    assert "no cluster is called `nowhere`" in rows["lost"]["problem"]
    assert "must be a table" in rows["strange"]["problem"]
    assert "is no kernelspec" in rows["broken"]["problem"]


def test_the_plain_list_is_a_line_each(listed: Callable[..., str]) -> None:
    lines = listed().splitlines()
    assert lines[0].split("  ")[0] == "name"
    assert [line.split()[0] for line in lines[1:]] == ["broken", "good", "lost", "strange", "typo"]
    assert lines[2].endswith("  ok")


def test_the_table_shows_text_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    specs._print_table([specs.Row("one", "Py[bold]", problem="kernelspec 'one': options.a[0]: is missing")])
    shown = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "Py[bold]" in shown
    assert "a[0]" in shown


def test_a_broken_file_of_settings_is_told_for_each(listed: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "elsewhere.toml").write_text("[cluster]")
    (good,) = (row for row in json.loads(listed("--json")) if row["name"] == "good")
    assert "did you mean `clusters`?" in good["problem"]


def test_an_empty_list_says_what_to_do(jupyter: Path) -> None:
    result = run("specs", "list")
    assert (result.stdout, result.exit_code) == ("", 0)
    assert "elsewhere specs add local" in result.stderr
    assert run("specs", "list", "--json").stdout == "[]\n"
