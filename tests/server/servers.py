"""Servers of Jupyter's, started for the tests on the loopback address."""

from __future__ import annotations

import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager, suppress
from pathlib import Path

TOKEN = "a-token-that-nobody-may-see"

# Seconds until a server must answer, on a machine that may be busy.
START = 60.0


class RunningServer:
    """A server's process, and where it is."""

    def __init__(self, process, url, token, log, certificate=None):
        self.process = process
        self.url = url
        self.token = token
        self.log = log
        self.context = None if certificate is None else ssl.create_default_context(cafile=certificate)

    @property
    def port(self):
        return int(self.url.rsplit(":", 1)[1].split("/")[0])

    def kernel_process(self, kernel_id):
        """The process id of a kernel of its."""
        import psutil

        for child in psutil.Process(self.process.pid).children(recursive=True):
            try:
                if any(kernel_id in part for part in child.cmdline()):
                    return child.pid
            except psutil.Error:
                continue
        raise LookupError(kernel_id)

    def ask(self, method, path, body=None):
        """What it answers somebody else: status and JSON."""
        request = urllib.request.Request(
            self.url + path,
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Authorization": f"token {self.token}", "Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=30, context=self.context) as answer:
            return answer.status, json.loads(answer.read() or b"null")

    def kernels(self):
        return {kernel["id"] for kernel in self.ask("GET", "api/kernels")[1]}


def free_port():
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        return held.getsockname()[1]


@contextmanager
def running(module, directory, *args, token=TOKEN, path="/", python=sys.executable, port=None, certificate=None):
    """A server from a module with these options, for the length of a block."""
    port = port or free_port()
    log = Path(directory) / f"{module}-{port}.log"
    environment = {
        **os.environ,
        "JUPYTER_CONFIG_DIR": str(directory),
        "JUPYTER_DATA_DIR": str(directory),
        "JUPYTER_RUNTIME_DIR": str(Path(directory) / "runtime"),
        "JUPYTER_PREFER_ENV_PATH": "0",
        "HOME": str(directory),
    }
    url = f"{'http' if certificate is None else 'https'}://127.0.0.1:{port}{path}"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [python, "-m", module, *args, f"--port={port}"],
            cwd=directory, env=environment, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True,
        )  # fmt: skip
        server = RunningServer(process, url, token, log, certificate)
        try:
            deadline = time.monotonic() + START
            while True:
                try:
                    server.ask("GET", "api/kernelspecs")
                    break
                except OSError as exc:
                    if process.poll() is not None or time.monotonic() > deadline:
                        raise RuntimeError(f"{module} does not answer ({exc}): {log.read_text()[-3000:]}") from exc
                    time.sleep(0.05)  # there is no event to wait for
            yield server
        finally:
            process.terminate()
            with suppress(subprocess.TimeoutExpired):
                process.wait(10)
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait(10)


def jupyter_server(directory, *args, path="/", token=TOKEN, **options):
    """A Jupyter Server."""
    return running(
        "jupyter_server", directory,
        "--ServerApp.ip=127.0.0.1", "--ServerApp.open_browser=False", "--allow-root", "--ServerApp.port_retries=0",
        f"--IdentityProvider.token={token}", f"--ServerApp.root_dir={directory}", f"--ServerApp.base_url={path}",
        "--ServerApp.jpserver_extensions={}", *args,
        token=token, path=path, **options,
    )  # fmt: skip


def kernel_gateway(directory, *args, token=TOKEN, **options):
    """A Kernel Gateway."""
    return running(
        "kernel_gateway", directory,
        "--KernelGatewayApp.ip=127.0.0.1", "--KernelGatewayApp.port_retries=0",
        f"--KernelGatewayApp.auth_token={token}", "--JupyterWebsocketPersonality.list_kernels=True", *args,
        token=token, **options,
    )  # fmt: skip


def enterprise_gateway(directory, *args, token=TOKEN, **options):
    """An Enterprise Gateway; it wants another `python`."""
    return running(
        "enterprise_gateway", directory,
        "--EnterpriseGatewayApp.ip=127.0.0.1", "--EnterpriseGatewayApp.port_retries=0",
        f"--EnterpriseGatewayApp.auth_token={token}", "--EnterpriseGatewayApp.list_kernels=True",
        "--EnterpriseGatewayApp.unauthorized_users={}", *args,
        token=token, **options,
    )  # fmt: skip


HUB = """
c.JupyterHub.bind_url = "http://127.0.0.1:{port}/prefix/"
c.JupyterHub.hub_port = {hub_port}
c.ConfigurableHTTPProxy.api_url = "http://127.0.0.1:{proxy_port}"
c.ConfigurableHTTPProxy.command = {proxy!r}
c.JupyterHub.authenticator_class = "dummy"
c.Authenticator.allow_all = True
c.JupyterHub.spawner_class = "simple"
c.Spawner.args = ["--allow-root"]
c.Spawner.environment = {{"PATH": {path!r}}}
c.JupyterHub.services = [{{"name": "tests", "api_token": {token!r}}}]
c.JupyterHub.load_roles = [{{"name": "all", "scopes": ["admin:users", "admin:servers", "tokens"], "services": ["tests"]}}]
"""


class RunningHub(RunningServer):
    """A hub's process, and where it is; it has one user."""

    def __init__(self, *args):
        super().__init__(*args)
        self.ask("POST", "hub/api/users/ada")
        self.user_url = f"{self.url}user/ada/"
        self.user_token = self.ask("POST", "hub/api/users/ada/tokens", {})[1]["token"]


@contextmanager
def jupyter_hub(directory, python, proxy):
    """A hub with a server for each user; `proxy` is the command of configurable-http-proxy."""
    port, token = free_port(), os.urandom(16).hex()
    config = Path(directory) / "config.py"
    path = f"{Path(python).parent}:{os.environ['PATH']}"
    config.write_text(
        HUB.format(port=port, hub_port=free_port(), proxy_port=free_port(), proxy=proxy, path=path, token=token)
    )
    log = Path(directory) / "hub.log"
    environment = {**os.environ, "HOME": str(directory), "PATH": path}
    with log.open("wb") as out:
        process = subprocess.Popen(
            [python, "-m", "jupyterhub", "-f", config],
            cwd=directory, env=environment, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True,
        )  # fmt: skip
        try:
            deadline = time.monotonic() + START
            while True:
                try:
                    hub = RunningHub(process, f"http://127.0.0.1:{port}/prefix/", token, log)
                    break
                except OSError as exc:
                    if process.poll() is not None or time.monotonic() > deadline:
                        raise RuntimeError(f"the hub does not answer ({exc}): {log.read_text()[-3000:]}") from exc
                    time.sleep(0.1)  # there is no event to wait for
            yield hub
        finally:
            process.terminate()  # it stops its users' servers
            with suppress(subprocess.TimeoutExpired):
                process.wait(20)
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait(10)
