"""The machine: its cards, which of them a thread uses, and their queues."""

from __future__ import annotations

import threading
import weakref
from typing import Any, Callable

from magicmind.values import Held, Misuse, Status, complain, failure, note

# One card, with as many clusters as an MLU370-X4 has.
COUNT = 1
ARCH = "mtp_372"
CLUSTERS = 8

_THREAD = threading.local()


class System:
    """The runtime; as a context manager, entered before devices are used."""

    def __init__(self) -> None:
        note("System")
        self._entered = False

    def __enter__(self) -> System:
        """Returns the runtime itself."""
        self._entered = True
        return self

    def __exit__(self, *error: object) -> None:
        """Leaves; devices stay active."""
        note("System.__exit__")
        self._entered = False

    def device_count(self) -> int:
        """Returns the number of cards."""
        if not self._entered:
            raise Misuse("device_count() before `with System()`")
        note("System.device_count")
        return COUNT


class Device(Held):
    """A card."""

    __slots__ = ("_active", "_id")

    def __init__(self) -> None:
        note("Device")
        super().__init__()
        self._id: Any = 0
        self._active = False

    @property
    def id(self) -> int:
        """Its number."""
        return self._id

    @id.setter
    def id(self, number: int) -> None:
        if self._active:
            raise Misuse("Device.id was changed after active()")
        note("Device.id", number=number)
        self._id = number

    def active(self) -> Status:
        """Chooses the card for the calling thread."""
        note("Device.active", number=self._id)
        if type(self._id) is not int or not 0 <= self._id < COUNT:
            return failure(f"there is no device {self._id!r}")
        self._active = True
        _THREAD.chosen = [*(reference for reference in _chosen() if reference() is not self), weakref.ref(self)]
        return Status.OK()

    def create_queue(self) -> Queue | None:
        """Returns a queue of this card; None if the card is not active."""
        note("Device.create_queue")
        if not self._active:
            complain("create_queue: the device is not active")
            return None
        return Queue(self)


class Queue(Held):
    """Work that waits for a card; it is done when somebody waits for it."""

    def __init__(self, device: Device) -> None:
        super().__init__(device)
        self._jobs: list[Callable[[], str]] = []  # each returns why it failed, or ""

    def sync(self) -> Status:
        """Does the work."""
        note("Queue.sync")
        jobs, self._jobs = self._jobs, []
        for job in jobs:
            fault = job()
            if fault:
                return failure(fault)
        return Status.OK()


def current() -> Device | None:
    """Returns the card that this thread chose last, of those that are still there."""
    chosen = _chosen()
    return chosen[-1]() if chosen else None


def _chosen() -> list[weakref.ref]:
    """Returns this thread's choices, the last one last, without devices that are gone."""
    return [reference for reference in getattr(_THREAD, "chosen", []) if reference() is not None]
