import math

import pytest
import torch
from torch import Tensor

from isce import theory

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


def test_intervals_differ_by_h() -> None:
    f, f_adv = theory.boundary_pairs(200)
    for s, m in [(1.0, 0.1), (2.0, 0.05)]:
        difference = theory.L_I(f, f_adv, 0, s, m) - theory.L(f, f_adv, 0)
        torch.testing.assert_close(difference, theory.h_closed(f, 0, s, m) - theory.h_closed(f_adv, 0, s, m))


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
    ],
)
def test_wrong_use_is_one_clear_line(call, message: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match=message) as error:
        call(logits()[0])
    assert "\n" not in str(error.value)
