"""Wrong stanzas, through the stock machinery: the caller hears what is wrong, and where."""

from __future__ import annotations

import pytest
from jupyter_client.manager import KernelManager

from elsewhere.errors import SettingsError
from site_kit import Site

WRONG: dict[str, tuple[dict[str, object], list[str]]] = {
    "unknown backend": ({"backend": "lokal"}, ["kernelspec away", "backend", "did you mean `local`?"]),
    "no backend": ({}, ["must name a `backend`", "local"]),
    "unknown cluster": ({"cluster": "big"}, ["no cluster is called `big`"]),
    "unknown key": ({"backend": "local", "directry": "/tmp"}, ["directry", "did you mean `directory`?"]),
    "unknown option": (
        {"backend": "local", "options": {"start_timout": 3}},
        ["options.start_timout", "did you mean `start_timeout`?"],
    ),
    "wrong type": (
        {"backend": "local", "options": {"nice": "very", "idle_grace": "60"}},
        ["options.nice", 'not the text "very"', "options.idle_grace", "must be a number"],
    ),
    "out of range": ({"backend": "local", "options": {"nice": 40}}, ["options.nice", "19"]),
    "no table": ({"backend": "local", "options": 3}, ["options", "must be a table, not 3"]),
}


@pytest.mark.parametrize(("stanza", "told"), WRONG.values(), ids=[*WRONG])
def test_a_wrong_stanza_is_told_to_who_starts_the_kernel(
    site: Site, stanza: dict[str, object], told: list[str]
) -> None:
    manager = KernelManager(kernel_name=site.spec(config={"options": {}, **stanza}))
    with pytest.raises(SettingsError) as raised:
        manager.start_kernel()
    for words in told:
        assert words in str(raised.value)
    assert site.left(home_lives=True) == []


def test_a_wrong_elsewhere_toml_is_told_with_its_path(site: Site) -> None:
    site.toml('[switchboard]\nprot = 4\n[clusters.here]\ntype = "local"\nsurvey_interval = "often"\n')
    manager = KernelManager(kernel_name=site.spec(config={"cluster": "here"}))
    with pytest.raises(SettingsError, match=r"elsewhere\.toml.*prot.*did you mean `port`"):
        manager.start_kernel()


@pytest.mark.parametrize(
    ("kwargs", "told"),
    [
        ({"extra_arguments": "--one-word"}, "must be a list of words"),
        ({"cwd": 7}, "must be a path"),
        ({"env": {"A=B": "c"}}, "cannot be the name of a variable"),
        ({"env": {"A": "nul\0byte"}}, "NUL byte"),
    ],
)
def test_a_wrong_wish_is_told(site: Site, kwargs: dict[str, object], told: str) -> None:
    manager = KernelManager(kernel_name=site.spec())
    with pytest.raises(SettingsError, match=told):
        manager.start_kernel(**kwargs)
    assert site.left(home_lives=True) == []
