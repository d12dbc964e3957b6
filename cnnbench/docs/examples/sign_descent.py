# sign_descent.py
import torch

from cnnbench.registry import OPTIMIZERS


class SignDescent(torch.optim.Optimizer):
    """Steps of one length along the sign of the averaged gradient (signSGD, arXiv:1802.04434)."""

    @torch.no_grad()
    def step(self, closure=None):
        """Update the weights by their gradients."""
        for group in self.param_groups:
            for weight in [weight for weight in group["params"] if weight.grad is not None]:
                average = self.state[weight].setdefault("average", torch.zeros_like(weight))  # is in checkpoints
                average.lerp_(weight.grad, 1 - group["momentum"])
                weight.sub_(average.sign(), alpha=group["lr"])


@OPTIMIZERS.register("sign_descent")
def sign_descent(groups, *, lr: float = 0.001, momentum: float = 0.9):
    """Sign descent; `lr` is required, since schedules scale it."""
    return SignDescent(groups, {"lr": lr, "momentum": momentum})
