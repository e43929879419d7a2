"""Servers that the tests of this folder share, one of each for all of them."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from anykernel import open_server

from .servers import TOKEN, enterprise_gateway, jupyter_server, kernel_gateway


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


@pytest.fixture(scope="session")
def behind(tmp_path_factory):
    """A Jupyter Server that hands everything on to a Kernel Gateway."""
    with kernel_gateway(tmp_path_factory.mktemp("behind-gateway")) as gateway:
        options = f"--GatewayClient.url={gateway.url[:-1]}", f"--GatewayClient.auth_token={TOKEN}"
        with jupyter_server(tmp_path_factory.mktemp("behind"), *options) as server:
            yield server


@pytest.fixture(scope="session")
def enterprise(tmp_path_factory):
    """An Enterprise Gateway, in an environment of its own: it wants older packages than anykernel's tests."""
    python = os.environ.get("ANYKERNEL_TEST_ENTERPRISE_GATEWAY")
    if python is None:
        directory = tmp_path_factory.mktemp("environment")
        python = str(directory / "bin" / "python")
        packages = "jupyter-enterprise-gateway >= 3.2", "ipykernel < 7", "numpy"
        try:
            subprocess.run([sys.executable, "-m", "venv", directory], check=True, capture_output=True)
            subprocess.run(
                [python, "-m", "pip", "install", "-q", *packages], check=True, capture_output=True, timeout=300
            )
        except subprocess.SubprocessError as exc:
            pytest.skip(
                f"ENTERPRISE GATEWAY IS NOT TESTED: its environment cannot be made ({exc}: {exc.stderr!r:.300})"
            )
    with enterprise_gateway(tmp_path_factory.mktemp("enterprise"), python=python) as server:
        yield server


@pytest.fixture
async def server(jupyter):
    async with open_server(jupyter.url, token=TOKEN) as server:
        yield server
