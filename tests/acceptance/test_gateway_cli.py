"""``elsewhere kernels`` and ``elsewhere ledger`` against a real gateway."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys

from gateway_kit import PROGRAM, Gateway, gateway_of, ledger_of, listed, no_jobs
from site_kit import PATIENCE, Site, until

SAYS = (sys.executable, "-c", "print('first'); print('last words'); raise SystemExit(3)", "{connection_file}")


def elsewhere(*argv: str, expect: int = 0) -> tuple[str, str]:
    """What the command prints, and what it says on stderr."""
    done = subprocess.run([PROGRAM, *argv], capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert done.returncode == expect, done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout, done.stderr


def at_a_terminal(*argv: str) -> str:
    """What people see who type the command."""
    ours, its = os.openpty()
    try:
        subprocess.run(
            [PROGRAM, *argv], stdout=its, env={**os.environ, "COLUMNS": "200"}, timeout=PATIENCE, check=True
        )
        return os.read(ours, 65536).decode()
    finally:
        os.close(ours)
        os.close(its)


def test_the_kernels_of_the_gateway_that_runs_here(site: Site) -> None:
    site.spec()
    with gateway_of(site) as gateway:
        assert "runs no kernels" in elsewhere("kernels", "list")[1]
        assert json.loads(elsewhere("kernels", "list", "--json")[0]) == []
        one, two = gateway.kernel(), gateway.kernel()
        gateway.until_state(one, "idle")
        gateway.until_state(two, "idle")
        lines = elsewhere("kernels", "list")[0].splitlines()
        assert {line.split("\t")[0] for line in lines} == {one, two}
        assert {line.split("\t")[2] for line in lines} == {"idle"}
        table = at_a_terminal("kernels", "list")
        assert "last activity" in table
        assert one in table
        shown = elsewhere("kernels", "show", one[:8])[0]
        assert one in shown
        assert "kernel ready" in shown
        assert json.loads(elsewhere("kernels", "show", one, "--json")[0])["launch"] == 1
        with gateway.client(one) as client:
            client.run("x = 1")
        _, told = elsewhere("kernels", "restart", one)
        assert "idle" in told
        with gateway.client(one) as client:
            assert client.run("print('x' in dir())") == "False\n"
        assert json.loads(elsewhere("kernels", "restart", one, "--no-wait", "--json")[0])["id"] == one
        gateway.until_state(one, "idle")
        assert elsewhere("kernels", "stop", one)[0] == f"{one}  ended\n"
        assert listed(gateway) == [two]
        elsewhere("kernels", "stop", "--all", "--yes")
        assert listed(gateway) == []
        no_jobs(site)


def test_a_kernel_is_watched_to_its_end(site: Site) -> None:
    site.spec()
    with gateway_of(site) as gateway:
        kernel = gateway.kernel()
        argv = [PROGRAM, "kernels", "watch", kernel, "--json"]
        with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as watcher:
            assert watcher.stdout is not None
            assert json.loads(watcher.stdout.readline())["id"] == kernel
            gateway.until_state(kernel, "idle")
            gateway.ask("DELETE", f"/api/kernels/{kernel}")
            states = [json.loads(line)["state"] for line in watcher.stdout]
        assert watcher.returncode == 0
        assert "idle" in states
        assert states[-1] == "gone"


def test_the_log_of_a_job(site: Site) -> None:
    site.spec("says", SAYS)
    with gateway_of(site) as gateway:
        kernel = gateway.kernel("says")
        gateway.until_state(kernel, "dead")
        reason = json.loads(elsewhere("kernels", "show", kernel, "--json")[0])["reason"]
        assert "last words" in reason
        assert elsewhere("kernels", "logs", kernel, expect=0)[0] in ("", "first\nlast words\n")
        for lines in ("0", "x", "-1", "99999", "１", "9" * 500):
            assert gateway.ask("GET", f"/api/kernels/{kernel}/logs?lines={_quoted(lines)}")[0] == 400
        _, told = elsewhere("kernels", "restart", kernel, expect=1)
        assert "exited with code 3" in told


def _quoted(text: str) -> str:
    return "".join(f"%{byte:02X}" for byte in text.encode())


def test_what_is_wrong_is_told_with_what_to_do(site: Site) -> None:
    site.spec()
    _, told = elsewhere("kernels", "list", expect=1)
    assert "elsewhere serve" in told
    with gateway_of(site) as gateway:
        url = f"http://127.0.0.1:{gateway.port}"
        kernel = gateway.kernel()
        for argv, word in (
            (("list", "--url", url, "--token", "wrong"), "token"),
            (("list", "--url", "127.0.0.1:1"), "http://"),
            (("list", "--url", "http://127.0.0.1:1"), "does not answer"),
            (("show", "nope"), "no kernel is called 'nope'"),
            (("show", kernel[:-1] + "x"), f"did you mean `{kernel}`"),
            (("show", "../../x"), "no kernel is called"),
        ):
            assert word in elsewhere("kernels", *argv, expect=1)[1]
        assert "--all" in elsewhere("kernels", "stop", expect=2)[1]
        assert "Aborted" in elsewhere("kernels", "stop", "--all", expect=1)[1]
        assert listed(gateway) == [kernel]
        named = ("--url", url, "--token", gateway.token)
        assert kernel in elsewhere("kernels", "list", *named)[0]


def test_the_ledger_is_looked_at_and_not_changed(site: Site) -> None:
    site.spec()
    gateway = Gateway(site)
    where = ("--data-directory", str(gateway.data))
    assert "no ledger" in elsewhere("ledger", "check", *where, expect=1)[1]
    gateway.start()
    kernel = gateway.kernel(env={"KERNEL_PASSWORD": "canary"})
    gateway.until_state(kernel, "idle")
    session = {"path": "a.ipynb", "name": "a.ipynb", "type": "notebook", "kernel": {"id": kernel}}
    gateway.ask("POST", "/api/sessions", session)
    found = json.loads(elsewhere("ledger", "check", "--json", *where)[0])
    assert (found["kernels"], found["in_use"], found["problems"]) == (1, True, [])
    gateway.stop(signal.SIGKILL)
    found = json.loads(elsewhere("ledger", "check", "--json", *where)[0])
    assert (found["kernels"], found["pending"], found["in_use"]) == (1, 0, False)
    text = elsewhere("ledger", "export", *where)[0]
    (one,) = json.loads(text)["kernels"]
    assert (one["kernel_id"], one["env"]) == (kernel, ["KERNEL_PASSWORD"])
    assert [each["kernel_id"] for each in json.loads(text)["sessions"]] == [kernel]
    assert "canary" not in text
    assert gateway.token not in text
    output = site.root / "out.json"
    elsewhere("ledger", "export", "--output", str(output), *where)
    assert output.read_text() == text
    assert stat.S_IMODE(output.stat().st_mode) == 0o600
    assert "--force" in elsewhere("ledger", "export", "--output", str(output), *where, expect=1)[1]
    gateway.start("--shutdown-kernels")
    assert gateway.stop(signal.SIGTERM) == 0
    before = {path: path.stat().st_mtime_ns for path in gateway.data.iterdir()}
    assert "0 kernels" in elsewhere("ledger", "check", *where)[0]
    assert {path: path.stat().st_mtime_ns for path in gateway.data.iterdir()} == before
    ledger_of(gateway).chmod(0o644)
    assert "chmod 600" in elsewhere("ledger", "check", *where, expect=1)[1]
    ledger_of(gateway).chmod(0o600)
    ledger_of(gateway).write_bytes(b"SQLite format 3\0 and then something else")
    assert "cannot be read" in elsewhere("ledger", "check", *where, expect=1)[1]
    until(lambda: not site.job_processes(), "no job is left")
