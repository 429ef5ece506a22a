"""The pytest plugin: says what a broken law promises, and takes a method that is not written yet for that.

It is loaded in every run of pytest beside which this package is installed, so it imports nothing of it.
"""

from __future__ import annotations

import inspect
import traceback
from collections.abc import Generator, Iterator
from contextlib import contextmanager

import pytest

LAWS = "elsewhere.testing."
PROMISE = "the law"

pytest.register_assert_rewrite(
    *(LAWS + name for name in ("laws", "kernel_laws", "lab", "kernel_lab", "lab_kernel", "witness"))
)


@pytest.fixture
def subject() -> object:
    """The author says what is to be tried."""
    return pytest.fail("the laws want a fixture `subject` that returns a Subject with your backend")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item: pytest.Item) -> Generator[None, object, object]:
    """Skip a law that needs what the author has not come to."""
    with _skips_what_is_not_written(item):
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    """Skip a law that needs what the author has not come to."""
    with _skips_what_is_not_written(item):
        return (yield)


@contextmanager
def _skips_what_is_not_written(item: pytest.Item) -> Iterator[None]:
    try:
        yield
    except NotImplementedError as error:
        if not _promise(item):
            raise
        *_, last = traceback.walk_tb(error.__traceback__)
        pytest.skip(f"`{last[0].f_code.co_name}` is not written yet")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Add the law's promise to the report of its failure."""
    report = yield
    promise = _promise(item)
    if report.failed and promise:
        report.sections.append((PROMISE, promise))
    return report


def _promise(item: pytest.Item) -> str:
    kind = getattr(item, "cls", None)
    if not isinstance(item, pytest.Function) or kind is None:
        return ""
    if not any(base.__module__.startswith(LAWS) for base in kind.__mro__):
        return ""
    return inspect.getdoc(item.function) or ""
