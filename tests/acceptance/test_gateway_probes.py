"""What probes see of a gateway: no token, and no secret."""

from __future__ import annotations

from gateway_kit import gateway_of, ledger_of
from site_kit import Site, until


def test_probes_need_no_token_and_tell_which_part_is_not_ready(site: Site) -> None:
    with gateway_of(site) as gateway:
        ready = {"status": "ok", "core": "ok", "ledger": "ok"}
        assert gateway.ask("GET", "/healthz", token="") == (200, {"status": "ok"})
        assert gateway.ask("GET", "/readyz", token="") == (200, ready)
        kept = ledger_of(gateway).read_bytes()
        ledger_of(gateway).write_bytes(b"this is no ledger" * 1000)
        broken = {"status": "not ready", "core": "ok", "ledger": "cannot be read"}
        until(lambda: gateway.ask("GET", "/readyz", token="") == (503, broken), "it is not ready")
        assert gateway.ask("GET", "/healthz", token="") == (200, {"status": "ok"})
        ledger_of(gateway).write_bytes(kept)
        until(lambda: gateway.ask("GET", "/readyz", token="") == (200, ready), "it is ready again")
