"""The leaderboard's pages: which records and published numbers belong to each, and what its rows are."""

from dataclasses import dataclass

from suite.runtime.record_schema import ACCURACY
from suite.runtime.record_statistics import Kind

STREAMS = ("rotations", "permutations", "many", "cifar100")
STREAM_FILES = (
    *STREAMS,
    *(f"{name}_lamaml" for name in STREAMS),
    *(f"{name}_star{kcl}" for name in STREAMS[:2] for kcl in ("", "_kcl")),
)
"""The names of gin/continual/."""


DATASETS = {
    "mnist": "MNIST", "fashion_mnist": "Fashion-MNIST", "svhn": "SVHN", "cifar10": "CIFAR-10", "cifar100": "CIFAR-100",
    "tiny_imagenet": "TinyImageNet", "digits": "digits",
}  # fmt: skip
"""By a data set's name in records, its name for readers; in the order of rows."""


@dataclass(frozen=True)
class Page:
    """One page with its table: which records belong to it, and the axis of theirs whose labels are its methods."""

    slug: str
    """The name of its file, of its markers in a README, and of its table in `published.csv`."""
    short: str
    """Its name in the navigation."""
    title: str
    """Its heading."""
    description: str
    """What the table shows, in a few sentences."""
    names: tuple[str, ...] = ()
    """The `name` of the records that belong to it."""
    axis: str = ""
    """The axis of a record's cell that holds the method."""
    methods: tuple[str, ...] = ()
    """Their order, as far as it is known."""
    axes: tuple[str, ...] = ()
    """The axes of a record's cell that its method is called by, in order, where these are several."""
    trials: str = ""
    """The axis of a cell that was searched; its label stands behind the method's."""
    row_axis: str = ""
    """What the memory was made with, where the table varies that; every network it was measured on is then a row."""
    chart: bool = False
    """Whether the methods are numbers, to be drawn along an axis."""
    ranked: bool = True
    """Whether its rows are rivals: full runs then have a rank."""
    quantity: str = ACCURACY
    """The quantity that a row shows; a stream's others stand beside it."""
    seeds: Kind = "memories"
    """What every seed makes anew."""
    episodes: bool = False
    """Whether accuracies have a value for each episode; every kind of episode then has a row."""

    @property
    def row_title(self) -> str:
        """Over the column that tells rows of one method apart, if there is one."""
        return "episodes" if self.episodes else "made with" if self.row_axis else ""

    @property
    def within(self) -> Kind:
        """What a seed has several values of."""
        return "episodes" if self.episodes else "evaluation networks"


PAGES = (
    Page(
        "components",
        "Table 3",
        "Table 3: what each part of the method adds",
        "Single-step gradient matching, back-propagation through time (BPTT), the same with downsampled images (ds), "
        "and the full method with addressable bases, without and with augmentation.",
        names=("ablation_components",),
        axis="method",
        methods=("single-step GM", "BPTT", "BPTT+ds", "full without augmentation", "full"),
    ),
    Page(
        "momentum",
        "Table 4",
        "Table 4: momentum in the inner loop",
        "BPTT without momentum, with momentum in the forward pass alone, and with momentum that gradients pass.",
        names=("ablation_momentum",),
        axis="momentum",
        methods=("no momentum", "forward-only momentum", "full momentum"),
    ),
    Page(
        "transfer",
        "Table 2",
        "Table 2: transfer across architectures",
        "Memories made with one architecture, judged by networks of others.",
        names=("transfer",),
        row_axis="trained on",
        methods=("alexnet", "resnet12", "convnet"),
        ranked=False,
    ),
    Page(
        "bases",
        "Figure 1",
        "Figure 1: number of bases",
        "Validation accuracy against the number of bases. The best on validation is run once more, and that run alone "
        "sees test images.",
        names=("bases",),
        axis="bases",
        chart=True,
        ranked=False,
    ),
    Page(
        "search",
        "Search",
        "The search for rates: every trial",
        "Every method got the same trials of the outer rate: short runs that see training and validation images alone. "
        "The best of each on validation is run once more, and that run alone sees test images.",
        names=("search",),
        axis="method",
        trials="outer rate",
        ranked=False,
    ),
    Page(
        "continual",
        "Continual",
        "Continual learning: compress-then-recall",
        "A stream of tasks, each seen once: retained accuracy (RA), the mean over all tasks after the last. Each is "
        "compressed into a memory of its share of the storage, beside networks that learn the stream: without "
        "a storage (naive), with replay from one of that size (ER; A-GEM, MER, DER++ and SCR of Avalanche), or all "
        "tasks at once (joint, the upper bound). With stand-ins (ours), the inner loop's networks learn other tasks of "
        "the stream's law beside a memory. LA is the accuracy on a task just after it was learned, and BTI = RA - LA.",
        names=STREAM_FILES,
        axis="method",
        methods=(
            "naive",
            "ER",
            "ER (Avalanche)",
            "A-GEM (Avalanche)",
            "MER (Avalanche)",
            "DER++ (Avalanche)",
            "SCR (Avalanche)",
            "compress-then-recall",
            "compress-then-recall with stand-ins",
            "joint",
        ),
        quantity="RA",
        seeds="streams",
    ),
    Page(
        "extrapolation",
        "Extrapolation",
        "New classifiers: task extrapolation",
        "A memory for each of several tasks; in an episode, networks learn one class from each of several memories, "
        "and are tested on real images of these classes, no two of which any memory had together. Beside it, with the "
        "same budget: real images, and a memory distilled on exactly the episode's classes (oracle).",
        names=("extrapolation",),
        axis="method",
        methods=("standard", "addressing", "standard, class by class", "addressing, class by class"),
        ranked=False,
        episodes=True,
    ),
    Page(
        "image-recall",
        "Image recall",
        "New classifiers: recall with images",
        "In an episode a memory is queried by one or five test images (shots) of each class, and networks that learn "
        "what it recalls are tested on the other test images. Beside it, classifiers that know all classes or look at "
        "the shots: nearest neighbours and a linear probe in features, fine-tuning, and recall by a label that a "
        "classifier gives to the shot.",
        names=("image_recall",),
        axis="method",
        methods=("asked with images",),  # the label in records
        ranked=False,
        episodes=True,
    ),
    Page(
        "protocols",
        "Protocols",
        "One set, several protocols",
        "Distilled sets, ours and of others, judged by the protocols of several benchmarks beside real images that are "
        "judged alike: whole, and without each of the set's own labels, its rate and the augmentation. What a row has "
        "over random real images of its own protocol is the images'.",
        names=("judging",),
        axes=("set", "protocol", "without"),
        ranked=False,
    ),
    Page(
        "field",
        "The field",
        "Published figures of the field",
        "What others printed for these data sets and budgets.",
    ),
    Page(
        "others",
        "Other runs",
        "Other runs",
        "Every other record: examples, and methods that no table of the paper has.",
    ),
)
"""All pages, in the order of the navigation."""

OTHERS = "others"
"""The page of the records that no other page names."""
