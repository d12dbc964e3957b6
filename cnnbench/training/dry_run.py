"""`dry_run=true`: everything is built, shown and tried for a few steps; nothing is trained, no run folder is made."""

import dataclasses
import math
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cnnbench.data.images import counts_per_class
from cnnbench.data.loader import Batches
from cnnbench.errors import ExitCode, UserError, counted, duration, grouped, quoted
from cnnbench.optim.checks import scores_at
from cnnbench.store.files import make_folder
from cnnbench.store.folder import outputs_dir
from cnnbench.training import console
from cnnbench.training.init import trial
from cnnbench.training.loggers.base import missing_package
from cnnbench.training.plan import Plan
from cnnbench.training.setup import DEFAULT_THREADS, TrainingSetup
from cnnbench.training.step import evaluate, evaluating, train_step
from cnnbench.training.terminal import linked

NUM_SAMPLES = 16
NUM_LISTED = 6
STEPS_TRIED = 3
MOST = 20  # configurations of a sweep that are shown; those that cannot be carried out always are
BYTES_PER_ROW = 150  # of metrics.jsonl and TensorBoard's events together, roughly


def dry_run_all(design: Sequence[tuple[str, Sequence[Plan]]], at_once: int = 1) -> ExitCode:
    """Show what every plan would do: one in full, each configuration of a sweep in a line. Return the exit code.

    design: what each configuration is called, and its plans, one for each seed. at_once: how many runs.
    """
    number = sum(len(plans) for _, plans in design)
    at_once = min(at_once, number)
    if number == 1:
        seconds, _ = dry_run(design[0][1][0])
        return ExitCode.FINISHED if math.isfinite(seconds) else ExitCode.FAILED
    console.say(f"{counted(number, 'run')} of {counted(len(design), 'configuration')}, {at_once} at a time")
    total, failed, has_raised = 0.0, 0, False
    for index, (name, plans) in enumerate(design, start=1):
        config = plans[0].config
        config = config.model_copy(update={"threads": config.threads or max(1, DEFAULT_THREADS // at_once)})
        line = f"[{index}/{len(design)}] {name}  seed={','.join(str(plan.config.seed) for plan in plans)}"
        try:
            seconds, size = dry_run(replace(plans[0], config=config), is_brief=True)
        except Exception as error:  # noqa: BLE001 - of a network or a task, of which the other jobs know nothing
            failed += len(plans)
            if not isinstance(error, UserError):
                has_raised = True
                traceback.print_exc()
            console.say(f"{line}\n  {error if isinstance(error, UserError) else quoted(error)}")
            continue
        total += seconds * len(plans)
        if index <= MOST:
            console.say(f"{line}: about {duration(seconds)}, {size / 1e6:.1f} MB each")
        elif index == len(design):
            console.say(f"and {counted(index - MOST, 'configuration')} more")
    done = f"{number - failed} of {counted(number, 'run')} can be carried out"
    console.say(f"\n{done}; about {duration(total / at_once)} in all, {at_once} at a time")
    if has_raised:
        return ExitCode.FAILED
    return ExitCode.MISTAKE if failed else ExitCode.FINISHED


def dry_run(plan: Plan, is_brief: bool = False) -> tuple[float, float]:
    """Try a plan, show what it is made of, and return the seconds and bytes that it is expected to take."""
    plan, training, init_notes = trial(plan)
    if not is_brief:
        console.header(plan, {"device": str(training.device), "dry run": "nothing is trained"})
        _show_model(training)
        _show_data(training)
        folder = outputs_dir() / "dry_runs" / plan.run_path()
        make_folder(folder)
        _draw(training, folder)
    loss, seconds = _try_steps(training)
    size = _bytes_on_disk(training)
    if not is_brief:
        _show_effort(training, loss, seconds, size)
        for note in (*plan.notes, *training.notes, *init_notes, *(remark.text for remark in training.remarks)):
            console.say(f"  note: {note}")
        for name in filter(missing_package, training.config.logger):
            console.say(f"  warning: logger '{name}' will be disabled: {missing_package(name)}")
        console.say("  pictures: " + linked(folder))
    return seconds, size


def _show_model(training: TrainingSetup) -> None:
    images = _two_images(training.batches("train"))
    rows = [
        (layer.name, layer.kind, "x".join(map(str, layer.output)), grouped(layer.parameters),
         "frozen" if layer.trainable < layer.parameters else "")
        for layer in layers_of(training.network, images)
    ]  # fmt: skip
    console.table(("layer", "", "output", "parameters", ""), rows)
    total, trainable = training.parameters["total"], training.parameters["trainable"]
    counts = ((total, "parameters"), (trainable, "trained"), (total - trainable, "frozen"))
    line = "; ".join(f"{grouped(number)} {word}" for number, word in counts)
    console.say(f"  {line}; {_short(operations_per_image(training.network, images))}FLOP forward an image")
    console.say()


def _show_data(training: TrainingSetup) -> None:
    data, spec = training.data, training.data.spec
    splits = {name: getattr(data, name) for name in ("train", "val", "test")}
    counts = {name: counts_per_class(part.labels, spec.num_classes) for name, part in splits.items()}
    if spec.num_classes <= 20:
        rows = [(label, *(str(counts[name][index]) for name in splits)) for index, label in enumerate(spec.classes)]
    else:
        rows = [
            (word, *(str(pick(counts[name])) for name in splits))
            for word, pick in (("smallest class", min), ("largest class", max))
        ]
    rows.append(("all", *(str(len(part)) for part in splits.values())))
    console.table((counted(spec.num_classes, "class"), *splits), rows)
    means, stds = (", ".join(f"{value:.4f}" for value in values) for values in (data.mean, data.std))
    console.say(f"  network sees {spec.channels}x{spec.height}x{spec.width}; mean {means}; standard deviation {stds}")
    console.say()


def _draw(training: TrainingSetup, folder: Path) -> None:
    from cnnbench.tasks.figures import save_curve, save_groups, save_pairs  # matplotlib: not for a sweep's jobs

    data, horizon = training.data, training.horizon
    number = min(NUM_SAMPLES, len(data.train))
    rows = training.order(1)[:number]
    batch = next(iter(training.train.epoch(rows, number, epoch=1)))
    mean, std = (torch.tensor(values).view(1, -1, 1, 1) for values in (data.mean, data.std))
    titles = [data.spec.classes[label] for label in batch.labels.tolist()]
    if batch.mixed is not None:
        others = [data.spec.classes[label] for label in batch.mixed.labels.tolist()]
        titles = [
            title if share == 1 else f"{share:.2f} {title}, {1 - share:.2f} {other}"
            for title, other, share in zip(titles, others, batch.mixed.share.tolist(), strict=True)
        ]
    images = batch.images.cpu() * std + mean
    if batch.group > 1:
        groups = [titles[first : first + batch.group] for first in range(0, len(titles), batch.group)]
        captions = [training.task.caption(labels) for labels in groups]
        console.table(("samples of the first epoch",), [(caption,) for caption in captions[:NUM_LISTED]])
        console.say()
        save_groups(folder / "samples.png", images.reshape(number, batch.group, *images.shape[1:]), captions)
    else:
        save_pairs(folder / "samples.png", data.train.take(rows) / 255, images, titles)
    steps = range(0, horizon.num_steps, max(1, horizon.num_steps // 1000))
    base = training.config.optimizer.settings["lr"]
    save_curve(
        folder / "learning_rate.png", [step / horizon.steps_per_epoch for step in steps],
        [base * training.schedule(step, scores_at(step, horizon)) for step in steps], ("epoch", "learning rate"),
    )  # fmt: skip


def _try_steps(training: TrainingSetup) -> tuple[float, float]:
    """Train a few steps, measure a few batches; return the first loss, and the seconds that the whole run takes."""
    config, horizon = training.config, training.horizon
    first_loss, times = math.nan, []
    training.set_train_mode(1)
    order = training.order(1)[: STEPS_TRIED * config.batch_size]
    clock = time.perf_counter()
    for step, batch in enumerate(training.train.epoch(order, config.batch_size, epoch=1)):
        sums = train_step(training, batch, step, training.schedule(step, ())).tolist()
        first_loss = sums[0] / len(batch) if step == 0 else first_loss
        times.append((time.perf_counter() - clock) / len(batch))
        clock = time.perf_counter()
    per_train_image = min(times)  # the first step also warms up
    data = training.data
    size = min(len(data.train), 2 * config.batch_size)
    first = dataclasses.replace(data, train=data.train[torch.arange(size)])
    some = dataclasses.replace(training, data=first).batches("train")
    clock = time.perf_counter()
    evaluate(training, training.network, some)
    per_image = (time.perf_counter() - clock) / size
    every = config.eval_every * (horizon.steps_per_epoch if config.eval_unit == "epoch" else 1)
    evaluations = -(-horizon.num_steps // every)
    at_the_end = len(data.train) + len(data.test)
    at_a_time = sum(map(len, training.measured.values()))
    trained, measured = horizon.epochs * len(data.train), evaluations * at_a_time + at_the_end
    return first_loss, trained * per_train_image + measured * per_image


def _bytes_on_disk(training: TrainingSetup) -> float:
    network = sum(tensor.nbytes for tensor in training.network.state_dict().values())
    optimizer = sum(
        value.nbytes
        for state in training.optimizer.state.values()
        for value in state.values()
        if isinstance(value, torch.Tensor)
    )
    kept = training.config.checkpoint.num_best * ("val" in training.measured)
    copies = 1 + kept + (training.average is not None)  # the network, the best of it, its average
    rows = training.horizon.num_steps / training.config.log_every
    return float(training.config.checkpoint.keep * (copies * network + optimizer) + rows * BYTES_PER_ROW)


def _show_effort(training: TrainingSetup, loss: float, seconds: float, size: float) -> None:
    chance = training.task.chance_loss
    console.say(f"  first loss {loss:.4f}" + ("" if chance is None else f"; guessing gives {chance:.4f}"))
    horizon = training.horizon
    steps = f"{counted(horizon.epochs, 'epoch')} of {counted(horizon.steps_per_epoch, 'step')}"
    console.say(f"  {steps}: about {duration(seconds)}, {size / 1e6:.1f} MB on disk")


def _short(number: float) -> str:
    for size, letter in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.3g} {letter}"
    return f"{number:.0f} "


@dataclass(frozen=True)
class Layer:
    """A layer of a network that does something itself."""

    name: str
    kind: str
    output: tuple[int, ...]
    parameters: int
    trainable: int


def layers_of(network: nn.Module, images: Tensor) -> list[Layer]:
    """Return the layers in the order in which they compute; a layer that is used twice is there twice."""
    found: list[Layer] = []
    handles = []

    def note(name: str) -> Any:
        def hook(module: nn.Module, _inputs: Any, output: Any) -> None:
            sizes = [(weight.numel(), weight.requires_grad) for weight in module.parameters(recurse=False)]
            shape = tuple(output.shape[1:]) if isinstance(output, torch.Tensor) else ()
            trainable = sum(size for size, trains in sizes if trains)
            found.append(Layer(name, type(module).__name__, shape, sum(size for size, _ in sizes), trainable))

        return hook

    for name, module in network.named_modules():
        if not list(module.children()):
            handles.append(module.register_forward_hook(note(name)))
    try:
        with evaluating(network):
            network(images)
    finally:
        for handle in handles:
            handle.remove()
    return found


def operations_per_image(network: nn.Module, images: Tensor) -> float:
    """Return the floating-point operations of a forward pass, per image (a multiplication and an addition are two)."""
    from torch.utils.flop_counter import FlopCounterMode  # 0.15 s, which a training need not wait for

    counter = FlopCounterMode(display=False)
    with evaluating(network), counter:
        network(images)
    return counter.get_total_flops() / len(images)


def _two_images(batches: Batches) -> Tensor:
    """Return two images as a network sees them, float32 [2, C, H, W]; one where there are no more."""
    images: Tensor = next(iter(batches.epoch(torch.arange(min(2, len(batches))), 2))).images
    return images
