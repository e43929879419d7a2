"""Memory that streams share: what has not been received from any of them takes no more than twice what one may take.

How this works. A stream that holds more than the limit loses its oldest. When all of them hold more than twice the limit, the
one that holds the most does: so who receives what comes loses nothing because somebody else does not. To find that one,
accounts are kept in a heap from the moment on that there is too much, until there is only half of it: an entry may be
outdated, and is mended when it comes to the top.
"""

from __future__ import annotations

import heapq
import itertools
import weakref
from typing import Protocol

__all__ = ["Account", "Budget"]

# What all may hold, where one may hold 1.
_SHARE = 2
# Entries of the heap, besides one for each account, from which on it is made anew.
_SPARE = 64


class Holder(Protocol):
    """Holds items."""

    def drop_oldest(self, keep: int) -> bool:
        """Give up the oldest item, unless there are no more than ``keep``; whether there was one to give."""
        ...


class Account:
    """What one holder holds; made by `Budget.open`."""

    __slots__ = ("held", "holder", "number")

    def __init__(self, number: int) -> None:
        self.held = 0
        """Bytes."""
        self.holder: weakref.ref[Holder]
        self.number = number


class Budget:
    """A limit in bytes for each who has an account, and another for all of them.

    The newest item is kept in any case, so there may be one that alone is larger.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        """Bytes that each may hold; all together may hold twice as much."""
        self.held = 0
        """Bytes that they hold together."""
        self._accounts: dict[int, Account] = {}
        self._numbers = itertools.count()
        # Those that hold the most first, while there is little room; else empty.
        self._heap: list[tuple[int, int, Account]] = []

    def open(self, holder: Holder) -> Account:
        """An account for a holder, for as long as that lives."""
        account = Account(next(self._numbers))
        self._accounts[account.number] = account
        account.holder = weakref.ref(holder, lambda _: self._close(account))
        return account

    def _close(self, account: Account) -> None:
        self.give(account, account.held)
        del self._accounts[account.number]

    def take(self, account: Account, size: int) -> None:
        """A holder has one more item; others, or it, may have to give up theirs."""
        account.held += size
        self.held += size
        if account.held > self.limit:
            holder = account.holder()
            while account.held > self.limit and holder is not None and holder.drop_oldest(1):
                pass
        if self.held > _SHARE * self.limit:
            self._make_room(account)
        elif self._heap:
            if self.held < self.limit:
                self._heap.clear()
            else:
                heapq.heappush(self._heap, (-account.held, account.number, account))

    def give(self, account: Account, size: int) -> None:
        """A holder holds so much less."""
        account.held -= size
        self.held -= size

    def _make_room(self, newest: Account) -> None:
        heap = self._heap
        heapq.heappush(heap, (-newest.held, newest.number, newest))
        if len(heap) == 1 or len(heap) > 2 * len(self._accounts) + _SPARE:
            heap[:] = [(-account.held, account.number, account) for account in self._accounts.values() if account.held]
            heapq.heapify(heap)
        spared = False
        while self.held > _SHARE * self.limit and heap:
            size, _, account = heap[0]
            holder = account.holder()
            if holder is None or not account.held:
                heapq.heappop(heap)
            elif account.held != -size:
                heapq.heapreplace(heap, (-account.held, account.number, account))
            elif not holder.drop_oldest(account is newest):
                heapq.heappop(heap)
                spared = True
        if spared:
            heapq.heappush(heap, (-newest.held, newest.number, newest))
