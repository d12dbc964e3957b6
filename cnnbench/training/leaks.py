"""Images of a run: those that changed since, and leaks, which are tested and were trained on with initial weights."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cnnbench.config.run_config import RunConfig, has_no_effect_on_result
from cnnbench.config.schema import DataConfig
from cnnbench.config.values import as_text
from cnnbench.data.copies import packed, unpacked
from cnnbench.data.prepare import PreparedData, prepare
from cnnbench.errors import SettingError, UserError, counted, grouped, listed
from cnnbench.registry import DATASETS
from cnnbench.store.folder import RunFolder

NAMED = 4  # settings in a message


def _none() -> Tensor:
    return torch.empty(0, dtype=torch.int64)


@dataclass(frozen=True)
class Seen:
    """Hashes of the images that weights have seen, int64, in their run and in those that it was initialised with.

    trained: in training. validated: in validation, by which an epoch was chosen. unknown: which of these runs did not
    record its images.
    """

    trained: Tensor = field(default_factory=_none)
    validated: Tensor = field(default_factory=_none)
    unknown: tuple[str, ...] = ()


def seen_by(folder: RunFolder) -> Seen:
    """Return what a run has seen."""
    try:
        split = folder.split()
    except UserError:
        split = {}
    hashes = {name: unpacked(text) for name, text in split.get("hashes", {}).items()}
    if "train" not in hashes:
        return Seen(unknown=(folder.shown_path,))
    trained, validated = (torch.cat([hashes[name], hashes.get(f"{name}_before", _none())]) for name in ("train", "val"))
    return Seen(trained, validated, tuple(split.get("unknown_before", ())))


def prepare_unchanged(folder: RunFolder, config: DataConfig) -> PreparedData:
    """Return the data of a run. Raises UserError where they or their split changed since it was trained.

    This is asked first: settings that were adapted to the data may not fit what they are now.
    """
    data, record, what = prepare(config), folder.record(), ""
    if data.fingerprint != record["data"]["fingerprint"]:
        what = f"the data changed since the training{changed_images(folder, data)}"
    elif data.split.hash() != record["split"]:
        what = "the split changed since the training"
    if what:
        raise UserError(f"{folder.path}: {what}; results would not be comparable.")
    return data


def changed_images(folder: RunFolder, data: PreparedData) -> str:
    """Return in brackets how images differ from those of a run, where they have files, or where a plugin draws them."""
    if DATASETS[folder.run_config().data.name].is_from_plugin:
        return " (a function that draws images at random needs a seed: torch.Generator().manual_seed(0))"
    split, now = folder.split(), data.files()
    if not (now and "files" in split and "hashes" in split):
        return ""
    recorded: dict[str, int] = dict.fromkeys(split["files"]["test"], 0)  # whose hashes are not recorded
    for name in ("train", "val"):
        recorded |= zip(split["files"][name], unpacked(split["hashes"][name]).tolist(), strict=True)
    found = {file: number for name in now for file, number in zip(now[name], data.hashes[name].tolist(), strict=True)}
    kinds = {
        "gone": sorted(recorded.keys() - found.keys()),
        "new": sorted(found.keys() - recorded.keys()),
        "changed": sorted(file for file in recorded.keys() & found.keys() if recorded[file] not in (0, found[file])),
    }
    said = [f"{counted(len(some), 'file')} {kind}: {listed(some[:NAMED])}" for kind, some in kinds.items() if some]
    return f" ({'; '.join(said) or 'test images, or the names of classes'})"


def seen_before(config: RunConfig, parent: Path | None) -> Seen:
    """Return what the weights have seen that a run begins with. parent: folder of the run that it continues."""
    if parent is not None:
        return seen_by(RunFolder(parent))
    if config.init.run is not None:
        return seen_by(RunFolder(Path(config.init.run)))
    return Seen(unknown=(f"init.file={config.init.file}",)) if config.init.file is not None else Seen()


def record_of(before: Seen, data: PreparedData) -> tuple[dict[str, str], list[str]]:
    """Return what `split.json` has of what initial weights have seen: hashes by name, and runs without a record.

    Images of the same split of the run itself are left out.
    """
    seen = {"train": before.trained, "val": before.validated}
    others = {name: hashes[~torch.isin(hashes, data.hashes[name])] for name, hashes in seen.items()}
    return {f"{name}_before": packed(some) for name, some in others.items() if len(some)}, list(before.unknown)


def check_leaks(config: RunConfig, data: PreparedData, source: RunFolder | None) -> tuple[dict[str, Any], list[str]]:
    """Return what is recorded of images that initial weights have seen, and notes on them.

    source: the run of the weights; None: they are of a file. Images that the data set has in both parts do not count.
    Raises SettingError where the weights were trained on test images, unless `init.accept_leaks` is set.
    """
    seen = seen_before(config, None)
    if source is not None and source.shown_path in seen.unknown and _tests_the_same(source, data):
        seen = Seen()
    test, val = data.hashes["test"][~data.copied], data.hashes["val"]
    trained, validated, val_trained = (
        int(torch.isin(*some).sum()) for some in ((test, seen.trained), (test, seen.validated), (val, seen.trained))
    )
    of_test = f"{grouped(trained)} of the {grouped(len(data.test))} test images of this run"
    if trained and not config.init.accept_leaks:
        raise SettingError(
            f"init.run={config.init.run}",
            f"these weights were trained on {of_test}, which would test nothing{_differing(config, source)}; cut the "
            "same test part, or take other weights; init.accept_leaks=true trains all the same, and records it",
        )
    notes = []
    if trained:
        notes.append(f"init.accept_leaks=true: the initial weights were trained on {of_test}: its result is no test")
    if validated:
        chosen = f"{grouped(validated)} of the {grouped(len(data.test))} test images of this run"
        notes.append(f"init: the initial weights were chosen by {chosen}, which validated them")
    if val_trained:
        of_val = f"{grouped(val_trained)} of the {grouped(len(val))} validation images of this run"
        notes.append(f"init: the initial weights were trained on {of_val}: it will look better than it is")
    if seen.unknown:
        which = f"init: which images {listed(seen.unknown)} was trained on is not recorded"
        notes.append(f"{which}; whether test images of this run are among them cannot be checked")
    counts = {"trained": trained, "validated": validated}
    return ({"test_images_seen": counts} if any(counts.values()) else {}), notes


def _tests_the_same(source: RunFolder, data: PreparedData) -> bool:
    """Return whether a run whose images are not recorded has the same test part, and began with random weights."""
    record = source.record()
    return record.get("data", {}).get("fingerprint") == data.fingerprint and not record.get("init")


def _differing(config: RunConfig, source: RunFolder | None) -> str:
    """Return in which settings the test part of a run differs from that of the source, in words."""
    there, here = ({} if source is None else source.config()["data"]), config.to_dict()["data"]
    pairs = {name: (here[name], there.get(name)) for name in ("name", *config.data.settings)}
    for name in ("classes", "test_per_class"):
        pairs[f"subset.{name}"] = here["subset"][name], there.get("subset", {}).get(name)
    words = [
        f"; data.{name} is {as_text(own)}, and {as_text(theirs)} there"
        for name, (own, theirs) in pairs.items()
        if own != theirs and not has_no_effect_on_result(f"data.{name}")
    ]
    return "".join(words[:NAMED])
