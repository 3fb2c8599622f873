"""The models of sentence tasks against those of transformers, and a training run of Google's."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from google_checkpoints import read_npz
from tiny_models import make_vocabulary, tiny_config
from transformers import ElectraConfig, ElectraForSequenceClassification

from electra.interop.google import hf_name, read_google
from electra.interop.hf import config_from_hf, encoder_from_hf, encoder_to_hf
from electra.optim import AdamW, global_norm, layer_decay_groups, scale_gradients, set_learning_rate
from electra.schedules import warmup_decay
from electra.tasks.features import SentenceBatch, collate, encode_texts
from electra.tasks.sentences.classifier import Scale, SequenceClassifier, predict_logits


def hugging_face(model: SequenceClassifier, scale: Scale | None = None) -> ElectraForSequenceClassification:
    config = model.encoder.config
    theirs = ElectraForSequenceClassification(
        ElectraConfig(
            vocab_size=config.vocab_size,
            embedding_size=config.embedding_size,
            hidden_size=config.hidden_size,
            num_hidden_layers=config.num_layers,
            num_attention_heads=config.num_heads,
            intermediate_size=config.intermediate_size,
            max_position_embeddings=config.max_positions,
            num_labels=model.head.out_proj.out_features,
        )
    )
    tensors = encoder_to_hf(model.encoder.state_dict(), config) | model.head_tensors(scale)
    report = theirs.load_state_dict(tensors, strict=False)
    assert not report.unexpected_keys
    assert not [key for key in report.missing_keys if "position_ids" not in key]
    return theirs.eval()


@pytest.mark.parametrize("outputs", [3, 1])
def test_logits_loss_and_gradients_equal_transformers(tmp_path: Path, outputs: int) -> None:
    vocabulary = make_vocabulary(tmp_path)
    torch.manual_seed(0)
    config = dataclasses.replace(tiny_config(vocabulary), dropout=0.0, attention_dropout=0.0)
    model = SequenceClassifier(config, outputs)
    theirs = hugging_face(model)
    features = encode_texts(vocabulary, ["a good film", "bad", "the plot"], ["so dull", None, "was long"], 32)
    labels = np.array([2, 0, 1]) if outputs == 3 else np.array([0.5, 0.0, 1.0], dtype=np.float32)
    batch = collate(features, np.arange(3), labels)
    expected = theirs(
        input_ids=batch.input_ids,
        token_type_ids=batch.segment_ids,
        attention_mask=batch.valid.long(),
        labels=batch.labels,
    )
    logits = model.logits(batch)
    torch.testing.assert_close(logits, expected.logits, atol=1e-5, rtol=1e-5)
    loss, _ = model(batch, {"examples": 3.0})
    assert loss.item() == pytest.approx(expected.loss.item(), abs=1e-6)
    loss.backward()
    expected.loss.backward()
    torch.testing.assert_close(model.head.dense.weight.grad, theirs.classifier.dense.weight.grad, atol=1e-6, rtol=1e-4)
    ours_grad, theirs_grad = (
        model.encoder.embeddings.position.weight.grad,
        theirs.electra.embeddings.position_embeddings,
    )
    torch.testing.assert_close(ours_grad, theirs_grad.weight.grad, atol=1e-6, rtol=1e-4)
    # Two micro-batches add up to the batch.
    parts = [
        model(collate(features, np.array(rows), labels[rows]), {"examples": 3.0})[0].item() for rows in ([0, 1], [2])
    ]
    assert sum(parts) == pytest.approx(loss.item(), abs=1e-6)


def test_head_stays_fp32_under_autocast(tmp_path: Path) -> None:
    """In bf16 the predictions of a regression would be a few hundredths apart and tie."""
    vocabulary = make_vocabulary(tmp_path)
    model = SequenceClassifier(tiny_config(vocabulary), 1).eval()
    batch = collate(encode_texts(vocabulary, ["good film", "bad"], [None, None], 32), np.arange(2))
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        found = model.logits(batch)
    assert found.dtype == torch.float32
    assert not torch.equal(found, found.bfloat16().float())


def test_scale_is_folded_into_the_exported_head(tmp_path: Path) -> None:
    vocabulary = make_vocabulary(tmp_path)
    model, scale = SequenceClassifier(tiny_config(vocabulary), 1).eval(), Scale(-1.0, 5.0)
    features = encode_texts(vocabulary, ["good film", "bad"], [None, None], 32)
    batch = collate(features, np.arange(2))
    with torch.no_grad():
        exported = hugging_face(model, scale)(batch.input_ids, batch.valid.long(), batch.segment_ids).logits[:, 0]
        ours = scale.to_labels(model.logits(batch)[:, 0].numpy())
    np.testing.assert_allclose(exported.numpy(), ours, atol=1e-5)
    np.testing.assert_allclose(scale.to_unit(np.array([-1.0, 2.0, 5.0])), [0, 0.5, 1])


def test_predictions_come_in_the_order_of_the_texts(tmp_path: Path) -> None:
    vocabulary = make_vocabulary(tmp_path)
    model = SequenceClassifier(tiny_config(vocabulary), 2)
    texts = ["a " * n for n in (9, 1, 20, 3, 14)]
    features = encode_texts(vocabulary, texts, [None] * 5, 64)
    found = predict_logits(model, features, batch_tokens=16)
    with torch.no_grad():
        for row in range(5):
            one = model.logits(collate(features, np.array([row])))
            np.testing.assert_allclose(found[row], one[0].numpy(), atol=1e-6)


@pytest.mark.parametrize("labels", [np.array([2, 0, 1]), np.array([[1, 0, 1], [0, 0, 0], [0, 1, 0]], dtype=np.float32)])
def test_weights_and_several_labels_equal_torch(tmp_path: Path, labels: np.ndarray) -> None:
    vocabulary = make_vocabulary(tmp_path)
    model = SequenceClassifier(tiny_config(vocabulary), 3).eval()
    features = encode_texts(vocabulary, ["a good film", "bad", "the plot"], [None] * 3, 32)
    if labels.ndim == 1:
        weights = np.array([0.5, 2.0, 3.0], dtype=np.float32)
        batch = collate(features, np.arange(3), labels, weights=weights[labels])
        loss, _ = model(batch, {"examples": float(weights[labels].sum())})
        expected = torch.nn.functional.cross_entropy(model.logits(batch), batch.labels, torch.from_numpy(weights))
    else:
        batch = collate(features, np.arange(3), labels)
        loss, _ = model(batch, {"examples": 3.0})
        expected = torch.nn.functional.binary_cross_entropy_with_logits(model.logits(batch), batch.labels)
    torch.testing.assert_close(loss, expected)


def test_five_steps_of_training_equal_google(golden: Path) -> None:
    """Optimizer, groups and schedule of Google's recipe on its own SST-2 model, whose head is one dense layer.

    TensorFlow clips by a norm that takes the gradient of the word table as slices: the recorded one is used.
    """
    meta = json.loads((golden / "ft_sst_meta.json").read_text())
    hparams = json.loads((golden / "pre_a_meta.json").read_text())["config"]
    network = read_google(golden / "ckpt_a", hparams).discriminator
    config = dataclasses.replace(config_from_hf(network.config, "golden"), dropout=0.0, attention_dropout=0.0)
    model = SequenceClassifier(config, 2)
    model.encoder.load_state_dict(encoder_from_hf(network.tensors, config, "golden"))
    model.head = torch.nn.Linear(config.hidden_size, 2)
    start = read_npz(golden / "ft_sst.npz", "task_init|task_specific|sst|dense|")
    head = {"weight": torch.from_numpy(start["kernel"].T), "bias": torch.from_numpy(start["bias"])}
    model.head.load_state_dict(head)
    inputs = {name: torch.from_numpy(array) for name, array in read_npz(golden / "ft_sst.npz", "in|").items()}
    batch = SentenceBatch(
        inputs["input_ids"].long(),
        inputs["segment_ids"].long(),
        inputs["input_mask"] > 0,
        inputs["sst_label_ids"].long(),
    )
    decay, weight_decay = meta["layerwise_lr_decay"], meta["weight_decay_rate"]
    groups = layer_decay_groups(model.encoder, model.head, decay=decay, google=True, weight_decay=weight_decay)
    optimizer = AdamW(groups, bias_correction=False)
    steps = meta["num_train_steps"]
    for step, expected in enumerate(meta["history"][:5]):
        loss, _ = model(batch, {"examples": 1.0})  # the sum
        assert loss.item() == pytest.approx(expected["loss_before_update"], rel=1e-5)
        loss.backward()
        assert global_norm(model).item() == pytest.approx(expected["global_norm_of_densified_grads"], rel=1e-4)
        scale_gradients(model, torch.tensor(1 / expected["global_norm_used"]))
        rate = warmup_decay(step, peak=meta["learning_rate"], steps=steps, warmup_steps=int(0.2 * steps))
        set_learning_rate([optimizer], rate)
        found = {group["lr"] for group in optimizer.param_groups}
        assert sorted(found) == pytest.approx(sorted(set(expected["group_lrs"])), rel=1e-6)
        optimizer.step()
        model.zero_grad()
    tensors = encoder_to_hf(model.encoder.state_dict(), config)
    for name, value in read_npz(golden / "ft_sst.npz", "after5|").items():
        if name.startswith("electra/"):
            theirs = hf_name(name)
            tensor, transpose = tensors[theirs.name], theirs.transpose
        else:
            tensor, transpose = (model.head.weight, True) if name.endswith("kernel") else (model.head.bias, False)
        found = tensor.detach().numpy()
        np.testing.assert_allclose(found.T if transpose else found, value, atol=1e-6, err_msg=name)
