"""Command line: `python -m lab`."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from lab import access, hosts, laboratory, network, requirements, state
from lab.commands import LabError


def _check(_arguments: argparse.Namespace) -> int:
    problem = requirements.problem()
    print(problem or "This machine can run a lab.")
    return 1 if problem else 0


def _up(arguments: argparse.Namespace) -> int:
    lab = laboratory.up(state.current_name(), arguments.host)
    if arguments.inventory:
        arguments.inventory.parent.mkdir(parents=True, exist_ok=True)
        arguments.inventory.write_text(access.inventory(lab), encoding="utf-8")
    return _status(arguments)


def _down(_arguments: argparse.Namespace) -> int:
    laboratory.down(state.current_name())
    return 0


def _status(_arguments: argparse.Namespace) -> int:
    lab = state.require(state.current_name())
    print(f"lab {lab.name} on {lab.network}, bridge {lab.bridge}")
    for host in lab.hosts:
        running = "on" if hosts.is_running(lab, host) else "off"
        print(f"  {host.name:<30} {running:<4} {' '.join(access.addresses(lab, host))}")
        print(f"    {' '.join(access.ssh_command(lab, host))}")
    return 0


def _ssh(arguments: argparse.Namespace) -> int:
    lab = state.require(state.current_name())
    command = access.ssh_command(lab, lab.host(arguments.host))
    os.execvp(command[0], [*command, *arguments.command])  # noqa: S606 - ssh gets the terminal


def _inventory(_arguments: argparse.Namespace) -> int:
    print(access.inventory(state.require(state.current_name())), end="")
    return 0


def _console(arguments: argparse.Namespace) -> int:
    lab = state.require(state.current_name())
    print(hosts.console_tail(lab, lab.host(arguments.host), lines=1000))
    return 0


def _link(arguments: argparse.Namespace) -> int:
    lab = state.require(state.current_name())
    network.set_link(lab, lab.host(arguments.host), up=arguments.state == "up")
    return 0


def _split(arguments: argparse.Namespace) -> int:
    lab = state.require(state.current_name())
    network.split(lab, [[lab.host(name) for name in side.split(",")] for side in arguments.side])
    return 0


def _heal(_arguments: argparse.Namespace) -> int:
    network.heal(state.require(state.current_name()))
    return 0


def _power(arguments: argparse.Namespace) -> int:
    lab = state.require(state.current_name())
    host = lab.host(arguments.host)
    if arguments.state == "off":
        hosts.power_off(lab, host)
    else:
        hosts.power_on(lab, host)
    return 0


def parser() -> argparse.ArgumentParser:
    """Everything that the command line takes."""
    top = argparse.ArgumentParser(
        prog="python -m lab",
        description="Real systemd hosts on one machine. LAB_NAME chooses the lab (single), so several may run at once.",
    )
    commands = top.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, function: object, text: str) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=text, description=text)
        command.set_defaults(function=function)
        return command

    add("check", _check, "Say whether this machine can run a lab, and if not, why.")
    command = add("up", _up, "Make the lab and boot its hosts; one of the same name is taken away first.")
    command.add_argument("host", nargs="+", metavar="HOST", help="names of the hosts")
    command.add_argument("--inventory", type=Path, help="write an Ansible inventory to this file")
    add("down", _down, "Take the lab away, also when it is only half there.")
    add("status", _status, "Tell the hosts, their addresses, and how to log in.")
    command = add("ssh", _ssh, "Log in to a host, or run a command there.")
    command.add_argument("host", metavar="HOST")
    command.add_argument("command", nargs=argparse.REMAINDER, metavar="COMMAND")
    add("inventory", _inventory, "Print the Ansible inventory of the lab.")
    command = add("console", _console, "Print what a host's console has shown.")
    command.add_argument("host", metavar="HOST")
    command = add("link", _link, "Pull a host's network cable, or plug it in again.")
    command.add_argument("host", metavar="HOST")
    command.add_argument("state", choices=["up", "down"])
    command = add("split", _split, "Let hosts of one side reach none of another; hosts of no side reach everybody.")
    command.add_argument("side", nargs="+", metavar="HOST,HOST", help="hosts that still reach each other")
    add("heal", _heal, "End the split.")
    command = add("power", _power, "Take a host's power away, or give it back and wait until it is up.")
    command.add_argument("host", metavar="HOST")
    command.add_argument("state", choices=["on", "off"])
    return top


def main() -> int:
    """Run a command; what goes wrong is one sentence on the standard error."""
    arguments = parser().parse_args()
    try:
        return int(arguments.function(arguments))
    except LabError as error:
        print(f"lab: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
