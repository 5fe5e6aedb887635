import math

import pytest
import torch
from torch import Tensor

from isce import losses, theory

FLOAT = torch.float64
S, M = [1.0, 1.5, 2.0], [0.0, 0.05, 0.1]


def logits(n: int = 7, k: int = 10, scale: float = 2.0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return scale * torch.randn(n, k, dtype=FLOAT, generator=generator), torch.arange(n) % k


def literal_p_i(f: Tensor, i: Tensor, s: float, m: float) -> Tensor:
    """Equation 2, term by term."""
    t = (s * f.gather(1, i[:, None])[:, 0] + m).exp()
    rest = f.exp().sum(1) - f.gather(1, i[:, None])[:, 0].exp()
    return t / (t + rest)


@pytest.mark.parametrize("s", S)
@pytest.mark.parametrize("m", M)
def test_probabilities_are_equations_1_and_2(s: float, m: float) -> None:
    f, i = logits()
    torch.testing.assert_close(theory.P(f, i), f.softmax(1).gather(1, i[:, None])[:, 0])
    torch.testing.assert_close(theory.P_I(f, i, s, m), literal_p_i(f, i, s, m))
    torch.testing.assert_close(theory.P_I(f, i, 1.0, 0.0), theory.P(f, i), rtol=0, atol=0)


@pytest.mark.parametrize("s", S)
@pytest.mark.parametrize("m", M)
def test_closed_forms_of_h_and_its_derivative(s: float, m: float) -> None:
    f, i = logits()
    torch.testing.assert_close(theory.h_closed(f, i, s, m), theory.h(f, i, s, m), rtol=1e-10, atol=1e-14)
    f.requires_grad_()
    (gradient,) = torch.autograd.grad(theory.h(f, i, s, m).sum(), f)
    closed = theory.dh_df_i(f.detach(), i, s, m)
    torch.testing.assert_close(closed, gradient.gather(1, i[:, None])[:, 0], rtol=1e-9, atol=1e-14)


def test_gradcheck() -> None:
    f, i = logits(3, 4)
    assert torch.autograd.gradcheck(lambda f: theory.P_I(f, i, 1.5, 0.1), f.requires_grad_())


def test_stable_where_exponentials_overflow() -> None:
    f = torch.tensor([[1000.0, 0.0, -1000.0]])
    assert [theory.P(f, c).item() for c in range(3)] == [1.0, 0.0, 0.0]
    assert theory.P_I(f, 0, 2.0, 0.1).dtype == torch.float32
    assert theory.P_I(torch.tensor([-1000.0, -1000.0]), 0, 1.0, 0.0).item() == pytest.approx(0.5)
    for f in torch.tensor([[[100.0, 95.0, 3.0]], [[-200.0, -200.5, -203.0]]]):
        torch.testing.assert_close(theory.dh_df_i(f, 0), theory.dh_df_i(f.double(), 0).float())
        holds, _ = theory.assumptions(f, f - torch.tensor([1.0, 0.0, 0.0]), 0)
        assert holds["f_i falls"]


def test_integers_are_logits_too() -> None:
    assert theory.P(torch.tensor([3, 1]), 0) == theory.P(torch.tensor([3.0, 1.0], dtype=torch.float64), 0)
    holds, moved = theory.assumptions(torch.tensor([3, 1]), torch.tensor([2, 1]), 0)
    assert (bool(holds["P falls"]), float(moved["f_i"])) == (True, -1.0)


def test_one_class_for_all_rows_and_extra_axes() -> None:
    f, _ = logits(6)
    torch.testing.assert_close(theory.P(f.view(2, 3, 10), 4), f.softmax(1)[:, 4].view(2, 3))


def test_z_at_the_paper_s_averages() -> None:
    t, u = math.exp(0.97), math.exp(1.5 * 0.97 + 0.1)
    assert theory.z(1.5, 0.1).item() == pytest.approx(1.5 * u / (u + 8) ** 2 - t / (t + 8) ** 2)
    assert theory.z(1.0, 0.0).item() == 0.0
    assert theory.z(torch.tensor([[1.0], [2.0]]), torch.tensor([0.0, 0.05, 0.1])).shape == (2, 3)


@pytest.mark.parametrize(
    ("f_i", "rest"), [(0.97, 8.0), (0.9487, 8.10), (0.0, 9.0), (-1.0, 9.0), (2.5, 8.0), (10.0, 1.0)]
)
def test_positive_margins_are_the_zeros_of_z(f_i: float, rest: float) -> None:
    s = torch.linspace(1, 6, 41, dtype=FLOAT)[:, None]
    m = torch.linspace(0, 8, 321, dtype=FLOAT)
    low, high = theory.positive_margins(s, f_i, rest)
    value = theory.z(s, m, f_i, rest)
    clear = value.abs() > 1e-12
    assert torch.equal(((low < m) & (m < high))[clear], (value > 0)[clear])


def test_condition_grid() -> None:
    s, m = theory.condition_grid(1.0, 2.0, 0.1, 5)
    torch.testing.assert_close(s, torch.tensor([1, 1.25, 1.5, 1.75, 2], dtype=FLOAT))
    torch.testing.assert_close(m, torch.tensor([0.02, 0.04, 0.06, 0.08, 0.1], dtype=FLOAT))


def test_condition_c10() -> None:
    """z > 0 over the paper's range, but not for all s > 1 and m > 0, nor for the confident logits of plain SCE."""
    s, m = torch.linspace(1, 2, 101, dtype=FLOAT)[:, None], torch.linspace(0.001, 0.1, 100, dtype=FLOAT)
    assert bool((theory.z(s, m) > 0).all())
    assert theory.z(6.0, 0.1).item() < 0
    assert bool((theory.z(s, m, 10.0, 1.0) < 0).all())
    low, high = theory.positive_margins(1.0)
    assert low.item() == pytest.approx(0, abs=1e-12)
    assert high.item() == pytest.approx(2 * (math.log(8) - 0.97))


@pytest.mark.parametrize("s", S)
@pytest.mark.parametrize("m", M)
@pytest.mark.parametrize("k", [3, 10])
def test_sphere_optimum_by_numeric_optimisation(s: float, m: float, k: int) -> None:
    target = torch.zeros(1, dtype=torch.long)
    f = torch.randn(1, k, dtype=FLOAT, generator=torch.Generator().manual_seed(k)).requires_grad_()
    optimizer = torch.optim.LBFGS(
        [f], max_iter=500, tolerance_grad=1e-12, tolerance_change=0, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = -theory.P_I(f / f.norm(), target, s, m).log().sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    unit, best = (f / f.norm()).detach()[0], theory.sphere_optimum(k, s, m)
    expected = torch.tensor([best.f_y] + [best.f_other] * (k - 1), dtype=FLOAT)
    torch.testing.assert_close(unit, expected, rtol=0, atol=1e-5)
    assert closure().item() == pytest.approx(best.loss, abs=1e-9)
    assert best.p_max == pytest.approx(math.exp(-best.loss))
    assert best.rest == pytest.approx((k - 1) * math.exp(best.f_other))


def test_sphere_optimum_of_cross_entropy_for_ten_classes() -> None:
    best = theory.sphere_optimum(10)
    known = {"f_y": 0.9487, "f_other": -0.1054, "rest": 8.10, "loss": 1.420, "p_max": 0.242}
    for name, value in known.items():
        assert getattr(best, name) == pytest.approx(value, abs=5e-3 if name == "rest" else 5e-4)


def test_boundary_pairs_are_what_they_say() -> None:
    f, f_adv = theory.boundary_pairs(400)
    assert f.shape == f_adv.shape
    assert 150 < len(f) < 400
    for t in (f, f_adv):
        torch.testing.assert_close(t.norm(dim=1), torch.ones(len(t), dtype=FLOAT))
    assert torch.equal(f.argmax(1), torch.zeros(len(f), dtype=torch.long))
    torch.testing.assert_close(f_adv[:, 0], f_adv[:, 1:].amax(1))
    assert bool((f_adv[:, 0] < f[:, 0]).all())


def test_interval_c11() -> None:
    """On the sphere L_I > L wherever L > 0; with confident logits it turns round, since h(P) falls above P = 1/2."""
    f, f_adv = theory.boundary_pairs(5000)
    for s, m in [(1.0, 0.1), (1.5, 0.1), (2.0, 0.01)]:
        falls = theory.L(f, f_adv, 0) > 0
        assert bool((theory.L_I(f, f_adv, 0, s, m) > theory.L(f, f_adv, 0))[falls].all())
    sure, tie = torch.tensor([10.0, 0.0, 0.0]), torch.tensor([5.0, 5.0, 0.0])
    assert theory.L_I(sure, tie, 0, 1.0, 0.1) < theory.L(sure, tie, 0)


def test_lower_loss_c12_needs_no_negative_logit_unless_s_is_1() -> None:
    f, i = logits()
    f_i = f.gather(1, i[:, None])[:, 0]
    for s in S:
        assert torch.equal(theory.loss_is_lower(f_i, s, 0.1), theory.h_closed(f, i, s, 0.1) > 0)
    assert bool(theory.loss_is_lower(f_i, 1.0, 0.1).all())
    assert not bool(theory.loss_is_lower(-0.2, 2.0, 0.1))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda f: theory.P_I(f, 0, s=0.9), "s must be at least 1"),
        (lambda f: theory.z(1.0, -0.1), "m must be at least 0"),
        (lambda f: theory.z(float("nan"), 0.1), "s must be finite"),
        (lambda f: theory.z(1.0, 0.1, f_i=float("inf")), "f_i must be finite"),
        (lambda f: theory.positive_margins(1.0, rest=0.0), "rest .* must be positive"),
        (lambda f: theory.P(f * float("nan"), 0), "f must be finite"),
        (lambda f: theory.P(f[:, :1], 0), "K >= 2"),
        (lambda f: theory.P(f, 10), r"class must lie in 0\.\.9"),
        (lambda f: theory.P(f, torch.zeros(3, dtype=torch.long)), "one class per row"),
        (lambda f: theory.sphere_optimum(1), "at least 2 classes"),
        (lambda f: theory.sphere_optimum(10, m=-1.0), "m must be at least 0"),
        (lambda f: theory.condition_grid(2.0, 1.0, 0.1, 5), "s_min < s_max"),
        (lambda f: theory.condition_grid(1.0, 2.0, 0.0, 5), "m_max > 0"),
        (lambda f: theory.boundary_pairs(0), "at least 1 draw"),
        (lambda f: theory.largest_misled(2), "at least 3 classes"),
    ],
)
def test_wrong_use_is_one_clear_line(call, message: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match=message) as error:
        call(logits()[0])
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("s", S)
@pytest.mark.parametrize("m", M)
def test_equation_3_and_its_gradient(s: float, m: float) -> None:
    """It is the loss that trains, and its gradient is -(1 - P_I) times (s at i, minus the others' shares of R)."""
    f, i = logits()
    f.requires_grad_()
    own = theory.loss(f, i, s, m)
    torch.testing.assert_close(own, losses.isce_loss(f, i, s, m, normalize=False))
    torch.testing.assert_close(own, -theory.P_I(f, i, s, m).log())
    (gradient,) = torch.autograd.grad(own.sum(), f)
    others = f.detach().scatter(1, i[:, None], -torch.inf).softmax(1)
    closed = -(1 - theory.P_I(f.detach(), i, s, m))[:, None] * torch.full_like(others, s).scatter_(
        1, (torch.arange(10) != i[:, None]).nonzero()[:, 1].view(-1, 9), -others[others > 0].view(-1, 9)
    )
    torch.testing.assert_close(gradient, closed)


@pytest.mark.parametrize("s", S)
@pytest.mark.parametrize("m", M)
def test_equations_6_7_10_12_and_13_term_by_term(s: float, m: float) -> None:
    (f, i), f_adv = logits(), logits()[0].flip(0)

    def p(t: Tensor) -> Tensor:
        return literal_p_i(t, i, 1.0, 0.0)

    def p_i(t: Tensor) -> Tensor:
        return literal_p_i(t, i, s, m)

    torch.testing.assert_close(theory.L(f, f_adv, i), p(f) - p(f_adv))
    torch.testing.assert_close(theory.L_I(f, f_adv, i, s, m), p_i(f) - p_i(f_adv))
    for t in (f, f_adv):
        own, rest = t.gather(1, i[:, None])[:, 0], t.exp().sum(1) - t.gather(1, i[:, None])[:, 0].exp()
        right = (s * own + m).exp()
        h = rest * (right - own.exp()) / ((right + rest) * t.exp().sum(1))
        torch.testing.assert_close(theory.h_closed(t, i, s, m), h)
    difference = p_i(f) - p_i(f_adv) - p(f) + p(f_adv)
    torch.testing.assert_close(theory.h(f, i, s, m) - theory.h(f_adv, i, s, m), difference)


def test_the_risk_is_the_largest_loss_on_the_way() -> None:
    path, y = (
        torch.randn(4, 3, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0)),
        torch.tensor([0, 4, 2]),
    )
    loss = torch.stack([losses.softmax_cross_entropy(f, y) for f in path])
    assert theory.risk(path, y) == pytest.approx(float(loss.max(0).values.mean()))
    with_s_m = torch.stack([losses.isce_loss(f, y, 1.5, 0.1, normalize=False) for f in path])
    assert theory.risk(path, y, 1.5, 0.1) == pytest.approx(float(with_s_m.max(0).values.mean()))


def test_the_unsaturated_objective_has_the_losses_order_and_keeps_its_gradient() -> None:
    f = 3 * torch.randn(50, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    y = torch.zeros(50, dtype=torch.long)
    for s in (1.0, 2.0):
        assert theory.unsaturated(s)(f, y).argsort().tolist() == theory.loss(f, 0, s, 0.1).argsort().tolist()
    sure = torch.tensor([[200.0, 0.0, 0.0]], requires_grad=True)
    (gradient,) = torch.autograd.grad(theory.unsaturated()(sure, y[:1]).sum(), sure)
    assert gradient.tolist() == [[-1.0, 0.5, 0.5]]
    (none,) = torch.autograd.grad(theory.loss(sure, 0).sum(), sure)
    assert none.abs().max() == 0


def test_the_gain_is_the_sum_of_its_two_parts() -> None:
    f, f_adv = theory.boundary_pairs(300)
    for s, m in [(1.0, 0.1), (2.0, 0.05)]:
        fall, others = theory.gain_in_two(f, f_adv, 0, s, m)
        torch.testing.assert_close(fall + others, theory.L_I(f, f_adv, 0, s, m) - theory.L(f, f_adv, 0))
    still = f.clone()
    still[:, 0] -= 0.1  # the other logits stay: the proof's own case
    torch.testing.assert_close(theory.gain_in_two(f, still, 0)[1], torch.zeros(len(f), dtype=FLOAT))


def test_assumptions_on_pairs_whose_answer_is_known() -> None:
    """A pair that keeps the others; and three unit logits where f_i falls, x + delta misleads, and P(i) rises."""
    f = torch.tensor([[0.5, 0.1, 0.0], [0.60, 0.57, 0.561]], dtype=FLOAT)
    f_adv = torch.tensor([[0.1, 0.1, 0.0], [0.57, 0.57, -0.59]], dtype=FLOAT)
    holds, moved = theory.assumptions(f, f_adv, 0)
    assert {name: value.tolist() for name, value in holds.items()} == {
        "f_i falls": [True, True],
        "P falls": [True, False],
        "z > 0 at x": [True, True],
        "z > 0 at x + delta": [True, True],
        "L_I > L": [True, False],
    }
    torch.testing.assert_close(moved["f_i"], torch.tensor([-0.4, -0.03], dtype=FLOAT))
    torch.testing.assert_close(moved["top"], torch.zeros(2, dtype=FLOAT))
    assert moved["share"][0] == moved["log_rest"][0] == 0


@pytest.mark.parametrize("k", [3, 10])
def test_no_misled_unit_logits_exceed_the_bound(k: int) -> None:
    bound = theory.largest_misled(k)
    f = torch.randn(200_000, k, dtype=FLOAT, generator=torch.Generator().manual_seed(k))
    f = f / f.norm(dim=1, keepdim=True)
    others = math.sqrt(1 / ((k - 2) * ((k - 2) / 2 + 1)))
    best = torch.tensor([(k - 2) / 2 * others] * 2 + [-others] * (k - 2), dtype=FLOAT)
    assert best.norm().item() == pytest.approx(1)
    assert theory.P(best, 0).item() == pytest.approx(bound)
    assert theory.P(f, 0)[f.argmax(1) != 0].max().item() < bound
    assert bound < theory.sphere_optimum(k).p_max
    near = best + 1e-3 * f  # nor its neighbours
    near = near / near.norm(dim=1, keepdim=True)
    assert theory.P(near, 0)[near[:, 0] <= near[:, 1]].max().item() <= bound + 1e-12


def test_violations_near_a_counter_example_and_near_none() -> None:
    i = torch.zeros(1, dtype=torch.int64)
    f, f_adv = torch.tensor([[0.60, 0.57, 0.561]], dtype=FLOAT), torch.tensor([[0.57, 0.571, -0.59]], dtype=FLOAT)
    violations, asked = theory.violations_near(f, f_adv, i, 1e-4, draws=200)
    assert violations == asked > 50
    best = theory.sphere_optimum(10)
    sure = torch.tensor([[best.f_y] + [best.f_other] * 9], dtype=FLOAT)
    tie = torch.tensor([[0.4**0.5] * 2 + [-(0.025**0.5)] * 8], dtype=FLOAT)
    for radius in (0.01, 0.1):
        violations, asked = theory.violations_near(sure, tie, i, radius, draws=2000)
        assert (violations, asked > 200) == (0, True)
