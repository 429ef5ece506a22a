"""What ``elsewhere serve`` takes: the stock server's options that mean something here, and ours."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.session import Session
from jupyter_events import EventLogger
from jupyter_server.auth.authorizer import Authorizer
from jupyter_server.auth.identity import IdentityProvider, PasswordIdentityProvider
from jupyter_server.serverapp import aliases, flags
from traitlets.config import Configurable

from elsewhere.errors import ElsewhereError, near_miss

DESCRIPTION = """Share kernels that run elsewhere with many front ends, and keep them when this server dies.

A JupyterLab uses it by `jupyter lab --gateway-url=http://this-host:8888`; the whole line, with the
token, is printed at the start. Ctrl-C stops the gateway and leaves its kernels: the next one with the
same data directory takes them up.
"""

EXAMPLES = """
    elsewhere serve --ip=127.0.0.1 --default-cluster=local
                                        # every kernel that is installed here, as jobs of this machine
    elsewhere serve --ip=0.0.0.0 --certfile=host.pem --keyfile=host.key --log-json
                                        # for a platform: TLS, and a log for machines
    elsewhere serve --MappingKernelManager.cull_idle_timeout=86400
                                        # end kernels that nobody has used for a day
    elsewhere serve --shutdown-kernels  # end all kernels when it is stopped
    elsewhere kernels list              # what the running gateway has; see `elsewhere kernels --help`
"""

_STOCK_FLAGS = ("debug", "show-config", "show-config-json", "generate-config", "allow-root", "no-browser")
_STOCK_ALIASES = (
    "log-level",
    "config",
    "ip",
    "port",
    "sock",
    "sock-mode",
    "keyfile",
    "certfile",
    "client-ca",
)

FLAGS: dict[str, Any] = {
    **{name: flags[name] for name in _STOCK_FLAGS},
    "shutdown-kernels": (
        {"GatewayApp": {"shutdown_kernels": True}},
        "End all kernels when this server stops.",
    ),
    "log-json": ({"GatewayApp": {"log_json": True}}, "Write the log as one JSON object a line."),
}
ALIASES: dict[str, str] = {
    **{name: aliases[name] for name in _STOCK_ALIASES},
    "data-directory": "GatewayApp.data_directory",
    "default-cluster": "GatewayKernelSpecManager.default_cluster",
}
STOCK_CLASSES: tuple[type[Configurable], ...] = (
    IdentityProvider,
    PasswordIdentityProvider,
    Authorizer,
    EventLogger,
    KernelSpecManager,
    Session,
)
MISSPELT = 0.9
"""How alike two names are (difflib's ratio) of which one must be the other, misspelt."""

_QUESTIONS = ("h", "help", "help-all", "version", "V")


def check(argv: Sequence[str], classes: Iterable[type]) -> None:
    """Refuse what the stock parser would only warn of. Raises ElsewhereError with the near miss.

    A class that none of these is, or descends from, may be one of the site's own: it is let pass
    unless it is spelt nearly as one of them.
    """
    known = {one.__name__: one for cls in classes for one in cls.__mro__ if issubclass(one, Configurable)}
    takes_value = False
    for word in argv:
        if not word.startswith("-"):
            if not takes_value:
                raise ElsewhereError(f"elsewhere serve takes no argument: {word!r} (see --help)")
            takes_value = False
            continue
        name, equals, _ = word.lstrip("-").partition("=")
        takes_value = not equals and name not in FLAGS
        if "." in name:
            _check_trait(name, known)
        elif name not in FLAGS and name not in ALIASES and name not in _QUESTIONS:
            options = [f"--{one}" for one in (*FLAGS, *ALIASES)]
            raise ElsewhereError(f"elsewhere serve has no option --{name}{near_miss(f'--{name}', options)}")


def _check_trait(name: str, known: Mapping[str, type[Configurable]]) -> None:
    class_name, trait = name.split(".")[:2]
    cls = known.get(class_name)
    if cls is None:
        close = difflib.get_close_matches(class_name, known, n=1, cutoff=MISSPELT)
        if close:
            raise ElsewhereError(f"--{name}: there is no class {class_name} (did you mean `{close[0]}`?)")
        return
    traits = cls.class_traits(config=True)
    if trait not in traits:
        raise ElsewhereError(f"--{name}: {class_name} has no option {trait!r}{near_miss(trait, traits)}")
