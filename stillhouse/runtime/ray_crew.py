"""Processes on a Ray cluster that come and go by themselves: each a task of Ray's, placed wherever there is room.

Each comes in by a TCP door of the run and says its name. Ray begins none anew: whoever has the crew does, when it hears
that one is gone, and Ray then finds another machine for it if the old one is no more.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import ray
from ray.exceptions import RayError

from stillhouse.foundation.errors import FleetError
from stillhouse.foundation.stamp import code_stamp, otherwise
from stillhouse.runtime.local.crew import Entrance, Mate
from stillhouse.runtime.local.frames import ProtocolError, text_in
from stillhouse.runtime.local.line import Line
from stillhouse.runtime.tcp_door import TcpDoor, reached

_WAITING_S = 60.0
_ENDING_S = 5.0


class RayCrew(Entrance):
    """The caller has connected to the cluster.

    Args:
        attend: what a process does with its line; importable on every node.
        resources: of each, as Ray names them: ``CPU``, ``GPU``.
        warn: told of strangers, and when machines are waited for.
    """

    def __init__(
        self, attend: Callable[[Line], int], resources: Mapping[str, float], warn: Callable[[str], None]
    ) -> None:
        door = TcpDoor(ray.util.get_node_ip_address())  # type: ignore[no-untyped-call]
        super().__init__(door, self._named, warn)
        self._door, self._attend, self._resources, self._warn_user = door, attend, resources, warn
        self._begun: dict[str, ray.ObjectRef[Any]] = {}
        self._awaited: dict[str, float] = {}
        self._error: FleetError | None = None
        self._said = False

    def start(self, name: str) -> None:
        """Ask for one; nobody of that name is there."""
        config = {"address": self._door.address, "token": self._door.token, "name": name, "attend": self._attend}
        options = {"num_cpus": self._resources.get("CPU", 1), "num_gpus": self._resources.get("GPU", 0)}
        task = ray.remote(_work).options(max_retries=0, name=name, **options)
        self._begun[name] = task.remote(config)
        self._awaited[name] = time.monotonic()

    def end(self, name: str) -> None:
        """Kill one; that it is gone is told as ever."""
        if name in self._begun:
            ray.cancel(self._begun[name], force=True)

    def look(self) -> None:
        """See who ended, and who waits for a machine.

        Raises:
            FleetError: another Stillhouse is installed there.
        """
        if self._error is not None:
            raise self._error
        begun = list(self._begun.values())
        ended = ray.wait(begun, num_returns=len(begun), timeout=0)[0] if begun else []
        for name in [name for name, ref in self._begun.items() if ref in ended]:
            ref = self._begun.pop(name)
            try:
                ray.get(ref)
                why = "it ended"
            except RayError as error:
                why = (str(error).strip() or type(error).__name__).splitlines()[0]
            self._mates.setdefault(name, Mate(None))
            self._awaited.pop(name, None)
            self.left(name, why)
        if self._awaited and not self._said and time.monotonic() - min(self._awaited.values()) > _WAITING_S:
            self._said = True
            self._warn_user("workers wait for machines of the Ray cluster: 'ray status' says what it has")

    def hung_up(self, name: str, mate: Mate, why: str) -> None:
        """How it ended is told by its task, which ends soon."""
        assert mate.channel is not None
        self._selector.unregister(mate.channel.socket)
        mate.channel.close()
        mate.channel = None

    def close(self) -> None:
        """Hang up on all, and take back what waits, until the cluster has its room again. Idempotent."""
        super().close()
        begun = list(self._begun.values())
        for ref in begun:
            ray.cancel(ref, force=True)
        if begun:
            ray.wait(begun, num_returns=len(begun), timeout=_ENDING_S)
        self._begun.clear()

    def _named(self, hello: dict[str, Any]) -> str:
        self._door.check(hello)
        if why := otherwise(text_in(hello, "code") or "another"):
            self._error = FleetError(why)  # another of the same code would come, and again
            raise ProtocolError(why)
        name = text_in(hello, "name")
        if name not in self._awaited:
            raise ProtocolError(f"it calls itself {name!r}, and nobody of that name is awaited")
        del self._awaited[name]
        return name


def _work(config: dict[str, Any]) -> None:
    """What Ray runs: come in and attend. Where no run listens any more there is nothing to do."""
    connection = reached(tuple(config["address"]))
    if connection is not None:
        config["attend"](Line(connection, config["name"], token=config["token"], code=code_stamp()))
