"""Many kernels, some of them warm: lent for a block, for one execution, or for a map over items.

It may import the doors (`anykernel.open_kernel`) and what the rooms below hand out; it knows no server or launcher but by
what it is given. A newcomer begins with ``pool``; ``mapping`` is built on it.
"""

from .._protocol import PoolTimeoutError
from .mapping import Mapped
from .pool import Pool, PoolStatistics, open_pool

__all__ = ["Mapped", "Pool", "PoolStatistics", "PoolTimeoutError", "open_pool"]

for _exported in (Mapped, Pool, PoolStatistics, open_pool):
    _exported.__module__ = __name__
