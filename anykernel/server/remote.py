"""What a server can be told about its kernels, one request each.

How this works. A kernel is always started under an id of our own, and by one request at a time: if its answer is lost, the
kernel can be found and ended by its id, while two requests at once can leave a process that nothing can end. So the request
is not cut short by a cancellation either; it takes 20 ms, and is bounded like all others.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any

import anyio

from .._protocol import KernelSpecError, KernelStartError, ServerAuthError, ServerError
from .http import Http
from .models import RunningKernel, ServerKernelSpec, read_kernel, read_kernelspecs

__all__ = ["Remote", "new_id"]


class Remote:
    """One server's kernels."""

    def __init__(self, http: Http) -> None:
        self.http = http
        self.came_up: set[str | None] = set()
        """The kernelspecs of which a kernel was ready."""

    async def kernelspecs(self) -> dict[str, ServerKernelSpec]:
        """See `Server.kernelspecs`."""
        answer = await self.http.get("api", "kernelspecs")
        return read_kernelspecs(answer.data(), self.http.address.shown("api", "kernelspecs"))

    async def kernels(self) -> list[RunningKernel]:
        """See `Server.kernels`."""
        data = (await self.http.get("api", "kernels")).data()
        url = self.http.address.shown("api", "kernels")
        if not isinstance(data, list):
            raise ServerError("this does not answer as a Jupyter server does", url=url)
        return [read_kernel(entry, url) for entry in data]

    async def kernel(self, kernel_id: str) -> RunningKernel | None:
        """One kernel; None where the server knows it no more."""
        segments = ("api", "kernels", kernel_id)
        answer = await self.http.request("GET", segments, ok=(200, 404))
        if answer.status == 404:
            return None
        return read_kernel(answer.data(), self.http.address.shown(*segments))

    async def start(self, name: str | None, path: str | None, env: Mapping[str, str], kernel_id: str) -> str:
        """Start a kernel; its id, which is not always the one that was asked for.

        Raises:
            KernelSpecError: there is no such kernelspec.
            KernelStartError: the server could not start it.
        """
        if name == "python":
            name = await self._python()
        body: dict[str, Any] = {"kernel_id": kernel_id, "env": {**env, "KERNEL_ID": kernel_id}}
        if name is not None:
            body["name"] = name
        if path is not None:
            body["path"] = path
        try:
            data = await self._post(body)
            if data is None:  # a Jupyter server that hands kernels on to a gateway, and has started nothing
                del body["kernel_id"], body["env"]["KERNEL_ID"]
                data = await self._post(body)
            return read_kernel(data, self.http.address.shown("api", "kernels")).id
        except ServerAuthError:
            raise
        except ServerError as exc:
            error = exc
        if error.status is None or error.status in (502, 503, 504):
            # Its answer was lost, or a proxy's stands for it: perhaps the kernel is there.
            found = await self.kernel(kernel_id)
            if found is not None:
                return kernel_id
        elif error.status >= 500:
            await self._check_name(name)
            raise KernelStartError(f"the server could not start the kernel: {error}") from error
        raise error

    async def _post(self, body: dict[str, Any]) -> Any:
        with anyio.CancelScope(shield=True):
            return (await self.http.request("POST", ("api", "kernels"), json=body, ok=(200, 201))).data()

    async def _python(self) -> str:
        """The name of the server's Python kernel."""
        specs = await self.kernelspecs()
        if "python" in specs:
            return "python"
        python = [spec for spec in specs.values() if spec.language == "python"]
        if not python:
            raise KernelSpecError(f"the server has no Python kernel; it has {_listed(specs)}")
        return min(python, key=lambda spec: (not spec.is_default, spec.name != "python3", spec.name)).name

    async def _check_name(self, name: str | None) -> None:
        # Servers answer an unknown name as they do any fault of theirs.
        specs = await self.kernelspecs()
        if name is not None and name not in specs:
            raise KernelSpecError(f"the server has no kernelspec {name!r}; it has {_listed(specs)}")

    async def interrupt(self, kernel_id: str) -> None:
        """Interrupt a kernel, as its kernelspec says how."""
        await self.http.request("POST", ("api", "kernels", kernel_id, "interrupt"), ok=(200, 204))

    async def restart(self, kernel_id: str) -> bool:
        """Restart a kernel; False where the server knows it no more."""
        try:
            await self.http.request("POST", ("api", "kernels", kernel_id, "restart"), ok=(200,))
        except ServerError as exc:
            if exc.status in (404, 500) and await self.kernel(kernel_id) is None:
                return False
            raise
        return True

    async def delete(self, kernel_id: str) -> bool:
        """End a kernel; False where the server knows it no more."""
        answer = await self.http.request("DELETE", ("api", "kernels", kernel_id), ok=(200, 204, 404))
        return answer.status != 404


def new_id() -> str:
    """An id for a kernel: servers take others than a UUID, and cannot address them then."""
    return str(uuid.uuid4())


def _listed(specs: Mapping[str, object]) -> str:
    return ", ".join(sorted(specs)) or "none"
