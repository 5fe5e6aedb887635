"""The records of attacks: what to run (`Evaluation`), run once, found again, gone on with. Schema: README.md, "Records"."""

import dataclasses
import errno
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow
import torch
from torch import nn
from tqdm import tqdm

from isce import as_coded, data, evaluate, methods, record
from isce.attacks.common import check_numbers, whole
from isce.data import DATASETS
from isce.evaluate import attack_of, check_levels, output_means, parse
from isce.train import Spec, load_or_train, same_weights, weights_of

CHUNK = 500  # images between two saves on a CPU, where an attack may take hours, at most
FIRST = 20  # images until the first, which says how long they take
SAVE_EVERY = 300  # seconds, about


@dataclass(frozen=True)
class Evaluation:
    """One attack on one trained model, at its levels. Two equal ones are the same record.

    n: test images, the first n of a fixed permutation (`isce.data.subset`); all of the split if None.
    """

    spec: Spec
    attack: str
    levels: tuple[float, ...]
    n: int | None = None
    queries: int = 300
    seed: int = 0
    split: str = "test"

    def __post_init__(self) -> None:
        if not isinstance(self.spec, Spec):
            raise TypeError(f"spec must be a train.Spec, got {self.spec!r}")
        parsed = parse(self.attack)
        if parsed != [self.attack]:
            raise ValueError(f"one attack at a time, got {self.attack!r}")
        record.choose("split", self.split, data.Data._fields)
        check_levels(self.attack, self.levels)
        if self.attack.endswith("@inference") and methods.get(self.spec.method).head is not methods.ISCEHead:
            raise ValueError(f"{self.attack}: the surface 'inference' is I-SCE's, {self.spec.method} has no s and m")
        if self.attack.endswith("@inference") and self.spec.arm == "A":
            raise ValueError(
                f"{self.attack}: arm A applies s and m in its outputs already; take the attack without a surface"
            )
        if attack_of(self.attack).kind == "queries":
            check_numbers(queries=self.queries)
            object.__setattr__(self, "queries", int(self.queries))
        else:
            object.__setattr__(self, "queries", 0)  # budgets of other attacks are part of their names
        if not whole(self.seed) or self.seed < 0:
            raise ValueError(f"seed must be a whole number, at least 0, got {self.seed!r}")
        object.__setattr__(self, "seed", int(self.seed))
        object.__setattr__(self, "levels", tuple(map(float, self.levels)))
        most = dict(zip(data.Data._fields, DATASETS[self.spec.dataset].sizes, strict=True))[self.split]
        object.__setattr__(self, "n", data.check_n(self.n, most, f"{self.split} images"))

    @property
    def unsteady(self) -> bool:
        """PGD, APGD or AutoAttack whose first success need not be one where it is judged: another draw of a random model, another
        batch of arm A's, another model than the surrogate. It must not stop there, but take all its steps."""
        elsewhere = methods.get(self.spec.method).random_input or self.spec.arm == "A" or self.surrogate is not None
        return elsewhere and attack_of(self.attack).early_stop

    @property
    def surrogate(self) -> Spec | None:
        """The network that the attack is transferred from, where it is."""
        return self.spec.surrogate() if self.attack.endswith("@transfer") else None

    def payload(self) -> dict[str, Any]:
        own = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return own | {
            "spec": self.spec.payload(),
            "version": evaluate.VERSION + 2 * self.unsteady,
        }  # 2 was without an early stop, 3 attacks what one draw has wrong, too

    @property
    def path(self) -> Path:
        """The record, runs/<model's run>/attacks/<attack>-<hash>.json; the rows per image lie beside it as .parquet."""
        name = self.attack.replace("@", "-on-")
        return self.spec.folder / "attacks" / f"{name}-{record.run_id(self.payload())}.json"


def load_or_evaluate(evaluation: Evaluation, device: str = "auto", progress: bool = True) -> dict[str, Any]:
    """The record of an evaluation, read from its file, or made there first (its model trained if need be).

    A record whose model has been trained anew since is made again. One of the same attack on fewer images is extended; of one on
    more the first n are taken: what happens to an image depends on no other (but for arm A's batch norm, and the draws of
    Random, which are by place in a batch). Schema: README.md, "Records".
    """
    if (done := _valid(evaluation)) is not None:
        return done
    place = record.pick_device(device)
    model = load_or_train(evaluation.spec, device, progress)
    through = evaluation.surrogate
    surrogate = None if through is None else load_or_train(through, device, progress)
    with record.lock(evaluation.path):
        if (done := _valid(evaluation)) is None:
            _attack(evaluation, model, surrogate, place, progress)
            done = record.read_json(evaluation.path)  # what the next reader gets, lists for tuples
    if done is None:
        raise RuntimeError(f"{evaluation.path} does not hold what was just written: is the disk full or failing?")
    return done


def find_or_evaluate(evaluation: Evaluation, device: str = "auto", progress: bool = True) -> dict[str, Any]:
    """As `load_or_evaluate`, for those who need no rows: a committed record in results/ will do, and neither the model nor the
    images need be here."""
    return find_whole(evaluation) or load_or_evaluate(evaluation, device, progress)


def _attack(
    evaluation: Evaluation, model: nn.Module, surrogate: nn.Module | None, device: torch.device, progress: bool
) -> None:
    """Make the record of an evaluation. On a CPU, as many images at a time as take `SAVE_EVERY`, at most CHUNK, each time saved in
    `_part_of` it: what a kill leaves is gone on with."""
    spec = evaluation.spec
    made_of: dict[str, Any] = {key: value for key, value in _here(evaluation).items() if value is not None}
    split = data.subset(getattr(data.kept(spec.dataset), evaluation.split), evaluation.n).to(device)
    earlier, rows = _begun(evaluation)
    own = [{key: earlier[key] for key in ("n", "run_id", "provenance")}] if earlier else []
    made_of["earlier"] = [*earlier.get("earlier", []), *own]
    n, begun, seconds = len(split), earlier.get("n", 0), 0.0
    at_once = device.type != "cpu" or spec.arm == "A" or evaluation.attack == "clean"
    by_place = methods.get(spec.method).random_input  # are its draws: what is attacked together must always be the same
    at, size = begun, n if at_once else CHUNK if by_place else min(CHUNK, FIRST)
    name = f"{evaluation.attack} on {spec.run_id}"
    with tqdm(total=n, initial=begun, desc=name, leave=False, disable=not progress, mininterval=1, unit="image") as bar:
        while True:
            stop, started = min(at + size, n), time.perf_counter()
            if at < stop:
                frame = evaluate.evaluate(
                    model,
                    split.take(torch.arange(at, stop, device=device)),
                    {evaluation.attack: evaluation.levels},
                    queries=evaluation.queries,
                    seed=evaluation.seed,
                    batch_size=as_coded.BATCH if spec.arm == "A" else None,
                    surrogate=surrogate,
                    early_stop=not evaluation.unsteady,
                )
                rows.append(frame.assign(image=frame["image"] + at))
            seconds += time.perf_counter() - started
            bar.update(stop - at)
            made_of["provenance"] = record.provenance(device, DATASETS[spec.dataset].sha256, seconds, stop - begun)
            if stop == n:
                break
            so_far = pd.concat(rows, ignore_index=True)
            so_far.attrs = made_of | {"n": stop, "run_id": evaluation.path.stem, "evaluation": evaluation.payload()}
            _save_rows(so_far, _part_of(evaluation))
            if not by_place:
                size = min(CHUNK, max(10, int(SAVE_EVERY * (stop - begun) / seconds)))
            at = stop
    if evaluation.attack == "clean":
        made_of["outputs"] = output_means(model, split, evaluation.seed)
    _write(evaluation, pd.concat(rows, ignore_index=True), made_of)
    _part_of(evaluation).unlink(missing_ok=True)


def _part_of(evaluation: Evaluation) -> Path:
    """Where the rows of the first images are until all are there; `attrs`: what a record says beside its results."""
    return evaluation.path.with_suffix(".part.parquet")


def _parts(evaluation: Evaluation) -> list[tuple[dict[str, Any], pd.DataFrame]]:
    """What kills left of this evaluation, on all, fewer or more of its images: `attrs`, and the rows."""
    name, _, wanted = evaluation.path.stem.rpartition("-")
    found = [_read_rows(path) for path in sorted(evaluation.path.parent.glob(f"{name}-*.part.parquet"))]
    parts = [({str(key): value for key, value in rows.attrs.items()}, rows) for rows in found if rows is not None]
    return [(done, rows) for done, rows in parts if _asked_of(done, evaluation.n) == wanted]


def _asked_of(done: dict[str, Any], n: int | None) -> str:
    """What the record of the same evaluation on n images is named by."""
    return record.run_id(done.get("evaluation", {}) | {"n": n})


def _save_rows(rows: pd.DataFrame, path: Path) -> None:
    with record.atomic(path) as part:
        rows.to_parquet(part, index=False)


def _write(evaluation: Evaluation, rows: pd.DataFrame, made_of: dict[str, Any]) -> None:
    rows.attrs = {}
    _save_rows(rows, evaluation.path.with_suffix(".parquet"))
    done = {
        "kind": "attack",
        "run_id": evaluation.path.stem,
        "evaluation": evaluation.payload(),
        **made_of,
    }
    record.write_json(evaluation.path, summarize(rows, evaluation.queries) | done)


def load_rows(evaluation: Evaluation) -> pd.DataFrame:
    """The rows per image of an evaluation that has been made here (columns: see `evaluate`)."""
    return pd.read_parquet(evaluation.path.with_suffix(".parquet"))


def find(evaluation: Evaluation) -> dict[str, Any] | None:
    """The record of an evaluation in runs/ or results/; where there is none, that of the same attack on the most images, fewer
    or more (`n` says how many); None where no image was attacked. Records of other weights than those here do not count: a
    network trained here anew is not the one that the committed records are of."""
    roots, here = (record.runs_dir(), record.results_dir()), _here(evaluation)
    exact = [read_record(path) for path in (evaluation.path, record.committed(evaluation.path))]
    if found := [done for done in exact if done and same_weights(done, here)]:
        return found[0]
    found = [done for root in roots for done in of_any(evaluation, root) if same_weights(done, here)]
    return max(found, key=lambda done: done["n"], default=None)


def find_whole(evaluation: Evaluation) -> dict[str, Any] | None:
    """`find`, where it is of all the images that were asked for."""
    done = find(evaluation)
    return done if done is not None and done["n"] == evaluation.n else None


def of_any(evaluation: Evaluation, root: Path) -> list[dict[str, Any]]:
    """The records under `root` of the same attack on the same model, of however many images: all are the first of the same
    (`data.subset`)."""
    at = evaluation.path.relative_to(record.runs_dir())
    name, _, wanted = at.stem.rpartition("-")
    read = [read_record(path) for path in sorted((root / at.parent).glob(f"{name}-*.json"))]
    return [done for done in read if done and _asked_of(done, evaluation.n) == wanted]


def read_record(path: Path) -> dict[str, Any] | None:
    """The record at `path`; None where there is none, or where what it says of its images does not agree."""
    if (done := record.read_json(path)) is None:
        return None
    try:
        agree = [
            len(result["correct"]) == 2 * -(-done["n"] // 8)
            and int(result["correct"], 16).bit_count() == round(result["accuracy"] * done["n"] / 100)
            for result in done["results"]
        ]
        return done if agree and all(agree) and isinstance(done.get("evaluation", {}), dict) else None
    except (KeyError, TypeError, ValueError, OverflowError):
        return None


def path_of(evaluation: Evaluation, done: dict[str, Any]) -> Path:
    """Where runs/ holds `done`, a record of the evaluation on all, fewer or more of its images."""
    return evaluation.path.with_name(f"{done['run_id']}.json")


def _begun(evaluation: Evaluation) -> tuple[dict[str, Any], list[pd.DataFrame]]:
    """What of this evaluation is there already, and its rows: the part that a kill left, or the record of fewer images, or of more
    that it is the beginning of; of those the one with the most, cut to what is asked for. Nothing of either where there is none."""
    if evaluation.spec.arm != "B":
        return {}, []
    others = [(done, path_of(evaluation, done)) for done in of_any(evaluation, record.runs_dir())]
    read = [(done, _rows(done, path)) for done, path in others if path != evaluation.path]
    read += [(done, rows) for done, rows in _parts(evaluation) if len(rows) == done["n"] * len(evaluation.levels)]
    found = [(done, rows) for done, rows in read if rows is not None and _current(done, evaluation)]
    if not found:
        return {}, []
    done, rows = max(found, key=lambda one: one[0]["n"])
    n = min(done["n"], evaluation.n or 0)
    return done | {"n": n}, [rows[rows["image"] < n]]


def _valid(evaluation: Evaluation) -> dict[str, Any] | None:
    done = read_record(evaluation.path)
    if done is None or not _current(done, evaluation) or _rows(done, evaluation.path) is None:
        return None
    return done


def _here(evaluation: Evaluation) -> dict[str, str | None]:
    """The weights that are here now, as a record states them: the model's, and those of the model it is attacked through."""
    through = evaluation.surrogate
    return {
        "weights_sha256": weights_of(evaluation.spec),
        "surrogate_sha256": None if through is None else weights_of(through),
    }


def _current(done: dict[str, Any], evaluation: Evaluation) -> bool:
    """`same_weights`, and the model is here: what is gone on with must be of one."""
    here = _here(evaluation)
    return here["weights_sha256"] is not None and same_weights(done, here)


def _rows(done: dict[str, Any], path: Path) -> pd.DataFrame | None:
    """The rows beside a record; None unless all are there."""
    rows = _read_rows(path.with_suffix(".parquet"))
    return rows if rows is not None and len(rows) == done["n"] * len(done["results"]) else None


def _read_rows(path: Path) -> pd.DataFrame | None:
    """Rows with what `summarize` needs; None where there are none or they are damaged (all are read: damage inside shows in no other
    way). OSError where they cannot be read just now."""
    try:
        rows = pd.read_parquet(path)
    except OSError as error:
        if error.errno not in (None, errno.ENOENT):  # None: pyarrow's own, of what it cannot parse
            raise
        return None
    except (ValueError, pyarrow.ArrowException):
        return None
    needed = {"image", "attack", "level", "label", "clean", "correct", "norm", "minimal", "queries"}
    return rows if needed <= {*rows} else None


def pack(correct: np.ndarray) -> str:
    """Booleans (n,) -> hexadecimal, eight images a byte: so that a committed record still allows paired tests."""
    return np.packbits(correct.astype(bool)).tobytes().hex()


def unpack(text: str, n: int) -> np.ndarray:
    return np.unpackbits(np.frombuffer(bytes.fromhex(text), dtype=np.uint8), count=n).astype(bool)


def minimal_norms(rows: pd.DataFrame) -> np.ndarray:
    """Rows of a minimal-norm attack at one level -> (n,) norms: 0 where wrong before, inf where none was found."""
    norms = rows["minimal"].fillna(np.inf).to_numpy()
    return np.where(rows["clean"] == rows["label"], norms, 0.0)


def summarize(frame: pd.DataFrame, queries: int = 0) -> dict[str, Any]:
    """Rows per image of one attack -> what its record states: accuracy in % with its Wilson interval, norms, queries.

    `correct` holds the outcome of each image (see `pack`), `curve` the images still right after so many queries.
    """
    first = frame[frame["level"] == frame["level"].iloc[0]]
    n, was_right = len(first), (first["clean"] == first["label"]).to_numpy()
    kind = attack_of(str(first["attack"].iloc[0])).kind
    results = []
    for level, rows in frame.groupby("level", sort=False):
        right = rows["correct"].to_numpy()
        entry = {
            "level": float(level),  # type: ignore[arg-type]
            "accuracy": 100 * int(right.sum()) / n,
            "interval": record.wilson(int(right.sum()), n),
            "correct": pack(right),
        }
        if kind == "as_coded":  # without a ball, how far it went belongs to the result
            entry["norm"] = float(rows["norm"].median())
        if rows["queries"].notna().any():  # the whole curve from one run
            used = np.where(right, np.inf, np.where(was_right, rows["queries"].to_numpy(), 0))
            grid = np.unique(np.linspace(0, queries, 61).astype(int))
            entry["curve"] = {"queries": grid.tolist(), "correct": [int((used > q).sum()) for q in grid]}
        results.append(entry)
    summary: dict[str, Any] = {
        "n": n,
        "clean_accuracy": 100 * int(was_right.sum()) / n,
        "clean_interval": record.wilson(int(was_right.sum()), n),
        "results": results,
    }
    norms = minimal_norms(first)[was_right]
    found = np.sort(norms[np.isfinite(norms)])
    if len(found):
        median = float(np.median(norms))
        summary["minimal"] = {
            "of": len(norms),
            "found": len(found),
            "median": median if np.isfinite(median) else None,
            "quantiles": [round(float(q), 6) for q in np.quantile(found, np.linspace(0, 1, 101))],
        }
    return summary
