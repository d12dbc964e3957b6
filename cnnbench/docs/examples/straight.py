# straight.py
from cnnbench.registry import SCHEDULERS


@SCHEDULERS.register("straight")
def straight(horizon, *, last: float = 0.0):
    """Lower the learning rate in a straight line, to `last` of it."""

    def factor(step, scores):  # scores: of the evaluations so far, higher is better
        return 1 - (1 - last) * step / horizon.num_steps

    return factor
