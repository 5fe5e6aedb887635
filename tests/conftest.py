"""Tests compute in a folder of their own, so that nothing found in runs/ hides a missing step."""

import dataclasses
from collections.abc import Iterator

import pytest
import torch

from isce import profiles
from isce.models import Classifier
from isce.profiles import Profile
from isce.train import Spec, load_or_train


@pytest.fixture(scope="session", autouse=True)
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ISCE_RUNS", str(tmp_path_factory.mktemp("runs")))
        yield


@pytest.fixture(scope="session")
def digits_isce(runs: None) -> Classifier:
    return load_or_train(Spec("digits", "lenet5", "isce"), "cpu", progress=False)


@pytest.fixture(scope="session")
def digits_sce(runs: None) -> Classifier:
    return load_or_train(Spec("digits", "lenet5", "sce"), "cpu", progress=False)


@pytest.fixture
def digits() -> Profile:
    return dataclasses.replace(profiles.load("digits"), n=20)


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)
