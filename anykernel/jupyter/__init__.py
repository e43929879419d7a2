"""Drop-in classes for programs that were written for jupyter_client or conkernelclient.

What lives here: jupyter_client's manager and client classes, whose clients read, send and route with an anykernel `Kernel`.
What it may import: anykernel's public names, jupyter_client and asyncio, on which those programs run. Where to begin:
`link` has the kernel, `clients` the classes; managers start kernels as jupyter_client's do.
"""

from .blocking import BlockingKernelClient, KernelManager
from .channels import DeadKernelError
from .clients import AsyncKernelClient, AsyncKernelManager
from .con_client import ConKernelClient
from .con_manager import ConKernelManager, JmsgQueues, reconnect, run_kernel

__all__ = [
    "AsyncKernelClient",
    "AsyncKernelManager",
    "BlockingKernelClient",
    "ConKernelClient",
    "ConKernelManager",
    "KernelManager",
]

# conkernelclient's other names, for `from anykernel.jupyter import ...`.
_ALSO = (DeadKernelError, JmsgQueues, reconnect, run_kernel)
