"""elsewhere.toml and stanzas: what counts, and how each mistake is told."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

import jupyter_core.paths
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from pydantic import Field

from elsewhere import plugins
from elsewhere.backend import Backend, ClusterConfig, Model, Options
from elsewhere.errors import SettingsError
from elsewhere.settings import LaunchSettings, Settings, Switchboard, load, resolve


class Node(Model):
    name: str
    cores: int = 1


class BatchConfig(ClusterConfig):
    host: str | None = None


class BatchOptions(Options):
    partition: str | None = None
    memory: int | str | None = None
    nodes: list[Node] = Field(default_factory=list)


class Batch(Backend[BatchOptions, Any]):
    Config = BatchConfig
    Options = BatchOptions


class _Entry(EntryPoint):
    """An entry point that loads without being installed."""

    def load(self) -> Any:
        if self.name == "slurm":
            raise ModuleNotFoundError("No module named 'asyncssh'", name="asyncssh")
        if self.name == "broken":
            raise ZeroDivisionError("boom")
        return {"batch": Batch, "nothing": object}[self.name]


@pytest.fixture(autouse=True)
def backends(monkeypatch: pytest.MonkeyPatch) -> None:
    (ours,) = (entry for entry in entry_points(group=plugins.GROUP) if entry.name == "local")
    assert ours.dist is not None

    def entries(group: str) -> list[EntryPoint]:
        found = [_Entry(name, f"somewhere:{name}", group) for name in ("batch", "slurm", "broken", "nothing")]
        return [entry._for(ours.dist) for entry in found]  # type: ignore[attr-defined]

    monkeypatch.setattr(plugins, "entry_points", entries)


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Write elsewhere.toml into a directory; the directory `near` comes before `far` on Jupyter's path."""
    monkeypatch.delenv("ELSEWHERE_CONFIG", raising=False)
    monkeypatch.delenv("JUPYTER_NO_CONFIG", raising=False)
    monkeypatch.setenv("JUPYTER_CONFIG_PATH", f"{tmp_path / 'near'}:{tmp_path / 'far'}")
    monkeypatch.setenv("JUPYTER_CONFIG_DIR", str(tmp_path / "none"))
    for place in ("ENV_CONFIG_PATH", "SYSTEM_CONFIG_PATH"):
        monkeypatch.setattr(jupyter_core.paths, place, [])

    def write(text: str | bytes, folder: str = "near", name: str = "elsewhere.toml") -> Path:
        path = tmp_path / folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


Write = Callable[..., Path]


def refusal(stanza: Any, settings: Settings | None = None) -> str:
    with pytest.raises(SettingsError) as refused:
        resolve(stanza, settings or Settings(), "kernelspec 'k'")
    return str(refused.value)


def test_without_a_file_there_are_defaults(write: Write) -> None:
    assert load() == Settings()
    assert Switchboard().addresses(4711) == (("127.0.0.1", 4711),)


def test_the_nearest_table_wins_as_a_whole(write: Write) -> None:
    write('[clusters.one]\ntype = "batch"\nhost = "near"')
    write(
        '[switchboard]\nport = 4\n[clusters.one]\ntype = "slurm"\nsurvey_interval = 9\n'
        '[clusters.two]\ntype = "batch"',
        "far",
    )
    settings = load()
    assert settings.switchboard.port == 4
    assert settings.cluster("one").config == {"host": "near"}
    assert settings.cluster("one").type == "batch"
    assert settings.cluster("two").type == "batch"


def test_one_named_file_is_the_only_one(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    write('[clusters.one]\ntype = "batch"')
    named = write('[clusters.other]\ntype = "batch"', "named", "mine.toml")
    monkeypatch.setenv("ELSEWHERE_CONFIG", str(named))
    assert list(load().clusters) == ["other"]
    monkeypatch.setenv("ELSEWHERE_CONFIG", str(named) + "x")
    with pytest.raises(
        SettingsError, match=r"mine.tomlx: no|cannot be read \(named by ELSEWHERE_CONFIG\): No such"
    ):
        load()


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("a = 1\nb = = 2", "{file}: is not valid TOML: Invalid value (at line 2, column 5)"),
        (b"a = '\xff'", "{file}: is not UTF-8 text (byte 5)"),
        ("[cluster.x]", "{file}: cluster: unknown key (did you mean `clusters`?)"),
        ("clusters = 3", "{file}: clusters: must be a table, not 3"),
        ('[clusters]\nx = "batch"', '{file}: clusters.x: must be a table, not the text "batch"'),
        ("[switchboard]\nprt = 1", "{file}: switchboard.prt: unknown key (did you mean `port`?)"),
        (
            "[switchboard]\nport = 70000",
            "{file}: switchboard.port: must be less than or equal to 65535, not 70000",
        ),
        ('[switchboard]\nport = "1"', '{file}: switchboard.port: must be a whole number, not the text "1"'),
        ("[switchboard]\nport = true", "{file}: switchboard.port: must be a whole number, not true"),
        ('[switchboard]\nbind = "0.0.0.0"', '{file}: switchboard: `bind = "0.0.0.0"` cannot be dialled'),
        ('[switchboard]\nadvertise = ["a:b:c z"]', '{file}: switchboard.advertise: "a:b:c z" is no address'),
        ("[clusters.x]\nhost = 'a'", "{file}: clusters.x.type: must name the backend"),
        (
            '[clusters.x]\ntype = "batch"\nlimits.kernels = 0',
            "{file}: clusters.x.limits.kernels: must be greater than or equal to 1, not 0",
        ),
        ('[clusters."a b"]\ntype = "batch"', "{file}: clusters.a b: a cluster's name has letters"),
    ],
)
def test_a_wrong_file_is_told_with_the_place(write: Write, text: str | bytes, told: str) -> None:
    path = write(text)
    with pytest.raises(SettingsError) as refused:
        load()
    assert str(refused.value).startswith(told.replace("{file}", f"elsewhere.toml ({path})"))
    assert "pydantic" not in str(refused.value)


def test_all_problems_of_all_files_are_told(write: Write) -> None:
    near = write("[swichboard]\n[clusters.x]\nlimits.kernels = 'a'")
    far = write("[switchboard]\nport = -1", "far")
    with pytest.raises(SettingsError) as refused:
        load()
    lines = str(refused.value).splitlines()
    assert [line.partition(": ")[0] for line in lines] == [f"elsewhere.toml ({near})"] * 3 + [
        f"elsewhere.toml ({far})"
    ]


@pytest.mark.parametrize(
    ("written", "dialled"),
    [
        ("10.1.2.3:8443", ("10.1.2.3", 8443)),
        ("gate.example", ("gate.example", 7)),
        ("[::1]:8443", ("::1", 8443)),
        ("[::1]", ("::1", 7)),
        ("::1", ("::1", 7)),
    ],
)
def test_addresses_that_agents_dial(written: str, dialled: tuple[str, int]) -> None:
    assert Switchboard(advertise=(written,)).addresses(7) == (dialled,)


def test_options_override_defaults_key_by_key(write: Write) -> None:
    write(
        """
        [clusters.mine]
        type = "batch"
        host = "login1"
        [clusters.mine.defaults]
        partition = "short"
        memory = 4
        start_timeout = 90
        idle_grace = 5
        [clusters.mine.limits]
        submits_at_once = 2
        """
    )
    stanza = {"cluster": "mine", "options": {"partition": "long", "idle_grace": 7, "pass_env": ["HF_*"]}}
    found = resolve(stanza, load(), "k")
    assert (found.cluster, found.backend_name, found.backend) == ("mine", "batch", Batch)
    assert found.config == BatchConfig(host="login1")
    assert found.options == BatchOptions(partition="long", memory=4)
    assert found.launch == LaunchSettings(start_timeout=90, idle_grace=7, pass_env=("HF_*",))
    assert found.limits.submits_at_once == 2


def test_a_mistake_in_the_defaults_is_told_with_the_files_place(write: Write) -> None:
    path = write(
        '[clusters.mine]\ntype = "batch"\nhst = "x"\n[clusters.mine.defaults]\npartion = "x"\nmemory = []'
    )
    told = refusal({"cluster": "mine", "options": {"strt_timeout": 1}}, load()).splitlines()
    file = f"elsewhere.toml ({path}): clusters.mine"
    assert sorted(told) == [
        f"{file}.defaults.memory: must be a whole number or text, not a list",
        f"{file}.defaults.partion: unknown key (did you mean `partition`?)",
        f"{file}.hst: unknown key (did you mean `host`?)",
        "kernelspec 'k': options.strt_timeout: unknown key (did you mean `start_timeout`?)",
    ]


@pytest.mark.parametrize(
    ("stanza", "told"),
    [
        ({}, ": must name a `backend` (batch, broken, nothing, slurm) or a `cluster` of elsewhere.toml"),
        ({"backend": "batch", "cluster": "x"}, ": cannot name both a `backend`"),
        ({"backend": "bach"}, ": backend: no backend is called `bach` (did you mean `batch`?)"),
        ({"backend": 3}, ": backend: must be a name in quotes"),
        ({"cluster": "x"}, ": cluster: no cluster is called `x`"),
        ({"backend": "batch", "hots": "a"}, ": hots: unknown key (did you mean `host`?)"),
        ({"backend": "batch", "option": {}}, ": option: unknown key (did you mean `options`?)"),
        ({"backend": "batch", "options": []}, ": options: must be a table, not a list"),
        (
            {"backend": "batch", "options": {"partition": None, "python": 3}},
            ": options.python: must be text, not 3",
        ),
        (
            {"backend": "batch", "options": {"transport": "ip"}},
            ": options.transport: must be 'ipc' or 'tcp', not",
        ),
        (
            {"backend": "batch", "options": {"start_timeout": 0}},
            ": options.start_timeout: must be greater than 0",
        ),
        (
            {"backend": "batch", "options": {"start_timeout": float("inf")}},
            ": options.start_timeout: must be a finite",
        ),
        ({"backend": "batch", "options": {"nodes": [{"cors": 1}]}}, ": options.nodes[0].name: is missing"),
        (
            {"backend": "batch", "options": {"nodes": [{"name": "a", "cors": 1}]}},
            ": options.nodes[0].cors: unknown key (did",
        ),
        (
            {"backend": "batch", "limits": {"kernel": 1}},
            ": limits.kernel: unknown key (did you mean `kernels`?)",
        ),
        (
            {"backend": "slurm"},
            ": backend: the backend `slurm` needs asyncssh: pip install 'elsewhere[slurm]'",
        ),
        ({"backend": "broken"}, ": backend: the backend `broken` cannot be loaded: ZeroDivisionError: boom"),
        (
            {"backend": "nothing"},
            ": backend: the backend `nothing` (somewhere:nothing) is not a subclass of Backend",
        ),
        ("batch", ': must be a table, not the text "batch"'),
    ],
)
def test_a_wrong_stanza_is_told_with_the_place(stanza: Any, told: str) -> None:
    assert refusal(stanza).startswith(f"kernelspec 'k'{told}")


def test_limits_belong_to_the_cluster(write: Write) -> None:
    write('[clusters.mine]\ntype = "batch"')
    assert ": limits: unknown key" in refusal({"cluster": "mine", "limits": {"kernels": 3}}, load())


def test_equal_inline_stanzas_share_one_name() -> None:
    def name(**stanza: object) -> str:
        return resolve({"backend": "batch", **stanza}, Settings(), "k").cluster

    assert name(host="a", survey_interval=2) == name(survey_interval=2, host="a", options={"partition": "x"})
    assert len({name(), name(host="a"), name(host="b"), name(limits={"kernels": 2})}) == 4


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
_keys = st.sampled_from([*LaunchSettings.model_fields, *BatchOptions.model_fields, "x"])


@hypothesis_settings(deadline=None)  # a busy machine is no failure
@given(options=st.dictionaries(_keys, _json, max_size=3), config=_json)
def test_whatever_is_written_is_taken_or_refused_in_plain_words(options: dict[str, Any], config: Any) -> None:
    stanza = {"backend": "batch", "options": options, "host": config}
    try:
        found = resolve(stanza, Settings(), "kernelspec 'k'")
    except SettingsError as error:
        assert str(error).startswith("kernelspec 'k': ")
        assert "Input should" not in str(error)
    else:
        assert found.config == BatchConfig(host=config)
