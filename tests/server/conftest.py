"""Servers that the tests of this folder share, one of each for all of them."""

from __future__ import annotations

import pytest

from anykernel import open_server

from .servers import TOKEN, jupyter_server, kernel_gateway


@pytest.fixture(scope="session")
def jupyter(tmp_path_factory):
    """A Jupyter Server, which starts a dead kernel again twice, not five times."""
    with jupyter_server(tmp_path_factory.mktemp("jupyter"), "--KernelRestarter.restart_limit=2") as server:
        yield server


@pytest.fixture(scope="session")
def legacy(tmp_path_factory):
    """A Jupyter Server that speaks the framing without the subprotocol."""
    plain = "--ZMQChannelsWebsocketConnection.kernel_ws_protocol="
    with jupyter_server(tmp_path_factory.mktemp("legacy"), plain) as server:
        yield server


@pytest.fixture(scope="session")
def gateway(tmp_path_factory):
    """A Kernel Gateway."""
    with kernel_gateway(tmp_path_factory.mktemp("gateway")) as server:
        yield server


@pytest.fixture
async def server(jupyter):
    async with open_server(jupyter.url, token=TOKEN) as server:
        yield server
