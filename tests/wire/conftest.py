"""The loopback server, one for each test that asks for it."""

import pytest

from .server import Server


@pytest.fixture
async def server(anyio_backend):
    async with Server() as running:
        yield running
