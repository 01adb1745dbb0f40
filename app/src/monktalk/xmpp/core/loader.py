"""Loading, unloading and reloading the modules of a host, in the order of their dependencies."""

from __future__ import annotations

from typing import TYPE_CHECKING

from monktalk.common.logging import get_logger

if TYPE_CHECKING:
    from collections.abc import Mapping

    from monktalk.xmpp.core.host import VirtualHost
    from monktalk.xmpp.core.module import Module

log = get_logger(__name__)


class DependencyError(Exception):
    """A module needs another one that is unknown, not enabled, or needs it in turn."""


def order(modules: Mapping[str, type[Module]], wanted: set[str]) -> list[str]:
    """The names in ``wanted``, each behind the modules that it requires. Raises :class:`DependencyError`."""
    ordered: list[str] = []
    visiting: list[str] = []

    def visit(name: str, needed_by: str) -> None:
        if name in ordered:
            return
        if name in visiting:
            raise DependencyError(f"modules require each other: {' -> '.join([*visiting, name])}")
        if name not in wanted:
            raise DependencyError(
                f"module {needed_by} requires module {name}, which is not enabled: enable [modules.{name}] or disable "
                f"[modules.{needed_by}]"
            )
        visiting.append(name)
        for required in modules[name].requires:
            visit(required, name)
        visiting.pop()
        ordered.append(name)

    for name in modules:
        if name in wanted:
            visit(name, name)
    return ordered


def enabled(host: VirtualHost, modules: Mapping[str, type[Module]]) -> set[str]:
    """The names of the modules that the configuration of the host asks for."""
    return {name for name in modules if host.settings("modules", name).enabled}


async def load_modules(host: VirtualHost, modules: Mapping[str, type[Module]]) -> None:
    """Load what the configuration asks for. Raises :class:`DependencyError`."""
    for name in order(modules, enabled(host, modules)):
        await _load(host, modules[name])


async def _load(host: VirtualHost, kind: type[Module]) -> None:
    module = kind(host, host.settings("modules", kind.name))
    host.register(module)
    try:
        await module.start()
    except BaseException:
        host.unregister(module)
        raise
    host.hooks.features_changed()
    log.debug("module_loaded", host=host.domain, module=kind.name)


async def _unload(host: VirtualHost, name: str) -> None:
    module = host.modules[name]
    try:
        await module.stop()
    except Exception:
        log.exception("module_stop_failed", host=host.domain, module=name)
    host.unregister(module)
    host.hooks.features_changed()
    log.debug("module_unloaded", host=host.domain, module=name)


async def unload_modules(host: VirtualHost) -> None:
    """Unload all modules, dependents first."""
    for name in reversed(list(host.modules)):
        await _unload(host, name)


async def reload_modules(host: VirtualHost, modules: Mapping[str, type[Module]]) -> None:
    """Bring the host's modules in line with its configuration: unload, load and give new settings as needed."""
    wanted = order(modules, enabled(host, modules))
    for name in reversed(list(host.modules)):
        if name not in wanted:
            await _unload(host, name)
    for name in wanted:
        module = host.modules.get(name)
        settings = host.settings("modules", name)
        if module is None:
            await _load(host, modules[name])
        elif module.settings != settings:
            module.reload(settings)
    host.hooks.features_changed()
