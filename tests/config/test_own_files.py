"""Presets and experiments of one's own: what is wrong in a file is said with its name, its line, and what to write."""

import pytest

HEAD = "# @package _global_\n"
OWN_FILES = {
    "experiment=mine": {
        "epochs: 3": "/own/experiment/mine.yaml: its first line must be '# @package _global_'",
        "": "/own/experiment/mine.yaml: its first line must be '# @package _global_'",
        f"{HEAD}model: lenet_v2": ".yaml:2: an option is chosen in the list of defaults: '- override /model: lenet_v2'",
        f"{HEAD}defaults:\n- /model: mlp": ".yaml:3: an option is chosen by '- override /model: mlp'",
        f"{HEAD}defaults:\n- model: mlp": ".yaml:3: an option is chosen by '- override /model: mlp'",
        f"{HEAD}defaults:\n- override /modle: mlp": ".yaml:3: there is no group 'modle'; did you mean 'model'?",
        f"{HEAD}defaults:\n- override /model: lennet": ".yaml:3: lennet: no such model; did you mean 'lenet'?",
        f"{HEAD}defaults:\n- override /model mlp": ".yaml:3: an option is chosen by '- override /GROUP: OPTION'",
        f"{HEAD}epochs: 3\n  seed: 4": ".yaml cannot be read: mapping values are not allowed in this context in line 3",
        f"{HEAD}epochs:3": ".yaml:2: 'epochs:3' sets nothing; write 'epochs: 3'",
        f"{HEAD}seed: ${{nope}}": "/own/experiment/mine.yaml:2: seed: ${nope}: there is no setting 'nope' to refer to",
        f"{HEAD}epoch: 3": "epoch=3  no such key; did you mean 'epochs'? (in experiment/mine.yaml)",
        f"{HEAD}plugins: my.py": "belongs into the command, not into a file: cnnbench … plugins=my.py (in experiment/",
    },
    "model=own_preset": {
        "# of a model\nmodel:\n  name: mlp": "own_preset.yaml:2: write the settings of model without 'model:'",
        "name: mlp\nunits: [8]\nactivation: ${nope}": ".yaml:3: activation: ${nope}: there is no setting 'nope'",
        "maps: [4, 8]": "model.name=null  no such model; there are",
        "name: lenet": "model.maps=        must be given: a list of 2, each a whole number above 0 (in model/",
    },
}


@pytest.mark.parametrize(
    ("word", "text"), [(word, text) for word, texts in OWN_FILES.items() for text in texts], ids=repr
)
def test_what_is_wrong_in_a_file_of_ones_own_is_said_with_its_name_and_what_to_write(cnnbench, word, text, tmp_path):
    file = tmp_path / "own" / f"{word.replace('=', '/')}.yaml"
    file.parent.mkdir(parents=True)
    file.write_text(text)
    outcome = cnnbench("--config-dir", str(tmp_path / "own"), word)
    assert (outcome.code, outcome.out) == (2, "")
    assert OWN_FILES[word][text] in outcome.err
    assert file.name in outcome.err


def test_the_folder_of_one_group_is_answered_with_the_one_that_holds_it(cnnbench, tmp_path):
    folder = tmp_path / "own" / "model"
    folder.mkdir(parents=True)
    (folder / "small.yaml").write_text("name: mlp")
    outcome = cnnbench("--config-dir", str(folder), "model=small")
    assert (outcome.code, outcome.err.endswith(": give the folder that holds model/: ../own\n")) == (2, True)
    (folder / "data").mkdir()
    assert "give the folder" not in cnnbench("--config-dir", str(folder), "epoch=1").err


PARTS = """
from cnnbench.augmentation.base import Augmentation
from cnnbench.registry import register_augmentation, register_dataset, register_model

@register_dataset("mine")
def mine(root, *, side: int):
    return None

@register_model("neat")
def neat(spec, wide: int):
    return None

@register_augmentation("dim")
class Dim(Augmentation):
    def __init__(self, *, by: float):
        self.by = by
"""


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("data=mine", "data.side=  must be given: a whole number (in the signature in parts.py)\n"),
        ("model=neat", "model.wide=  must be given: a whole number (in the signature in parts.py)\n"),
        ("augmentation=dim", "augmentation.dim.by=  must be given: a number (in the signature in parts.py)\n"),
        ("model=before", "not of 'neat'; 'model' takes 'wide' (in model/before.yaml)"),
        ("data=mine data.side=4 data.size=3", "did you mean 'augmentation.cutout.size'? 'data' takes 'side', "),
    ],
)
def test_what_a_part_of_ones_own_lacks_or_no_longer_has_is_said_with_its_place_and_its_settings(
    cnnbench, tmp_path, words, said
):
    (tmp_path / "parts.py").write_text(PARTS)
    (tmp_path / "own" / "model").mkdir(parents=True)
    (tmp_path / "own" / "model" / "before.yaml").write_text("name: neat\nmaps: 3\nwide: 4")
    folder = ["--config-dir", str(tmp_path / "own")]
    refused = cnnbench(*folder, f"plugins={tmp_path / 'parts.py'}", *words.split())
    assert refused.code == 2
    assert said in refused.err
