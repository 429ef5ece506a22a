"""The embedded manager, with real processes."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import FrozenInstanceError
from pathlib import Path

import pytest
from pydantic import ValidationError

from elsewhere.backend import JobId, Launch, Logs, Mark, Order, Parcel, Phase, Sighting, Signals
from elsewhere.backends.local import LocalBackend, LocalConfig, LocalOptions, LocalRequest, processes
from elsewhere.errors import Rejected, Unreachable

WAIT = "import time\nprint('ready', flush=True)\nwhile True: time.sleep(0.02)\n"
STUBBORN = "import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + WAIT
FAMILY = """
import os, subprocess, sys
sleep = [sys.executable, "-c", "import time; time.sleep(600)"]
family = [
    subprocess.Popen(sleep),
    subprocess.Popen(sleep, start_new_session=True),
    subprocess.Popen(sleep, env={}),
]
print(os.getpid(), *(child.pid for child in family), flush=True)
"""
SUBMIT_AND = """
import asyncio, atexit, os, sys
from pathlib import Path
from elsewhere.backend import Launch, Mark, Order, Parcel
from elsewhere.backends.local import LocalBackend, LocalConfig, LocalOptions

home_id, directory, code = sys.argv[1:]
backend = LocalBackend(home_id, LocalConfig(directory=Path(directory)))
launch = Launch(Mark(home_id, "k", 1), "python3", "me", sys.executable, Order(("x",)), LocalOptions())
loop = asyncio.new_event_loop()
job_id = loop.run_until_complete(backend.submit(backend.render(launch), Parcel(code.encode())))
print(job_id, flush=True)
"""


async def until(condition: Callable[[], Awaitable[bool]], patience: float = 10.0) -> None:
    """Wait until the condition holds; fail once patience is over."""
    deadline = time.monotonic() + patience
    while not await condition():
        assert time.monotonic() < deadline, "it did not come to pass"
        await asyncio.sleep(0.01)


def runs(pid: int) -> bool:
    """Return whether a process lives, a zombie not being one."""
    try:
        return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b") ")[2][:1] != b"Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def carrying(word: str) -> list[int]:
    """Return the processes whose environment has a job with this word, found without the backend."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            entries = (path / "environ").read_bytes().split(b"\0")
            if any(e.startswith(b"ELSEWHERE_JOB=") and word.encode() in e for e in entries):
                found.append(int(path.name))
    return found


async def gone(word: str) -> None:
    """Wait until no job with this word has a process: one that was killed dies when next scheduled."""

    async def nobody() -> bool:
        return not carrying(word)

    try:
        await until(nobody)
    finally:
        for pid in carrying(word):
            os.kill(pid, signal.SIGKILL)


class Lab:
    """One home with a directory of its own, and short ways to ask of it what tests ask."""

    def __init__(self, directory: Path) -> None:
        self.home_id = f"t{secrets.token_hex(4)}"
        self.directory = directory
        self.backends: list[LocalBackend] = []
        self.backend = self.another()

    def another(self, **config: object) -> LocalBackend:
        """Return a new object, as a new process of the same home would have it."""
        settings = LocalConfig.model_validate({"directory": self.directory, **config})
        self.backends.append(LocalBackend(self.home_id, settings))
        return self.backends[-1]

    def launch(self, kernel_id: str = "k", **options: object) -> Launch[LocalOptions]:
        python = str(options.pop("python", sys.executable))
        order = Order(("never", "shown"), env={"TOKEN": "s3cret"})
        mark = Mark(self.home_id, kernel_id, 1)
        return Launch(mark, "python3", "me", python, order, LocalOptions.model_validate(options))

    async def submit(self, code: str, kernel_id: str = "k", **options: object) -> JobId:
        request = self.backend.render(self.launch(kernel_id, **options))
        return await self.backend.submit(request, Parcel(code.encode()))

    async def see(self, job_id: str, backend: LocalBackend | None = None) -> Sighting | None:
        observation = await (backend or self.backend).survey()
        assert observation.complete
        return next((s for s in observation.sightings if s.job_id == job_id), None)

    async def ended(self, job_id: str, backend: LocalBackend | None = None) -> Sighting:
        async def over() -> bool:
            sighting = await self.see(job_id, backend)
            return sighting is not None and sighting.phase is Phase.ENDED

        await until(over)
        sighting = await self.see(job_id, backend)
        assert sighting is not None
        return sighting

    async def printed(self, job_id: str, count: int = 1) -> list[str]:
        async def enough() -> bool:
            return len(await self.backend.tail(job_id=JobId(job_id), lines=count)) == count

        await until(enough)
        return list(await self.backend.tail(JobId(job_id), count))

    def main(self, job_id: str) -> int:
        return int(json.loads((self.directory / job_id / "job.json").read_bytes())["pid"])


@pytest.fixture
async def lab(tmp_path: Path) -> AsyncIterator[Lab]:
    """Lend a lab, and witness that nothing of it is left: no process, no file."""
    lab = Lab(tmp_path / "jobs")
    yield lab
    backend = lab.another()
    if lab.directory.is_dir():
        for sighting in (await backend.survey()).sightings:
            await backend.cancel(sighting.job_id, grace=0)
            await lab.ended(sighting.job_id, backend)
            await backend.discard(sighting.job_id)
    for each in lab.backends:
        await each.close()
    await gone(f"elsewhere-{lab.home_id}-")
    assert not lab.directory.is_dir() or [p.name for p in lab.directory.iterdir()] == []


async def test_a_request_says_what_is_started_and_no_secret(lab: Lab) -> None:
    request = lab.backend.render(lab.launch())
    assert request == lab.backend.render(lab.launch())
    assert request.argv == (sys.executable, "-E", "-s", "-S", str(request.parcel))
    assert request.log.parent == request.parcel.parent == lab.directory / str(request.mark)
    assert "ELSEWHERE_JOB" in request.environment
    assert "s3cret" not in repr(request)
    assert not lab.directory.exists()
    with pytest.raises(FrozenInstanceError):
        request.cwd = "/"  # type: ignore[misc]


async def test_it_can_signal_and_keeps_logs(lab: Lab) -> None:
    assert isinstance(lab.backend, Signals)
    assert isinstance(lab.backend, Logs)


@pytest.mark.parametrize("bad", [{"nice": 20}, {"nice": -1}, {"partition": "x"}])
def test_options_are_checked(bad: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        LocalOptions.model_validate(bad)


async def test_a_job_is_seen_at_once_also_by_a_new_object(lab: Lab) -> None:
    job_id = await lab.submit(WAIT)
    expected = Sighting("k", 1, job_id, Phase.RUNNING, host=socket.gethostname())
    assert await lab.see(job_id) == expected
    assert await lab.see(job_id, lab.another()) == expected


async def test_a_job_is_detached_and_inherits_only_what_it_should(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    awkward = "two words\n'\"$(touch /nowhere)`;\\ ü"
    monkeypatch.setenv("LC_AWKWARD", awkward)
    monkeypatch.setenv("AWS_SECRET", "s3cret")
    monkeypatch.setenv("JPY_PARENT_PID", "1")
    monkeypatch.setenv("ELSEWHERE_JOB", "that of an outer job")
    monkeypatch.setenv("HOME", str(tmp_path))
    leak = os.open("/dev/null", os.O_RDONLY)
    os.set_inheritable(leak, True)
    lab.directory = tmp_path / awkward.replace("/", ".")
    lab.backend = lab.another()
    try:
        job_id = await lab.submit(
            "import json, os\nfd = '/proc/self/fd/'\n"
            "fds = [f for f in os.listdir(fd) if os.path.exists(fd + f)]\n"
            "print(json.dumps([dict(os.environ), fds, os.getcwd(), os.getsid(0) == os.getpid(),"
            " os.readlink('/proc/self/fd/0'), os.nice(0)]))",
            nice=7,
        )
    finally:
        os.close(leak)
    environ, fds, cwd, leads, stdin, nice = json.loads((await lab.printed(job_id))[0])
    assert environ["LC_AWKWARD"] == awkward
    assert environ["ELSEWHERE_JOB"] == job_id
    assert not {"AWS_SECRET", "JPY_PARENT_PID"} & set(environ)
    assert sorted(fds) == ["0", "1", "2"]
    assert (cwd, leads, stdin) == (str(tmp_path), True, "/dev/null")
    assert nice == os.nice(0) + 7


async def test_the_home_that_is_not_there_is_replaced_by_the_root(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", "/nowhere/at/all")
    lab.backend = lab.another()
    job_id = await lab.submit("import os; print(os.getcwd())")
    assert await lab.printed(job_id) == ["/"]


async def test_files_are_private(lab: Lab) -> None:
    job_id = await lab.submit(WAIT)
    modes = {p.name: stat.S_IMODE(p.stat().st_mode) for p in (lab.directory / job_id).iterdir()}
    assert modes == {"parcel.pyz": 0o600, "log": 0o600, "job.json": 0o600}
    assert {stat.S_IMODE(p.stat().st_mode) for p in (lab.directory, lab.directory / job_id)} == {0o700}


async def test_eight_at_once(lab: Lab) -> None:
    ids = await asyncio.gather(*(lab.submit(WAIT, kernel_id=f"k{n}") for n in range(8)))
    seen = (await lab.backend.survey()).sightings
    assert sorted(s.job_id for s in seen) == sorted(ids)
    assert {s.phase for s in seen} == {Phase.RUNNING}


async def test_the_same_job_is_not_submitted_twice(lab: Lab) -> None:
    job_id = await lab.submit(WAIT)
    with pytest.raises(Rejected, match="submitted before"):
        await lab.submit(WAIT)
    sighting = await lab.see(job_id)
    assert sighting is not None
    assert sighting.phase is Phase.RUNNING


@pytest.mark.parametrize("code", [0, 3])
async def test_an_exit_code_is_known_to_all_objects(lab: Lab, code: int) -> None:
    job_id = await lab.submit(f"raise SystemExit({code})")
    sighting = await lab.ended(job_id)
    assert (sighting.exit_code, sighting.reason) == (code, f"exited with code {code}")
    assert await lab.see(job_id, lab.another()) == sighting


async def test_a_kill_behind_our_back_has_a_reason_and_leaves_no_children(lab: Lab) -> None:
    job_id = await lab.submit(FAMILY + WAIT)
    pids = [int(pid) for pid in (await lab.printed(job_id, 2))[0].split()]
    assert pids[0] == lab.main(job_id)
    os.kill(pids[0], signal.SIGKILL)
    sighting = await lab.ended(job_id)
    assert (sighting.exit_code, sighting.reason) == (-9, "killed by signal 9 (SIGKILL)")

    async def gone() -> bool:
        return not any(runs(pid) for pid in pids)

    await until(gone)
    with pytest.raises(ChildProcessError):  # nor is a zombie of ours
        os.waitpid(pids[0], os.WNOHANG)


async def test_sigterm_is_asked_first(lab: Lab) -> None:
    job_id = await lab.submit(
        "import signal, sys\nsignal.signal(signal.SIGTERM, lambda *_: sys.exit(5))\n" + WAIT
    )
    await lab.printed(job_id)
    await lab.backend.cancel(job_id, grace=60)
    assert (await lab.ended(job_id)).exit_code == 5


async def test_what_ignores_sigterm_is_killed_after_the_grace_with_all_its_children(lab: Lab) -> None:
    job_id = await lab.submit(
        "import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + FAMILY + WAIT
    )
    pids = [int(pid) for pid in (await lab.printed(job_id, 2))[0].split()]
    began = time.monotonic()
    await lab.backend.cancel(job_id, grace=0.4)
    await lab.backend.cancel(job_id, grace=60)  # the earliest deadline counts
    assert time.monotonic() - began < 0.3
    assert all(runs(pid) for pid in pids)
    assert (await lab.ended(job_id)).exit_code == -9
    assert time.monotonic() - began >= 0.4

    async def gone() -> bool:
        return not any(runs(pid) for pid in pids)

    await until(gone)


async def test_a_shorter_grace_takes_the_place_of_a_longer_one(lab: Lab) -> None:
    job_id = await lab.submit(STUBBORN)
    await lab.printed(job_id)
    await lab.backend.cancel(job_id, grace=60)
    await lab.backend.cancel(job_id, grace=0.05)
    assert (await lab.ended(job_id)).exit_code == -9


async def test_cancel_may_be_repeated_and_knows_no_unknown_job(lab: Lab) -> None:
    job_id = await lab.submit(WAIT)
    for grace in (0, 0, 1):
        await lab.backend.cancel(job_id, grace=grace)
    assert (await lab.ended(job_id)).exit_code == -9
    await lab.backend.cancel(job_id, grace=0)
    await lab.backend.cancel(JobId(str(Mark(lab.home_id, "never", 1))), grace=0)
    await lab.backend.signal(JobId(str(Mark(lab.home_id, "never", 1))), signal.SIGTERM)


async def test_a_job_can_be_cancelled_before_it_runs(lab: Lab) -> None:
    submission = asyncio.create_task(lab.submit(STUBBORN))
    await asyncio.sleep(0)
    await lab.backend.cancel(JobId(str(lab.launch().mark)), grace=0)
    assert (await lab.ended(await submission)).exit_code == -9


async def test_a_cancelled_submit_leaves_nothing_that_a_survey_does_not_show(lab: Lab) -> None:
    for n in range(8):
        submission = asyncio.create_task(lab.submit(WAIT, kernel_id=f"k{n}"))
        await asyncio.sleep(0.0005 * n)
        submission.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await submission

    async def settled() -> bool:
        seen = (await lab.backend.survey()).sightings
        carriers = carrying(f"elsewhere-{lab.home_id}-")
        return len(seen) == len(carriers) and all(s.phase is Phase.RUNNING for s in seen)

    await until(settled)


@pytest.mark.parametrize(
    "hostile", ["../../x", "", "/etc", "k", "elsewhere-{home}-01-k", "elsewhere-{home}-1-../k"]
)
async def test_hostile_job_ids_have_no_effect(lab: Lab, hostile: str, tmp_path: Path) -> None:
    job_id = await lab.submit(WAIT)
    witness = tmp_path / "x"
    witness.mkdir()
    bad = JobId(hostile.format(home=lab.home_id))
    await lab.backend.cancel(bad, grace=0)
    await lab.backend.signal(bad, signal.SIGKILL)
    await lab.backend.discard(bad)
    assert await lab.backend.tail(bad, 5) == ()
    assert witness.is_dir()
    assert runs(lab.main(job_id))


async def test_a_job_of_another_home_is_not_ours(lab: Lab) -> None:
    other = Lab(lab.directory)
    job_id = await lab.submit(WAIT)
    assert (await other.backend.survey()).sightings == ()
    await other.backend.cancel(job_id, grace=0)
    await other.backend.discard(job_id)
    old = time.time() - 7200
    os.utime(lab.directory / job_id, (old, old))
    await other.backend.survey()
    assert runs(lab.main(job_id))
    await other.backend.close()


async def test_what_a_dead_home_left_is_removed_when_its_job_was_over_for_an_hour(lab: Lab) -> None:
    other = Lab(lab.directory)
    job_id = await lab.submit("pass")
    await lab.ended(job_id)
    await other.backend.survey()
    assert (lab.directory / job_id).is_dir()
    age(lab.directory / job_id, 3700)
    await other.backend.survey()
    assert not (lab.directory / job_id).exists()
    await other.backend.close()


async def in_another_process(lab: Lab, program: str, code: str = WAIT) -> JobId:
    """Run a real second home process to its end; return the id of the job that it submitted."""
    argv = [sys.executable, "-c", program, lab.home_id, str(lab.directory), code]
    process = await asyncio.create_subprocess_exec(*argv, stdout=asyncio.subprocess.PIPE)
    output, _ = await process.communicate()
    assert process.returncode == 0
    return JobId(output.decode().strip())


async def test_a_job_outlives_its_home_and_is_found_by_the_next(lab: Lab) -> None:
    job_id = await in_another_process(lab, SUBMIT_AND)
    assert await lab.see(job_id) == Sighting("k", 1, job_id, Phase.RUNNING, host=socket.gethostname())
    assert await lab.printed(job_id) == ["ready"]
    await lab.backend.cancel(job_id, grace=5)
    sighting = await lab.ended(job_id)
    assert (sighting.exit_code, sighting.reason) == (None, "ended while nobody watched")


async def test_a_home_that_dies_at_once_leaves_what_the_next_one_finds(lab: Lab) -> None:
    job_id = await in_another_process(lab, SUBMIT_AND + "os._exit(0)")
    sighting = await lab.see(job_id)
    assert sighting is not None
    assert sighting.phase is Phase.RUNNING


async def test_jobs_can_be_killed_while_the_interpreter_exits(lab: Lab) -> None:
    at_exit = "atexit.register(lambda: loop.run_until_complete(backend.cancel(job_id, grace=0)))"
    job_id = await in_another_process(lab, SUBMIT_AND + at_exit, STUBBORN)
    assert (await lab.ended(job_id)).phase is Phase.ENDED
    await gone(job_id)


@pytest.mark.parametrize("lie", [{"start": 1}, {"boot": "another"}])
async def test_a_pid_that_was_used_again_is_not_taken_for_the_job(lab: Lab, lie: dict[str, object]) -> None:
    stranger = subprocess.Popen(
        [sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True
    )
    try:
        identity = processes.identify(stranger.pid)
        assert identity is not None
        await lab.backend.survey()
        job_id = str(lab.launch().mark)
        directory = lab.directory / job_id
        directory.mkdir(mode=0o700)
        (directory / "job.json").write_text(json.dumps({**vars(identity), **lie}))
        await lab.backend.cancel(JobId(job_id), grace=0)
        await lab.backend.cancel(JobId(job_id), grace=5)
        await lab.backend.signal(JobId(job_id), signal.SIGKILL)
        sighting = await lab.see(job_id)
        assert sighting is not None
        assert (sighting.phase, sighting.exit_code) == (Phase.ENDED, None)
        assert sighting.reason == (
            "the machine was started anew" if "boot" in lie else "ended while nobody watched"
        )
        assert stranger.poll() is None
        assert not processes.send(identity.pid, identity.start + 1, signal.SIGKILL)
    finally:
        stranger.kill()
        stranger.wait()


def age(path: Path, seconds: float) -> None:
    when = time.time() - seconds
    os.utime(path, (when, when))


@pytest.mark.parametrize("record", [None, "", "{", "[]", '{"pid": "x"}'])
async def test_a_submission_that_was_cut_short_never_became_a_job(lab: Lab, record: str | None) -> None:
    await lab.backend.survey()
    job_id = str(lab.launch().mark)
    directory = lab.directory / job_id
    directory.mkdir(mode=0o700)
    if record is not None:
        (directory / "job.json").write_text(record)
    sighting = await lab.see(job_id)
    assert sighting is not None
    assert sighting.phase is Phase.QUEUED
    age(directory, 60)
    assert await lab.see(job_id) is None
    assert not directory.exists()


async def test_a_job_whose_home_died_before_the_record_is_found_nevertheless(lab: Lab) -> None:
    job_id = await lab.submit(FAMILY + WAIT)
    await lab.printed(job_id, 2)
    pid = lab.main(job_id)
    (lab.directory / job_id / "job.json").unlink()
    age(lab.directory / job_id, 60)
    sighting = await lab.see(job_id)
    assert sighting is not None
    assert sighting.phase is Phase.RUNNING
    assert lab.main(job_id) == pid


async def test_what_only_looks_like_a_job_is_passed_over(lab: Lab) -> None:
    await lab.backend.survey()
    names = [str(Mark(lab.home_id, "file", 1)), "notes", f".gone-{Mark(lab.home_id, 'gone', 1)}"]
    (lab.directory / names[0]).write_text("")
    (lab.directory / names[1]).mkdir()
    (lab.directory / names[2]).mkdir()
    assert (await lab.backend.survey()).sightings == ()
    assert sorted(p.name for p in lab.directory.iterdir()) == sorted(names[:2])
    (lab.directory / names[0]).unlink()
    (lab.directory / names[1]).rmdir()


async def test_an_ended_job_is_forgotten_after_an_hour(lab: Lab) -> None:
    job_id = await lab.submit("pass")
    await lab.ended(job_id)
    age(lab.directory / job_id / "ended.json", 3500)
    assert await lab.see(job_id) is not None
    age(lab.directory / job_id / "ended.json", 3700)
    assert await lab.see(job_id) is None
    assert list(lab.directory.iterdir()) == []


async def test_a_log_is_rotated_and_its_tail_goes_on(lab: Lab) -> None:
    lab.backend = lab.another(log_limit=1000)
    job_id = await lab.submit(
        "import os, signal\nsignal.signal(signal.SIGUSR1, lambda *_: os.write(2, b'after\\n'))\n"
        "print(*(f'line {n:03}' for n in range(200)), sep='\\n', flush=True)\n" + WAIT
    )
    assert (await lab.printed(job_id, 201))[-2:] == ["line 199", "ready"]
    await lab.backend.survey()
    log = lab.directory / job_id / "log"
    assert log.stat().st_size == 0
    assert log.with_name("log.1").stat().st_size == 1806
    assert await lab.backend.tail(job_id, 2) == ["line 199", "ready"]
    await lab.backend.signal(job_id, signal.SIGUSR1)

    async def goes_on() -> bool:
        return list(await lab.backend.tail(job_id, 2)) == ["ready", "after"]

    await until(goes_on)
    assert log.read_bytes() == b"after\n"
    assert await lab.backend.tail(job_id, 0) == []
    assert await lab.backend.tail(JobId(str(Mark(lab.home_id, "never", 1))), 5) == []


async def test_a_log_is_shown_whatever_bytes_it_holds(lab: Lab) -> None:
    job_id = await lab.submit("import os; os.write(1, b'\\xff\\x00 \\xc3\\xbc\\r\\nlast')")
    await lab.ended(job_id)
    assert await lab.backend.tail(job_id, 5) == ["\ufffd\x00 ü", "last"]


async def test_a_number_that_is_no_signal_is_refused(lab: Lab) -> None:
    job_id = await lab.submit(WAIT)
    with pytest.raises(Rejected, match="signal 4242"):
        await lab.backend.signal(job_id, 4242)


async def test_discard_spares_a_live_job(lab: Lab) -> None:
    job_id = await lab.submit(WAIT)
    await lab.backend.discard(job_id)
    assert await lab.see(job_id) is not None
    await lab.backend.cancel(job_id, grace=0)

    async def removed() -> bool:
        await lab.backend.discard(job_id)
        return not (lab.directory / job_id).exists()

    await until(removed)
    await lab.backend.discard(job_id)
    assert (await lab.backend.survey()).sightings == ()


@pytest.mark.parametrize(("python", "words"), [("no such python", " on PATH"), ("/no/such/python", "")])
async def test_a_missing_interpreter_is_named(lab: Lab, python: str, words: str) -> None:
    with pytest.raises(Rejected) as caught:
        await lab.submit(WAIT, python=python)
    assert str(caught.value) == f"no interpreter `{python}`{words}; set the option `python`"
    assert list(lab.directory.iterdir()) == []


async def test_an_interpreter_that_cannot_run_leaves_nothing(lab: Lab, tmp_path: Path) -> None:
    broken = tmp_path / "python"
    broken.write_bytes(b"\x7fELF nonsense")
    broken.chmod(0o755)
    with pytest.raises(Rejected, match="cannot start"):
        await lab.submit(WAIT, python=str(broken))
    with pytest.raises(Rejected, match="no interpreter"):
        await lab.submit(WAIT, python="/py\0thon")
    assert list(lab.directory.iterdir()) == []


@pytest.mark.parametrize("wrong", ["link", "mode", "file", "owner"])
async def test_a_directory_that_is_not_private_is_refused(
    lab: Lab, wrong: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = tmp_path / "real"
    real.mkdir(mode=0o700)
    words = {
        "link": "symbolic link",
        "mode": "mode 0750",
        "file": "not a directory",
        "owner": "belongs to user",
    }
    with monkeypatch.context() as patch:
        if wrong == "link":
            lab.directory.symlink_to(real)
        elif wrong == "file":
            lab.directory.write_text("")
        else:
            lab.directory.mkdir(mode=0o700)
        if wrong == "mode":
            lab.directory.chmod(0o750)
        elif wrong == "owner":
            patch.setattr("os.geteuid", lambda: 4242)
        with pytest.raises(Rejected, match=words[wrong]):
            await lab.submit(WAIT)
        with pytest.raises(Rejected, match=words[wrong]):
            await lab.backend.survey()
    assert list(real.iterdir()) == []
    lab.directory.unlink() if wrong in {"link", "file"} else lab.directory.chmod(0o700)


async def test_a_directory_that_vanished_is_no_answer(lab: Lab) -> None:
    assert (await lab.backend.survey()).sightings == ()
    lab.directory.rmdir()
    with pytest.raises(Unreachable, match="gone"):
        await lab.backend.survey()


async def test_the_default_directory_is_private_and_follows_the_runtime_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    backend = LocalBackend("t0", LocalConfig())
    await backend.survey()
    assert backend.directory == tmp_path / "elsewhere" / "local"
    for path in (backend.directory, backend.directory.parent):
        assert stat.S_IMODE(path.stat().st_mode) == 0o700
    await backend.close()
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/nowhere/at/all")
    assert LocalBackend("t0", LocalConfig()).directory == Path(f"/tmp/elsewhere-{os.geteuid()}/local")


async def test_without_proc_nothing_is_pretended(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("os.path.exists", lambda path: False)
        with pytest.raises(Rejected, match="needs /proc"):
            await lab.submit(WAIT)
        with pytest.raises(Rejected, match="needs /proc"):
            await lab.backend.survey()


async def test_closing_ends_the_graces_and_leaves_the_other_jobs(lab: Lab) -> None:
    backend = lab.backend
    doomed, spared = await lab.submit(STUBBORN, kernel_id="a"), await lab.submit(STUBBORN, kernel_id="b")
    await lab.printed(doomed)
    await backend.cancel(doomed, grace=600)
    await backend.close()
    await backend.close()
    lab.backend = lab.another()
    assert (await lab.ended(doomed)).exit_code == -9
    assert runs(lab.main(spared))
    with pytest.raises(Rejected, match="closed"):
        await backend.submit(
            LocalRequest(Mark("t", "k", 1), ("x",), None, (), "/", lab.directory), Parcel(b"")
        )
