"""Distilled sets of others: every layout is read, what a file does not say is declared, and nothing is believed."""

import io
import os
import zipfile
from pathlib import Path
from typing import Any

import foreign_sets
import h5py
import msgpack
import numpy as np
import pytest
import torch
from command_line import as_people_run_it
from PIL import Image
from torch import Tensor

from suite.datasets.cifar import CIFAR10
from suite.datasets.digits import Digits
from suite.errors import RunError, SuiteError, UsageError
from suite.images import preprocess
from suite.importers import spaces
from suite.importers.base import FORMATS, ForeignSet, Reading, format_of, importer
from suite.importers.declared import Declared, Judgeable, settle
from suite.keys import Key
from suite.parameterizations.imported import Imported, ImportedLabels
from suite.types import DatasetInfo, ImageShape, Params

DIGITS = Digits().info
PIXELS = torch.rand(20, 1, 8, 8, generator=Key(0)("pixels").generator())
CLASSES = torch.arange(20) % 10
"""Two of each class, class by class twice over."""
SOFT = torch.softmax(torch.randn(20, 10, generator=Key(0)("soft").generator()) + 8 * torch.eye(10)[CLASSES], 1)
"""Probabilities, the largest that of the class."""
PLAIN = Declared(space="pixels", classes="data-set")


def read(
    name: str,
    path: Path,
    info: DatasetInfo = DIGITS,
    experiment: int | None = None,
    waves: tuple[float, float] | None = None,
) -> ForeignSet:
    with as_people_run_it():
        found = FORMATS[name].read(path, Reading(info, experiment, waves))
    assert isinstance(found, ForeignSet)
    return found


def settled(name: str, path: Path, declared: Declared = PLAIN, **reading: Any) -> Judgeable:
    with as_people_run_it():
        return settle(path, FORMATS[name], read(name, path, **reading), declared, reading.get("info", DIGITS))


def by_class(rows: Tensor) -> Tensor:
    return torch.stack([rows[c == CLASSES] for c in range(10)])


def refusal(name: str, path: Path, declared: Declared = PLAIN, **reading: Any) -> str:
    """The one sentence with which a file or a declaration is refused."""
    with pytest.raises(SuiteError) as caught:
        settled(name, path, declared, **reading)
    sentence = str(caught.value)
    assert "\n" not in sentence and "\x1b" not in sentence and len(sentence) < 600, sentence
    return sentence


# ---------------------------------------------------------------- layouts


@pytest.mark.parametrize("old", [False, True])
def test_dc_files_give_one_experiment_with_its_own_accuracies(tmp_path: Path, old: bool) -> None:
    accuracies = {"ConvNet": [0.7, 0.71, 0.5, 0.51], "MLP": []}
    file = foreign_sets.dc(tmp_path / "res.pt", [(PIXELS, CLASSES), (1 - PIXELS, CLASSES)], accuracies, old)
    assert (file.read_bytes()[:2] == b"PK") != old
    known = settled("dc", file, experiment=1)
    assert torch.equal(known.tensors["images"], by_class(1 - PIXELS))
    assert known.parameterization == Imported() and known.settled["labels"] == "class"
    assert read("dc", file, experiment=1).accuracies == {"ConvNet": pytest.approx((50, 51))}
    assert read("dc", file, experiment=0).accuracies == {"ConvNet": pytest.approx((70, 71))}
    assert "which of the 2 sets" in refusal("dc", file)
    assert "has 2, numbered 0 to 1" in refusal("dc", file, experiment=2)


@pytest.mark.parametrize("rate", [torch.tensor(0.05), torch.tensor([0.05]), 0.05, None])
def test_mtt_folders_give_the_rate_that_was_kept(tmp_path: Path, rate: Tensor | float | None) -> None:
    folder = foreign_sets.mtt(tmp_path / "set", PIXELS, CLASSES, rate)
    if rate is None:
        assert settled("mtt", folder).lr is None
        assert "stores no rate" in refusal("mtt", folder, Declared("pixels", lr="file", classes="data-set"))
        return
    assert "--lr file" in refusal("mtt", folder) and "--lr protocol" in refusal("mtt", folder)
    at_its = settled("mtt", folder, Declared("pixels", lr="file", classes="data-set"))
    assert at_its.lr == pytest.approx(0.05) and at_its.parameterization == Imported(rate=True)
    assert set(at_its.tensors) == {"images", "rate"}
    at_ours = settled("mtt", folder, Declared("pixels", lr="protocol", classes="data-set"))
    assert at_ours.lr is None and set(at_ours.tensors) == {"images"}


@pytest.mark.parametrize(("name", "other"), [("mask.pt", "fred"), ("weights_best.pt", "haba")])
def test_folders_of_those_that_decode_their_images_are_not_taken_for_mtt_s(
    name: str, other: str, tmp_path: Path
) -> None:
    folder = foreign_sets.mtt(tmp_path / "set", PIXELS, CLASSES)
    torch.save(torch.ones(2), folder / name)
    assert f"by its {name} it is" in refusal("mtt", folder) and f"--as {other}" in refusal("mtt", folder)


# ---------------------------------------------------------------- what is decoded


def masks(kept: int = 6) -> Tensor:
    """Of every class the places of the mean and of `kept - 1` other frequencies, drawn for the class."""
    made = torch.zeros(10, 64)
    for number, of_class in enumerate(made):
        of_class[torch.randperm(63, generator=Key(number).generator())[: kept - 1] + 1] = 1
        of_class[0] = 1
    return made.view(10, 1, 8, 8)[CLASSES]


FREQUENCIES = 5 * torch.randn(20, 1, 8, 8, generator=Key(0)("frequencies").generator())
WAVES = Declared("standardized:0/1", classes="data-set")


def test_fred_s_images_are_decoded_and_its_budget_is_its_frequencies(tmp_path: Path) -> None:
    folder = foreign_sets.fred(tmp_path / "set", FREQUENCIES, masks(), CLASSES)
    found = read("fred", folder)
    assert found.stored == 20 * 6 + 10 * 6  # of every image, and for each class their places
    known = settled("fred", folder, WAVES)
    assert known.parameterization == Imported(decoded=2)
    assert torch.equal(known.tensors["images"], by_class(torch.load(folder / "images_best.pt")))
    assert any("120 frequencies and 60 places" in note for note in known.notes)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda mask: torch.cat([1 - mask[:1], mask[1:]]), "have masks that differ"),
        (lambda mask: mask * 0.5, "other numbers than 0 and 1"),
        (lambda mask: mask[:10], "10 masks"),
        (lambda mask: torch.eye(8).expand(20, 1, 8, 8), "that its masks drop"),
        (lambda mask: mask[..., :4], "its images are 1x8x4"),
    ],
)
def test_fred_s_masks_that_are_not_those_of_its_images_are_refused(tmp_path: Path, damage: Any, words: str) -> None:
    folder = foreign_sets.fred(tmp_path / "set", FREQUENCIES, masks(), CLASSES)
    torch.save(damage(masks()).contiguous(), folder / "mask.pt")
    assert words in refusal("fred", folder, WAVES)


@pytest.mark.parametrize("given", [1, 3])
def test_haba_s_images_pass_through_each_of_its_networks(tmp_path: Path, given: int) -> None:
    info = CIFAR10().info
    bases = torch.randn(20, given, 32, 32, generator=Key(0)("bases").generator())
    networks = torch.nn.ModuleList(foreign_sets.Hallucinator(given, 3, 32) for _ in range(2))
    folder = foreign_sets.haba(tmp_path / "set", bases, networks)
    known = settled("haba", folder, WAVES, info=info)
    weights = sum(weight.numel() for weight in networks.parameters())
    assert (
        known.parameterization == Imported(decoded=4) and read("haba", folder, info).stored == bases.numel() + weights
    )
    with torch.no_grad():
        expected = torch.stack([network(bases[6:8]) for network in networks], 1).flatten(0, 1)
    assert torch.allclose(known.tensors["images"][3], expected, atol=1e-5)


def test_haba_s_networks_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    networks = torch.nn.ModuleList(foreign_sets.Hallucinator(1, 1, 8) for _ in range(2))
    folder = foreign_sets.haba(tmp_path / "set", PIXELS, networks)
    whole = networks.state_dict()
    for damaged, words in (
        ({k: v for k, v in whole.items() if k != "1.shift"}, "no table of networks"),
        ({k if k != "1.shift" else "1.shifted": v for k, v in whole.items()}, "has no '1.shift'"),
        (whole | {"1.scale": whole["1.scale"][0]}, "not 4 axes"),
        (whole | {"1.enc.weight": torch.ones(1, 2, 3, 3)}, "do not fit its networks"),
        (whole | {"0.scale": torch.ones(1, 1, 5, 5)}, "do not fit its networks"),
        ([], "no table of networks"),
    ):
        torch.save(damaged, folder / "weights_best.pt")
        assert words in refusal("haba", folder, WAVES)


def fields(channels: int = 1) -> list[foreign_sets.SineField]:
    return [foreign_sets.SineField(channels) for _ in range(20)]


@pytest.mark.parametrize("rate", [None, torch.tensor(0.02)])
def test_ddif_s_networks_give_the_colour_at_each_place(tmp_path: Path, rate: Tensor | None) -> None:
    made = fields()
    file = foreign_sets.ddif(tmp_path / "synset_best.pt", made, CLASSES, rate)
    lr = None if rate is None else "file"
    known = settled("ddif", file, Declared("standardized:0/1", lr=lr, classes="data-set"), waves=(30.0, 10.0))
    assert known.parameterization == Imported(decoded=2, rate=rate is not None)
    assert read("ddif", file, waves=(30.0, 10.0)).stored == 20 * sum(p.numel() for p in made[0].parameters())
    image = known.tensors["images"][7, 1]  # the network of row 17
    with torch.no_grad():
        for row, column in ((0, 0), (0, 7), (5, 2), (7, 7)):
            expected = made[17].colour(2 * row / 7 - 1, 2 * column / 7 - 1)
            assert torch.allclose(image[:, row, column], expected, atol=1e-4)


def test_ddif_s_networks_that_are_not_alike_are_refused(tmp_path: Path) -> None:
    file, made = tmp_path / "synset_best.pt", fields()
    states = [dict(one.state_dict()) for one in made]
    wide = dict(foreign_sets.SineField(1, 6).state_dict())
    other = {"last_layer.linear.weight": torch.ones(1, 4)}
    for whole, words in (
        ({"nf": [*states[:-1], wide], "label": CLASSES}, "differ in the shape"),
        ({"nf": [{**state, **other} for state in states], "label": CLASSES}, "do not fit each other"),
        ({"nf": [*states[:-1], {}], "label": CLASSES}, "other tensors"),
        ({"nf": [], "label": CLASSES}, "no list of networks"),
        ({"nf": states, "label": torch.eye(10)[CLASSES]}, "no class numbers"),
        ({"nf": [dict(one.state_dict()) for one in fields(3)], "label": CLASSES}, "its images are 3x8x8"),
    ):
        torch.save(whole, file)
        assert words in refusal("ddif", file, WAVES, waves=(30.0, 10.0))


def test_datm_folders_have_logits_and_a_rate(tmp_path: Path) -> None:
    folder = foreign_sets.mtt(tmp_path / "set", PIXELS, SOFT.log() + 3, torch.tensor(0.02))
    known = settled("datm", folder, Declared("pixels", lr="file", classes="data-set"))
    assert known.parameterization == ImportedLabels(Imported(rate=True), "logits")
    taught = known.parameterization.labels(known.tensors, torch.arange(10))
    assert torch.allclose(taught, by_class(SOFT), atol=1e-6)
    assert "are logits" in refusal("datm", folder, Declared("pixels", "probabilities", "file", "data-set"))


def test_idc_images_hold_tiles_that_are_enlarged(tmp_path: Path) -> None:
    file = foreign_sets.idc(tmp_path / "data.pt", PIXELS, CLASSES)
    known = settled("idc", file, Declared(classes="data-set", factor=2))
    assert known.tensors["images"].numel() == PIXELS.numel()  # the budget is that of what is stored
    recalled = known.parameterization.recall(known.tensors, torch.tensor([3]))
    assert recalled.shape == (1, 8, 1, 8, 8)
    image = PIXELS[CLASSES == 3][1]
    tile = torch.nn.Upsample(size=8, mode="bilinear")(image[None, :, 4:, :4])[0]  # as IDC's `decode_zoom`
    assert torch.equal(recalled[0, 2 * 2 + 1], tile)
    assert settled("idc", file, Declared(classes="data-set", factor=1)).parameterization == Imported()
    assert "--factor" in refusal("idc", file, Declared(classes="data-set"))
    assert "are pixels" in refusal("idc", file, Declared("standardized:0/1", classes="data-set", factor=2))
    assert "must divide both sides" in refusal("idc", file, Declared(classes="data-set", factor=3))


def test_rat_bptt_files_have_rows_in_class_order_and_weights_for_labels(tmp_path: Path) -> None:
    rows = PIXELS[torch.argsort(CLASSES, stable=True)]
    plain = settled("rat_bptt", foreign_sets.rat_bptt(tmp_path / "hard.h5", rows))
    assert torch.equal(plain.tensors["images"], by_class(PIXELS)) and plain.parameterization == Imported()
    known = settled("rat_bptt", foreign_sets.rat_bptt(tmp_path / "soft.h5", PIXELS, 5 * SOFT))
    assert known.parameterization == ImportedLabels(Imported(), "weights")
    taught = known.parameterization.labels(known.tensors, torch.arange(10))
    assert torch.allclose(taught, by_class(SOFT), atol=1e-6)
    assert any("divided by its sum" in note for note in known.notes)


@pytest.mark.parametrize("part", ["ema_average", "params"])
def test_rcig_checkpoints_give_the_average_where_there_is_one(tmp_path: Path, part: str) -> None:
    file = foreign_sets.rcig(tmp_path / "checkpoint_7", PIXELS, SOFT - 0.1, part)
    known = settled("rcig", file)
    assert torch.equal(known.tensors["images"], by_class(PIXELS)) and f"'{part}'" in known.notes
    taught = known.parameterization.labels(known.tensors, torch.arange(10))
    assert torch.equal(taught, torch.eye(10)[:, None].expand(10, 2, 10))


def test_kip_files_are_channels_last(tmp_path: Path) -> None:
    info = CIFAR10().info
    images = torch.rand(10, 3, 32, 32, generator=Key(0).generator())
    known = settled("kip", foreign_sets.kip(tmp_path / "kip.npz", images, torch.eye(10) - 0.1), info=info)
    assert torch.equal(known.tensors["images"][:, 0], images)
    assert known.parameterization == ImportedLabels(Imported(), "regression")


def pictures(folder: Path, names: list[str], images: Tensor) -> Path:
    """Two PNG files for each class."""
    for c, name in enumerate(names):
        (folder / name).mkdir(parents=True)
        for i in range(2):
            pixels = (255 * images[2 * c + i, 0]).round().to(torch.uint8).numpy()
            Image.fromarray(pixels).save(folder / name / f"{i}.png")
    return folder


def test_image_folders_are_read_in_the_order_of_their_names(tmp_path: Path) -> None:
    names = [f"{c:05}" for c in range(10)]
    known = settled("image_folder", pictures(tmp_path / "numbered", names, PIXELS), Declared(classes="data-set"))
    assert torch.allclose(known.tensors["images"].flatten(0, 1), PIXELS, atol=0.5 / 255 + 1e-6)
    named = pictures(tmp_path / "named", list("0123456789"), PIXELS)
    assert settled("image_folder", named, Declared()).settled["classes"] == "by the names in the file"
    turned = Declared(classes=",".join("9876543210"))
    assert "in another order" in refusal("image_folder", named, turned)
    other = settled("image_folder", tmp_path / "numbered", turned)
    assert torch.equal(other.tensors["images"], known.tensors["images"].flip(0))


def test_an_outside_format_is_one_function(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("suite.importers.base.FORMATS", dict(FORMATS))

    @importer("mine", space="pixels")
    def mine(path: Path, reading: Reading) -> ForeignSet:
        """Mine."""
        return ForeignSet(PIXELS, CLASSES)

    assert format_of("mine").summary == "Mine."
    with pytest.raises(UsageError, match="already there"):
        importer("mine")(mine)


def test_every_format_says_in_a_line_what_it_reads() -> None:
    assert len(FORMATS) == 13
    assert all(20 < len(layout.summary) < 130 and layout.summary.endswith(".") for layout in FORMATS.values())


# ---------------------------------------------------------------- what must be declared


def test_what_a_file_does_not_say_is_asked_for_by_the_name_of_its_option(tmp_path: Path) -> None:
    hard = foreign_sets.mtt(tmp_path / "hard", PIXELS, CLASSES)
    soft = foreign_sets.mtt(tmp_path / "soft", PIXELS, SOFT)
    sentence = refusal("mtt", hard, Declared(classes="data-set"))
    assert sentence.startswith("--space: ") and spaces.CHOICES in sentence
    sentence = refusal("mtt", hard, Declared("pixels"))
    assert sentence.startswith("--classes: ") and "data-set" in sentence
    sentence = refusal("mtt", soft)
    assert sentence.startswith("--labels: ") and "probabilities, weights, logits, regression" in sentence


@pytest.mark.parametrize(
    ("declared", "words"),
    [
        (Declared("pixel", classes="data-set"), "there is no such space"),
        (Declared("standardized:0.1", classes="data-set"), "write the mean and the deviation"),
        (Declared("standardized:0.1/0", classes="data-set"), "above 0"),
        (Declared("standardized:0.1,0.2/1,1", classes="data-set"), "each of 1 channels"),
        (Declared("standardized:nan/1", classes="data-set"), "write the mean"),
        (Declared("zca_image:-1", classes="data-set"), "regularization, above 0"),
        (Declared("zca:none.npz", classes="data-set"), "there is no file none.npz"),
        (Declared("pixels", "soft", classes="data-set"), "there is no such kind"),
        (Declared("pixels", "logits", classes="data-set"), "stores one class number for each image"),
        (Declared("pixels", lr="fast", classes="data-set"), "file, protocol or a number"),
        (Declared("pixels", lr="-1", classes="data-set"), "a number above 0"),
        (Declared("pixels", classes="0,1,2"), "'3' is missing"),
        (Declared("pixels", classes="0,1,2,3,4,5,6,7,8,x"), "'x' is no class"),
        (Declared("pixels", classes="0,1,2,3,4,5,6,7,8,9,9"), "a name is there twice"),
        (Declared("pixels", classes="file:none.txt"), "there is no file none.txt"),
        (Declared("pixels", classes="data-set", factor=2), "hold no tiles"),
    ],
)
def test_a_wrong_declaration_is_refused(declared: Declared, words: str, tmp_path: Path) -> None:
    assert words in refusal("mtt", foreign_sets.mtt(tmp_path / "set", PIXELS, CLASSES), declared)


@pytest.mark.parametrize(
    ("labels", "kind", "words"),
    [
        (SOFT, "class", "are no classes"),
        (SOFT - 1, "probabilities", "no probabilities"),
        (5 * SOFT, "probabilities", "add up to 5 to 5, not to 1"),
        (SOFT - 1, "weights", "no weights"),
        (SOFT[:, :9], "logits", "have 9 numbers, for 10 classes"),
        (CLASSES + 1, None, "go from 1 to 10, for 10 classes"),
        (CLASSES.float(), None, "neither class numbers nor rows"),
        (torch.zeros(20, dtype=torch.long), None, "0 to 20 images for each of 10 classes"),
        (torch.full((20, 10), torch.nan), "logits", "NaN or infinity"),
    ],
)
def test_what_contradicts_the_file_is_refused(labels: Tensor, kind: str | None, words: str, tmp_path: Path) -> None:
    folder = foreign_sets.mtt(tmp_path / "set", PIXELS, labels)
    assert words in refusal("mtt", folder, Declared("pixels", kind, classes="data-set"))


def test_numbers_far_from_pixels_are_not_taken_for_pixels(tmp_path: Path) -> None:
    folder = foreign_sets.mtt(tmp_path / "set", 4 * PIXELS - 2, CLASSES)
    assert "go from -2 to 2, so they are no pixels" in refusal("mtt", folder).replace("1.99", "2").replace("1.98", "2")


def test_classes_in_another_order_are_brought_into_the_data_set_s(tmp_path: Path) -> None:
    names = tmp_path / "names.txt"
    names.write_text("\n".join("1234567890"))
    for declared in ("file:" + str(names), ",".join("1234567890")):
        known = settled(
            "mtt",
            foreign_sets.mtt(tmp_path / declared[-3:], PIXELS, SOFT),
            Declared("pixels", "probabilities", classes=declared),
        )
        assert torch.equal(known.tensors["images"], by_class(PIXELS).roll(1, 0))  # its class 0 is our class 1
        assert torch.equal(known.tensors["labels"], by_class(SOFT).roll(1, 0).roll(1, 2))


def test_labels_that_favour_some_classes_leave_the_order_of_the_file(tmp_path: Path) -> None:
    labels = torch.softmax(torch.eye(10)[0].repeat(20, 1) * torch.arange(20)[:, None], 1)
    known = settled(
        "mtt",
        foreign_sets.mtt(tmp_path / "set", PIXELS, labels),
        Declared("pixels", "probabilities", classes="data-set"),
    )
    assert torch.equal(known.tensors["images"].flatten(0, 1), PIXELS)
    assert any("in the file's order" in note for note in known.notes)


# ---------------------------------------------------------------- spaces


def whitening(features: int, mean: bool, file: Path) -> Params:
    """A matrix that can be undone, in a file as `--space zca:FILE` takes it."""
    matrix = torch.randn(features, features, generator=Key(1).generator(), dtype=torch.float64)
    tensors = {"whitening": matrix @ matrix.T / features + torch.eye(features)}
    tensors |= {"mean": torch.rand(features, generator=Key(2).generator(), dtype=torch.float64)} if mean else {}
    np.savez(file, **{name: tensor.numpy() for name, tensor in tensors.items()})
    return tensors


def test_images_come_back_to_the_pixels_that_they_were_made_of(tmp_path: Path) -> None:
    pixels = 1.5 * PIXELS.double() - 0.25
    ours = preprocess.fit("standardize", PIXELS, 0.1)
    known = whitening(64, True, tmp_path / "zca.npz")
    flat = ((pixels.flatten(1) - known["mean"]) @ known["whitening"].float().double()).reshape(pixels.shape)
    for text, images in (
        ("pixels", pixels),
        ("standardized:0.3/0.2", (pixels - 0.3) / 0.2),
        (f"zca:{tmp_path}/zca.npz", flat),
    ):
        done = spaces.converted(images, spaces.declared(text, DIGITS.shape).transform(), ours, tiles=False)
        assert torch.allclose(done.images, ours.apply(pixels), atol=1e-9), text
        assert done.outside["fraction"] == pytest.approx(float(((pixels < 0) | (pixels > 1)).double().mean()))
        assert done.outside["least"] == pytest.approx(float(pixels.min()))
    same = spaces.converted(ours.apply(pixels), ours, ours, tiles=False)
    assert torch.equal(same.images, ours.apply(pixels)) and same.words == "kept as they are"


def test_kip_s_whitening_leads_to_its_own_kind_alone(tmp_path: Path) -> None:
    known = whitening(64, False, tmp_path / "zca.npz")
    of = spaces.declared(f"zca:{tmp_path}/zca.npz", DIGITS.shape)
    assert of.text == "zca:zca.npz" and torch.equal(of.tensors["whitening"], known["whitening"])
    ours = preprocess.fit("zca_image", PIXELS, 0.1)
    done = spaces.converted(of.transform().apply(PIXELS), of.transform(), ours, tiles=False)
    assert torch.allclose(done.images, ours.apply(PIXELS), atol=1e-4) and not done.outside
    with pytest.raises(UsageError, match="no brightness and contrast"):
        spaces.converted(PIXELS, of.transform(), preprocess.fit("standardize", PIXELS, 0.1), tiles=False)
    with pytest.raises(UsageError, match="tiles can't be whitened"):
        spaces.converted(PIXELS, preprocess.fit("none", PIXELS, 0.1), ours, tiles=True)


def test_a_matrix_of_another_size_is_refused(tmp_path: Path) -> None:
    whitening(9, True, tmp_path / "zca.npz")
    with pytest.raises(RunError, match="must have 64 x 64 numbers"):
        spaces.declared(f"zca:{tmp_path}/zca.npz", ImageShape(1, 8, 8))


# ---------------------------------------------------------------- files of strangers


class Call:
    """What a pickle makes a free reader call."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.mark),)


@pytest.mark.parametrize("new", [True, False])
def test_a_pickle_calls_nothing(tmp_path: Path, new: bool) -> None:
    for name, content in (("dc", {"data": Call(tmp_path / "mark")}), ("idc", [PIXELS, Call(tmp_path / "mark")])):
        torch.save(content, tmp_path / "set.pt", _use_new_zipfile_serialization=new)
        assert "mkdir, which no distilled set needs" in refusal(name, tmp_path / "set.pt")
    assert not (tmp_path / "mark").exists()


def test_a_number_of_numpy_s_is_nothing_but_a_number(tmp_path: Path) -> None:
    for value in (np.datetime64("2020-01-01"), np.str_("x"), np.array([1.0]), np.array(["x"], dtype=object)):
        torch.save({"data": [[PIXELS, CLASSES]], "accs_all_exps": {"ConvNet": [value]}}, tmp_path / "set.pt")
        assert "is refused" in refusal("dc", tmp_path / "set.pt")


@pytest.mark.parametrize(
    "content",
    [
        {},
        {"data": []},
        {"data": [PIXELS]},
        {"data": [[PIXELS, CLASSES]], "accs_all_exps": [1]},
        {"data": [[PIXELS, CLASSES]], "accs_all_exps": {"ConvNet": [70.0]}},
        {"data": [["images", CLASSES]]},
        {"data": [[PIXELS.to_sparse(), CLASSES]]},
        {"data": [[torch.zeros(1).expand(20, 1, 8, 8), CLASSES]]},
        {"data": [[torch.zeros(1).expand(10**9, 1, 8, 8), CLASSES]]},
        {"data": [[PIXELS.to("meta"), CLASSES]]},
        {"data": [[PIXELS.to(torch.complex64), CLASSES]]},
        {"data": [[torch.zeros(0, 1, 8, 8), torch.zeros(0, dtype=torch.long)]]},
        {"data": [[PIXELS, CLASSES[:19]]]},
    ],
)
def test_a_torch_file_that_claims_or_lacks_something_is_refused(content: Any, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "set.pt")
    refusal("dc", tmp_path / "set.pt")


def test_an_archive_that_unpacks_to_more_is_refused(tmp_path: Path) -> None:
    torch.save([torch.zeros(2**20), CLASSES], tmp_path / "plain.pt")
    with (
        zipfile.ZipFile(tmp_path / "plain.pt") as plain,
        zipfile.ZipFile(tmp_path / "bomb.pt", "w", zipfile.ZIP_DEFLATED) as bomb,
    ):
        for member in plain.namelist():
            bomb.writestr(member, plain.read(member))
    assert "unpacks to 4,19" in refusal("idc", tmp_path / "bomb.pt")


@pytest.mark.parametrize("name", ["dc", "idc", "rat_bptt", "rcig", "kip"])
@pytest.mark.parametrize("content", [b"", b"x", b"PK\x03\x04", b"\x80\x02", b"\x89HDF\r\n\x1a\n", b"\x85", bytes(4096)])
def test_a_file_of_something_else_is_refused(name: str, content: bytes, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(content)
    assert "is refused" in refusal(name, tmp_path / "file")


@pytest.mark.parametrize("name", sorted(set(FORMATS) - {"memory"}))
def test_what_is_not_there_is_named(name: str, tmp_path: Path) -> None:
    refusal(name, tmp_path / "none")


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert "a pipe" in refusal("dc", tmp_path / "pipe")


def npz(file: Path, **members: bytes) -> Path:
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in members.items():
            archive.writestr(f"{name}.npy", content)
    return file


def header(shape: str, kind: str = "<f4") -> bytes:
    """The first bytes of an array of numpy's that claims a shape, and eight bytes of it."""
    text = f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode() + bytes(8)


def test_an_array_of_numpy_s_holds_numbers_and_as_many_as_it_says(tmp_path: Path) -> None:
    whole = io.BytesIO()
    np.save(whole, np.zeros((10, 10), "float32"))
    for images, words in (
        (header("(1000000000, 8, 8, 1)"), "claims a shape"),
        (header("(-5, -5)"), ""),
        (header("(2,)", "|O"), "not of numbers"),
        (header("(2,)", "<U1"), "not of numbers"),
        (b"x", ""),
    ):
        assert words in refusal("kip", npz(tmp_path / "set.npz", images=images, labels=whole.getvalue()))
    assert "no array 'labels'" in refusal("kip", npz(tmp_path / "set.npz", images=whole.getvalue()))


def test_an_hdf5_file_reads_nothing_but_itself(tmp_path: Path) -> None:
    secret = foreign_sets.rat_bptt(tmp_path / "secret.h5", PIXELS)
    for number, name in enumerate(("external link", "soft link", "external storage", "virtual", "huge", "texts")):
        file = tmp_path / f"{number}.h5"
        with h5py.File(file, "w") as opened:
            if name == "external link":
                opened["data"] = h5py.ExternalLink(str(secret), "data")
            elif name == "soft link":
                opened["data"] = h5py.SoftLink("/other")
                opened["other"] = np.zeros((20, 64), "float32")
            elif name == "external storage":
                opened.create_dataset("data", (20, 64), "float32", external=[(str(secret), 0, 20 * 64 * 4)])
            elif name == "virtual":
                layout = h5py.VirtualLayout((20, 64), "float32")
                layout[:] = h5py.VirtualSource(str(secret), "data", (20, 64))
                opened.create_virtual_dataset("data", layout)
            elif name == "huge":
                opened.create_dataset("data", (10**9, 64), "float32", chunks=(1, 64))
            else:
                opened["data"] = np.array([b"x"] * 20)
        sentence = refusal("rat_bptt", file)
        assert ("says that it holds" if name == "huge" else "is no array") in sentence, name


def test_a_checkpoint_of_flax_s_makes_room_for_nothing_that_is_not_there(tmp_path: Path) -> None:
    good = {
        "x_proto": foreign_sets.flax_array(PIXELS.permute(0, 2, 3, 1).numpy()),
        "y_proto": foreign_sets.flax_array(SOFT.numpy()),
    }
    claims = {
        "shape": msgpack.ExtType(1, msgpack.packb([[10**9, 8, 8, 1], "float32", b"1234"])),
        "size": msgpack.ExtType(1, msgpack.packb([[2, 8, 8, 1], "float32", b"1234"])),
        "negative": msgpack.ExtType(1, msgpack.packb([[-1, -1], "float32", b"1234"])),
        "type": msgpack.ExtType(1, msgpack.packb([[1], "object", b"12345678"])),
        "code": msgpack.ExtType(9, b"x"),
        "nested": msgpack.ExtType(1, msgpack.packb(msgpack.ExtType(1, b"x"))),
        "text": "images",
    }
    for name, images in claims.items():
        (tmp_path / name).write_bytes(msgpack.packb({"params": good | {"x_proto": images}}))
        assert "refused" in refusal("rcig", tmp_path / name) or name == "shape"
    for name, content in {
        "deep": b"\x91" * 100_000 + b"\xc0",
        "wide": b"\xdd\xff\xff\xff\xff" * 300,
        "map": b"\xdf\xff\xff\xff\xff" * 300,
        "list": msgpack.packb([1]),
        "bytes": b"\xc6\xff\xff\xff\xff",
    }.items():
        (tmp_path / name).write_bytes(content)
        assert "is refused" in refusal("rcig", tmp_path / name)


def png(width: int, height: int) -> bytes:
    """A picture whose header claims a size, and whose pixels are those of another."""
    import struct
    import zlib

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b"")


def test_pictures_of_any_size_and_names_of_any_kind_are_met_with_one_sentence(tmp_path: Path) -> None:
    for number, (name, content, words) in enumerate(
        [
            ("0.png", png(100_000, 10_000), ""),
            ("0.png", png(8, 9), "8 x 9 pixels"),
            ("0.png", b"text", ""),
            ("0.gif", b"GIF89a", "hold no PNG or JPEG"),
            ("\x1b[31m.png", b"text", ""),
        ]
    ):
        folder = tmp_path / str(number) / "a;rm -rf\x1b[2J"
        folder.mkdir(parents=True)
        (folder / name).write_bytes(content)
        assert words in refusal("image_folder", folder.parent, Declared(classes="data-set"))
    linked = tmp_path / "linked"
    linked.mkdir()
    (linked / "00000").symlink_to(tmp_path)
    assert "a link" in refusal("image_folder", linked)
    (tmp_path / "file").write_text("")
    assert "can't look into" in refusal("image_folder", tmp_path / "file")


def test_pictures_in_colours_are_not_made_grey(tmp_path: Path) -> None:
    (tmp_path / "set" / "00000").mkdir(parents=True)
    Image.new("RGB", (8, 8), (255, 0, 0)).save(tmp_path / "set" / "00000" / "0.png")
    assert "it is in colours" in refusal("image_folder", tmp_path / "set")


def test_archives_that_python_s_own_reader_does_not_know_are_refused(tmp_path: Path) -> None:
    """Found by tools/fuzz.py: zipfile has more than one kind of error."""
    torch.save([PIXELS, CLASSES], tmp_path / "set.pt")
    whole = (tmp_path / "set.pt").read_bytes()
    central, end = whole.index(b"PK\x01\x02"), whole.index(b"PK\x06\x06")
    newer = bytearray(whole)
    newer[central + 6] = 99  # the version that is needed to unpack a member
    disks = bytearray(whole)
    locator = disks.index(b"PK\x06\x07", end)
    disks[locator + 16] = 2  # the number of disks
    for damaged in (newer, disks):
        (tmp_path / "set.pt").write_bytes(damaged)
        assert "is refused" in refusal("idc", tmp_path / "set.pt", Declared(classes="data-set", factor=1))
