"""`compile=true`: before the first step of a training, torch compiles the network that the steps call."""

import copy
import os
import shutil
import time
from dataclasses import replace

import torch

from cnnbench.errors import SettingError, UserError, duration, shortened
from cnnbench.training import console
from cnnbench.training.setup import TrainingSetup
from cnnbench.training.step import compute_gradients

BACKEND = "inductor"


def check_compiler(device: torch.device) -> None:
    """Raise SettingError where torch would need a C++ compiler, and there is none."""
    compiler = os.environ.get("CXX", "cl" if os.name == "nt" else "g++")
    if device.type == "cpu" and shutil.which(compiler) is None:
        problem = f"needs a C++ compiler, and there is no '{compiler}'; install g++ or name one in CXX, or give false"
        raise SettingError("compile=true", problem)


def compiled(training: TrainingSetup) -> TrainingSetup:
    """Return the training with a compiled network for its steps, and say how long that took.

    What is evaluated, averaged, drawn, kept or exported is the network as it was written, of the same weights. Raises
    UserError where torch cannot compile the network.
    """
    config, network = training.config, training.network
    began = time.perf_counter()
    torch.compiler.reset()  # of a class of networks, it compiles eight in a process, and leaves others as they are
    in_steps = copy.copy(network)  # the same layers, weights and names: only what calls this calls compiled code
    training = replace(training, compiled=in_steps)
    buffers = {name: buffer.clone() for name, buffer in network.named_buffers()}
    try:
        # Parts of a batch may have two sizes: each gets code of its own, and none for any size, which would replace it.
        # No mode with CUDA graphs: each call overwrites the outputs of the one before it, which may still be in use.
        in_steps.compile(backend=BACKEND, dynamic=False, options={"deterministic": config.deterministic})
        for epoch in (1, config.epochs) if config.freeze.epochs else (1,):  # later on, other weights have gradients
            training.set_train_mode(epoch)
            compute_gradients(training, next(training.train.epoch(training.order(epoch), config.batch_size, epoch)))
    except Exception as error:
        lines = str(error).splitlines() or [""]
        cause = shortened(next((line for line in lines if "error:" in line), lines[0]))
        raise UserError(
            f"compile=true: torch cannot compile '{config.model.name}' here: {type(error).__name__}: {cause}. "
            "compile=false trains it as it is."
        ) from error
    training.optimizer.zero_grad()
    for name, buffer in network.named_buffers():
        buffer.copy_(buffers[name])
    console.say(f"  compiled the network in {duration(time.perf_counter() - began)}, which images/s leave out")
    return training
