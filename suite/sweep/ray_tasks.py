"""Units as tasks of Ray: on this machine, or on all machines of a cluster that is there."""

import os
import signal
import socket
import time
from collections.abc import Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from suite.errors import RunError, UsageError, first_line, report
from suite.sweep.attended import Errand, attend
from suite.sweep.pool import Ended, Task
from suite.sweep.units import Unit

CONNECT_SECONDS = 5.0
"""Within which a cluster must answer; Ray itself tries for minutes, and then ends the process."""

LOOKED_AFTER_EVERY, DEAD_AFTER = 5.0, 4
"""Seconds between looks whether the cluster's head is there, and how many in vain make it dead."""

STORE_BYTES = 80 * 2**20
"""Of the object store of a Ray that is started here, about the least that it takes: no object is stored."""


@dataclass(frozen=True)
class Share:
    """What each unit has of its machine."""

    cores: int
    """Reserved for it, as many as its process has threads."""
    gpus: float | None
    """Such as 0.25; None: one, where the cluster has any."""


@dataclass
class RayTask:
    """A task that Ray was given."""

    engine: "RayTasks"
    """Whose it is."""
    reference: Any
    """Of its result."""

    def ended(self) -> Ended | None:
        """How it ended; None: it waits or is at work. Raises RunError where the cluster is gone."""
        import ray

        self.engine.look_after()
        if not ray.wait([self.reference], timeout=0)[0]:
            return None
        try:
            return Ended(*ray.get(self.reference))
        except ray.exceptions.RayTaskError as error:  # raised by the worker, which did not die
            return Ended(1, 0.0, first_line(error.cause))
        except ray.exceptions.OutOfMemoryError:
            return Ended(-9, 0.0)
        except ray.exceptions.RayError as error:
            return Ended(None, 0.0, type(error).__name__)


@dataclass
class RayTasks:
    """An engine: a task for each unit, which Ray deals to its machines. Ray repeats none; the pool does."""

    errand: Errand
    """What all units have in common."""
    share: Share
    """What each unit has of its machine."""
    address: str | None = None
    """Of a cluster, such as HOST:6379, or 'auto' for the one of this machine; None: Ray is started here."""
    at_once: int | None = None
    """Units at a time; None: as many as the cluster takes."""

    @property
    def queues(self) -> bool:
        """Whether Ray sees all units at once, so that a cluster that grows by itself knows what is wanted."""
        return self.at_once is None

    @property
    def workers(self) -> int:
        """Units for which the cluster has room at present."""
        if self.at_once is not None:
            return self.at_once
        return max(1, sum(self._fits(node["Resources"]) for node in self._nodes()))

    def __enter__(self) -> "RayTasks":
        """Join the cluster, or start Ray. Raises UsageError and RunError."""
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        try:
            import ray
        except ImportError as error:
            raise UsageError("--on ray: Ray is not installed; pip install 'addressable-memory-suite[ray]'") from error
        about: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
        if self.address is None:
            about |= {"include_dashboard": False, "object_store_memory": STORE_BYTES, "address": "local"}
        else:
            about |= {"address": _answering(self.address)}
        before = signal.getsignal(signal.SIGTERM)
        try:
            ray.init(**about)
        except SystemExit as error:  # Ray's own way to hear SIGTERM
            raise KeyboardInterrupt from error
        except Exception as error:  # what Ray raises here has no kind in common
            where = "be started here" if self.address is None else f"join the cluster at {self.address}"
            raise RunError(f"Ray can't {where}: {first_line(error)}") from error
        finally:
            signal.signal(signal.SIGTERM, before)
        gcs = ray.get_runtime_context().gcs_address
        self._head, self._vain, self._looked = _host_and_port(gcs), 0, time.monotonic()
        gpus = self.share.gpus
        if gpus is None:
            gpus = float(any(node["Resources"].get("GPU", 0) >= 1 for node in self._nodes()))
        self._share = {"num_cpus": self.share.cores, "num_gpus": gpus}
        self._attend = ray.remote(max_retries=0, **self._share)(attend)
        if not any(self._fits(node["Resources"]) for node in self._nodes()):
            report(f"[sweep] no machine has {self.share.cores} cores and {gpus:g} GPUs yet; runs wait until one has")
        return self

    def __exit__(self, *error: object) -> None:
        """Leave the cluster, or end what was started here."""
        import ray

        ray.shutdown()

    def begin(self, unit: Unit, log: Path) -> Task:
        """Give Ray a task that does the unit."""
        return RayTask(self, self._attend.remote(replace(self.errand, command=unit.command, log=log)))

    def end(self, working: Sequence[tuple[Unit, Task]]) -> None:
        """Stop what is at work at its next checkpoint, and wait for it; what waits does not begin."""
        import ray

        if not working:
            return
        self.errand.call_off()
        for unit, task in working:
            if isinstance(task, RayTask) and unit.state != "running":
                with suppress(ray.exceptions.RayError):
                    ray.cancel(task.reference)
        while any(unit.state == "running" for unit, _ in working):
            time.sleep(1.0)

    def look_after(self) -> None:
        """Raise RunError where the cluster's head does not answer any more: Ray would end this process with it."""
        if time.monotonic() - self._looked < LOOKED_AFTER_EVERY:
            return
        self._vain = 0 if _answers(*self._head) else self._vain + 1
        self._looked = time.monotonic()
        if self._vain >= DEAD_AFTER:
            host, port = self._head
            raise RunError(
                f"the Ray cluster at {host}:{port} is dead; runs stop at a checkpoint, and the same command goes on"
            )

    def _nodes(self) -> list[dict[str, Any]]:
        import ray

        return [node for node in ray.nodes() if node["Alive"]]

    def _fits(self, has: dict[str, float]) -> int:
        """How many units a machine has room for."""
        cores, gpus = self._share["num_cpus"], self._share["num_gpus"]
        rooms = [has.get("CPU", 0.0) // cores] if cores else []
        rooms += [has.get("GPU", 0.0) // gpus] if gpus else []
        return int(min(rooms))


def _answering(address: str) -> str:
    """An address at which something answers. Raises UsageError for one that is none, and RunError."""
    if address in ("auto", "local"):
        return address
    if "://" in address:
        raise UsageError(f"--address {address}: give the cluster's own address, HOST:6379, on one of its machines")
    if not _answers(*_host_and_port(address)):
        raise RunError(f"--address {address}: no Ray cluster answers there; `ray status` shows whether it is alive")
    return address


def _host_and_port(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit() or int(port) > 65535:
        raise UsageError(f"--address {address!r}: it must be HOST:PORT, such as 10.0.0.7:6379, or auto")
    return host.strip("[]"), int(port)


def _answers(host: str, port: int) -> bool:
    try:
        with closing(socket.create_connection((host, port), timeout=CONNECT_SECONDS)):
            return True
    except OSError:
        return False
