r"""Template of an experiment: what ends in one record.

    python -m suite.check docs/templates/experiment.py
    python -m suite.run --plugin docs/templates/experiment.py --gin gin/scale/smoke.gin \
        --set 'run.experiment = @experiments.distil_and_test()' --set 'run.seeds = [0]' --set 'run.scale = %SCALE' \
        --set 'experiments.distil_and_test.iterations = %ITERATIONS'
"""

from dataclasses import dataclass, field
from functools import partial
from typing import Any

from suite.architectures.mlp import MLP
from suite.core.outer_loop import PAPER_ITERATIONS, OuterState, begin, step
from suite.datasets.digits import Digits
from suite.evaluation.evaluate import evaluate, recalled
from suite.evaluation.protocol import Protocol
from suite.experiments.accounting import below_default, budget_of, dataset_facts, scale_of
from suite.experiments.learning import Series
from suite.inner_optimizers.sgd_momentum import SGDMomentum
from suite.objectives.distribution_matching import DistributionMatching
from suite.parameterizations.addressing import Addressing
from suite.registry import experiments
from suite.types import Architecture, ClassRows, Dataset, Measurement, Objective, Outcome, Session, Setting
from suite.validation import PositiveInt

OPTIMIZER = SGDMomentum(lr=1.0, momentum=0.5)


@experiments.register("distil_and_test")  # its name in gin: @experiments.distil_and_test()
@dataclass(frozen=True)
class DistilAndTest:
    """Distil a memory of one image per class and test it. The fields are the whole configuration, and the run key.

    >>> DistilAndTest(iterations=100).plan()
    {'outer iterations': 100, 'evaluation': 'paper-1, changed: networks 2 of 10, epochs 2 of 300'}
    """

    dataset: Dataset = field(default_factory=Digits)
    """What is distilled."""
    architecture: Architecture = field(default_factory=MLP)
    """Of the networks."""
    objective: Objective = field(default_factory=DistributionMatching)
    """Gives the memory its gradient."""
    iterations: PositiveInt = PAPER_ITERATIONS
    """Outer steps."""
    evaluation: Protocol = field(default_factory=lambda: Protocol(networks=2, epochs=2))
    """How the networks that judge the memory are trained."""

    def plan(self) -> dict[str, Any]:
        """What `--dry-run` prints; it reads no data."""
        return {"outer iterations": self.iterations, "evaluation": self.evaluation.label()}

    def run(self, session: Session) -> Outcome:
        """Learn and test; a resumed run reads from its checkpoint what is done. `session.key` decides all draws."""
        info, key = self.dataset.info, session.key
        setting = Setting(info.shape, info.classes, self.architecture, Addressing(bases=6), "none", session.device)
        data = self.dataset.load(session.data_dir, key("data"), validation=0.0)
        real = ClassRows.of(data.train.to(session.device), info.classes)

        def one_step(state: OuterState) -> OuterState:
            return step(setting, self.objective, OPTIMIZER, real, state, key("distillation"), max_grad_norm=2.0)

        series = Series(session, self.iterations)
        start = partial(begin, setting, OPTIMIZER, 1, key)
        memory = series.learn("memory", OPTIMIZER, start, one_step, self.iterations)
        images, splits = recalled(setting, memory), {"test": data.test}
        accuracies = evaluate(setting, lambda n: images, self.evaluation, key("evaluation"), splits, session.pause)
        return Outcome(
            measurements=(Measurement("memory", "test", accuracies["test"], "evaluation networks"),),
            budget=budget_of(setting, 1, memory),
            scale=scale_of(self, below_default(self, "iterations")),
            facts=dataset_facts(data),
            cost={"distillation_seconds": series.stopwatch.seconds},
        )
