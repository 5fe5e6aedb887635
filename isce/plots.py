"""The figures: pure functions of arrays to a matplotlib Figure (print) or, `..._plotly`, a plotly Figure (turn and hover).

Nothing is computed here that a record does not hold, nothing global is touched: no pyplot, no rc left behind. Accuracies
are in %, norms in L2 units of pixels in [0, 1]. Every function raises ValueError, in one line, for arrays of wrong shapes.
Ten colours for the classes: Petroff's set, told apart by colour-blind readers too (arXiv 2107.02270).
"""

from collections.abc import Iterable, Mapping, Sequence
from itertools import cycle, product
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import plotly.graph_objects as go
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.patheffects import withStroke
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator
from mpl_toolkits.mplot3d import proj3d
from numpy.typing import ArrayLike, NDArray
from scipy.ndimage import distance_transform_edt
from scipy.spatial.distance import cdist
from scipy.stats import binom

from isce.methods import CONTROLS, METHODS
from isce.record import atomic, figures_dir, wilson

Array = NDArray[Any]
Panel = Mapping[str, Any]
PETROFF10 = "#3f90da #ffa90e #bd1f01 #94a4a2 #832db6 #a96b59 #e76300 #b9ac70 #717581 #92dadd".split()  # noqa: SIM905
OF_TABLES = "ε of the tables"  # what dotted lines are, where nothing else is said
INK, GREY, ORANGE, BLUE, RED = "#222222", "#94a4a2", "#e76300", "#3f90da", "#bd1f01"
METHOD_COLORS = {"sce": INK, "label_smoothing": "#ffa90e", "center": GREY, "lgm": "#832db6", "arcface": "#a96b59"}
METHOD_COLORS |= {"mmc": ORANGE, "random": "#5bb8bc", "at": BLUE, "isce": RED, "norm_only": "#e08a7d"}
METHOD_COLORS |= {"subtracted_margin": "#b9ac70", "temperature": "#717581", "isce_temperature": "#7a1400"}
METHOD_COLORS |= {"arcface_unit": "#4f8a3c", "arcface_isce": "#9bbf72", "sce_normalized": "#8a8d9e"}
METHOD_DASHES: dict[str, Any] = {"center": ":", "random": "-.", "lgm": (0, (6, 1.5)), "arcface": (0, (4, 1, 1, 1))}
METHOD_DASHES |= {"mmc": (0, (1.5, 1))} | dict.fromkeys(CONTROLS, "--")  # where colours alone are too near
RC: Any = {"font.family": "DejaVu Sans", "font.size": 10, "axes.titlesize": 11, "axes.titlelocation": "left"}
RC |= {"axes.spines.top": False, "axes.spines.right": False, "axes.edgecolor": "#666666", "axes.labelcolor": INK}
RC |= {"axes.grid": True, "axes.axisbelow": True, "grid.color": "#e4e4e4", "grid.linewidth": 0.7}
RC |= {"xtick.color": "#444444", "ytick.color": "#444444", "legend.frameon": False, "lines.linewidth": 1.8}
FONT = {"family": "DejaVu Sans, Helvetica, Arial, sans-serif", "size": 13, "color": INK}
PLOTLY = {"template": "plotly_white", "font": FONT, "margin": {"l": 10, "r": 10, "t": 60, "b": 10}}
# On a phone a bar or a legend at the side would take half of the width, and a nearer camera would lose the corners.
BELOW: Any = {"orientation": "h", "thickness": 12, "y": 0, "yanchor": "top"}
CAMERA = {"eye": {"x": 1.5, "y": 1.5, "z": 1.05}, "center": {"x": 0, "y": 0, "z": -0.12}}

_styled = matplotlib.rc_context(RC)  # as a decorator: draw in the house style, leave matplotlib as it was


def _array(name: str, x: ArrayLike, *shape: int | None) -> Array:
    """x as a numpy array of this shape, None being any length."""
    a = np.asarray(x)
    if a.ndim != len(shape) or any(want not in (None, have) for want, have in zip(shape, a.shape, strict=True)):
        want = ", ".join("any" if n is None else str(n) for n in shape)
        raise ValueError(f"{name} must have shape ({want}), got {a.shape}")
    return a


def label(name: str) -> str:
    """A method's printed name, `"isce"` -> `"I-SCE"`, `"isce, DF 50"` -> `"I-SCE, DF 50"`; any other name as it is."""
    method, comma, rest = name.partition(", ")
    known = METHODS | CONTROLS
    return f"{known[method].label}{comma}{rest}" if method in known else name


def _styles(names: Iterable[str]) -> list[dict[str, Any]]:
    """A line style per name: a method's own colour and dashes, I-SCE bold; `"isce, this"` and `"isce, that"` the
    method's colour, the second dashed; other names the colours left over."""
    names = list(names)
    method = {name: name.partition(", ")[0] for name in names}
    spare = cycle([c for c in PETROFF10 if c not in map(METHOD_COLORS.get, method.values())] or PETROFF10)
    several = len(set(method.values())) < len(names)
    styles = []
    for k, name in enumerate(names):
        before = sum(method[other] == method[name] for other in names[:k])
        dashes = ("-", "--", ":", "-.")[before % 4] if several else METHOD_DASHES.get(name, "-")
        color = METHOD_COLORS.get(method[name]) or next(spare)
        width = 2.8 if method[name] == "isce" else 1.8
        styles.append({"color": color, "label": label(name), "ls": dashes, "lw": width})
    return styles


def _heading(figure: Figure, title: str) -> None:
    figure.suptitle(title, x=0.01, ha="left", weight="bold")


def _grid(figures: int) -> tuple[int, int]:
    """Rows and columns of so many panels."""
    columns = 2 if figures == 4 else min(3, figures)
    return -(-figures // columns), columns


def _class_legend(figure: Figure, panels: Sequence[Panel], classes: Sequence[str]) -> None:
    drawn = np.unique(np.concatenate([np.asarray(panel["labels"]) for panel in panels])).astype(int)
    handles = [Line2D([], [], marker="o", ls="", ms=7, color=PETROFF10[c % 10], label=classes[c]) for c in drawn]
    columns = 10 if max(map(len, classes)) == 1 else 5
    figure.legend(handles=handles, loc="outside lower center", ncols=columns, title="class", columnspacing=1.2)


def _panels(panels: Sequence[Panel], most: int = 99) -> Sequence[Panel]:
    if not 1 <= len(panels) <= most:
        raise ValueError(f"want 1 to {most} panels, got {len(panels)}")
    return panels


# Figure 1


@_styled
def inference_region(panels: Sequence[Panel], *, title: str = "") -> Figure:
    """Figure 1, measured: clean features (grey), adversarial ones (orange), and the model's regions, tinted and numbered by class.
    Lines lead from the first 60 clean images to their adversarial ones.

    Each panel: `title`; `clean`, `adversarial` (N, 2); `wrong` (2, N), which of them the model misclassifies; `decision`
    (H, W), the class predicted over the plane, rows along y; `extent` (left, right, bottom, top) of the centres of that
    grid's outer cells; `absent`, the classes that nothing goes to, if that is known. (The cells are too coarse to count by,
    where classes meet.)
    """
    n = len(_panels(panels))
    figure = Figure(figsize=(4.6 * n, 4.9), layout="constrained")
    for k, panel in enumerate(panels):
        clean = _array("clean", panel["clean"], None, 2)
        adversarial = _array("adversarial", panel["adversarial"], len(clean), 2)
        wrong, grid = _array("wrong", panel["wrong"], 2, len(clean)), _array("decision", panel["decision"], None, None)
        left, right, bottom, top = _array("extent", panel["extent"], 4)
        x, y = np.linspace(left, right, grid.shape[1]), np.linspace(bottom, top, grid.shape[0])
        ax = figure.add_subplot(1, n, k + 1)
        for c in np.unique(grid):
            inside = (grid == c).astype(float)
            ax.contourf(x, y, inside, [0.5, 1.5], colors=[PETROFF10[int(c) % 10]], alpha=0.10)
            if 0 < inside.mean() < 1:
                ax.contour(x, y, inside, [0.5], colors=[INK], linewidths=1.0)
            depth = distance_transform_edt(np.pad(inside, 1))[1:-1, 1:-1]  # to what is not of this class
            i, j = map(int, np.unravel_index(depth.argmax(), depth.shape))
            look: Any = {"ha": "center", "va": "center", "fontsize": 13, "weight": "bold", "color": INK, "zorder": 6}
            ax.text(
                float(x[j]), float(y[i]), str(c), path_effects=[withStroke(linewidth=3, foreground="white")], **look
            )
        for points, color, name in ((clean, GREY, "clean"), (adversarial, ORANGE, "adversarial")):
            ax.scatter(points[:, 0], points[:, 1], s=9, color=color, alpha=0.75, linewidths=0, label=name, zorder=3)
        ax.plot(*np.stack([clean[:60], adversarial[:60]]).transpose(2, 0, 1), color=BLUE, lw=0.7, alpha=0.6, zorder=2)
        shares = 100 * wrong.mean(1)
        absent = ", ".join(map(str, panel.get("absent", ())))
        of = f"{panel['title']}: nothing goes to {absent}" if absent else panel["title"]
        ax.set_title(f"{of}\nmisclassified: clean {shares[0]:.0f} %, adversarial {shares[1]:.0f} %")
        ax.set(xlabel="feature 1", ylabel="feature 2", xlim=(left, right), ylim=(bottom, top), aspect="equal")
        ax.grid(visible=False)
    handles = [
        Line2D([], [], marker="o", ls="", color=c, label=t) for c, t in ((GREY, "clean"), (ORANGE, "adversarial"))
    ]
    handles.append(Line2D([], [], color=INK, lw=1, label="decision boundary"))
    drawn = min(60, max(len(panel["clean"]) for panel in panels))
    handles.append(Line2D([], [], color=BLUE, lw=0.7, alpha=0.6, label=f"from clean to adversarial, {drawn} images"))
    figure.legend(handles=handles, loc="outside lower center", ncols=4, borderaxespad=0)
    _heading(figure, title)
    return figure


# Figure 2


def _arrow(color: str) -> dict[str, Any]:
    return {"arrowstyle": "-|>", "color": color, "lw": 1.8, "shrinkA": 0, "shrinkB": 0}


def _on_circle(angle: float, radius: float) -> tuple[float, float]:
    return radius * float(np.cos(angle)), radius * float(np.sin(angle))


def _descent_on_line(ax: Axes, panel: Panel) -> None:
    x, target = _array("x", panel["x"], None), float(panel["target"])
    loss, gradient = _array("loss", panel["loss"], len(x)), _array("gradient", panel["gradient"], len(x))
    ax.plot(x, loss, color=RED)
    ax.axvline(target, color=INK, linestyle=":", linewidth=1.4)
    width = float(np.ptp(x))
    for at in np.linspace(x[0] + 0.06 * width, x[-1] - 0.02 * width, 9):
        k = int(np.abs(x - at).argmin())
        step = -np.sign(gradient[k]) * min(0.06 * width, abs(target - x[k]))
        if abs(step) > 0.015 * width:
            ax.annotate("", (x[k] + step, loss[k]), (x[k], loss[k]), arrowprops=_arrow(BLUE))
    ax.set(xlabel="probability of the right class", ylabel="loss (nats)", ylim=(0, float(np.quantile(loss, 0.97))))
    words = f"target {target:.2f}"
    ax.text(target - 0.015, 0.96, words, rotation=90, ha="right", va="top", transform=ax.get_xaxis_transform())


def _descent_on_circle(ax: Axes, panel: Panel) -> None:
    angle, centers = _array("angle", panel["angle"], None), _array("centers", panel["centers"], None)
    loss, gradient = _array("loss", panel["loss"], len(angle)), _array("gradient", panel["gradient"], len(angle))
    points = ax.scatter(np.cos(angle), np.sin(angle), c=loss, cmap="viridis", s=22, linewidths=0)
    ax.figure.colorbar(points, ax=ax, label="loss (nats)", shrink=0.8, pad=0.02)
    for k in np.linspace(0, len(angle) - 1, 17)[:-1].astype(int):
        at, step = angle[k], -0.2 * np.sign(gradient[k])
        if abs(gradient[k]) > 1e-9 * np.abs(gradient).max():
            start, end = (_on_circle(turn, 1.15) for turn in (at - step / 2, at + step / 2))
            ax.annotate("", end, start, arrowprops=_arrow(BLUE))
    for k, center in enumerate(centers):
        ax.annotate("", _on_circle(center, 0.97), (0, 0), arrowprops=_arrow(GREY if k else INK))
        name = "other" if k else "right class"
        ax.annotate(
            name,
            _on_circle(center, 0.55),
            xytext=(6, 6 if np.cos(center) > 0.1 else -12),
            textcoords="offset points",
            color=INK,
        )
    ax.set(aspect="equal", xlim=(-1.4, 1.4), ylim=(-1.4, 1.4), xlabel="feature 1", ylabel="feature 2")


def _descent_in_plane(ax: Axes, panel: Panel) -> None:
    x, y = _array("x", panel["x"], None), _array("y", panel["y"], None)
    loss = _array("loss", panel["loss"], len(y), len(x))
    gradient = _array("gradient", panel["gradient"], len(y), len(x), 2)
    shades = ax.contourf(x, y, loss, 14, cmap="Blues", vmin=loss.min(), vmax=loss.min() + 1.7 * np.ptp(loss))
    ax.figure.colorbar(shades, ax=ax, label="loss (nats)", shrink=0.8, pad=0.02)
    every = max(1, len(x) // 12)
    i, j = np.arange(every // 2, len(y), every), np.arange(every // 2, len(x), every)
    g = -gradient[np.ix_(i, j)]
    length = np.linalg.norm(g, axis=2, keepdims=True)
    g = np.where(length > 0.02 * np.median(length), g / np.maximum(length, 1e-12), np.nan)  # directions; none at rest
    ax.quiver(x[j], y[i], g[..., 0], g[..., 1], color=INK, scale=19, width=0.006, pivot="mid")
    turn = np.linspace(0, 2 * np.pi, 200)
    ax.plot(np.cos(turn), np.sin(turn), color=INK, linestyle=":", linewidth=1.2, label="unit circle")
    best = _array("optimum", panel["optimum"], 2)
    look: Any = {"color": "#ffa90e", "lw": 2.5}
    ax.plot(*np.outer(best, [0, 10]), **look, label="least loss, at any length")
    ax.plot(*best, marker="*", ms=15, mec=INK, **look | {"ls": ""}, label="at length 1")
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=3, columnspacing=1.2)
    ax.set(xlim=(x[0], x[-1]), ylim=(y[0], y[-1]))
    ax.set(aspect="equal", xlabel="$f_1$, right class", ylabel="$f_2$, the other class")
    ax.grid(visible=False)


@_styled
def label_regression(one_side: Panel, both_sides: Panel, circle: Panel, plane: Panel, *, title: str = "") -> Figure:
    """Figure 2 from real losses and gradients: (a) SCE, (b) label smoothing, (c) ArcFace, (d) I-SCE. Arrows descend.

    Every panel has `title`. `one_side`, `both_sides`: `x` (G,) probabilities, `loss`, `gradient` (G,), `target`. `circle`:
    `angle` (G,) in radians, `loss`, `gradient` (G,) along it, `centers` (C,) the angles of the classes, the right one first.
    `plane`: `x` (W,), `y` (H,), `loss` (H, W), `gradient` (H, W, 2), `optimum` (2,). Losses in nats.
    """
    figure = Figure(figsize=(10.4, 8.6), layout="constrained")
    draws = (_descent_on_line, _descent_on_line, _descent_on_circle, _descent_in_plane)
    for k, (draw, panel) in enumerate(zip(draws, (one_side, both_sides, circle, plane), strict=True)):
        ax = figure.add_subplot(2, 2, k + 1)
        draw(ax, panel)
        ax.set_title(f"({'abcd'[k]}) {panel['title']}")
    _heading(figure, title)
    return figure


@_styled
def label_regression_measured(panels: Sequence[Panel], *, title: str = "") -> Figure:
    """Figure 2 of trained models: where samples lie along a coordinate, and which way the loss pulls them along it.

    Each panel: `title`, `xlabel`; `at` (N,) the coordinate and `rate` (N,) its change by a step down the loss, positive to the
    right; `target`, or None if it lies at infinity. `log10`: the coordinate is a logarithm, and its axis
    is named by powers of ten.
    """
    figure = Figure(figsize=(10.4, 7.4), layout="constrained")
    for k, panel in enumerate(_panels(panels, 4)):
        at = _array("at", panel["at"], None)
        rate = _array("rate", panel["rate"], len(at))
        ax = figure.add_subplot(2, 2, k + 1)
        bins = np.linspace(at.min(), at.max(), 31)
        under = np.zeros(30)
        for arrow, of, color in (("→", rate > 0, BLUE), ("←", rate < 0, ORANGE)):
            share = 100 * np.histogram(at[of], bins)[0] / len(at)
            words = f"{arrow} {share.sum():.0f} % are pulled this way"
            ax.bar(bins[:-1], share, np.diff(bins), under, align="edge", color=color, ec="white", lw=0.5, label=words)
            under += share
        if panel["target"] is not None:
            ax.axvline(panel["target"], color=INK, linestyle=":", linewidth=1.6, label="target")
        if panel.get("log10"):
            ax.xaxis.set_major_locator(MaxNLocator(7, integer=True))
            ax.xaxis.set_major_formatter(lambda value, _: f"$10^{{{value:.0f}}}$")
        ax.set(xlabel=panel["xlabel"], ylabel="samples (%)", ylim=(0, 1.4 * under.max()))  # room for the legend
        ax.set_title(f"({'abcd'[k]}) {panel['title']}")
        ax.legend(loc="upper left" if panel.get("log10") else "upper right")
    _heading(figure, title)
    return figure


@_styled
def descent_field(panels: Sequence[Panel], *, title: str = "") -> Figure:
    """Figure 2 where features are two-dimensional: samples by class, an arrow down the loss from each.

    Each panel: `title`; `points` (N, 2); `descent` (N, 2) unit vectors; `labels` (N,) in 0..9. The cross is the origin.
    """
    figure = Figure(figsize=(10.4, 10.8), layout="constrained")
    for k, panel in enumerate(_panels(panels, 4)):
        points = _array("points", panel["points"], None, 2)
        down = _array("descent", panel["descent"], len(points), 2)
        labels = _array("labels", panel["labels"], len(points))
        ax = figure.add_subplot(2, 2, k + 1)
        colors = [PETROFF10[int(c) % 10] for c in labels]
        x, y = points.T
        ax.scatter(x, y, s=9, c=colors, linewidths=0)
        ax.quiver(x, y, *down.T, color=colors, angles="xy", scale=22, width=0.0045)
        ax.plot(0, 0, marker="+", ms=13, color=INK, ls="")
        low, high = points.min(0), points.max(0)
        middle, half = (low + high) / 2, 0.56 * float((high - low).max() or 1)
        ax.set(aspect="equal", xlim=middle[0] + np.array([-half, half]), ylim=middle[1] + np.array([-half, half]))
        ax.set(xlabel="feature 1", ylabel="feature 2")
        ax.set_title(f"({'abcd'[k]}) {panel['title']}")
    _class_legend(figure, panels, "0123456789")
    _heading(figure, title)
    return figure


@_styled
def norms_in_training(norms: Mapping[str, Mapping[float, ArrayLike]], *, title: str = "") -> Figure:
    """Mean norm of the raw logits, by epoch: `norms` maps a method to the factor on its output layer at the start -> (E,).

    Factor 1 is the solid line, any other dashed. A loss that does not fix the norm keeps the lines apart.
    """
    figure, ax = _axes("epoch", "norm of the raw logits", title)
    handles: dict[str, Line2D] = {}
    for style, (name, runs) in zip(_styles(norms), norms.items(), strict=True):
        for factor, values in runs.items():
            values = _array(f"norms of {name}", values, None)
            look = style if factor == 1 else style | {"ls": "--"}
            (line,) = ax.plot(np.arange(1, len(values) + 1), values, **look)
            handles |= {style["label"]: line} if factor == 1 else {}
    factors = [f"{a:g}" for a in dict.fromkeys(a for runs in norms.values() for a in runs) if a != 1]
    if factors:
        handles[f"output layer × {', '.join(factors)}\nat the start"] = Line2D([], [], color=GREY, ls="--")
    ax.set_yscale("log")
    ax.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    ax.yaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_major_locator(MaxNLocator(8, integer=True))
    ax.legend(handles.values(), handles.keys(), loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure


# Surfaces over (s, m): Figures 3 and 5


def _axes3d(figure: Figure, rows: int, columns: int, k: int, title: str, height: float = 0.8, y: float = 1.0) -> Any:
    ax: Any = figure.add_subplot(rows, columns, k, projection="3d")
    ax.view_init(elev=24, azim=-125)
    ax.set_box_aspect((1, 1, height), zoom=0.98)
    for axis in (ax.xaxis, ax.yaxis, ax.zaxis):
        axis.set_major_locator(MaxNLocator(4))
        axis.set_pane_color((0.975, 0.975, 0.975))
    ax.tick_params(labelsize=8.5, pad=1)
    ax.set_title(title, y=y, loc="center")
    return ax


def _surface(panel: Panel, values: str) -> tuple[Array, Array, Array]:
    s, m = _array("s", panel["s"], None), _array("m", panel["m"], None)
    return s, m, _array(values, panel[values], len(s), len(m))


@_styled
def ablation_surface(panels: Sequence[Panel], *, title: str = "") -> Figure:
    """Figure 3: accuracy over (s, m), up to four panels of `title`, `s` (S,), `m` (M,), `accuracy` (S, M) in %.

    Heights and colours are a panel's own, from its lowest to its highest accuracy, which its title says: what varies by a point
    within a panel may vary by fifty between data sets. A dot is a network, also where the surface hides it; the best are red.
    """
    data = [_surface(panel, "accuracy") for panel in _panels(panels, 4)]
    columns = min(2, len(data))
    rows = -(-len(data) // columns)
    figure = Figure(figsize=(5.0 * columns, 4.1 * rows), layout="constrained")
    for k, (panel, (s, m, accuracy)) in enumerate(zip(panels, data, strict=True)):
        i, j = np.nonzero(accuracy == accuracy.max())
        best = " and ".join(f"s = {s[a]:.3g}, m = {m[b]:.3g}" for a, b in zip(i, j, strict=True))
        best = f"{len(i)} settings alike" if len(i) > 2 else best
        span = f"{accuracy.min():.1f} to {accuracy.max():.1f} %, best at" + ("\n" if len(i) == 2 else " ")
        ax = _axes3d(figure, rows, columns, k + 1, f"{panel['title']}\n{span}{best}")
        mesh, colors = np.meshgrid(s, m, indexing="ij"), {"vmin": accuracy.min(), "vmax": accuracy.max()}
        look = {"cmap": "viridis", "edgecolor": "white", "linewidth": 0.4, "rcount": 40, "ccount": 40}
        ax.plot_surface(*mesh, accuracy, **look, **colors)
        dots = {"s": 7, "color": INK, "linewidths": 0, "depthshade": False}
        ax.plot_wireframe(*mesh, accuracy, color=INK, linewidth=0.5, alpha=0.5, rcount=40, ccount=40, zorder=8)
        ax.scatter(*mesh, accuracy, zorder=9, **dots)
        ax.plot(s[i], m[j], accuracy[i, j], "o", markersize=6, color=RED, zorder=10)
        ax.set(xlabel="s", ylabel="m", zlabel="accuracy (%)")
        if len(s) <= 6 and len(m) <= 6:  # few enough to name the very settings that were trained
            ax.set(xticks=s, yticks=m)
    _heading(figure, title)
    return figure


def ablation_surface_plotly(panels: Sequence[Panel], *, title: str = "") -> go.Figure:
    """Figure 3 to turn: the same panels as `ablation_surface`, in one scene, chosen from a menu; the best settings are red."""
    data = [_surface(panel, "accuracy") for panel in _panels(panels, 4)]
    hover: Any = {"hovertemplate": "s = %{x:.3g}, m = %{y:.3g}<br>accuracy %{z:.1f} %<extra></extra>"}
    look: Any = {"colorscale": "Viridis", "colorbar": BELOW | {"title": "accuracy (%)"}}
    best: Any = {"mode": "markers", "marker": {"size": 5, "color": RED}, "showlegend": False}
    figure = go.Figure()
    for k, (s, m, accuracy) in enumerate(data):
        i, j = np.nonzero(accuracy == accuracy.max())
        figure.add_surface(x=s, y=m, z=accuracy.T, visible=k == 0, **look, **hover)
        figure.add_scatter3d(x=s[i], y=m[j], z=accuracy[i, j], visible=k == 0, **best, **hover)
    figure.update_scenes(xaxis_title="s", yaxis_title="m", zaxis_title="accuracy (%)", camera=CAMERA)
    shown = [[k == j for j in range(len(data)) for _ in range(2)] for k in range(len(data))]
    menu = _menu([(str(panel["title"]), [{"visible": of}]) for panel, of in zip(panels, shown, strict=True)])
    return _titled(figure, title).update_layout(updatemenus=[menu], height=560)


@_styled
def ablation_spread(panels: Sequence[Panel], *, title: str = "") -> Figure:
    """Is Figure 3 more than chance? Each (s, m)'s accuracy, beside those of one (s, m) trained from several seeds.

    Each panel: `title`, `s` (S,), `m` (M,), `accuracy` (S, M) in %, `again` (R,) in %, one per seed, the grid's first, of `n`
    images. The band holds 95 % of accuracies of n images drawn anew, were the grid's mean that of every setting (binomial):
    a scale and no test, as all see the same images, and are trainings of their own. The seeds are the yardstick.
    """
    rows, columns = _grid(len(_panels(panels)))
    figure = Figure(figsize=(4.2 * columns, 3.5 * rows + 0.9), layout="constrained")
    handles: dict[str, Any] = {}
    for k, panel in enumerate(panels):
        s, m, accuracy = _surface(panel, "accuracy")
        again = _array("again", panel["again"], None)
        ax = figure.add_subplot(rows, columns, k + 1)
        mean = float(accuracy.mean())
        low, high = 100 * binom.ppf([0.025, 0.975], panel["n"], mean / 100) / panel["n"]
        ax.axhspan(low, high, color=GREY, alpha=0.2, linewidth=0)
        ax.axhline(mean, color=GREY, linewidth=1.2)
        handles["mean of the grid"] = Line2D([], [], color=GREY, lw=1.2)
        handles["95 % of draws of n images at that mean (a scale, no test)"] = Patch(color=GREY, alpha=0.3)
        right = len(s) + np.linspace(-0.25, 0.25, 2 * len(again) + 1)[1::2]
        (handles["s = 1, m = 0.1, other seeds"],) = ax.plot(right, again, "D", ms=6, color=RED, mfc="white", mew=1.6)
        (handles["the grid's seed"],) = ax.plot(right[:1], again[:1], "D", ms=6, color=RED, mew=1.6)
        for j, color in enumerate(matplotlib.colormaps["viridis"](np.linspace(0, 0.92, len(m)))):
            at = np.arange(len(s)) + (0.5 * (j + 0.5) / len(m) - 0.25)
            (handles[f"m = {m[j]:g}"],) = ax.plot(at, accuracy[:, j], "o", ms=6, color=color)
        ax.axvline(len(s) - 0.5, color=INK, linewidth=0.8)
        ax.set(xticks=range(len(s) + 1), xticklabels=[*(f"{a:g}" for a in s), "seeds"], xlim=(-0.5, len(s) + 0.5))
        ax.set(xlabel="s", ylabel=f"accuracy (%), n = {panel['n']}" if k % columns == 0 else "")
        spans = (f"{name} {a.min():.1f}–{a.max():.1f} %" for name, a in (("grid", accuracy), ("seeds", again)))
        ax.set_title(f"{panel['title']}\n{', '.join(spans)}")
        ax.grid(visible=False, axis="x")
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=columns + 1)
    _heading(figure, title)
    return figure


def _titled(figure: go.Figure, title: str) -> go.Figure:
    """In the house's style, under a title of one or more lines, above the menu."""
    figure.update_layout(**PLOTLY)
    words = title.replace("\n", "<br>")
    top = 60 + 18 * words.count("<br>") + 30
    return figure.update_layout(
        title={"text": words, "x": 0.01, "xanchor": "left", "y": 0.98, "yanchor": "top", "font": {"size": 14}},
        margin=PLOTLY["margin"] | {"t": top if title else 60},  # type: ignore[operator]
    )


def _menu(entries: Sequence[tuple[str, list[Any]]]) -> dict[str, Any]:
    """Entries of a label and plotly's arguments of `update`. One scene and a menu: browsers limit the number of scenes."""
    buttons = [{"label": text, "method": "update", "args": args} for text, args in entries]
    return {"buttons": buttons, "x": 0, "y": 1.12, "xanchor": "left", "yanchor": "top"}


@_styled
def condition_surface(s: ArrayLike, m: ArrayLike, z: ArrayLike, *, at: str = "", title: str = "") -> Figure:
    """Figure 5: z(s, m) as a surface with the plane z = 0, and as a map with the contour z = 0. s (S,), m (M,), z (S, M); `at`
    stands over the surface."""
    s, m, z = _surface({"s": s, "m": m, "z": z}, "z")
    grid_s, grid_m = np.meshgrid(s, m, indexing="ij")
    bound = float(np.abs(z).max()) or 1.0
    figure = Figure(figsize=(9.0, 3.8), layout="constrained")
    ax = _axes3d(figure, 1, 2, 1, f"{at}; grey: z = 0" if at else "grey: z = 0")
    colors: Any = {"cmap": "RdBu", "vmin": -bound, "vmax": bound}
    ax.plot_surface(grid_s, grid_m, z, rcount=20, ccount=20, linewidth=0.3, edgecolor="#666666", **colors)
    ax.plot_surface(grid_s, grid_m, np.zeros_like(z), color="#999999", alpha=0.25, rcount=2, ccount=2)
    ax.set(xlabel="s", ylabel="m", zlabel="z")
    flat = figure.add_subplot(1, 2, 2)
    shade = flat.contourf(s, m, z.T, 15, **colors)
    if z.min() < 0 < z.max():
        flat.contour(s, m, z.T, [0.0], colors=[INK], linewidths=1.6)
    flat.set(xlabel="s", ylabel="m")
    flat.set_title(f"z > 0 on {100 * float((z > 0).mean()):.1f} % of this range")
    figure.colorbar(shade, ax=flat, label="z")
    _heading(figure, title)
    return figure


def condition_surface_plotly(s: ArrayLike, m: ArrayLike, z: ArrayLike, *, title: str = "") -> go.Figure:
    """Figure 5 to turn: z(s, m) and the plane z = 0. s (S,), m (M,), z (S, M)."""
    s, m, z = _surface({"s": s, "m": m, "z": z}, "z")
    bound = float(np.abs(z).max()) or 1.0
    hover = "s = %{x:.3g}, m = %{y:.3g}<br>z = %{z:.4g}<extra></extra>"
    figure = go.Figure(
        go.Surface(x=s, y=m, z=z.T, colorscale="RdBu", cmin=-bound, cmax=bound, hovertemplate=hover, colorbar=BELOW)
    )
    flat = {"colorscale": [[0, "#999999"], [1, "#999999"]], "showscale": False, "opacity": 0.35, "hoverinfo": "skip"}
    figure.add_trace(go.Surface(x=s[[0, -1]], y=m[[0, -1]], z=np.zeros((2, 2)), **flat))
    figure.update_scenes(xaxis_title="s", yaxis_title="m", zaxis_title="z", camera=CAMERA)
    return _titled(figure, title).update_layout(height=560)


@_styled
def condition_map(
    panels: Sequence[Panel], *, marks: Mapping[str, tuple[float, float]] | None = None, title: str = ""
) -> Figure:
    """Where the condition of Figure 5 holds, over the right class's logit and the others' sum R.

    Each panel: `title`; `f_i` (X,), `log_rest` (Y,) = ln R; `share` (X, Y), the % of the rectangle of (s, m) on which z > 0;
    `points`: a method and `clean` or `adversarial` -> (N, 2) of (f_i, ln R); `inside`: (3, U) f_i and the least and largest ln R
    that unit logits can have, or None. `marks`: other points by name.
    """
    n = len(_panels(panels))
    figure = Figure(figsize=(5.1 * n + 0.6, 4.9), layout="constrained")
    handles: dict[str, Line2D] = {}
    for k, panel in enumerate(panels):
        x, y = _array("f_i", panel["f_i"], None), _array("log_rest", panel["log_rest"], None)
        share = _array("share", panel["share"], len(x), len(y))
        ax = figure.add_subplot(1, n, k + 1)
        shade = ax.contourf(x, y, share.T, np.linspace(0, 100, 11), cmap="Greys_r", vmin=-140, vmax=100)
        if share.min() < 50 < share.max():
            ax.contour(x, y, share.T, [0.2], colors=[INK], linewidths=1.2)
            handles["right of it z > 0 nowhere"] = Line2D([], [], color=INK, lw=1.2)
        if panel.get("inside") is not None:
            f_i, low, high = _array("inside", panel["inside"], 3, None)
            ax.plot(np.r_[f_i, f_i[::-1]], np.r_[low, high[::-1]], color=BLUE, lw=1.4)
            handles["unit logits of ten classes lie inside"] = Line2D([], [], color=BLUE, lw=1.4)
        for (method, kind), points in panel["points"].items():
            x_points, y_points = _array("points", points, None, 2).T
            look: Any = {"marker": "o"} if kind == "clean" else {"marker": "x"}
            dots, crosses = {"s": 16, "linewidths": 0, "zorder": 4}, {"s": 9, "linewidths": 0.7, "zorder": 3}
            more: Any = dots if kind == "clean" else crosses
            color = METHOD_COLORS.get(method, ORANGE)
            ax.scatter(x_points, y_points, color=color, alpha=0.5, **look, **more)
            handles[f"{label(method)}, {kind}"] = Line2D([], [], ls="", color=color, **look)
        for name, point in (marks or {}).items():
            star: Any = {"marker": "*", "ms": 10, "mfc": "none", "mec": INK, "mew": 0.8, "ls": ""}
            ax.plot(*point, zorder=5, **star)
            handles[name] = Line2D([], [], **star)
        ax.set(xlabel="$f_i$, logit of the right class", ylabel="ln R, the other classes' log-sum-exp")
        ax.set(xlim=(x.min(), x.max()), ylim=(y.min(), y.max()))
        ax.set_title(panel["title"])
        ax.grid(visible=False)
    figure.colorbar(shade, ax=figure.axes, label="share of the (s, m) rectangle where z > 0 (%)", shrink=0.9)
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=3)
    _heading(figure, title)
    return figure


@_styled
def gain_curve(
    p: ArrayLike, h: ArrayLike, pairs: Mapping[str, tuple[ArrayLike, ArrayLike]], h_at: Any, *, title: str = ""
) -> Figure:
    """h = P_I - P against P at s = 1, h (X,) over p (X,), and where real images lie on it, clean and attacked.

    `pairs` maps a method to the P of its clean images and of the attacked ones, (N,) each; `h_at` gives h there. An arrow
    leads from median to median: L_I > L where it falls.
    """
    x = _array("p", p, None)
    figure, ax = _axes("P(i|x), softmax probability of the right class", "$h = P_I - P$", title)
    ax.plot(x, _array("h", h, len(x)), color=GREY, lw=3, zorder=1)
    for style, (clean, adversarial) in zip(_styles(pairs), pairs.values(), strict=True):
        ends = []
        for points, marker in ((clean, "o"), (adversarial, "x")):
            at = _array("probabilities", points, None)
            ax.scatter(at, h_at(at), marker=marker, s=14, color=style["color"], alpha=0.2, zorder=2)
            ends.append((float(np.median(at)), float(h_at(np.median(at)))))
        look = {"arrowstyle": "-|>", "color": style["color"], "lw": 2, "connectionstyle": "arc3,rad=-0.3"}
        ax.annotate("", ends[1], ends[0], arrowprops=look, zorder=3)
    handles = [Line2D([], [], color=s["color"], lw=2.5, label=s["label"]) for s in _styles(pairs)]
    handles += [Line2D([], [], marker=k, ls="", color=INK, label=t) for k, t in (("o", "clean"), ("x", "adversarial"))]
    words = "an arrow leads from the median clean image to the\nmedian attacked one; where it falls, $L_I > L$"
    ax.text(0.5, 0.03, words, transform=ax.transAxes, ha="center", fontsize=9)
    ax.legend(handles=handles, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure


# Figure 4


def _embedded(panel: Panel) -> tuple[Array, Array, Array, float]:
    points = _array("points", panel["points"], None, 3)
    low, high = points.min(0), points.max(0)
    labels = _array("labels", panel["labels"], len(points))
    return points, labels, (low + high) / 2, 0.52 * float((high - low).max() or 1)


def _view(points: Array, labels: Array, near: float) -> dict[str, int]:
    """Elevation and azimuth, in degrees, from which points lie furthest on the page from those of other classes: on average,
    where what is further than `near` is no better than `near`."""
    some = np.unique(np.linspace(0, len(points) - 1, 300).astype(int))
    points, other = points[some], labels[some][:, None] != labels[some]

    def apart(view: tuple[int, int]) -> float:
        elevation, azimuth = np.radians(view)
        right = np.array([-np.sin(azimuth), np.cos(azimuth), 0.0])
        up = np.cross(
            [np.cos(azimuth) * np.cos(elevation), np.sin(azimuth) * np.cos(elevation), np.sin(elevation)], right
        )
        flat = points @ np.stack([right, up]).T
        return float(np.where(other, cdist(flat, flat), np.inf).min(1).clip(max=near).mean())

    best = max(product(range(15, 50, 5), range(-180, 180, 10)), key=apart)
    return dict(zip(("elev", "azim"), best, strict=True))


def _apart(centers: Array, sizes: Array) -> Array:
    """Centres (K, 2) of boxes of these sizes (K, 2), moved so that no box lies on another: each pair that does parts along the
    side where that is nearer."""
    centers, (one, other) = centers.copy(), np.triu_indices(len(centers), 1)
    for _ in range(1000):
        gap = centers[one] - centers[other]
        short = (sizes[one] + sizes[other]) / 2 - abs(gap)
        short[short.min(1) < 1e-9] = 0.0
        if not short.any():
            break
        step = np.where(gap < 0, -0.25, 0.25) * short * (short <= short.min(1, keepdims=True))
        np.add.at(centers, one, step)
        np.subtract.at(centers, other, step)
    return centers


def _name_classes(ax: Any, points: Array, labels: Array, classes: Sequence[str]) -> None:
    """Each class's name, outside of its mean as the page shows it, on no other name. The figure's layout must be final."""
    drawn = np.unique(labels).astype(int)
    means = np.array([points[labels == c].mean(0) for c in drawn])
    flat = np.stack(proj3d.proj_transform(*means.T, ax.get_proj())[:2], axis=1)
    page = ax.transData.transform(flat)
    out = page - page.mean(0)
    places = page + 0.1 * ax.bbox.height * out / np.linalg.norm(out, axis=1, keepdims=True).clip(min=1e-9)
    look: Any = {"ha": "center", "va": "center", "fontsize": 9 if max(map(len, classes)) == 1 else 7.5, "zorder": 10}
    look |= {"bbox": {"fc": "white", "ec": "none", "alpha": 0.6, "pad": 0.4}, "annotation_clip": False}
    line = {"arrowstyle": "-", "lw": 0.6, "color": INK, "shrinkA": 0, "shrinkB": 0}
    names = [ax.annotate(classes[c], at, arrowprops=line, **look) for c, at in zip(drawn, flat, strict=True)]
    sizes = np.array([name.get_window_extent().size for name in names]) * [1.1, 1.05]
    for name, at in zip(names, ax.transData.inverted().transform(_apart(places, sizes)), strict=True):
        name.set(position=at, in_layout=False)


@_styled
def embedding(panels: Sequence[Panel], classes: Sequence[str] = "0123456789", *, title: str = "") -> Figure:
    """Figure 4: embedded test points by class, one panel per method: `method`, `points` (N, 3), `labels` (N,), which number
    the names in `classes`. Each is seen from where its classes hide each other least; a class's name stands outside of its mean, and on no other."""
    rows, columns = _grid(len(_panels(panels)))
    figure = Figure(figsize=(3.4 * columns, 3.3 * rows + 0.7), layout="constrained")
    for k, panel in enumerate(panels):
        points, labels, middle, half = _embedded(panel)
        ax = _axes3d(figure, rows, columns, k + 1, label(panel["method"]), height=1.0, y=1.05)
        ax.view_init(**_view(points, labels, near=0.15 * half))
        ax.scatter(*points.T, c=[PETROFF10[int(c) % 10] for c in labels], s=6, linewidths=0, depthshade=False)
        ax.set(**{f"{axis}lim": (a - half, a + half) for axis, a in zip("xyz", middle, strict=True)})
        for axis, name in zip((ax.xaxis, ax.yaxis, ax.zaxis), "₁₂₃", strict=True):
            axis.set_label_text(f"z{name}")
            axis.labelpad = -3
            axis.set_major_locator(MaxNLocator(3, prune="both"))
    _class_legend(figure, panels, classes)
    _heading(figure, title)
    figure.draw_without_rendering()
    for ax, panel in zip(figure.axes, panels, strict=True):
        points, labels, *_ = _embedded(panel)
        _name_classes(ax, points, labels, classes)
    return figure


def embedding_plotly(panels: Sequence[Panel], classes: Sequence[str] = "0123456789", *, title: str = "") -> go.Figure:
    """Figure 4 to turn: one scene, the method chosen from a menu."""
    figure, owner, scenes = go.Figure(), [], []
    for k, panel in enumerate(_panels(panels)):
        points, labels, middle, half = _embedded(panel)
        for c in np.unique(labels).astype(int):
            x, y, z = points[labels == c].T
            marker = {"size": 2.5, "color": PETROFF10[c % 10]}
            figure.add_scatter3d(x=x, y=y, z=z, mode="markers", name=classes[c], visible=k == 0, marker=marker)
            owner.append(k)
        ranges = [[float(a - half), float(a + half)] for a in middle]
        scenes.append({f"scene.{axis}axis.range": ends for axis, ends in zip("xyz", ranges, strict=True)})
    menu = _menu(
        [(label(p["method"]), [{"visible": [o == k for o in owner]}, scenes[k]]) for k, p in enumerate(panels)]
    )
    figure.update_layout(scenes[0]).update_scenes(aspectmode="cube", camera=CAMERA)
    figure.update_scenes(xaxis_title="z₁", yaxis_title="z₂", zaxis_title="z₃")
    legend = {"title": "class", "itemsizing": "constant", "orientation": "h", "y": 0, "yanchor": "top"}
    return _titled(figure, title).update_layout(updatemenus=[menu], legend=legend, height=660)


# Curves


def _axes(xlabel: str, ylabel: str, title: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(7.2, 4.2), layout="constrained")
    ax = figure.add_subplot()
    ax.set(xlabel=xlabel, ylabel=ylabel)
    ax.set_title(title)
    return figure, ax


@_styled
def accuracy_curve(
    eps: ArrayLike,
    correct: Mapping[str, ArrayLike],
    total: int,
    *,
    title: str = "",
    levels: Sequence[float] = (),
    level: str = OF_TABLES,
    marks: Mapping[str, Mapping[float, float]] | None = None,
    xlabel: str = "perturbation, L2 norm",
    ylabel: str = "accuracy",
) -> Figure:
    """Accuracy against the radius, one line per name with its Wilson 95 % band.

    eps (E,) in L2 units; `correct` maps a method (or any name) to the counts (E,) still right out of `total` images;
    `levels` draws dotted lines, which the legend calls `level`; `marks` maps a name to its accuracies in % there, where they are not on its
    line: a diamond, a square for a dashed line. Raises ValueError: shapes, or counts outside 0..total.
    """
    figure, ax = _axes(xlabel, f"{ylabel} (%), n = {total}", title)
    _accuracy(ax, eps, correct, total, levels)
    look: Any = {"ms": 6, "mfc": "white", "mew": 1.6, "ls": "", "zorder": 5}
    shapes = []
    for style, name in zip(_styles(correct), correct, strict=True):
        at = (marks or {}).get(name, {})
        shape = "s" if style["ls"] == "--" else "D"
        shapes += [shape] if at else []
        ax.plot(list(at), list(at.values()), mec=style["color"], marker=shape, **look)
    further = [
        Line2D([], [], mec=INK, marker=shape, label=f"{of}scaled back to ε and tested, as in the tables", **look)
        for shape, of in (("D", ""), ("s", "dashed: "))
        if shape in shapes
    ]
    _legend_below(figure, list(correct), levels, further, columns=2, level=level)
    figure.set_figheight(4.2 + 0.13 * (len(correct) + bool(levels) + bool(marks)))  # a legend of two columns
    return figure


def _accuracy(
    ax: Axes, eps: ArrayLike, correct: Mapping[str, ArrayLike], total: int, levels: Sequence[float], alpha: float = 0.15
) -> None:
    x = _array("x", eps, None)
    for (name, counts), style in zip(correct.items(), _styles(correct), strict=True):
        counts = _array(f"counts of {name}", counts, len(x))
        low, high = np.array([wilson(int(c), total) for c in counts]).T
        ax.plot(x, 100 * counts / total, marker="o" if len(x) <= 20 else "", ms=3.5, **style)
        ax.fill_between(x, low, high, color=style["color"], alpha=alpha, linewidth=0)
    for level in levels:
        ax.axvline(level, color=INK, linestyle=":", linewidth=1)
    ax.set(ylim=(-2, 102), xlim=(float(x.min()), float(x.max())))


@_styled
def accuracy_panels(panels: Sequence[Panel], total: int, *, levels: Sequence[float] = (), title: str = "") -> Figure:
    """`accuracy_curve` for several attacks: each panel has a `title`, `eps` (E,), `correct`, a method's counts (E,), and, if what
    is counted is no accuracy, its `ylabel`."""
    rows, columns = _grid(len(_panels(panels)))
    figure = Figure(figsize=(3.7 * columns, 3.1 * rows + 0.8), layout="constrained")
    names = list(dict.fromkeys(name for panel in panels for name in panel["correct"]))
    for k, panel in enumerate(panels):
        ax = figure.add_subplot(rows, columns, k + 1)
        _accuracy(ax, panel["eps"], panel["correct"], total, levels, alpha=0.15 if len(names) <= 3 else 0.1)
        ax.set_title(panel["title"])
        ax.set(xlabel="perturbation, L2 norm" if k + columns >= len(panels) else "")
        named, beside = (panels[i].get("ylabel", "accuracy") for i in (k, max(k - 1, 0)))
        ax.set(ylabel=f"{named} (%), n = {total}" if k % columns == 0 or named != beside else "")
    _legend_below(figure, names, levels)
    _heading(figure, title)
    return figure


def _legend_below(
    figure: Figure,
    names: Sequence[str],
    levels: Sequence[float] = (),
    further: Sequence[Line2D] = (),
    columns: int = 5,
    level: str = OF_TABLES,
) -> None:
    handles = [Line2D([], [], **style) for style in _styles(names)]
    if levels:
        handles.append(Line2D([], [], color=INK, ls=":", lw=1, label=level))
    handles += further
    if handles:
        figure.legend(handles=handles, loc="outside lower center", ncols=min(columns, len(handles)))


@_styled
def norm_violins(panels: Sequence[Panel], *, levels: Sequence[float] = (), title: str = "") -> Figure:
    """Distributions of smallest perturbations, one panel per attack, one violin per method, on a logarithmic axis.

    Each panel: `title`; `norms`, a method's (N,) as in `norm_distribution`. Images wrong before (0) are left out; those
    never misled (inf) are counted beneath the violin. Black: the median of what is drawn, and its middle half.
    """
    names = list(dict.fromkeys(name for panel in _panels(panels) for name in panel["norms"]))
    figure = Figure(figsize=(3.1 * len(panels) + 1.2, 0.5 * len(names) + 2.1), layout="constrained")
    axes = figure.subplots(1, len(panels), sharex=True, sharey=True, squeeze=False)[0]
    for ax, panel in zip(axes, panels, strict=True):
        for style, (name, values) in zip(_styles(panel["norms"]), panel["norms"].items(), strict=True):
            norms, at = _array(f"norms of {name}", values, None), len(names) - 1 - names.index(name)
            found = norms[(norms > 0) & np.isfinite(norms)]
            if len(found) > 1:
                body: Any = ax.violinplot(
                    np.log10(found), [at], orientation="horizontal", widths=0.85, showextrema=False
                )
                body["bodies"][0].set(facecolor=style["color"], alpha=0.75, edgecolor="none")
                low, middle, high = np.log10(np.quantile(found, [0.25, 0.5, 0.75]))
                ax.plot([low, high], [at, at], color="white", lw=5, solid_capstyle="butt")
                ax.plot([low, high], [at, at], color=INK, lw=2, solid_capstyle="butt")
                ax.plot(middle, at, "o", color="white", mec=INK, ms=5)
            if missing := int(np.isinf(norms).sum()):
                words, where = f"{missing} of {len(norms)} never misled", ax.get_yaxis_transform()
                ax.text(0.02, at - 0.42, words, transform=where, va="center", fontsize=8)
        for level in levels:
            ax.axvline(np.log10(level), color=INK, linestyle=":", linewidth=1)
        ax.set_title(panel["title"])
        ax.set(ylim=(-0.7, len(names) - 0.4))
        ax.xaxis.set_major_formatter(lambda value, _: f"{10**value:.3g}")
    axes[0].set_yticks(range(len(names))[::-1], [label(name) for name in names])
    low, high = axes[0].get_xlim()
    ticks = [np.log10(t * 10.0**e) for e in range(-4, 4) for t in ((1, 2, 5) if high - low < 2.5 else (1, 3))]
    axes[0].set(xticks=[t for t in ticks if low <= t <= high], xlim=(low, high))
    axes[len(axes) // 2].set(xlabel="smallest perturbation found, L2 norm (log scale)")
    middle = Line2D(
        [], [], color=INK, lw=2, marker="o", mfc="white", ms=5, label="median and middle half of what is drawn"
    )
    _legend_below(figure, [], levels, [middle])
    _heading(figure, title)
    return figure


@_styled
def loss_and_accuracy(loss: Mapping[str, ArrayLike], accuracy: Mapping[str, ArrayLike], *, title: str = "") -> Figure:
    """A method's mean loss in nats and its accuracy in % after each iteration of an attack, (steps + 1,) each, side by side.

    The losses' axis is logarithmic: their scale is the method's own, and only their rise can be compared.
    """
    figure = Figure(figsize=(9.2, 4.4), layout="constrained")
    for ax, series, words in zip(
        figure.subplots(1, 2), (loss, accuracy), ("mean cross-entropy (nats, log scale)", "accuracy (%)"), strict=True
    ):
        steps = len(np.asarray(next(iter(series.values()))))
        for style, (name, values) in zip(_styles(series), series.items(), strict=True):
            ax.plot(np.arange(steps), _array(f"values of {name}", values, steps), **style)
        ax.set(xlabel="iterations", ylabel=words, xlim=(0, steps - 1))
    figure.axes[0].set_yscale("log")
    figure.axes[0].yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    figure.axes[0].yaxis.set_minor_locator(NullLocator())
    figure.axes[0].yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    figure.axes[1].set_ylim(-2, 102)
    _legend_below(figure, list(loss))
    _heading(figure, title)
    return figure


def query_curve(
    queries: ArrayLike, correct: Mapping[str, ArrayLike], total: int, *, budget: int = 0, **options: Any
) -> Figure:
    """Accuracy against the black-box attack's queries (Q,): as `accuracy_curve`, with its options. A dotted line stands at the
    paper's `budget`, if it is within the range."""
    if 0 < budget <= np.max(_array("queries", queries, None)):
        options = {"levels": [budget], "level": f"the paper's {budget} queries"} | options
    return accuracy_curve(queries, correct, total, xlabel="queries per image", **options)


def norm_distribution(norms: Mapping[str, ArrayLike], max_norm: float, **options: Any) -> Figure:
    """The share of images whose smallest perturbation found is longer, 1 - CDF, with its Wilson 95 % band.

    `norms` maps a name to (N,) L2 norms, the same N for all: 0 where the image was misclassified before, inf where never.
    Options as in `accuracy_curve`. Raises ValueError: shapes, NaN, or max_norm <= 0.
    """
    if not max_norm > 0 or not norms:
        raise ValueError(f"want norms of at least one method and max_norm > 0, got {len(norms)} and {max_norm}")
    x = np.linspace(0, max_norm, 401)
    total = len(np.asarray(next(iter(norms.values()))))
    data = {name: np.sort(_array(f"norms of {name}", values, total)) for name, values in norms.items()}
    if any(np.isnan(values).any() for values in data.values()):
        raise ValueError("norms must not be NaN: inf stands for an image that was never misclassified")
    counts = {name: total - np.searchsorted(values, x, side="right") for name, values in data.items()}
    return accuracy_curve(x, counts, total, xlabel="ε, L2 norm", ylabel="images with perturbation > ε", **options)


@_styled
def curves(
    x: ArrayLike,
    series: Mapping[str, ArrayLike],
    xlabel: str,
    ylabel: str,
    *,
    title: str = "",
    points: Mapping[tuple[float, float], str] | None = None,
    zero: str = "",
) -> Figure:
    """Plain lines: `series` maps a name to (X,) over x (X,); `points` gives points (x, y) their names, or
    "" for none; `zero` draws x = 0 or y = 0, as it says."""
    x = _array("x", x, None)
    figure, ax = _axes(xlabel, ylabel, title)
    for (name, values), style in zip(series.items(), _styles(series), strict=True):
        ax.plot(x, _array(name, values, len(x)), **style)
    if zero:
        {"x": ax.axvline, "y": ax.axhline}[zero](0, color=INK, linewidth=1)
    for point, name in (points or {}).items():
        ax.plot(*point, "o", color=INK, zorder=5)
        if not name:
            continue
        box = {"fc": "white", "ec": "none", "alpha": 0.8, "pad": 1}
        late = point[0] > x.min() + 0.8 * np.ptp(x)  # no room at its right
        place: Any = {"xytext": (-8 if late else 8, -13), "ha": "right" if late else "left"}
        ax.annotate(name, point, textcoords="offset points", bbox=box, **place)
    ax.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure


def save(figure: Figure | go.Figure, name: str, directory: Path | str | None = None, *, seed: int = 0) -> Path:
    """Write figures/`name`.png (matplotlib, 200 dpi) or .html (plotly; loads plotly.js from its CDN, so that the file is small);
    of another `seed` than 0 `name`_seed<n>. Atomic; the same data give the same bytes. Returns the path. ValueError: a name with a
    folder or a suffix."""
    if Path(name).stem != name:
        raise ValueError(f"want a plain name such as 'figure5_condition', got {name!r}")
    name += f"_seed{seed}" if seed else ""
    path = Path(directory or figures_dir()) / f"{name}.{'png' if isinstance(figure, Figure) else 'html'}"
    with atomic(path) as part:
        if isinstance(figure, Figure):
            figure.savefig(part, format="png", dpi=200, bbox_inches="tight", metadata={"Software": None})
        else:
            figure.write_html(part, include_plotlyjs="cdn", div_id=name)
    return path
