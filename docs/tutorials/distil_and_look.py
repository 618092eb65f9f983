# %% [markdown]
# # Distil digits, and look
#
# A notebook in a Python file: each `# %%` begins a cell. It makes a memory of scikit-learn's handwritten digits, in a
# minute or two on two cores, looks at it and trains a network of yours on it. Nothing is downloaded.

# %%
import torch
from torch import nn

import suite

memory = suite.distil("digits", images_per_class=1, progress=False)
print(memory)

# %% [markdown]
# The memory holds bases, which all classes share, and addressing matrices, whose rows say how much of each basis an
# image of a class has. Together they are fewer numbers than one image for each class.

# %%
for name, tensor in memory.tensors.items():
    print(f"{name:10}{tuple(tensor.shape)}, {tensor.numel()} numbers")
print("one image for each class:", len(memory.class_names) * memory.shape.numel)

# %% [markdown]
# What it recalls: several images for each class. In a notebook a line with `memory` alone shows them.

# %%
images, labels = memory.display()
print(f"{len(images)} images of {memory.shape}, {len(images) // len(memory.class_names)} for each class")
memory

# %% [markdown]
# The same by hand: a row of an addressing matrix times the bases is a recalled image.

# %%
bases, matrices = memory.tensors["bases"], memory.tensors["matrices"]
three = torch.einsum("k,kchw->chw", matrices[0, 3], bases)
recalled, of_class = memory.recall()
print("largest difference:", float((three - recalled[of_class == 3][0]).abs().max()))

# %% [markdown]
# What is it worth? Fresh networks are trained on what is recalled and tested on real images that nothing has seen
# before, beside networks that were trained on as many random real images.

# %%
accuracies = memory.evaluate()
accuracies

# %% [markdown]
# Your own network, trained with the settings of the memory's file.

# %%
network = nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
memory.train(network)
