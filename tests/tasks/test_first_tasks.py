"""What people write first when they write a task: each is a run that works, or one sentence that says what to do."""

import pytest

from tests.support.first_plugins import First, assert_trains_or_is_refused

TASK = '''
@registry.register_task("first_task")
class FirstTask(Task):
    """Brightness."""

    def train_step(self, network, batch):
        loss = (network(batch.images).mean(1) - batch.images.mean((1, 2, 3))).square()
        return {returned}

    def eval_step(self, network, batch):
        return (network(batch.images).mean(1) - batch.images.mean((1, 2, 3))).square()[:, None]
'''
CLASSIFIER = '''
@registry.register_task("first_task")
class FirstTask(Task):
    """Classify."""

    train_metrics = eval_metrics = ("loss",)
    watched = (("loss", False),)
    num_outputs = property(lambda self: self.spec.num_classes)

    def train_step(self, network, batch):
        loss = nn.functional.cross_entropy(network(batch.images).float(), batch.labels)
        return loss, {metric}

    def eval_step(self, network, batch):
        return nn.functional.cross_entropy(network(batch.images).float(), batch.labels, reduction="none")[:, None]
'''
SUMS = "(loss * len(batch)).detach().view(1)"

FILES = {
    "a task": First(TASK.format(returned="loss.mean(), loss.detach().sum()[None]"), "task=first_task"),
    "a task that lacks a method": First(
        TASK.format(returned="loss.mean(), loss.detach().sum()[None]").replace("eval_step", "evaluation_step"),
        "task=first_task",
        "plugin.py:10: task 'first_task': lacks the methods that its base class leaves open: define 'eval_step'.",
    ),
    "a task whose step returns a scalar": First(
        TASK.format(returned="loss.mean()"),
        "task=first_task",
        "task 'first_task': train_step returns torch.float32 of shape (), not a loss and the sum of each metric.",
    ),
    "a task whose sums are no tensor": First(
        TASK.format(returned="loss.mean(), [loss.sum().item()]"),
        "task=first_task",
        "plugin.py:10: task 'first_task': train_step returns a list as sums of loss, not shape (1,)",
    ),
    "a task whose loss is a number": First(
        TASK.format(returned="loss.mean().item(), loss.detach().sum()[None]"),
        "task=first_task",
        "task 'first_task': train_step returns a float as loss, not a scalar tensor.",
    ),
    "a task whose loss has no gradient": First(
        TASK.format(returned="loss.mean().detach(), loss.detach().sum()[None]"),
        "task=first_task",
        "train_step returns a loss without gradient: no_grad, detach and item have to go, in the network too.",
    ),
    "a task that measures more than its metrics": First(
        TASK.format(returned="loss.mean(), loss.detach().sum()[None]").replace("[:, None]", "[:, None].expand(-1, 3)"),
        "task=first_task",
        "task 'first_task' fails on the first images: eval_step returns 3 columns per image for 1 metric loss; or "
        "define compute_metrics",
    ),
    "a task that measures one number per batch": First(
        TASK.format(returned="loss.mean(), loss.detach().sum()[None]").replace("[:, None]", ".mean()"),
        "task=first_task",
        "task 'first_task': eval_step returns torch.float32 of shape (), not a row for each of 2 images.",
    ),
    "a task whose metric is a tensor": First(
        TASK.format(returned="loss.mean(), loss.detach().sum()[None]")
        + "    def compute_metrics(self, rows, labels):\n        return {'loss': rows.mean()}",
        "task=first_task",
        "task 'first_task': compute_metrics returns torch.float32 of shape () as loss, not a number.",
    ),
    "a task that exchanges rows and columns": First(
        TASK.format(returned="loss.mean(), loss.detach().sum().expand(2)")
        .replace("[:, None]", "[:, None].expand(-1, 2).T")
        .replace("    def train", "    train_metrics = eval_metrics = ('loss', 'error')\n\n    def train"),
        "task=first_task",
        "task 'first_task': eval_step returns torch.float32 of shape (2, 3), not a row for each of 3 images.",
    ),
    "a task that forgets its base class": First(
        CLASSIFIER.format(metric=SUMS)
        + "\n    def __init__(self, spec, *, margin: float = 1.0):\n        self.margin = margin",
        "task=first_task",
        "task 'first_task': its __init__ has to call super().__init__(spec).",
    ),
    "a task whose outputs are counted by a method": First(
        CLASSIFIER.format(metric=SUMS).replace("property(lambda self:", "(lambda self:"),
        "task=first_task",
        "task 'first_task': num_outputs is a method: write @property above it.",
    ),
    "a task that cannot be made": First(
        CLASSIFIER.format(metric=SUMS)
        + "\n    def __init__(self, spec):\n        super().__init__(spec)\n        self.first = spec.labels[0]",
        "task=first_task",
        "task 'first_task': cannot be made: plugin.py:27: AttributeError: 'DataSpec' object has no attribute 'labels'.",
    ),
    "a task whose metrics are a word": First(
        CLASSIFIER.format(metric=SUMS).replace('("loss",)', '("loss")'),
        "task=first_task",
        "task 'first_task': train_metrics is 'loss', not a tuple of names: write ('loss',), say.",
    ),
    "a task that watches a word": First(
        CLASSIFIER.format(metric=SUMS).replace('(("loss", False),)', '"loss"'),
        "task=first_task",
        "task 'first_task': watched is 'loss', not a tuple of pairs: write (('loss', False),), say",
    ),
    "a task that watches one pair": First(
        CLASSIFIER.format(metric=SUMS).replace('(("loss", False),)', '(("loss", False))'),
        "task=first_task",
        "task 'first_task': watched is ('loss', False), not a tuple of pairs: write (('loss', False),), say",
    ),
    "a task whose metrics are means": First(
        CLASSIFIER.format(metric="loss.detach().view(1)"),
        "task=first_task",
        "task 'first_task': train_step returns a mean as metric loss: return sums over the images of the batch",
    ),
    "a task whose metrics are sums of another type": First(
        CLASSIFIER.format(metric="(loss * len(batch)).detach().view(1).double()"),
        "task=first_task",
    ),
    "a task whose metrics are sums": First(
        CLASSIFIER.format(metric=SUMS),
        "task=first_task",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FILES)
def test_a_first_task_trains_or_is_refused_in_a_sentence(name, cnnbench, outputs, tmp_path):
    assert_trains_or_is_refused(FILES[name], cnnbench, outputs, tmp_path)
