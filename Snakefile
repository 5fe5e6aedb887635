# The paper's table of contents. Every job is one papermill call in a process of its own; a profile says what is run:
#   snakemake --cores 2 --config profile=digits        (`make replicate` does this)
# An executed notebook in runs/<profile>/ marks its job as done. The records themselves lie in runs/ by their hash: a job
# that was killed goes on where it was, and two jobs never compute the same run twice.
import json
import os
import shlex
import sys
from pathlib import Path

from isce import checks, evaluate, methods, models, profiles, record, train

profile = profiles.load(config.get("profile", "digits"))
device = str(config.get("device", "auto"))  # 0 would arrive as a number
at_once = config.get("at_once", 1)  # trainings side by side in one job
# Jobs that take one; none on a CPU. A cluster's login node may have none, and then must be told: device=cuda.
gpu = int(device.startswith("cuda") or record.pick_device(device).type == "cuda")
done = Path(os.path.relpath(record.runs_dir() / profile.name))  # as one would name it as GOAL
train_job = f"{done}/train-{{dataset}}-{{backbone}}-{{job}}-seed{{seed}}.ipynb"
attack_job = f"{done}/attack-{{block}}-{{backbone}}-{{job}}-seed{{seed}}.ipynb"
notebooks = Path(workflow.basedir) / "notebooks"
os.environ.setdefault("OMP_NUM_THREADS", "1")  # jobs run side by side, each on its own cores


wildcard_constraints:  # a GOAL that names none of these is no file that could be made
    block="|".join(profile.stand_in),
    dataset="|".join(dict.fromkeys(profile.stand_in.values())),
    backbone="|".join(models.BACKBONES),
    job="|".join(map(str, range(max(len(profile.train_jobs), len(profile.attack_jobs))))),
    seed=r"\d+",


def papermill(notebook):
    """A job's shell command. Its parameters are JSON, which is YAML too; papermill writes in place, so mv says done; each process to
    files of its own, as two may make the same, on two machines as well. Parameters that change no result, such as the device, are resources (`how`), so that
    another device makes no finished job run again (jobs whose `how` differs cannot be grouped)."""
    return (
        f"own={{output:q}}.$(uname -n).$$; if {shlex.quote(sys.executable)} -m papermill {shlex.quote(str(notebooks))}/{notebook}.ipynb"
        ' "$own.part" -k python3 --no-progress-bar -y {params.given:q} {resources.how} > "$own.log" 2>&1;'
        ' then mv "$own.part" {output:q}; mv "$own.log" {output:q}.log;'
        ' else mv "$own.log" {output:q}.log; tail -n 4 {output:q}.log >&2; rm -f "$own.part"; false; fi'
    )


def lost(job, names):
    """Of records that a finished job left in runs/, those that are there no more: a parameter, so that the job runs again (and once more,
    to find all there). Before it has run, none is. (Of the wildcards alone: what depends on a job's output is no parameter to Snakemake.)"""
    gone = lambda name: not (record.runs_dir() / name).exists()
    return lambda w: [name for name in names(w) if Path(job.format(**dict(w.items()))).exists() and gone(name)]


def attacked(wildcards):
    """The methods of an attack job."""
    return profile.only(profile.attack_jobs[int(wildcards.job)], wildcards.block, wildcards.backbone)


def to_train(wildcards):
    """The methods of a training job that are run on this data set, as whichever of the paper's."""
    blocks = [block for block, dataset in profile.stand_in.items() if dataset == wildcards.dataset]
    names = [profile.only(profile.train_jobs[int(wildcards.job)], block, wildcards.backbone) for block in blocks]
    return dict.fromkeys(sum(names, []))


def trained(wildcards):
    """The training jobs that hold an attack job's methods, but those of which nothing is run on this network."""
    needed = {methods.get(m).trained_as or m for m in attacked(wildcards)}
    run = lambda group: profile.only(group, wildcards.block, wildcards.backbone)
    jobs = [j for j, group in enumerate(profile.train_jobs) if needed & set(methods.parse(group)) and run(group)]
    dataset = profile.stand_in[wildcards.block]
    return expand(train_job, dataset=dataset, backbone=wildcards.backbone, job=jobs, seed=wildcards.seed)


def made_for(wildcards):
    """By method of an attack job, its attacks that the others do not meet."""
    shared = {*profile.common_attacks(wildcards.block, wildcards.backbone), *evaluate.parse(profile.strongest)}
    own = {m: profile.attacks(wildcards.block, wildcards.backbone, m) for m in attacked(wildcards)}
    return {m: ",".join(a for a in found if a not in shared) for m, found in own.items()}


def evaluated(wildcards):
    """The records of an attack job. They are named by all that shapes them, so that a job whose recipe has changed runs again."""
    run = lambda m: profile.evaluations(wildcards.block, wildcards.backbone, m, int(wildcards.seed))
    return [str(e.path.relative_to(record.runs_dir())) for m in attacked(wildcards) for e in run(m)]


def networks(wildcards):
    """The training records of a training job."""
    epochs = profile.epochs_of(wildcards.dataset, wildcards.backbone)
    specs = [train.Spec(wildcards.dataset, wildcards.backbone, m, int(wildcards.seed), epochs) for m in to_train(wildcards)]
    return [f"{spec.trained().run_id}/result.json" for spec in specs]


# Of the jobs that make other records: versions, and every method's settings.
recipes = [train.VERSION, evaluate.VERSION, checks.VERSION]
recipes += [train.Spec(dataset, "lenet5", m).run_id for dataset in sorted({*profile.stand_in.values()}) for m in profile.methods]


def code(*names):
    """Checksums of modules that say, or draw, something of the records: a job whose module has changed runs again."""
    return [record.sha256(Path(workflow.basedir) / "isce" / f"{name}.py")[:10] for name in names]


# Of tables and report: what is asked of the records, and the code that says it of them.
shown = [record.sha256(record.config_dir() / f"{profile.name}.yaml")[:10]]
shown += code("paper", "statistics", "tables", "verdicts", "report")
all_attacks = [
    f"{done}/attack-{block}-{backbone}-{job}-seed{seed}.ipynb"
    for block, backbone in profile.nets for job, names in enumerate(profile.attack_jobs)
    if profile.only(names, block, backbone) for seed in profile.seeds_of(block, backbone)
]
as_coded = [
    f"{done}/as-coded-{block}-seed{seed}.ipynb" for block in profile.as_coded["blocks"] for seed in profile.seeds
]
save = not profile.is_stand_in  # figures/ holds those of real data
mnist = {  # the network of notebooks that take one
    "dataset": profile.stand_in["mnist"], "backbone": "lenet5",
    "epochs": profile.epochs_of(profile.stand_in["mnist"], "lenet5") or 0,
}
figures = {
    "figure1_inference_region": {"profile": profile.name, "save": save},
    "figure2_label_regression": {**mnist, "save": save},
    "figure3_ablation": {"profile": profile.name, "blocks": "mnist,cifar10", "save": save},
    "figure4_embedding": {
        "profile": profile.name, "blocks": ",".join(profile.figures["embedding"]), "method": profile.figures["methods"],
        "save": save,
    },
    "figure5_condition": {**mnist, "save": save},
    "theory": {**mnist, "n": profile.checks.get("theory_n", profile.checks["n"]), "eps": profile.eps["mnist"], "save": save},
    "curves": {
        **mnist, "method": profile.checks["methods"], "n": profile.checks.get("curves_n", profile.checks["n"]), "eps": profile.eps["mnist"],
        "grid": [k * profile.eps["mnist"][0] for k in (0.25, 0.5, 1, 1.5, 2, 3, 4)], "save": save,
        "minimal": "deepfool_50,deepfool_50@raw" + (",fab" if save else ""),
    },
    "gradient_masking": {
        **mnist, "method": profile.checks["methods"], "n": profile.checks["n"], "eps": profile.eps["mnist"][0],
    },
}
# Networks of which figures/ holds pictures of smallest perturbations and of SimBA's queries: those trained in full
pictured = [
    net for net in profile.nets if save and profile.epochs_of(*net) in (None, train.EPOCHS[net[0]])
]
def picture(simba):
    """What attack.ipynb is given, to draw what `Profile.longer_simba` asks for, and DeepFool on the same networks and images."""
    spec, methods = simba[0].spec, dict.fromkeys(e.spec.method for e in simba)
    return dict(
        dataset=spec.dataset, backbone=spec.backbone, seed=spec.seed, epochs=spec.epochs, method=",".join(methods),
        attacks="deepfool_50,deepfool_50@raw,simba", adaptive={e.spec.method: e.attack for e in simba if e.attack != "simba"},
        eps=profile.eps[spec.dataset], simba_steps=simba[0].levels, simba_queries=simba[0].queries, n=simba[0].n, save=True,
    )


train_many = ("figure3_ablation", "figure4_embedding")
on_device = f"-p device {device}"
localrules: html


rule all:
    input:
        f"{done}/report.html",


rule train:
    input:
        notebooks / "train.ipynb",
    output:
        train_job,
    resources:
        gpu=gpu,
        how=f"{on_device} -p at_once {at_once}",
    params:
        given=lambda w: json.dumps(dict(
            dataset=w.dataset, backbone=w.backbone,
            method=",".join(to_train(w)),
            seed=int(w.seed), epochs=profile.epochs_of(w.dataset, w.backbone) or 0)),
        recipes=recipes,
        lost=lost(train_job, networks),
    shell:
        papermill("train")


rule attack:
    input:
        trained,
        notebooks / "attack.ipynb",
    output:
        attack_job,
    resources:
        gpu=gpu,
        how=on_device,
    params:
        given=lambda w: json.dumps(dict(
            dataset=profile.stand_in[w.block], backbone=w.backbone,
            method=",".join(attacked(w)), attacks=",".join(profile.common_attacks(w.block, w.backbone)),
            strongest=profile.strongest, adaptive=made_for(w),
            eps=profile.eps[w.block], simba_steps=profile.simba_steps[w.block], simba_queries=profile.simba_queries[w.block],
            n=profile.n_of(w.block, w.backbone), fewer=profile.fewer, seed=int(w.seed),
            epochs=profile.epochs_of(profile.stand_in[w.block], w.backbone) or 0)),
        records=evaluated,
        lost=lost(attack_job, evaluated),
    shell:
        papermill("attack")


rule pictures:
    input:
        all_attacks,
        notebooks / "attack.ipynb",
    output:
        f"{done}/pictures-{{block}}-{{backbone}}.ipynb",
    resources:
        gpu=gpu,
        how=on_device,
    params:
        given=lambda w: json.dumps(picture(profile.longer_simba(w.block, w.backbone))),
        drawn=code("plots"),
        recipes=recipes,
    shell:
        papermill("attack")


rule arm_a:  # trains what it attacks
    input:
        notebooks / "attack.ipynb",
    output:
        f"{done}/as-coded-{{block}}-seed{{seed}}.ipynb",
    resources:
        gpu=gpu,
        how=on_device,
    params:
        given=lambda w: json.dumps(dict(
            dataset=profile.stand_in[w.block], backbone="resnet32", method="sce,isce", arm="A",
            attacks=profile.as_coded["attacks"], eps=profile.eps[w.block], n=profile.n_of(w.block, "resnet32"), fewer=profile.fewer, seed=int(w.seed),
            epochs=profile.as_coded["epochs"][profile.stand_in[w.block]])),
        recipes=recipes,
    shell:
        papermill("attack")


rule tables:
    input:
        all_attacks,
        notebooks / "table.ipynb",
    output:
        f"{done}/tables.ipynb",
    resources:
        how=on_device,
    params:
        given=json.dumps(dict(
            table="all", profile=profile.name, method="profile", missing="show")),
        shown=shown,
    shell:
        papermill("table")


rule figure:
    input:
        notebooks / "{name}.ipynb",
    output:
        f"{done}/{{name,{'|'.join(figures)}}}.ipynb",
    resources:
        gpu=gpu,
        how=lambda w: on_device + f" -p at_once {at_once}" * (w.name in train_many),
    params:
        given=lambda w: json.dumps(figures[w.name]),
        recipes=recipes,
        drawn=code("plots", "embedding", "theory"),
    shell:
        papermill("{wildcards.name}")


rule report:
    input:
        rules.tables.output,
        as_coded,
        expand(f"{done}/{{name}}.ipynb", name=figures),
        [f"{done}/pictures-{block}-{backbone}.ipynb" for block, backbone in pictured],
        notebooks / "report.ipynb",
    output:
        f"{done}/report.ipynb",
    resources:
        how="",
    params:
        given=json.dumps({"profile": profile.name}),
        shown=shown,
    shell:
        papermill("report")


rule html:
    input:
        rules.report.output,
        Path(workflow.basedir) / "isce" / "report.html",
    output:
        f"{done}/report.html",
    shell:
        shlex.quote(sys.executable) + " -m isce.report {input[0]:q} {output:q}"
