"""On linear models every attack that has a closed form reaches it: over batch sizes, shapes and dtypes."""

from functools import partial

import pytest
import torch

from conftest import Linear, centred
from isce import attacks
from isce.attacks.norms import norm_of, onto_hyperplane, steepest

SHAPES = [(20,), (1, 6, 6), (3, 4, 2, 2)]
NORMS = ["l2", "linf"]
DTYPES = [torch.float32, torch.float64]


@pytest.fixture(params=[(s, t, n) for s in SHAPES for t in DTYPES for n in (1, 8)], ids=str)
def case(request):
    shape, dtype, batch_size = request.param
    model = Linear(shape, 4, dtype=dtype)
    x = centred(8, shape, dtype)
    return model, x, model(x).argmax(1), batch_size


@pytest.mark.parametrize("norm", NORMS)
def test_deepfool_and_fab_find_the_exact_distance(case, norm):
    model, x, y, batch_size = case
    exact = model.distances(x, norm).amin(1)
    found = attacks.deepfool(model, x, y, norm=norm, batch_size=batch_size)
    assert (model(found).argmax(1) != y).all()
    length = norm_of(found - x, norm)
    assert (length >= exact * (1 - 1e-5)).all()
    assert (length <= 1.02 * (exact + 1e-4) * (1 + 1e-5)).all()

    found = attacks.fab(model, x, y, norm=norm, steps=5, batch_size=batch_size)
    assert (model(found).argmax(1) != y).all()
    torch.testing.assert_close(norm_of(found - x, norm), exact, rtol=2e-3, atol=1e-5)


@pytest.mark.parametrize("norm", NORMS)
def test_two_classes_reach_the_optimum_of_the_ball(case, norm):
    """With two classes the objective is linear: the steepest step of length eps is the best point of the ball."""
    shape, dtype, batch_size = case[1].shape[1:], case[1].dtype, case[3]
    model, x = Linear(shape, 2, dtype=dtype), case[1]
    y = model(x).argmax(1)
    eps = 0.9 * model.distances(x, norm).min().item()  # no image can fall
    w = (model.weight[1 - y] - model.weight[y]).detach().view_as(x)
    best = x + steepest(w, norm, eps)
    common = {"eps": eps, "norm": norm, "batch_size": batch_size}
    torch.testing.assert_close(attacks.fgsm(model, x, y, **common), best)
    still = attacks.pgd(model, x, y, random_start=False, steps=10, **common)
    torch.testing.assert_close(still, best, rtol=1e-5, atol=1e-6)

    def gain(points):
        return ((points - x) * w).flatten(1).sum(1) / ((best - x) * w).flatten(1).sum(1)

    assert (gain(attacks.pgd(model, x, y, steps=50, **common)) > 0.95).all()
    assert (gain(attacks.apgd(model, x, y, steps=50, **common)) > 0.999).all()


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize(("name", "classes"), [("pgd", 2), ("apgd", 2), ("apgd_targeted", 4), ("fab", 4)])
def test_success_begins_at_the_distance(case, norm, name, classes):
    """With more than two classes the untargeted ones may climb towards another class than the nearest."""
    x = case[1]
    model = Linear(x.shape[1:], classes, dtype=x.dtype)
    y, exact = model(x).argmax(1), model.distances(x, norm).amin(1)
    for i in (0, 3):
        for factor in (0.98, 1.05):
            options = {"eps": exact[i].item() * factor, "norm": norm, "steps": 50}
            out = getattr(attacks, name)(model, x[i : i + 1], y[i : i + 1], **options)
            assert bool(model(out).argmax(1) != y[i]) == (factor > 1)


def test_targeted_attacks_reach_their_target(case):
    model, x, y, batch_size = case
    targets = (y + 1) % 4
    for name in ("pgd", "apgd"):
        for objective in ("ce", "margin", "dlr"):
            attack = partial(getattr(attacks, name), eps=1.5, steps=40, objective=objective, targeted=True)
            out = attack(model, x, y, targets=targets, batch_size=batch_size)
            assert (model(out).argmax(1) == targets).all(), (name, objective)


def test_simba_moves_every_pixel_the_right_way():
    """Far from the boundary and with two classes, each pixel moves by one step along the sign of its weight."""
    model = Linear((1, 5, 5), 2, dtype=torch.float64)
    with torch.no_grad():
        model.bias.copy_(torch.tensor([50.0, 0.0]))
    x = centred(3, (1, 5, 5), torch.float64)
    y = torch.zeros(3, dtype=torch.long)
    w = (model.weight[1] - model.weight[0]).detach().view(1, 5, 5)
    queries = 1 + 25 + int((w > 0).sum())  # where the first sign, minus, does not help, plus costs another
    out, used = attacks.simba(model, x, y, queries=queries, step_size=0.1, return_queries=True)
    torch.testing.assert_close(out, x + 0.1 * w.sign(), rtol=0, atol=1e-7)
    assert used.tolist() == [queries] * 3


SCALED = {
    "fgsm": partial(attacks.fgsm, eps=0.2, objective="margin"),
    "pgd": partial(attacks.pgd, eps=0.2, steps=5, objective="margin"),
    "apgd": partial(attacks.apgd, eps=0.2, steps=10, objective="dlr"),
    "apgd_targeted": partial(attacks.apgd_targeted, eps=0.2, steps=10),
    "deepfool": attacks.deepfool,
    "fab": partial(attacks.fab, steps=5),
    "square": partial(attacks.square, eps=0.2, queries=20),
}


class Times(Linear):
    """`Linear` times a number."""

    def forward(self, x):
        return super().forward(x) * self.factor


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("exponent", [-90, -65, 60, 90])
@pytest.mark.parametrize("name", SCALED)
def test_the_scale_of_the_logits_changes_nothing(name, exponent, norm):
    """By a power of two, so that not even a rounding differs; squares of such gradients are no float32."""
    model, x = Times((1, 6, 6), 4), centred(8, (1, 6, 6))
    model.factor, y = 1.0, Linear.forward(model, x).argmax(1)
    expected = SCALED[name](model, x, y, norm=norm)
    assert not torch.equal(expected, x)
    model.factor = 2.0**exponent
    assert torch.equal(SCALED[name](model, x, y, norm=norm), expected)


@pytest.mark.parametrize("norm", NORMS)
def test_projection_on_a_hyperplane_whose_normal_is_hardly_a_number(norm):
    x = centred(8, (30,))
    w = torch.randn(8, 30, generator=torch.Generator().manual_seed(0))
    b = (w * x).sum(1) + 0.3
    expected = onto_hyperplane(x, w, b, norm)
    assert torch.equal(onto_hyperplane(x, w * 2.0**-100, b * 2.0**-100, norm), expected)
    for scale in (1e-39, 1e-44, 0.0):  # where float32 has few digits left, or none, it ends all the same
        found = onto_hyperplane(x, w * scale, b * scale, norm)
        assert found.isfinite().all()
        assert found.min() >= 0
        assert found.max() <= 1


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_projection_on_the_hyperplane_is_exact(norm, dtype):
    """Against bisection on the force, in float64; including walls that bind, and planes out of the box's reach."""
    g = torch.Generator().manual_seed(0)
    x = torch.rand(40, 30, generator=g, dtype=torch.float64)
    x[:, ::3], x[:, 1::3] = 0, x[:, 1::3].round()
    w = torch.randn(40, 30, generator=g, dtype=torch.float64)
    w[:, 5] = 0
    b = (w * x).sum(1) + torch.linspace(-20, 20, 40, dtype=torch.float64)
    found = onto_hyperplane(x.to(dtype), w.to(dtype), b.to(dtype), norm).double()
    gap = b - (w * x).sum(1)
    low, high = torch.zeros(40, 1).double(), torch.full((40, 1), 1e6).double()
    for _ in range(200):
        force = (low + high) / 2
        step = force * w * gap.sign()[:, None] if norm == "l2" else force * (w * gap.sign()[:, None]).sign()
        z = (x + step).clamp(0, 1)
        enough = ((w * (z - x)).sum(1).abs() >= gap.abs())[:, None]
        low, high = torch.where(enough, low, force), torch.where(enough, force, high)
    tolerance = 1e-4 if dtype == torch.float32 else 1e-9
    torch.testing.assert_close(norm_of(found - x, norm), norm_of(z - x, norm), rtol=tolerance, atol=tolerance)
    reachable = ((w * z).sum(1) - b).abs() < 1e-8
    assert reachable.sum() in range(10, 40), "both cases must occur"
    assert ((w * found).sum(1) - b)[reachable].abs().max() < 30 * tolerance
    assert found.min() >= 0
    assert found.max() <= 1
