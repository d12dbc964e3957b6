"""What the last layer sees, of a sample of a split."""

import torch
from torch import nn

from cnnbench.analysis.explanation import features
from cnnbench.analysis.explanation.explainer import Explainer
from cnnbench.analysis.explanation.features import features_of, inputs_of, penultimate_features
from tests.support.explaining import NETWORKS, TASKS, untrained


def features_of_test(explainer: Explainer, seed: int = 0) -> features.Features:
    return features_of(explainer.run, explainer.network, "test", explainer.device, seed)


def test_features_are_the_inputs_of_the_layer_that_computes_the_scores(explainer):
    found = features_of_test(explainer)
    (batch,) = explainer.run.batches("test").epoch(torch.arange(40), 40)
    with torch.inference_mode():
        expected = explainer.network.dense(explainer.network.features(batch.images).flatten(1))
    torch.testing.assert_close(found.values, expected)
    assert torch.equal(found.labels, batch.labels)
    assert (found.source, found.total) == ("inputs of head.linear", 40)


def test_features_are_of_a_sample_without_replacement(explainer, monkeypatch):
    everything = features_of_test(explainer)
    monkeypatch.setattr(features, "TSNE_POINTS", 15)
    some, again, others = (features_of_test(explainer, seed) for seed in (0, 0, 1))
    assert len(some.values) == 15
    assert torch.equal(some.values, again.values)
    assert not torch.equal(some.values, others.values)
    rows = [(everything.values - one).abs().sum(1).argmin().item() for one in some.values]
    assert len(set(rows)) == 15
    assert torch.equal(everything.labels[rows], some.labels)


def test_features_of_a_head_of_several_layers_are_those_of_its_last():
    found = features_of_test(untrained(*NETWORKS["lenet"], "head.units=[7]"))
    assert (found.values.shape, found.source) == ((20, 7), "inputs of head.linear.linear")


def test_maps_that_scores_are_computed_from_are_averaged(explainer):
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 3, 1)).eval()
    expected = network[:2](explainer.images).mean((2, 3))
    torch.testing.assert_close(inputs_of(network, ("2",), explainer.images), expected)


def test_the_features_of_an_encoder_are_its_embeddings():
    explainer = untrained(*NETWORKS["encoder"], "data.image_size=20", *TASKS["autoencoder"])
    assert penultimate_features(explainer.run, explainer.network)[1] == "embeddings"
    (batch,) = explainer.run.batches("test").epoch(torch.arange(20), 20)
    with torch.inference_mode():
        torch.testing.assert_close(features_of_test(explainer).values, explainer.network.encoder(batch.images))
