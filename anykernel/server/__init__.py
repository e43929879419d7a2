"""Kernels behind a Jupyter Server, a gateway or a hub: the same `Kernel`, over HTTP and a WebSocket.

It may import all that lies below (the core and the transports; nothing of ``_local``), httpx2 and websockets, which the extra
``server`` installs. It is imported by the first use. A newcomer begins with ``server``, then ``behind`` and ``mending``.
"""

from .models import RunningKernel, ServerKernelSpec
from .server import Server, open_server

__all__ = ["RunningKernel", "Server", "ServerKernelSpec", "open_server"]
