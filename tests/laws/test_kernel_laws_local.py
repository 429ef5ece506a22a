"""The laws of kernels on the local backend, on real processes of this machine."""

from __future__ import annotations

import pytest

from elsewhere.backends.local import LocalBackend
from elsewhere.testing.kernel_laws import KernelLaws
from elsewhere.testing.subject import Subject
from site_kit import Site


class TestKernelsOnThisMachine(KernelLaws):
    """What each law leaves is looked for by the site too, in /proc and on the disk."""

    @pytest.fixture
    def subject(self, site: Site) -> Subject:
        return Subject(LocalBackend, {"directory": site.jobs, "survey_interval": 0.5})
