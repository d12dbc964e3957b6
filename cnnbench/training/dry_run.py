"""`dry_run=true`: everything is built, shown and tried for a few steps; nothing is trained, no run folder is made."""

import dataclasses
import math
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from cnnbench.data.images import counts_per_class
from cnnbench.errors import UserError, grouped
from cnnbench.randomness import seed_layers
from cnnbench.registry import register_everything
from cnnbench.store.folder import outputs_dir
from cnnbench.training import console
from cnnbench.training.inspection import a_few_images, layers_of, operations_per_image, remarks
from cnnbench.training.loop import evaluate
from cnnbench.training.plan import Plan
from cnnbench.training.resolve import Ready
from cnnbench.training.setup import plain_batches, prepare_trial
from cnnbench.training.step import Parts, apply_gradients, compute_gradients, set_rates

NUM_SAMPLES = 16
NUM_TOLD = 6
STEPS_TRIED = 3
BYTES_A_ROW = 150  # of metrics.jsonl and TensorBoard's events together, roughly


def dry_run_all(plans: Sequence[Plan]) -> int:
    """Show what every plan would do; one in full, several in a line each. Return 0, or 1 if any could not be run."""
    if len(plans) == 1:
        seconds, _ = dry_run(plans[0])
        return 0 if math.isfinite(seconds) else 1
    total, failed = 0.0, 0
    for number, plan in enumerate(plans, start=1):
        console.say(f"[{number}/{len(plans)}] {plan.command}")
        try:
            seconds, size = dry_run(plan, is_brief=True)
        except UserError as error:
            failed += 1
            console.say(f"  {error}")
            continue
        total += seconds
        console.say(f"  about {console.duration(seconds)}, {size / 1e6:.1f} MB")
    done = f"{len(plans) - failed} of {len(plans)} runs can be carried out"
    console.say(f"\n{done}; about {console.duration(total)} in all")
    return 1 if failed else 0


def dry_run(plan: Plan, is_brief: bool = False) -> tuple[float, float]:
    """Try a plan, show what it is made of, and return the seconds and bytes that it is expected to take."""
    register_everything(plan.plugins)
    config = plan.config
    ready, parts = prepare_trial(config)
    if not is_brief:
        facts = {"device": str(ready.device), "dry run": "nothing is trained"}
        console.header(config, plan.choices, plan.origins, facts)
        _show_model(parts, ready)
        _show_data(ready)
        folder = outputs_dir() / "dry_runs" / plan.run_path()
        folder.mkdir(parents=True, exist_ok=True)
        _draw(parts, ready, folder)
    loss, seconds = _try_steps(parts, ready)
    size = _bytes_on_disk(parts)
    if not is_brief:
        _show_effort(ready, loss, seconds, size)
        for note in (*plan.notes, *ready.notes, *remarks(parts)):
            console.say(f"  note: {note}")
        console.say(f"  pictures: {console.shorter(folder)}")
    return seconds, size


def _show_model(parts: Parts, ready: Ready) -> None:
    images = a_few_images(plain_batches(ready, "train"))
    rows = [
        (layer.name, layer.kind, "x".join(map(str, layer.output)), grouped(layer.parameters),
         "frozen" if layer.trainable < layer.parameters else "")
        for layer in layers_of(parts.network, images)
    ]  # fmt: skip
    console.table(("layer", "", "output", "parameters", ""), rows)
    total, trainable = ready.parameters["total"], ready.parameters["trainable"]
    shown = "; ".join(
        f"{grouped(number)} {word}"
        for number, word in ((total, "parameters"), (trainable, "trained"), (total - trainable, "frozen"))
    )
    console.say(f"  {shown}; {_short(operations_per_image(parts.network, images))}FLOP forward an image")
    console.say()


def _show_data(ready: Ready) -> None:
    data = ready.data
    splits = {name: getattr(data, name) for name in ("train", "val", "test")}
    counts = {name: counts_per_class(part.labels, data.spec.num_classes) for name, part in splits.items()}
    if data.spec.num_classes <= 20:
        rows = [
            (label, *(str(counts[name][index]) for name in splits)) for index, label in enumerate(data.spec.classes)
        ]
    else:
        rows = [
            (word, *(str(pick(counts[name])) for name in splits))
            for word, pick in (("smallest class", min), ("largest class", max))
        ]
    rows.append(("all", *(str(len(part)) for part in splits.values())))
    console.table((f"{data.spec.num_classes} classes", *splits), rows)
    spec = data.spec
    means, stds = (", ".join(f"{value:.4f}" for value in values) for values in (data.mean, data.std))
    console.say(f"  window {spec.channels}x{spec.height}x{spec.width}; mean {means}; standard deviation {stds}")
    console.say()


def _draw(parts: Parts, ready: Ready, folder: Path) -> None:
    from cnnbench.tasks.figures import save_curve, save_groups, save_pairs  # matplotlib: not for a sweep's jobs

    data, horizon = ready.data, ready.horizon
    number = min(NUM_SAMPLES, len(data.train))
    rows = parts.order(1)[:number]
    batch = next(iter(parts.train.epoch(rows, number, epoch=1)))
    mean, std = (torch.tensor(values).view(1, -1, 1, 1) for values in (data.mean, data.std))
    titles = [data.spec.classes[label] for label in batch.labels.tolist()]
    if batch.mixed is not None:
        others = [data.spec.classes[label] for label in batch.mixed.labels.tolist()]
        shares = batch.mixed.share.tolist()
        titles = [
            title if share == 1 else f"{share:.2f} {title}, {1 - share:.2f} {other}"
            for title, other, share in zip(titles, others, shares, strict=True)
        ]
    images = batch.images.cpu() * std + mean
    if batch.group > 1:
        groups = [titles[first : first + batch.group] for first in range(0, len(titles), batch.group)]
        captions = [parts.task.caption(labels) for labels in groups]
        console.table(("samples of the first epoch",), [(caption,) for caption in captions[:NUM_TOLD]])
        console.say()
        save_groups(folder / "samples.png", images.reshape(number, batch.group, *images.shape[1:]), captions)
    else:
        save_pairs(folder / "samples.png", data.train.take(rows) / 255, images, titles)
    steps = range(0, horizon.num_steps, max(1, horizon.num_steps // 1000))
    base = parts.config.optimizer.settings["lr"]
    save_curve(
        folder / "learning_rate.png", [step / horizon.steps_per_epoch for step in steps],
        [base * parts.schedule(step, ()) for step in steps], ("epoch", "learning rate"),
    )  # fmt: skip


def _try_steps(parts: Parts, ready: Ready) -> tuple[float, float]:
    """Train a few steps, measure a few batches; return the first loss, and the seconds that the whole run takes."""
    config, horizon = parts.config, ready.horizon
    first_loss, times = math.nan, []
    parts.enter(1)
    order = parts.order(1)[: STEPS_TRIED * config.batch_size]
    clock = time.perf_counter()
    for step, batch in enumerate(parts.train.epoch(order, config.batch_size, epoch=1)):
        seed_layers(config.seed, "layers", step, parts.device)
        set_rates(parts, parts.schedule(step, ()))
        sums = compute_gradients(parts, batch).tolist()
        apply_gradients(parts)
        first_loss = sums[0] / len(batch) if step == 0 else first_loss
        times.append((time.perf_counter() - clock) / len(batch))
        clock = time.perf_counter()
    per_train_image = min(times)  # the first step also warms up
    size = min(len(ready.data.train), 2 * config.batch_size)
    first = dataclasses.replace(ready.data, train=ready.data.train[torch.arange(size)])
    some = plain_batches(dataclasses.replace(ready, data=first), "train")
    clock = time.perf_counter()
    evaluate(parts, parts.network, some)
    per_image = (time.perf_counter() - clock) / size
    every = config.eval_every * (horizon.steps_per_epoch if config.eval_unit == "epoch" else 1)
    evaluations = -(-horizon.num_steps // every)
    at_the_end = len(ready.data.train) + len(ready.data.test)
    trained, measured = horizon.epochs * len(ready.data.train), evaluations * len(ready.data.val) + at_the_end
    return first_loss, trained * per_train_image + measured * per_image


def _bytes_on_disk(parts: Parts) -> float:
    network = sum(tensor.nbytes for tensor in parts.network.state_dict().values())
    optimizer = sum(
        value.nbytes
        for state in parts.optimizer.state.values()
        for value in state.values()
        if isinstance(value, torch.Tensor)
    )
    copies = 1 + (parts.val is not None) + (parts.average is not None)  # the network, its best, its average
    rows = parts.horizon.num_steps / parts.config.log_every
    return float(parts.config.checkpoint.keep * (copies * network + optimizer) + rows * BYTES_A_ROW)


def _show_effort(ready: Ready, loss: float, seconds: float, size: float) -> None:
    guess = ready.task.chance_loss
    console.say(f"  first loss {loss:.4f}" + ("" if guess is None else f"; guessing gives {guess:.4f}"))
    horizon = ready.horizon
    steps = f"{horizon.epochs} epochs of {horizon.steps_per_epoch} steps"
    console.say(f"  {steps}: about {console.duration(seconds)}, {size / 1e6:.1f} MB on disk")


def _short(number: float) -> str:
    for size, letter in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.3g} {letter}"
    return f"{number:.0f} "
