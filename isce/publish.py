"""What is committed of a profile: its records under results/, and the first seed's weights."""

import os
import shutil
import sys
import tempfile
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor

from isce import record
from isce.evaluations import Evaluation, find, of_any, path_of, read_record
from isce.methods import METHODS
from isce.pages import update_readme, write
from isce.profiles import load
from isce.train import Spec, as_half, epochs_in, read_checkpoint

WEIGHTS_AT_MOST = 30_000_000  # bytes, of all networks in results/


def publish(name: str) -> list[str]:
    """Copy a profile's records from runs/ to results/ (small JSON, no images) and the first seed's float16 weights beside
    them (`share_weights`), so that `load_or_train` need not train; of a training that has only begun its checkpoint, with which
    another machine goes on. A record there of fewer images than its successor's goes, unless another profile asks for it. Returns
    the records' paths under results/."""
    profile, evaluations = load(name), asked_of(name)
    kept = {e.path for path in record.config_dir().glob("*.yaml") if path.stem != name for e in asked_of(path.stem)}
    figure1 = [profile.spec("mnist", "lenet5", method, embedding_dim=2) for method in ("sce", "isce")]
    specs = {spec.run_id: spec for spec in [*(e.spec for e in evaluations), *figure1]}
    wanted: list[Path] = []
    for spec in specs.values():
        measured = sorted(path for pattern in ("*.json", "checks/*.json") for path in spec.folder.glob(pattern))
        wanted += [spec.trained().folder / "result.json", *measured]
    gone: dict[Path, Path] = {}  # of results/: what goes, and what must be there first
    for evaluation in evaluations:
        done = find(evaluation)
        wanted.append(evaluation.path if done is None else path_of(evaluation, done))
        gone |= dict.fromkeys(superseded(evaluation, done, kept), record.committed(wanted[-1]))
    shared = [profile.spec(*run) for run in profile.runs if run[3] == profile.seeds_of(*run[:2])[0]]
    shared += [e.spec for e in profile.arm_a() if e.spec.seed == profile.seeds[0]]
    shared += [*figure1, *(e.spec for block in profile.figures["embedding"] for e in profile.embeddings(block))]
    weighty = {spec.trained().folder / "result.json" for spec in shared}  # whose weights are copied, too
    copied, torn = [], would_be_torn(wanted, specs, gone)
    for path in dict.fromkeys(wanted):
        read = read_record if path.parent.name == "attacks" else record.read_json  # no damaged one over a good one
        content = read(path)
        if content is None or run_of(path) in torn:
            continue
        record.write_json(target := record.committed(path), content)
        copied.append(str(target.relative_to(record.results_dir())))
        if path in weighty:
            share_weights(path.with_name("model.safetensors"), target)
    for path in dict.fromkeys(path for path in wanted if path.name == "result.json"):
        share_checkpoint(path.with_name("checkpoint.pt"))
    for path, successor in gone.items():
        if path.relative_to(record.results_dir()).parts[0] not in torn and successor.is_file():
            path.unlink()
    return copied


def asked_of(name: str) -> list[Evaluation]:
    """What a profile asks for, and what it publishes where somebody made it, each once: Figure 3's grids are of both."""
    profile = load(name)
    return list(dict.fromkeys([*(e for part in profile.parts().values() for e in part), *profile.further()]))


def main(name: str) -> None:
    """`make results`: `publish`, then all that is written of what is committed. Runs/ is hidden from that: attacks may be running,
    and what is shown must be what was copied. Refuses a profile of stand-ins: their networks would take real ones' place."""
    if load(name).is_stand_in:
        sys.exit(
            f"isce: results/ holds real data alone, and {name} stands in for it: make results PROFILE=cpu, or full"
        )
    print(*publish(name), sep="\n")
    with tempfile.TemporaryDirectory() as nothing, mock.patch.dict(os.environ, ISCE_RUNS=nothing):
        write(name)
        for page in (record.home() / "README.md", record.results_dir() / "README.md"):
            update_readme(name, page)


def run_of(path: Path) -> str:
    return path.relative_to(record.runs_dir()).parts[0]


def would_be_torn(wanted: Iterable[Path], specs: Mapping[str, Spec], gone: Collection[Path]) -> set[str]:
    """The runs whose attacks and measures would not all be of the same weights, once `wanted` were copied and what is superseded in
    results/, `gone`, was not there: their network, or the surrogate that it was attacked through, was trained anew, and what is
    committed of it stays as it is. `specs`: by run; Random has an SCE network's weights."""

    def trained(run: str, surrogate: bool = False) -> str:
        spec = specs.get(run)
        return run if spec is None else (spec.surrogate() if surrogate else spec.trained()).run_id

    of_network: dict[str, dict[Path, Path]] = {}  # what is to be there, target -> source
    for path in filter(Path.is_file, wanted):
        of_network.setdefault(trained(run_of(path)), {})[record.committed(path)] = path
    torn: set[str] = set()
    for network, new in of_network.items():
        runs = {run_of(path) for path in new.values()}
        there = {path for run in runs for path in (record.results_dir() / run).rglob("*.json")} - set(gone)
        measured = {path for path in there | set(new) if path.name != "result.json"}
        stated = [record.read_json(new.get(path, path)) or {} for path in measured]
        for through, key in ((network, "weights_sha256"), (trained(network, surrogate=True), "surrogate_sha256")):
            own = (record.read_json(record.runs_dir() / through / "result.json") or {}).get("weights_sha256")
            former = sum(done.get(key) not in (None, own) for done in stated) if own else 0
            if former:
                torn |= runs
                record.log(
                    f"isce: {through} was trained anew, and {former} records of {network} are of its former weights: what results/ "
                    "has of them is left as it is; attack again, or delete that, and publish again"
                )
    return torn


def share_weights(weights: Path, target: Path) -> None:
    """Copy the weights of a training beside its record in results/, `target`. Of one network and method with several lengths
    of training the longest alone has them there. What would not fit into `WEIGHTS_AT_MOST` is left out, and said so: but a method of
    the paper's tables takes the room of controls and of embeddings."""

    def but_epochs(path: Path) -> tuple[dict[str, Any], int]:
        spec = (record.read_json(path) or {"spec": {"epochs": 0}})["spec"]
        return {key: value for key, value in spec.items() if key != "epochs"}, spec["epochs"]

    if not weights.is_file():
        return

    def of_the_tables(what: dict[str, Any]) -> bool:
        return what.get("method") in METHODS and what.get("embedding_dim") is None

    place, (what, epochs) = target.with_name(weights.name), but_epochs(target)
    size, shorter, further = weights.stat().st_size, [], []
    for other in set(record.results_dir().glob(f"*/{weights.name}")) - {place}:
        same, length = but_epochs(other.with_name("result.json"))
        if same == what and length > epochs:
            place.unlink(missing_ok=True)
            return
        if same == what:
            shorter.append(other)
        else:
            size += other.stat().st_size
            further += [] if of_the_tables(same) else [other]
    enough = size - sum(path.stat().st_size for path in further) <= WEIGHTS_AT_MOST
    while size > WEIGHTS_AT_MOST and enough and of_the_tables(what):
        largest = max(further, key=lambda path: (path.stat().st_size, path))
        record.log(f"isce: {largest.parent.name}: its weights make room for those of {target.parent.name}")
        size -= largest.stat().st_size
        further.remove(largest)
        largest.unlink()
    if size > WEIGHTS_AT_MOST:
        record.log(f"isce: {target.parent.name}: no room for its weights, {WEIGHTS_AT_MOST / 1e6:g} MB are full")
        place.unlink(missing_ok=True)
        return
    with record.atomic(place) as part:
        shutil.copyfile(weights, part)
    for other in shorter:
        other.unlink()


def share_checkpoint(checkpoint: Path) -> None:
    """Put the checkpoint of a training that goes on into its folder in results/, if it is further than the one there; once its record
    is there, take that away. It is rounded to half its size, weights to float16 and Adam's moments to bfloat16."""
    shared = record.committed(checkpoint)
    run_id = shared.parent.name
    if shared.with_name("result.json").is_file():
        shared.unlink(missing_ok=True)
    elif (done := epochs_in(checkpoint, run_id)) > epochs_in(shared, run_id):
        with suppress(FileNotFoundError), record.atomic(shared) as part:  # a training that ends takes it away
            state = read_checkpoint(checkpoint)
            state["model"] = {name: as_half(tensor) for name, tensor in state["model"].items()}
            for moments in state["optimizer"]["state"].values():
                moments.update(
                    {key: m.bfloat16() for key, m in moments.items() if isinstance(m, Tensor) and m.dim() > 0}
                )
            torch.save(state, part)
            size = part.stat().st_size / 1e6
            record.log(
                f"isce: {run_id}: its checkpoint after {done} epochs is shared, {size:.1f} MB that git would keep for good"
            )


def superseded(evaluation: Evaluation, done: dict[str, Any] | None, kept: Collection[Path]) -> list[Path]:
    """What a record of more images, `done`, takes the place of in results/; but for what other profiles ask for, `kept`."""
    if done is None:
        return []
    fewer = [r for r in of_any(evaluation, record.results_dir()) if r["n"] < done["n"]]
    paths = [path_of(evaluation, r) for r in fewer]
    return [record.committed(path) for path in paths if path not in kept]


if __name__ == "__main__":  # python -m isce.publish full
    if len(sys.argv) != 2:
        sys.exit("isce: want the name of one profile: python -m isce.publish full")
    try:
        main(sys.argv[1])
    except ValueError as error:
        sys.exit(f"isce: {error}")
