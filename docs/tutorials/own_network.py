# %% [markdown]
# # Train your own network on a memory
#
# A memory stands in for a training set: a network of yours learns from what it recalls, without the data set. This
# takes one from the gallery, of as many numbers as ten images of digits, and trains a network with it in seconds. (In
# a checkout; elsewhere `suite.load` takes the path of a memory's file.)

# %%
import torch
from torch import nn

import suite

memory = suite.load("digits-1ipc-bptt")
memory

# %% [markdown]
# `memory.train` trains as those networks were trained that measured it, with the epochs, the rate and the
# augmentation of its file. Any network will do that takes its images and gives logits of its classes.

# %%
torch.manual_seed(0)
network = nn.Sequential(nn.Flatten(), nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10))
memory.train(network)

# %% [markdown]
# Now images of your own. They are pixels, from 0 to 255 or from 0 to 1, and the network has learned from preprocessed
# ones: `memory.preprocess` makes these of those. Here they are scikit-learn's digits, whose values go to 16.

# %%
from sklearn.datasets import load_digits

digits = load_digits()
pixels = torch.from_numpy(digits.images)[:, None].float() / 16
truth = torch.from_numpy(digits.target)


def accuracy(network: nn.Module, inputs: torch.Tensor) -> float:
    with torch.no_grad():
        return 100 * float((network(inputs).argmax(1) == truth).float().mean())


right = accuracy(network, memory.preprocess(pixels))
unprepared = accuracy(network, pixels)
print(f"{right:.1f}% with preprocessing, {unprepared:.1f}% without")

# %% [markdown]
# That is a look, not a measurement: the memory was distilled from three quarters of these images. Test images that
# nothing has seen are the business of `memory.evaluate()`, and the gallery has its result (92.0).
#
# The other way is a loop of your own. What is recalled is a data set of tensors:

# %%
loader = torch.utils.data.DataLoader(memory.dataset(), batch_size=10, shuffle=True)
linear = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
optimizer = torch.optim.Adam(linear.parameters(), lr=0.01)
for _ in range(100):
    for images, labels in loader:
        optimizer.zero_grad()
        nn.functional.cross_entropy(linear(images), labels).backward()
        optimizer.step()
by_hand = accuracy(linear, memory.preprocess(pixels))
print(f"a linear network: {by_hand:.1f}%")

# %% [markdown]
# And some of its answers:

# %%
answers = linear(memory.preprocess(pixels[:10])).argmax(1)
print("answers", answers.tolist())
print("truth  ", truth[:10].tolist())
