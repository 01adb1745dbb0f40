"""The configuration file of the server: its schema, and the checks that need more than one option."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from monktalk.common.config import Config, ConfigError, Problem, Schema, load
from monktalk.common.config import parse as parse_text
from monktalk.common.jid import JID, InvalidJID
from monktalk.xmpp.core.loader import DependencyError, order
from monktalk.xmpp.core.settings import CORE_SECTIONS
from monktalk.xmpp.modules import ALL
from monktalk.xmpp.net.tls import TlsContexts, TlsError

if TYPE_CHECKING:
    from monktalk.common.config import Change

DEFAULT_PATH = Path("/etc/mongooseim/mongooseim.toml")


def schema() -> Schema:
    """Every section and option that the file may have, those of the modules included."""
    return Schema([*CORE_SECTIONS, *(module.section() for module in ALL.values())])


def read(path: Path) -> Config:
    """Read and check a configuration file, with everything that it refers to.

    Raises :class:`ConfigError` with all problems, each naming the file, the line and the key.
    """
    return _checked(load(path, schema()))


def parse(text: str, path: Path) -> Config:
    """As :func:`read`, of a text that the file ``path`` had when it was read."""
    return _checked(parse_text(text, str(path), schema(), base=path.parent))


def _checked(config: Config) -> Config:
    problems = [
        *_check_administrators(config),
        *_check_modules(config),
        *_check_listeners(config),
        *_check_tls(config),
    ]
    if problems:
        raise ConfigError(problems)
    return config


def _check_administrators(config: Config) -> list[Problem]:
    problems = []
    for text in config.section("general").administrators:
        try:
            jid = JID.parse(text)
        except InvalidJID as error:
            problems.append(config.problem(("general",), "administrators", f"{text}: {error}"))
            continue
        if not jid.local or jid.resource:
            problems.append(config.problem(("general",), "administrators", f"{text}: write user@host"))
        elif jid.domain not in config.section("general").hosts:
            problems.append(config.problem(("general",), "administrators", f"{text}: {jid.domain} is not in hosts"))
    return problems


def _check_modules(config: Config) -> list[Problem]:
    problems = []
    for domain in config.section("general").hosts:
        wanted = {name for name in ALL if config.section("modules", name, host=domain).enabled}
        try:
            order(ALL, wanted)
        except DependencyError as error:
            problems.append(config.problem(("general",), "hosts", f"{domain}: {error}"))
    return problems


def _check_listeners(config: Config) -> list[Problem]:
    return [
        config.problem(
            ("listen", "c2s"), "proxies_only", "proxy_protocol names no proxy: nobody could connect", index=index
        )
        for index, settings in enumerate(config.sections("listen", "c2s"))
        if settings.proxies_only and not settings.proxy_protocol
    ]


def _check_tls(config: Config) -> list[Problem]:
    tls = config.section("tls")
    if bool(tls.certificate) != bool(tls.key):
        return [config.problem(("tls",), "certificate", "certificate and key are set together")]
    for settings in config.sections("listen", "c2s"):
        if settings.starttls_required and not tls.certificate and not _all_hosts_have_tls(config):
            return [config.problem(("tls",), "certificate", "a listener requires TLS, but there is no certificate")]
    try:
        TlsContexts().load(config)
    except TlsError as error:
        return [config.problem(("tls",), "certificate", str(error))]
    return []


def _all_hosts_have_tls(config: Config) -> bool:
    return all(config.section("tls", host=domain).certificate for domain in config.section("general").hosts)


@dataclass
class ReloadReport:
    """What a reload did: the options that changed and are in force, and those that wait for a restart."""

    applied: list[str] = field(default_factory=list)
    restart_needed: list[str] = field(default_factory=list)


def changes(started_with: Config, old: Config, new: Config) -> ReloadReport:
    """What a reload from ``old`` to ``new`` means for a server that was started with another configuration still."""
    return ReloadReport(
        applied=[_name(change) for change in old.diff(new) if not change.restart],
        restart_needed=[_name(change) for change in started_with.diff(new) if change.restart],
    )


def _name(change: Change) -> str:
    return ".".join((*change.path, change.key)).rstrip(".")


def write_facts(ready_file: Path, facts: dict[str, Any]) -> None:
    """Tell who waits for the file what runs here; the file is there with all of it or not at all."""
    temporary = ready_file.with_suffix(".tmp")
    temporary.write_text(json.dumps(facts))
    temporary.replace(ready_file)


def default_path() -> Path:
    """The file that is read when none is named: MONGOOSEIM_CONFIG, or the usual place."""
    return Path(os.environ.get("MONGOOSEIM_CONFIG", DEFAULT_PATH))
