# worst_recall.py
from cnnbench.registry import METRICS


@METRICS.register("worst_recall", higher_is_better=True)
def worst_recall(predictions):  # .probabilities: float [N, K]; .labels: int64 [N]; .classes; .per_class
    """The recall of the class that is recognised least."""
    right = predictions.probabilities.argmax(1) == predictions.labels
    return min(right[predictions.labels == label].float().mean() for label in predictions.labels.unique())
