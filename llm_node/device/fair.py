"""Whose turn it is: start-time fair queueing, by the time that units really took."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(eq=False)
class Account:
    """What one of those who share a device has used.

    Attributes:
        weight: above 0; time goes in proportion to it while several want it.
        tag_s: time used over weight, moved up after idling: the least is next.
        served: number of the last turn it had.
    """

    weight: float
    tag_s: float = 0.0
    served: int = 0


class FairShares:
    """Orders accounts; knows neither threads nor clocks.

    Between any two that want the device all along, time used over weight differs by no
    more than a unit of each, over its weight. Who comes back from idling is next but for
    those who are as far behind: idling saves nothing up, and a debt is waited for.
    """

    def __init__(self) -> None:
        self._now_s = 0.0
        self._turns = 0

    def arrive(self, account: Account) -> None:
        """It wants the device after having wanted nothing."""
        account.tag_s = max(account.tag_s, self._now_s)

    def choose(self, wanting: Iterable[Account]) -> Account | None:
        """Who is next, and among equals who waited longest; None: nobody wants it."""
        found = min(wanting, key=lambda one: (one.tag_s, one.served), default=None)
        if found is not None:
            self._turns += 1
            found.served = self._turns
            self._now_s = found.tag_s
        return found

    def charge(self, account: Account, used_s: float) -> None:
        """A unit of it took so long."""
        account.tag_s += used_s / account.weight

    def rest(self, accounts: Iterable[Account]) -> None:
        """Nobody wants the device: nobody owes anything any more."""
        self._now_s = max((one.tag_s for one in accounts), default=self._now_s)
