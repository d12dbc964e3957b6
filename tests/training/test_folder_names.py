"""Names of run folders: plain characters, what is special about a run, and a way back to its settings."""

import re
from dataclasses import replace

import pytest
import yaml

from cnnbench.store.folder import RunFolder
from cnnbench.training.plan import folder_name, plan_run

COMMANDS = {
    "no words": [],
    "numbers": ["optimizer.lr=1e-3", "epochs=7", "seed=3"],
    "lists": ["model.maps=[3, 5]", "model.units=[]"],
    "experiment": ["experiment=cnn_lab/lenet_mnist"],
    "experiment changed": ["experiment=cnn_lab/lenet_v2_mnist", "regularization.dropout=0.5", "++epochs=9"],
    "many": [f"{key}=1" for key in ("data.split_seed", "log_every", "batch_size", "seed", "epochs", "threads")]
    + ["optimizer=adamw", "optimizer.beta1=0.123456789", "optimizer.beta2=0.987654321", "scheduler.final_fraction=0.1"],
    "deleted": ["~data.val_fraction"],
    "odd folder": ["data.root='/a folder/with=signs & ünïcode'"],
}


@pytest.mark.parametrize("words", COMMANDS.values(), ids=COMMANDS)
def test_a_folder_is_named_with_plain_characters_after_what_was_typed(composer, words):
    plan = plan_run(composer, words)
    name = folder_name(plan.named_by, plan.config.identity())
    assert re.fullmatch(r"[A-Za-z0-9._-]{9,120}", name), name
    assert name.endswith("-" + plan.config.identity()[:8])
    assert name[0].isalnum()
    assert "folder" not in name, "where data lie cannot change a result"


def test_a_folder_says_what_is_special_about_its_run(composer):
    plan = plan_run(composer, ["seed=3", "optimizer=adam", "regularization.dropout=0.5", "num_workers=2"])
    assert folder_name(plan.named_by, "0123456789") == "adam_dropout0.5_seed3-01234567"


def test_the_folder_of_a_run_that_goes_on_for_longer_names_its_experiment_too(composer):
    plan = plan_run(composer, ["experiment=cnn_lab/lenet_mnist", "seed=3"])
    longer = replace(plan, typed={"epochs": "epochs=50"})  # as `plan_resume` has it
    assert folder_name(longer.named_by, "0123456789") == "epochs50_cnn_lab-lenet_mnist-01234567"


@pytest.mark.parametrize("words", COMMANDS.values(), ids=COMMANDS)
def test_resume_takes_every_folder_name(composer, cnnbench, outputs, words):
    plan = plan_run(composer, words)
    folder = RunFolder(outputs / "data" / "model" / folder_name(plan.named_by, plan.config.identity()))
    folder.create(plan.config.to_dict(), plan.command, {"identity": plan.config.identity(), "choices": {}})
    shown = cnnbench(f"resume={folder.path}", "--cfg", "job")
    assert shown.code == 0, shown.err
    assert yaml.safe_load(shown.out) == plan.config.to_dict()


def test_a_folder_is_named_after_the_last_part_of_a_path(composer):
    words = ["data=image_folder", "data.folder=/home/me/photos/pets/", "freeze.what=features", "init.weights=imagenet"]
    plan = plan_run(composer, [*words, "model=torchvision", "model.architecture=alexnet"])
    assert folder_name(plan.named_by, "0123456789") == "folder-pets_features_imagenet_architecture-alexnet-01234567"
