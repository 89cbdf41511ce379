"""Sentences on what was trained: data, network, recipe."""

from typing import Any

from lthdask.own import is_own
from lthdask.report.methods.facts import Facts, counted, enumerated
from lthdask.storage.manifest import digest_of
from lthdask.training.recipe import ADAM_BETAS

DATA = {
    "digits": "scikit-learn's handwritten digits (Alpaydin & Kaynak 1998)",
    "cifar10": "CIFAR-10 (Krizhevsky 2009)",
    "cifar100": "CIFAR-100 (Krizhevsky 2009)",
    "mnist": "MNIST (LeCun et al. 1998)",
    "fashion_mnist": "Fashion-MNIST (Xiao et al. 2017)",
    "svhn": "SVHN (Netzer et al. 2011)",
    "folder": "a folder of images",
}
AUGMENTATIONS = {
    "flip": "mirrored left to right with probability 1/2",
    "crop": "moved by up to an eighth of their size over a black border",
    "resized_crop": "replaced by a random part of 8 % to 100 % of them (Szegedy et al. 2015)",
}
NETWORKS = {
    "lenet_300_100": "LeNet-300-100 (LeCun et al. 1998)",
    **{f"conv{depth}": f"Conv-{depth} (Frankle & Carbin 2019)" for depth in (2, 4, 6)},
    **{
        f"vgg{depth}": f"VGG-{depth} (Simonyan & Zisserman 2015) for small images, with batch norm "
        "and one linear layer (Liu et al. 2019), initialised Glorot-normal"
        for depth in (16, 19)
    },
    **{f"resnet{depth}": f"ResNet-{depth} (He et al. 2016)" for depth in (18, 20, 32, 44, 56, 110)},
    **{
        f"wrn_{depth}_{width}": f"WRN-{depth}-{width} (Zagoruyko & Komodakis 2016) without dropout"
        for depth, width in ((16, 4), (16, 8), (22, 2), (22, 8), (28, 10), (40, 2), (40, 4))
    },
    "mobilenet_v2": "MobileNetV2 (Sandler et al. 2018) without dropout",
}
BATCH_NORM_MOMENTUM = 0.1
"""What is usual, and not told."""
FORMS = {
    "imagenet": "with its strides for images of 224 pixels",
    "mobilenet_v2": "with stride 1 in the stem and in its first strided stage",
    "resnet18": "with a 3×3 stem at stride 1, and without its max pool",
}
"""The form for large images, and the small ones."""


def question(f: Facts) -> str:
    """Say what the study is, in numbers."""
    thresholds = counted(len(f.axes["threshold"]), "pruning threshold")
    rewind_epochs = counted(len(f.axes["rewind_epoch"]), "rewind epoch")
    if f["source.study"]:
        return (
            f"Lottery tickets (Frankle & Carbin 2019) of another study were trained, at "
            f"{thresholds}, in {counted(f.replicates, 'replicate')}."
        )
    return (
        f"Lottery tickets (Frankle & Carbin 2019) were looked for in a grid of {thresholds} by "
        f"{rewind_epochs}, in {counted(f.replicates, 'replicate')}."
    )


def data(f: Facts) -> str:
    """Say what the data were, how they were split, and what identifies them."""
    name, size, known = f["data.name"], f["data.image_size"], f.about.get("data") or {}
    splits, kind = "", _kind(f)
    if known.get("splits"):
        train, validation, test = (f"{split['count']:,}" for split in _splits(known))
        splits = (
            f": {train} {kind}s for training, {validation} for validation and {test} for the test, "
            f"in {known['classes']} classes (digest: sha256 {digest_of(known)[:16]})"
        )
    whose = "those of ImageNet" if name == "folder" else "taken from the training images"
    normalised = f"normalised by a mean and a standard deviation for each channel, {whose}"
    if f["data.normalisation"] == "image":
        normalised = (
            "standardised one by one after augmentation, each by the mean and the standard "
            "deviation of all its values (at least 1 over the root of their number)"
        )
    own = f"those of {name} (code of the authors' own)" if is_own(name) else name
    called = DATA.get(name, own) + (f" at {size}×{size} pixels" if size else "")
    if subset := f["data.subset"]:
        turn = " (those of each class in turn)" if name == "folder" else ""
        called += f", of the training {kind}s the first {subset:,}{turn}"
    if _kind(f) == "image":
        normalised = f"They were {normalised}. "
    elif len(known.get("shape", range(3))) == 3:  # which may be images: nothing tells
        normalised = (
            f"Inputs of bytes (uint8) were {normalised}; any others were used as they were. "
        )
    else:
        normalised = "They were used as they were. "
    return f"The data were {called}{splits}. {_decoded(f)}{normalised}{_set_aside(f)}"


def _decoded(f: Facts) -> str:
    """Say what was done to files of images, where that is not the usual."""
    side, said = f["data.shorter_side"], ""
    if f["data.decoding"] == "scaled":
        said += (
            "JPEGs were decoded at a half, a quarter or an eighth of their size where that left as "
            "many pixels as were needed. "
        )
    if side:
        said += f"Images were first brought to {side} pixels on their shorter side. "
    return said


def _kind(f: Facts) -> str:
    return "image" if f["data.image_size"] or f["data.augmentation"] else "input"


def _set_aside(f: Facts) -> str:
    kind = _kind(f)
    return (
        f"The {counted(f['data.validation'], f'validation {kind}')} had been set aside from the "
        f"training {kind}s, the same for all replicates; nothing was chosen on the test {kind}s."
    )


def _splits(known: dict[str, Any]) -> list[dict[str, Any]]:
    return [known["splits"][name] for name in ("training", "validation", "test")]


def augmentation(f: Facts) -> str:
    """Say what was done to training images."""
    how = [AUGMENTATIONS.get(name, name) for name in f["data.augmentation"] or ()]
    return f"Training {_kind(f)}s were {enumerated(how) if how else 'not augmented'}."


def network(f: Facts) -> str:
    """Say which network was trained."""
    name, form = f["network.name"], ""
    if name in FORMS:
        form = f", {FORMS[name if f['network.form'] == 'small' else 'imagenet']}"
    if name == "mobilenet_v2":
        form += f", at width {f['network.width']:g}"
    if f["network.first_projection"]:
        form = ", with a projection shortcut in its first block, too"
    library, _, plain = name.partition("/")
    of_library = f"{plain} of {library}, initialised as there" if plain else name
    said = [f"The network was {NETWORKS.get(name, of_library)}{form}."]
    if f["network.initialisation"] == "variance_scaling":
        said.append(
            "Convolutions were initialised normal with variance 1/fan-in, truncated at two "
            "deviations, the classifier normal with standard deviation 0.01 and biases 0."
        )
    if (momentum := f["network.batch_norm_momentum"]) not in (None, BATCH_NORM_MOMENTUM):
        said.append(f"Running statistics of batch norm took {momentum:g} of each batch.")
    return " ".join(said)


def training(f: Facts) -> str:
    """Say how the dense network was trained."""
    of = f.block("recipe.optimizer")
    decay = f"weight decay {of['weight_decay']:g}"
    if not of.get("decay_norm_and_bias", True):
        decay += " except on batch norm and biases"
    betas = f"β = {enumerated(ADAM_BETAS)}"
    nesterov = "Nesterov " if of.get("nesterov") else ""
    source = " (Sutskever et al. 2013)" if nesterov else ""
    momentum = f"{nesterov}momentum {of['momentum']:g}{source}"
    optimizers = {
        "sgd": f"stochastic gradient descent ({momentum}, {decay})",
        "adam": f"Adam (Kingma & Ba 2015; {betas}, {decay})",
        "adamw": f"AdamW (Loshchilov & Hutter 2019; {betas}, decoupled {decay})",
    }
    own = f"{of['name']} (momentum {of['momentum']:g}, {decay})"
    smoothing = f["recipe.label_smoothing"]
    smoothed = f", with labels smoothed by {smoothing:g} (Szegedy et al. 2016)" if smoothing else ""
    steps = f.about.get("steps")
    length = f" of {counted(steps, 'step')}" if steps else ""
    return (
        f"A dense network was trained for T = {counted(f['recipe.epochs'], 'epoch')}{length}, on "
        f"batches of {f['recipe.batch_size']}, by {optimizers.get(of['name'], own)} of the "
        f"cross-entropy{smoothed}; an incomplete last batch was left out."
    )


def schedule(f: Facts) -> str:
    """Say how the learning rate changed."""
    of, rate = f.block("recipe.schedule"), f"{f['recipe.optimizer.rate']:g}"
    warmup, milestones = of["warmup_epochs"], enumerated(of["milestones"] or [""])
    first = f"first {warmup} epochs" if warmup > 1 else "first epoch"
    begun = f"rose step by step to {rate} over the {first}" if warmup else f"began at {rate}"
    if of["name"] == "one_cycle":
        lowest = f"{of['factor'] * f['recipe.optimizer.rate']:g}"
        return (
            f"The learning rate made one cycle (Smith & Topin 2019; Smith 2018): it rose in a line "
            f"from {lowest} to {rate} over the {first}, fell back in the same time, and then to 0."
        )
    ends = {
        "constant": "stayed there",
        "step": f"was multiplied by {of['factor']:g} after each of the epochs {milestones}",
        "cosine": "fell to 0 along half a cosine",
        "linear": "fell to 0 along a straight line",
        "cosine_restarts": "fell to 0 along half a cosine, with warm restarts (Loshchilov & Hutter "
        f"2017) after the epochs {milestones}",
    }
    if is_own(of["name"]):
        own = f"{rate} times the schedule {of['name']} (code of the authors' own)"
        return f"The learning rate {f'{begun}, and then was' if warmup else 'was'} {own}."
    ended = ends.get(of["name"], f"followed the schedule {of['name']}")
    return f"The learning rate {begun} and {ended}."
