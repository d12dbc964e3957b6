"""To make codes of images: what tasks share whose networks end in one, or have one in their midst."""

from abc import abstractmethod

from torch import Tensor, nn

from cnnbench.config.schema import RunConfig
from cnnbench.data.images import DataSpec
from cnnbench.data.loader import Batch
from cnnbench.errors import ConfigError, Mistake
from cnnbench.models.build import Encoder
from cnnbench.tasks import exhibits
from cnnbench.tasks.base import Task
from cnnbench.tasks.context import EvalContext
from cnnbench.tasks.retrieval import neighbour_accuracy, recall_at, silhouette

DIMENSIONS = 128  # of the codes of a model that is no encoder
RANKS = (1, 5, 10)
RECALLS = tuple(f"recall@{rank}" for rank in RANKS)


class Coding(Task):
    """Something to learn with a network that makes codes of images; any model can make them."""

    def __init__(self, spec: DataSpec, dimensions: int | None, show_every: int | None) -> None:
        super().__init__(spec)
        self._dimensions = dimensions
        self.show_every = show_every

    @property
    def num_outputs(self) -> int:
        """Return the size of the code of a model that is no encoder."""
        return self._dimensions or DIMENSIONS

    def size_of_code(self, model: nn.Module) -> int:
        """Return the size of a model's code. Raises ConfigError where another one is wanted of an encoder."""
        if not isinstance(model, Encoder):
            return self.num_outputs
        if self._dimensions not in (None, model.dimensions):
            problem = f"the model is an encoder, whose code has {model.dimensions}; give null, and set the model's own"
            raise ConfigError([Mistake(f"task.dimensions={self._dimensions}", problem)])
        return model.dimensions

    def validate(self, config: RunConfig) -> None:
        """Raise ConfigError where a network would have classifiers half-way up, which nothing would train."""
        if config.model.settings.get("auxiliary"):
            problem = f"are classifiers, of no use to task={config.task.name}; give false"
            raise ConfigError([Mistake("model.auxiliary=true", problem)])

    @abstractmethod
    def encode(self, network: nn.Module, batch: Batch) -> Tensor:
        """Return the codes of images, float [B, D]."""

    def final_evaluation(self, context: EvalContext) -> dict[str, float]:
        """Write and draw the codes of all test images; return what their neighbours, also of training, say."""
        codes, labels = {}, {}
        for split in ("train", "test"):
            codes[split] = context.map_batches(context.splits[split], self.encode)
            labels[split] = context.splits[split].labels.cpu()
        found, true, classes = codes["test"], labels["test"], context.data.spec.classes
        exhibits.show_codes(context, found, true)
        exhibits.save_codes(context.folder, found, true, classes)
        figure = exhibits.scatter(found, true, classes, seed=0)
        if figure is not None:
            context.save("tsne", figure)
        unmeasured = {} if set(RECALLS) <= set(self.eval_metrics) else recalls(found, true)
        voted = neighbour_accuracy(codes["train"], labels["train"], found, true)
        return unmeasured | {"5-nn": voted, "silhouette": silhouette(found, true)}


def recalls(codes: Tensor, labels: Tensor) -> dict[str, float]:
    """Return how often one of the nearest others is of the same class. codes: float32 [N, D]. labels: int64 [N]."""
    return dict(zip(RECALLS, recall_at(codes, labels, RANKS), strict=True))
