"""Study files, and values of their keys."""

import os
from functools import partial
from pathlib import Path

from lthdask.reading import flattened
from lthdask.study import Study
from tests.bad_inputs.trying import Bad

ODD = ("{a: 1}", "[[[]]]", ".nan", "many words", "null", "true", "-1e400")
"""Each of them is no value of any key, but for `FINE`."""
OFTEN = ("many words", ".nan")
"""Those that the default tests try: all of them take long."""
FINE = {
    ("mask_epoch", "null"),
    *((key, "null") for key in ("data.subset", "data.shorter_side", "source")),
    ("pruning.allocation", "null"),
    *((key, "null") for key in ("pruning.spare", "pruning.masks", "data.augmentation")),
    ("recipe.schedule.milestones", "null"),
    *((key, "true") for key in ("fresh_buffers", "recipe.optimizer.decay_norm_and_bias")),
    ("recipe.optimizer.nesterov", "true"),
    ("recipe.fine_tune_rate", "null"),
    ("engine.graphs", "true"),
    ("engine.kernels", "true"),
}

VALUES = [
    # ranges
    ("recipe.epochs=0", "epochs must be 1"),
    ("recipe.epochs=-3", "epochs must be 1"),
    ("recipe.epochs=1000000000", "100,000"),
    ("recipe.epochs=1e3", "recipe.epochs"),
    ("recipe.epochs=10.0", "recipe.epochs"),
    ("recipe.epochs=99999999999999999999", "epochs must be 1"),
    ("recipe.batch_size=0", "batch_size"),
    ("recipe.batch_size=-8", "batch_size"),
    ("recipe.batch_size=1e9", "batch_size"),
    ("recipe.optimizer.rate=0", "rate must be above 0; got 0"),
    ("recipe.optimizer.rate=-0.1", "rate must be above 0; got -0.1"),
    ("recipe.optimizer.rate=.inf", "rate must be above 0"),
    ("recipe.optimizer.rate=1e400", "rate"),
    ("recipe.optimizer.rate=1e-400", "rate"),
    ("recipe.optimizer.momentum=1", "momentum must be"),
    ("recipe.optimizer.momentum=-0.1", "momentum must be"),
    ("recipe.optimizer.weight_decay=-1", "weight_decay"),
    ("recipe.optimizer.weight_decay=.inf", "weight_decay"),
    ("recipe.optimizer.name=sdg", "unknown optimizer 'sdg'; did you mean 'sgd'"),
    ("recipe.optimizer.name=SGD", "unknown optimizer 'SGD'"),
    ("recipe.optimizer.name=torch.optim:SGD", "unknown optimizer"),
    ("recipe.optimizer.name=os:system", "os.py"),
    ("recipe.schedule.name=", "schedule"),
    ("recipe.schedule.warmup_epochs=-1", "warmup_epochs"),
    ("recipe.schedule.warmup_epochs=100", "warmup"),
    ("recipe.schedule.milestones=3,2", "milestones"),
    ("recipe.schedule.milestones=1,1", "milestones"),
    ("seed=-1", "seed must be 0 or more; got -1"),
    ("seed=0x10", 'seed should be a valid integer; got "0x10"'),
    ("seed=1_000", "1_000"),
    ("seed=0o17", "0o17"),
    ("seed=0b11", "0b11"),
    ("seed=1:30", "seed"),
    ("seed=2024-05-01", "2024-05-01"),
    ("seed=yes", "yes"),
    ("seed=+", "seed"),
    ("seed=1.5", "seed should be a valid integer; got 1.5"),
    ("seed=1,2", "seed"),
    ("seed=1 2", "seed"),
    ("seed=", "seed"),
    ("seed=٣", "seed"),
    ("seed=99999999999999999999999999999999999999999999999999", None),
    ("seed=" + "9" * 5000, "seed"),
    ("seed=010", None),
    ("seed=18446744073709551615", None),
    ("seed=!!python/object/apply:os.getpid []", "seed"),
    ("seed=!!int 3", None),
    ("seed=!!int x", "seed"),
    ("seed=!!binary aGk=", "seed"),
    ("seed=&a 3", None),
    ("seed=*a", "seed"),
    ("seed=[", "seed"),
    ("seed={", "seed"),
    ("seed=" + "[" * 3000, "seed"),
    ("seed='3'", "seed"),
    ('seed="', "seed"),
    ("seed=\t3", None),
    ("seed=3 # the first", None),
    ("matching_margin=1.1", "matching_margin must be in [0, 1]; got 1.1"),
    ("matching_margin=-0.01", "matching_margin"),
    ("matching_margin=1%", "matching_margin"),
    ("matching_margin=0", None),
    ("keep_until=-1", "keep_until must be 0 or more; got -1"),
    ("keep_until=100000", None),
    ("fresh_buffers=yes", "fresh_buffers"),
    ("fresh_buffers=1", "fresh_buffers"),
    ("fresh_buffers=True", None),
    ("mask_epoch=0", "mask_epoch must lie between"),
    ("mask_epoch=-1", "mask_epoch"),
    ("mask_epoch=100", "mask_epoch"),
    ("mask_epoch=5itt", "mask_epoch takes"),
    ("mask_epoch=0it", "mask_epoch"),
    ("mask_epoch=[1]", "mask_epoch"),
    ("name=a/b", "name must be letters"),
    ("name=..", "name must be"),
    ("name=''", "name must be"),
    ("name=é", "name must be"),
    ("name=a b", "name must be"),
    ("name=-x", "name must be"),
    ("name=" + "x" * 5000, "name"),
    ("name=2024-05-01", None),
    # grids
    ("grid.thresholds=0", "between 0 and 1; got 0"),
    ("grid.thresholds=1", "between 0 and 1; got 1"),
    ("grid.thresholds=50", "between 0 and 1; got 50"),
    ("grid.thresholds=50%", "50%"),
    ("grid.thresholds=0.5;0.9", "0.5;0.9"),
    ("grid.thresholds=0.5 0.9", "0.5 0.9"),
    ("grid.thresholds=0,5", "got 0"),
    ("grid.thresholds=0.9,0.5", "must increase"),
    ("grid.thresholds=0.5,0.5", "twice"),
    ("grid.thresholds=0.3,0.30000000000000004", "twice"),
    ("grid.thresholds=0.5,,0.9", None),
    ("grid.thresholds=[0.5,0.9]", None),
    ("grid.thresholds=[0.5,0.9", "0.5"),
    ("grid.thresholds=", "at least one value"),
    ("grid.thresholds=0.1..0.9", "0.1..0.9"),
    ("grid.thresholds=1e-400", "got 0"),
    ("grid.thresholds=0x1p-1", "0x1p-1"),
    ("grid.thresholds=½", "½"),
    ("grid.thresholds=true", "thresholds"),
    ("grid.thresholds=a", "thresholds"),
    ("grid.rewind_epochs=-1", "rewind_epochs must be 0 or more; got -1"),
    ("grid.rewind_epochs=6", "leaves nothing to train"),
    ("grid.rewind_epochs=1,500it", "not both"),
    ("grid.rewind_epochs=5 it", "5 it"),
    ("grid.rewind_epochs=-5it", "-5it"),
    ("grid.rewind_epochs=05it", "05it"),
    ("grid.rewind_epochs=1e3it", "1e3it"),
    ("grid.rewind_epochs=99999999999it", "99999999999it"),
    ("grid.rewind_epochs=.inf", "rewind_epochs"),
    ("grid.rewind_epochs=1,1.0000000000001", "twice"),
    ("grid.rewind_epochs=half", "half"),
    ("grid.rewind_epochs=0:5", "0:5"),
    ("grid.rewind_epochs=", "at least one value"),
    ("grid.arms=tickets", "unknown arm 'tickets'"),
    ("grid.arms=ticket,ticket", "twice"),
    ("grid.arms=", "at least one value"),
    ("grid.arms=Ticket", "unknown arm 'Ticket'"),
    ("grid.arms=mine:arm", "mine.py"),
    ("grid.arms=1", "arm"),
    ("grid.arms=ticket,null", None),
    ("grid.arms=fine_tune_iterated,ticket", "fine_tune"),
    ("grid.replicates=0", "replicates"),
    ("grid.replicates=-2", "replicates"),
    ("grid.replicates=1.5", "replicates"),
    ("grid.replicates=1000000000", "cells"),
    ("grid.replicates=many", "replicates"),
    ("grid.rewind_epochs_of.lr_rewnd=1", "lr_rewnd"),
    ("grid.rewind_epochs_of.ticket=1", "ticket"),
    ("grid.rewind_epochs_of.random_mask=5", None),
    ("grid.rewind_epochs_of=1", "rewind_epochs_of"),
    # pruning
    ("pruning.score=magnitude", "unknown score 'magnitude'"),
    ("pruning.score=erk", "is an allocation"),
    ("pruning.by=shares", "pruning.by"),
    ("pruning.schedule=iteratively", "pruning.schedule"),
    ("pruning.schedule=iterative", "rounds must be 1"),
    ("pruning.rounds=3", "iterative"),
    ("pruning.rounds=x", "pruning.rounds"),
    ("pruning.rate=0", "rate must be"),
    ("pruning.rate=1", "rate must be"),
    ("pruning.rate=20", "rate must be"),
    ("pruning.spare=*.x", "'*.x', which this network does not have"),
    ("pruning.spare='*.x'", "'*.x'"),
    ("pruning.spare=*", "every layer"),
    ("pruning.spare='*'", "every layer"),
    ("pruning.spare=stems", "'stems'"),
    ("pruning.spare=stem,", None),
    ("pruning.spare=[stem", "stem"),
    ("pruning.spare=1", "pruning.spare"),
    ("pruning.layer_rates.stem=0.5", "layer_rates"),
    ("pruning.layer_rates={stem: 0.5}", "layer_rates"),
    ("pruning.layer_rates=0.5", "layer_rates"),
    ("pruning.masks=nowhere.safetensors", "nowhere.safetensors"),
    ("pruning.masks=.", "cannot read the mask"),
    ("pruning.masks=x@0123456789abcdef", "x@0123456789abcdef"),
    ("pruning.allocation=equal", "pruning.allocation"),
    # data, network, engine
    ("data.name=imagenet", "unknown data set 'imagenet'"),
    ("data.name=Digits", "unknown data set 'Digits'"),
    ("data.name=../digits", "unknown data set"),
    ("data.image_size=7", "image_size must be 8"),
    ("data.image_size=1025", "1,024"),
    ("data.image_size=1000000000", "1,024"),
    ("data.image_size=32x32", "32x32"),
    ("data.validation=0", "validation must be 1"),
    ("data.validation=0.1", "data.validation"),
    ("data.augmentation=flips", "flips"),
    ("data.augmentation=flip,flip", "twice"),
    ("data.augmentation=resized_crop", "resized_crop is for folders"),
    ("data.normalisation=none", "data.normalisation"),
    ("network.name=resnet21", "unknown network 'resnet21'"),
    ("network.name=mobilenet", "unknown network 'mobilenet'"),
    ("network.width=0", "width"),
    ("network.width=-1", "width"),
    ("network.width=.inf", "width"),
    ("network.width=1e9", "width"),
    ("network.width=1e-9", None),
    ("network.depth=50", "unknown key 'network.depth'"),
    ("engine.device=gpu", "engine.device"),
    ("engine.device=cuda:1", "engine.device"),
    ("engine.precision=float16", "engine.precision"),
    ("engine.threads=-1", "threads"),
    ("engine.threads=1000000", "threads"),
    ("engine.cohort=-1", "cohort"),
    ("engine.cohort=1000000", None),
    # keys
    ("=3", "unknown key ''"),
    ("seeds=3", "did you mean 'seed'"),
    ("Seed=3", "did you mean 'seed'"),
    ("recipe=3", "is a block"),
    ("recipe.epochs.x=3", "unknown key 'recipe.epochs.x'"),
    ("recipe..epochs=3", "unknown key 'recipe..epochs'"),
    ("__class__=3", "unknown key"),
    ("grid.threshold=0.5", "did you mean 'grid.thresholds'"),
    ("recipe.learning_rate=1", "unknown key"),
]

STUDY = Study.read("digits")
LENET = STUDY.changed({"network.name": "lenet_300_100"})  # which is quickly laid out
DIGITS = STUDY.to_yaml()
LINE = "seed: 0\n"


def _with(line: str) -> str:
    return DIGITS.replace(LINE, f"{line}\n")


TEXTS: list[tuple[str, bytes | str, str | None]] = [
    ("as it is", DIGITS, None),
    ("with a BOM", b"\xef\xbb\xbf" + DIGITS.encode(), None),
    ("with CRLF", DIGITS.replace("\n", "\r\n"), None),
    ("with a comment in UTF-8", "# é\n" + DIGITS, None),
    ("empty", "", "must be a mapping"),
    ("blank", "\n\n  \n", "must be a mapping"),
    ("only a comment", "# nothing", "must be a mapping"),
    ("a number", "3", "must be a mapping"),
    ("a list", "- a\n- b", "must be a mapping"),
    ("a text", "hello", "must be a mapping"),
    ("null", "null", "must be a mapping"),
    ("two documents", DIGITS + "---\n" + DIGITS, "another document"),
    ("JSON cut off", '{"name": "a"', "line 1"),
    ("tabs", "name: x\n\trecipe: 3", "line 2"),
    ("odd indentation", "name: x\n  data: 3", "line 2"),
    ("an alias", "name: &a x\ndata: *a", "write out the value of the alias *a"),
    ("a merge key", "a: &a {b: 1}\nc: {<<: *a}", "alias"),
    ("a merge key alone", _with("<<: {seed: 3}"), "<<"),
    ("a key twice", _with("seed: 1\nseed: 2"), "given twice"),
    ("a key twice in a block", _with("engine: {threads: 1, threads: 2}"), "given twice"),
    ("a number as a key", _with("1: 2"), "unknown key '1'"),
    ("a list as a key", _with("[1, 2]: 3"), "line"),
    ("a mapping as a key", _with("{a: 1}: 3"), "line"),
    ("null as a key", _with("~: 3"), "unknown key"),
    ("a tag of Python", _with("seed: !!python/name:os.system"), "constructor"),
    ("a tag of its own", _with("seed: !mine 3"), "constructor"),
    ("a date", _with("seed: 2024-05-01"), "2024-05-01"),
    ("sexagesimal", _with("seed: 190:20:30"), "190:20:30"),
    ("octal", _with("seed: 0o14"), "0o14"),
    ("a leading zero", _with("seed: 012"), None),
    ("underscores", _with("seed: 1_2"), "1_2"),
    ("yes", _with("fresh_buffers: yes"), "fresh_buffers"),
    ("off", _with("fresh_buffers: off"), "fresh_buffers"),
    ("a set", _with("seed: !!set {1}"), "constructor"),
    ("deep nesting", "a: " + "[" * 5_000, "nested too deeply"),
    ("deep mappings", "a: " + "{a: " * 5_000, "nested too deeply"),
    ("a number of many digits", _with("seed: " + "9" * 10_000), "too many digits"),
    ("a long line", _with("seed: " + "x" * 100_000), "seed"),
    ("a directive", "%YAML 3.0\n---\nname: x", "incompatible"),
    ("UTF-16", DIGITS.encode("utf-16"), "UTF-8"),
    ("UTF-32", DIGITS.encode("utf-32"), "UTF-8"),
    ("Latin-1", "# é\n".encode("latin-1") + DIGITS.encode(), "UTF-8"),
    ("binary", bytes(range(256)), "UTF-8"),
    ("null characters", DIGITS + "\0", "which is no text"),
    ("an escape", DIGITS + "# \x1b[31m", "which is no text"),
    ("an image", b"\x89PNG\r\n\x1a\n" + bytes(100), "UTF-8"),
    ("a pickle", b"\x80\x04\x95", "UTF-8"),
    ("too large", "# " + "x" * 2_000_000, "1,000,000"),
    ("XML", "<study/>", "must be a mapping"),
    ("TOML", 'name = "x"\n[data]\nname = "digits"', "mapping"),
    ("without a name", DIGITS.replace("name: digits\n", "", 1), "'name' is missing"),
    ("without a grid", "name: x\ndata: {name: digits}", "is missing"),
    ("a key too many", _with("sead: 3"), "did you mean 'seed'"),
    ("a key too many in a block", _with("engine: {thread: 3}"), "given twice"),
    ("a block that is a list", _with("engine: [1]"), "engine"),
    ("a block that is empty", _with("engine:"), "engine"),
    ("a block that is a text", _with("engine: fast"), "engine"),
]


def _value(text: str, folder: Path) -> None:
    key, _, value = text.partition("=")
    (STUDY if key.startswith("network") else LENET).changed({key: value})


def _text(content: bytes | str, folder: Path) -> None:
    file = folder / "study.yaml"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    Study.read(file)


def _no_file(make: str, folder: Path) -> None:
    file = folder / "study.yaml"
    if make == "pipe":
        os.mkfifo(file)
    elif make == "directory":
        file.mkdir()
    elif make == "dangling link":
        file.symlink_to("nowhere")
    elif make == "loop of links":
        file.symlink_to(file)
    elif make == "below a file":
        (folder / "a").write_text("")
        file = folder / "a" / "study.yaml"
    else:
        file = Path(make)
    Study.read(file)


PLACES = [
    ("pipe", "no regular file"),
    ("directory", "no regular file"),
    ("dangling link", "No such file"),
    ("loop of links", "symbolic links"),
    ("below a file", "Not a directory"),
    ("/dev/zero", "unknown study '/dev/zero'"),
    ("/dev/null", "unknown study"),
    ("nowhere.yaml", "No such file"),
    ("nowhere", "unknown study 'nowhere'"),
    ("digit", "did you mean 'digits'"),
    ("", "unknown study"),
    (".", "unknown study '.'"),
    ("~/nowhere.yaml", "No such file"),
    ("a\0b.yaml", "null"),
    ("x" * 5000 + ".yaml", "too long"),
    ("x" * 5000, "too long"),
    ("https://example.org/study.yaml", "No such file"),
]


def _part(key: str, value: str) -> str:
    """Return what is said of a value that is odd: its key, or what it is."""
    if value == "many words" and key.endswith((".name", "arms", "masks")):
        return "many words"
    if key == "grid.thresholds" and value in (".nan", "-1e400"):
        return "a threshold is the share to prune"
    return key.rpartition(".")[2]


def rows() -> list[Bad]:
    """Return every bad input of this kind."""
    keys = flattened(STUDY.to_dict())
    odd = [
        (f"{key}={value}", None if (key, value) in FINE else _part(key, value))
        for key in keys
        for value in ODD
    ]
    return [
        *(Bad("study value", text, partial(_value, text), told) for text, told in VALUES),
        *(
            Bad("study value", text, partial(_value, text), told, slow=not text.endswith(OFTEN))
            for text, told in odd
        ),
        *(Bad("study file", name, partial(_text, text), told) for name, text, told in TEXTS),
        *(Bad("study file", name, partial(_no_file, name), told) for name, told in PLACES),
    ]
