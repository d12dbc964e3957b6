"""Every kind of figure that explains a network: what `--what` names, and what is drawn for it."""

import re
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from html import escape
from io import BytesIO
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor

from cnnbench.analysis.checkpoints import Checkpoint
from cnnbench.analysis.explanation import sheets
from cnnbench.analysis.explanation.attribution import captum, gradcam, last_with_maps, saliency
from cnnbench.analysis.explanation.explainer import Explainer, explainer_of, label_of
from cnnbench.analysis.explanation.features import features_of
from cnnbench.analysis.explanation.layers import (
    Maps,
    NotPossible,
    convolutions,
    first_kernels,
    maps_of,
    maps_of_layer,
    spread,
)
from cnnbench.analysis.predict import files_in
from cnnbench.analysis.run import Run
from cnnbench.errors import UserError, counted, did_you_mean, grouped, listed
from cnnbench.tasks.charts import any_script, plain
from cnnbench.tasks.figures import tsne_scatter

DPI = 80  # of figures in a notebook


@dataclass(frozen=True)
class Picture:
    """A figure, the name of its file without suffix, and what it shows, in a line."""

    name: str
    line: str
    figure: Figure

    def _repr_png_(self) -> bytes:
        """Return what a notebook shows."""
        content = BytesIO()
        with any_script():
            self.figure.savefig(content, format="png", dpi=DPI, bbox_inches="tight")
        return content.getvalue()


@dataclass(frozen=True)
class Explanation(Sequence[Picture]):
    """The figures that explain a network. left_out: what could not be drawn, and why, one line each."""

    pictures: tuple[Picture, ...]
    left_out: tuple[str, ...] = ()

    def __getitem__(self, place: Any) -> Any:
        return self.pictures[place]

    def __len__(self) -> int:
        return len(self.pictures)

    def __repr__(self) -> str:
        return "\n".join(["Explanation:", *(f"  {picture.name}: {picture.line}" for picture in self.pictures)])

    def _repr_html_(self) -> str:
        """Return what a notebook shows: every figure under its name."""
        parts = [
            f"<figure><figcaption><code>{escape(picture.name)}</code>: {escape(picture.line)}</figcaption>"
            f'<img alt="" src="data:image/png;base64,{b64encode(picture._repr_png_()).decode()}"></figure>'
            for picture in self.pictures
        ]
        return "".join([*parts, *(f"<p>left out: {escape(line)}</p>" for line in self.left_out)])


def _draw_activations(explainer: Explainer) -> Iterator[Picture]:
    network, layer = explainer.network, explainer.layer
    layers = spread(convolutions(network, explainer.images[:1])) if layer is None else []
    for number in range(explainer.num_mapped):
        image = explainer.images[number : number + 1]
        all_maps = maps_of(network, image, layers) if layer is None else [maps_of_layer(network, image, layer)]
        for maps in all_maps:
            values, first, what = _chosen(maps, explainer.filter)
            title = f"{maps.layer} of {explainer.caption(number)}: {what}"
            figure = sheets.maps_sheet(values, explainer.pixels(image)[0], title, first)
            only = "" if explainer.filter is None else f"-{explainer.filter}"
            word = re.sub(r"[^A-Za-z0-9._=-]+", "-", maps.layer)
            yield Picture(f"activations-{word}{only}-{explainer.file_word(number)}", title, figure)


def not_drawn(explainer: Explainer) -> str:
    """Return which activations are drawn only on request; empty if there are none."""
    images = len(explainer.inputs) - explainer.num_mapped
    layers = 0
    if explainer.layer is None:
        names = convolutions(explainer.network, explainer.images[:1])
        layers = len(names) - len(spread(names))
    parts = [f"of {images} other images, which --index names"] if images else []
    parts += [f"of {layers} other convolutions, which --layer names"] if layers else []
    return "; ".join(parts)


def _chosen(maps: Maps, only: int | None) -> tuple[Tensor, int, str]:
    """Return the maps to draw, the number of the first, and what they are. Raises UserError for an unknown number."""
    total, height, width = maps.values.shape
    times = f", the last of {maps.uses} times that it is used" if maps.uses > 1 else ""
    if only is None:
        some = f"the first {sheets.MAX_TILES} of " if total > sheets.MAX_TILES else ""
        return maps.values[: sheets.MAX_TILES], 0, f"{some}{maps.size}{times}"
    if only >= total:
        raise UserError(f"--filter {only}: {maps.layer} has {maps.size}, counted from 0.")
    return maps.values[only : only + 1], only, f"map {only} of {total}, {height}x{width}{times}"


def _draw_kernels(explainer: Explainer) -> Iterator[Picture]:
    kernels = first_kernels(explainer.network, explainer.images[:1])
    most = sheets.MAX_TILES if kernels.is_colour else max(1, sheets.MAX_TILES // kernels.weights.shape[1])
    some = f"the first {most} of " if len(kernels.weights) > most else ""
    title = f"{kernels.layer}: {some}{kernels.size}"
    yield Picture("kernels", title, sheets.kernels_sheet(kernels.weights[:most], title))


def _draw_gradcam(explainer: Explainer) -> Iterator[Picture]:
    score, _ = explainer.score, captum()
    network, image = explainer.network, explainer.images[:1]
    layer = last_with_maps(network, image) if explainer.layer is None else explainer.layer
    maps = maps_of_layer(network, image, layer)
    if maps.values[0].numel() == 1:
        raise NotPossible(f"{layer} has maps of one pixel, which cannot show where")
    labels = _labels(explainer)
    heat = gradcam(score, network.get_submodule(layer), explainer.images, labels)
    line = f"Grad-CAM of {layer} ({maps.size})"
    title = f"{line}: evidence for the class, the brighter the more; each image on its own scale"
    captions = [
        caption if values.any() else f"{caption}: none"
        for caption, values in zip(_captions(explainer, labels), heat, strict=True)
    ]
    pixels = explainer.pixels(explainer.images)
    yield Picture("gradcam", line, sheets.pairs_sheet(pixels, heat, captions, title, is_overlaid=True))


def _draw_saliency(explainer: Explainer) -> Iterator[Picture]:
    score, _ = explainer.score, captum()
    labels = _labels(explainer)
    heat = saliency(score, explainer.images, labels)
    line = "saliency: how much each pixel changes the score of the class"
    title = f"{line} (largest |gradient| of its channels); each image on its own scale"
    pixels, captions = explainer.pixels(explainer.images), _captions(explainer, labels)
    yield Picture("saliency", line, sheets.pairs_sheet(pixels, heat, captions, title, is_overlaid=False))


def _labels(explainer: Explainer) -> Tensor:
    predicted = explainer.probabilities.argmax(1)
    return predicted if explainer.label is None else torch.full_like(predicted, explainer.label)


def _captions(explainer: Explainer, labels: Tensor) -> list[str]:
    probabilities = explainer.probabilities.gather(1, labels.unsqueeze(1))[:, 0].tolist()
    word = "predicted" if explainer.label is None else "for"
    return [
        f"{explainer.caption(number)}\n{word} {plain(explainer.run.classes[label])}, {probability:.2f}"
        for number, (label, probability) in enumerate(zip(labels.tolist(), probabilities, strict=True))
    ]


def _draw_tsne(explainer: Explainer) -> Iterator[Picture]:
    features = features_of(explainer.run, explainer.network, explainer.split, explainer.device)
    if not (features.values != features.values[:1]).any():
        raise NotPossible(f"the {features.source} are the same for all images")
    figure = tsne_scatter(features.values, features.labels, explainer.run.classes, seed=0)
    if figure is None:
        raise NotPossible(f"{explainer.split} has {counted(features.total, 'image')}, and t-SNE needs at least four")
    number, size = features.values.shape
    some = "" if features.total == number else f" of {grouped(features.total)}"
    line = f"t-SNE of {features.source} ({size} numbers), {number}{some} {explainer.split} images"
    figure.axes[0].set_title(line, fontsize=9, parse_math=False)
    yield Picture("tsne", line, figure)


KINDS: Mapping[str, Callable[[Explainer], Iterator[Picture]]] = {
    "activations": _draw_activations,
    "kernels": _draw_kernels,
    "gradcam": _draw_gradcam,
    "saliency": _draw_saliency,
    "tsne": _draw_tsne,
}


def explain_run(
    run: Run,
    images: str | Path | Sequence[str | Path] = (),
    what: str | Sequence[str] = (),
    split: str = "test",
    index: int | Sequence[int] | None = None,
    which: Checkpoint = "tested",
    layer: str | None = None,
    filter: int | None = None,
    label: str | None = None,
) -> Explanation:
    """Return figures of some kinds, by default all that are possible, of image files or of images of a split.

    images: files and folders. what: names of kinds, as text with commas between. index: of the split; None: the first
    image of each class. layer, filter, label: as `Explainer` has them, the label by its class. Raises UserError for
    unknown names, for images that cannot be used, and for a kind that is named and not possible.
    """
    files = files_in(images, "split and index choose images of the run")
    what = [kind.strip() for kind in what.split(",")] if isinstance(what, str) else what
    for kind in what:
        if kind not in KINDS:
            raise UserError(f"'{kind}' is not drawn{did_you_mean(kind, list(KINDS))}; there are {listed(KINDS)}.")
    rows = [index] if isinstance(index, int) else index
    explainer, unusable = explainer_of(run, run.resolve(which), files, split, rows)
    if unusable:
        raise UserError("\n".join(["images that cannot be used:", *(f"  {problem}" for problem in unusable)]))
    number = None if label is None else label_of(label, run.classes)
    explainer = replace(explainer, layer=layer, filter=filter, label=number)
    pictures: list[Picture] = []
    left_out = []
    for kind, draw in KINDS.items():
        if what and kind not in what:
            continue
        try:
            pictures += draw(explainer)
        except NotPossible as error:
            if what:
                raise UserError(f"{kind}: {error}; without `what`, all that is possible is drawn.") from error
            left_out.append(f"{kind}: {error}")
    return Explanation(tuple(pictures), tuple(left_out))
