import base64
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import plotly.graph_objects as go
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text
from mpl_toolkits.mplot3d import proj3d
from mpl_toolkits.mplot3d.art3d import Path3DCollection

from isce import plots
from isce.methods import CONTROLS, METHODS
from isce.record import wilson

RNG = np.random.default_rng(0)
S, M = np.linspace(1, 2, 4), np.linspace(0.02, 0.1, 3)
LABELS = np.arange(20) % 10


def region() -> dict[str, object]:
    """Two classes split at x = 0; of four points, one clean and two adversarial are misclassified."""
    grid = np.repeat([[0, 0, 1, 1]], 3, axis=0)
    clean = np.array([[-0.9, 0], [-0.5, 0.2], [0.9, 0], [-0.8, 0.1]])
    adversarial = np.array([[-0.9, 0], [0.5, 0.2], [0.9, 0], [-0.8, 0.1]])
    return {"title": "SCE", "clean": clean, "adversarial": adversarial, "wrong": [[0, 0, 0, 1], [0, 1, 0, 1]], "decision": grid,
            "extent": (-1, 1, -1, 1)}  # fmt: skip


def surfaces(n: int) -> list[dict[str, object]]:
    return [{"title": f"panel {k}", "s": S, "m": M, "accuracy": RNG.uniform(0, 100, (4, 3))} for k in range(n)]


def embedded(*methods: str) -> list[dict[str, object]]:
    return [{"method": name, "points": RNG.standard_normal((20, 3)), "labels": LABELS} for name in methods]


def regression() -> list[dict[str, object]]:
    p, x = np.linspace(0.01, 0.99, 50), np.linspace(-2, 2, 25)
    line = {"x": p, "loss": -np.log(p), "gradient": -1 / p, "target": 1.0, "title": "line"}
    angle = np.linspace(0, 6.28, 60)
    circle = {
        "angle": angle,
        "loss": np.cos(angle),
        "gradient": -np.sin(angle),
        "centers": [3.14, 0.0],
        "title": "circle",
    }
    plane = {
        "x": x,
        "y": x,
        "loss": x[:, None] + x,
        "gradient": np.ones((25, 25, 2)),
        "optimum": (0.7, -0.7),
        "title": "f",
    }
    return [line, line, circle, plane]


def titles(figure: Figure) -> list[str]:
    return [title for ax in figure.axes for title in [ax.get_title(loc="left") or ax.get_title()] if title]


def test_inference_region_shows_the_points_and_the_share_misclassified() -> None:
    figure = plots.inference_region([region(), region()])
    assert len(figure.axes) == 2
    ax = figure.axes[0]
    grey, orange = ax.collections[-2:]
    assert ax.get_aspect() == 1
    ways = [line.get_xydata() for line in ax.lines if len(line.get_xydata()) == 2]
    np.testing.assert_array_equal(ways, np.stack([region()["clean"], region()["adversarial"]], 1))
    np.testing.assert_array_equal(grey.get_offsets(), region()["clean"])
    np.testing.assert_array_equal(orange.get_offsets(), region()["adversarial"])
    assert titles(figure)[0] == "SCE\nmisclassified: clean 25 %, adversarial 50 %"
    for text in ax.texts:  # a class's number stands where that class is decided for
        x, y = text.get_position()
        left, right, bottom, top = region()["extent"]
        rows, columns = np.shape(region()["decision"])
        row, column = (y - bottom) / (top - bottom) * (rows - 1), (x - left) / (right - left) * (columns - 1)
        assert text.get_text() == str(region()["decision"][round(row)][round(column)])
    assert len(ax.texts) == len(np.unique(region()["decision"]))


def test_label_regression_draws_the_four_panels_as_given() -> None:
    panels = regression()
    figure = plots.label_regression(*panels)
    assert titles(figure) == ["(a) line", "(b) line", "(c) circle", "(d) f"]
    np.testing.assert_array_equal(figure.axes[0].lines[0].get_ydata(), panels[0]["loss"])
    np.testing.assert_array_equal(figure.axes[2].collections[0].get_array(), panels[2]["loss"])


def pulls(**more: object) -> dict[str, object]:
    return {
        "title": "t",
        "xlabel": "x",
        "at": [0.0, 1.0, 2.0, 3.0],
        "rate": [1.0, 1.0, 1.0, -1.0],
        "target": None,
        **more,
    }


def test_label_regression_measured_counts_samples_and_their_ways() -> None:
    figure = plots.label_regression_measured([pulls(), pulls(target=1.0, log10=True)])
    assert titles(figure) == ["(a) t", "(b) t"]
    first, second = figure.axes
    assert [text.get_text()[:6] for text in first.get_legend().get_texts()] == ["→ 75 %", "← 25 %"]
    assert sum(bar.get_height() for bar in first.patches) == pytest.approx(100)
    np.testing.assert_array_equal(second.lines[0].get_xdata(), [1.0, 1.0])
    assert second.xaxis.get_major_formatter()(2, 0) == "$10^{2}$"


def test_descent_field_has_an_arrow_per_sample_in_its_class_s_colour() -> None:
    points, descent = RNG.standard_normal((20, 2)), np.tile([0.0, 1.0], (20, 1))
    figure = plots.descent_field([{"title": "t", "points": points, "descent": descent, "labels": LABELS}])
    dots, arrows = figure.axes[0].collections
    np.testing.assert_array_equal(dots.get_offsets(), points)
    np.testing.assert_array_equal([arrows.U, arrows.V], descent.T)  # type: ignore[attr-defined]
    assert len({tuple(color) for color in np.asarray(arrows.get_facecolor())}) == 10
    assert figure.axes[0].get_aspect() == 1


def test_norms_in_training_dash_the_other_start() -> None:
    figure = plots.norms_in_training({"sce": {1.0: [1, 2], 10.0: [9, 5]}, "isce": {1.0: [1, 1], 10.0: [10, 10]}})
    lines = figure.axes[0].lines
    assert [line.get_linestyle() for line in lines] == ["-", "--", "-", "--"]
    assert lines[2].get_color() == lines[3].get_color() == plots.METHOD_COLORS["isce"]
    words = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert words == ["SCE", "I-SCE", "output layer × 10\nat the start"]


@pytest.mark.parametrize("n", [1, 2, 4])
def test_ablation_surface_names_its_best_setting(n: int) -> None:
    panels = surfaces(n)
    figure = plots.ablation_surface(panels)
    assert len(figure.axes) == n
    accuracy = np.asarray(panels[0]["accuracy"])
    i, j = np.unravel_index(accuracy.argmax(), accuracy.shape)
    span = f"{accuracy.min():.1f} to {accuracy.max():.1f} %"
    assert f"{span}, best at s = {S[i]:.3g}, m = {M[j]:.3g}" in titles(figure)[0]
    for ax, panel in zip(figure.axes, panels, strict=True):  # colours over a panel's own range
        low, high = ax.collections[0].get_clim()
        assert np.min(panel["accuracy"]) <= low < high <= np.max(panel["accuracy"])
    ties = {**panels[0], "accuracy": np.where(accuracy == accuracy.min(), accuracy.max(), accuracy)}
    both = titles(plots.ablation_surface([ties]))[0]
    for where in (accuracy.argmax(), accuracy.argmin()):
        i, j = np.unravel_index(where, accuracy.shape)
        assert f"s = {S[i]:.3g}, m = {M[j]:.3g}" in both
    turning = plots.ablation_surface_plotly(panels)
    assert len(turning.data) == 2 * n  # a surface, and its best settings
    np.testing.assert_array_equal(turning.data[0].z, accuracy.T)  # rows of z run along y: s is the paper's x, m its y
    np.testing.assert_array_equal(turning.data[0].x, S)
    np.testing.assert_array_equal(turning.data[0].y, M)
    assert (turning.layout.scene.xaxis.title.text, turning.layout.scene.yaxis.title.text) == ("s", "m")
    buttons = turning.layout.updatemenus[0].buttons
    assert [b.label for b in buttons] == [panel["title"] for panel in panels]
    assert [list(b.args[0]["visible"]) for b in buttons] == np.eye(n, dtype=bool).repeat(2, axis=1).tolist()
    assert turning.data[1].z == (accuracy.max(),)
    assert accuracy[list(S).index(turning.data[1].x[0]), list(M).index(turning.data[1].y[0])] == accuracy.max()
    assert plots.ablation_surface_plotly(panels, title="two\nlines").layout.title.text == "two<br>lines"
    assert [trace.visible for trace in turning.data] == list(buttons[0].args[0]["visible"])


def test_ablation_spread_shows_the_grid_the_seeds_and_the_band_of_chance() -> None:
    accuracy = np.full((4, 3), 50.0) + np.arange(3) - 1
    panel = {"title": "t", "s": S, "m": M, "accuracy": accuracy, "again": [49.0, 52.0], "n": 100}
    figure = plots.ablation_spread([panel, {**panel, "n": 10_000}])
    assert titles(figure)[0] == "t\ngrid 49.0–51.0 %, seeds 49.0–52.0 %"
    wide, narrow = figure.axes
    points = [line for line in wide.lines if line.get_marker() == "o"]
    np.testing.assert_array_equal([line.get_ydata() for line in points], accuracy.T)
    seeds, of_the_grid = (line for line in wide.lines if line.get_marker() == "D")
    np.testing.assert_array_equal(seeds.get_ydata(), [49.0, 52.0])
    np.testing.assert_array_equal(of_the_grid.get_ydata(), [49.0])
    assert min(seeds.get_xdata()) > len(S) - 0.5  # beside the grid
    ends = [ax.patches[0].get_y() + np.array([0, ax.patches[0].get_height()]) for ax in (wide, narrow)]  # type: ignore[attr-defined]
    np.testing.assert_allclose(ends, [[40, 60], [49.02, 50.98]])  # 1.96 standard deviations of 5 and of 0.5 points
    words = [text.get_text() for text in figure.legends[0].get_texts()]
    assert words[4:] == [f"m = {m:g}" for m in M]


def test_condition_surface_draws_zero_where_z_changes_sign() -> None:
    z = (S[:, None] - 1.5) * np.ones(3)
    flat = plots.condition_surface(S, M, z).axes[1]
    assert "50.0 %" in flat.get_title(loc="left")
    assert len(flat.collections) == 2
    assert len(plots.condition_surface(S, M, z + 5).axes[1].collections) == 1
    turning = plots.condition_surface_plotly(S, M, z)
    np.testing.assert_array_equal(turning.data[0].z, z.T)
    np.testing.assert_array_equal(turning.data[0].x, S)
    assert (turning.layout.scene.xaxis.title.text, turning.layout.scene.yaxis.title.text) == ("s", "m")
    assert not np.any(turning.data[1].z)


def test_condition_map_shows_shares_points_and_marks() -> None:
    x = np.linspace(-1, 3, 6)
    share = 100.0 * (x[:, None] < x)
    panel = {"title": "any", "f_i": x, "log_rest": x, "share": share, "points": {("isce", "adversarial"): [[0.0, 1.0]]}}
    figure = plots.condition_map([panel, {**panel, "inside": [x, x, x]}], marks={"here": (0.5, 2.0)})
    assert titles(figure) == ["any", "any"]
    np.testing.assert_array_equal(figure.axes[0].collections[-1].get_offsets(), [[0.0, 1.0]])
    words = [text.get_text() for text in figure.legends[0].get_texts()]
    assert words == ["right of it z > 0 nowhere", "I-SCE, adversarial", "here", "unit logits of ten classes lie inside"]


def test_gain_curve_draws_pairs_on_the_curve_and_an_arrow_between_their_medians() -> None:
    p = np.linspace(0, 1, 11)
    figure = plots.gain_curve(p, p**2, {"sce": ([1.0, 0.8], [0.5, 0.3]), "isce": ([0.2], [0.1])}, np.square)
    clean, adversarial = figure.axes[0].collections[:2]
    np.testing.assert_allclose(clean.get_offsets(), [[1.0, 1.0], [0.8, 0.64]])
    np.testing.assert_allclose(adversarial.get_offsets(), [[0.5, 0.25], [0.3, 0.09]])
    arrow = next(text for text in figure.axes[0].texts if hasattr(text, "arrow_patch"))
    np.testing.assert_allclose([*arrow.xy, *arrow.xyann], [0.4, 0.16, 0.9, 0.81])  # type: ignore[attr-defined]


def test_embedding_has_a_panel_per_method_and_one_colour_per_class() -> None:
    panels = embedded("sce", "isce", "label_smoothing", "at")
    figure = plots.embedding(panels)
    assert titles(figure) == ["SCE", "I-SCE", "Label smoothing", "AT"]

    (cloud,) = figure.axes[1].collections
    assert isinstance(cloud, Path3DCollection)
    np.testing.assert_array_equal(np.stack(cloud._offsets3d, 1), panels[1]["points"])  # type: ignore[attr-defined]
    spans = {round(float(np.ptp(getattr(figure.axes[0], f"get_{axis}lim")())), 9) for axis in "xyz"}
    assert len(spans) == 1
    assert len({tuple(color) for color in np.asarray(cloud.get_facecolor())}) == 10


def test_every_class_is_named_by_its_mean_and_no_name_lies_on_another() -> None:
    """Means as far apart as they can be, and such that fall together: names as on the printed page."""
    labels, classes = np.arange(60) % 6, ["ship", "airplane", "automobile", "truck", "bird", "deer"]
    means = np.array([[9.0, 0, 0], [0, 9, 0], [0.01, 0, 0], [0, 0.01, 0], [0, 0, 0], [0, 0, 0]])
    figure = plots.embedding(
        [{"method": m, "points": means[labels], "labels": labels} for m in ("isce", "sce")], classes
    )
    figure.set_dpi(200)
    figure.draw_without_rendering()
    for ax in figure.axes:
        names: Any = ax.texts
        assert [text.get_text() for text in names] == classes
        flat = np.stack(proj3d.proj_transform(*means.T, ax.get_proj())[:2], 1)  # type: ignore[attr-defined]
        np.testing.assert_allclose([name.xy for name in names], flat)
        boxes = [Text.get_window_extent(name) for name in names]
        assert not any(one.overlaps(other) for one, other in itertools.combinations(boxes, 2))
        far = np.linalg.norm(
            ax.transData.transform([name.xyann for name in names]) - ax.transData.transform(flat), axis=1
        )
        assert far.max() < 0.3 * ax.bbox.height


def test_an_embedding_is_seen_from_where_no_class_hides_another() -> None:
    """Two classes that lie behind each other from where every surface is seen, and one beside them."""

    def towards(ax: Any) -> Any:
        elevation, azimuth = np.radians([ax.elev, ax.azim])
        return np.array([np.cos(azimuth) * np.cos(elevation), np.sin(azimuth) * np.cos(elevation), np.sin(elevation)])

    usual = towards(plots.ablation_surface(surfaces(1)).axes[0])
    means = np.stack([2 * usual, 15 * usual, np.array([-5.0, 5.0, 0.0])])
    labels = np.arange(30) % 3
    points = means[labels] + 0.1 * RNG.standard_normal((30, 3))
    (ax,) = plots.embedding([{"method": "isce", "points": points, "labels": labels}]).axes
    apart = [np.linalg.norm(np.cross(means[a] - means[b], towards(ax))) for a, b in ((0, 1), (0, 2), (1, 2))]
    assert min(apart) > 1
    assert np.linalg.norm(np.cross(means[0] - means[1], usual)) < 1e-9


def test_embedding_menu_shows_one_method_at_a_time() -> None:
    figure = plots.embedding_plotly(embedded("sce", "isce"))
    first, second = figure.layout.updatemenus[0].buttons
    assert (first.label, second.label) == ("SCE", "I-SCE")
    assert [trace.visible for trace in figure.data] == list(first.args[0]["visible"])
    assert sum(first.args[0]["visible"]) == sum(second.args[0]["visible"]) == 10
    assert not any(a and b for a, b in zip(first.args[0]["visible"], second.args[0]["visible"], strict=True))


@pytest.mark.parametrize("plot", [plots.accuracy_curve, plots.query_curve])
def test_accuracy_against_budget_with_its_wilson_band(plot: Callable[..., Figure]) -> None:
    ax = plot(
        [0.0, 1.0, 2.0], {"isce": [90, 50, 0], "norm_only": [90, 40, 0], "mine": [80, 40, 0]}, 100, levels=[1.0]
    ).axes[0]
    assert [line.get_label() for line in ax.lines[:3]] == ["I-SCE", "Normalisation only", "mine"]
    np.testing.assert_allclose(ax.lines[0].get_ydata(), [90, 50, 0])
    edges = ax.collections[0].get_paths()[0].vertices[:, 1]
    for end in wilson(50, 100):
        assert np.isclose(edges, end).any()
    assert len({line.get_color() for line in ax.lines[:3]}) == 3


def test_the_papers_budget_is_marked_where_it_is_in_the_picture() -> None:
    for budget, drawn in ((2, 1), (3, 0), (0, 0)):
        figure = plots.query_curve([0, 1, 2], {"isce": [90, 50, 0]}, 100, budget=budget)
        words = [text.get_text() for text in figure.legends[0].get_texts()]
        assert words == ["I-SCE"] + ["the paper's 2 queries"] * drawn
        assert sum(line.get_linestyle() == ":" for line in figure.axes[0].lines) == drawn


def test_norm_distribution_is_robust_accuracy() -> None:
    ax = plots.norm_distribution({"sce": [0.0, 1.0, 2.0, np.inf]}, 4.0).axes[0]
    x, y = np.asarray(ax.lines[0].get_xdata()), np.asarray(ax.lines[0].get_ydata())
    assert [float(y[x == at][0]) for at in (0.0, 0.5, 1.0, 3.0)] == [75.0, 75.0, 50.0, 25.0]


def test_a_method_under_two_attacks_keeps_its_colour() -> None:
    names = ("isce, DF", "isce, DF on raw", "sce, DF")
    ax = plots.norm_distribution({name: [1.0, 2.0] for name in names}, 4.0).axes[0]
    assert ax.get_ylabel() == "images with perturbation > ε (%), n = 2"
    assert [line.get_label() for line in ax.lines[:3]] == ["I-SCE, DF", "I-SCE, DF on raw", "SCE, DF"]
    assert [line.get_color() for line in ax.lines[:3]] == [plots.METHOD_COLORS[m] for m in ("isce", "isce", "sce")]
    assert [line.get_linestyle() for line in ax.lines[:3]] == ["-", "--", "-"]


def test_what_the_tables_say_stands_beside_the_line() -> None:
    figure = plots.norm_distribution({"isce": [1.0, 3.0]}, 4.0, levels=[2.0], marks={"isce": {2.0: 25.0}})
    (diamond,) = (line for line in figure.axes[0].lines if line.get_marker() == "D" and len(line.get_xdata()))
    assert (list(diamond.get_xdata()), list(diamond.get_ydata())) == ([2.0], [25.0])
    words = [text.get_text() for text in figure.legends[0].get_texts()]
    assert words == ["I-SCE", "ε of the tables", "scaled back to ε and tested, as in the tables"]


def test_accuracy_panels_have_one_legend_and_a_method_s_colour() -> None:
    panels = [{"title": f"attack {k}", "eps": [0.0, 1.0], "correct": {"isce": [9, k], "sce": [8, 0]}} for k in range(4)]
    figure = plots.accuracy_panels(panels, 10, levels=[0.5])
    assert titles(figure) == ["attack 0", "attack 1", "attack 2", "attack 3"]
    np.testing.assert_allclose(figure.axes[3].lines[0].get_ydata(), [90, 30])
    assert {ax.lines[0].get_color() for ax in figure.axes} == {plots.METHOD_COLORS["isce"]}
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["I-SCE", "SCE", "ε of the tables"]


def test_norm_violins_leave_out_what_has_no_norm_and_count_it() -> None:
    norms = {"sce": np.r_[0.0, np.full(3, 1.0), 10.0, 100.0, np.inf], "isce": [0.0, np.inf, np.inf]}
    figure = plots.norm_violins([{"title": "DF", "norms": norms}], levels=[1.0])
    (ax,) = figure.axes
    assert [text.get_text() for text in ax.texts] == ["1 of 7 never misled", "2 of 3 never misled"]
    assert [tick.get_text() for tick in ax.get_yticklabels()] == ["SCE", "I-SCE"]
    assert len(ax.collections) == 1  # one of them has nothing to draw
    (dot,) = (line for line in ax.lines if line.get_marker() == "o")
    np.testing.assert_allclose(dot.get_xdata(), [0.0])  # log10 of the median


def test_loss_and_accuracy_side_by_side() -> None:
    figure = plots.loss_and_accuracy({"isce": [1.0, 2.0, 3.0]}, {"isce": [90, 50, 10]})
    left, right = figure.axes
    np.testing.assert_array_equal(left.lines[0].get_ydata(), [1, 2, 3])
    np.testing.assert_array_equal(right.lines[0].get_ydata(), [90, 50, 10])
    with pytest.raises(ValueError, match="values of sce"):
        plots.loss_and_accuracy({"isce": [1.0, 2.0], "sce": [1.0]}, {"isce": [1, 2]})


def test_curves() -> None:
    ax = plots.curves([0, 1], {"a": [1, 2], "b": [3, 4]}, "x", "y", points={(0.5, 2.0): "here"}, zero="y").axes[0]
    np.testing.assert_array_equal(ax.lines[1].get_ydata(), [3, 4])
    assert [text.get_text() for text in ax.texts] == ["here"]


def test_every_method_has_its_own_colour_and_name() -> None:
    assert plots.METHOD_COLORS.keys() == METHODS.keys() | CONTROLS.keys()
    assert len(set(plots.METHOD_COLORS.values())) == len(plots.METHOD_COLORS)
    assert plots.label("isce") == "I-SCE"
    assert plots.label("APGD-DLR") == "APGD-DLR"


def test_matplotlib_is_left_as_it_was() -> None:
    before = dict(matplotlib.rcParams)
    plots.accuracy_curve([0, 1], {"sce": [1, 0]}, 1)
    assert dict(matplotlib.rcParams) == before


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: plots.inference_region([]), "1 to 99 panels, got 0"),
        (
            lambda: plots.inference_region([{**region(), "wrong": [0, 1]}]),
            r"wrong must have shape \(2, 4\), got \(2,\)",
        ),
        (lambda: plots.label_regression(*[{**p, "loss": [1.0]} for p in regression()]), r"loss must have shape \(50\)"),
        (lambda: plots.label_regression_measured([pulls(rate=[1.0])]), r"rate must have shape \(4\), got \(1,\)"),
        (lambda: plots.ablation_surface(surfaces(5)), "1 to 4 panels"),
        (lambda: plots.ablation_spread([{**surfaces(1)[0], "again": 50.0, "n": 9}]), r"again must have shape \(any\)"),
        (lambda: plots.condition_surface(S, M, np.zeros((3, 4))), r"z must have shape \(4, 3\), got \(3, 4\)"),
        (lambda: plots.embedding([{"method": "sce", "points": np.zeros((5, 2)), "labels": LABELS[:5]}]), r"\(any, 3\)"),
        (lambda: plots.accuracy_curve([0, 1], {"sce": [1, 2, 3]}, 5), r"counts of sce must have shape \(2\)"),
        (lambda: plots.accuracy_curve([0], {"sce": [6]}, 5), "correct <= n"),
        (lambda: plots.norm_distribution({"sce": [np.nan]}, 1.0), "must not be NaN"),
        (lambda: plots.norm_distribution({"sce": [1.0]}, 0.0), "max_norm > 0"),
        (lambda: plots.norm_distribution({"a": [1.0], "b": [1.0, 2.0]}, 1.0), "norms of b"),
        (lambda: plots.curves([0, 1], {"a": [1]}, "x", "y"), r"a must have shape \(2\)"),
        (lambda: plots.save(Figure(), "../out"), "plain name"),
        (lambda: plots.save(Figure(), "figure.png"), "plain name"),
    ],
)
def test_wrong_use_is_one_clear_line(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        call()
    assert "\n" not in str(error.value)


def test_save_writes_png_or_html_the_same_each_time(tmp_path: Path) -> None:
    for build, suffix in ((lambda: plots.condition_surface(S, M, np.ones((4, 3))), "png"), (go.Figure, "html")):
        path = plots.save(build(), "figure5", tmp_path)
        first = path.read_bytes()
        assert path == tmp_path / f"figure5.{suffix}"
        assert plots.save(build(), "figure5", tmp_path).read_bytes() == first
    assert (tmp_path / "figure5.png").read_bytes().startswith(base64.b64decode("iVBORw0KGgo="))
    assert (tmp_path / "figure5.html").stat().st_size < 100_000
    assert sorted(path.name for path in tmp_path.iterdir()) == ["figure5.html", "figure5.png"]
    assert plots.save(go.Figure(), "figure5", tmp_path, seed=3).name == "figure5_seed3.html"  # not over that of seed 0
