from __future__ import annotations

import contextlib

import pytest
import pytest_asyncio

from monktalk.common.clock import ManualClock
from monktalk.common.config import Schema, parse
from monktalk.common.metrics import Registry
from monktalk.xmpp.core.auth.client import AuthClients
from monktalk.xmpp.core.auth.provider import AuthProvider
from monktalk.xmpp.core.settings import AUTH
from tests.unit.xmpp.core.auth.service import Accounts, running


@pytest_asyncio.fixture
async def service():
    async with running() as service:
        yield service


@pytest.fixture
def clock():
    return ManualClock()


@pytest.fixture
def metrics():
    return Registry()


@pytest_asyncio.fixture
async def make(service, clock, metrics):
    clients = AuthClients()
    async with contextlib.AsyncExitStack() as made:

        def make(host="example.org", **options):
            lines = {"url": service.url, "username": "xmpp", "password": "hunter2"} | options
            text = "\n".join(f"{name} = {value!r}" for name, value in lines.items())
            settings = parse(f"[auth]\n{text}", "test", Schema([AUTH])).section("auth")
            provider = AuthProvider(host, settings, clients, clock=clock, metrics=metrics)
            made.push_async_callback(provider.close)
            return provider

        yield make


@pytest.fixture(params=["scram", "plain"])
def accounts(request, service):
    accounts = Accounts(service, request.param)
    accounts.set("alice", "secret")
    return accounts


@pytest.fixture
def provider(make, accounts):
    return make(password_format=accounts.form)
