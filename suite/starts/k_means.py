"""A start from centroids of each class."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from suite.errors import UsageError
from suite.keys import Key
from suite.registry import starts
from suite.types import ClassRows, Setting
from suite.validation import PositiveInt


@starts.register("k_means")
@dataclass(frozen=True)
class KMeans:
    """Centroids of the pixels of each class by k-means, one for each image; a class's mean where there is one.

    scikit-learn's KMeans, started by k-means++.

    >>> from suite.architectures.mlp import MLP
    >>> from suite.parameterizations.standard import Standard
    >>> from suite.types import ImageShape, Split
    >>> setting = Setting(ImageShape(1, 1, 1), 1, MLP(), Standard(), "none", torch.device("cpu"))
    >>> images, labels = torch.tensor([0.0, 1.0, 8.0, 9.0]).view(4, 1, 1, 1), torch.tensor([0, 0, 0, 0])
    >>> centroids = KMeans().images(setting, ClassRows.of(Split(images, labels), classes=1), each=2, key=Key(0))
    >>> centroids.flatten().sort().values
    tensor([0.5000, 8.5000])
    """

    attempts: PositiveInt = 1
    """Starts of the clustering, of which the best is kept."""
    images_per_class: PositiveInt = 1000
    """Training images of a class that are clustered, drawn at random; all there are, if fewer."""

    def images(self, setting: Setting, real: ClassRows, each: int, key: Key) -> Float[Tensor, "classes each c h w"]:
        """The centroids; UsageError for more than a class has images."""
        from sklearn.cluster import KMeans as Clustering  # a second that only its users wait for

        centroids = []
        for c, rows in enumerate(real.rows):
            if each == 1:
                centroids.append(real.split.images[rows].mean(0, keepdim=True))
                continue
            if min(len(rows), self.images_per_class) < each:
                raise UsageError(
                    f"k_means can't find {each} centroids among {min(len(rows), self.images_per_class)} training "
                    f"images of class {c}; lower the budget, or start from noise (START = None)"
                )
            chosen = real.split.images[rows[key("images", c).permutation(len(rows))[: self.images_per_class]]]
            clustering = Clustering(each, n_init=self.attempts, random_state=key(c).integer() % 2**32)
            found = clustering.fit(chosen.flatten(1).cpu().double().numpy()).cluster_centers_
            centroids.append(torch.from_numpy(found).to(chosen).view(each, *chosen.shape[1:]))
        return torch.stack(centroids)
