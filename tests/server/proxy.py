"""A TCP proxy that does to connections what networks do: cuts them, holds them back for ever or for a while, delays."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from contextlib import contextmanager


class Proxy:
    """Between a client and a server; its methods may be called from any thread."""

    def __init__(self, target):
        self._target = target
        self._loop = asyncio.new_event_loop()
        self._pairs = []
        self._open = True
        self.port = 0
        self.delay = 0.0
        """Seconds by which everything is late."""
        self.accepted = 0
        """How many connections were made."""

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}/"

    def cut(self):
        """Reset all connections; new ones may be made."""
        self._call(self._cut)

    def refuse(self):
        """Cut all connections, and every new one at once."""
        self._call(self._refuse)

    def accept(self):
        """Let new connections be made again."""
        self._call(lambda: setattr(self, "_open", True))

    def hole(self):
        """Swallow what goes over the connections that there are; new ones work."""
        self._call(lambda: [pair["flows"].clear() for pair in self._pairs])

    def heal(self):
        """Let what the hole holds go on its way."""
        self._call(lambda: [pair["flows"].set() for pair in self._pairs])

    def _call(self, function):
        done = threading.Event()
        self._loop.call_soon_threadsafe(lambda: (function(), done.set()))
        assert done.wait(5)

    def _cut(self):
        for pair in self._pairs:
            pair["flows"].set()
            for writer in pair["writers"]:
                writer.transport.abort()
        self._pairs.clear()

    def _refuse(self):
        self._open = False
        self._cut()

    async def _serve(self, reader, writer):
        if not self._open:
            writer.transport.abort()
            return
        self.accepted += 1
        try:
            other_reader, other_writer = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            writer.transport.abort()
            return
        flows = asyncio.Event()
        flows.set()
        self._pairs.append({"flows": flows, "writers": (writer, other_writer)})

        async def pipe(source, sink):
            try:
                while data := await source.read(2**16):
                    if self.delay:
                        await asyncio.sleep(self.delay)
                    await flows.wait()
                    sink.write(data)
                    await sink.drain()
                await flows.wait()
            except OSError:
                pass
            finally:
                sink.close()

        await asyncio.gather(pipe(reader, other_writer), pipe(other_reader, writer))

    async def _start(self, port=0):
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _stop(self):
        self._server.close()
        self._cut()
        tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@contextmanager
def proxied(target):
    """A proxy to a port of this machine, for the length of a block."""
    proxy = Proxy(target)
    started = threading.Event()
    stopping = asyncio.Event()

    async def run():
        await proxy._start()
        started.set()
        await stopping.wait()
        await proxy._stop()

    thread = threading.Thread(target=lambda: proxy._loop.run_until_complete(run()))
    thread.start()
    assert started.wait(5)
    try:
        yield proxy
    finally:
        proxy._loop.call_soon_threadsafe(stopping.set)
        thread.join(10)
        proxy._loop.close()


@contextmanager
def proxy_process(target, port):
    """A proxy in a process of its own, which can be killed; yields that."""
    argv = [sys.executable, "-m", "tests.server.proxy", str(target), str(port)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout.readline() == b"ready\n"
            yield process
        finally:
            process.kill()


async def _run(target, port):
    proxy = Proxy(target)
    await proxy._start(port)
    print("ready", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_run(*map(int, sys.argv[1:])))
