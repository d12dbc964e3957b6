"""From a data configuration to images that are ready to be batched."""

import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor

from cnnbench.config.schema import DataConfig
from cnnbench.data.cache import decode_photographs
from cnnbench.data.checks import copy_notes, depth_notes, divided_folder_notes, exclude_unusable, look_alike_notes
from cnnbench.data.copies import (
    contents_of,
    has_test_copies,
    hashes_of,
    in_test_part,
    photographs_of,
    with_test_drawn_again,
    without_test_copies,
)
from cnnbench.data.files import data_root, source_of
from cnnbench.data.images import DataSpec, ImageData, Images, Photographs, Pixels, Stream, counts_per_class
from cnnbench.data.split import Split, add_label_noise, class_weights, k_fold, select_subset, split_by, stratified_split
from cnnbench.data.statistics import statistics_of
from cnnbench.errors import Explained, SettingError, UserError, grouped, listed, quoted, raised_at
from cnnbench.registry import DATASETS, Selection

MAX_IN_MEMORY = 2**30  # bytes of a split; a larger one is resized batch by batch
MAX_COPIED = 2**28  # bytes of a split; a larger one is not copied out of its data set, but batch by batch

PROPORTIONAL_CROP = 0.875  # 28 of 32 pixels, or 224 of 256, as the presets have it


@dataclass(frozen=True)
class PreparedData:
    """The three splits, and everything that is known about them.

    split: rows of the training part as it was read, also where a subset of it was selected.
    mean, std: per channel, of the training images (pixels scaled to [0, 1]), unless data.statistics says otherwise.
    fingerprint: of the data set as it was read, before it was split or resized. notes: for the user.
    source_rows: rows of the images of each split in the source. hashes: of these images, int64. copied: which test
    images the data set has in its training part too, bool. wrong: which training images, int64, have a wrong label on
    purpose. draws_test: see `ImageData`.
    """

    spec: DataSpec
    train: Images
    val: Images
    test: Images
    split: Split
    mean: tuple[float, ...]
    std: tuple[float, ...]
    fingerprint: str
    notes: tuple[str, ...] = ()
    source_rows: Mapping[str, Tensor] = field(default_factory=dict)
    hashes: Mapping[str, Tensor] = field(default_factory=dict)
    copied: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.bool))
    wrong: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.int64))
    draws_test: bool = False

    def files(self) -> dict[str, list[str]]:
        """Return the files of each split, in its order, below the folder that holds them all; empty: there are none."""
        files = {split: getattr(self, split).files() or () for split in ("train", "val", "test")}
        folders = {os.path.dirname(file) for some in files.values() for file in some}
        if not folders:
            return {}
        above = os.path.commonpath(folders)
        return {split: [os.path.relpath(file, above) for file in some] for split, some in files.items()}


@lru_cache(maxsize=1)  # the jobs of a sweep mostly share one data set, and are all checked before the first starts
def _load(name: str, settings: str, root: Path) -> tuple[ImageData, str]:
    """settings: as JSON, which can be a key where a list is among them."""
    component = DATASETS[name]
    try:
        data: ImageData = DATASETS.build(Selection(name, json.loads(settings)), root=root)
    except Exception as error:
        if isinstance(error, Explained) or not component.is_from_plugin:
            raise
        at = raised_at(error, component.file)
        raise UserError(f"{component} cannot be read: {at}{quoted(error)}.") from error
    return replace(data, hashes=hashes_of(data)), data.fingerprint()


def read_anew() -> None:
    """Let data be read again: they may have changed since this process read them, as in a notebook."""
    _load.cache_clear()


def root_of(config: DataConfig) -> Path:
    """Return the folder that a data set is looked for in: for photographs the current one, where they are in it."""
    photographs = DATASETS[config.name].facts.get("photographs")
    root = data_root(config.root)
    return folder_root(config.settings["folder"], root) if photographs else root


def folder_root(folder: str, root: Path) -> Path:
    """Return what a folder of photographs is relative to: the current one, where it is in it, else that of all sets."""
    path = Path(folder).expanduser()
    return Path.cwd() if not path.is_absolute() and path.is_dir() else root


def prepare(config: DataConfig) -> PreparedData:
    """Read a data set, select a subset of it, split, resize and measure it.

    Raises UserError for files that are missing or wrong, and SettingError for an impossible subset, split or crop.
    """
    whole, fingerprint = _load(config.name, json.dumps(dict(config.settings)), root_of(config))
    if not len(whole.train):
        raise UserError(f"{DATASETS[config.name]} returns no image to train on; it looks in {root_of(config)}.")
    data, rows = select_subset(whole, config.subset, config.split_seed)
    has_photographs = isinstance(data.train.pixels, Photographs)
    if has_photographs and whole.draws_test and has_test_copies(data):
        whole = with_test_drawn_again(whole)
        fingerprint = whole.fingerprint()
        data, rows = select_subset(whole, config.subset, config.split_seed)
    split, notes = _split(config, data)
    if has_photographs:
        data, split, decoding_notes = _decode(data, split, config)
        notes = (*notes, *decoding_notes)
    train, val = (_adapted(data.train, rows, config) for rows in (split.train, split.val))
    test = _adapted(data.test, torch.arange(len(data.test)), config)
    channels, height, width = train.size
    if len(test) and test.size != train.size:
        shown = [" x ".join(map(str, part.size)) for part in (test, train)]
        raise UserError(
            f"the data set's test images have {shown[0]} pixels, the others {shown[1]}; set data.image_size."
        )
    crop = crop_size(height, width, config.crop)
    mean, std = statistics_of(train, config.statistics)
    labels, num_wrong = add_label_noise(train.labels, len(data.classes), config.label_noise, config.noise_seed)
    if num_wrong:
        note = f"label_noise: {grouped(num_wrong)} of {grouped(len(labels))} training labels are wrong on purpose"
        notes = (*notes, note)
    counts = tuple(counts_per_class(labels, len(data.classes)))
    class_weights(config.sampling, counts)  # refused here, before anything starts, if they do not fit the classes
    source_rows, hashes = (_by_split(split, parts) for parts in (data.source_rows, hashes_of(data)))
    return PreparedData(
        DataSpec(channels, *crop, data.classes, counts), Images(train.pixels, labels), val, test,
        Split(rows[split.train], rows[split.val]), mean, std, fingerprint, notes, source_rows, hashes,
        copied=torch.isin(hashes["test"], hashes_of(whole)[0]), wrong=(labels != train.labels).nonzero()[:, 0],
        draws_test=whole.draws_test,
    )  # fmt: skip


def prepare_to_measure(config: DataConfig) -> PreparedData:
    """Read images that a network is measured on: the test part of a data set, or all images where it has none.

    Nothing is for training: images are not normalised, and there may be one class. Raises as `prepare` does.
    """
    is_drawn = DATASETS[config.name].facts.get("photographs")
    settings = dict(config.settings) | ({"test_fraction": 0.0} if is_drawn else {})
    data, fingerprint = _load(config.name, json.dumps(settings), root_of(config))
    data, _ = select_subset(in_test_part(data, config.name), config.subset, config.split_seed)
    copied = torch.isin(hashes_of(data)[1], hashes_of(data)[0])
    nothing = torch.arange(0)
    data, split, notes = replace(data, train=data.train[nothing], is_val=None), Split(nothing, nothing), data.notes
    if isinstance(data.train.pixels, Photographs):
        data, split, more_notes = _decode(data, split, config)
        notes = (*notes, *more_notes)
    test = _adapted(data.test, torch.arange(len(data.test)), config)
    channels, height, width = test.size
    counts = tuple(counts_per_class(test.labels, len(data.classes)))
    return PreparedData(
        spec=DataSpec(channels, *crop_size(height, width, config.crop), data.classes, counts),
        train=test[nothing], val=test[nothing], test=test, split=split,
        source_rows=_by_split(split, data.source_rows), hashes=_by_split(split, hashes_of(data)), copied=copied,
        mean=(0.0,) * channels, std=(1.0,) * channels, fingerprint=fingerprint, notes=notes,
    )  # fmt: skip


def prepare_local(config: DataConfig) -> PreparedData:
    """Prepare a data set without downloading it. Raises UserError where files are missing, or as `prepare` does."""
    root, source = root_of(config), source_of(config.name)
    missing = [] if source is None else source.missing(root)
    if source is not None and missing:
        raise UserError(
            f"{source.title} is not in {root / source.folder}: missing are {', '.join(missing)}.\n"
            f"  to import it: cnnbench data prepare {config.name} --from FOLDER; or let a training download it\n"
            f"  another folder: data.root=FOLDER, or the environment variable CNNBENCH_DATA"
        )
    return prepare(config)


def _split(config: DataConfig, data: ImageData) -> tuple[Split, tuple[str, ...]]:
    """Return the split, which is the data set's own where it has one, and the data set's notes."""
    labels, num_classes, seed = data.train.labels, len(data.classes), config.split_seed
    if data.is_val is not None and config.val_fraction and config.folds is None:
        if not data.is_val.any():
            problem = "leaves no image of the data set's own validation part; data.val_fraction=0 trains without one"
            raise SettingError("data.subset", problem)
        note = "the data set has its own validation part; data.val_fraction is ignored"
        return split_by(data.is_val), (*data.notes, note)
    pixels = data.train.pixels
    skips = isinstance(pixels, Photographs) and pixels.skip  # copies of what is evaluated are left out of training
    copies = contents_of(pixels) if isinstance(pixels, Photographs) and not skips else None
    if config.folds is not None:
        assert config.fold is not None
        split = k_fold(labels, num_classes, config.folds, config.fold, seed, copies)
    else:
        split = stratified_split(labels, num_classes, config.val_fraction, seed, copies=copies)
    return without_test_copies(split, data) if skips else split, data.notes


def _by_split(split: Split, parts: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
    """Return something of both parts of a data set, for each of the three splits."""
    train, test = parts
    return {"train": train[split.train], "val": train[split.val], "test": test}


def _decode(data: ImageData, split: Split, config: DataConfig) -> tuple[ImageData, Split, tuple[str, ...]]:
    """Return the data set with its photographs decoded, and the split without those that cannot be used."""
    (train, test), labels = photographs_of(data), data.train.labels
    if config.image_size is None:
        problem = "photographs differ in size; give the side to resize them to, such as 256"
        raise SettingError("data.image_size=null", problem)
    photographs = replace(train + test, bits=config.bits)
    stream, problems, notes = decode_photographs(
        photographs, config.image_size, config.channels or 3, config.interpolation
    )
    usable, more_notes = exclude_unusable(photographs, problems, split, len(train))
    lost = set(labels[split.train].tolist()) - set(labels[usable.train].tolist())
    if lost:
        names = listed(data.classes[number] for number in sorted(lost))
        raise SettingError("data.on_problem=skip", f"leaves no image to train on of {names}")
    first, last = torch.arange(len(photographs)).tensor_split([len(train)])
    parts = {"train": usable.train.tolist(), "validation": usable.val.tolist(), "test": last.tolist()}
    used, every_label = [row for rows in parts.values() for row in rows], torch.cat([labels, data.test.labels])
    copies = copy_notes(photographs, every_label, used)
    alike = look_alike_notes(photographs, every_label, parts, stream)
    depths = depth_notes(photographs, stream, used)
    divided = divided_folder_notes(photographs, data.classes, every_label, parts)
    data = replace(data, train=Images(stream[first], labels), test=Images(stream[last], data.test.labels))
    return data, usable, (*notes, *more_notes, *copies, *alike, *depths, *divided)


def _adapted(images: Images, rows: Tensor, config: DataConfig) -> Images:
    pixels = adapt(images.pixels, rows, config.image_size, config.channels, config.interpolation)
    return Images(pixels, images.labels[rows])


def adapt(
    pixels: Pixels, rows: Tensor, image_size: int | None, channels: int | None, interpolation: str = "bilinear"
) -> Pixels:
    """Return images resized and converted, channels last; batch by batch on demand where all need too much memory.

    pixels: uint8 [N, C, H, W], or a stream, which decoding has converted. rows: of which images, int64.
    """
    if not isinstance(pixels, Tensor):
        return pixels[rows]
    _, given, height, width = pixels.shape
    size = (channels or given, image_size or height, image_size or width)
    is_given = size == (given, height, width)

    def load(rows: Tensor) -> Tensor:
        return channels_last(resize_and_convert(pixels[rows], image_size, channels, interpolation))

    fits = len(rows) * math.prod(size) <= (MAX_COPIED if is_given else MAX_IN_MEMORY)
    return load(rows) if fits else Stream(load, rows, size, is_in_memory=is_given)


def resize_and_convert(
    pixels: Tensor, image_size: int | None, channels: int | None, interpolation: str = "bilinear"
) -> Tensor:
    """Resize images to a square of `image_size` and convert them to `channels`; None leaves either as it is.

    pixels: uint8 [N, C, H, W]. interpolation: `bilinear` or `bicubic`, with antialiasing. One channel is repeated to
    three, three become one by luminance (ITU-R BT.601). Returns uint8, rounded.
    """
    if channels == 1 and pixels.shape[1] == 3:
        weights = torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)
        pixels = (pixels * weights).sum(1, keepdim=True).round_().to(torch.uint8)
    if image_size is not None and tuple(pixels.shape[2:]) != (image_size, image_size) and len(pixels):
        size = (image_size, image_size)
        resized = [
            torch.nn.functional.interpolate(part.float(), size, mode=interpolation, antialias=True)
            .round_()
            .clamp_(0, 255)
            for part in torch.split(pixels, 1024)  # as float, a chunk at a time
        ]
        pixels = torch.cat([part.to(torch.uint8) for part in resized])
    return pixels.expand(-1, 3, -1, -1) if channels == 3 and pixels.shape[1] == 1 else pixels


def channels_last(pixels: Tensor) -> Tensor:
    """Return images that lie in memory as batches need them, which takes half of the time of `to`, or a tenth."""
    if pixels.is_contiguous(memory_format=torch.channels_last):
        return pixels
    result = torch.empty_like(pixels, memory_format=torch.channels_last)
    for channel in range(pixels.shape[1]):
        result[:, channel] = pixels[:, channel]
    return result


def crop_size(height: int, width: int, crop: float | None) -> tuple[int, int]:
    """Return height and width of the crop that a network sees; a fraction is rounded down to whole pixels."""
    if crop is None:
        return height, width
    if isinstance(crop, float):
        return max(1, int(height * crop + 1e-9)), max(1, int(width * crop + 1e-9))
    if crop > min(height, width):
        problem = f"is larger than the images, which have {height}x{width} pixels"
        raise SettingError(f"data.crop={crop}", problem, {"data.crop": PROPORTIONAL_CROP})
    return int(crop), int(crop)


def require_images(split: str, data: PreparedData, name: str) -> None:
    """Raise UserError where data have no images of a split, with the splits that have some. name: of the data."""
    having = [one for one in ("train", "val", "test") if len(getattr(data, one))]
    if split not in having:
        raise UserError(f"{name}: there are no {split} images; choose another split: {listed(having)}.")
