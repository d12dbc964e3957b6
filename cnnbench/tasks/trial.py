"""One batch goes through a task before anything is trained: what is wrong with it shows at once."""

import torch
from torch import Tensor, nn

from cnnbench.data.loader import Batches
from cnnbench.data.prepare import PreparedData
from cnnbench.errors import UserError
from cnnbench.tasks.base import Task


def try_task(name: str, task: Task, network: nn.Module, data: PreparedData, samples: int) -> None:
    """Pass so many training samples through a task's steps, without a gradient; the network's statistics change.

    Raises UserError where a step fails, or gives something else than it shall.
    """
    try:
        order = task.order(data.train.labels, None, torch.Generator().manual_seed(0))[:samples]
        few = data.train[order.flatten()]
        batches = Batches(few, data.spec, data.mean, data.std, torch.device("cpu"))
        (batch,) = batches.epoch(torch.arange(len(few)).view(order.shape), samples)
        with torch.random.fork_rng(devices=()), torch.no_grad():
            loss, sums = task.train_step(network.train(), batch)
            (plain,) = batches.epoch(torch.arange(len(few)), len(few))
            rows = task.eval_step(network.eval(), plain)
            metrics = task.compute_metrics(rows.float(), plain.labels)
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"task '{name}' fails on the first images: {type(error).__name__}: {error}") from error
    problems = {
        f"train_step gives a loss of shape {tuple(loss.shape)}, not one number": loss.ndim != 0,
        f"train_step gives {_number(sums)} sums for the metrics {', '.join(task.train_metrics)}":
            _number(sums) != len(task.train_metrics),
        f"eval_step gives {len(rows)} rows for {len(few)} images": len(rows) != len(few),
        f"compute_metrics gives {', '.join(metrics)}, not {', '.join(task.eval_metrics)}":
            tuple(metrics) != task.eval_metrics,
        f"watched names {', '.join(watched for watched, _ in task.watched)}, which are not all measured":
            not {watched for watched, _ in task.watched} <= set(metrics),
    }  # fmt: skip
    found = [problem for problem, is_so in problems.items() if is_so]
    if found:
        raise UserError(f"task '{name}': {'; '.join(found)}.")


def _number(sums: Tensor) -> int:
    return len(sums) if sums.ndim else 1
