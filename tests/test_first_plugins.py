"""What people write first when they write a network or a logger: each works, or is answered in a sentence."""

import pytest

from tests.support.first_plugins import First, assert_trains_or_is_refused

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
SCORES = "self.last(self.pool(images).flatten(1))"

FILES = {
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
        "plugin.py:10: model 'first_net': the default of 'width', 8, does not fit its type: text; "
        "the default of 'kind', 'c', does not fit its type: one of a, b.",
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
    "a setting called as the choice itself": First(
        NET.format(parameters='self, spec, *, name: str = "a"', channels="spec.channels", outputs="spec.num_outputs",
                   returned=SCORES),
        "model=first_net",
        "plugin.py:10: model 'first_net': a setting cannot be called 'name', which is the key of the choice itself",
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
