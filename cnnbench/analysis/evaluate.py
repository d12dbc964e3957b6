"""A network of a run, evaluate_run again: on its own images, or on others of the same classes."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from cnnbench.analysis.run import Checkpoint, Run
from cnnbench.config.compose import open_composer
from cnnbench.data.prepare import PreparedData, prepare
from cnnbench.errors import UserError, listed
from cnnbench.tasks.context import EvalContext, Splits
from cnnbench.tasks.evaluation import EvalReport
from cnnbench.training.plan import plan_run
from cnnbench.training.step import evaluating, map_images

NAMED = 20  # classes in a message


def evaluate_run(
    run: Run, split: str = "test", which: Checkpoint = "tested", data: Sequence[str] = (), folder: Path | None = None
) -> EvalReport:
    """Return what is found out about the network of a run.

    data: words that name other images, as `cnnbench` takes them. folder: where a task draws what it draws by itself.
    Raises UserError for images that are not what the network was made for.
    """
    device = run.set_up()
    training = run.training if not data else replace(run.training, data=_other_images(run, data))
    training = replace(training, device=device)
    images = getattr(training.data, split)
    if not len(images):
        raise UserError(f"{split}: there are no such images; the splits are train, val and test.")
    network = run.model(which).to(device)
    splits = Splits(training.batches, dict.fromkeys(("train", split)))
    context = EvalContext(
        network, training.data, splits, lambda batches, each: map_images(network, batches, each, run.config),
        folder or run.path / "evaluation", run.epoch_of(which), lambda _name, _picture: None,
    )  # fmt: skip
    with evaluating(network):
        return run.task.evaluate(context, split)


def _other_images(run: Run, words: Sequence[str]) -> PreparedData:
    """Return other images, seen as the run's own were. Raises UserError where classes or windows are others."""
    own = run.config.data
    seen = {"image_size": own.image_size, "channels": own.channels, "crop": own.crop}
    kept = [f"data.{key}={'null' if value is None else value}" for key, value in seen.items()]
    with open_composer() as composer:
        composer.add_missing_options()
        config = plan_run(composer, [f"data={words[0]}", *kept, *words[1:]]).config
    data = prepare(config.data)
    if data.spec.classes != run.classes:
        raise UserError(
            f"{words[0]}: has the classes {listed(data.spec.classes[:NAMED])}, and the network tells apart "
            f"{listed(run.classes[:NAMED])}."
        )
    window, expected = ((spec.channels, spec.height, spec.width) for spec in (data.spec, run.spec))
    if window != expected:
        shown, wanted = ("x".join(map(str, size)) for size in (window, expected))
        raise UserError(
            f"{words[0]}: is seen as {shown}, and the network takes {wanted}; set data.image_size, data.crop."
        )
    record = run.record["data"]
    return replace(data, spec=run.spec, mean=tuple(record["mean"]), std=tuple(record["std"]))
