"""Distilled sets of others: one reader for each layout of files, and what must be declared of what a file does not say.

dc, trajectories, decoded, idc, rat_bptt, rcig, kip, image_folder, hugging_face, own
              readers, each with the names that `--as` takes
hub           what is fetched from the Hugging Face Hub
base          what readers share: the set that they give, their decorator, limits for files of strangers
torch_files   the one place where a file of torch.save is opened
spaces        what was done to the pixels, and the way into the data set's own preprocessing
declared      declarations held against what a file says
cache         a set that was read once, for the runs that judge it

A new format is one file with a function under `@importer("name")`; as an outside method it is named by `--plugin`.
"""

from suite.importers import dc, decoded, hugging_face, idc, image_folder, kip, own, rat_bptt, rcig, trajectories

__all__ = ["dc", "decoded", "hugging_face", "idc", "image_folder", "kip", "own", "rat_bptt", "rcig", "trajectories"]
