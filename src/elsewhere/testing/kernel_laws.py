"""The laws that hold for real kernels on every backend. An author subclasses the class and runs pytest.

    @pytest.fixture
    def subject() -> Subject:
        return Subject(MyBackend, {"url": "http://localhost:8000"})

    class TestKernels(KernelLaws): ...

Each law runs in a home of its own, with real agents. What happens inside a job is seen only by code that
its kernel executes, so the manager may be anywhere; what the manager has, by a backend object that no
kernel uses.
"""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import AsyncIterator, Callable

import pytest
import pytest_asyncio

from elsewhere.backend import Logs, Phase
from elsewhere.errors import KernelGone, LaunchFailed
from elsewhere.standing import Standing
from elsewhere.testing.kernel_lab import POLL, KernelLab, open_kernel_lab
from elsewhere.testing.lab_kernel import Execution, LabKernel, within
from elsewhere.testing.subject import Subject
from elsewhere.testing.witness import LawBroken

AWKWARD = (
    "it's", 'say "two" words', "two\nlines", "$(touch x)", "`id`", "a; b && c | d > e", "100 %s %d", "%HOME%",
    "🐍 ü", "$HOME ${HOME}", "\\", "\\n", " leading and trailing ", "\ttab", "*", "~", "{} {nothing}",
    "#!", "-v", "--", "", "32 kB " + "x" * 32_768,
)  # fmt: skip
"""Words that something on the way might take for more than a word."""

KEEPS_ARGV = (
    "import sys; sys.kept, sys.argv[1:] = sys.argv[3:], sys.argv[1:3]; "
    "from ipykernel.kernelapp import launch_new_instance; launch_new_instance()"
)
"""Runs ipykernel with its first two arguments, and keeps the rest for who asks."""

LINES = 100
PACE = 0.01
AWAY = 2 * LINES * PACE
"""Seconds that home is away: all lines are printed meanwhile."""

PRINTS = f"""
import sys, time
for number in range({LINES}):
    sys.stdout.write(f"{{number}}\\n")
    sys.stdout.flush()
    time.sleep({PACE})
"""

PENDING: dict[str, Callable[[Standing], bool]] = {
    "asked": lambda standing: "asked" in dict(standing.steps),
    "being submitted": lambda standing: standing.status.startswith("submitting") or bool(standing.job_id),
    "submitted": lambda standing: standing.job_id is not None,
    "starting": lambda standing: standing.state == "starting",
}
"""Moments at which a kernel that never listens may be stopped."""


@pytest.mark.asyncio(loop_scope="function")
class KernelLaws:
    """One method is one law; its docstring is the promise, and where to look if it is not kept."""

    @pytest_asyncio.fixture(loop_scope="function")
    async def kernels(self, subject: Subject) -> AsyncIterator[KernelLab]:
        """The place where a law is tried; at the end the manager has no job of its home left."""
        async with open_kernel_lab(subject) as lab:
            yield lab

    # ---- a kernel's day

    async def test_a_kernel_starts_and_answers(self, kernels: KernelLab) -> None:
        """A launch becomes a kernel that computes; else see whether the job runs, and can dial home."""
        kernel = await kernels.start()
        value = (await kernel.run("6 * 7")).value
        assert value == "42", f"6 * 7 is {value!r}"

    async def test_a_kernel_says_on_which_host_and_as_which_job_it_runs(self, kernels: KernelLab) -> None:
        """Home, kernel and survey name the same host, job and launch; else see submit's id and survey."""
        kernel = await kernels.start()
        host, _ = kernel.kernel.where
        told = (await kernel.run("import socket; print(socket.gethostname())")).text.strip()
        assert host == told, f"the kernel says that it runs on {told!r}, and home says {host!r}"
        seen = await kernels.seen(kernel)
        assert len(seen) == 1, f"one job runs, and survey shows {seen}"
        sighting = seen[0]
        assert sighting.job_id == kernel.job_id, f"home knows job {kernel.job_id}, survey shows {sighting}"
        assert sighting.phase is Phase.RUNNING, f"the kernel runs, and survey shows {sighting}"
        assert sighting.launch == kernel.kernel.launch_number, f"survey shows another launch: {sighting}"
        assert sighting.host != "", "a host that is not known is None, not an empty text"

    async def test_output_comes_while_the_code_still_runs(self, kernels: KernelLab) -> None:
        """Output, input and value pass whole and in order, while the code runs; else see the agent's link."""
        kernel = await kernels.start()
        execution = kernel.begin(
            "import sys\nprint('one', flush=True)\nprint('two', file=sys.stderr, flush=True)\n"
            "print('three ' + input('? '))\n'four'"
        )
        await execution.until_printed("one\n")
        await execution.until_printed("two\n")
        await execution.until_asked()
        kernel.answer("🐍")
        reply = await execution.reply()
        assert reply["status"] == "ok", f"the code raised {reply}"
        stdout, stderr = execution.printed("stdout"), execution.printed("stderr")
        assert (stdout, stderr) == ("one\nthree 🐍\n", "two\n"), f"it printed {stdout!r} and {stderr!r}"
        assert execution.value == "'four'", f"its value is {execution.value!r}"

    async def test_an_interrupt_ends_the_code_and_not_the_kernel(self, kernels: KernelLab) -> None:
        """SIGINT raises KeyboardInterrupt, and variables stay; else see what else of the job it reaches."""
        kernel = await kernels.start()
        await kernel.run("x = 41")
        execution = kernel.begin("import time\nprint('waiting', flush=True)\nwhile True: time.sleep(0.05)")
        await execution.until_printed("waiting\n")
        await kernel.interrupt()
        reply = await execution.reply()
        assert reply.get("ename") == "KeyboardInterrupt", f"the code that was interrupted ended with {reply}"
        value = (await kernel.run("x + 1")).value
        assert value == "42", f"x was 41, and x + 1 is {value!r} after the interrupt"

    async def test_two_kernels_at_once_do_not_hear_each_other(self, kernels: KernelLab) -> None:
        """Kernels that start at once are jobs of their own; else see what submits share, and the ids."""
        one, other = await asyncio.gather(kernels.start(), kernels.start())
        assert one.job_id != other.job_id, f"two kernels, and both are job {one.job_id}"
        for kernel, name in (one, "one"), (other, "other"):
            await kernel.run(f"whose = {name!r}")
        for kernel, name in (one, "one"), (other, "other"):
            text = (await kernel.run("print(whose)")).text
            assert text == f"{name}\n", f"the kernel whose variable is {name!r} printed {text!r}"
        await one.stop()
        text = (await other.run("print(whose)")).text
        assert text == "other\n", f"the other kernel printed {text!r} once the first was stopped"

    async def test_what_a_kernel_writes_past_jupyter_is_in_the_jobs_log(self, kernels: KernelLab) -> None:
        """A backend with Logs has what a job prints while it runs; else see tail."""
        if not isinstance(kernels.backend, Logs):
            pytest.skip("this backend keeps no logs")
        kernel = await kernels.start()
        await kernel.run("import os; os.write(1, b'past jupyter\\n')")
        loop = asyncio.get_running_loop()
        deadline = loop.time() + kernels.patience
        while "past jupyter" not in (log := await kernel.kernel.log(50)):
            assert loop.time() < deadline, f"not in the log after {kernels.patience:g} s; it has {log}"
            await asyncio.sleep(POLL)

    # ---- restarts and ends

    async def test_a_restart_in_place_keeps_the_job_and_loses_the_variables(self, kernels: KernelLab) -> None:
        """A restart costs no place in the queue; else see what ends a job whose agent lives."""
        kernel = await kernels.start()
        await kernel.run("x = 41")
        before = kernel.job_id
        await kernel.restart()
        expect_same_job(kernel, before)
        text = (await kernel.run("print('x' in globals())")).text
        assert text == "False\n", "after the restart its variables are still there"

    async def test_a_killed_kernel_is_told_as_killed_while_its_job_remains(self, kernels: KernelLab) -> None:
        """kill -9 of the kernel is told as that, and it restarts in its job; else see what wraps the argv."""
        kernel = await kernels.start()
        before = kernel.job_id
        kernel.begin("import os; os.kill(os.getpid(), 9)")
        await expect_exit(kernel, -signal.SIGKILL, "SIGKILL")
        assert await kernels.seen(kernel), "only the kernel was killed, and survey shows its job no more"
        await kernel.restart()
        expect_same_job(kernel, before)

    async def test_a_kernel_that_exits_is_told_with_its_code(self, kernels: KernelLab) -> None:
        """The kernel's own exit code arrives, while the job remains; else see what wraps the argv."""
        kernel = await kernels.start()
        kernel.begin("import os; os._exit(7)")
        await expect_exit(kernel, 7, "code 7")
        assert await kernels.seen(kernel), "only the kernel exited, and survey shows its job no more"

    async def test_a_killed_agent_is_told_as_a_lost_job(self, kernels: KernelLab) -> None:
        """kill -9 of the agent ends the job, and is told as that; else see whether survey shows the end."""
        kernel = await kernels.start()
        await kernels.signal_agent(kernel, signal.SIGKILL)
        await kernel.exited()
        assert kernel.kernel.job_lost, f"a job without its agent is no lost job: {kernel.kernel.reason}"
        assert "agent died" in kernel.kernel.reason, f"nothing of the agent: {kernel.kernel.reason}"
        assert kernel.kernel.standing.state == "dead", f"it is {kernel.kernel.standing.state}"
        await kernels.nothing_left()

    async def test_a_kernel_whose_job_was_lost_starts_again_in_a_new_job(self, kernels: KernelLab) -> None:
        """The next launch of a kernel is a job of its own; else see whether the number is stamped on it."""
        kernel = await kernels.start()
        await kernels.signal_agent(kernel, signal.SIGKILL)
        await kernel.exited()
        await kernel.start()
        assert kernel.kernel.launch_number == 2, f"this is launch {kernel.kernel.launch_number}"
        value = (await kernel.run("6 * 7")).value
        assert value == "42", f"6 * 7 is {value!r}"
        seen = [(one.launch, one.job_id) for one in await kernels.seen(kernel)]
        assert seen == [(2, kernel.job_id)], f"survey shows {seen}"

    # ---- home goes

    async def test_a_home_that_dies_and_returns_finds_the_kernel(self, kernels: KernelLab) -> None:
        """Jobs outlive their home and are found by their marks; else see what ties them to our process."""
        kernel = await kernels.start()
        await kernel.run("x = 41")
        before = kernel.job_id
        await kernels.home_dies()
        await kernels.home_returns()
        value = (await kernel.run("x + 1")).value
        assert value == "42", f"x was 41, and x + 1 is {value!r} in home's second life"
        await kernel.until(lambda: kernel.kernel.where[1], "home knows the job again")
        expect_same_job(kernel, before, start=1)
        seen = [one.job_id for one in await kernels.seen(kernel)]
        assert seen == [before], f"one job runs, and survey shows {seen}"

    async def test_output_printed_while_home_is_away_is_there(self, kernels: KernelLab) -> None:
        """Each line comes once and in order; else see where the agent can write what it keeps."""
        kernel = await kernels.start()
        printing = kernel.begin(PRINTS)
        await printing.until_printed("3\n")
        await kernels.home_dies(printing)
        before = printing.text.splitlines()
        await asyncio.sleep(AWAY)
        await kernels.home_returns()
        printing.messages.clear()
        await printing.output()
        after = printing.text.splitlines()
        numbers = [str(number) for number in range(LINES)]
        assert before == numbers[: len(before)], f"home's first life heard {before}"
        assert after == numbers[LINES - len(after) :], f"home's second life heard {after}"
        assert len(before) + len(after) >= LINES, f"nobody heard {numbers[len(before) : -len(after)]}"

    async def test_an_exit_while_home_is_away_is_told_when_it_returns(self, kernels: KernelLab) -> None:
        """The agent waits for home with its report; else see what ends a job whose kernel is over."""
        kernel = await kernels.start()
        execution = kernel.begin("import os, time\nprint('soon', flush=True)\ntime.sleep(0.5)\nos._exit(7)")
        await execution.until_printed("soon\n")
        await kernels.home_dies()
        await asyncio.sleep(AWAY)
        await kernels.home_returns()
        await expect_exit(kernel, 7, "code 7")

    # ---- stop

    async def test_stop_leaves_nothing_on_the_manager(self, kernels: KernelLab) -> None:
        """A kernel that is stopped is no job any more; else see cancel, and what survey calls ended."""
        kernel = await kernels.start()
        await kernel.stop()
        await kernels.nothing_left()
        assert kernel.kernel.poll() is not None, "it is stopped, and nobody says so"

    async def test_stopping_twice_is_no_error(self, kernels: KernelLab) -> None:
        """Who is stopped may be stopped again, also on the manager; else see cancel of a job that is over."""
        kernel = await kernels.start()
        job_id = kernel.job_id
        await asyncio.gather(kernel.stop(), kernel.stop())
        await kernel.stop()
        try:
            await kernels.backend.cancel(job_id, grace=0.0)
        except Exception as error:
            raise LawBroken(f"cancel of a job that is over raised {error!r}") from error
        await kernels.nothing_left()

    async def test_a_job_whose_agent_is_stuck_is_stopped_by_force(self, kernels: KernelLab) -> None:
        """Who does not hear is ended by the manager, after the grace; else see cancel."""
        kernel = await kernels.start()
        await kernels.signal_agent(kernel, signal.SIGSTOP)
        await kernel.silent()
        await kernel.stop()
        await kernels.nothing_left()

    @pytest.mark.parametrize("moment", PENDING)
    async def test_a_kernel_that_is_stopped_while_pending_leaves_nothing(
        self, kernels: KernelLab, moment: str
    ) -> None:
        """A launch can be taken back at any time; else see submit when it is cancelled, and cancel."""
        kernel = kernels.kernel(argv=[kernels.subject.python, "-c", "import time; time.sleep(600)"])
        starting = asyncio.create_task(kernel.kernel.start(kernel.wish))
        try:
            await kernel.until(lambda: PENDING[moment](kernel.kernel.standing), f"the kernel is {moment}")
            await kernel.stop()
            with pytest.raises((LaunchFailed, KernelGone)):
                await within(kernels.patience, starting, "the start that was taken back ends")
        finally:
            starting.cancel()
            await asyncio.wait({starting})
        await kernels.nothing_left()

    # ---- what passes, and what is told

    async def test_awkward_words_arrive_whole_in_argv(self, kernels: KernelLab) -> None:
        """Whatever a word holds is one word, and the same; else see what passes the parcel on."""
        argv = kernels.subject.argv
        python = argv[: argv.index("-m")] if "-m" in argv else (kernels.subject.python,)
        kernel = await kernels.start(argv=[*python, "-c", KEEPS_ARGV, "-f", "{connection_file}", *AWKWARD])
        expect_words(await kernel.run("import json, sys; print(json.dumps(sys.kept))"))

    async def test_awkward_words_arrive_whole_in_the_environment(self, kernels: KernelLab) -> None:
        """Whatever a value holds, the kernel has it; else see what passes the parcel on."""
        names = [f"AWKWARD_{number}" for number in range(len(AWKWARD))]
        kernel = await kernels.start(env=dict(zip(names, AWKWARD, strict=True)))
        expect_words(
            await kernel.run(f"import json, os; print(json.dumps([os.environ[n] for n in {names}]))")
        )

    async def test_a_program_that_is_not_there_is_told(self, kernels: KernelLab) -> None:
        """The kernelspec's fault is told with the program's name; else see what wraps the argv."""
        failure = await fails_to_start(kernels.kernel(argv=["/no/such/program"]))
        assert failure.step == "exec", f"the step is {failure.step!r}: {failure}"
        assert "/no/such/program" in failure.reason, f"the program is not named: {failure}"
        await kernels.nothing_left()

    async def test_a_program_that_ends_at_once_is_told_with_its_last_lines(self, kernels: KernelLab) -> None:
        """Who reads the error sees what the program said; else see what wraps the argv."""
        code = "import sys; print('first', flush=True); print('last', file=sys.stderr); sys.exit(3)"
        failure = await fails_to_start(kernels.kernel(argv=[kernels.subject.python, "-c", code]))
        assert failure.step == "kernel", f"the step is {failure.step!r}: {failure}"
        assert "code 3" in failure.reason, f"it exited with 3: {failure}"
        assert failure.log[-2:] == ("first", "last"), f"the last lines are {failure.log}"
        await kernels.nothing_left()

    async def test_an_interpreter_that_is_not_there_is_told(self, kernels: KernelLab) -> None:
        """The person who named it is told so; else see sightings' reasons, and tail if there are Logs."""
        failure = await fails_to_start(kernels.kernel(python="/no/such/python"))
        assert failure.step in ("submit", "queue", "agent"), f"the step is {failure.step!r}: {failure}"
        assert "/no/such/python" in str(failure), f"neither reason nor log name it: {failure}"
        await kernels.nothing_left()


def expect_same_job(kernel: LabKernel, job_id: str, *, start: int = 2) -> None:
    """Raise AssertionError unless this is that start of the kernel, in the first launch's job."""
    launch, started = kernel.kernel.launch_number, kernel.kernel.start_number
    assert launch == 1, f"it was launched anew (launch {launch})"
    assert kernel.job_id == job_id, f"it was job {job_id}, and is {kernel.job_id}"
    assert started == start, f"this is its start {started}"


async def expect_exit(kernel: LabKernel, exit_code: int, word: str) -> None:
    """Wait for the kernel's own end; raise AssertionError unless it is told as that, and so."""
    told = await kernel.exited()
    reason = kernel.kernel.reason
    assert not kernel.kernel.job_lost, f"only the kernel is over, and its job is lost: {reason}"
    assert told == exit_code, f"it exited with {exit_code}, and {told} is told: {reason}"
    assert word in reason, f"the reason does not say {word!r}: {reason}"
    assert kernel.kernel.standing.state == "exited", f"it is {kernel.kernel.standing.state}"


async def fails_to_start(kernel: LabKernel) -> LaunchFailed:
    """Return how a start failed. Raises LawBroken if it did not."""
    try:
        await kernel.kernel.start(kernel.wish)
    except LaunchFailed as failure:
        return failure
    raise LawBroken(f"{kernel.wish.spec.argv[0]} cannot be a kernel, and has started")


def expect_words(execution: Execution) -> None:
    """Raise AssertionError unless just the awkward words were printed."""
    arrived = json.loads(execution.text)
    assert len(arrived) == len(AWKWARD), f"{len(AWKWARD)} words left, and {len(arrived)} arrived"
    for sent, word in zip(AWKWARD, arrived, strict=True):
        assert word == sent, (
            f"{sent[:80]!r} arrived as {word[:80]!r} ({len(sent)} and {len(word)} characters)"
        )
