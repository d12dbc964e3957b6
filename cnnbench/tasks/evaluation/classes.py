"""Figures by class, with what chance leaves open."""

import math

import numpy as np
import pandas as pd
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support
from torch import Tensor
from torch.nn import functional

from cnnbench.tasks.evaluation.chance import wilson


def by_class(probabilities: Tensor, labels: Tensor, classes: tuple[str, ...]) -> pd.DataFrame:
    """Return a row a class: images, top1 and top5 (shares of its images, top1 with a 95 % interval), loss, precision,
    recall, f1.

    What cannot be said, as the precision of a class that is never answered, is NaN. probabilities: float [N, K].
    """
    number = len(classes)
    labelled = labels.numpy()
    answers = probabilities.argmax(1).numpy()
    top5 = (probabilities.topk(min(5, number), dim=1).indices == labels.unsqueeze(1)).any(1).numpy()
    losses = functional.nll_loss(probabilities.double().clamp_min(1e-38).log(), labels, reduction="none").numpy()
    precision, recall, f1, _ = precision_recall_fscore_support(
        labelled, answers, labels=range(number), zero_division=np.nan
    )
    rows = []
    for label in range(number):
        own = labelled == label
        hits, total = int((answers[own] == label).sum()), int(own.sum())
        low, high = wilson(hits, total)
        rows.append(
            {
                "class": classes[label],
                "images": total,
                "top1": hits / total if total else math.nan,
                "top1_low": low,
                "top1_high": high,
                "top5": top5[own].mean() if total else math.nan,
                "loss": losses[own].mean() if total else math.nan,
            }
        )
    return pd.DataFrame(rows).assign(precision=precision, recall=recall, f1=f1)


def confusion(probabilities: Tensor, labels: Tensor, classes: tuple[str, ...]) -> pd.DataFrame:
    """Return how many images of the class of a row were taken for that of a column."""
    answers = probabilities.argmax(1).numpy()
    counts = confusion_matrix(labels.numpy(), answers, labels=range(len(classes)))
    return pd.DataFrame(counts, index=pd.Index(classes, name="class"), columns=classes)
