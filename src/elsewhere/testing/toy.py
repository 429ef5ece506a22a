"""A toy manager for the guide to write a backend: a small HTTP service that runs jobs on this machine.

POST /jobs
    run ``argv`` in a directory of its own that has these ``files`` (base64); ``name`` is free, ``memory`` is
    in MB. 200 and the ``id``, or 422 and the ``error``.
GET /jobs?prefix=P
    all jobs whose names begin with P: ``id``, ``name``, ``state`` (waiting, running, done), ``host``,
    ``exit_code``.
DELETE /jobs/ID?grace=S
    SIGTERM, and SIGKILL after S seconds.
POST /jobs/ID/signal
    send ``signum``.
GET /jobs/ID/log?lines=N
    the last ``lines`` that it printed.
DELETE /jobs/ID/log
    forget what a job printed that is done.

An unknown job is 404. It is for learning and for tests: anybody who reaches its port can run anything.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

MEMORY = 1024
"""MB of the machine that the toy pretends to have."""

SLOTS = 32
"""Jobs that run at the same time; others wait."""


class Refused(Exception):
    """An answer that is not 200, and what it says."""

    def __init__(self, status: int, error: str) -> None:
        super().__init__(error)
        self.status = status


@dataclass
class Job:
    """One job. ``process`` is None while it waits."""

    id: str
    name: str
    argv: list[str]
    directory: Path
    process: subprocess.Popen[bytes] | None = None
    cancelled: bool = False
    timers: list[threading.Timer] = field(default_factory=list)

    @property
    def log(self) -> Path:
        return self.directory / "log"

    @property
    def state(self) -> str:
        if self.cancelled and self.process is None:
            return "done"
        if self.process is None:
            return "waiting"
        return "running" if self.process.poll() is None else "done"

    def shown(self) -> dict[str, object]:
        code = self.process.poll() if self.process is not None else None
        host = socket.gethostname() if self.process is not None else None
        return {"id": self.id, "name": self.name, "state": self.state, "host": host, "exit_code": code}

    def start(self) -> None:
        kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
        with self.log.open("wb") as log:
            try:
                self.process = subprocess.Popen(
                    self.argv,
                    cwd=self.directory,
                    env={**kept, "XDG_RUNTIME_DIR": str(self.directory), "TOY_JOB": self.id},
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )
            except OSError as error:
                log.write(f"{self.argv[0]}: {error.strerror}\n".encode())
                self.cancelled = True

    def send(self, signum: int) -> None:
        """Signal the job's processes, if it has any that live."""
        if self.process is not None and self.process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signum)


class Toy:
    """All jobs. Every method holds the lock, and may be called from any thread."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._jobs: dict[str, Job] = {}
        self._count = 0
        self._lock = threading.RLock()

    def submit(self, asked: dict[str, Any]) -> dict[str, object]:
        if asked.get("memory", 0) > MEMORY:
            raise Refused(422, f"no machine has {asked['memory']} MB; the largest has {MEMORY} MB")
        if shutil.which(asked["argv"][0]) is None:
            raise Refused(422, f"no machine has the program {asked['argv'][0]}")
        with self._lock:
            self._count += 1
            job = Job(str(self._count), asked["name"], asked["argv"], self._directory / str(self._count))
            job.directory.mkdir(mode=0o700)
            for name, content in asked.get("files", {}).items():
                path = job.directory / os.path.basename(name)
                path.touch(mode=0o600)
                path.write_bytes(base64.b64decode(content))
            self._jobs[job.id] = job
            self._schedule()
        return {"id": job.id}

    def jobs(self, prefix: str) -> list[dict[str, object]]:
        with self._lock:
            self._schedule()
            return [job.shown() for job in self._jobs.values() if job.name.startswith(prefix)]

    def cancel(self, job_id: str, grace: float) -> None:
        with self._lock:
            job = self._known(job_id)
            job.cancelled = True
            job.send(signal.SIGTERM if grace > 0 else signal.SIGKILL)
            if grace > 0 and job.state == "running":
                timer = threading.Timer(grace, job.send, [signal.SIGKILL])
                timer.daemon = True
                timer.start()
                job.timers.append(timer)

    def signal(self, job_id: str, signum: int) -> None:
        with self._lock:
            job = self._known(job_id)
            if job.process is not None and job.process.poll() is None:
                os.kill(job.process.pid, signum)

    def log(self, job_id: str, lines: int) -> dict[str, object]:
        with self._lock:
            job = self._known(job_id)
            printed = job.log.read_text(errors="replace").splitlines() if job.log.exists() else []
            return {"lines": printed[-lines:] if lines > 0 else []}

    def forget(self, job_id: str) -> None:
        with self._lock:
            job = self._known(job_id)
            if job.state != "done":
                raise Refused(409, f"job {job_id} is {job.state}")
            job.log.unlink(missing_ok=True)

    def close(self) -> None:
        """Kill all jobs."""
        with self._lock:
            for job in self._jobs.values():
                for timer in job.timers:
                    timer.cancel()
                job.send(signal.SIGKILL)
                if job.process is not None:
                    job.process.wait()

    def _known(self, job_id: str) -> Job:
        if job_id not in self._jobs:
            raise Refused(404, f"there is no job {job_id}")
        return self._jobs[job_id]

    def _schedule(self) -> None:
        running = sum(job.state == "running" for job in self._jobs.values())
        for job in self._jobs.values():
            if job.state == "waiting" and running < SLOTS:
                job.start()
                running += 1


class _Handler(BaseHTTPRequestHandler):
    """One request is one call of the toy."""

    protocol_version = "HTTP/1.1"
    toy: Toy

    def _answer(self) -> None:
        try:
            status, body = 200, self._do()
        except Refused as refused:
            status, body = refused.status, {"error": str(refused)}
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_POST = do_DELETE = _answer  # noqa: N815 - names that http.server looks for

    def _do(self) -> object:
        target = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(target.query).items()}
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        asked = json.loads(body) if body else {}
        if target.path == "/jobs":
            return (
                self.toy.submit(asked) if self.command == "POST" else self.toy.jobs(query.get("prefix", ""))
            )
        found = re.fullmatch(r"/jobs/([^/]+)(/\w+)?", target.path)
        if found is None:
            raise Refused(404, f"there is no {target.path}")
        job_id, what = found[1], found[2]
        if (self.command, what) == ("GET", "/log"):
            return self.toy.log(job_id, int(query.get("lines", 20)))
        if (self.command, what) == ("DELETE", None):
            self.toy.cancel(job_id, float(query.get("grace", 0)))
        elif (self.command, what) == ("POST", "/signal"):
            self.toy.signal(job_id, asked["signum"])
        elif (self.command, what) == ("DELETE", "/log"):
            self.toy.forget(job_id)
        else:
            raise Refused(405, f"{self.command} {target.path} is not served")
        return None

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128


@contextlib.contextmanager
def serving(port: int = 0) -> Iterator[str]:
    """Serve on a port of this machine, any free one by default; yields the URL. Its end kills all jobs."""
    with tempfile.TemporaryDirectory(prefix="toy") as directory:
        toy = Toy(Path(directory))
        handler = type("Handler", (_Handler,), {"toy": toy})
        with _Server(("127.0.0.1", port), handler) as server:
            thread = threading.Thread(target=server.serve_forever, args=(0.05,), name="toy")
            thread.start()
            try:
                yield f"http://127.0.0.1:{server.server_port}"
            finally:
                server.shutdown()
                thread.join()
                toy.close()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m elsewhere.testing.toy", description="Run a toy manager.")
    parser.add_argument("--port", type=int, default=8000, help="default: 8000")
    with serving(parser.parse_args().port) as url, contextlib.suppress(KeyboardInterrupt):
        print(f"a toy manager serves {url}; Ctrl-C ends it and its jobs", flush=True)  # noqa: T201
        signal.sigwait({signal.SIGINT, signal.SIGTERM})


if __name__ == "__main__":
    main()
