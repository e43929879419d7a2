"""Servers: what they are asked, what they refuse, and what is left on them."""

from __future__ import annotations

import logging
import re
import ssl
import subprocess
import sys
import traceback
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread

import anyio
import anyio.to_thread
import pytest

import anykernel
from anykernel import (
    ArgumentError,
    KernelDiedError,
    KernelSpecError,
    KernelStartError,
    KernelStartTimeoutError,
    ServerAuthError,
    ServerError,
    UnsupportedError,
    open_server,
    replay_kernel,
)

from .servers import TOKEN, free_port, jupyter_server


@contextmanager
def answering(status, headers, body=b""):
    """Something on the loopback that gives one answer to everything; yields its URL and the requests it got."""
    requests = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            requests.append((self.command, self.path, dict(self.headers)))
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_DELETE = do_GET  # noqa: N815

        def log_message(self, *args):
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as http:
        thread = Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{http.server_port}/", requests
        finally:
            http.shutdown()
            thread.join()


async def refusal(kind, url, **options):
    with pytest.raises(kind) as caught:
        async with open_server(url, **options):
            pass
    text = "".join(traceback.format_exception(caught.value))
    assert TOKEN not in text
    return caught.value


@pytest.mark.once("asyncio")
async def test_what_a_server_has_is_told(jupyter, server):
    specs = await server.kernelspecs()
    assert specs["python3"].language == "python"
    assert specs["python3"].is_default
    assert jupyter.url == server.url
    async with server.open_kernel() as kernel:
        (running,) = [one for one in await server.kernels() if one.id == kernel.id]
        assert (running.name, running.last_activity.tzinfo is not None) == ("python3", True)
        assert (kernel.pid, kernel.returncode) == (None, None)
        with pytest.raises(UnsupportedError, match="id"):
            kernel.connection
    assert kernel.id not in jupyter.kernels()


async def test_a_server_of_another_event_loop_cannot_be_used(jupyter, server):
    before = jupyter.kernels()

    async def use():
        with anyio.fail_after(5):
            for call in (server.kernelspecs, server.kernels, lambda: server.shutdown_kernel("any")):
                with pytest.raises(UnsupportedError, match="from_thread"):
                    await call()
            for block in (server.open_kernel(), server.connect_kernel("any")):
                with pytest.raises(UnsupportedError, match="from_thread"):
                    async with block:
                        pytest.fail("it must not be opened")

    await anyio.to_thread.run_sync(anyio.run, use)
    assert jupyter.kernels() == before
    assert await server.kernelspecs()


async def test_a_wrong_or_missing_token_is_told_without_the_token(jupyter):
    for options in ({"token": f"x{TOKEN}"}, {}):
        error = await refusal(ServerAuthError, jupyter.url, **options)
        assert error.status in (401, 403)
    async with open_server(f"{jupyter.url}?token={TOKEN}") as server:
        assert await server.kernelspecs()
        assert TOKEN not in repr(server) + server.url


async def test_a_function_is_asked_for_the_token_again_when_the_last_is_refused(jupyter):
    given = []

    async def token():
        await anyio.lowlevel.checkpoint()
        given.append("wrong" if not given else TOKEN)
        return given[-1]

    async with open_server(jupyter.url, token=token) as server:
        await server.kernelspecs()
    assert given == ["wrong", TOKEN]
    assert isinstance(await refusal(ServerAuthError, jupyter.url, token=lambda: "wrong"), ServerError)


@pytest.mark.once("trio")
async def test_nothing_secret_is_logged(jupyter, caplog):
    caplog.set_level(logging.DEBUG)
    async with open_server(jupyter.url, token=TOKEN) as server, server.open_kernel() as kernel:
        await kernel.execute("1")
    assert TOKEN not in caplog.text


@pytest.mark.parametrize(
    ("status", "headers", "told"),
    [
        (200, {"Content-Type": "text/html"}, "does not answer as a Jupyter server"),
        (200, {"Content-Type": "application/json"}, "does not answer as a Jupyter server"),
        (302, {"Location": "/login?next=%2F"}, "login"),
        (302, {"Location": "/hub/user/ada/api"}, "does not run"),
        (301, {"Location": "https://elsewhere/"}, "elsewhere"),
        (404, {"Content-Type": "text/html"}, "whole path"),
        (502, {"Content-Type": "text/html"}, "proxy"),
    ],
)
async def test_what_is_no_jupyter_server_is_told_as_what_it_is(status, headers, told):
    with answering(status, headers, b"[1]") as (url, requests):
        assert told in str(await refusal(ServerError, url, token=TOKEN))
    assert {path for _, path, _ in requests} == {"/api/kernelspecs"}  # no redirect was followed


async def test_a_server_that_is_not_there_is_told_at_once():
    assert "cannot be reached" in str(await refusal(ServerError, f"http://127.0.0.1:{free_port()}/"))


async def test_a_server_that_speaks_no_tls_is_told(jupyter):
    error = await refusal(ServerError, jupyter.url.replace("http:", "https:"), token=TOKEN, timeout=0.5)
    assert "TLS" in str(error)


@pytest.fixture(scope="module")
def safe(tmp_path_factory):
    """A Jupyter Server with a certificate that nobody knows, and the certificate's file."""
    directory = tmp_path_factory.mktemp("safe")
    key, certificate = directory / "key.pem", directory / "certificate.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost",
         "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", certificate],
        check=True, capture_output=True,
    )  # fmt: skip
    # (And the framing without the subprotocol, which is thus tried here, too.)
    plain = "--ZMQChannelsWebsocketConnection.kernel_ws_protocol="
    options = [f"--ServerApp.certfile={certificate}", f"--ServerApp.keyfile={key}", plain]
    with jupyter_server(directory, *options, certificate=certificate) as server:
        yield server, certificate


@pytest.mark.once("asyncio")
async def test_a_certificate_that_nobody_knows_is_told_and_can_be_made_known(safe):
    server, certificate = safe
    assert "TLS" in str(await refusal(ServerError, server.url, token=TOKEN))
    context = ssl.create_default_context(cafile=certificate)
    async with open_server(server.url, token=TOKEN, ssl_context=context) as known, known.open_kernel() as kernel:
        assert await kernel.evaluate("6 * 7") == 42


async def test_the_environments_proxy_is_not_used_and_cookies_are_not_kept(jupyter, monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{free_port()}")
    monkeypatch.setenv("ALL_PROXY", f"http://127.0.0.1:{free_port()}")
    async with open_server(jupyter.url, token=TOKEN) as server:
        assert await server.kernelspecs()
    headers = {"Set-Cookie": "a=stolen", "Content-Type": "application/json"}
    with answering(200, headers, b'{"default": "x", "kernelspecs": {}}') as (url, requests):
        async with open_server(url, token=TOKEN, headers={"X-Proxy": "yes"}) as server:
            await server.kernelspecs()
    assert all("stolen" not in str(headers) and headers["X-Proxy"] == "yes" for _, _, headers in requests)


async def test_an_unknown_kernelspec_is_told_with_those_there_are(jupyter, server):
    before = jupyter.kernels()
    with pytest.raises(KernelSpecError, match=r"'no-such'.*python3"):
        async with server.open_kernel("no-such"):
            pass
    assert jupyter.kernels() == before


@pytest.mark.once("uvloop")
async def test_python_is_the_servers_python_kernel(server):
    async with server.open_kernel("python") as kernel:
        assert kernel.info.language == "python"


@pytest.mark.once("trio")
async def test_environment_and_directory_reach_the_kernel(server, tmp_path):
    env = {"GREETING": "a 'quoted' \n word", "EMPTY": ""}
    async with server.open_kernel(env=env, path="") as kernel:
        code = "__import__('os').environ['GREETING'] + __import__('os').environ['EMPTY']"
        assert await kernel.evaluate(code) == env["GREETING"]
        await kernel.restart()
        assert await kernel.evaluate(code) == env["GREETING"]


@pytest.mark.parametrize(
    "options",
    [
        {"env": {"A=B": "x"}}, {"env": {"A": 1}}, {"env": {"A": b"\\0".decode("unicode_escape")}}, {"env": "A=B"},
        {"path": 1}, {"kernel": 1}, {"kernel": ""}, {"startup_timeout": -1}, {"output_limit": -1},
    ],
)  # fmt: skip
async def test_options_that_cannot_be_used_start_nothing(jupyter, server, options):
    before = jupyter.kernels()
    with pytest.raises(ArgumentError):
        async with server.open_kernel(**options):
            pass
    assert jupyter.kernels() == before


@pytest.mark.once("asyncio")
async def test_a_kernel_that_cannot_start_is_told_long_before_the_server_says_so(jupyter, server, tmp_path):
    directory = jupyter.log.parent / "kernels" / "dies"
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "kernel.json").write_text(
        f'{{"argv": ["{sys.executable}", "-c", "exit(3)", "{{connection_file}}"], "display_name": "d", "language": "python"}}'
    )
    before = jupyter.kernels()
    # The handshake would wait for a minute, but the server has given it up when it has not lived at three looks, of 3 s each.
    with anyio.fail_after(12), pytest.raises(KernelStartError, match="before it was ready"):
        async with server.open_kernel("dies"):
            pass
    assert jupyter.kernels() == before


@pytest.mark.once("trio")
async def test_a_start_that_is_cancelled_or_too_slow_leaves_nothing(jupyter, server):
    before = jupyter.kernels()
    for delay in (0, 0.01, 0.05, 0.2, 0.4):
        with anyio.move_on_after(delay):
            async with server.open_kernel():
                await anyio.sleep(0)
    with pytest.raises(KernelStartTimeoutError):
        async with server.open_kernel(startup_timeout=0.05):
            pass
    assert jupyter.kernels() == before


@pytest.mark.once("trio")
async def test_leaving_deletes_the_kernel_whatever_ends_the_block(jupyter, server):
    before = jupyter.kernels()
    with pytest.raises(RuntimeError, match="mine"):
        async with server.open_kernel() as kernel:
            await kernel.submit("while True: pass")
            raise RuntimeError("mine")
    with anyio.CancelScope() as scope:
        async with server.open_kernel() as kernel:
            scope.cancel()
            await anyio.sleep_forever()
    assert jupyter.kernels() == before


@pytest.mark.once("uvloop")
async def test_a_kernel_of_others_is_used_while_it_is_busy_and_left_running(jupyter, server):
    async with server.open_kernel() as kernel:
        execution = await kernel.submit("import time\nwhile True: time.sleep(0.01)")
        async with kernel.messages("status") as _, server.connect_kernel(kernel.id) as other:
            assert other.id == kernel.id
            await other.interrupt()
            assert (await execution.wait()).error.ename == "KeyboardInterrupt"
            assert await other.evaluate("1 + 1") == 2
        assert kernel.is_alive
        assert await kernel.evaluate("1 + 1") == 2
        assert kernel.id in jupyter.kernels()


@pytest.mark.once("asyncio")
async def test_shutting_down_ends_the_kernel_for_everybody(jupyter, server):
    async with server.open_kernel() as kernel, server.connect_kernel(kernel.id) as other:
        await other.shutdown()
        assert kernel.id not in jupyter.kernels()
        with pytest.raises(KernelDiedError):
            await kernel.execute("import time; time.sleep(30)")
    await server.shutdown_kernel(kernel.id)  # gone already
    with pytest.raises(KernelStartError, match=re.escape(kernel.id)):
        async with server.connect_kernel(kernel.id):
            pass


@pytest.mark.once("uvloop")
async def test_a_gateways_kernels_run_code_too(gateway):
    async with open_server(gateway.url, token=TOKEN) as server, server.open_kernel() as kernel:
        assert (await kernel.execute("print('hello'); 6 * 7")).text == "hello\n42"


@pytest.mark.once("uvloop")
async def test_a_session_is_recorded_and_replayed(server, tmp_path):
    path = tmp_path / "recording"
    async with server.open_kernel(record_to=path) as kernel:
        assert (await kernel.execute("print('kept')")).stdout == "kept\n"
    assert TOKEN not in path.read_text()
    async with replay_kernel(path) as kernel:
        assert (await kernel.execute("print('kept')")).stdout == "kept\n"


def test_the_door_is_there_without_what_it_needs_being_loaded():
    assert anykernel.open_server.__name__ == "open_server"


def test_every_public_name_of_the_room_is_documented():
    import inspect

    import anykernel.server as room

    for name in room.__all__:
        exported = getattr(room, name)
        assert exported.__doc__, name
        for attribute, value in vars(exported).items() if inspect.isclass(exported) else ():
            if inspect.isroutine(value) and not attribute.startswith("_"):
                assert value.__doc__, attribute
