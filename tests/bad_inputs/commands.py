"""Command lines: what each command is given and cannot use. {study} is a study of two cells."""

import shlex
from functools import partial
from pathlib import Path

from tests.bad_inputs.trying import Bad, on_command_line
from tests.studies import made_study

LINES = [
    # which command, which option
    ("rum", "No such command"),
    ("--study digits", "No such option"),
    ("run --rewind-epoch 0", "--rewind-epochs"),
    ("run digits", "unexpected extra argument"),
    ("run --study", "requires an argument"),
    ("run --retry-failed yes", "unexpected extra argument"),
    ("status a b", "unexpected extra argument"),
    ("check", "Missing argument"),
    ("masks", "Missing argument"),
    ("reproduce", "Missing argument"),
    ("selfcheck x", "unexpected extra argument"),
    # the study
    *((f"{command} --study nowhere", "unknown study 'nowhere'") for command in ("run", "plan")),
    ("plan --study nowhere.yaml", "No such file"),
    ("plan --study .", "unknown study"),
    ("plan --study ''", "unknown study"),
    ("status --study nowhere", "unknown study"),
    ("results --study nowhere", "unknown study"),
    ("report --study nowhere", "unknown study"),
    ("watch --study nowhere", "unknown study"),
    ("plan --set seed", "--set takes KEY=VALUE; got 'seed'"),
    ("plan --set =", "unknown key ''"),
    ("plan --set sead=3", "did you mean 'seed'"),
    ("plan --set seed=x", "seed should be a valid integer"),
    ("plan --set pruning.spare=*.x", "'*.x', which this network does not have"),
    ("plan --set seed=1 --set seed=2", "given twice"),
    ("plan --seed 1 --set seed=2", "given twice"),
    ("plan --seed x", "seed should be a valid integer"),
    ("plan --seed ''", "seed should be"),
    ("plan --seed 0x10", "0x10"),
    ("plan --seed -1", "seed must be 0 or more"),
    ("plan --seed 1e3", "seed"),
    ("plan --epochs 0", "epochs must be 1"),
    ("plan --epochs x", "recipe.epochs should be a valid integer"),
    ("plan --epochs 1000000000", "100,000"),
    ("plan --epochs 2", "leaves nothing to train"),
    ("plan --thresholds x", "thresholds"),
    ("plan --thresholds 50", "between 0 and 1; got 50"),
    ("plan --thresholds '0.5 0.9'", "0.5 0.9"),
    ("plan --thresholds 0.5 0.9", "unexpected extra argument"),
    ("plan --thresholds ''", "at least one value"),
    ("plan --rewind-epochs x", "rewind_epochs takes"),
    ("plan --rewind-epochs 1.5.2", "1.5.2"),
    ("plan --rewind-epochs 0,5it,1", "not both"),
    ("plan --arms x", "unknown arm 'x'"),
    ("plan --rounds x", "rounds should be a valid integer"),
    ("plan --rounds 3", "iterative"),
    ("plan --rounds 3 --pruning one_shot", "iterative"),
    ("plan --rounds x --pruning iterative", "rounds should be a valid integer"),
    ("plan --rounds 0 --pruning iterative", "rounds must be 1"),
    ("plan --rounds 1000000 --pruning iterative", "rounds must be 1"),
    ("plan --rounds 3 --pruning iterative --thresholds 0.5", "thresholds"),
    ("plan --pruning twice", "is not one of"),
    ("plan --replicates 0", "replicates"),
    ("plan --replicates x", "replicates"),
    ("plan --replicates 1000000000", "cells"),
    ("plan --device tpu", "is not one of"),
    ("plan --code nowhere.py", "cannot read the code nowhere.py"),
    ("plan --code .", "cannot read the code"),
    ("plan --code /dev/zero", "no regular file"),
    # where to train
    ("run --workers x", "--workers must be a number, or MIN..MAX; got 'x'"),
    ("run --workers 0", "--workers must be 1 or more"),
    ("run --workers -1", "--workers must be 1 or more"),
    ("run --workers 4..2", "MIN not above MAX"),
    ("run --workers 1..", "MIN..MAX"),
    ("run --workers ..3", "MIN..MAX"),
    ("run --workers 1_000", "MIN..MAX"),
    ("run --workers 2.5", "MIN..MAX"),
    ("run --workers ''", "MIN..MAX"),
    ("run --deploy cloud", "unknown deployment 'cloud'"),
    ("run --deploy ''", "unknown deployment ''"),
    ("run --deploy scheduler", "no address is given"),
    ("run --deploy srun", "allocation"),
    ("run --deploy slurm", "section jobqueue.slurm"),
    ("run --deploy slurm --print-job-script", "section jobqueue.slurm"),
    ("run --deploy srun --print-job-script", "queues no job"),
    ("run --scheduler ''", "--scheduler is an address"),
    ("run --scheduler nowhere", "nowhere"),
    ("run --scheduler tcp://127.0.0.1:1", "127.0.0.1:1"),
    ("run --scheduler tcp://127.0.0.1", "127.0.0.1"),
    ("run --scheduler tcp://127.0.0.1:x", "127.0.0.1:x"),
    ("run --scheduler http://127.0.0.1:1", "http"),
    ("run --scheduler tls://127.0.0.1:1", "certificate"),
    ("run --scheduler tcp://127.0.0.1:1 --deploy local", "--deploy"),
    ("run --cluster nowhere.yaml", "No such file"),
    ("run --cluster .", "no regular file"),
    ("run --cluster ''", "cluster file"),
    # what is done
    ("run --max-attempts 0", "not in the range"),
    ("run --max-attempts x", "not a valid integer"),
    ("run --adaptive x", "not a valid float"),
    *((f"run --adaptive {share}", "--adaptive is a share") for share in ("0", "-1", "2", "nan")),
    ("plan --adaptive inf", "--adaptive is a share"),
    ("run --adaptive 0.5 --masks-only", "--masks-only"),
    ("run --keep some", "--keep takes none, matching, all"),
    ("run --keep 0.7", "threshold 0.7, which is not asked for"),
    ("run --keep 0.9:2:x", "unknown arm 'x'"),
    ("run --keep 0.9:x", "--keep takes"),
    ("run --keep ''", "--keep takes"),
    ("run --keep nan", "--keep"),
    ("run --keep-rewound", "keeps nothing without --keep"),
    ("run --masks-only --keep all", "--masks-only trains no cell"),
    ("run --allow-origin http://x/y", "--allow-origin"),
    ("run --out {file}", "{file}"),
    ("run --out {file}/x", "{file}"),
    ("run --out /proc/x", "/proc/x"),
    ("run --out " + "x" * 5000, "too long"),
    ("run --study mnist-lenet", "--data"),
    ("run --study mnist-lenet --data nowhere", "nowhere"),
    ("plan --out {file}", "{file}"),
    ("plan --status", "No such option"),
    ("run --status --out nowhere", "there is no study in"),
    ("run --status --dry-run", "choose one of --status, --dry-run"),
    # a folder
    *(
        (f"{command} nowhere", "nowhere")
        for command in ("status", "results", "report", "check", "watch")
    ),
    *((f"{command} {{file}}", "{file}") for command in ("status", "results", "report", "check")),
    *((f"{command} .", "no ") for command in ("status", "results", "report", "check")),
    *((f"{command} ''", "") for command in ("status", "results", "check")),
    *((f"{command} /dev/null", "/dev/null") for command in ("status", "results", "check")),
    *(
        (f"{command} " + "x" * 5000, "xxx")
        for command in ("status", "results", "report", "check", "watch")
    ),
    ("status {study} --out {study}", "once"),
    ("results {study} --out {study}", "once"),
    ("report {study} --out {study}", "once"),
    ("status {study}", None),
    ("results {study}", None),
    ("check {study} --fix", "No such option"),
    # reports
    ("report {study} --width 85", "--width is that of --figures"),
    ("report {study} --figures f --width -1", "--width"),
    ("report {study} --figures f --width x", "not a valid float"),
    ("report {study} --figures f --width nan", "--width"),
    ("report {study} --figures f --width 1e9", "--width"),
    ("report {study} --figures f --width 0", "--width"),
    ("report {study} --methods --csv a.csv", "--methods takes"),
    ("report {study} {study} --methods", "--methods takes"),
    ("report {study} {study} --figures f", "--figures"),
    ("report {study} nowhere", "nowhere"),
    ("report {study} {study} --csv a.csv", "--csv"),
    ("report {study} -o .", "directory"),
    ("report {study} -o nowhere/a.html", "nowhere/a.html"),
    ("report {study} -o {file}/a.html", "{file}"),
    ("report {study} --csv nowhere/a.csv", "nowhere/a.csv cannot be written"),
    ("report {study} --figures {file}", "{file}"),
    ("report {study} {study} -o a.html", "twice"),
    # masks
    ("masks {study} -o m", "--threshold"),
    ("masks {study} --threshold 0.5", "--output"),
    ("masks {study} --threshold x -o m", "not a valid float"),
    ("masks {study} --threshold 0.7 -o m", "no threshold 0.7"),
    ("masks {study} --threshold nan -o m", "no threshold nan"),
    ("masks {study} --threshold 0.5 --replicate 7 -o m", "no replicate 7"),
    ("masks {study} --threshold 0.5 --replicate -1 -o m", "no replicate -1"),
    ("masks {study} --threshold 0.5 --rewind-epoch x -o m", "rewind_epoch takes"),
    ("masks {study} --threshold 0.5 --rewind-epoch 7 -o m", "no rewind_epoch 7"),
    ("masks {study} --threshold 0.5 --rewind-epoch 5it -o m", "no rewind_epoch 5it"),
    ("masks nowhere --threshold 0.5 -o m", "nowhere"),
    ("masks {file} --threshold 0.5 -o m", "{file}"),
    # reproduce
    ("reproduce renda", "renda"),
    ("reproduce renda2020 --fraction 0", "unknown card"),
    ("reproduce CARD --fraction x", "not a valid float"),
    *((f"reproduce CARD --fraction {share}", "--fraction") for share in ("0", "-1", "2", "nan")),
    ("reproduce CARD --results {study} --exact", "--exact"),
    ("reproduce CARD --results {study} --fraction 0.5", "--fraction"),
    ("reproduce CARD --results {study} --set seed=3", "--set"),
    ("reproduce CARD --results {study} --data x", "--data"),
    ("reproduce CARD --results {study} --workers 2", "--workers"),
    ("reproduce CARD --results {study} --out x", "--out"),
    ("reproduce CARD --results {study} --replicates 3", "--replicates"),
    ("reproduce CARD --results {study} --retry-failed", "--retry-failed"),
    ("reproduce CARD --results nowhere", "nowhere"),
    ("reproduce CARD --results {study}", "protocol"),
    ("reproduce CARD --iterative nowhere --results {study}", "nowhere"),
    ("reproduce CARD --replicates x", "replicates"),
    ("reproduce CARD --set sead=3", "unknown key 'sead'"),
    # the rest
    ("watch {study} --port 70000", "not in the range"),
    ("watch {study} --port x", "not a valid integer"),
    ("watch {study} --allow-origin '*/'", "--allow-origin"),
    ("cluster-file {file}", "is there already"),
    ("cluster-file nowhere/x.yaml", "cannot write"),
    ("cluster-file .", "is there already"),
    ("cluster-file . --force", "cannot write"),
]


def _line(line: str, folder: Path) -> None:
    study, file = Path("study"), Path("a-file")
    if "{study}" in line:
        made_study(study)
    file.write_text("text")
    on_command_line(*shlex.split(line.format(study=study, file=file)))


CARD = "cifar10-resnet20"


def rows() -> list[Bad]:
    """Return every bad input of this kind."""
    return [
        Bad(
            "command line",
            line,
            partial(_line, line.replace("CARD", CARD)),
            told and told.replace("{file}", "a-file"),
            starts=line.split()[0] in ("run", "reproduce"),
            slow="{study}" in line or line.split()[0] in ("plan", "report", "results", "watch"),
        )
        for line, told in LINES
    ]
