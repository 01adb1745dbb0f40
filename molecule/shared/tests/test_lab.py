"""The lab's decisions that need no root: names, addresses, ages, what the tools' output means."""

from __future__ import annotations

import ipaddress
import json
from datetime import date
from pathlib import Path

import pytest

from lab import access, cgroups, image, keeper, kernel, mirror, network, requirements, state
from lab.commands import LabError
from lab.state import Host, Lab

LAB = Lab(name="single", network="172.24.117.0/24", image="/cache/image", hosts=(Host("a", 10), Host("b", 11)))


def networks(*names: str) -> list[ipaddress.IPv4Network]:
    return [ipaddress.IPv4Network(name) for name in names]


def test_a_lab_gets_the_same_network_as_long_as_it_is_free():
    first = network.choose("single", [])
    assert first == network.choose("single", networks("172.16.0.0/24", "10.0.0.0/8"))
    assert first.prefixlen == 24
    assert first.subnet_of(ipaddress.IPv4Network("172.16.0.0/12"))


def test_a_network_that_overlaps_is_not_taken():
    first = network.choose("single", [])
    second = network.choose("single", [first.supernet(new_prefix=20)])
    assert not second.overlaps(first.supernet(new_prefix=20))


def test_no_free_network_is_a_sentence():
    with pytest.raises(LabError, match="LAB_NETWORK"):
        network.choose("single", networks("172.16.0.0/12"))


def test_used_networks_are_all_routes_but_the_default_one():
    routes = [{"dst": "default"}, {"dst": "172.17.0.0/16"}, {"type": "local", "dst": "192.0.2.7"}]
    assert network.used_networks(json.dumps(routes)) == networks("172.17.0.0/16", "192.0.2.7/32")


@pytest.mark.parametrize(
    ("etc", "uplink", "expected"),
    [
        ("nameserver 192.0.2.1\n", None, "nameserver 192.0.2.1\n"),
        ("nameserver 192.0.2.1\n", "nameserver 192.0.2.9\n", "nameserver 192.0.2.1\n"),
        ("nameserver 127.0.0.53\n", "nameserver 192.0.2.9\n", "nameserver 192.0.2.9\n"),
        ("nameserver 127.0.0.1\n", None, "nameserver 127.0.0.1\n"),
    ],
)
def test_hosts_get_a_resolver_that_they_can_reach(etc, uplink, expected):
    assert network.resolver(etc, uplink) == expected


def test_interface_names_fit_into_15_characters():
    lab = Lab(name="x" * 31)
    assert len(lab.interface(Host("h", 200))) <= 15


def test_labs_of_different_names_share_nothing():
    other = Lab(name="other", network="172.24.118.0/24", hosts=LAB.hosts)
    for of in (
        lambda lab: lab.bridge,
        lambda lab: lab.table,
        lambda lab: lab.subnet6,
        lambda lab: lab.machine(lab.hosts[0]),
        lambda lab: lab.namespace(lab.hosts[0]),
        lambda lab: lab.directory,
    ):
        assert of(LAB) != of(other)
    # "a" and "a-b": what belongs to the one is found by its beginning.
    assert not Lab(name="a-b").namespace(Host("h", 10)).startswith(Lab(name="a").table + ".")


@pytest.mark.parametrize("name", ["", "A", "a_b", "a/b", "-a", "x" * 32])
def test_what_is_no_name_is_refused(name):
    with pytest.raises(LabError, match="no name"):
        state.checked_name(name)


@pytest.mark.parametrize("names", [["a", "a"], ["UPPER"], ["a."], []])
def test_wrong_host_names_are_refused(names):
    with pytest.raises(LabError):
        state.checked_host_names(names)


def test_state_is_read_as_it_was_written(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert state.load("single") is None
    LAB.save()
    assert state.load("single") == LAB
    assert state.load_all() == [LAB]


def test_an_image_is_used_for_14_days():
    key = "trixie-0123456789ab"
    names = [f"{key}-20260101", f"{key}-20260110", f"building-{key}-20260111", "trixie-ffffffffffff-20260111"]
    assert image.newest(names, key, date(2026, 1, 24)) == f"{key}-20260110"
    assert image.newest(names, key, date(2026, 1, 25)) is None
    assert image.newest([f"{key}-20269999"], key, date(2026, 1, 25)) is None


def test_another_list_of_packages_is_another_image():
    contents = image.Contents("trixie", ("a", "b"), ("c",))
    assert contents.key() != image.Contents("trixie", ("a",), ("b", "c")).key()
    assert image.Contents.read().key() == image.Contents.read().key()


def test_the_mirror_is_the_one_that_apt_uses():
    listing = (
        "https://packages.example/tool/|stable|stable|Tool\n"
        "http://mirror.example/debian/|bookworm|bookworm|Debian\n"
        "http://mirror.example/debian-security/|oldstable-security|bookworm-security|Debian\n"
    )
    assert mirror.parse(listing) == mirror.Mirror(
        "http://mirror.example/debian/", "http://mirror.example/debian-security/"
    )


def test_the_mirror_is_known_before_the_first_update():
    listing = (
        "http://mirror.example/debian/|bookworm|$(CODENAME)|$(ORIGIN)\nhttp://tool.example/x/|x|$(CODENAME)|$(ORIGIN)\n"
    )
    assert mirror.parse(listing) == mirror.Mirror("http://mirror.example/debian/", None)


def test_a_machine_without_debian_has_no_mirror():
    assert mirror.parse("http://mirror.example/ubuntu/|noble|noble|Ubuntu\n") is None


@pytest.mark.parametrize(
    ("release", "expected"), [("6.1.0-18-amd64", (6, 1)), ("5.14.0", (5, 14)), ("unknown", (0, 0))]
)
def test_kernel_version(release, expected):
    assert requirements.kernel_version(release) == expected


def test_cgroup2_is_found_where_it_is_mounted():
    table = "tmpfs /sys/fs/cgroup tmpfs rw 0 0\ncgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n"
    assert cgroups.mounts(table) == [Path("/sys/fs/cgroup/unified")]


def test_the_inventory_says_nothing_but_the_way_in():
    hosts = json.loads(access.inventory(LAB))["all"]["hosts"]
    assert set(hosts) == {"a", "b"}
    assert hosts["b"]["ansible_host"] == "172.24.117.11"
    assert all(name.startswith(("ansible_", "lab_")) for name in hosts["a"])


def test_the_host_is_booted_in_its_own_network():
    words = keeper.command(LAB, LAB.hosts[0])
    assert f"--network-namespace-path=/run/netns/{LAB.namespace(LAB.hosts[0])}" in words


def test_a_split_is_between_sides_and_in_both_directions(monkeypatch):
    rules: list[str] = []
    monkeypatch.setattr(network, "run", lambda *_, text: rules.append(text))
    network.split(LAB, [[LAB.hosts[0]], [LAB.hosts[1]]])
    drops = [line.strip() for line in rules[0].splitlines() if "drop" in line]
    one, other = (f'"{LAB.interface(host)}"' for host in LAB.hosts)
    assert drops == [
        f"iifname {{ {one} }} oifname {{ {other} }} drop",
        f"iifname {{ {other} }} oifname {{ {one} }} drop",
    ]


def test_limits_are_raised_once_and_put_back(monkeypatch, tmp_path):
    limit = tmp_path / "max_user_instances"
    limit.write_text("128\n")
    monkeypatch.setattr(kernel, "_INOTIFY_INSTANCES", limit)
    monkeypatch.setattr(kernel, "_remembered", lambda: tmp_path / ".remembered")
    kernel.raise_limits()
    raised = int(limit.read_text())
    kernel.raise_limits()
    assert raised > 128
    assert int(limit.read_text()) == raised
    kernel.restore_limits()
    assert limit.read_text() == "128\n"
    kernel.restore_limits()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["max_user_instances"]
