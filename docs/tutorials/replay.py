# %% [markdown]
# # A continual stream, against replay
#
# A stream shows its tasks one after the other, each image once. A network that just learns them forgets the early
# ones. Two remedies have the same storage, counted in numbers: replay (ER) keeps real images and shows them again, and
# compress-then-recall distils each task into a memory. This runs both on four permutations of digits, in a minute or
# two, and ends with a question that each such comparison must answer.

# %%
from suite import run

words = ["--gin", "gin/continual/permutations.gin", "--gin", "gin/recipe/streams.gin"]
settings = [
    "DATASET = @datasets.digits()",
    "TASKS = 4",  # the paper's streams have 20 of 1,000 images
    "SAMPLES = 200",
    "IMAGES_PER_TASK = 20",  # stored: 80 images for four tasks
    "BASES = 9",
    "ABSORBED = 100",
    "NETWORKS = 3",
    "SEEDS = [0]",
]
for setting in settings:
    words += ["--set", setting]
words += ["--tracking-uri", "none", "--out", "runs"]

methods = []
for method in ("naive", "ER", "compress-then-recall", "absorbed alone"):
    methods += ["--only", f"method={method}"]
run.main([*words, *methods, "--set", "UPDATES = 10"])

# %% [markdown]
# RA is the retained accuracy: the mean over all tasks at the end of the stream. LA is the mean right after each task
# was learned, and BTI = RA - LA. All of it comes from one matrix in each record, whose row t has the accuracies of the
# tasks so far after task t; here its mean over three networks.

# %%
import json
from pathlib import Path

import numpy as np

matrices, stored = {}, {}


def read_records() -> None:
    for file in sorted(Path("runs").glob("permutations/*/result.json")):
        record = json.loads(file.read_text())
        updates = f", updates {record['config']['updates']}" if "updates" in record["config"] else ""
        name = record["cell"]["method"] + updates
        matrices[name] = np.mean(np.array(record["facts"]["matrices"], dtype=float), axis=0)  # nan: not seen yet
        stored[name] = record["budget"]["stored_numbers"]


read_records()
for name, matrix in matrices.items():
    print(f"{name}: {stored[name]:,} stored numbers", matrix.round(1), sep="\n")

# %% [markdown]
# Read the first column downwards: what is left of the first task as others follow. The naive network loses it, and
# the others keep most of it. The command has drawn the same:

# %%
import matplotlib.pyplot as plt

figure, axes = plt.subplots(figsize=(8, 5))
axes.imshow(plt.imread("runs/permutations/after-each-task.png"))
axes.set_axis_off()

# %% [markdown]
# Which remedy is better? Replay was given ten updates for each incoming batch. One update is what the leaderboard's
# streams have, since it is the best there, of those tried. Here it is not:

# %%
run.main([*words, "--only", "method=ER", "--set", "UPDATES = 1"])
read_records()
for name, matrix in matrices.items():
    print(f"{name:22} retained {matrix[-1].mean():.1f}, right after each task {matrix.diagonal().mean():.1f}")

# %% [markdown]
# On our machine replay retains 64.6 with one update and 83.1 with ten; compress-then-recall stands between them at
# 76.6. So anybody can have either result, by what the baseline is given: with one update for each ten images, a task
# of 200 is learned in twenty updates, which are too few. A comparison must try settings for its baseline as it does
# for its method, and choose on training images. We looked at test images here, so neither figure counts.
#
# It is also one stream of four short tasks, and the ± that was printed is over its three networks alone. For what the
# suite claims see `leaderboard/README.md`: three streams of each kind, of twenty tasks of 1,000 images of
# Fashion-MNIST, with a dozen settings of replay tried. On permutations compress-then-recall is 2.1 ± 1.4 points above
# replay, and `absorbed alone`, which makes no outer step, is not above it. On rotations it is the other way round:
# absorbing alone is 9.0 ± 2.3 above replay, and learned memories are hardly above it (1.7 ± 1.4). The page
# `docs/memories-that-add-up.md` says why.
