"""How compress-then-recall makes the memory of one task: batch by batch, beside a reservoir and finished memories."""

from dataclasses import dataclass, replace
from typing import Any

import torch

from suite.core.outer_loop import OuterState, begin, judged, step
from suite.core.transfer import sent
from suite.experiments import accounting
from suite.experiments.continual.absorbing import absorbed
from suite.experiments.continual.companions import with_finished, with_stand_ins
from suite.experiments.continual.reservoir import Reservoir
from suite.experiments.continual.stream_state import StreamState
from suite.experiments.learning import Place, Stopwatch, learn
from suite.keys import Key
from suite.types import ClassRows, Optimizer, RelatedTasks, Session, Setting, Split, StreamTask, over_steps


@dataclass(frozen=True, eq=False)
class Compression:
    """A task on its way into a memory."""

    experiment: Any
    """Its settings (`CompressThenRecall`)."""
    session: Session
    """Where it is logged and kept."""
    setting: Setting
    """What the memory is made for."""
    task: StreamTask
    """Its images."""
    state: StreamState
    """Of the stream when it was begun or gone on with."""

    @property
    def number(self) -> int:
        """The task's, from 0."""
        return len(self.state.memories)

    @property
    def optimizer(self) -> Optimizer:
        """Of the memory, over its steps."""
        optimizer: Optimizer = self.experiment.outer_optimizer
        return over_steps(optimizer, max(1, self.experiment.steps_per_task))  # none, where all images are absorbed

    def done(self, stopwatch: Stopwatch) -> StreamState:
        """The stream's state with this task's memory among the finished ones."""
        of, t, state = self.experiment, self.number, self.state
        images = self.task.train.relabelled(self.task.classes)
        key, order = self.session.key("task", t), self.session.key("order", t).permutation(len(images))
        finished_numbers = sum(map(accounting.stored_numbers, state.memories))

        def one_batch(outer: OuterState) -> OuterState:
            nonlocal state
            number = outer.iteration // of.replay
            first = of.absorbed + number * of.batch
            incoming = order[first : first + of.batch]
            reservoir = state.reservoir or Reservoir.empty(of.capacity(t)).add(order[:first], key("reservoir"))
            reservoir = reservoir.add(incoming, key("reservoir"))
            for update in range(of.replay):
                replayed = reservoir.draw(of.replay_batch, key("replay", number, update))
                real = sent(images.at(torch.cat([incoming, replayed])), self.setting.classes, self.session.device)
                outer = self._outer_step(real, outer, key, (number, update))
            stored = finished_numbers + len(reservoir.kept) * self.setting.shape.numel
            state = replace(state, reservoir=reservoir, peak_numbers=max(state.peak_numbers, stored))
            return outer

        def save(outer: OuterState, score: float | None) -> None:
            replace(state, outer=outer, seconds=stopwatch.seconds).save(self.session, of.steps_per_task)

        first = [images.at(rows) for rows in order[: of.absorbed].split(of.batch)]
        start = state.outer or stopwatch.timed(lambda outer: self._absorbed(outer, first, key), self._begin(key))
        place = Place(t * of.steps_per_task, of.steps_per_task * of.stream.info.tasks, f"task {t + 1}")
        outer = learn(self.session, start, one_batch, of.steps_per_task, save, stopwatch, place)
        return state.finished(judged(self.optimizer, outer), stopwatch.seconds)

    def _begin(self, key: Key) -> OuterState:
        """A fresh memory."""
        return begin(self.setting, self.optimizer, self.experiment.images_per_class, key)

    def _absorbed(self, outer: OuterState, first: list[Split], key: Key) -> OuterState:
        """The memory when it has absorbed the first batches, if it is to."""
        if not self.experiment.absorbed:
            return outer
        memory = {k: v.cpu() for k, v in outer.memory.items()}
        memory = absorbed(self.setting, memory, first, key("absorbed"))
        memory = {k: v.to(self.session.device) for k, v in memory.items()}
        return replace(outer, memory=memory, optimizer_state=self.optimizer.init(memory))

    def _outer_step(self, real: ClassRows, outer: OuterState, key: Key, at: tuple[int, int]) -> OuterState:
        """One outer step on these real images; the networks learn companions beside the memory."""
        of, setting = self.experiment, self.setting
        if of.stand_ins and isinstance(of.stream, RelatedTasks):
            setting = with_stand_ins(setting, of.stream, of.stand_ins, key("stand-ins", *at))
        beside = min(of.beside, self.number)
        if beside:
            setting = with_finished(setting, self.state.memories, beside, key("beside", *at))
        objective = of.objective_beside(of.stand_ins + beside)
        return step(setting, objective, self.optimizer, real, outer, key("outer"), of.clip, 0, of.rollouts)
