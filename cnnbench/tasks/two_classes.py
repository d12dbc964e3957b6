"""What can be said of a classifier of two classes at every threshold: its ROC and precision-recall curves."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class TwoClasses:
    """Probabilities, float [N, 2], and labels, int64 [N]; the second class is the positive one.

    Both classes have to occur.
    """

    probabilities: Tensor
    labels: Tensor

    @property
    def _scores(self) -> Tensor:
        """The logits of the second class, float64 [N]: probabilities near 1 would be rounded to 1."""
        logarithms = self.probabilities.double().clamp_min(1e-38).log()
        return logarithms[:, 1] - logarithms[:, 0]

    def metrics(self) -> dict[str, float]:
        """Return the area under the ROC curve, and the average precision."""
        from sklearn.metrics import average_precision_score, roc_auc_score

        columns = self.labels.numpy(), self._scores.numpy()
        return {
            "roc_auc": float(roc_auc_score(*columns)),
            "average_precision": float(average_precision_score(*columns)),
        }

    def roc(self) -> "pd.DataFrame":
        """Return a row for each threshold of the probability: false and true positive rate."""
        import pandas as pd
        from scipy.special import expit
        from sklearn.metrics import roc_curve

        false, true, thresholds = roc_curve(self.labels.numpy(), self._scores.numpy())
        columns = {"threshold": expit(thresholds), "false_positive_rate": false, "true_positive_rate": true}
        return pd.DataFrame(columns)

    def precision_recall(self) -> "pd.DataFrame":
        """Return a row for each threshold of the probability: recall and precision."""
        import pandas as pd
        from scipy.special import expit
        from sklearn.metrics import precision_recall_curve

        precision, recall, thresholds = precision_recall_curve(
            self.labels.numpy(), self._scores.numpy(), drop_intermediate=True
        )
        # The last point has recall 0, and no threshold.
        return pd.DataFrame({"threshold": expit(thresholds), "recall": recall[:-1], "precision": precision[:-1]})
