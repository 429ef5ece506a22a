"""What a kernel costs a gateway in sockets: the agent's connection, and none of ZMQ's."""

from __future__ import annotations

import ctypes
import os
import resource
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from elsewhere.limits import capacity, most_open_files
from gateway_kit import Gateway, gateway_of, no_jobs
from site_kit import Site, until

PIDFD_GETFD = 438
"""The number of this system call, on every architecture."""
POLITELY = "import atexit, pathlib; atexit.register(pathlib.Path({!r}).write_text, 'ended politely')"


def sockets_of(pid: int) -> Iterator[socket.socket]:
    """Copies of what a child of ours has open that are sockets."""
    call = ctypes.CDLL(None, use_errno=True).syscall
    process = os.pidfd_open(pid)
    try:
        for name in os.listdir(f"/proc/{pid}/fd"):
            if (fd := call(PIDFD_GETFD, process, int(name), 0)) < 0:
                continue
            if not os.readlink(f"/proc/self/fd/{fd}").startswith("socket:"):
                os.close(fd)
                continue
            with socket.socket(fileno=fd) as one:
                yield one
    finally:
        os.close(process)


def peer(one: socket.socket) -> object:
    try:
        return one.getpeername()
    except OSError:  # it listens
        return None


def kept(gateway: Gateway) -> int:
    """How many sockets the gateway holds but those of HTTP, which come and go."""
    assert gateway.process is not None
    of_http = ("127.0.0.1", gateway.port)
    return sum(one.getsockname() != of_http for one in sockets_of(gateway.process.pid))


def endpoints(site: Site) -> list[str]:
    """The directories in which somebody listens for local clients of a kernel."""
    return [str(path) for path in (site.runtime / "elsewhere-home").glob("*/*/") if path.is_dir()]


def test_an_idle_kernel_holds_no_socket_of_zmq_and_no_endpoint(site: Site) -> None:
    site.spec()
    with gateway_of(site) as gateway:
        first = gateway.kernel()
        gateway.until_state(first, "idle")
        before = kept(gateway)
        kernels = [gateway.kernel() for _ in range(2)]
        for kernel in kernels:
            gateway.until_state(kernel, "idle")
        more = "one more socket each, the agent's"
        until(lambda: kept(gateway) - before == len(kernels), more)
        assert endpoints(site) == []
        with gateway.client(first) as client:
            assert client.run("print(1)") == "1\n"
            assert endpoints(site) == []
        for kernel in (first, *kernels):
            gateway.ask("DELETE", f"/api/kernels/{kernel}")
        no_jobs(site)


def test_a_kernel_is_asked_to_end_and_to_restart_before_it_is_made_to(site: Site, tmp_path: Path) -> None:
    site.spec()
    note = tmp_path / "note"
    with gateway_of(site) as gateway:
        kernel = gateway.kernel()
        with gateway.client(kernel) as client:
            client.run(POLITELY.format(str(note)))
        assert gateway.ask("POST", f"/api/kernels/{kernel}/restart")[0] == 200
        until(note.exists, "the first kernel process has ended politely")
        note.unlink()
        with gateway.client(kernel) as client:
            client.run(POLITELY.format(str(note)))
        assert gateway.ask("DELETE", f"/api/kernels/{kernel}")[0] == 204
        assert note.read_text() == "ended politely"
        no_jobs(site)


def test_a_kernel_that_wants_to_be_interrupted_by_a_message_is(site: Site, tmp_path: Path) -> None:
    site.spec(interrupt_mode="message")
    note = tmp_path / "note"
    code = f"import pathlib, time; pathlib.Path({str(note)!r}).touch(); time.sleep(600)"
    with gateway_of(site) as gateway, ThreadPoolExecutor(1) as threads:
        kernel = gateway.kernel()
        with gateway.client(kernel) as client:
            running = threads.submit(client.run, code)
            until(note.exists, "the cell runs")
            assert gateway.ask("POST", f"/api/kernels/{kernel}/interrupt")[0] == 204
            assert "KeyboardInterrupt" in running.result()
        gateway.ask("DELETE", f"/api/kernels/{kernel}")
        no_jobs(site)


def test_small_messages_leave_at_once(site: Site) -> None:
    """Neither side of a front end's connection, nor of an agent's, waits for a segment to fill."""
    site.spec()
    with gateway_of(site) as gateway:
        kernel = gateway.kernel()
        with gateway.client(kernel) as client:
            assert client.run("print(1)") == "1\n"
            assert gateway.process is not None
            ours = client.address
            found = {
                peer(one) == ours: one.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) != 0
                for one in sockets_of(gateway.process.pid)
                if one.family == socket.AF_INET and peer(one) is not None
            }
            assert found == {True: True, False: True}
        gateway.ask("DELETE", f"/api/kernels/{kernel}")
        no_jobs(site)


def test_a_gateway_opens_as_many_files_as_it_may_and_says_what_that_is_room_for(site: Site) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 512), hard))
    try:
        with gateway_of(site) as gateway:
            assert gateway.process is not None
            limits = Path(f"/proc/{gateway.process.pid}/limits").read_text()
            assert str(capacity()) in gateway.log.read_text()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    (files,) = [line.split() for line in limits.splitlines() if line.startswith("Max open files")]
    assert files[3] == str(most_open_files())
