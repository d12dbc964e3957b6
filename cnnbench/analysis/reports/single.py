"""The page of one run: what came out, how it got there, and what it was made of; from its folder alone."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from cnnbench.analysis.reports.curves import learning_rate, overlaid
from cnnbench.analysis.reports.learning import LOSS, Metric, course, principal
from cnnbench.analysis.reports.page import Drawing, Folded, Lines, Page, Picture, Section, Table
from cnnbench.config.compose import TYPED
from cnnbench.config.validate import recorded_config
from cnnbench.config.values import flat
from cnnbench.errors import UserError, grouped
from cnnbench.store.folder import RunFolder
from cnnbench.store.metrics import read_rows
from cnnbench.tasks.evaluation.chance import is_chance, wilson

TITLES = {
    "classes": "By class",
    "confusion": "Which class was taken for which",
    "calibration": "Is it right as often as it believes?",
    "mistakes": "The most certain mistakes: number in the split, class, answer, probability",
    "doubts": "The least certain hits",
    "reconstructions-test": "Test images, and what is made of their codes",
    "reconstructions-val": "The same of validation",
    "tsne": "Codes of test images in two dimensions",
}
TOLD = ("command", "started", "ended", "seconds", "machine", "threads", "versions", "git", "data", "init", "parent")


class Story:
    """What the folder of a run tells."""

    def __init__(self, folder: RunFolder) -> None:
        self.folder = folder
        self.record = folder.record()
        self.result = folder.result() if folder.is_completed else {}
        rows = list(read_rows(folder.metrics_file))
        self.epochs = pd.DataFrame([row for row in rows if row["row"] in ("epoch", "val")])
        self.steps = pd.DataFrame([row for row in rows if row["row"] == "step"])
        self.metrics = [name for name in self.result.get("test", {}) if name != "samples"]
        if not self.metrics:
            self.metrics = [str(name).removesuffix("/train") for name in self.epochs if str(name).endswith("/train")]
        self.metric = principal(self.metrics, self.epochs, self.result)
        self.higher = Metric.of(self.metric, self.result).higher

    @property
    def title(self) -> str:
        """Return what was trained on what."""
        choices = self.record.get("choices", {})
        told = f"{choices.get('model', 'a network')} on {choices.get('data', 'data')}"
        return f"{choices['experiment']}: {told}" if choices.get("experiment") else told

    def said(self) -> str:
        """Return the outcome in a sentence."""
        if not self.result:
            done = 0 if self.epochs.empty else int(self.epochs["epoch"].max())
            return f"Not finished: {self.record.get('status')} after {done} epochs."
        test, chosen = self.result["test"], self.result["checkpoint"]
        value, images = test.get(self.metric), test["samples"]
        if value is None:
            return f"{self.metric} of the test images is no number."
        said = f"{self.metric} {value:.4f} on {grouped(images)} test images"
        if self.metric == "accuracy":
            low, high = wilson(round(value * images), images)
            said += f" (95 % interval {low:.4f} to {high:.4f})"
        return f"{said}, with the weights of epoch {chosen['epoch']} of {self.result['epochs']}: {chosen['chosen']}."

    def sections(self) -> Iterator[Section]:
        """Yield what the page says, the answers first."""
        yield Lines("What it says", self._remarks())
        if self.result:
            splits = [split for split in ("train", "val", "test") if self.result.get(split)]
            results = [self.result[split] for split in splits]
            table = pd.DataFrame([{"images of": split} | found for split, found in zip(splits, results, strict=True)])
            table.insert(1, "images", table.pop("samples"))
            yield Table("Measured", table, marked=len(splits) - 1, is_brief=True)
            if self.result.get("references"):
                columns = ["metric", "split", "value", "ours", "source", "remark"]
                table = pd.DataFrame(self.result["references"])[columns].rename(columns={"value": "published"})
                yield Table("Published", table)
        best = self.result.get("checkpoint", {}).get("epoch", 0)
        for metric in dict.fromkeys((Metric(self.metric, self.higher), LOSS)):
            drawing = overlaid([("", self.epochs)], metric, best)
            if drawing is not None:
                yield Drawing(f"{metric.name} over epochs", drawing)
        rates = learning_rate(self.steps)
        if rates is not None:
            yield Drawing("Learning rate", rates)
        yield from self._evaluation()
        yield from self._pictures()
        yield from self._settings()

    def _remarks(self) -> list[str]:
        found = course(self.epochs, self.metric, self.higher).remarks(self.metric)
        train, val, test = (self.result.get(split, {}) for split in ("train", "val", "test"))
        if train.get(self.metric) is not None and test.get(self.metric) is not None:
            one, other = train[self.metric], test[self.metric]
            found.append(f"{self.metric} {one:.4f} on training images and {other:.4f} on test images")
        if self.metric == "accuracy" and None not in (val.get("accuracy"), test.get("accuracy")):
            alike = is_chance(val["accuracy"], val["samples"], test["accuracy"], test["samples"])
            found.append(
                f"validation {val['accuracy']:.4f} and test {test['accuracy']:.4f} "
                + ("differ by no more than chance" if alike else "differ by more than chance")
            )
        if self.result.get("test_measured", 1) > 1:
            found.append(
                f"the test images were measured {self.result['test_measured']} times in the course of this run"
            )
        departures = self.record.get("departures") or ()
        if departures:
            found.append(f"not as the experiment says: {', '.join(departures)}")
        return [*found, *self.result.get("notes", ())]

    def _evaluation(self) -> Iterator[Section]:
        """Yield what was found out about the checkpoint that was tested."""
        kind = "last" if str(self.result.get("checkpoint", {}).get("chosen", "")).startswith("last") else "best"
        folder = self.folder.evaluation("test", kind)
        if (folder / "classes.csv").is_file():
            classes = pd.read_csv(folder / "classes.csv", dtype={"class": str}, keep_default_na=False, na_values=[""])
            yield Table("Classes, the worst first", classes.sort_values(["top1", "class"]).round(4))
        for path in sorted(folder.glob("*.png"), key=lambda path: _place(path.stem)):
            yield Picture(TITLES.get(path.stem, path.stem), path.read_bytes())

    def _pictures(self) -> Iterator[Section]:
        """Yield the last picture of each kind that the task drew."""
        last: dict[str, Path] = {}
        for path in sorted((self.folder.path / "pictures").glob("*-epoch-*.png")):
            last[path.stem.rpartition("-epoch-")[0]] = path
        for name, path in last.items():
            yield Picture(f"{TITLES.get(name, name)}, epoch {int(path.stem.rpartition('-')[2])}", path.read_bytes())

    def _settings(self) -> Iterator[Section]:
        values, origins = flat(self.folder.config()), self.record.get("origins", {})
        try:
            telling = set(flat(recorded_config(self.folder).non_default_settings()))
        except UserError:  # made with a plugin, or by another version
            telling = set(values)
        kept = {key: value for key, value in values.items() if key in telling or origins.get(key) == TYPED}
        rows = [(key, _plain(value), origins.get(key, "")) for key, value in kept.items()]
        yield Table("Settings that count", pd.DataFrame(rows, columns=["setting", "value", "from"]))
        yield Folded("config.yaml: every setting", self.folder.config_file.read_text(encoding="utf-8"))
        facts = {key: self.record[key] for key in TOLD if self.record.get(key) is not None}
        yield Folded("run.json: where and with what", yaml.safe_dump(facts, sort_keys=False, allow_unicode=True))


def page_of(folder: RunFolder) -> Page:
    """Return the page of a run. Raises UserError for one whose files cannot be read."""
    story = Story(folder)
    return Page(f"cnnbench: {story.title}", story.said(), list(story.sections()))


def _place(name: str) -> int:
    names = list(TITLES)
    return names.index(name) if name in names else len(names)


def _plain(value: Any) -> str:
    if isinstance(value, Mapping):
        return "none"
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
