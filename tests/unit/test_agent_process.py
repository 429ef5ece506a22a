"""The agent as a process: its kernel's start, signals, restarts and end."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

import pytest

from agent_kit import Home, alive, argv, client_of, job_of, order_of, until


@pytest.mark.parametrize("transport", ["ipc", "tcp"])
async def test_a_kernel_is_started_and_reached(home: Home, short: Path, transport: str) -> None:
    async with job_of(home, short, order=order_of(transport=transport)) as job:
        await job.ready()
        assert not job.parcel.exists(), "the parcel is read and removed"
        report = job.line.report
        assert report is not None
        assert report.pid
        assert report.warnings == []
        async with client_of(job.line, short) as client:
            facts = await client.facts()
            assert await client.beats()
            await client.ask("publish", "0", "100")
            assert await client.numbers(100) == list(range(100))
        assert facts["ppid"] == job.pid
        assert facts["pid"] == report.pid
        connection = facts["connection"]
        assert connection["transport"] == transport
        if transport == "ipc":
            assert connection["ip"].startswith(str(job.runtime))
            directory = Path(connection["ip"]).parent
            assert directory.stat().st_mode & 0o777 == 0o700
        else:
            assert connection["ip"].startswith("127.")
            assert len({connection[f"{name}_port"] for name in ("shell", "iopub", "stdin", "hb")}) == 4
        file = Path(facts["argv"][1])
        assert file.stat().st_mode & 0o777 == 0o600
        job.line.command("end", grace=5)
        assert "home ended it" in await job.over()
        assert job.process.returncode == 0
        assert job.left() == []
        assert job.line.over == "home ended it"
        assert not alive(report.pid)


async def test_secrets_are_nowhere_that_others_may_read(home: Home, short: Path) -> None:
    async with job_of(home, short) as job:
        await job.ready()
        assert job.line.report is not None
        for pid in (job.pid, job.line.report.pid):
            for name in ("cmdline", "environ"):
                content = Path(f"/proc/{pid}/{name}").read_bytes().decode()
                assert job.token not in content
                assert "k" * 32 not in content
        job.line.command("end", grace=5)
        output = await job.over()
        assert job.token not in output


async def test_placeholders_files_environment_and_a_directory_that_is_not_there(
    home: Home, short: Path
) -> None:
    order = order_of(
        argv=(*argv(), "{resource_dir}/kernel.js", "{prefix}", "{unknown}", "{site}"),
        files={"kernel.js": b"js", "sub/logo.png": b"\x89PNG", "../escape": b"no", "/abs": b"no"},
        placeholders={"site": "a;b $(c)"},
        env={"KERNEL_USERNAME": "user", "PATH": os.environ["PATH"]},
        cwd="/not/there",
    )
    async with job_of(home, short, order=order, env={"JPY_PARENT_PID": "1", "MINE": "yes"}) as job:
        await job.ready()
        async with client_of(job.line, short) as client:
            facts = await client.facts()
            script, prefix, unknown, site = facts["argv"][2:]
            assert Path(script).read_bytes() == b"js"
            assert (Path(script).parent / "sub/logo.png").read_bytes() == b"\x89PNG"
            assert [path.name for path in job.runtime.rglob("*") if path.name in ("escape", "abs")] == []
            assert (Path(prefix), unknown, site) == (Path(sys.prefix), "{unknown}", "a;b $(c)")
            env = facts["env"]
            assert (env["KERNEL_USERNAME"], env["MINE"]) == ("user", "yes")
            assert "JPY_PARENT_PID" not in env
            assert facts["cwd"] == str(short)
        assert job.line.report is not None
        (warning,) = job.line.report.warnings
        assert "/not/there does not exist" in warning


async def test_state_and_usage_are_told(home: Home, short: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with job_of(home, short) as job, client_of(job.line, short) as client:
        await job.ready()
        await client.ask("status", "busy")
        await until(
            lambda: job.line.report is not None and job.line.report.execution_state == "busy", "the state"
        )


async def test_use_that_leaves_the_state_as_it_was_is_told(home: Home, short: Path) -> None:
    async with job_of(home, short) as job, client_of(job.line, short) as client:
        await job.ready()
        for _ in range(2):
            before = job.line.report
            await client.ask("status", "busy")
            await client.ask("status", "idle")
            await until(lambda before=before: job.line.report is not before, "a report")  # type: ignore[misc]
            report = job.line.report
            assert report is not None
            assert report.execution_state == "idle"
            assert 0 <= report.idle < 60


async def test_the_exit_is_told_with_its_code_and_the_last_lines(home: Home, short: Path) -> None:
    async with job_of(home, short) as job, client_of(job.line, short) as client:
        await job.ready()
        await client.ask("publish", "0", "50")
        await client.ask("print", "last line")
        await client.tell("exit", "7")
        await job.exited()
        report = job.line.report
        assert report is not None
        assert (report.exit_code, report.reason) == (7, "the kernel exited with code 7")
        assert report.log[-1] == "last line"
        assert report.warnings == []
        assert report.execution_state == "dead"
        assert await client.numbers(50) == list(range(50)), "what it published before is not lost"


async def test_a_kernel_that_dies_at_once_says_why(home: Home, short: Path) -> None:
    async with job_of(home, short, order=order_of(options=("dies",))) as job:
        await job.exited()
        report = job.line.report
        assert report is not None
        assert (report.exit_code, report.step) == (3, "exit")
        assert report.log[-1] == "ImportError: there is no such thing"


@pytest.mark.parametrize(
    ("argv", "reason"),
    [
        (("no-such-program", "{connection_file}"), "there is no program 'no-such-program'"),
        (("/", "x"), "cannot execute '/'"),
        (("sh\0", "x"), "embedded null"),
    ],
)
async def test_a_kernel_that_cannot_be_started_says_why(
    home: Home, short: Path, argv: tuple[str, ...], reason: str
) -> None:
    async with job_of(home, short, order=order_of(argv=argv)) as job:
        await job.exited()
        report = job.line.report
        assert report is not None
        assert report.step == "exec"
        assert reason in report.reason
        job.line.start(order_of(2))
        await job.ready(2)
        job.line.start(order_of(3, argv=argv))
        await job.exited(3)


async def test_a_file_whose_name_is_none_says_why(home: Home, short: Path) -> None:
    async with job_of(home, short, order=order_of(files={"a\0b": b""})) as job:
        await job.exited()
        assert job.line.report is not None
        assert job.line.report.step == "exec"


async def test_signals_reach_the_kernel(home: Home, short: Path) -> None:
    async with job_of(home, short) as job, client_of(job.line, short) as client:
        await job.ready()
        await client.ask("publish", "0", "1")
        assert await client.numbers(1) == [0]
        await job.line.command("signal", signum=signal.SIGINT)
        assert await client.numbers(1) == [1]
        with pytest.raises(Exception, match="Invalid argument"):
            await job.line.command("signal", signum=999)
        await job.line.command("signal", signum=signal.SIGKILL)
        await job.exited()
        assert job.line.report is not None
        assert job.line.report.exit_code == -9
        await job.line.command("signal", signum=signal.SIGINT)


async def test_restart_in_place(home: Home, short: Path) -> None:
    """The same job and agent; the client's sockets find the new kernel, and its output has no gap."""
    async with job_of(home, short) as job, client_of(job.line, short) as client:
        await job.ready()
        first = await client.facts()
        await client.ask("publish", "0", "10")
        job.line.start(order_of(2, env={"SECOND": "yes"}))
        await job.ready(2)
        second = await client.facts()
        assert (second["ppid"], second["env"]["SECOND"]) == (first["ppid"], "yes")
        assert second["pid"] != first["pid"]
        assert not alive(first["pid"])
        await client.ask("publish", "10", "20")
        assert await client.numbers(20) == list(range(20))
        await client.tell("exit", "0")
        await job.exited(2)
        job.line.start(order_of(3))
        await job.ready(3)
        assert (await client.facts())["ppid"] == job.pid


async def test_the_idle_grace_ends_the_job_unless_there_is_another_order(home: Home, short: Path) -> None:
    async with job_of(home, short, idle=1.0) as job, client_of(job.line, short) as client:
        await job.ready()
        await client.tell("exit", "0")
        await job.exited()
        job.line.start(order_of(2))
        await job.ready(2)
        await client.tell("exit", "0")
        output = await job.over()
        assert "no kernel and no order to start one for 1 s" in output
        assert job.line.over.startswith("no kernel and no order")
        assert job.left() == []


async def test_a_stubborn_kernel_is_killed_after_the_stop_grace(home: Home, short: Path) -> None:
    async with job_of(home, short, order=order_of(options=("stubborn",))) as job:
        await job.ready()
        assert job.line.report is not None
        pid = job.line.report.pid
        assert pid is not None
        job.line.command("end", grace=0.2)
        await job.over()
        assert not alive(pid)
        assert job.line.over == "home ended it"


async def test_no_kernel_is_started_in_a_job_that_ends(home: Home, short: Path) -> None:
    async with job_of(home, short, order=order_of(options=("stubborn",))) as job:
        await job.ready()
        job.line.command("end", grace=0.5)
        started = job.line.command("start", order=order_of(2))
        with pytest.raises(Exception, match="the job is ending"):
            await started
        await job.over()


async def test_a_kernel_may_take_its_time_after_it_closed_its_sockets(home: Home, short: Path) -> None:
    """What runs at a kernel's exit, runs after it has closed iopub."""
    async with job_of(home, short) as job, client_of(job.line, short) as client:
        await job.ready()
        await client.tell("leave", str(short / "note"), "0.3")
        await job.exited()
        assert (short / "note").read_text() == "left in peace"
        assert job.line.report is not None
        assert (job.line.report.exit_code, job.line.report.warnings) == (0, [])


async def test_what_the_kernel_started_does_not_outlive_it(home: Home, short: Path) -> None:
    async with job_of(home, short) as job, client_of(job.line, short) as client:
        await job.ready()
        child = int(await client.ask("child"))
        assert alive(child)
        await client.tell("exit", "0")
        await job.exited()
        await until(lambda: not alive(child), "its child is gone")


async def test_the_kernel_dies_with_a_killed_agent(home: Home, short: Path) -> None:
    async with job_of(home, short) as job:
        await job.ready()
        assert job.line.report is not None
        pid = job.line.report.pid
        assert pid is not None
        os.kill(job.pid, signal.SIGKILL)
        await until(lambda: not alive(pid), "the kernel is gone")
        await until(lambda: not job.line.connected, "the loss is noticed")
        assert (job.line.over, bool(job.line.loss)) == ("", True)


async def test_sigterm_ends_the_job_in_order(home: Home, short: Path) -> None:
    async with job_of(home, short) as job:
        await job.ready()
        os.kill(job.pid, signal.SIGTERM)
        assert "the job was told to end (SIGTERM)" in await job.over()
        assert job.process.returncode == 0
        assert job.line.over == "the job was told to end (SIGTERM)"
        assert job.left() == []


@pytest.mark.parametrize("transport", ["tcp", "ipc"])
async def test_a_port_that_was_taken_is_tried_once_more(home: Home, short: Path, transport: str) -> None:
    options = (f"taken={short / 'marker'}",)
    async with job_of(home, short, order=order_of(transport=transport, options=options)) as job:
        if transport == "tcp":
            await job.ready()
        else:
            await job.exited()


async def test_nobody_reads_the_jobs_output_and_the_agent_goes_on(home: Home, short: Path) -> None:
    async with job_of(home, short) as job, client_of(job.line, short) as client:
        await job.ready()
        for number in range(40):
            await client.ask("print", f"{number} " + "x" * 20_000)
        await client.tell("exit", "0")
        await job.exited()
        assert job.line.report is not None
        assert job.line.report.log[-1].startswith("39 x")


async def test_a_managers_own_directory_is_used_and_left_to_the_manager(home: Home, short: Path) -> None:
    scratch = short / "s"
    scratch.mkdir()
    async with job_of(home, short, scratch=scratch) as job, client_of(job.line, short) as client:
        await job.ready()
        facts = await client.facts()
        assert facts["connection"]["ip"].startswith(f"{scratch}/a/")
        assert "ELSEWHERE_SCRATCH" not in facts["env"]
        job.line.command("end", grace=5)
        await job.over()
        assert list(scratch.iterdir()) == []


async def test_the_agent_prints_what_the_kernel_prints_and_no_more(home: Home, short: Path) -> None:
    async with job_of(home, short) as job, client_of(job.line, short) as client:
        await job.ready()
        pid = json.loads(await client.ask("facts"))["pid"]
        job.line.command("end", grace=5)
        assert await job.over() == f"fake kernel of {pid}\nelsewhere agent: ending the job: home ended it\n"
