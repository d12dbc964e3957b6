"""Every kind of picture that explains a network: what is asked for, and what comes of it."""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import torch
from matplotlib.figure import Figure
from torch import Tensor

from cnnbench.analysis.evaluate import evaluate_run
from cnnbench.analysis.explanation import sheets
from cnnbench.analysis.explanation.activations import Maps, convolutions, maps_of, maps_of_layer, spread
from cnnbench.analysis.explanation.attribution import captum, gradcam, last_with_maps, saliency
from cnnbench.analysis.explanation.features import features_of
from cnnbench.analysis.explanation.kernels import first_kernels
from cnnbench.analysis.explanation.looks import augmented_views
from cnnbench.analysis.explanation.subject import NotPossible, Subject
from cnnbench.errors import UserError, grouped
from cnnbench.tasks.figures import plain, tsne_scatter

GALLERIES = {"mistakes": "the most certain mistakes", "doubts": "the least certain hits"}


@dataclass(frozen=True)
class Request:
    """What is wanted of a subject. images: of how many maps are shown. layer, filter, label: None: no certain one."""

    subject: Subject
    images: int
    layer: str | None = None
    filter: int | None = None
    label: int | None = None


@dataclass(frozen=True)
class Picture:
    """A picture, the name of its file without ending, and what it shows, in a line."""

    name: str
    line: str
    figure: Figure


def activations(request: Request) -> Iterator[Picture]:
    """Yield the maps of convolutional layers, or of the layer that is named, for each image."""
    subject = request.subject
    layers = spread(convolutions(subject)) if request.layer is None else [request.layer]
    for number in range(request.images):
        image = subject.images[number : number + 1]
        if request.layer is None:
            found = maps_of(subject.network, image, layers)
        else:
            found = [maps_of_layer(subject, request.layer, number)]
        for maps in found:
            values, first, what = _shown(maps, request.filter)
            title = f"{maps.layer} of {subject.caption(number)}: {what}"
            figure = sheets.maps_sheet(values, subject.pixels(image)[0], title, first)
            only = "" if request.filter is None else f"-{request.filter}"
            layer = re.sub(r"[^A-Za-z0-9._=-]+", "-", maps.layer)
            yield Picture(f"activations-{layer}{only}-{subject.word(number)}", title, figure)


def not_shown(request: Request) -> str:
    """Return what of the activations is not shown unless it is asked for; nothing where all is."""
    images = len(request.subject.asked) - request.images
    layers = 0
    if request.layer is None:
        found = convolutions(request.subject)
        layers = len(found) - len(spread(found))
    told = [f"of {images} other images, which --index names"] if images else []
    told += [f"of {layers} other convolutions, which --layer names"] if layers else []
    return "; ".join(told)


def _shown(maps: Maps, only: int | None) -> tuple[Tensor, int, str]:
    """Return the maps to draw, the number of the first, and what they are. Raises UserError for one there is not."""
    total, height, width = maps.values.shape
    times = f", the last of {maps.uses} times that it is used" if maps.uses > 1 else ""
    if only is None:
        some = f"the first {sheets.MOST_TILES} of " if total > sheets.MOST_TILES else ""
        return maps.values[: sheets.MOST_TILES], 0, f"{some}{maps.size}{times}"
    if only >= total:
        raise UserError(f"--filter {only}: {maps.layer} has {maps.size}, counted from 0.")
    return maps.values[only : only + 1], only, f"map {only} of {total}, {height}x{width}{times}"


def kernels(request: Request) -> Iterator[Picture]:
    """Yield the weights of the first layer."""
    found = first_kernels(request.subject)
    most = sheets.MOST_TILES if found.in_colour else max(1, sheets.MOST_TILES // found.weights.shape[1])
    some = f"the first {most} of " if len(found.weights) > most else ""
    title = f"{found.layer}: {some}{found.size}"
    yield Picture("kernels", title, sheets.kernels_sheet(found.weights[:most], title))


def grad_cam(request: Request) -> Iterator[Picture]:
    """Yield where the maps of a layer speak for the class, over each image."""
    subject = request.subject
    score, _ = subject.score, captum()
    layer = last_with_maps(subject) if request.layer is None else request.layer
    maps = maps_of_layer(subject, layer)
    if maps.values[0].numel() == 1:
        raise NotPossible(f"{layer} has maps of one pixel, which say nothing of where")
    labels = _labels(request)
    found = gradcam(score, subject.network.get_submodule(layer), subject.images, labels)
    line = f"Grad-CAM of {layer} ({maps.size})"
    title = f"{line}: what speaks for the class, the brighter the more; each image on its own scale"
    captions = [
        caption if share.any() else f"{caption}: nothing"
        for caption, share in zip(_captions(request, labels), found, strict=True)
    ]
    yield Picture("gradcam", line, sheets.pairs_sheet(subject.pixels(subject.images), found, captions, title, True))


def salient(request: Request) -> Iterator[Picture]:
    """Yield how much each pixel of each image changes the score of the class."""
    subject = request.subject
    score, _ = subject.score, captum()
    labels = _labels(request)
    found = saliency(score, subject.images, labels)
    line = "saliency: how much each pixel changes the score of the class"
    title = f"{line} (largest |gradient| of its channels); each image on its own scale"
    pixels = subject.pixels(subject.images)
    yield Picture("saliency", line, sheets.pairs_sheet(pixels, found, _captions(request, labels), title, False))


def _labels(request: Request) -> Tensor:
    """Return the class to explain for each image, int64 [N]: the one that was asked for, or the network's answer."""
    answers = request.subject.probabilities.argmax(1)
    return answers if request.label is None else torch.full_like(answers, request.label)


def _captions(request: Request, labels: Tensor) -> list[str]:
    subject = request.subject
    chosen = subject.probabilities.gather(1, labels.unsqueeze(1))[:, 0].tolist()
    word = "answer" if request.label is None else "for"
    return [
        f"{subject.caption(number)}\n{word} {plain(subject.run.classes[label])}, {probability:.2f}"
        for number, (label, probability) in enumerate(zip(labels.tolist(), chosen, strict=True))
    ]


def gallery(request: Request) -> Iterator[Picture]:
    """Yield the most certain mistakes and the least certain hits of a split."""
    subject = request.subject
    _ = subject.score  # of a task that tells classes; others would draw pictures of their own
    try:
        figures = evaluate_run(subject.run, subject.split, subject.which).figures
    except UserError as error:  # the data are not there, or are no longer those of the run
        raise NotPossible(str(error).splitlines()[0].removesuffix(".")) from error
    for name, line in GALLERIES.items():
        if name in figures:
            yield Picture(name, f"{line} of {subject.split}", figures[name]())


def tsne(request: Request) -> Iterator[Picture]:
    """Yield what the last layer sees of many images, in two dimensions."""
    subject = request.subject
    found = features_of(subject)
    if not (found.values != found.values[:1]).any():
        raise NotPossible(f"{found.what} is the same in all images")
    figure = tsne_scatter(found.values, found.labels, subject.run.classes, seed=0)
    if figure is None:
        raise NotPossible(f"{subject.split} has {found.total} images, and t-SNE takes four at least")
    some = "" if found.total == len(found.values) else f" of {grouped(found.total)}"
    line = f"t-SNE of {found.what}: {found.values.shape[1]} numbers of {len(found.values)}{some} {subject.split} images"
    figure.axes[0].set_title(line, fontsize=9, parse_math=False)
    yield Picture("tsne", line, figure)


def augmentation(request: Request) -> Iterator[Picture]:
    """Yield looks at the first image after the augmentation of the run."""
    subject = request.subject
    looks, parts, blending = augmented_views(subject)
    title = f"0: {subject.caption(0)}; 1 to {len(looks)}: looks at it by {', '.join(parts)}"
    if subject.row is not None:
        title = f"{title}, in these epochs"
    if blending:
        title = f"{title}; without {' and '.join(blending)}, which takes a second image"
    image = subject.pixels(subject.images[:1])[0]
    yield Picture("augmentation", title, sheets.looks_sheet(image, subject.pixels(looks), title))


PICTURES: Mapping[str, Callable[[Request], Iterator[Picture]]] = {
    "activations": activations,
    "kernels": kernels,
    "gradcam": grad_cam,
    "saliency": salient,
    "gallery": gallery,
    "tsne": tsne,
    "augmentation": augmentation,
}


def pictures(request: Request, what: str, is_asked_for: bool) -> Iterator[Picture]:
    """Yield the pictures of one kind. Raises NotPossible, or UserError where the kind was asked for by its name."""
    try:
        yield from PICTURES[what](request)
    except NotPossible as error:
        if is_asked_for:
            raise UserError(f"--what {what}: {error}.") from error
        raise
