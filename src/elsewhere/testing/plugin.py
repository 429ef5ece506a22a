"""The pytest plugin: where a law is broken, the report says what the law is.

It is loaded in every run of pytest beside which this package is installed, so it imports nothing of it.
"""

from __future__ import annotations

import inspect
from collections.abc import Generator

import pytest

LAWS = "elsewhere.testing."
PROMISE = "the law"

pytest.register_assert_rewrite(
    *(LAWS + name for name in ("laws", "kernel_laws", "lab", "kernel_lab", "witness"))
)


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
