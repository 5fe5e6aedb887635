"""Data: sizes, disjoint splits, checksums that fire, augmentation that is what it says."""

import os
from pathlib import Path

import pytest
import torch

from isce import data
from isce.data import DATASETS, Split


def test_digits() -> None:
    sets = data.load("digits", download=False)
    assert tuple(map(len, sets)) == DATASETS["digits"].sizes
    for split in sets:
        assert split.images.dtype == torch.uint8
        assert split.images.shape[1:] == (1, 8, 8)
        assert split.labels.dtype == torch.int64
        assert set(split.labels.tolist()) == set(range(10))
    floats = data.to_float(sets.train.images)
    assert float(floats.mean()) == pytest.approx(DATASETS["digits"].mean[0], abs=0.01)
    assert float(floats.std()) == pytest.approx(DATASETS["digits"].std[0], abs=0.01)
    assert (float(floats.min()), float(floats.max())) == (0.0, 1.0)


def test_kept_reads_a_data_set_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    sets = data.kept("digits")
    assert data.kept("digits") is sets
    assert torch.equal(sets.test.images, data.load("digits").test.images)
    monkeypatch.setenv("ISCE_DATA", str(tmp_path))  # elsewhere the data may be others
    assert data.kept("digits") is not sets


def test_splits_are_disjoint_and_fixed() -> None:
    from sklearn.datasets import load_digits

    sets = data.load("digits")
    seen = [tuple(image.flatten().tolist()) for split in sets for image in split.images]
    assert sorted(seen) == sorted(tuple((v * 255 / 16).round().astype(int)) for v in load_digits().data)
    assert torch.equal(sets.test.images, data.load("digits").test.images)


@pytest.mark.parametrize("name", ["mnist", "cifar10"])
def test_real_data(name: str) -> None:
    folder = data.data_dir() / {"mnist": "MNIST", "cifar10": "cifar-10-batches-py"}[name]
    if not folder.exists():
        pytest.skip(f"{name} is not in {data.data_dir()}")
    sets = data.load(name, download=False)
    assert tuple(map(len, sets)) == DATASETS[name].sizes
    assert sets.train.images.shape[1:] == DATASETS[name].shape
    images = data.to_float(sets.train.images[:20_000])
    assert images.mean((0, 2, 3)).tolist() == pytest.approx(DATASETS[name].mean, abs=0.005)
    assert images.std((0, 2, 3)).tolist() == pytest.approx(DATASETS[name].std, abs=0.005)


def test_missing_damaged_and_wrong_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match=r"unknown data set 'mnits' \(did you mean 'mnist'\?\)"):
        data.load("mnits")
    with pytest.raises(FileNotFoundError, match="mnist could not be read .*download=True") as caught:
        data.load("mnist", tmp_path, download=False)
    assert "\n" not in str(caught.value)
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for name in ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1"):
        (raw / f"{name}-ubyte").write_bytes(os.urandom(64))
    with pytest.raises(FileNotFoundError, match="mnist could not be read"):
        data.load("mnist", tmp_path, download=False)
    wrong = Split(torch.zeros(60_000, 1, 28, 28, dtype=torch.uint8), torch.zeros(60_000, dtype=torch.int64))
    monkeypatch.setattr(data, "_decode", lambda *_: (wrong, wrong))
    with pytest.raises(ValueError, match="is not the published data"):
        data.load("mnist", tmp_path)


def test_subset_is_nested_and_mixed() -> None:
    split = data.load("digits").test
    few, more = data.subset(split, 50), data.subset(split, 100)
    assert torch.equal(few.images, more.images[:50])
    assert not torch.equal(few.images, split.images[:50])
    assert torch.equal(data.subset(split, len(split)).images[:50], few.images)
    assert torch.equal(data.subset(split, None).labels[:50], few.labels)
    assert torch.equal(data.subset(split, None).labels.sort().values, split.labels.sort().values)
    for n in (0, -1, 501):
        with pytest.raises(ValueError, match=r"n must be a whole number from 1 to 500 images"):
            data.subset(split, n)


def test_floats_are_not_divided_again() -> None:
    with pytest.raises(TypeError, match="want uint8 images, 0 to 255, got torch.float32"):
        data.to_float(torch.rand(2, 1, 8, 8))


def test_zeros_move_in_where_an_image_is_shifted(generator: torch.Generator) -> None:
    white = torch.full((300, 1, 8, 8), 255, dtype=torch.uint8)
    sums = data.augment(white, generator, shift=2).sum((1, 2, 3)).tolist()
    assert {*sums} == {255 * a * b for a in (6, 7, 8) for b in (6, 7, 8)}


def test_augmentation_shifts_and_flips_each_image(generator: torch.Generator) -> None:
    image = torch.zeros(1, 3, 32, 32, dtype=torch.uint8)
    image[:, :, 10, 20] = 255
    out = data.augment(image.expand(500, -1, -1, -1).contiguous(), generator, shift=4)
    assert out.dtype == torch.uint8
    places = out[:, 0].flatten(1).argmax(1)
    rows, columns = (places // 32).tolist(), (places % 32).tolist()
    assert set(rows) == set(range(6, 15))
    assert set(columns) == set(range(16, 25)) | set(range(7, 16))  # 20 shifted, or its mirror image 11 shifted
    assert torch.equal(out[:, 0], out[:, 2])
    flipped = sum(c <= 15 for c in columns) / 500
    assert 0.4 < flipped < 0.6
