"""All laws, on what ``run`` is given: for a cluster that is configured and has no test file."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from elsewhere.testing import plugin
from elsewhere.testing.kernel_laws import KernelLaws
from elsewhere.testing.laws import BackendLaws
from elsewhere.testing.subject import Subject

NO_LAW_CHOSEN = int(pytest.ExitCode.NO_TESTS_COLLECTED)

_SUBJECT = pytest.StashKey[Subject]()


class TestBackend(BackendLaws):
    """The laws of the bare backend."""

    @pytest.fixture
    def subject(self, pytestconfig: pytest.Config) -> Subject:
        return pytestconfig.stash[_SUBJECT]


class TestKernels(KernelLaws):
    """The laws with real kernels."""

    @pytest.fixture
    def subject(self, pytestconfig: pytest.Config) -> Subject:
        return pytestconfig.stash[_SUBJECT]


class _Court:
    """Hands the subject to the fixtures of one run of pytest, and tells each verdict as a line."""

    def __init__(self, subject: Subject, tell: Callable[[str], object]) -> None:
        self._subject = subject
        self._tell = tell
        self._counts = {"kept": 0, "broken": 0, "not tried": 0}

    def pytest_configure(self, config: pytest.Config) -> None:
        config.stash[_SUBJECT] = self._subject
        if not config.pluginmanager.is_registered(plugin):
            config.pluginmanager.register(plugin)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self._tell(report.longreprtext)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        law = report.nodeid.rpartition("::test_")[2].replace("_", " ")
        if report.failed:
            while_tidying = "" if report.when == "call" else f" ({report.when})"
            self._verdict("broken", f"{law}{while_tidying}", report.duration)
            for _, promise in [one for one in report.sections if one[0] == plugin.PROMISE]:
                self._tell(f"  {promise}")
            self._tell(report.longreprtext)
        elif report.skipped:
            reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else ""
            self._verdict("not tried", f"{law}: {reason.removeprefix('Skipped: ')}")
        elif report.when == "call":
            self._verdict("kept", law, report.duration)

    def _verdict(self, verdict: str, law: str, seconds: float | None = None) -> None:
        self._counts[verdict] += 1
        self._tell(f"{verdict:<10}{law}" + (f"  ({seconds:.1f} s)" if seconds is not None else ""))

    def pytest_sessionfinish(self) -> None:
        self._tell(", ".join(f"{count} {verdict}" for verdict, count in self._counts.items()))


def run(subject: Subject, tell: Callable[[str], object], choice: str | None = None) -> int:
    """Try all laws, or those whose names match ``choice`` (as pytest's -k); return pytest's exit code."""
    here = Path(__file__)
    arguments = [f"--rootdir={here.parent}", "-c", os.devnull, "-p", "no:cacheprovider", "-p", "no:terminal"]
    arguments += ["-o", "asyncio_mode=auto", "-o", "asyncio_default_fixture_loop_scope=function"]
    arguments += [*(["-k", choice] if choice else []), str(here)]
    return int(pytest.main(arguments, plugins=[_Court(subject, tell)]))
