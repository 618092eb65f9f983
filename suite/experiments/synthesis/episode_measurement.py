"""What is measured in an episode of recall with images: the memory, and all that a user could do instead of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from suite.controls.random_images import RandomImages
from suite.evaluation.evaluate import evaluate, recalled
from suite.evaluation.protocol import Protocol
from suite.evaluation.training import train
from suite.experiments.learning import Measured, Series
from suite.experiments.synthesis.episodes import Episode, all_images, of_classes
from suite.keys import Key, global_generators
from suite.parameterizations.image_queries import Asked
from suite.types import Architecture, ClassRows, ImageShape, Parameterization, Params, Session, Setting, Split

LABELS_RIGHT = "of labels: right (%)"
"""Shots that the full-data classifier labels rightly."""
LABEL_CONFLICTS = "of labels: episodes with one label for shots of two classes (%)"
"""Whether it gives one label to shots of two classes."""

READ_AT_ONCE = 500
"""Images whose features are computed together."""


def of_class(place: int) -> str:
    """The name of the memory's accuracy on one class of an episode."""
    return f"of class {place}"


def beside_methods(ways: int) -> set[str]:
    """Names of what is measured in an episode that is no method's accuracy."""
    return {LABELS_RIGHT, LABEL_CONFLICTS, *map(of_class, range(ways))}


def label_rates(values: Mapping[str, Mapping[str, Sequence[float]]]) -> dict[str, float]:
    """How the classifier labels shots, of what was measured by kind of episode: mean rates in percent by kind."""
    return {
        f"{kind}: {name}": sum(by_name[name]) / len(by_name[name])
        for kind, by_name in values.items()
        for name in (LABELS_RIGHT, LABEL_CONFLICTS)
    }


def full_data_classifier(
    session: Session, series: Series, setting: Setting, images: Split, epochs: int, name: str
) -> nn.Module:
    """A classifier of all classes, trained on all training images once in a run, where it has this name."""
    key = session.key(name)
    protocol = Protocol(name="classifier", networks=1, epochs=epochs, batch=128)

    def weights() -> Params:
        network = train(setting, images, protocol, key, session.pause)
        return {name: weight.detach() for name, weight in network.named_parameters()}

    trained = series.once(name, weights)
    with global_generators(key):
        network = setting.architecture.build(setting.shape, setting.classes).to(session.device).eval()
    network.load_state_dict(trained, strict=False)
    return network


@dataclass(frozen=True, eq=False)
class Pretrained:
    """An architecture whose networks begin with given weights, except those whose shape the classes change."""

    of: Architecture
    """Builds the networks."""
    weights: Params
    """By name; of another network of the architecture."""

    def build(self, shape: ImageShape, classes: int) -> nn.Module:
        """A network with the given weights and a fresh head."""
        network = self.of.build(shape, classes)
        shapes = {name: weight.shape for name, weight in network.named_parameters()}
        fitting = {name: w for name, w in self.weights.items() if shapes.get(name) == w.shape}
        network.load_state_dict(fitting, strict=False)
        return network


@dataclass(frozen=True, eq=False)
class EpisodeMeasurement:
    """The memories and the classifier that an episode is measured with."""

    session: Session
    """Of the run."""
    setting: Setting
    """Of an episode's networks; its parameterization is the one that is queried by images."""
    protocol: Protocol
    """How an episode's networks are trained."""
    train: ClassRows
    """All training images."""
    memory: Params
    """Queried by images."""
    by_label: Parameterization
    """Of the memory that is queried by labels."""
    memory_by_label: Params
    """Queried by labels."""
    backbone: nn.Module
    """Trained on all training images of all classes."""
    images_per_shot: int
    """Recalled."""

    def measure(self, episode: Episode, classes: tuple[int, ...], key: Key) -> Measured:
        """Accuracies by method, and `beside_methods`; every network is scored on the query images."""
        ways, shots = len(classes), len(episode.support) // len(classes)
        query = all_images(episode.query)
        by_class = {
            of_class(i): all_images(ClassRows(episode.query.split, (rows,)))
            for i, rows in enumerate(episode.query.rows)
        }
        true_labels = torch.tensor(classes, device=query.labels.device)[episode.support.labels]
        with torch.no_grad():
            given_labels = self.backbone(episode.support.images).argmax(1)

        def trained_on(images: Split, setting: Setting = self.setting) -> float:
            return self._accuracies(setting, images, {"query": query}, key)["query"]

        recalled_by_image = recalled(
            self._queried(self.setting.parameterization, episode.support.images, ways), self.memory
        )
        measured = self._accuracies(self.setting, recalled_by_image, {"memory": query} | by_class, key)
        measured[LABELS_RIGHT] = 100 * float((given_labels == true_labels).float().mean())
        measured[LABEL_CONFLICTS] = 100.0 * _conflict(given_labels.view(ways, shots))
        measured["classify-then-recall"] = trained_on(self._recalled_by_label(given_labels, ways))
        measured["recall by true label"] = trained_on(self._recalled_by_label(true_labels, ways))
        choose = RandomImages().choose(self.setting, of_classes(self.train, classes), self.images_per_shot * shots, key)
        measured["random real images"] = trained_on(choose(0))
        measured["fine-tuned classifier"] = trained_on(episode.support, self._fine_tuning())
        return measured | self._without_training(episode.support, query, classes)

    def _accuracies(self, setting: Setting, images: Split, splits: Mapping[str, Split], key: Key) -> Measured:
        """Mean accuracy on each split of networks trained on these images."""
        accuracies = evaluate(setting, lambda network: images, self.protocol, key, dict(splits), self.session.pause)
        return {name: sum(values) / len(values) for name, values in accuracies.items()}

    def _queried(self, parameterization: Parameterization, queries: Tensor, ways: int) -> Setting:
        """The episode's setting with a memory that is queried, for each class, by its part of the queries."""
        return replace(self.setting, parameterization=Asked(parameterization, queries.unflatten(0, (ways, -1))))

    def _recalled_by_label(self, labels: Int64[Tensor, " n"], ways: int) -> Split:
        return recalled(self._queried(self.by_label, labels, ways), self.memory_by_label)

    def _fine_tuning(self) -> Setting:
        """The full-data classifier with a fresh head; shots are not augmented."""
        weights = {name: weight.detach() for name, weight in self.backbone.named_parameters()}
        return replace(self.setting, architecture=Pretrained(self.setting.architecture, weights), augmentation="none")

    def _without_training(self, support: Split, query: Split, classes: tuple[int, ...]) -> Measured:
        """Nearest neighbours, class means and a linear probe in the classifier's features; the classifier itself."""
        from sklearn.linear_model import LogisticRegression
        from sklearn.neighbors import KNeighborsClassifier

        of_query, logits = self._read(query.images)
        shots, labels = self._read(support.images)[0].numpy(), support.labels.cpu().numpy()
        means = shots.reshape(len(classes), -1, shots.shape[1]).mean(1)
        fitted = {
            "nearest neighbour (cosine)": KNeighborsClassifier(1, metric="cosine").fit(shots, labels),
            "nearest neighbour (L2)": KNeighborsClassifier(1).fit(shots, labels),
            "nearest class mean": KNeighborsClassifier(1).fit(means, list(range(len(classes)))),
            "linear probe": LogisticRegression(max_iter=1000).fit(shots, labels),
        }
        wanted = query.labels.cpu()
        measured = {name: 100 * float(model.score(of_query.numpy(), wanted.numpy())) for name, model in fitted.items()}
        right = (logits[:, list(classes)].argmax(1) == wanted).float().mean()
        return measured | {"full-data classifier": 100 * float(right)}

    @torch.no_grad()
    def _read(self, images: Float[Tensor, "n c h w"]) -> tuple[Float[Tensor, "n d"], Float[Tensor, "n classes"]]:
        """Features and logits of the classifier, on the CPU."""
        pieces = images.split(READ_AT_ONCE)
        features = torch.cat([self.backbone.features(piece) for piece in pieces])  # type: ignore[operator]
        return features.cpu(), torch.cat([self.backbone(piece) for piece in pieces]).cpu()


def _conflict(labels: Int64[Tensor, "ways shots"]) -> bool:
    """Whether one label is given to shots of two classes."""
    given = [set(row.tolist()) for row in labels]
    return any(given[i] & given[j] for i in range(len(given)) for j in range(i))
