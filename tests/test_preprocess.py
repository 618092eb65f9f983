"""Preprocessing: equal to the formulas written out in numpy, undone where it can be, restored bit for bit."""

import numpy as np
import pytest
import torch

from suite.errors import RunError, UsageError
from suite.images import preprocess
from suite.images.preprocess import PREPROCESSINGS, fit, fit_stored, restore


def pictures(n: int = 60, channels: int = 3, size: int = 4, seed: int = 0) -> torch.Tensor:
    """Correlated uint8 pictures, so that covariances have large and small eigenvalues."""
    generator = np.random.default_rng(seed)
    rough = generator.normal(size=(n, channels * size * size)) @ np.diag(np.logspace(0, -2, channels * size * size))
    mixed = rough @ np.linalg.qr(generator.normal(size=(channels * size * size,) * 2))[0]
    return torch.from_numpy((255 / (1 + np.exp(-2 * mixed))).astype(np.uint8)).reshape(n, channels, size, size)


def numpy_zca_image(train: np.ndarray, x: np.ndarray, regularization: float) -> np.ndarray:
    """The released code's steps one after the other, for images (n d) in any scale."""

    def unit(images: np.ndarray) -> np.ndarray:
        images = images - images.mean(axis=1, keepdims=True)
        return images / np.linalg.norm(images, axis=1, keepdims=True)

    u = unit(train)
    e, v = np.linalg.eigh(u.T @ u / len(u))
    return unit(x) @ (v @ np.diag((e + regularization * e.mean()) ** -0.5) @ v.T)


def numpy_zca_feature(train: np.ndarray, x: np.ndarray, regularization: float) -> np.ndarray:
    centred = train - train.mean(axis=0)
    u, s, _ = np.linalg.svd(centred.T @ centred / (len(train) - 1))
    return (x - train.mean(axis=0)) @ (u @ np.diag((s + regularization) ** -0.5) @ u.T)


@pytest.mark.parametrize("regularization", [0.1, 100.0])
@pytest.mark.parametrize(("name", "reference"), [("zca_image", numpy_zca_image), ("zca_feature", numpy_zca_feature)])
def test_whitening_is_the_formula(name, reference, regularization: float, monkeypatch) -> None:
    monkeypatch.setattr(preprocess, "CHUNK", 7 * 48)  # several pieces, the last one short
    train, test = pictures(), pictures(9, seed=1)
    transform = fit(name, train, regularization)
    flat = [images.flatten(1).double().numpy() / 255 for images in (train, test)]
    expected = torch.from_numpy(reference(*flat, regularization)).reshape(test.shape)
    torch.testing.assert_close(transform.apply(test.double() / 255), expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(transform.apply(test), expected.float(), rtol=1e-5, atol=1e-6)


def test_the_whitening_of_the_paper_has_unit_trace_and_no_use_for_the_pixel_scale() -> None:
    train = pictures()
    u = preprocess._unit(train.flatten(1).double())
    covariance = u.T @ u / len(u)
    assert abs(covariance.trace() - 1) < 1e-12
    ridge = 0.1 / 48  # λ = ρ / d, since the trace is 1
    m = fit("zca_image", train, 0.1).tensors()["whitening"].double()
    torch.testing.assert_close(m @ (covariance + ridge * torch.eye(48)) @ m, torch.eye(48).double(), rtol=0, atol=1e-4)
    torch.testing.assert_close(fit("zca_image", train.double(), 0.1).tensors()["whitening"].double(), m)


def test_standardised_training_images_have_mean_0_and_deviation_1() -> None:
    train = pictures()
    transform = fit("standardize", train, 0.1)
    images = transform.apply(train.double() / 255)
    torch.testing.assert_close(images.mean((0, 2, 3)), torch.zeros(3).double(), atol=1e-12, rtol=0)
    torch.testing.assert_close(images.std((0, 2, 3), correction=0), torch.ones(3).double())


@pytest.mark.parametrize("name", ["none", "standardize", "zca_feature"])
def test_display_undoes_what_keeps_everything(name: str) -> None:
    transform = fit(name, pictures(), 0.1)
    pixels = pictures(9, seed=1).double() / 255
    torch.testing.assert_close(transform.display(transform.apply(pixels)), pixels, rtol=0, atol=1e-9)
    assert transform.display(10 * torch.randn(3, 3, 4, 4, generator=torch.Generator().manual_seed(0))).amax() <= 1


def test_display_of_the_papers_whitening_is_the_picture_at_full_contrast() -> None:
    transform = fit("zca_image", pictures(), 0.1)
    pixels = pictures(9, seed=1).double() / 255
    low, high = pixels.amin((1, 2, 3), keepdim=True), pixels.amax((1, 2, 3), keepdim=True)
    shown = transform.display(transform.apply(pixels))
    torch.testing.assert_close(shown, (pixels - low) / (high - low), rtol=0, atol=1e-9)


@pytest.mark.parametrize("level", [0, 3, 255])
@pytest.mark.parametrize("name", PREPROCESSINGS)
def test_constant_images_give_numbers(name: str, level: int) -> None:
    train = torch.cat([pictures(), torch.full((2, 3, 4, 4), level, dtype=torch.uint8)])
    transform = fit(name, train, 0.1)
    whitened = transform.apply(train)
    assert whitened.isfinite().all() and transform.display(whitened).isfinite().all()
    if name == "zca_image":
        assert whitened[-2:].abs().max() == 0


def test_channels_without_contrast_are_only_moved() -> None:
    train = pictures()
    train[:, 1] = 17
    assert fit("standardize", train, 0.1).apply(train)[:, 1].abs().max() < 1e-12


def test_the_papers_whitening_of_nothing_but_constants_is_refused() -> None:
    with pytest.raises(RunError, match="every training image is constant"):
        fit("zca_image", torch.full((5, 1, 2, 2), 7, dtype=torch.uint8), 0.1)


@pytest.mark.parametrize("name", PREPROCESSINGS)
def test_every_transform_is_restored_from_what_it_describes(name: str) -> None:
    transform = fit(name, pictures(), 0.3)
    again = restore(transform.describe(), {k: v.clone() for k, v in transform.tensors().items()})
    images = pictures(5, seed=2)
    assert torch.equal(again.apply(images), transform.apply(images))
    assert again.describe() == transform.describe() and again.name == name
    assert transform.apply(images).dtype == torch.float32
    assert transform.apply(images[:0]).shape == (0, 3, 4, 4)


@pytest.mark.parametrize("name", ["standardize", "zca_image", "zca_feature"])
def test_other_tensors_than_the_described_are_refused(name: str) -> None:
    transform = fit(name, pictures(), 0.1)
    key = next(iter(transform.tensors()))
    tensors = transform.tensors() | {key: transform.tensors()[key] * (1 + 1e-6)}
    with pytest.raises(RunError, match="SHA-256"):
        restore(transform.describe(), tensors)
    with pytest.raises(RunError, match="is none of"):
        restore(transform.describe() | {"name": "zca_cornea"}, transform.tensors())


def test_a_description_says_what_was_done() -> None:
    described = fit("zca_image", pictures(), 100.0).describe()
    assert described["name"] == "zca_image" and described["regularization"] == 100.0 and len(described["sha256"]) == 64
    assert described != fit("zca_image", pictures(), 99.0).describe()
    assert fit("standardize", pictures(), 100.0).describe() == fit("standardize", pictures(), 1.0).describe()


def test_an_unknown_preprocessing_is_answered_with_the_nearest() -> None:
    with pytest.raises(UsageError, match="did you mean 'zca_image'"):
        fit("zca_imag", pictures(), 0.1)


def test_a_stored_fit_is_the_fit_and_is_made_once(tmp_path, monkeypatch) -> None:
    train = pictures()
    fresh = fit("zca_image", train, 0.1)
    stored = fit_stored("zca_image", train, 0.1, tmp_path)
    monkeypatch.setattr(preprocess, "fit", lambda *_: pytest.fail("fitted again"))
    again = fit_stored("zca_image", train, 0.1, tmp_path)
    assert stored.describe() == again.describe() == fresh.describe()
    file = next(tmp_path.glob("*.safetensors"))
    content = bytearray(file.read_bytes())
    content[-1] ^= 64
    file.write_bytes(bytes(content))
    with pytest.raises(RunError, match="is damaged"):
        fit_stored("zca_image", train, 0.1, tmp_path)
