"""What was meant by a word that means nothing here is said: a key, an option, or what to type in its place."""

import pytest

from cnnbench.training.plan import plan_run
from tests.support.mistakes import mistakes_in

MISREAD = {
    "epoch=3": "did you mean 'epochs'?",
    "data.vla_fraction=0": "did you mean 'data.val_fraction'?",
    "data.nois=0": "no such key",
    "regularization.droput=0.5": "did you mean 'regularization.dropout'?",
    "model.activatoin=relu": "did you mean 'model.activation'?",
    "optimizer.beta3=0.9": "'optimizer' takes 'lr', 'momentum', 'weight_decay', 'nesterov'",
    "optimizer.beta1=0.9": "it is a setting of 'adam', 'adamw', 'muon', 'nadam', 'radam', not of 'sgd'",
    "model.blocks=[2,2]": "it is a setting of 'resnet', not of 'lenet'",
    "checkpoint.kep=1": "did you mean 'checkpoint.keep'?",
    "model=lenett": "did you mean 'lenet'?",
    "model=LeNet": "did you mean 'lenet'?",
    "experiment=lenet_mnist": "did you mean 'cnn_lab/lenet_mnist'?",
    "optimizer=adm": "did you mean 'adam'?",
    "optimizer=sdg": "did you mean 'sgd'?",
    "optimizer=sgf": "did you mean 'sgd'?",
    "optimizer.lr=0,1": "put -m before it to run each of them; one number has a point: optimizer.lr=0.1",
    "max_minutes=0,5": "max_minutes=0.5",
    "optimizer.lr=1,5": "one number has a point: optimizer.lr=1.5",
    "optimizer.lr=1.000,5": "one number has a point: optimizer.lr=1000.5",
    "epochs=3,seed=1": "type spaces between them: epochs=3 seed=1",
    "model=lenet,mlp,seed=1": "type spaces between them: model=lenet,mlp seed=1",
    "optimzer.lr=1": "did you mean 'optimizer.lr'?",
    "optimzer.weight_decay=1": "did you mean 'optimizer.weight_decay'?",
    "train.epochs=3": "did you mean 'epochs'?",
    "seed=${nope}": "there is no setting 'nope' to refer to",
    "data=cifar": "did you mean 'cifar10",
    "experiment=cnn_lab/lenet": "did you mean 'cnn_lab/lenet_",
    "augmentation.flp.p=1": "did you mean 'flip'?",
    "task=regression": "there are 'autoencoder', 'classification'",
    "seed=0,1": "put -m before it",
    "seed=range(0,1000000000)": "put -m before it",
    "seeds=3": "no such key; type -m seeds=3 to run seed=0,1,… one after the other, or seed=NUMBER for one run",
    "model.units=8,16": "is no list; type 'model.units=[8,16]'",
    "model.units=(8,16)": "cannot be read; a list is typed 'model.units=[8,16]'",
    "model.units=8;16": "cannot be read; a list is typed 'model.units=[8,16]'",
    "model.units=8": "must be a list, each a whole number above 0; a list of one is typed 'model.units=[8]'",
    "task.metrics=ece,brier": "is no list; type 'task.metrics=[ece,brier]'",
    "data.subset.classes=3,4": "is no list; type 'data.subset.classes=[3,4]'",
    "model.architecture=größe (1)": "cannot be read; as text it is typed 'model.architecture=\"größe (1)\"'",
    "/epochs=3": "begins with '/'; type epochs=3",
    "model=lenet,lenet_v2": "put -m before it",
    "hydra.run.dir=/tmp/elsewhere": "CNNBENCH_OUTPUTS=FOLDER",
    "hydra/launcher=joblib": "is Hydra's own, which cnnbench does not use; -m … jobs=4",
    "hydra/sweeper=optuna": "-m optimizer.lr=0.1,0.01 seeds=3 runs each combination",
    "engine=slurm": "is for the command line: cnnbench -m … engine=slurm",
    "epochs": "is not of the form key=value; did you mean 'epochs=…'?",
    "lenet": "is not of the form key=value; did you mean 'model=lenet'?",
    "lenet_mnist": "did you mean 'experiment=cnn_lab/lenet_mnist'?",
    "model": "type model=OPTION, one of those that cnnbench options model lists",
    "output=x": "type CNNBENCH_OUTPUTS=x cnnbench …",
    "verbose=true": "no such key; cnnbench help settings lists all",
    "model=my_net": "cnnbench options model lists all",
    "data=nowhere": "there are 'caltech101', 'cats_dogs', ",
    "regularization=[dropout,batchnrom]": "did you mean 'batchnorm'?",
    "optimizer=[adam,sgd]": "-m optimizer=adam,sgd",
    "resum=outputs/x": "did you mean 'resume'?",
    "+foo=3": "no such key",
    "foo.bar=3": "no such key",
    "parent=abc": "no such key",
    "experiment.note=3": "",
    "~optimizer.lr": "must be given: a number above 0",
    "optimizer=3": "no such optimizer",
    "augmentation.flip=0.5": "takes settings of its own",
    "regularization.early_stopping=3": "'patience', 'min_delta'",
    "checkpoint=3": "is a group of settings",
}


@pytest.mark.parametrize("name", ["last", "a/b"])
def test_a_name_that_would_mean_another_run_is_refused_before_anything_starts(composer, name):
    (problem,) = mistakes_in(composer, f"name={name}").values()
    assert "does not name a run" in problem


def test_two_whole_numbers_are_no_decimal_comma(composer):
    assert "point" not in mistakes_in(composer, "batch_size=32,64")["batch_size=32,64"]


def test_every_key_of_a_misspelt_section_is_answered(composer):
    mistakes = mistakes_in(composer, "optimzer.lr=1", "optimzer.momentum=0")
    assert [problem.partition("mean ")[2] for problem in mistakes.values()] == [
        "'optimizer.lr'?",
        "'optimizer.momentum'?",
    ]


@pytest.mark.parametrize("path", [r"C:\Users\me", "C:\\My Photos\\", r"\\server\new\[1]", r"'D:\a, b'"])
@pytest.mark.parametrize("key", ["data.root", "init.file"])
def test_a_path_of_windows_is_read_as_it_is_typed(composer, key, path):
    section, _, name = key.partition(".")
    assert composer.compose([f"{key}={path}"]).values[section][name] == path.strip("'")
    job, _ = composer.expand([f"{key}={path}", "seed=0,1"])
    assert composer.compose(job).values[section][name] == path.strip("'")


@pytest.mark.parametrize("word", ["nan", "null", "true", "1e3", "7"])
def test_a_word_that_is_read_as_no_text_is_answered_with_how_text_is_typed(composer, word):
    key = "model.architecture"
    (problem,) = mistakes_in(composer, "model=timm", f"{key}={word}").values()
    quoted = problem.rpartition("'model")[2].rstrip("'")
    assert quoted == f'.architecture="{word}"'
    assert plan_run(composer, ["model=timm", f"model{quoted}"]).config.model.settings["architecture"] == word


def test_a_list_with_semicolons_in_a_sweep_is_answered_with_commas(cnnbench):
    message = cnnbench("-m", "seed=0;1").err
    assert "  seed=0;1  cannot be read; after -m, values are separated by commas: seed=0,1\n" in message


def test_a_decimal_comma_in_a_sweep_is_answered_with_what_it_means(cnnbench):
    message = cnnbench("-m", "optimizer.lr=0,1").err
    assert "optimizer.lr=0,1 is two values, 0 and 1; one number has a point: optimizer.lr=0.1" in message
    assert "point" not in cnnbench("-m", "batch_size=0,64").err


@pytest.mark.parametrize("word", MISREAD)
def test_a_word_that_nothing_reads_is_answered_with_what_was_meant(composer, word):
    mistakes = mistakes_in(composer, word)
    assert list(mistakes) == [word], "one mistake, quoted as it was typed"
    assert MISREAD[word] in mistakes[word]


TYPED_INSTEAD = {
    "patience=3": "regularization.early_stopping.patience=3",
    "dropout=0.5": "regularization.dropout=0.5",
    "batchnorm=false": "regularization.batchnorm=false",
    "weight_decay=0.1": "optimizer.weight_decay=0.1",
    "learning_rate=0.1": "optimizer.lr=0.1",
    "data.batch_size=16": "batch_size=16",
    "batchsize=16": "batch_size=16",
    "workers=2": "num_workers=2",
    "gpu=0": "device=cuda:0",
    "gpu=true": "device=cuda",
    "amp=true": "precision=bf16",
    "pretrained=true": "init.weights=imagenet model=torchvision model.architecture=resnet18",
    "optimizer.name=adam": "optimizer=adam",
    "model.name=resnet18": "model=resnet18",
    "scheduler.name=cosin": "scheduler=cosine",
    "regularization=[dropout,batchnorm]": "regularization.dropout=0.5 regularization.batchnorm=true",
    "augmentation=[flip,crop]": "data=synthetic data.crop=0.8 augmentation.flip.p=0.5 augmentation.crop={}",
}


@pytest.mark.parametrize("word", TYPED_INSTEAD)
def test_a_word_of_another_program_is_answered_with_what_to_type_here_and_that_works(composer, word):
    (problem,) = mistakes_in(composer, word).values()
    instead = TYPED_INSTEAD[word].removeprefix("data=synthetic data.crop=0.8 ")
    key = instead.partition("=")[0]
    assert problem.endswith((f"did you mean '{key}'?", f"type {instead}", f"type the settings of each: {instead}"))
    plan_run(composer, TYPED_INSTEAD[word].split())
