"""The embedded manager as a configured cluster: launch, execute, restart, stop."""

from __future__ import annotations

import os

from client_kit import facts, kernel_of, run, started
from site_kit import PATIENCE, Site


def test_a_kernels_life_on_a_configured_cluster(site: Site) -> None:
    site.toml(
        f"""
        [clusters.here]
        type = "local"
        directory = "{site.jobs}"
        survey_interval = 0.5
        log_limit = 100000

        [clusters.here.defaults]
        nice = 3
        stop_grace = 2

        [clusters.here.limits]
        submits_at_once = 2
        """
    )
    name = site.spec(config={"cluster": "here", "options": {"start_timeout": PATIENCE}})
    with started(name) as (manager, client):
        (agent,) = site.agents()
        assert os.getpriority(os.PRIO_PROCESS, agent) == 3
        assert run(client, "1 + 1").value == "2"
        assert kernel_of(manager).where[1].endswith(manager.kernel_id)
        before = facts(manager)
        manager.restart_kernel()
        client.wait_for_ready(timeout=PATIENCE)
        assert (facts(manager), site.agents()) == (before, [agent])
        assert run(client, "import os; os.nice(0)").value == "3"
        manager.shutdown_kernel()
        assert not manager.is_alive()
        site.expect_nothing_left(home_lives=True)
