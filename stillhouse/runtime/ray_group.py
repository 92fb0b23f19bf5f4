"""Students on a Ray cluster: Ray Train starts as many as it can between the fewest and the most, and begins again.

Each process that Ray Train starts comes in by a TCP door of the run. Those that were started together say the same
rendezvous in their hello; a run goes on with the first whole group. When it hangs up on them they end themselves, and
Ray Train starts the next group, of another size if machines came or went.
"""

from __future__ import annotations

import os
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import ray
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchConfig, TorchTrainer

from stillhouse.foundation.errors import FleetError
from stillhouse.foundation.stamp import code_stamp, otherwise
from stillhouse.runtime.local.crew import Came, Crew, Entrance, Gone, Said
from stillhouse.runtime.local.frames import Bytes, ProtocolError, number_in, text_in
from stillhouse.runtime.local.line import Line
from stillhouse.runtime.tcp_door import TcpDoor, reached

GROW_S = 30.0
"""How often Ray Train looks whether there is room for more students."""

_LOOK_S = 1.0
_PATIENCE_S = 3600
_STUDENTS_MAX = 2**16
_END_S = 60.0


class Party(NamedTuple):
    """A whole group, come in. ``names``: of its students in the order of their ranks."""

    crew: Crew
    names: Sequence[str]


class RayGroup:
    """All groups of one training, one after the other; the caller has connected to the cluster.

    Args:
        least, most: students of a group.
        resources: of each, as Ray names them: ``CPU``, ``GPU``.
        attend: what a student does with its line; importable on every node.
        warn: told of strangers, and when machines are waited for.
    """

    def __init__(
        self,
        least: int,
        most: int,
        resources: Mapping[str, float],
        attend: Callable[[Line], int],
        warn: Callable[[str], None],
    ) -> None:
        self._warn = warn
        self._door = TcpDoor(ray.util.get_node_ip_address())  # type: ignore[no-untyped-call]
        self._entrance = Entrance(self._door, self._named, warn)
        self._waiting: dict[str, dict[str, Came]] = {}
        self._error: BaseException | None = None
        self._folder = tempfile.TemporaryDirectory(prefix="stillhouse-ray-")
        gpu = resources.get("GPU", 0) > 0
        self._trainer = TorchTrainer(
            _learn,
            train_loop_config={"address": self._door.address, "token": self._door.token, "attend": attend},
            torch_config=TorchConfig(backend="cpu:gloo,cuda:nccl" if gpu else "gloo", timeout_s=_PATIENCE_S),
            scaling_config=_scaling(least, most, gpu, resources),
            run_config=RunConfig(storage_path=self._folder.name, failure_config=FailureConfig(max_failures=-1)),
        )
        self._thread = threading.Thread(target=self._fit, name="ray-train", daemon=True)
        self._thread.start()

    def gather(self, check: Callable[[], None]) -> Party:
        """The next whole group, waited for.

        Args:
            check: called now and then; ends the waiting by what it raises.

        Raises:
            FleetError: Ray Train gave up.
        """
        begun_s, said = time.monotonic(), False
        while True:
            check()
            for group, found in self._waiting.items():
                came = sorted(found.values(), key=lambda each: each.hello["rank"])
                if len(came) == came[0].hello["size"]:
                    del self._waiting[group]
                    return Party(_Crew(self, came), [each.name for each in came])
            if self._error is not None or not self._thread.is_alive():
                raise FleetError(f"Ray Train gave the students up: {self._error or 'it ended'}")
            if not said and time.monotonic() - begun_s > _END_S:
                said = True
                self._warn("students wait for machines of the Ray cluster: 'ray status' says what it has")
            for news in self.poll(_LOOK_S):
                if isinstance(news, Said):
                    raise FleetError(f"a student speaks before it was told anything: '{news.header['do']}'")

    def poll(self, timeout_s: float) -> list[Came | Said | Gone]:
        """What happened; who came is remembered until its group is whole."""
        found = self._entrance.poll(timeout_s)
        for news in found:
            waiting = self._waiting.setdefault(_group_of(news.name), {})
            if isinstance(news, Came):
                waiting[news.name] = news
            elif isinstance(news, Gone):
                waiting.pop(news.name, None)
            if not waiting:
                del self._waiting[_group_of(news.name)]
        return found

    def send(self, name: str, header: dict[str, Any], body: Bytes = b"") -> None:
        """Tell one something."""
        self._entrance.send(name, header, body)

    def part(self, name: str) -> None:
        """Hang up on one: it ends itself."""
        self._entrance.forget(name)

    def close(self) -> None:
        """Hang up on all, and wait a little until Ray Train has ended: whoever finds nobody here is done."""
        self._entrance.close()
        self._thread.join(_END_S)
        self._folder.cleanup()

    def _fit(self) -> None:
        try:
            self._trainer.fit()
        except BaseException as error:
            self._error = error

    def _named(self, hello: dict[str, Any]) -> str:
        self._door.check(hello)
        if why := otherwise(text_in(hello, "code") or "another"):
            self._error = FleetError(why)  # Ray Train would begin again for ever
            raise ProtocolError(why)
        rank, size = number_in(hello, "rank", 0, _STUDENTS_MAX), number_in(hello, "size", 1, _STUDENTS_MAX)
        group = text_in(hello, "group")
        name = f"{group}/{rank}"
        if rank >= size or not group or name in self._waiting.get(group, {}):
            raise ProtocolError(f"'hello' from student {rank} of {size} of {group!r}, who makes no sense")
        return name


class _Crew:
    """One group, for one attempt."""

    def __init__(self, parent: RayGroup, came: Sequence[Came]) -> None:
        self._parent = parent
        self._names = {each.name for each in came}
        self._first: list[Came | Said | Gone] = list(came)

    def poll(self, timeout_s: float) -> list[Came | Said | Gone]:
        """What happened in this group."""
        first, self._first = self._first, []
        if first:
            return first
        found = [each for each in self._parent.poll(timeout_s) if each.name in self._names]
        self._names -= {each.name for each in found if isinstance(each, Gone)}
        return found

    def send(self, name: str, header: dict[str, Any], body: Bytes = b"") -> None:
        """Tell one something."""
        self._parent.send(name, header, body)

    def close(self) -> None:
        """Hang up on all of the group."""
        for name in self._names:
            self._parent.part(name)
        self._names = set()


def _scaling(least: int, most: int, gpu: bool, resources: Mapping[str, float]) -> ScalingConfig:
    """So many students, or as many as there is room for.

    Raises:
        FleetError: this Ray Train knows no ranges.
    """
    plain = {"use_gpu": gpu, "resources_per_worker": dict(resources)}
    if least == most:
        return ScalingConfig(num_workers=most, **plain)  # type: ignore[arg-type]
    elastic: dict[str, Any] = {"num_workers": (least, most), "elastic_resize_monitor_interval_s": GROW_S}
    try:
        return ScalingConfig(**elastic, **plain)  # type: ignore[arg-type]
    except (TypeError, ValueError) as error:
        raise FleetError(
            f"the Ray Train that is installed starts no groups of {least} to {most} ({error}): install a newer Ray, or "
            "say one number for fleet.students"
        ) from error


def _group_of(name: str) -> str:
    return name.rpartition("/")[0]


def _learn(config: dict[str, Any]) -> None:
    """What Ray Train runs in each process: come in and attend. Where no run listens any more there is nothing to do."""
    context = ray.train.get_context()
    connection = reached(tuple(config["address"]))
    if connection is None:
        return
    group = f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}"
    facts = {"token": config["token"], "code": code_stamp(), "group": group, "rank": context.get_world_rank()}
    line = Line(connection, "", size=context.get_world_size(), **facts)
    config["attend"](line)
