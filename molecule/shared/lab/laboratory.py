"""Making a lab and taking it away, step by step."""

from __future__ import annotations

import shutil

from lab import access, cgroups, hosts, image, kernel, locations, network, requirements
from lab.commands import LabError
from lab.state import Host, Lab, checked_host_names, load, load_all

# Hosts' addresses start here; .1 is this machine.
_FIRST = 10


def up(name: str, host_names: list[str]) -> Lab:
    """Make the lab and boot its hosts; returns when all of them are up.

    What is left of an interrupted run under the same name is taken away first.
    """
    problem = requirements.problem()
    if problem:
        raise LabError(problem)
    planned = tuple(Host(host, _FIRST + index) for index, host in enumerate(checked_host_names(host_names)))
    with locations.lock(f"lab-{name}"):
        _destroy(Lab(name=name))
        root = image.ensure(in_use=[other.image for other in load_all()])
        with locations.lock("network"):
            lab = Lab(name=name, network=network.reserve(name), image=str(root), hosts=planned)
            # From here on, whatever happens, `down` finds all there is to undo.
            lab.save()
            kernel.raise_limits()
            network.make(lab)
        access.make_key(lab)
        for host in lab.hosts:
            network.connect(lab, host)
            hosts.prepare(lab, host)
        access.write(lab)
        for host in lab.hosts:
            hosts.start(lab, host)
        for host in lab.hosts:
            hosts.wait(lab, host)
    return lab


def down(name: str) -> None:
    """Take the lab away, however much of it there is."""
    with locations.lock(f"lab-{name}"):
        _destroy(Lab(name=name))


def _destroy(nominal: Lab) -> None:
    lab = load(nominal.name) or nominal
    if lab.directory.exists():
        access.close(lab)
        # A keeper looks for it before it starts anything: nothing is born behind our back from now on.
        lab.ending.touch()
    cgroups.kill(lab.table)
    cgroups.remove(lab.table)
    hosts.remove_traces(lab)
    with locations.lock("network"):
        network.remove(lab)
        shutil.rmtree(lab.directory, ignore_errors=True)
        network.release(lab)
        if not load_all():
            kernel.restore_limits()
            cgroups.unmount()
            if locations.labs().is_dir() and not any(locations.labs().iterdir()):
                locations.labs().rmdir()
