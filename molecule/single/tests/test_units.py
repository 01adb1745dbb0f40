"""The units: enabled, running, confined, watched."""

from __future__ import annotations

import re

import pytest

SERVICES = ["mongooseim.service", "mongooseim-auth.service"]
SOCKETS = ["mongooseim.socket", "mongooseim-auth.socket"]


@pytest.mark.parametrize("unit", [*SERVICES, *SOCKETS, "postgresql.service", "nftables.service", "ssh.service"])
def test_enabled_and_running(host, unit):
    service = host.service(unit)
    assert service.is_enabled
    assert service.is_running


def test_nothing_has_failed(node):
    assert node.ok("systemctl --failed --plain --no-legend") == ""
    assert node.ok("systemctl is-system-running") == "running"


@pytest.mark.parametrize("unit", SERVICES)
def test_runs_as_the_service_user(node, unit):
    for pid in node.processes(unit):
        assert node.ok(f"stat -c %U /proc/{pid}") == "mongooseim"


@pytest.mark.parametrize("unit", SERVICES)
def test_exposure(node, unit):
    last = node.ok(f"systemd-analyze security --no-pager {unit}").splitlines()[-1]
    found = re.search(r"exposure level for \S+: ([\d.]+)", last)
    assert found, last
    assert float(found[1]) <= 2.0


@pytest.mark.parametrize("unit", SERVICES)
def test_is_watched_and_restarted_for_ever(node, unit):
    assert node.property(unit, "WatchdogUSec") not in {"", "0", "infinity"}
    assert node.property(unit, "Restart") == "always"
    assert node.property(unit, "StartLimitIntervalUSec") == "0"


@pytest.mark.parametrize("unit", SERVICES)
def test_has_limits(node, unit):
    assert node.property(unit, "MemoryMax") != "infinity"
    assert node.property(unit, "TasksMax") != "infinity"
    assert int(node.property(unit, "LimitNOFILE")) >= 16384


@pytest.mark.parametrize("unit", SERVICES)
def test_may_do_nothing_special(node, unit):
    assert node.property(unit, "NoNewPrivileges") == "yes"
    assert node.property(unit, "CapabilityBoundingSet") == ""
    status = node.read(f"/proc/{node.main_pid(unit)}/status")
    assert "CapEff:\t0000000000000000" in status
    assert "Seccomp:\t2" in status


@pytest.mark.parametrize("unit", SERVICES)
def test_secrets_come_as_credentials_and_not_by_the_environment(node, unit):
    assert node.property(unit, "LoadCredential")
    assert "secret" not in node.property(unit, "Environment").lower()
    assert "password" not in node.property(unit, "Environment").lower()


@pytest.mark.parametrize("unit", [*SERVICES, *SOCKETS])
def test_unit_files_are_in_order(node, unit):
    result = node.run(f"systemd-analyze verify --man=no {unit}")
    assert (result.status, result.output.strip()) == (0, "")


def test_status_tells_an_operator_what_he_wants_to_know(node):
    status = node.ok("systemctl status --no-pager mongooseim")
    assert "active (running)" in status
    assert "Status:" in status
