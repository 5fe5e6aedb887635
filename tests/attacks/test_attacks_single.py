"""SimBA's queries, DeepFool's margins, AutoAttack's record."""

import inspect
import sys
from functools import partial

import pytest
import torch
from torch import nn

from isce import attacks
from isce.attacks import random
from isce.attacks.objectives import OBJECTIVES
from isce.attacks.simba import dct_matrix


class Counting(nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model, self.rows = model, 0

    def forward(self, x):
        self.rows += len(x)
        return self.model(x)


def by_the_book(model, x, y, order, queries, step):
    """SimBA as Algorithm 1 of the paper has it, for one image (1, ...); counts every call of the model."""
    odds = lambda z: OBJECTIVES["ce"](model(z).double(), y, None).item()  # noqa: E731
    used, best = 1, odds(x)
    for i in order:
        for sign in (-1, 1):
            if used == queries:
                return x, used, False
            z = x.clone().flatten()
            z[i] = (z[i] + sign * step).clamp(0, 1)
            z = z.view_as(x)
            used += 1
            if (value := odds(z)) > best + 8 * torch.finfo(torch.float32).eps * model(z).abs().max():
                best, x = value, z
                if model(x).argmax(1) != y:
                    return x, used, True
                break
    return x, used, False


@pytest.mark.parametrize("queries", [1, 2, 40, 300])
def test_simba_follows_the_paper_and_counts_its_queries(trained, digits, queries):
    model = trained("sce")
    x, y = digits[2][:24], digits[3][:24]
    out, used = attacks.simba(model, x, y, queries=queries, step_size=0.25, return_queries=True)
    clean = model(x).argmax(1) == y
    seeds = random.image_seeds(x, random.draw_key(None))
    for i in clean.nonzero()[:, 0].tolist():
        order = torch.cat([random.permutations(seeds[i : i + 1], p, 64) for p in range(5)], dim=1)[0].tolist()
        expected, count, won = by_the_book(model, x[i : i + 1], y[i : i + 1], order, queries, 0.25)
        assert used[i] == (count if won else queries)
        torch.testing.assert_close(out[i : i + 1], expected)
        counting = Counting(model)
        attacks.simba(counting, x[i : i + 1], y[i : i + 1], queries=queries, step_size=0.25)
        assert counting.rows == used[i]
    assert (used[~clean] == 1).all()
    assert used.max() <= queries


def test_simba_in_one_run_gives_the_whole_curve(trained, digits):
    model, x, y = trained("sce"), digits[2][:40], digits[3][:40]
    out, used = attacks.simba(model, x, y, queries=150, step_size=0.1, return_queries=True)
    right = model(out).argmax(1) == y
    assert 0 < right.sum() < 40
    for q in (30, 80):
        short = attacks.simba(model, x, y, queries=q, step_size=0.1)
        assert (model(short).argmax(1) == y).sum() == ((used > q) | right).sum()


def test_dct_basis():
    matrix = dct_matrix(8)
    torch.testing.assert_close(matrix @ matrix.T, torch.eye(8, dtype=torch.float64))
    fftpack = pytest.importorskip("scipy.fftpack")
    torch.testing.assert_close(
        matrix, torch.from_numpy(fftpack.dct(torch.eye(8).double().numpy(), axis=0, norm="ortho"))
    )


def test_dct_step_is_one_wave(trained, digits):
    """After two or three queries the perturbation is one cosine of norm step_size, of a low frequency."""
    model, x, y = trained("sce"), 0.5 + 0.02 * digits[2][:30], digits[3][:30]
    y = model(x).argmax(1)
    out = attacks.simba(model, x, y, queries=3, step_size=0.1, basis="dct", freq_dims=2)
    waves = dct_matrix(8).float() @ (out - x)[:, 0] @ dct_matrix(8).float().T
    moved = waves.flatten(1).abs().amax(1) > 0.05
    assert moved.any()
    assert waves[:, 2:].abs().max() < 1e-5
    assert waves[:, :, 2:].abs().max() < 1e-5
    torch.testing.assert_close(
        waves[moved].abs().remainder(0.1).minimum(0.1 - waves[moved].abs().remainder(0.1)),
        torch.zeros_like(waves[moved]),
        rtol=0,
        atol=1e-4,
    )


@pytest.mark.parametrize("head", ["sce", "isce", "mmc"])
@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_deepfool_points_survive_reevaluation(trained, digits, head, norm):
    model, x, y = trained(head), digits[2][:80], digits[3][:80]
    surface = attacks.RawLogits(model) if head == "isce" else model
    out = attacks.deepfool(surface, x, y, norm=norm)
    wrong = model(out).argmax(1) != y
    assert wrong.float().mean() > 0.95
    for size in (1, 7):
        assert torch.equal(torch.cat([model(part).argmax(1) for part in out.split(size)]) != y, wrong)
    import copy

    assert torch.equal(copy.deepcopy(model).double()(out.double()).argmax(1) != y, wrong)


def test_more_steps_of_deepfool_change_nothing_once_done(trained, digits):
    model, x, y = trained("sce"), digits[2][:40], digits[3][:40]
    assert torch.equal(attacks.deepfool(model, x, y), attacks.deepfool(model, x, y, steps=100))


def test_fab_finds_smaller_perturbations_than_deepfool(trained, digits):
    model, x, y = trained("sce"), digits[2][:40], digits[3][:40]
    near, far = (a(model, x, y) - x for a in (lambda *k: attacks.fab(*k, steps=20), attacks.deepfool))
    near, far = near.flatten(1).norm(dim=1), far.flatten(1).norm(dim=1)
    assert (near <= far * 1.001).float().mean() > 0.95
    assert near.mean() < 0.97 * far.mean()


@pytest.mark.parametrize("head", ["sce", "isce"])
def test_fab_within_a_radius_finds_all_that_it_finds_without(trained, digits, head):
    """Its bisection, too, comes before the radius is asked for."""
    model, x, y = trained(head), digits[2][:200], digits[3][:200]
    fab = partial(attacks.fab, model, x, y, steps=15)
    shortest = (fab() - x).flatten(1).norm(dim=1)
    for eps in shortest[shortest > 0].quantile(torch.tensor([0.2, 0.4, 0.6, 0.8])).tolist():
        within = fab(eps=eps)
        assert bool((model(within).argmax(1) != y)[shortest <= eps].all())
        assert float((within - x).flatten(1).norm(dim=1).max()) <= eps * 1.000001


def test_autoattack_names_what_felled_each_image(trained, digits):
    model, x, y = trained("isce"), digits[2][:60], digits[3][:60]
    y = torch.where(torch.arange(60) < 3, (y + 1) % 10, y)
    out, record = attacks.autoattack(model, x, y, eps=0.5, steps=20, queries=100, return_record=True)
    wrong, clean_wrong = model(out).argmax(1) != y, model(x).argmax(1) != y
    assert [r != "robust" for r in record] == wrong.tolist()
    assert [r == "clean" for r in record] == clean_wrong.tolist()
    assert {"apgd-ce", "robust", "clean"} <= set(record)
    with pytest.raises(ValueError, match="no attacks given"):
        attacks.autoattack(model, x, y, eps=0.5, attacks=())
    only = attacks.autoattack(model, x, y, eps=0.5, steps=20, attacks=("apgd-ce",))
    first = torch.tensor([r in ("apgd-ce", "clean") for r in record])
    assert torch.equal(model(only).argmax(1) != y, first)


def test_each_attack_fells_a_trained_model_at_a_large_radius(trained, digits):
    """Unbounded attacks reach 100 %: nothing in our own code stops them."""
    x, y = digits[2][:60], digits[3][:60]
    for head in ("sce", "isce", "mmc", "arcface"):
        model = trained(head)
        for name, options in (("pgd", {"steps": 40}), ("apgd", {"steps": 40}), ("square", {"queries": 300})):
            out = getattr(attacks, name)(model, x, y, eps=4.0, objective="margin", **options) if name != "square" else (
                attacks.square(model, x, y, eps=4.0, **options))  # fmt: skip
            assert (model(out).argmax(1) == y).float().mean() <= 0.04, (head, name)


@pytest.mark.parametrize("head", ["sce", "isce"])
def test_path_of_pgd_is_what_pgd_walks(trained, digits, head):
    """Its first step out of the class is pgd's success; it goes on after it, and does not depend on the batch."""
    model, x, y = trained(head), digits[2][:100], digits[3][:100]
    path = attacks.pgd_path(model, x, y, eps=0.5, steps=10)
    assert path.shape == (11, len(x), 10)
    right = model(x).argmax(1) == y
    fooled = (path.argmax(2) != y).any(0)
    assert torch.equal(fooled[right], (model(attacks.pgd(model, x, y, eps=0.5, steps=10)).argmax(1) != y)[right])
    assert 0 < fooled[right].float().mean() < 1
    loss = OBJECTIVES["ce"]
    assert loss(path[-1], y, None).mean() > loss(path[0], y, None).mean()
    torch.testing.assert_close(
        attacks.pgd_path(model, x, y, eps=0.5, steps=10, batch_size=7), path, rtol=1e-3, atol=1e-3
    )
    with pytest.raises(ValueError, match="eps must be finite"):
        attacks.pgd_path(model, x, y, eps=0.0)


def test_autoattack_is_the_standard_cascade_at_its_standard_budget(monkeypatch):
    module, seen = sys.modules["isce.attacks.autoattack"], []
    for name in ("apgd", "apgd_targeted", "fab", "square"):

        def noted(model, x, y, *, name=name, **options):
            budget = options.get("steps", options.get("queries"))
            seen.append((name, options.get("objective"), budget, len(x)))
            return x

        monkeypatch.setattr(module, name, noted)
    net, x = nn.Sequential(nn.Flatten(), nn.Linear(36, 10)), torch.rand(4, 1, 6, 6)
    attacks.autoattack(net, x, net(x).argmax(1), eps=0.1)
    cascade = [
        ("apgd", "ce", 100, 4),
        ("apgd_targeted", "dlr", 100, 4),
        ("fab", None, 100, 4),
        ("square", None, 5000, 4),
    ]
    assert seen == cascade


@pytest.mark.parametrize(
    ("attack", "defaults"),
    [
        ("pgd", {"norm": "l2", "restarts": 1, "objective": "ce", "targeted": False}),
        ("deepfool", {"steps": 50, "overshoot": 0.02, "num_classes": 10}),
        ("simba", {"step_size": 0.2, "basis": "pixel"}),
        ("apgd", {"steps": 100, "objective": "ce", "restarts": 1}),
        ("apgd_targeted", {"steps": 100, "n_targets": 9}),
        ("fab", {"steps": 100, "n_targets": 9, "restarts": 1}),
        ("square", {"queries": 5000, "p_init": 0.8}),
    ],
)
def test_defaults_are_the_published_ones(attack, defaults):
    """Records are made with them."""
    parameters = inspect.signature(getattr(attacks, attack)).parameters
    assert {name: parameters[name].default for name in defaults} == defaults


def test_random_targets_are_uniform_over_the_wrong_classes():
    x = torch.rand(400, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    net, seen = nn.Sequential(nn.Flatten(), nn.Linear(16, 5)), []
    y = net(x).argmax(1)

    def noted(z, labels, targets):
        seen.append((targets - labels) % 5)
        return z[:, 0]

    attacks.fgsm(net, x, y, eps=0.1, targeted=True, objective=noted)
    shift = torch.cat(seen).bincount(minlength=5)
    assert shift[0] == 0
    assert (shift[1:] > 60).all()


@pytest.mark.parametrize("attack", [partial(attacks.fgsm, eps=0.1), partial(attacks.simba, queries=40)])
def test_targeted_attacks_raise_the_target(attack):
    x = 0.4 + 0.2 * torch.rand(8, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = nn.Sequential(nn.Flatten(), nn.Linear(16, 5))
    y = net(x).argmax(1)
    t = (y + 2) % 5
    found = attack(net, x, y, targeted=True, targets=t)
    odds = OBJECTIVES["ce_targeted"]
    assert (odds(net(found), y, t) > odds(net(x), y, t)).all()


def test_each_restart_starts_elsewhere(monkeypatch):
    counters = []
    for name in ("pgd", "apgd"):
        module = sys.modules[f"isce.attacks.{name}"]
        start = module.random_in_ball

        def noted(x, seeds, counter, *rest, start=start, **more):
            counters.append(counter)
            return start(x, seeds, counter, *rest, **more)

        monkeypatch.setattr(module, "random_in_ball", noted)
        net, x = nn.Sequential(nn.Flatten(), nn.Linear(36, 10)), torch.rand(4, 1, 6, 6)
        getattr(attacks, name)(net, x, net(x).argmax(1), eps=1e-3, steps=2, restarts=3)
        assert counters == [0, 1, 2], name
        counters.clear()
