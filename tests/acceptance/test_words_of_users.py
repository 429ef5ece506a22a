"""What users write reaches the kernel as it is, whatever characters it has; none of it is executed."""

from __future__ import annotations

import ast

import pytest

from client_kit import run, started
from site_kit import IPYKERNEL, Site

AWKWARD = {
    "quotes": 'it\'s "quoted"',
    "newline": "two\nlines\r\n",
    "substitution": "$(touch {marker})",
    "backtick": "`touch {marker}`",
    "semicolon": "; touch {marker} ;",
    "percent": "100%s %% %(x)s %j",
    "emoji": "snow ☃ and 🪐",
    "braces": "{not_a_placeholder} {} {{connection_file}}",
    "backslash": "\\n \\x41 \\",
    "blanks": "  spaces\tand tabs  ",
    "glob": "* ? [a-z] ~ !1",
    "redirection": "> {marker} | cat & # no comment",
    "empty": "",
}

ECHO = (
    "import sys; kept = sys.argv[1:-2]; sys.argv[1:-2] = []; "
    "import builtins; builtins.kept = kept; from ipykernel import kernelapp; kernelapp.launch_new_instance()"
)


@pytest.fixture
def words(site: Site) -> dict[str, str]:
    marker = str(site.root / "executed")
    return {name: word.replace("{marker}", marker) for name, word in AWKWARD.items()}


def test_words_in_env_arrive_whole(site: Site, words: dict[str, str]) -> None:
    """Of a kernelspec's env, $NAME stands for a variable, as jupyter_client has it; nothing else does."""
    env = {f"AWKWARD_{name}": word for name, word in words.items()}
    given = {"GIVEN_" + name: word for name, word in words.items()}
    with started(site.spec(env=env), env=given) as (_, client):
        told = run(client, "import os; {k: v for k, v in os.environ.items() if k[:5] in ('AWKWA', 'GIVEN')}")
    assert ast.literal_eval(told.value) == {**env, **given}
    assert not (site.root / "executed").exists()


def test_words_in_argv_arrive_whole(site: Site, words: dict[str, str]) -> None:
    """Of an argv, the placeholders are filled, as jupyter_client does; nothing else is touched."""
    extra = [word.replace("{{connection_file}}", "") for word in words.values()]
    name = site.spec(argv=(IPYKERNEL[0], "-c", ECHO, *extra, "-f", "{connection_file}"))
    with started(name) as (_, client):
        assert ast.literal_eval(run(client, "kept").value) == extra
    assert not (site.root / "executed").exists()


def test_extra_arguments_arrive_whole(site: Site, words: dict[str, str]) -> None:
    code = ECHO.replace("sys.argv[1:-2]", "sys.argv[3:]")
    name = site.spec(argv=(IPYKERNEL[0], "-c", code, "-f", "{connection_file}"))
    extra = [word.replace("{{connection_file}}", "") for word in words.values()]
    with started(name, extra_arguments=extra) as (_, client):
        assert ast.literal_eval(run(client, "kept").value) == extra
    assert not (site.root / "executed").exists()


@pytest.mark.parametrize("folder", ["with spaces", "$(touch executed)", "ümlaut 🪐", "quo'te\"s"])
def test_a_working_directory_with_any_name_is_used(site: Site, folder: str) -> None:
    path = site.work / folder
    path.mkdir()
    with started(site.spec(), cwd=str(path)) as (_, client):
        assert ast.literal_eval(run(client, "import os; os.getcwd()").value) == str(path)
    assert not (site.work / "executed").exists()


def test_a_working_directory_that_is_not_there_is_told_and_home_is_used(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    with started(site.spec(), cwd=str(site.work / "nowhere")) as (_, client):
        told = run(client, "import os; os.getcwd() == os.path.expanduser('~')")
        assert told.value == "True"
    assert "nowhere does not exist where the kernel runs" in caplog.text
