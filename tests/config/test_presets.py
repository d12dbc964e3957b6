"""What `conf/` promises: every option composes, states every setting of its part, and gives way to what is typed."""

import re
from itertools import product
from typing import Any

import pytest
import yaml

from cnnbench.config.run_config import known_keys
from cnnbench.config.schema import (
    CHOICES,
    GROUPS,
    OVERLAYS,
    SECTIONS,
    Averaging,
    Clipping,
    EarlyStopping,
    Regularization,
    TopLevelConfig,
)
from cnnbench.config.values import conf_dir
from cnnbench.errors import ConfigError
from cnnbench.plugins import register_everything
from cnnbench.registry import AUGMENTATIONS, Section
from cnnbench.training.plan import plan_run
from cnnbench.training.setup import setup
from tests.conftest import REQUIRED
from tests.support.options import walked, words_for
from tests.support.selection import diagonal, everyday

register_everything()

CONF = conf_dir()
FILES = {
    f"{group.name}={path.relative_to(group).with_suffix('').as_posix()}": path
    for group in sorted(CONF.iterdir())
    if group.is_dir() and group.name != "hydra"
    for path in sorted(group.rglob("*.yaml"))
}
COMPONENT_OPTIONS = [word for word in FILES if word.partition("=")[0] in set(GROUPS) - {"augmentation"}]
RECIPES = [word for word in FILES if word.startswith("model=") and "defaults:" in FILES[word].read_text()]


def options_of(group: str) -> list[str]:
    return [word for word in FILES if word.startswith(f"{group}=")]


def content(word: str) -> dict[str, Any]:
    return yaml.safe_load(FILES[word].read_text(encoding="utf-8")) or {}


def node(word: str) -> dict[str, Any]:
    """Return what an option says of its own group; a model preset may say something of other groups too."""
    return content(word).get(word.partition("=")[0], content(word))


def test_the_command_without_words_composes(composer):
    config = plan_run(composer, []).config
    assert (config.model.name, config.data.name, config.seed) == ("lenet", "digits", 0)


@pytest.mark.parametrize("word", [word for group in ("data", "task", "experiment") for word in options_of(group)])
def test_every_option_composes_and_validates(composer, word):
    group, _, option = word.partition("=")
    assert plan_run(composer, [word, *REQUIRED.get(option, ())]).choices[group] == option


@pytest.mark.parametrize("word", [word for word in options_of("data") if "???" in FILES[word].read_text()])
def test_every_setting_that_must_be_given_is_asked_for_by_name(composer, word):
    required = REQUIRED[word.partition("=")[2]]
    for lacking in required:
        with pytest.raises(ConfigError, match=rf"{lacking.partition('=')[0]}= +must be given"):
            plan_run(composer, [word, *(given for given in required if given != lacking)])


DATA = "digits", "synthetic"  # gray and in colour
MODELS = [name for name in walked("model") if isinstance(name, str)]


@pytest.mark.parametrize(("model", "data"), everyday(product(MODELS, DATA), diagonal(MODELS, DATA)))
def test_every_model_fits_data_that_need_no_download(composer, model, data):
    plan = plan_run(composer, [*words_for("model", model), f"data={data}"])
    assert plan.choices["model"] == model
    assert setup(plan.config).parameters["trainable"] > 0


@pytest.mark.parametrize(
    "word",
    [word for group in ("augmentation", "optimizer", "scheduler", "regularization") for word in options_of(group)],
)
def test_every_option_has_an_effect_on_images_with_room_for_a_window(composer, word):
    plan = plan_run(composer, [word, "data=synthetic", "data.num_train=200", "data.num_test=20", "data.crop=28"])
    group, _, option = word.partition("=")
    assert plan.choices[group] == option
    assert setup(plan.config).horizon.num_steps > 0


def test_every_group_has_been_seen():
    assert {word.partition("=")[0] for word in FILES} == {*GROUPS, "regularization", "engine", *OVERLAYS}


def test_the_shared_settings_of_groups_are_stated_once_in_order_at_their_defaults():
    shared = yaml.safe_load((CONF / "shared.yaml").read_text(encoding="utf-8"))
    assert list(shared) == list(CHOICES)
    for group, schema in CHOICES.items():
        defaults = {key: field.default for key, field in schema.model_fields.items() if key != "part"}
        plain = {key: value.model_dump() if isinstance(value, Section) else value for key, value in defaults.items()}
        assert shared[group] == plain
        assert list(shared[group]) == list(plain)


def stated_beyond_defaults(group: str, name: str, settings: dict[str, Any]) -> None:
    """Assert that a preset states known settings, in the order of the signature, and none at its default."""
    registry = GROUPS[group]
    shared = {key: field.default for key, field in CHOICES[group].model_fields.items()} if group in CHOICES else {}
    defaults = registry[name].defaults() | shared
    known = [*registry[name].schema.model_fields, *shared]
    assert list(settings) == [key for key in known if key in settings]
    assert [key for key, value in settings.items() if key in defaults and value == defaults[key]] == []


@pytest.mark.parametrize("word", COMPONENT_OPTIONS)
def test_an_option_states_only_what_it_sets_beyond_the_defaults_in_the_order_of_the_signature(word):
    settings = dict(node(word))
    assert next(iter(settings)) == "name"
    stated_beyond_defaults(word.partition("=")[0], settings.pop("name"), settings)


@pytest.mark.parametrize("word", options_of("augmentation"))
def test_an_augmentation_option_does_so_for_its_parts_in_the_order_in_which_they_act(word):
    parts = node(word)
    for name, settings in parts.items():
        stated_beyond_defaults("augmentation", name, settings)
    assert list(parts) == sorted(parts, key=lambda name: AUGMENTATIONS[name].facts["order"])


@pytest.mark.parametrize("group", GROUPS)
def test_a_registered_name_is_an_option_with_or_without_a_file(composer, group):
    for name in GROUPS[group]:
        required = [key for key, field in GROUPS[group][name].schema.model_fields.items() if field.is_required()]
        values = composer.compose([f"{group}={name}"]).values[group]
        assert values.get("name") == name or name in values or f"{group}={name}" in FILES
        if not required and f"{group}={name}" not in FILES:
            assert plan_run(composer, ["data=synthetic", f"{group}={name}"][group == "data" :]).choices[group] == name


def test_no_regularization_states_each_setting_in_order():
    stated = node("regularization=none")
    assert list(stated) == list(Regularization.model_fields)
    for key, section in (("early_stopping", EarlyStopping), ("clip", Clipping), ("average", Averaging)):
        assert list(stated[key]) == list(section.model_fields)


@pytest.mark.parametrize("word", [word for word in options_of("regularization") if word != "regularization=none"])
def test_a_regularization_is_none_but_for_what_it_is_called_after(composer, word):
    nothing = plan_run(composer, ["model=lenet_v2"]).config.regularization.model_dump()
    something = plan_run(composer, ["model=lenet_v2", word]).config.regularization.model_dump()
    changed = {key for key in nothing if nothing[key] != something[key]}
    assert changed == set(node(word)) - {"defaults"}
    assert len(changed) == 1


def test_the_primary_file_states_each_setting_of_no_group_in_order():
    primary = yaml.safe_load((CONF / "config.yaml").read_text(encoding="utf-8"))
    sections = [key for key in SECTIONS if key != "regularization"]  # a group, with files of its own
    assert list(primary) == ["defaults", *TopLevelConfig.model_fields, *sections]
    for key in sections:
        assert list(primary[key]) == list(SECTIONS[key].model_fields)


def test_each_setting_that_no_option_brings_is_on_the_page_of_settings(cnnbench):
    text = cnnbench("help", "settings").out
    keys = [key for key in known_keys({}) if key not in (*GROUPS, *OVERLAYS, *SECTIONS)]
    keys = [key for key in keys if not key.startswith("augmentation.")]
    assert {"epochs", "optimizer.layer_decay", "data.subset.first", "regularization.clip.norm"} <= set(keys)
    assert [key for key in keys if not re.search(rf"^`{re.escape(key)}=", text, re.MULTILINE)] == []


def test_the_help_names_each_setting_of_no_group_and_each_option(cnnbench):
    text = cnnbench("train", "--help").out
    assert [key for key in TopLevelConfig.model_fields if not re.search(rf"^ *{key}=", text, re.MULTILINE)] == []
    options = [word.partition("=")[2] for word in FILES if not word.startswith("experiment=")]
    assert [one for one in options if not re.search(rf"[ ,]{re.escape(one)}(,|$)", text, re.M)] == []


@pytest.mark.parametrize("word", RECIPES)
def test_a_model_brings_the_recipe_of_its_file(composer, word):
    plan = plan_run(composer, [word])
    brought = {
        key.removeprefix("override /"): value for entry in content(word)["defaults"] for key, value in entry.items()
    }
    assert brought
    assert {group: plan.choices[group] for group in brought} == brought
    assert plan.config.batch_size == content(word)["batch_size"]
    assert plan.config.data.crop == content(word).get("data", {}).get("crop")


@pytest.mark.parametrize("word", RECIPES)
def test_what_is_typed_wins_over_the_recipe_of_a_model(composer, word):
    typed = ["optimizer=adam", "optimizer.lr=0.0123", "augmentation=none", "scheduler=cosine", "batch_size=7"]
    typed += ["data.crop=null", "model.dropout=0.125", "epochs=3"]
    config = plan_run(composer, [word, *typed]).config
    assert (config.optimizer.name, config.optimizer.settings["lr"]) == ("adam", 0.0123)
    assert (config.augmentation, config.scheduler.name) == ((), "cosine")
    assert (config.batch_size, config.data.crop, config.epochs) == (7, None, 3)
    assert config.network().settings["dropout"] == 0.125


@pytest.mark.parametrize("word", ["optimizer=adam", "augmentation=none", "scheduler=cosine"])
def test_what_is_typed_wins_wherever_it_stands(composer, word):
    before, after = (plan_run(composer, words).config for words in ([word, RECIPES[-1]], [RECIPES[-1], word]))
    assert before == after
    group = word.partition("=")[0]
    assert content(word).items() <= before.to_dict()[group].items()


@pytest.mark.parametrize("word", options_of("experiment"))
def test_an_experiment_fixes_what_it_names_and_what_is_typed_wins_over_it(composer, word):
    fixed = {key: value for key, value in content(word).items() if key in TopLevelConfig.model_fields}
    required = REQUIRED.get(word.partition("=")[2], ())
    config = plan_run(composer, [word, *required]).config.to_dict()
    references = fixed.pop("references", [])
    assert config["references"] == [{"remark": "", "error": False, **reference} for reference in references]
    assert {key: config[key] for key in fixed} == fixed
    typed = {key: value + 1 for key, value in fixed.items() if isinstance(value, int)}
    config = plan_run(composer, [*(f"{key}={value}" for key, value in typed.items()), word, *required]).config
    assert {key: getattr(config, key) for key in typed} == typed


@pytest.mark.parametrize("word", options_of("experiment"))
def test_an_experiment_opens_with_its_command_and_says_what_was_published(word):
    header = [
        line.lstrip("# ") for line in FILES[word].read_text(encoding="utf-8").splitlines() if line.startswith("#")
    ]
    assert header[0] == "@package _global_"
    assert header[1] in (f"cnnbench {word}", f"cnnbench -m {word}")
    assert "Published" in " ".join(header)


# What someone who compares an experiment with its source must know, by the beginning of its name.
DEVIATIONS = {
    **{
        f"transfer_lab/{name}_mnist": ("54 000 train, and the epoch that is best on the other 6 000 is tested",)
        for name in ("autoencoder", "conv_autoencoder", "siamese", "triplet")
    },
    "keras_notes/": ("as torch's do (Keras: Glorot's uniform",),
    "keras_notes/resnet_fashion": ("eps 1e-8 (Keras: 1e-7), batch norm eps 1e-5 and keeps 0.9",),
    "regularization_lab/mlp_l2": ("0.001 here, and 5e-4 in the sweep",),
    "regularization_lab/mlps": ("L2 has 5e-4 here, and 0.001 in regularization_lab/mlp_l2",),
    "transfer_lab/caltech101_squeezenet": ("5 206 train, 868 validate and 2 603 test",),
    "architectures/": ("tmp among the backgrounds, a JPEG without a suffix, is left out",),
}


@pytest.mark.parametrize("start", DEVIATIONS)
def test_an_experiment_states_what_deviates_from_its_source(start):
    files = {word: path for word, path in FILES.items() if word.startswith(f"experiment={start}")}
    assert files
    for word, path in files.items():
        lines = [line.lstrip("# ") for line in path.read_text(encoding="utf-8").splitlines() if line.startswith("#")]
        assert [phrase for phrase in DEVIATIONS[start] if phrase not in " ".join(lines)] == [], word


@pytest.mark.parametrize("name", ["autoencoder", "conv_autoencoder", "siamese", "triplet"])
def test_what_is_said_of_the_images_that_train_is_so(name, composer):
    config = plan_run(composer, [f"experiment=transfer_lab/{name}_mnist"]).config
    assert (config.data.val_fraction, config.tested) == (0.1, "best")


def test_what_is_said_of_two_penalties_is_so(composer):
    alone = plan_run(composer, ["experiment=regularization_lab/mlp_l2"]).config
    swept = plan_run(composer, ["experiment=regularization_lab/mlps", "regularization=l2"]).config
    assert (alone.regularization.l2, swept.regularization.l2) == (0.001, 0.0005)
