# %% [markdown]
# # Judge another's distilled set
#
# Papers publish distilled sets as files, each in its own layout, and judge them in their own way. `suite.evaluate`
# reads such a file and judges it as this suite judges its own memories, beside real images of the same budget. This
# makes a file in the layout of Dataset Condensation (DC) whose worth is known: its images are real ones, drawn at
# random, so it is worth what random real images are.

# %%
import torch

from suite.datasets.digits import Digits
from suite.datasets.sources import default_data_dir
from suite.keys import Key

data = Digits().load(default_data_dir(), Key(0), validation=0.0)
chosen = Key(7).permutation(len(data.train))
rows = torch.stack([chosen[data.train.labels[chosen] == c][0] for c in range(10)])
images, labels = data.train.images[rows], data.train.labels[rows]
print(images.shape, labels.tolist())

# %% [markdown]
# DC's authors write a dictionary: `data` is a list of experiments, each with images and classes, and
# `accs_all_exps` has the accuracies that they measured, from 0 to 1. Here they claim 99 percent.

# %%
torch.save({"data": [[images, labels]], "accs_all_exps": {"ConvNet": [0.99, 0.99]}}, "res_DC_digits_ConvNet_1ipc.pt")

# %% [markdown]
# What a file does not say must be declared, since a guess would change the result. Without `--space` the command ends
# in a sentence that says what is missing, and nothing is judged. (2 is the exit status of a usage error.)

# %%
from suite import evaluate

words = ["res_DC_digits_ConvNet_1ipc.pt", "--as", "dc", "--data-set", "digits", "--classes", "data-set"]
refused = evaluate.main([*words, "--out", "judged"])

# %% [markdown]
# These images were standardized by the mean and the deviation of the data set's training images, and we say so. The
# rest makes it short: a small network, five of them, no training on the full data.

# %%
words += ["--space", "standardized:data-set", "--printed", "99"]
for setting in ("ARCHITECTURE = @architectures.mlp()", "NETWORKS = 5", "FULL_DATA_EPOCHS = 0"):
    words += ["--set", setting]
evaluate.main([*words, "--tracking-uri", "none", "--out", "judged"])

# %% [markdown]
# The last lines have the authors' figures beside ours: the claim does not hold. The table has the set beside random
# real images. Both are that, so the seven points between them on our machine are the luck of ten images. The ± of one
# set is over its networks and does not see this luck; with other seeds (`--seed 1`) other real images are drawn.
#
# It left a record and a memory like any other, which can be loaded, shown and trained on:

# %%
import json
from pathlib import Path

import suite

(file,) = Path("judged").glob("*/*/memory.safetensors")
record = json.loads((file.parent / "result.json").read_text())
accuracies = {m["method"]: m["mean"] for m in record["measurements"] if m["split"] == "test"}
print({method: round(mean, 1) for method, mean in accuracies.items()})
memory = suite.load(file)
memory

# %% [markdown]
# Are they the same images that the file has? They went back to pixels and through the data set's preprocessing:

# %%
recalled, of_class = memory.recall()
print("largest difference:", float((recalled - images).abs().max()))

# %% [markdown]
# `docs/judging.md` has the other layouts, what each must declare, and eight protocols (`--protocols`).
