"""The server application: a Jupyter Server that has kernels and nothing else, and outlives its process."""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import shlex
import signal
from pathlib import Path
from typing import Any, ClassVar

from jupyter_core.paths import jupyter_data_dir
from jupyter_server.serverapp import ServerApp
from traitlets import Bool, Float, Unicode, default, observe

from elsewhere import __version__, parcel, settings
from elsewhere.core import Core
from elsewhere.errors import ElsewhereError
from elsewhere.gateway.audit import Audit
from elsewhere.gateway.connection import GatewayWebsocketConnection
from elsewhere.gateway.contents import NoContents
from elsewhere.gateway.garbage import Garbage
from elsewhere.gateway.gate import Gate
from elsewhere.gateway.health import Readiness
from elsewhere.gateway.identity import Accounts, GatewayIdentityProvider
from elsewhere.gateway.kernels import GatewayKernelManager, GatewayRestarter
from elsewhere.gateway.ledger import Ledger
from elsewhere.gateway.logs import JsonLines, TextLines
from elsewhere.gateway.loopdelay import LoopDelay
from elsewhere.gateway.mapping import GatewayMappingKernelManager
from elsewhere.gateway.marks import Marks
from elsewhere.gateway.options import ALIASES, DESCRIPTION, EXAMPLES, FLAGS, STOCK_CLASSES, check
from elsewhere.gateway.people import People
from elsewhere.gateway.routes import refuse_bad_requests
from elsewhere.gateway.sentences import Sentences
from elsewhere.gateway.sessions import GatewaySessionManager
from elsewhere.gateway.specs import GatewayKernelSpecManager
from elsewhere.home import Home
from elsewhere.limits import capacity, most_open_files
from elsewhere.rundir import RunDirectory, private

LONGEST_BODY = 16 * 1024 * 1024
TOKEN_FILE = "token"  # noqa: S105 - a name


class GatewayApp(ServerApp):
    """Kernels elsewhere, for every front end that connects by ``--gateway-url``."""

    name = "elsewhere"
    version = __version__
    description = DESCRIPTION
    examples = EXAMPLES

    default_services: ClassVar[tuple[str, ...]] = (
        "api",
        "auth",
        "kernels",
        "kernelspecs",
        "sessions",
        "events",
    )

    classes: ClassVar[list[type]] = [
        *STOCK_CLASSES,
        GatewayMappingKernelManager,
        GatewayKernelManager,
        GatewayRestarter,
        GatewayKernelSpecManager,
        GatewaySessionManager,
        GatewayIdentityProvider,
        Accounts,
    ]

    data_directory = Unicode(config=True, help="Where the ledger, the token and the CA are kept.")
    shutdown_kernels = Bool(False, config=True, help="End all kernels when this server stops.")
    orphan_grace = Float(24 * 3600.0, config=True, help="Seconds that a kernel outlives its gateway.")
    audit_log = Unicode(
        "",
        config=True,
        help="File for one event, a line of JSON, of each access to a kernel; `-`: stdout; default: none.",
    )
    log_json = Bool(False, config=True, help="Write the log as one JSON object a line.")
    cancel_orphans_after = Float(
        60.0, config=True, help="Seconds until a job of ours that the ledger does not know is cancelled."
    )

    flags: ClassVar[dict[str, Any]] = FLAGS
    aliases: ClassVar[dict[str, str]] = ALIASES
    subcommands: ClassVar[dict[str, Any]] = {}

    core: Core
    ledger: Ledger
    _watching: asyncio.Task[None] | None = None

    @default("data_directory")
    def _default_data_directory(self) -> str:
        return os.path.join(jupyter_data_dir(), "elsewhere-gateway")

    @default("open_browser")
    def _default_open_browser(self) -> bool:
        return False

    @default("port_retries")
    def _default_port_retries(self) -> int:
        return 0

    @default("min_open_files_limit")
    def _default_min_open_files_limit(self) -> int:
        return most_open_files()

    @default("kernel_manager_class")
    def _default_kernels(self) -> type:
        return GatewayMappingKernelManager

    @default("identity_provider_class")
    def _default_identity_provider(self) -> type:
        return GatewayIdentityProvider

    @default("session_manager_class")
    def _default_sessions(self) -> type:
        return GatewaySessionManager

    @default("kernel_spec_manager_class")
    def _default_specs(self) -> type:
        return GatewayKernelSpecManager

    @default("kernel_websocket_connection_class")
    def _default_connection(self) -> type:
        return GatewayWebsocketConnection

    @default("contents_manager_class")
    def _default_contents(self) -> type:
        return NoContents

    @default("max_body_size")
    def _default_max_body_size(self) -> int:
        return LONGEST_BODY

    @default("extra_services")
    def _default_extra_services(self) -> list[str]:
        return ["elsewhere.gateway.handlers"]

    def get_default_logging_config(self) -> dict[str, Any]:
        """Return one handler for all loggers of this process, the core's in its thread too."""
        config: dict[str, Any] = super().get_default_logging_config()
        lines = JsonLines if self.log_json else TextLines
        config["formatters"]["console"]["class"] = f"{lines.__module__}.{lines.__qualname__}"
        config["filters"] = {"sentences": {"()": Sentences}}
        config["handlers"]["console"]["filters"] = ["sentences"]
        config["loggers"]["elsewhere"] = {"level": self.log_level}
        config["root"] = {"level": "WARNING", "handlers": ["console"]}
        return config

    @observe("log_json")
    def _log_otherwise(self, change: object) -> None:
        self._configure_logging()

    def init_logging(self) -> None:
        """What Python itself warns of is a line of the log too, where all lines have a form."""
        super().init_logging()
        logging.captureWarnings(self.log_json)

    @classmethod
    def launch_instance(cls, argv: list[str] | None = None, **kwargs: Any) -> None:
        """Run until stopped. Raises ElsewhereError for an option that there is not."""
        check(argv or [], [cls, *cls.classes])
        super().launch_instance(argv=argv, **kwargs)

    def initialize(self, argv: list[str] | None = None, **kwargs: Any) -> None:
        """Initialize without the server extensions that this machine has: they serve notebooks, not us."""
        super().initialize(argv=argv, **{**kwargs, "find_extensions": False})

    def init_configurables(self) -> None:
        """Open the ledger and the switchboard first: HTTP opens when every kernel is known again."""
        directory = self._own_directory()
        self.config.SessionManager.setdefault("database_filepath", str(directory / "sessions.db"))
        if "token" not in self.config.IdentityProvider and not os.environ.get("JUPYTER_TOKEN"):
            self.config.IdentityProvider.token = _kept_token(directory / TOKEN_FILE)
        super().init_configurables()
        self.core = Core(self._open_home)
        self.core.share()
        self._kernels.core = self.core
        self._kernels.records = self.ledger
        self._kernels.marks = Marks(Path(self.data_directory) / "marks")
        provider = self.identity_provider
        if isinstance(provider, GatewayIdentityProvider):
            provider.people = People(directory)
            self._kernels.known = provider.people.of
        accounts = Accounts(provider, parent=self)
        self._audit = self._opened_audit()
        gate = Gate(accounts, self._kernels, self._sessions, self._audit)
        self.tornado_settings["elsewhere_gate"] = gate
        self.tornado_settings["elsewhere_readiness"] = Readiness(self.core, self.ledger)
        self.io_loop.run_sync(self._resume)
        delay_of = self._kernels.metrics.delay_of
        self._garbage = Garbage()
        self._http_delay, self._core_delay = LoopDelay(delay_of("http")), LoopDelay(delay_of("core"))

    def init_webapp(self) -> None:
        """Serve what the stock server would of these services, each route behind the same checks."""
        super().init_webapp()
        assert self.web_app is not None
        of_logging_in = [handler for _, handler in self.identity_provider.get_handlers()]
        refuse_bad_requests(self.web_app.wildcard_router, of_logging_in)

    def _own_directory(self) -> Path:
        path = Path(self.data_directory)
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            return private(path)
        except ElsewhereError as error:
            self.exit_with(error)
            raise

    def _opened_audit(self) -> Audit | None:
        if not self.audit_log:
            return None
        try:
            return Audit(self.audit_log)
        except OSError as error:
            self.exit_with(
                ElsewhereError(f"--GatewayApp.audit_log={self.audit_log}: {error.strerror or error}")
            )
            raise

    def server_info(self) -> dict[str, Any]:
        """Return what the command line finds this gateway by: the stock facts, and that it is ours."""
        return {**super().server_info(), "elsewhere": __version__, "data_directory": self.data_directory}

    def exit_with(self, error: Exception) -> None:
        """Say what is wrong and end."""
        self.log.critical("%s", error)
        self.exit(1)

    async def _open_home(self) -> Home:
        self.ledger = Ledger(Path(self.data_directory))
        await self.ledger.open()
        rundir = RunDirectory()
        switchboard = settings.load().switchboard
        kept = Path(self.data_directory) / "switchboard-port"
        if not switchboard.port and kept.exists():
            switchboard = switchboard.model_copy(update={"port": int(kept.read_text())})
        home = Home(
            switchboard,
            rundir,
            await self.ledger.identity(),
            records=self.ledger,
            orphan_grace=self.orphan_grace,
            cancel_orphans_after=self.cancel_orphans_after,
            publishes=False,
        )
        parcel.agent_archive()
        await home.open()
        kept.write_text(f"{home.port}\n")  # agents that are out there dial it again
        return home

    async def _resume(self) -> None:
        records = await self.core.call(self.ledger.kernels())
        shares = await self.core.call(self.ledger.shares())
        loaded = settings.load()
        manager = self._kernels
        await asyncio.gather(
            *(manager.resume(record, loaded, shares.get(record.kernel_id, {})) for record in records)
        )
        self.core.soon(self.core.home.knows_all)
        manager.initialize_culler()
        if records:
            self.log.info("took up %d kernel(s) of an earlier life of this gateway", len(records))

    async def cleanup_kernels(self) -> None:
        """Leave the kernels running, unless they are to be ended."""
        self._kernels.stopping = True
        GatewayWebsocketConnection.hang_up_on_all()
        self._kernels.stop_culling()
        await self._stop_watching()
        self._http_delay.close()
        self._garbage.close()
        self.core.soon(self._core_delay.close)
        await self._kernels.streams.aclose()
        count = len(self._kernels)
        if self.shutdown_kernels:
            await self._kernels.shutdown_all()
        elif count:
            self.log.info(
                "%d kernel(s) run on and are there again at the next start; "
                "to end them with the gateway, use --shutdown-kernels",
                count,
            )
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(None, lambda: self.core.close(keep_kernels=True))
        self._kernels.marks.close()
        if self._audit is not None:
            self._audit.close()

    def start_app(self) -> None:
        """Begin to serve, and say how to connect."""
        super().start_app()
        self.io_loop.add_callback(self._garbage.start)
        self.io_loop.add_callback(self._http_delay.start)
        self.io_loop.add_callback(self._start_watching)
        self.core.soon(self._core_delay.start)
        self.log.info("%s", capacity())
        url = self.connection_url
        if not self.shutdown_kernels:
            self.log.info("Ctrl-C stops this gateway; its kernels run on (--shutdown-kernels ends them too)")
        self.log.info("%d kernel(s). To connect a JupyterLab to this gateway:", len(self._kernels))
        token = self._token_to_tell
        self.log.info("  jupyter lab --gateway-url=%s --GatewayClient.auth_token=%s", url, token)

    def _start_watching(self) -> None:
        specs = self.kernel_spec_manager
        assert isinstance(specs, GatewayKernelSpecManager)
        self._watching = asyncio.create_task(specs.watch())

    async def _stop_watching(self) -> None:
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.wait({self._watching})

    @property
    def _kernels(self) -> GatewayMappingKernelManager:
        manager = self.kernel_manager
        assert isinstance(manager, GatewayMappingKernelManager)
        return manager

    @property
    def _sessions(self) -> GatewaySessionManager:
        manager = self.session_manager
        assert isinstance(manager, GatewaySessionManager)
        return manager

    @property
    def _token(self) -> str:
        return str(getattr(self.identity_provider, "token", "") or "''")

    @property
    def _token_to_tell(self) -> str:
        """A log for machines goes who knows where: it has only the place of the token."""
        kept = Path(self.data_directory) / TOKEN_FILE
        if not self.log_json:
            return self._token
        return f"$(cat {shlex.quote(str(kept))})" if kept.exists() else "…"

    def init_signal(self) -> None:
        """Take Ctrl-C as SIGTERM, at a terminal without a question: nothing is lost by it."""
        super().init_signal()
        if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
            signal.signal(signal.SIGINT, self._signal_stop)


def _kept_token(path: Path) -> str:
    try:
        return path.read_text().strip()
    except FileNotFoundError:
        token = secrets.token_hex(24)
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(fd, "w") as out:
            out.write(token + "\n")
        return token
