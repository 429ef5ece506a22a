"""What to look at when a step of a launch hangs or fails. Pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Facts:
    """What is known so far of a canary; empty where it is not known yet."""

    where: str
    backend: str = ""
    home_id: str = ""
    mark: str = ""
    job_id: str = ""
    host: str = ""
    addresses: Sequence[str] = ()
    argv: Sequence[str] = ()
    connected: bool = False
    over: bool = False
    orphan_grace: float = 0.0


def look_at(step: str, facts: Facts) -> str:
    """Return what a person can look at next, when this step does not come to its end."""
    host, job = facts.host or "its host", facts.job_id or facts.mark or "the job"
    program = " ".join(facts.argv[: 3 if "-m" in facts.argv[1:2] else 1])
    grace = f"{facts.orphan_grace:g} s after it has lost this process"
    return {
        "settings": "elsewhere.toml (`jupyter --paths` lists its directories, under config), -o and --spec",
        "capacity": "`ulimit -Hn`, and LimitNOFILE= of the unit that runs the gateway",
        "reach the manager": "is the manager up, and does it answer this account on this machine? How it is "
        f"reached is set in elsewhere.toml, [clusters.{facts.where}]",
        "render": "the options of the launch: -o, and the cluster's `defaults` in elsewhere.toml",
        "submit": "the manager's own words: may this account have what the options ask for (queue, image, "
        "quota), and does the manager take jobs now?",
        "queued": f"the manager's own view of {job} and of its queue; ask for less with -o, or wait longer "
        "with --timeout",
        "running": f"does the manager list a running job with the mark {facts.mark}? Jobs are found by it",
        "agent home": _agent(facts, host),
        "kernel ready": f"does `{program} …` start on {host}? Is the kernel installed there for it?",
        "first reply": _line(facts, f"the kernel listens but does not answer: is {host} overloaded?"),
        "interrupt": _line(facts, "the kernel did not heed the interrupt; --spec tries another kernel"),
        "restart": _line(facts, f"does the agent on {host} still run? The job's log says what it did"),
        "stop": f"cancel {job} by the manager's own command; its agent ends it {grace}",
        "nothing left": f"`elsewhere survey {facts.where} --home {facts.home_id}` shows what is left; cancel "
        f"it by the manager's own command, or let it be: an agent ends its job {grace}",
    }[step]


def _agent(facts: Facts, host: str) -> str:
    if facts.over:
        return (
            f"the job is over before its agent called: does {host} have the interpreter that was to run the "
            "agent (-o python=…), Python 3.8 or newer?"
        )
    hint = ""
    if facts.addresses and all(map(_is_loopback, facts.addresses)):
        hint = " Only jobs of this machine reach a loopback address."
    return (
        f"can {host} reach {' or '.join(facts.addresses)}? Set [switchboard] `bind` and `advertise` in "
        f"elsewhere.toml to an address of this machine that it can.{hint}"
    )


def _is_loopback(address: str) -> bool:
    host = address.rpartition(":")[0].strip("[]")
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _line(facts: Facts, otherwise: str) -> str:
    return otherwise if facts.connected else "the agent's connection was lost: does the job still run?"
