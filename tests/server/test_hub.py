"""Hubs: a server that does not run is told as such, or started on request."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import anyio
import pytest

from anykernel import KernelDiedError, ServerAuthError, ServerError, open_server

from .servers import TOKEN, jupyter_hub


@contextmanager
def scripted_hub(states, refusal=202):
    """A hub that answers as JupyterHub does; what it says of the server `lab` of `ada ä`, one after the other, the last for ever."""
    requests = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            requests.append((self.command, self.path))
            if self.path.startswith("/p/hub/api/users/ada%20%C3%A4"):
                if self.command == "POST":
                    return self.answer(refusal, {"message": "no" if refusal == 403 else ""})
                state = states.pop(0) if len(states) > 1 else states[0]
                return self.answer(200, {"name": "ada ä", "servers": {} if state is None else {"lab": state}})
            if states[0] is not None and states[0].get("ready"):
                return self.answer(200, {"default": "x", "kernelspecs": {}, "version": "1"})
            return self.answer(302, None, Location="/p/hub" + self.path[2:])

        do_POST = do_GET  # noqa: N815

        def answer(self, status, data, **headers):
            body = json.dumps(data).encode()
            self.send_response(status)
            for name, value in {
                "Content-Type": "application/json",
                "Content-Length": str(len(body)),
                **headers,
            }.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        thread = Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{http.server_port}/p/user/ada%20%C3%A4/lab/", requests
        finally:
            http.shutdown()
            thread.join()


STARTING, READY = {"ready": False, "pending": "spawn"}, {"ready": True, "pending": None}


async def test_a_server_that_does_not_run_is_told_and_started_only_on_request():
    with scripted_hub([STARTING, STARTING, READY]) as (url, requests):
        with pytest.raises(ServerError, match="start=True"):
            async with open_server(url, token=TOKEN):
                pass
        assert {method for method, _ in requests} == {"GET"}
        async with open_server(url, token=TOKEN, start=True) as server:
            assert await server.kernelspecs() == {}
    assert [path for method, path in requests if method == "POST"] == ["/p/hub/api/users/ada%20%C3%A4/servers/lab"]


async def test_a_server_that_runs_is_not_asked_for():
    with scripted_hub([READY]) as (url, requests):
        async with open_server(url, token=TOKEN, start=True):
            pass
    assert {path.partition("/hub/")[1] for _, path in requests} == {""}


@pytest.mark.parametrize(
    ("states", "refusal", "error", "told"),
    [
        ([STARTING, {"ready": False, "pending": None}], 202, ServerError, "could not start"),
        ([STARTING, None], 202, ServerError, "could not start"),
        ([None], 403, ServerAuthError, "not allowed: no"),
    ],
)
async def test_a_server_that_cannot_be_started_is_told(states, refusal, error, told):
    with scripted_hub(states, refusal) as (url, _), pytest.raises(error, match=told):
        async with open_server(url, token=TOKEN, start=True):
            pass


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    """A JupyterHub, in an environment of its own, with the proxy that npm has."""
    python, directory = os.environ.get("ANYKERNEL_TEST_HUB"), tmp_path_factory.mktemp("hub-environment")
    proxy = os.environ.get("ANYKERNEL_TEST_HUB_PROXY") or shutil.which("configurable-http-proxy")
    try:
        if python is None:
            python = str(directory / "bin" / "python")
            packages = "jupyterhub >= 5", "jupyter-server", "ipykernel"
            subprocess.run([sys.executable, "-m", "venv", directory], check=True, capture_output=True)
            subprocess.run(
                [python, "-m", "pip", "install", "-q", *packages], check=True, capture_output=True, timeout=300
            )
        if proxy is None:
            npm = ["npm", "install", "--silent", "--prefix", directory, "configurable-http-proxy"]
            subprocess.run(npm, check=True, capture_output=True, timeout=300)
            proxy = str(directory / "node_modules" / ".bin" / "configurable-http-proxy")
    except (subprocess.SubprocessError, OSError) as exc:
        pytest.skip(f"JUPYTERHUB IS NOT TESTED: its environment cannot be made ({exc!r:.300})")
    with jupyter_hub(tmp_path_factory.mktemp("hub"), python, proxy) as hub:
        yield hub


@pytest.mark.heavy
@pytest.mark.limit(120)
async def test_a_real_hub_starts_a_server_and_tells_when_it_is_stopped(hub):
    with pytest.raises(ServerError, match="start=True"):
        async with open_server(hub.user_url, token=hub.user_token):
            pass
    async with open_server(hub.user_url, token=hub.user_token, start=True) as server, server.open_kernel() as kernel:
        assert await kernel.evaluate("6 * 7") == 42
        execution = await kernel.submit("import time\nwhile True: time.sleep(0.01)")
        async with open_server(hub.user_url, token=hub.user_token, start=True) as same:  # which runs already
            assert [one.id for one in await same.kernels()] == [kernel.id]
        await anyio.to_thread.run_sync(hub.ask, "DELETE", "hub/api/users/ada/server")
        with anyio.fail_after(15), pytest.raises(KernelDiedError, match="stopped"):
            await execution.wait()
