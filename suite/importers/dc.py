"""Files of Dataset Condensation: DC (Zhao et al., 2021), DSA and DM, `res_METHOD_DATA_NETWORK_Nipc.pt`."""

from pathlib import Path
from typing import Any

from suite.errors import RunError, UsageError
from suite.importers import torch_files
from suite.importers.base import ForeignSet, Reading, images_of, importer, labels_of, refused


@importer("dc", several=True)
def read(path: Path, reading: Reading) -> ForeignSet:
    """DC, DSA and DM: `res_*.pt`, a list of experiments with images, classes and accuracies."""
    whole = torch_files.load(path)
    sets = whole.get("data") if isinstance(whole, dict) else None
    if not isinstance(sets, list) or not sets or not all(isinstance(s, (list, tuple)) and len(s) == 2 for s in sets):
        raise refused(path, "it has no list 'data' of pairs of images and labels")
    if reading.experiment is None and len(sets) > 1:
        raise UsageError(f"--experiment: say which of the {len(sets)} sets in {path}, 0 to {len(sets) - 1}")
    number = reading.experiment or 0
    if number >= len(sets):
        raise UsageError(f"--experiment {number}: {path} has {len(sets)}, numbered 0 to {len(sets) - 1}")
    images, labels = sets[number]
    stored = whole.get("accs_all_exps", {})
    return ForeignSet(
        images=images_of(path, images, reading),
        labels=labels_of(path, labels),
        accuracies=_accuracies(path, stored, number, len(sets)),
        notes=(f"experiment {number} of {len(sets)} in the file",),
    )


def _accuracies(path: Path, stored: Any, number: int, sets: int) -> dict[str, tuple[float, ...]]:
    """By network the accuracies of one experiment in percent; the file has those of all, one after the other."""
    if not isinstance(stored, dict):
        raise refused(path, "its 'accs_all_exps' is no table of accuracies")
    accuracies = {}
    for network, values in stored.items():
        fits = isinstance(values, list) and all(isinstance(v, (int, float)) and 0 <= v <= 1 for v in values)
        if not isinstance(network, str) or not fits:
            raise RunError(f"{path} is refused: its 'accs_all_exps' holds what is no accuracy from 0 to 1")
        each = len(values) // sets
        if each and len(values) == each * sets:
            accuracies[network] = tuple(100 * float(v) for v in values[each * number : each * (number + 1)])
    return accuracies
