"""What people write first when they write a plugin: each is a run that works, or one sentence that says what to do."""

import json

import pytest

from tests.conftest import TINY, only_run
from tests.support.first_plugins import IMPORTS, First, assert_trains_or_is_refused

DATA = '''
@registry.register_dataset("first_data")
def first_data(root):
    """Dark and bright."""
    labels = torch.arange(60) % 2
    pixels = labels.view(-1, 1, 1, 1).expand(-1, 1, 16, 16) * 200
    return {returned}
'''
NET = '''
@registry.register_model("first_net")
class FirstNet(nn.Module):
    """One layer."""

    def __init__({parameters}):
        super().__init__()
        self.pool, self.last = nn.AdaptiveAvgPool2d(4), nn.Linear({channels} * 16, {outputs})

    def forward(self, images):
        return {returned}
'''
INVERT = '''
@registry.register_augmentation("first_invert")
class Invert(Augmentation):
    """A negative of every image."""

    changes_pixels = True

    def apply(self, images, draws):
        return 1 - images
'''
TASK = '''
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
LOGGER = '''
from cnnbench.training.loggers.base import Logger

@registry.register_logger("first_log")
class FirstLog({base}):
    """Lines."""

    def __init__(self{settings}):
        self.seen = 0

    def begin(self, run, known_as):
        pass

    def {scalars}(self, values, step):
        self.seen += 1
'''
SCHEDULE = """
@registry.register_scheduler("first_falls")
def falls(horizon):
    return lambda step, scores: {returned}
"""
OPTIMIZER = """
class Steps(torch.optim.Optimizer):
    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for weight in group["params"]:
                {update}

@registry.register_optimizer("first_steps")
def steps(groups, lr: float = 0.01):
    return Steps(groups, {{"lr": {rate}}})
"""
SCORES = "self.last(self.pool(images).flatten(1))"

FILES = {
    "an augmentation without an order, chosen as an option": First(
        INVERT, "augmentation=first_invert", says="augmentation.first_invert  none"
    ),
    "an augmentation of another shape": First(
        INVERT.replace("1 - images", "images[:, :, :4]"),
        "augmentation=first_invert",
        "plugin.py:10: augmentation 'first_invert': apply returns torch.float32 of shape (3, 1, 4, 16), not torch",
    ),
    "an augmentation of another type": First(
        INVERT.replace("1 - images", "images.double()"),
        "augmentation=first_invert",
        "apply returns torch.float64 of shape (3, 1, 16, 16), not torch.float32 of shape (3, 1, 16, 16).",
    ),
    "an augmentation that loses an image": First(
        INVERT.replace("1 - images", "images[:-1]"),
        "augmentation=first_invert",
        "apply returns torch.float32 of shape (2, 1, 16, 16), not torch.float32 of shape (3, 1, 16, 16).",
    ),
    "an augmentation that divides by zero": First(
        INVERT.replace("1 - images", "images / images.new_zeros(1) * 0"),
        "augmentation=first_invert",
        "augmentation 'first_invert': apply returns numbers that are not finite.",
    ),
    "an augmentation that fails": First(
        INVERT.replace("1 - images", "1 - image"),
        "augmentation=first_invert",
        "plugin.py:10: augmentation 'first_invert' fails on the first images: plugin.py:17: NameError: name 'image'",
    ),
    "an augmentation that computes in another type": First(
        INVERT.replace("1 - images", "images.bool() @ images"),
        "augmentation=first_invert",
        ". It gets images, torch.float32 of shape (3, 1, 16, 16) in [0, 1], and has to return such images\n",
    ),
    "an augmentation that fails in several lines": First(
        INVERT.replace("return 1 - images", "raise ValueError('one\\n  two')"),
        "augmentation=first_invert",
        "'first_invert' fails on the first images: plugin.py:17: ValueError: one two. It gets images, torch.float32 of",
    ),
    "an augmentation for pixels up to 255": First(
        INVERT.replace("1 - images", "images * 255"),
        "augmentation=first_invert",
        says="note: augmentation.first_invert: apply gets pixels from",
    ),
    "an augmentation that divides by 255 once more": First(
        INVERT.replace("1 - images", "images / 255"),
        "augmentation=first_invert",
        says="note: augmentation.first_invert: apply gets pixels from",
    ),
    "an augmentation that mixes without shares": First(
        INVERT.replace("changes_pixels", "mix_probability").replace("apply(", "mix(").replace("draws", "*_"),
        "augmentation=first_invert",
        "'first_invert': mix returns a list, not torch.float32 of shape (3, 1, 16, 16), and a share of each",
    ),
    "a schedule that watches validation without patience": First(
        '@registry.register_scheduler("first_falls", watches=True)\ndef falls(horizon):\n    return lambda *_: 1.0',
        "scheduler=first_falls",
        "plugin.py:10: scheduler 'first_falls': watches validation, and has no setting `patience`",
    ),
    "a schedule that is a number": First(
        '@registry.register_scheduler("first_falls")\ndef falls(horizon):\n    return 1.0',
        "scheduler=first_falls",
        "scheduler 'first_falls': returns a float, and must return a function of (step, scores).",
    ),
    "a schedule that returns nothing": First(
        SCHEDULE.format(returned="None"),
        "scheduler=first_falls",
        "plugin.py:10: scheduler 'first_falls': its factor for step 0 is None; it scales the learning rate, and has to",
    ),
    "a schedule that returns a tensor": First(
        SCHEDULE.format(returned="torch.tensor(0.5)"),
        "scheduler=first_falls",
        "plugin.py:10: scheduler 'first_falls': its factor for step 0 is torch.float32 of shape (); it scales the",
    ),
    "a schedule that falls below zero": First(
        SCHEDULE.format(returned="1 - step"),
        "scheduler=first_falls dry_run=true",
        "plugin.py:10: scheduler 'first_falls': its factor for step 2 is -1; it scales the learning rate, and has",
    ),
    "a schedule that is always zero": First(
        SCHEDULE.format(returned="step // horizon.num_steps"),
        "scheduler=first_falls",
        "plugin.py:10: scheduler 'first_falls': its factor is 0 for every step, so nothing would be learnt.",
    ),
    "a schedule that is zero at both ends and in the middle": First(
        SCHEDULE.format(returned="step % 2"), "scheduler=first_falls batch_size=20"
    ),
    "a schedule that fails": First(
        SCHEDULE.format(returned="1 / step"),
        "scheduler=first_falls",
        "plugin.py:10: scheduler 'first_falls': fails at step 0: plugin.py:12: ZeroDivisionError: division by zero.",
    ),
    "a schedule that cannot be made": First(
        SCHEDULE.format(returned="1.0").replace("    return", "    horizon.steps\n    return"),
        "scheduler=first_falls",
        "plugin.py:10: scheduler 'first_falls': cannot be made: plugin.py:12: AttributeError: 'Horizon' object has no",
    ),
    "an optimizer whose step fails": First(
        OPTIMIZER.format(rate="lr", update="weight.sub_(weight.grid)"),
        "optimizer=first_steps",
        "optimizer 'first_steps': step fails: plugin.py:15: AttributeError: 'Parameter' object has no attribute 'grid'",
    ),
    "an optimizer that tracks gradients of its own": First(
        OPTIMIZER.format(rate="lr", update="weight.sub_(weight.grad)").replace("    @torch.no_grad()\n", ""),
        "optimizer=first_steps",
        "in-place operation. It gets no closure; the gradient of a weight is in its `.grad`, and @torch.no_grad()",
    ),
    "an optimizer that needs a closure": First(
        '@registry.register_optimizer("first_steps")\n'
        "def steps(groups, lr: float = 0.1):\n    return torch.optim.LBFGS(groups, lr)",
        "optimizer=first_steps optimizer.decay_norm_and_bias=true",
        "missing 1 required positional argument: 'closure'. It gets no closure; the gradient",
    ),
    "an optimizer that ignores lr": First(
        '@registry.register_optimizer("first_steps")\n'
        "def steps(groups, lr: float = 0.1):\n    return torch.optim.SGD(groups)",
        "optimizer=first_steps",
        "plugin.py:10: optimizer 'first_steps': the learning rate is 0.001, whatever optimizer.lr is; pass it on:",
    ),
    "an optimizer without lr in its groups": First(
        OPTIMIZER.format(rate="lr", update="weight.sub_(weight.grad)").replace('{"lr": lr}', "{}"),
        "optimizer=first_steps",
        "optimizer 'first_steps': the learning rate is in none of its groups; pass it on: torch.optim.SGD(",
    ),
    "an optimizer that works": First(
        OPTIMIZER.format(rate="lr", update="weight.sub_(weight.grad, alpha=group['lr'])"),
        "optimizer=first_steps optimizer.lr_scale.head=10",
    ),
    "a task that forgets its base class": First(
        TASK.format(metric="(loss * len(batch)).detach().view(1)")
        + "\n    def __init__(self, spec, *, margin: float = 1.0):\n        self.margin = margin",
        "task=first_task",
        "task 'first_task': its __init__ has to call super().__init__(spec).",
    ),
    "a task whose outputs are counted by a method": First(
        TASK.format(metric="(loss * len(batch)).detach().view(1)").replace("property(lambda self:", "(lambda self:"),
        "task=first_task",
        "task 'first_task': num_outputs is a method: write @property above it.",
    ),
    "a task that cannot be made": First(
        TASK.format(metric="(loss * len(batch)).detach().view(1)")
        + "\n    def __init__(self, spec):\n        super().__init__(spec)\n        self.first = spec.labels[0]",
        "task=first_task",
        "task 'first_task': cannot be made: plugin.py:27: AttributeError: 'DataSpec' object has no attribute 'labels'.",
    ),
    "a task whose metrics are a word": First(
        TASK.format(metric="(loss * len(batch)).detach().view(1)").replace('("loss",)', '("loss")'),
        "task=first_task",
        "task 'first_task': train_metrics is 'loss', not a tuple of names: write ('loss',), say.",
    ),
    "a task that watches a word": First(
        TASK.format(metric="(loss * len(batch)).detach().view(1)").replace('(("loss", False),)', '"loss"'),
        "task=first_task",
        "task 'first_task': watched is 'loss', not a tuple of pairs: write (('loss', False),), say",
    ),
    "a task that watches one pair": First(
        TASK.format(metric="(loss * len(batch)).detach().view(1)").replace('(("loss", False),)', '(("loss", False))'),
        "task=first_task",
        "task 'first_task': watched is ('loss', False), not a tuple of pairs: write (('loss', False),), say",
    ),
    "an augmentation that cannot be made": First(
        INVERT.replace("changes_pixels = True", "changes_pixels = True\n\n    def __init__(self):\n        self.a = b"),
        "augmentation=first_invert",
        "augmentation 'first_invert': cannot be made: plugin.py:17: NameError: name 'b' is not defined.",
    ),
    "a schedule of one argument": First(
        '@registry.register_scheduler("first_falls")\ndef falls(horizon):\n    return lambda step: 1.0',
        "scheduler=first_falls",
        "scheduler 'first_falls': returns a function of (step), and must return a function of (step, scores).",
    ),
    "a schedule that calls the horizon something else": First(
        '@registry.register_scheduler("first_falls")\ndef falls(total):\n    return lambda *_: 1.0',
        "scheduler=first_falls",
        "plugin.py:10: scheduler 'first_falls': setting 'total' has no type: write `total: int`, say; "
        "what the program fills is called `horizon`.",
    ),
    "an optimizer without lr": First(
        '@registry.register_optimizer("first_steps")\ndef steps(groups):\n    return torch.optim.SGD(groups, lr=0.1)',
        "optimizer=first_steps",
        "plugin.py:10: optimizer 'first_steps': has no setting `lr`, the learning rate that schedules scale",
    ),
    "an optimizer with lr alone": First(
        '@registry.register_optimizer("first_steps")\n'
        "def steps(groups, lr: float = 0.1):\n    return torch.optim.SGD(groups, lr)",
        "optimizer=first_steps",
    ),
    "a keyword without annotation": First(
        '@registry.register_model("first_net")\ndef net(spec, *, width):\n    return nn.Flatten()',
        "model=lenet",
        "plugin.py:10: model 'first_net': setting 'width' has no type: write `width: int`, say; what the program fills",
    ),
    "a keyword without annotation that has a default": First(
        NET.format(parameters="self, in_channels, num_classes, gain=1.0", channels="in_channels", outputs="num_classes",
                   returned=SCORES),
        "model=first_net model.gain=2.0",
    ),
    "a default of which no file can state another": First(
        NET.format(parameters="self, spec, act=nn.ReLU", channels="spec.channels", outputs="spec.num_outputs",
                   returned=SCORES),
        "model=first_net",
        "plugin.py:10: model 'first_net': setting 'act' cannot be a type: take bool, int, float, str or list",
    ),
    "an annotation that is no type": First(
        NET.format(parameters="self, spec, *, act: callable = nn.ReLU", channels="spec.channels",
                   outputs="spec.num_outputs", returned=SCORES),
        "model=first_net",
        "plugin.py:10: model 'first_net': setting 'act' cannot be a callable: take bool, int, float, str or list",
    ),
    "an annotation for classes": First(
        NET.format(parameters="self, spec, *, act: type[nn.Module] = nn.ReLU", channels="spec.channels",
                   outputs="spec.num_outputs", returned=SCORES),
        "model=first_net",
        "plugin.py:10: model 'first_net': setting 'act' cannot be a type: take bool, int, float, str or list",
    ),
    "an annotation of a tuple": First(
        NET.format(parameters="self, spec, *, maps: tuple[int, ...] = (3, 3)", channels="spec.channels",
                   outputs="spec.num_outputs", returned=SCORES),
        "model=first_net",
        "plugin.py:10: model 'first_net': setting 'maps' cannot be a tuple: take bool, int, float, str or list",
    ),
    "an annotation that YAML has no word for": First(
        NET.format(parameters="self, spec, *, act: nn.Module | None = nn.ReLU", channels="spec.channels",
                   outputs="spec.num_outputs", returned=SCORES),
        "model=first_net",
        "plugin.py:10: model 'first_net': setting 'act' cannot be a torch.nn.modules.module.Module | None: take bool",
    ),
    "a default that contradicts its type": First(
        NET.format(parameters='self, spec, *, width: str = 8, kind: Literal["a", "b"] = "c"', channels="spec.channels",
                   outputs="spec.num_outputs", returned=SCORES),
        "model=first_net",
        "plugin.py:10: model 'first_net': the default of 'width', 8, does not fit its type: text.",
    ),
    "a default that is none of the choices": First(
        NET.format(parameters='self, spec, *, kind: Literal["a", "b"] = "c"', channels="spec.channels",
                   outputs="spec.num_outputs", returned=SCORES),
        "model=first_net",
        "plugin.py:10: model 'first_net': the default of 'kind', 'c', does not fit its type: one of a, b.",
    ),
    "a default that no file can state": First(
        NET.format(parameters="self, spec, *, act: typing.Any = nn.ReLU", channels="spec.channels",
                   outputs="spec.num_outputs", returned=SCORES).replace("@", "import typing\n@", 1),
        "model=first_net",
        "the default of 'act', <class 'torch.nn.modules.activation.ReLU'>, is nothing that a file can state",
    ),
    "no default where the type has none": First(
        NET.format(parameters="self, spec, *, width: int = None", channels="spec.channels",
                   outputs="spec.num_outputs", returned=SCORES),
        "model=first_net",
        "the default of 'width', None, does not fit its type: a whole number; add `| None` to `width: …`.",
    ),
    "defaults of other kinds": First(
        NET.format(parameters="self, spec, *, rate: float | None = None, maps: list[int] = [1, 2], scale: float = 2",
                   channels="spec.channels", outputs="spec.num_outputs", returned=SCORES),
        "model=first_net",
    ),
    "a class that knows nothing of the program": First(
        NET.format(parameters="self, in_channels=1, num_classes=10", channels="in_channels", outputs="num_classes",
                   returned=SCORES),
        "model=first_net",
    ),
    "a network whose layers do not fit": First(
        NET.format(parameters="self, spec", channels="spec.channels", outputs="spec.num_outputs",
                   returned="self.last(images.flatten(1))"),
        "model=first_net",
        "model 'first_net' does not work on 1x16x16 images: plugin.py:19: mat1 and mat2 shapes cannot be multiplied",
    ),
    "a network with a misspelt layer": First(
        NET.format(parameters="self, spec", channels="spec.channels", outputs="spec.num_outputs",
                   returned="self.lst(images)"),
        "model=first_net",
        "plugin.py:19: AttributeError: 'FirstNet' object has no attribute 'lst'",
    ),
    "a class that nobody registers": First(
        "class FirstNet(nn.Module):\n    pass",
        "model=FirstNet",
        "cnnbench: plugins=plugin.py: registers nothing; above a network comes @cnnbench.register_model('my_net'); "
        "cnnbench new model my_net writes such a file.",
    ),
    "settings before the star": First(
        NET.format(parameters="self, spec, width: int = 4, *, depth: int = 1", channels="spec.channels",
                   outputs="spec.num_outputs", returned=SCORES),
        "model=first_net model.width=5 model.depth=2",
    ),
    "settings that two stars would take": First(
        NET.format(parameters="self, spec, width: int = 4, **more", channels="spec.channels",
                   outputs="spec.num_outputs", returned=SCORES),
        "model=first_net model.width=5",
    ),
    "a network that ends in softmax": First(
        NET.format(parameters="self, spec", channels="spec.channels", outputs="spec.num_outputs",
                   returned=f"{SCORES}.softmax(1)"),
        "model=first_net",
        says="note: the network ends in a softmax; the loss applies its own: leave it out, or learning is slow",
    ),
    "a network whose layers are in a list": First(
        NET.format(parameters="self, spec", channels="spec.channels", outputs="spec.num_outputs",
                   returned=f"self.more[0]({SCORES})").replace(
            "super().__init__()", "super().__init__(); self.more = [nn.Linear(spec.num_outputs, spec.num_outputs)]"),
        "model=first_net",
        "the loss is computed with 2 weights that the network does not know, the first of shape (3, 3), so that they "
        "are neither trained nor in a checkpoint: keep layers in an nn.ModuleList or nn.ModuleDict, not in a list or",
    ),
    "a network with a weight that is a plain tensor": First(
        NET.format(parameters="self, spec", channels="spec.channels", outputs="spec.num_outputs",
                   returned=f"self.gain * {SCORES}").replace(
            "super().__init__()", "super().__init__(); self.gain = torch.ones(1, requires_grad=True)"),
        "model=first_net",
        "1 weight that the network does not know, the first of shape (1,)",
    ),
    "a network that needs gradients of its images": First(
        NET.format(parameters="self, spec", channels="spec.channels", outputs="spec.num_outputs",
                   returned=SCORES.replace("(images)", "(images.detach().requires_grad_())", 1)),
        "model=first_net",
    ),
    "a model that is no module": First(
        '@registry.register_model("first_net")\ndef net(spec):\n    return lambda images: images',
        "model=first_net",
        "cnnbench: plugin.py:10: model 'first_net': returns a function, and must return an nn.Module.",
    ),
    "a data set of torch": First(
        DATA.format(returned="torch.utils.data.TensorDataset(pixels, labels)"),
        "data=first_data",
        "plugin.py:10: data 'first_data': returns a TensorDataset, and must return an ImageData",
    ),
    "a data set of float images": First(
        DATA.format(returned='ImageData(*[Images(pixels / 255, labels)] * 2, ("dark", "bright"))'),
        "data=first_data",
        "pixels must be uint8 [N, C, H, W], and are torch.float32 [60, 1, 16, 16]",
    ),
    "a data set of arrays": First(
        DATA.format(returned='ImageData(*[Images(pixels.byte().numpy(), labels)] * 2, ("dark", "bright"))'),
        "data=first_data",
        "pixels must be a tensor, and are a ndarray; torch.as_tensor makes one of it.",
    ),
    "a data set whose test images are smaller": First(
        DATA.format(
            returned="ImageData(*[Images(one.byte(), labels) for one in (pixels, pixels[..., 8:])], ('dark', 'bright'))"
        ),
        "data=first_data",
        "the data set's test images have 1 x 16 x 8 pixels, the others 1 x 16 x 16; set data.image_size.",
    ),
    "a data set with channels last": First(
        DATA.format(returned='ImageData(*[Images(pixels.byte().permute(0, 2, 3, 1), labels)] * 2, ("dark", "bright"))'),
        "data=first_data",
        "part 'train': pixels [60, 16, 16, 1] look like [N, H, W, C]; use .permute(0, 3, 1, 2).",
    ),
    "a data set whose classes have one name": First(
        DATA.format(returned='ImageData(*[Images(pixels.byte(), labels)] * 2, ("dark", "bright", "dark"))'),
        "data=first_data",
        "the data set's classes 0 and 2 are both called 'dark'; give each a name of its own.",
    ),
    "a data set without images": First(
        DATA.format(returned='ImageData(*[Images(pixels.byte()[:0], labels[:0])] * 2, ("dark", "bright"))'),
        "data=first_data",
        "plugin.py:10: data 'first_data' returns no image to train on; it looks in ",
    ),
    "a data set that fails in several lines": First(
        DATA.format(returned="int('a\\nb'[:0] or {}['two\\n lines'])"),
        "data=first_data",
        "data 'first_data' cannot be read: plugin.py:15: KeyError: ",
    ),
    "a data set that fails": First(
        DATA.format(returned="[][0]"),
        "data=first_data",
        "data 'first_data' cannot be read: plugin.py:15: IndexError: list index out of range.",
    ),
    "a data set with test images to train on": First(
        DATA.format(
            returned='ImageData(*[Images(one, labels) for one in (own, torch.cat([own[:9], own[9:] + 1]))], ("a", "b"))'
        ).replace("    return", "    own = (torch.arange(60).view(-1, 1, 1, 1) * 2 + pixels * 0).byte()\n    return"),
        "data=first_data",
        says="note        9 of 60 test images are among the training images, pixel for pixel",
    ),
    "a data set of pixels from 0 to 1": First(
        DATA.format(returned='ImageData(*[Images((pixels > 9).byte(), labels)] * 2, ("dark", "bright"))'),
        "data=first_data",
        says="pixels are 0 and 1, of 0 to 255: numbers from 0 to 1 become pixels by (255 * x).round()",
    ),
    "a data set": First(
        DATA.format(returned='ImageData(*[Images(pixels.byte(), labels)] * 2, ("dark", "bright"))'), "data=first_data"
    ),
    "a setting called as the choice itself": First(
        NET.format(parameters='self, spec, *, name: str = "a"', channels="spec.channels", outputs="spec.num_outputs",
                   returned=SCORES),
        "model=first_net",
        "plugin.py:10: model 'first_net': a setting cannot be called 'name', which is the key of the choice itself",
    ),
    "a task whose metrics are means": First(
        TASK.format(metric="loss.detach().view(1)"),
        "task=first_task",
        "task 'first_task': train_step returns a mean as metric loss: return sums over the images of the batch",
    ),
    "a task whose metrics are sums of another type": First(
        TASK.format(metric="(loss * len(batch)).detach().view(1).double()"),
        "task=first_task",
    ),
    "a task whose metrics are sums": First(
        TASK.format(metric="(loss * len(batch)).detach().view(1)"),
        "task=first_task",
    ),
    "a logger": First(LOGGER.format(base="Logger", settings="", scalars="scalars"), "logger=[first_log]"),
    "a logger with a setting": First(
        LOGGER.format(base="Logger", settings=", url: str", scalars="scalars"),
        "logger=[first_log]",
        "plugin.py:12: logger 'first_log': is made without settings; give 'url' a default.",
    ),
    "a logger without a method": First(
        LOGGER.format(base="Logger", settings="", scalars="scalar"),
        "logger=[first_log]",
        "plugin.py:12: logger 'first_log': lacks the methods that its base class leaves open: define 'scalars'.",
    ),
    "a logger without its base class": First(
        LOGGER.format(base="object", settings="", scalars="scalars"),
        "logger=[first_log]",
        "logger 'first_log': is a class, and must derive from Logger (cnnbench.training.loggers.base).",
    ),
    "a network without its base class": First(
        NET.format(parameters="self, spec", channels="1", outputs="2", returned=SCORES).replace("(nn.Module)", ""),
        "model=first_net",
        "model 'first_net': is a class, and must derive from nn.Module.",
    ),
    "a network with an output per class for a task of other outputs": First(
        NET.format(parameters="self, spec", channels="spec.channels", outputs="spec.num_classes", returned=SCORES),
        "model=first_net task=autoencoder",
        "for this task it returns 128 numbers per image (spec.num_outputs, or a parameter num_outputs), not the",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FILES)
def test_a_first_file_trains_or_is_refused_in_a_sentence(name, cnnbench, outputs, tmp_path):
    assert_trains_or_is_refused(FILES[name], cnnbench, outputs, tmp_path)


def test_a_schedule_that_fails_later_ends_the_training_before_the_weights_are_lost(cnnbench, outputs, tmp_path):
    text = SCHEDULE.format(returned="float('nan') if step == 1 else 1.0")
    (tmp_path / "here" / "plugin.py").write_text(f"{IMPORTS}\n{text}")
    ended = cnnbench(*TINY, "epochs=2", "batch_size=32", "plugins=plugin.py", "scheduler=first_falls")
    assert ended.code == 2
    assert "plugin.py:11: scheduler 'first_falls': its factor for step 1 is nan; it scales the learning" in ended.err
    assert len(ended.err.splitlines()) == 1
    assert json.loads((only_run(outputs) / "run.json").read_text())["status"] == "failed"


def test_a_schedule_that_looks_at_scores_is_tried_with_some(cnnbench, tmp_path):
    text = SCHEDULE.format(returned="1.0 if step < horizon.steps_per_epoch else 0.5 + scores[-1]")
    (tmp_path / "here" / "plugin.py").write_text(f"{IMPORTS}\n{text}")
    ended = cnnbench(*TINY, "epochs=2", "dry_run=true", "plugins=plugin.py", "scheduler=first_falls")
    assert ended.code == 0, ended.err
