"""The page of one run: its result, how its training went, its evaluation, its settings; from the run folder alone."""

import math
from collections.abc import Iterator, Mapping
from pathlib import Path

import pandas as pd
import yaml

from cnnbench.analysis.reports.curves import metric_curves, step_curves
from cnnbench.analysis.reports.evaluated import FEW_CLASSES, GALLERIES, evaluation, metrics_of, picture, trained
from cnnbench.analysis.reports.facts import NAMES, PUBLISHED_NOTE, facts_of, meaning, published
from cnnbench.analysis.reports.groups import some
from cnnbench.analysis.reports.learning import LOSS, Fitted, Metric, course, epoch_rows, principal
from cnnbench.analysis.reports.page import Facts, Folded, Lines, Page, Section, Table, Thumbnail
from cnnbench.config.values import TYPED, as_text, flat
from cnnbench.errors import UserError, counted, duration, grouped, one_line
from cnnbench.registry import TASKS
from cnnbench.store.files import RowCount, as_json, read_rows
from cnnbench.store.folder import RunFolder
from cnnbench.store.provenance import randomness
from cnnbench.store.query import RunSummary
from cnnbench.store.tables import read_own_csv
from cnnbench.tasks.gallery import read_gallery
from cnnbench.tasks.intervals import ROUNDING, is_chance, wilson

FACTS = (
    "command", "started", "ended", "seconds", "machine", "threads", "versions", "memory", "git", "data", "init",
    "parent",
)  # fmt: skip
EXPLAINED = {
    "gradcam": "Grad-CAM: where there is evidence for the prediction", "kernels": "Kernels, on one scale",
    "saliency": "Saliency: which pixels change the prediction", "tsne": "Features in two dimensions (t-SNE)",
}  # fmt: skip
FILES = ("config.yaml", "run.json", "result.json", "metrics.jsonl", "split.json")


class RunReport:
    """The report of a run, finished or not."""

    def __init__(self, folder: RunFolder) -> None:
        self.run = RunSummary(folder.path)
        self.folder, self.record, self.result = folder, self.run.record, self.run.result
        self.task = self.run.config["task"]["name"]
        self.trivial = ["top5"] * (len(self.record.get("data", {}).get("classes", ())) <= FEW_CLASSES)
        self.epochs = epoch_rows(self.run)
        self.split = next((split for split in ("test", "val", "train") if self.result.get(split)), "test")
        names = [name for name in self.result.get(self.split, {}) if name != "samples"]
        names = names or [str(name).removesuffix("/train") for name in self.epochs if str(name).endswith("/train")]
        self.metric = Metric.of(principal(names, self.epochs, self.result), self.result)

    @property
    def figure_titles(self) -> Mapping[str, str]:
        """Return the titles of the figures that the task draws, by name, in the order in which they are shown."""
        return getattr(TASKS[self.task].factory, "figure_titles", {}) if self.task in TASKS else {}

    def title(self) -> str:
        """Return the model and the data as a title."""
        options = self.record.get("choices", {})
        trained = f"{options.get('model', 'a network')} on {options.get('data', 'data')}"
        return f"{trained} ({options['experiment']})" if options.get("experiment") else trained

    def summary(self) -> str:
        """Return the outcome in a sentence."""
        if not self.result:
            done = 0 if self.epochs.empty else int(self.epochs["epoch"].max())
            return f"Not finished: {self.record.get('status')} after {counted(done, 'epoch')}."
        name, checkpoint = self.metric.name, self.result["checkpoint"]
        value, images = self.result[self.split].get(name), self.result[self.split]["samples"]
        if value is None:
            return f"{name} on the {NAMES[self.split]} images is not a number."
        what = meaning(name, self.task) if name == "loss" else ""
        over = "among" if self.metric.grows_with_images else "on"
        measured = (
            f"{name} {value:.4f}{f' ({what})' * bool(what)} {over} {counted(images, f'{NAMES[self.split]} image')}"
        )
        if name == "accuracy":
            low, high = wilson(round(value * images), images)
            measured += f" (95 % interval {low:.4f} to {high:.4f}: Wilson's, over images; other seeds are not covered)"
        weights = f"the weights of epoch {checkpoint['epoch']} of {self.result['epochs']}: {checkpoint['chosen']}"
        what = "The test images are not measured yet" if self.folder.has_test else "There are no test images"
        unmeasured = "" if self.split == "test" else f" {what}."
        return f"{measured}, with {weights}.{unmeasured}"

    def sections(self) -> Iterator[Section]:
        """Yield the sections of the page, the outcome first."""
        folder = self.folder.evaluation(self.split, self.run.checkpoint_tested)
        tiles = read_gallery(folder)
        samples = [Thumbnail(tile.content, [tile.label]) for tile in tiles if tile.group == "samples"]
        yield Facts("The run", self._facts(), samples)
        best = self.result.get("checkpoint", {}).get("epoch", 0)
        metrics = dict.fromkeys((self.metric, LOSS))
        plots = [plot for metric in metrics if (plot := metric_curves([("", self.epochs)], metric, best))]
        yield from plots[:1]
        yield Lines("Findings", self._findings(folder), is_small=bool(plots[1:]))
        yield from plots[1:]
        if self.result:
            yield self._measured(folder)
        if self.result.get("references"):
            table = pd.DataFrame(published([self.run])).drop(columns="n")
            yield Table("Published results", table, note=PUBLISHED_NOTE)
        rows = read_rows(self.folder.metrics_file)
        if steps := step_curves(pd.DataFrame([row for row in rows if row["row"] == "step"])):
            yield steps
        yield from evaluation(folder, self.split, tiles, self.figure_titles)
        yield from self._pictures()
        yield from trained(read_gallery(self.folder.path / "samples"))
        yield from self._elsewhere(folder)
        yield Lines("Computation and randomness", list(self._computation()))
        yield from self._settings()

    def _facts(self) -> dict[str, str]:
        """Return what the run was: command, labels, network, data, device, date, duration."""
        record, seconds = self.record, self.record.get("seconds")
        labels = record.get("labels", {})
        facts = {
            **{name: labels.get(name) for name in ("name", "notes")},
            "tags": ", ".join(labels.get("tags") or ()),
            **facts_of(self.run),
            "seed": str(self.run.config.get("seed", "")),
            "started": record.get("started", "").replace("T", " ").replace("Z", " UTC"),
            "duration": duration(seconds) if seconds else "",
            "command": record.get("command"),
        }
        return {name: one_line(str(fact)) for name, fact in facts.items() if fact}

    def _findings(self, evaluation: Path) -> list[str]:
        metric, name = self.metric, self.metric.name
        train, val, test = (self.result.get(split, {}) for split in ("train", "val", "test"))
        never, guessing, path = [], math.nan, evaluation / "classes.csv"
        if path.is_file():
            classes = read_own_csv(path, "class")
            guessing = classes["images"].max() / classes["images"].sum()
            never = list(classes["class"][classes["precision"].isna() & (classes["images"] > 0)])
        measured, compared = None, LOSS if metric.grows_with_images else metric
        if None not in (train.get(compared.name), val.get(compared.name)):
            values = train[compared.name], val[compared.name], (train["samples"], val["samples"])
            measured = Fitted(compared, *values, guessing if name == "accuracy" else math.nan)
        remarks = course(self.epochs, metric, val.get("samples", 0) * metric.is_share).remarks(name, measured)
        remarks = [] if val.get(name, 0) is None else remarks  # there is a validation, and a remark on it below
        if metric.grows_with_images:
            remarks.append(f"{name} is higher among more images: compare it between runs, not between their splits")
        remarks += [f"never predicted: {some(never)}"] * bool(never)
        if name == "accuracy" and None not in (val.get(name), test.get(name)):
            both = f"validation accuracy {val[name]:.4f} and test accuracy {test[name]:.4f}"
            if val[name] > test[name] and self.run.checkpoint_tested == "best":
                remarks.append(f"{both}: the former is expected to be higher, since the epoch was chosen on its images")
            elif not is_chance(val[name], val["samples"], test[name], test["samples"]):
                remarks.append(f"{both} differ by more than chance")
        if watched := len(self.epochs.filter(regex="/test$").dropna(how="all")):
            remarks.append(
                f"the test images were measured {watched} times in the course of the training (data.monitor=test); "
                "nothing was chosen by them, but settings changed after a look at their curve are chosen on test"
            )
        if (times := self.record.get("test_measured", 1)) > 1:
            remarks.append(f"the test images were measured {times} times, with those by cnnbench evaluate")
        if departures := self.record.get("departures"):
            remarks.append(f"deviates from the experiment in {', '.join(departures)}")
        noted = self.result.get("remarks") or self.record.get("remarks", ())
        remarks += [remark["text"] for remark in noted]
        notes = [note for note in self.result.get("notes", ()) if not (watched and note.startswith("data.monitor="))]
        damage = [RowCount(read_rows(self.folder.metrics_file)).loss(self.result.get("rows"))]
        damage += self.record.get("damage", ())
        return list(dict.fromkeys([*self._measured_again(evaluation), *remarks, *notes, *filter(None, damage)]))

    def _measured_again(self, evaluation: Path) -> Iterator[str]:
        """Yield that the tables of the evaluation are not those of the result: they were measured again, otherwise."""
        name = self.metric.name
        before = self.result.get(self.split, {}).get(name)
        now = metrics_of(evaluation).get(name) if (evaluation / "metrics.json").is_file() else None
        if before is not None and now is not None and abs(before - now) > ROUNDING:
            yield (
                f"{name} is {before:.4f} in the result, and {now:.4f} where cnnbench evaluate measured it later with "
                "other code or libraries, which tables and figures show; with those of the training it restores them"
            )

    def _computation(self) -> Iterator[str]:
        """Yield what the training took, and what it ran on."""
        seconds, memory = self.result.get("seconds", {}), self.record.get("memory", {})
        if "epoch" in seconds:
            yield f"training: {seconds['train']:.1f} s, {seconds['epoch']:.3g} s an epoch, without validation"
        if memory:
            sizes = (f"{size / 1e6:,.0f} MB of the {name}".replace(",", " ") for name, size in sorted(memory.items()))
            yield f"peak memory: {', '.join(sizes)}"
        try:
            yield from randomness(self.folder.run_config())
        except UserError:  # trained with a plugin, or by another version
            yield from self.record.get("randomness", ())

    def _measured(self, evaluation: Path) -> Table:
        """Return each metric by split, the last with 95 % intervals where they are known, and what it means."""
        measured = {NAMES[split]: self.result[split] for split in NAMES if self.result.get(split)}
        numbers = {
            split: {"images": grouped(one["samples"])} | {name: "nan" if of is None else of for name, of in one.items()}
            for split, one in measured.items()
        }
        table, note = pd.DataFrame(numbers, dtype=object), ""
        if (evaluation / "metrics.csv").is_file():
            for name, value, low, high in read_own_csv(evaluation / "metrics.csv", "metric").dropna().to_numpy():
                table.loc[name, NAMES[self.split]] = f"{value:.4f} [{low:.4f}, {high:.4f}]"
            note = "[95 %]: over images, Wilson's of shares, Student's of means; other seeds are not covered."
        table = table.drop(index=["samples", *self.trivial], errors="ignore")
        table.insert(0, "metric", table.index)
        table["meaning"] = [meaning(name, self.task) for name in table["metric"]]
        return Table("Metrics", table, note=note, is_brief=True)

    def _elsewhere(self, shown: Path) -> Iterator[Section]:
        """Yield what `cnnbench evaluate` and `cnnbench explain` added to the run folder."""
        written = sorted(path.parent for path in self.folder.path.glob("evaluation/*/metrics.json"))
        if others := [folder for folder in written if folder != shown]:
            measured = pd.DataFrame([{"evaluation": folder.name, **metrics_of(folder)} for folder in others])
            note = "By cnnbench evaluate: the split, the checkpoint, and other data that were measured."
            pages = [{"page": folder / "report.html"} for folder in others]
            table = measured.drop(columns=self.trivial, errors="ignore")
            yield Table("Other evaluations", table, note=note, pages=pages)
        for path in sorted((self.folder.path / "explanation").glob("*.png")):
            if path.stem not in GALLERIES:  # those of the tested checkpoint are here already
                yield from picture(EXPLAINED.get(path.stem, path.stem), path)

    def _pictures(self) -> Iterator[Section]:
        """Yield the last picture of each kind that the task drew during training."""
        last: dict[str, Path] = {}
        for path in sorted((self.folder.path / "pictures").glob("*-epoch-*.png")):
            last[path.stem.rpartition("-epoch-")[0]] = path
        for name, path in last.items():
            epoch = int(path.stem.rpartition("-")[2])
            yield from picture(f"{self.figure_titles.get(name, name)}, epoch {epoch}", path)

    def _settings(self) -> Iterator[Section]:
        values, origins = flat(self.run.config), self.record.get("origins", {})
        try:
            shown = set(flat(self.folder.run_config().non_default_settings()))
        except UserError:  # trained with a plugin, or by another version
            shown = set(values)
        rows = [
            (key, as_text(value), origins.get(key, ""))
            for key, value in values.items()
            if key in shown or origins.get(key) == TYPED
        ]
        note = "Not shown: what is at its default, or cannot change the result."
        settings = pd.DataFrame(rows, columns=["setting", "value", "from"])
        yield Table("Settings", settings, note=note, is_folded=True)
        yield self._files()
        yield Folded("Every setting: config.yaml", self.folder.config_file.read_text(encoding="utf-8"))
        facts = {key: self.record[key] for key in FACTS if self.record.get(key) is not None}
        text = yaml.safe_dump(as_json(facts), sort_keys=False, allow_unicode=True)
        yield Folded("Record of the run: run.json", text)
        if self.record.get("packages"):
            yield Folded("Installed packages: pip freeze", "\n".join(self.record["packages"]))

    def _files(self) -> Table:
        """Return what is in the run folder, with links."""
        root = self.folder.path
        tables = sorted(path for path in root.glob("evaluation/*/*.csv"))
        present = [root / name for name in FILES if (root / name).is_file()] + tables
        names = pd.DataFrame({"file": [path.relative_to(root).as_posix() for path in present]})
        return Table("Files", names, pages=[{"open": path} for path in present], is_folded=True)


def page_of(folder: RunFolder) -> Page:
    """Return the page of a run. Raises UserError if its files cannot be read."""
    report = RunReport(folder)
    return Page(report.title(), report.summary(), list(report.sections()))
