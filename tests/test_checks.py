"""Every check fires on a model built to mask, and stays quiet on an honest one; and each rule, on answers that are known."""

import dataclasses
import json
import re
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from isce import checks, data, record
from isce.checks import Check
from isce.train import Spec

SCE = Spec("digits", "lenet5", "sce")
CHEAP: dict[str, Any] = {"eps": 0.5, "steps": 3, "restarts": 2, "queries": 5, "draws": 2}
NAMES = [
    "single step", "more steps", "restarts", "larger eps", "unbounded eps", "black box", "transfer", "noise", "objective",
    "zero gradients", "saturation", "gradient norms", "finite differences", "deepfool", "randomness", "probabilities",
    "one by one",
]  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """A hundred small images are too little work to share out."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def sce(digits_sce: nn.Module) -> nn.Module:
    return digits_sce


@pytest.fixture(scope="module")
def digits() -> tuple[Tensor, Tensor]:
    split = data.subset(data.load("digits").test, 100)
    return data.to_float(split.images), split.labels


@pytest.fixture(scope="module")
def results(sce: nn.Module, digits: tuple[Tensor, Tensor]) -> dict[str, dict[str, Check]]:
    """The checks of the honest and the saturated model, and those that the other masking ones were built for, by name."""
    found = {}
    for name, mask in {"honest": nn.Sequential, **checks.MASKS}.items():
        only = None if name in ("honest", "saturated") else (*checks.BUILT_FOR[name], "one by one")
        budget = {"steps": 10, "restarts": 8, "queries": 60, "draws": 100 if name == "quantised" else 20}
        done = checks.run_checks(mask(sce), *digits, eps=0.5, surrogate=sce, only=only, **budget)
        found[name] = {check.name: check for check in done}
    return found


# On models


def test_all_are_there_in_order(results: dict[str, dict[str, Check]]) -> None:
    assert list(results["honest"]) == list(results["saturated"]) == NAMES
    assert {name for built in checks.BUILT_FOR.values() for name in built} <= set(NAMES)
    assert checks.BUILT_FOR.keys() == checks.MASKS.keys()


def test_quiet_on_the_honest_model(results: dict[str, dict[str, Check]]) -> None:
    assert checks.failures(list(results["honest"].values())) == []
    assert [c.name for c in results["honest"].values() if c.passed is None] == ["deepfool"]


@pytest.mark.parametrize(("mask", "name"), [(m, name) for m, built in checks.BUILT_FOR.items() for name in built])
def test_fires_on_a_model_built_to_mask(results: dict[str, dict[str, Check]], mask: str, name: str) -> None:
    assert results[mask][name].passed is False, results[mask][name].says


@pytest.mark.parametrize("name", NAMES)
def test_every_check_fires_somewhere(results: dict[str, dict[str, Check]], name: str) -> None:
    assert any(name in built and results[mask][name].passed is False for mask, built in checks.BUILT_FOR.items())


def test_a_mask_fails_only_what_it_masks(results: dict[str, dict[str, Check]]) -> None:
    """The attacks of isce are not misled by saturation: only the checks of float32 cross-entropy see it."""
    assert set(checks.failures(list(results["saturated"].values()))) == set(checks.BUILT_FOR["saturated"])
    assert results["saturated"]["deepfool"].passed  # DeepFool does not depend on the scale
    assert results["randomised"]["one by one"].passed is None


def linear(classes: int = 2) -> tuple[nn.Module, Tensor, Tensor]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(12, classes))
        x = 0.3 + 0.4 * torch.rand(60, 12)
    return model, x, model(x).argmax(1)


def test_linear_model_has_known_answers() -> None:
    model, x, y = linear()
    done = {c.name: c for c in checks.run_checks(model, x, y, **CHEAP | {"eps": 0.2, "steps": 20})}
    assert done["finite differences"].numbers["ratio"] == pytest.approx(1, abs=1e-3)  # the log-odds are linear
    margin = model(x).diff(dim=1).abs()[:, 0] / model[0].weight.diff(dim=0).norm()  # type: ignore[index,operator]
    assert done["single step"].numbers["standing_other"] == pytest.approx(100 * float((margin > 0.2).float().mean()))
    assert done["unbounded eps"].numbers["left"] == 0
    assert {n for n, c in done.items() if c.passed is None} == {"black box", "transfer", "deepfool"}
    assert checks.failures(list(done.values())) == []


def test_linf(sce: nn.Module, digits: tuple[Tensor, Tensor]) -> None:
    done = checks.run_checks(sce, *digits, **CHEAP | {"eps": 0.05, "steps": 10}, norm="linf")
    assert checks.failures(done) == []


def test_same_seed_same_answer_and_batch_size_does_not_matter(sce: nn.Module, digits: tuple[Tensor, Tensor]) -> None:
    x, y = (part[:20] for part in digits)
    first, again, batched = (
        checks.run_checks(sce, x, y, surrogate=sce, batch_size=size, **CHEAP) for size in (20, 20, 7)
    )
    assert first == again
    assert [c.verdict for c in first] == [c.verdict for c in batched]
    assert [c.numbers.get("alone") for c in first] == [c.numbers.get("alone") for c in batched]
    noisy = checks.randomised(sce)
    assert checks.run_checks(noisy, x, y, **CHEAP) == checks.run_checks(noisy, x, y, **CHEAP)


def test_a_model_without_a_gradient_fails_what_needs_one(sce: nn.Module, digits: tuple[Tensor, Tensor]) -> None:
    class Detached(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return sce(images.detach())

    done = {c.name: c for c in checks.run_checks(Detached(), *digits, **CHEAP | {"eps": 1.0, "queries": 100})}
    for name in ("more steps", "larger eps", "zero gradients", "finite differences"):
        assert done[name].passed is False
        assert "has no gradient: attack it with simba or square" in done[name].says
    assert done["randomness"].passed
    assert done["black box"].passed is False
    assert done["black box"].numbers["alone"] > 7
    assert done["black box"].numbers["standing"] == 100
    with pytest.raises(ValueError, match="the surrogate has no gradient"):
        checks.run_checks(sce, *digits, surrogate=Detached(), only="transfer", **CHEAP)


def test_leaves_everything_as_it_was(sce: nn.Module, digits: tuple[Tensor, Tensor]) -> None:
    x, y = (part[:10].clone() for part in digits)
    model, before = nn.Sequential(sce), torch.random.get_rng_state()
    weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    model.train()
    sce.eval()
    checks.run_checks(model, x, y, **CHEAP)
    assert model.training
    assert not sce.training
    assert torch.equal(torch.random.get_rng_state(), before)
    assert all(torch.equal(weights[name], tensor) for name, tensor in model.state_dict().items())
    assert all(p.grad is None and p.requires_grad for p in model.parameters())
    assert torch.equal(x, digits[0][:10])


def test_probabilities_are_reported_not_warned_of(sce: nn.Module, digits: tuple[Tensor, Tensor]) -> None:
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        checks.run_checks(checks.softmaxed(sce), digits[0][:10], digits[1][:10], **CHEAP)


@pytest.mark.parametrize("mask", ["saturated", "softmaxed"])
def test_masks_that_act_on_outputs_keep_decisions(sce: nn.Module, digits: tuple[Tensor, Tensor], mask: str) -> None:
    with torch.no_grad():
        assert torch.equal(checks.MASKS[mask](sce)(digits[0]).argmax(1), sce(digits[0]).argmax(1))


# The rules


@pytest.mark.parametrize(("n", "most"), [(20, 2), (100, 6), (1000, 31), (10_000, 233)])
def test_tolerance(n: int, most: int) -> None:
    assert not checks.beyond_tolerance(most, n)
    assert checks.beyond_tolerance(most + 1, n)
    assert not checks.beyond_tolerance(0, n)


def felled(count: int, n: int = 100, start: int = 0) -> Tensor:
    return (torch.arange(n) >= start) & (torch.arange(n) < start + count)


@pytest.mark.parametrize("name", checks.PAIRS)
def test_pairs_are_compared_image_by_image(name: str) -> None:
    check = partial(checks.compared, name)
    assert check(felled(50), felled(40)).passed
    assert check(felled(50), felled(56)).passed
    assert not check(felled(50), felled(57)).passed
    other = check(felled(50), felled(10, start=50))  # weaker on the whole, and yet it fells what the stronger does not
    assert not other.passed
    assert other.numbers == {"images": 100, "alone": 10, "standing": 50.0, "standing_other": 90.0}


def test_larger_eps() -> None:
    rising = {0.1: felled(0), 0.2: felled(30), 0.4: felled(100)}
    assert checks.larger_eps(rising).passed
    assert checks.larger_eps(dict(reversed(rising.items()))).passed  # by level, not by order
    assert checks.larger_eps({0.1: felled(100), 0.2: felled(100)}).passed  # nothing left to rise
    assert not checks.larger_eps({0.1: felled(20), 0.2: felled(20)}).passed  # flat
    lost = checks.larger_eps({0.1: felled(20), 0.2: felled(60, start=20)})
    assert not lost.passed
    assert lost.numbers["lost"] == 20


def test_unbounded() -> None:
    assert checks.unbounded(felled(100)).passed
    assert checks.unbounded(felled(94)).passed
    assert not checks.unbounded(felled(93)).passed


def test_gradients() -> None:
    some = torch.tensor([1.0, 1e-3, 1e-9])
    assert checks.zero_gradients(some).passed
    assert checks.zero_gradients(some).numbers == {"images": 3, "zero": 0, "below_1e-8": 1}
    assert not checks.zero_gradients(torch.tensor([1.0, 0.0])).passed
    lost = checks.zero_gradients(torch.tensor([1.0, torch.nan]))
    assert not lost.passed
    assert "It is NaN for 1." in lost.says
    assert checks.gradient_norms(torch.full((9,), 1e-4), torch.full((9,), 10.0)).passed
    assert not checks.gradient_norms(torch.full((9,), 1e-6), torch.full((9,), 10.0)).passed
    assert not checks.gradient_norms(torch.zeros(9), torch.zeros(9)).passed


def test_saturation() -> None:
    assert checks.saturation(torch.tensor([0.5, 1 - 1e-7])).passed
    assert not checks.saturation(torch.tensor([0.5, 1 - 1e-8])).passed  # rounds to 1 in float32


def test_deepfool_on_two_surfaces() -> None:
    one, inf = torch.ones(9), torch.full((9,), torch.inf)
    assert checks.deepfool(one, one).passed
    assert checks.deepfool(one, 8 * one).passed  # the outputs are the better surface: nothing is hidden
    assert not checks.deepfool(8 * one, one).passed
    assert checks.deepfool(one, inf).passed
    assert not checks.deepfool(inf, one).passed
    assert not checks.deepfool(inf, inf).passed


def test_finite_differences() -> None:
    real = torch.tensor([[1.0, -2.0, 3.0]])
    assert checks.finite_differences(real, real).numbers["ratio"] == 1
    assert not checks.finite_differences(0 * real, real).passed
    assert not checks.finite_differences(20 * real, real).passed
    assert checks.finite_differences(0 * real, 0 * real).passed is False


def test_outputs() -> None:
    z = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    assert checks.randomness(torch.stack([z, z])).passed
    assert not checks.randomness(torch.stack([z, z + 0.01])).passed
    assert checks.probabilities(z).passed
    assert not checks.probabilities(z.softmax(1)).passed
    assert checks.one_by_one(z, z * (1 + 1e-6)).passed
    assert not checks.one_by_one(z, z + 0.1).passed
    assert checks.one_by_one(0 * z, 0 * z).passed


def test_cross_entropy_is_the_naive_one() -> None:
    model, x, y = linear()
    gradient = checks.input_gradients(checks.saturated(model, 1e6), x, y, checks.cross_entropy)
    assert gradient.shape == x.shape
    assert not gradient.any()


# Bad input


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"eps": 0.0}, ValueError, "eps must be finite and > 0"),
        ({"norm": "l1"}, ValueError, "unknown norm 'l1'"),
        ({"steps": 2.5}, TypeError, "steps must be an integer"),
        ({"restarts": 0}, ValueError, "restarts must be at least 1"),
        ({"draws": 0}, ValueError, "draws must be at least 1"),
        ({"objective": "hinge"}, ValueError, "unknown objective 'hinge'"),
        ({"only": "restart"}, ValueError, r"unknown check 'restart' \(did you mean 'restarts'"),
        ({"only": ["restart"]}, ValueError, r"unknown check 'restart' \(did you mean 'restarts'"),
    ],
)
def test_bad_settings(change: dict[str, Any], error: type[Exception], words: str) -> None:
    model, x, y = linear()
    with pytest.raises(error, match=words):
        checks.run_checks(model, x, y, **CHEAP | change)


def test_bad_images() -> None:
    model, x, y = linear()
    with pytest.raises(ValueError, match="none right"):
        checks.run_checks(model, x, 1 - y, **CHEAP)
    with pytest.raises(ValueError, match="none right"):
        checks.run_checks(model, x[:0], y[:0], **CHEAP)
    with pytest.raises(ValueError, match=r"in \[0, 1\]"):
        checks.run_checks(model, 2 * x, y, **CHEAP)


def test_a_model_that_writes_into_its_input_is_refused() -> None:
    class Shifts(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.sub_(0.1).flatten(1)

    x = torch.rand(20, 1, 1, 4, generator=torch.Generator().manual_seed(0))
    given = x.clone()
    with pytest.raises(ValueError, match="changes its input in place"):
        checks.run_checks(Shifts(), given, x.flatten(1).argmax(1), **CHEAP)
    assert torch.equal(given, x)


def test_one_image_can_show_nothing() -> None:
    model, x, y = linear()
    right = (model(x).argmax(1) == y).nonzero()[:1, 0]
    found = checks.run_checks(checks.quantised(model), x[right], y[right], **CHEAP | {"batch_size": None, "only": None})
    compared = [c for c in found if c.name in ("single step", "larger eps", "unbounded eps", "black box", "noise")]
    assert [c.passed for c in compared] == [None] * 5
    assert compared[0].says == "Not applicable: 1 image can show nothing, give more."
    assert not next(c.passed for c in found if c.name == "zero gradients")


# Records


def test_record_is_made_once_and_again_for_other_weights(sce: nn.Module) -> None:
    done = checks.load_or_check(SCE, n=20, device="cpu", progress=False, **CHEAP)
    (path,) = (SCE.folder / "checks").glob("*.json")
    assert path.stem == done["run_id"]
    assert done["kind"] == "checks"
    assert done["schema"] == record.SCHEMA
    assert done["parameters"]["n"] == 20
    assert done["provenance"]["data_sha256"] == data.DATASETS["digits"].sha256
    assert [check.name for check in checks.from_record(done)] == NAMES
    stamp = path.stat().st_mtime_ns
    assert checks.load_or_check(SCE, n=20, device="cpu", progress=False, **CHEAP) == done
    assert path.stat().st_mtime_ns == stamp
    assert checks.load_or_check(SCE, n=21, device="cpu", progress=False, **CHEAP)["run_id"] != path.stem
    path.write_text(json.dumps(done | {"weights_sha256": "another"}))
    assert checks.load_or_check(SCE, n=20, device="cpu", progress=False, **CHEAP)["checks"] == done["checks"]
    with pytest.raises(ValueError, match=r"'step' \(did you mean 'steps'"):
        checks.load_or_check(SCE, eps=0.5, step=3, progress=False)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"eps": 0.0}, "eps must be finite and > 0, got 0"),
        ({"n": -3}, "n must be a whole number from 1 to 500 test images, got -3"),
        ({"n": 0}, "n must be a whole number from 1 to 500 test images, got 0"),
        ({"n": 501}, "got 501"),
    ],
)
def test_what_cannot_be_checked_is_said_before_a_training(
    given: dict[str, Any], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checks.train, "load_or_train", lambda *_: pytest.fail("trained"))
    with pytest.raises(ValueError, match=words):
        checks.load_or_check(SCE, **{"eps": 0.5, "n": 20, **given}, device="cpu", progress=False)


def test_record_is_made_again_for_another_surrogate(digits_isce: nn.Module, sce: nn.Module) -> None:
    spec = Spec("digits", "lenet5", "isce")
    done = checks.load_or_check(spec, n=20, device="cpu", progress=False, **CHEAP)
    path = spec.folder / "checks" / f"{done['run_id']}.json"
    for former, kept in (("another", False), (None, True)):  # the first records did not name it
        known = done | {"checks": [], "surrogate_sha256": former}
        path.write_text(json.dumps({key: value for key, value in known.items() if value is not None}))
        again = checks.load_or_check(spec, n=20, device="cpu", progress=False, **CHEAP)
        assert (again["checks"] == []) == kept
        assert again.get("surrogate_sha256") == (None if kept else done["surrogate_sha256"])


def test_infinite_numbers_survive_a_record() -> None:
    check = checks.deepfool(torch.full((3,), torch.inf), torch.ones(3))
    text = json.dumps({"checks": [checks._plain(check)]}, allow_nan=False)
    assert checks.from_record(json.loads(text)) == [check]


def test_tables() -> None:
    some = [checks.unbounded(felled(100)), checks.unbounded(felled(0)), checks.skipped("transfer", "no surrogate")]
    some = [dataclasses.replace(check, name=name) for check, name in zip(some, "abc", strict=True)]
    table = checks.table({"one": some, "two": some[:2]})
    assert list(table["one"]) == ["pass", "FAIL", "-"]
    assert list(table.columns) == ["one", "two"]
    assert checks.failures(some) == ["b"]
    assert list(checks.details({"one": some})["verdict"]) == ["pass", "FAIL", "-"]
    pages = [checks.styled(part).to_html() for part in (table, table[["one"]])]
    assert all("FAIL" in page for page in pages)
    cells = [set(re.findall(r'id="(\w+)"', page)) for page in pages]
    assert not cells[0] & cells[1]  # two tables of one page: the colours of the one are not the other's
