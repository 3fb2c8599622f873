"""The heads of question answering against Google's own numbers and transformers' class."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import transformers
from bundles import write_bundle
from google_checkpoints import Arrays, close, read_npz
from torch import nn

from electra.encoder import Encoder, EncoderConfig
from electra.interop.bundle import Bundle
from electra.interop.google import read_google
from electra.interop.google_heads import TaskHead
from electra.interop.hf import config_from_hf, encoder_from_hf, encoder_to_hf, hf_config
from electra.optim import AdamW, global_norm, layer_decay_groups, scale_gradients, set_learning_rate
from electra.schedules import warmup_decay
from electra.tasks.questions.heads import (
    JointHead,
    JointQuestionModel,
    QuestionBatch,
    SimpleQuestionModel,
    candidate_mask,
    encode,
    masked,
    span_losses,
)

CONFIG = EncoderConfig(40, 8, 16, 1, 2, 24, max_positions=32)


def golden_batch(values: Arrays) -> QuestionBatch:
    def ids(name: str) -> torch.Tensor:
        return torch.from_numpy(values[name]).long()

    labels = {}
    if "squad_start_positions" in values:
        labels = {
            "starts": ids("squad_start_positions"),
            "ends": ids("squad_end_positions"),
            "impossible": ids("squad_is_impossible").float(),
        }
    return QuestionBatch(ids("input_ids"), ids("segment_ids"), ids("input_mask") > 0, **labels)


def golden_head(golden: Path, tmp_path: Path, name: str) -> TaskHead:
    """Google's encoder after ten steps with the task's initial head."""
    bundle = Bundle.find(golden / "ckpt_a")
    encoder = {n: bundle.read(n) for n in bundle.names() if n.startswith("electra/") and "/adam_" not in n}
    variables = encoder | read_npz(golden / f"{name}.npz", "task_init|")
    hparams = json.loads((golden / "pre_a_meta.json").read_text())["config"]
    return read_google(write_bundle(tmp_path / name, variables), hparams).tasks["squad"]


def load_encoder(encoder: nn.Module, head: TaskHead) -> None:
    assert isinstance(encoder, Encoder)
    encoder.load_state_dict(encoder_from_hf(head.network.tensors, encoder.config, head.network.source))


def golden_joint(golden: Path, tmp_path: Path) -> JointQuestionModel:
    head = golden_head(golden, tmp_path, "ft_squad_joint")
    model = JointQuestionModel(config_from_hf(head.network.config, "golden"), beam_size=5)
    load_encoder(model.encoder, head)
    model.head.load_state_dict(head.extra)
    return model.eval()  # the fixtures are without dropout


class IndependentModel(nn.Module):
    """Google's head with independent ends: the simple model on the candidates alone, with a dense on [CLS] beside."""

    def __init__(self, head: TaskHead) -> None:
        super().__init__()
        self.model = SimpleQuestionModel(config_from_hf(head.network.config, "golden"))
        self.head = nn.ModuleDict({"span": self.model.head, "answerable": nn.Linear(32, 1)})
        load_encoder(self.model.encoder, head)
        self.model.head.load_state_dict(
            {kind: head.network.tensors[f"qa_outputs.{kind}"] for kind in ("weight", "bias")}
        )
        self.head["answerable"].load_state_dict({k: head.extra[f"answerable.{k}"] for k in ("weight", "bias")})

    def outputs(self, batch: QuestionBatch) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        start, end = (masked(logits, candidate_mask(batch)) for logits in self.model.logits(batch))
        return start, end, self.head["answerable"](encode(self.model.encoder, batch)[:, 0])[:, 0]

    def forward(self, batch: QuestionBatch) -> torch.Tensor:
        start, end, answerable = self.outputs(batch)
        assert batch.starts is not None and batch.ends is not None and batch.impossible is not None
        spans = (span_losses(start, batch.starts) + span_losses(end, batch.ends)) / 2
        none = F.binary_cross_entropy_with_logits(answerable, batch.impossible, reduction="none")
        return spans + 0.5 * none


def follow_google(
    encoder: nn.Module, head: nn.Module, loss: Callable[[], torch.Tensor], golden: Path, name: str
) -> None:
    """Google's five updates: sum of the losses, clip at 1, AdamW without correction, layer decay counted their way.

    The clip sees the norm that TensorFlow took, over word gradients which it had not summed up by word.
    """
    meta = json.loads((golden / f"{name}_meta.json").read_text())
    groups = layer_decay_groups(encoder, head, decay=0.8, google=True, weight_decay=0.01)
    optimizer = AdamW(groups)
    everything = nn.ModuleList([encoder, head])
    for step, history in enumerate(meta["history"][:5]):
        everything.zero_grad()
        value = loss()
        value.backward()
        norm = float(global_norm(everything))
        assert norm == pytest.approx(history["global_norm_of_densified_grads"], rel=2e-4)
        assert value.item() == pytest.approx(history["loss_before_update"], rel=2e-5)
        scale_gradients(everything, torch.tensor(min(1.0, 1 / history["global_norm_used"])))
        set_learning_rate([optimizer], warmup_decay(step, peak=1e-3, steps=10, warmup_steps=2))
        optimizer.step()


GOOGLE_LAYERS = {
    "dense": "start",
    "qa_hidden": "end_hidden",
    "dense_1": "end",
    "dense_2": "answerable_hidden",
    "dense_3": "answerable",
}


def compare_after_five(golden: Path, name: str, encoder: Encoder, head: dict[str, torch.Tensor]) -> float:
    """The largest difference to Google's variables; `head` by Google's names of layers, weights (in, out).

    Without the biases of start and end: a softmax has no gradient for them but rounding, which Adam makes large, as it
    does here and there elsewhere (5e-6 in the joint head, 4e-7 in the encoder, after steps of 1e-3).
    """
    state = encoder_to_hf(encoder.state_dict(), encoder.config)
    worst = 0.0
    for variable, expected in read_npz(golden / f"{name}.npz", "after5|").items():
        scope, _, rest = variable.partition("/")
        if rest in ("squad/dense/bias", "squad/dense_1/bias"):
            continue
        if scope == "task_specific":
            found = head[rest.removeprefix("squad/")]
        else:
            theirs = variable.replace("layer_", "layer.") if "/layer_" in variable else variable
            key = theirs.replace("/", ".").replace(".gamma", ".weight").replace(".beta", ".bias")
            kernel = key.endswith("kernel")
            key = key.replace("kernel", "weight")
            key = f"{key}.weight" if key.endswith("_embeddings") else key
            found = state[key].T if kernel else state[key]
        worst = max(worst, float(np.abs(found.detach().numpy() - expected).max()))
    return worst


def test_joint_training_outputs_and_loss_are_googles(golden, tmp_path):
    model, name = golden_joint(golden, tmp_path), "ft_squad_joint"
    batch, out = golden_batch(read_npz(golden / f"{name}.npz", "in|")), read_npz(golden / f"{name}.npz", "out|")
    states, candidates = encode(model.encoder, batch), candidate_mask(batch)
    start = model.head.start_logits(states, candidates)
    close(start, out["start_logits"])
    close(model.head.end_logits(states, batch.starts[:, None], candidates)[:, 0], out["end_logits"])
    close(model.head.unanswerable(states, start), out["answerable_logit"])
    close(model(batch, {"windows": 1.0})[0], out["loss"].sum(), 1e-6)


def test_joint_training_is_googles(golden, tmp_path):
    model = golden_joint(golden, tmp_path)
    batch = golden_batch(read_npz(golden / "ft_squad_joint.npz", "in|"))
    follow_google(model.encoder, model.head, lambda: model(batch, {"windows": 1.0})[0], golden, "ft_squad_joint")
    head = {}
    for theirs, ours in GOOGLE_LAYERS.items():
        layer = model.head.get_submodule(ours)
        head |= {f"{theirs}/kernel": layer.weight.T, f"{theirs}/bias": layer.bias}
    assert compare_after_five(golden, "ft_squad_joint", model.encoder, head) < 1e-5


def test_independent_training_is_googles(golden, tmp_path):
    name = "ft_squad_independent"
    model = IndependentModel(golden_head(golden, tmp_path, name)).eval()
    batch, out = golden_batch(read_npz(golden / f"{name}.npz", "in|")), read_npz(golden / f"{name}.npz", "out|")
    for found, expected in zip(model.outputs(batch), ("start_logits", "end_logits", "answerable_logit"), strict=True):
        close(found, out[expected])
    close(model(batch), out["loss"], 1e-6)
    follow_google(model.model.encoder, model.head, lambda: model(batch).sum(), golden, name)
    span, answerable = model.head["span"], model.head["answerable"]
    head = {"dense_2/kernel": answerable.weight.T, "dense_2/bias": answerable.bias}
    for number, layer in enumerate(("dense", "dense_1")):
        head |= {f"{layer}/kernel": span.weight[number][:, None], f"{layer}/bias": span.bias[number][None]}
    assert compare_after_five(golden, name, model.model.encoder, head) < 1e-5


@torch.no_grad()
def test_beam_is_googles(golden, tmp_path):
    model = golden_joint(golden, tmp_path)
    features = json.loads((golden / "squad_features_squad.json").read_text())["dev"]["examples"]
    windows = [window for example in features for window in example["features"]]
    expected = read_npz(golden / "qa_head_predict_outputs.npz")
    windows = {window["eid"]: window for window in windows}
    rows = [windows[eid] for eid in expected["eid"]]
    ids = np.zeros((len(rows), 128), np.int64)
    segments, valid = np.zeros_like(ids), np.zeros_like(ids)
    for i, row in enumerate(rows):
        length = len(row["input_ids"])
        ids[i, :length], valid[i, :length], segments[i, row["n_segment0"] : length] = row["input_ids"], 1, 1
    batch = golden_batch({"input_ids": ids, "segment_ids": segments, "input_mask": valid})
    found = model.beam(batch)
    start = model.head.start_logits(encode(model.encoder, batch), candidate_mask(batch))
    close(start, expected["start_logits"])
    close(found.start_scores, expected["start_top_log_probs"])
    close(found.end_scores, expected["end_top_log_probs"])
    close(found.unanswerable, expected["answerable_logit"])
    # Positions whose scores are nearer than rounding may change places.
    assert (found.start_index.numpy() == expected["start_top_index"]).mean() > 0.99
    assert (found.end_index.numpy() == expected["end_top_index"]).mean() > 0.99


def random_batch(rows: int = 4, length: int = 12) -> QuestionBatch:
    draw = torch.Generator().manual_seed(3)
    ids = torch.randint(5, 40, (rows, length), generator=draw)
    valid = torch.arange(length) < torch.tensor([length, length - 3, length, 7])[:, None]
    segments = ((torch.arange(length) >= 4) & valid).long()
    return QuestionBatch(
        ids,
        segments,
        valid,
        starts=torch.tensor([0, 5, 7, 4]),
        ends=torch.tensor([0, 6, 7, 5]),
        impossible=torch.tensor([1.0, 0.0, 0.0, 0.0]),
    )


@pytest.mark.parametrize("outside", [False, True])
def test_simple_model_is_transformers(outside: bool) -> None:
    """Logits and loss; a position behind the window leaves the mean, as there."""
    torch.manual_seed(0)
    ours = SimpleQuestionModel(CONFIG).eval()
    nn.init.normal_(ours.head.weight, std=0.5)
    architecture = "ElectraForQuestionAnswering"
    theirs = transformers.ElectraForQuestionAnswering(transformers.ElectraConfig(**hf_config(CONFIG, architecture)))
    head = {f"qa_outputs.{name}": value for name, value in ours.head.state_dict().items()}
    theirs.load_state_dict(encoder_to_hf(ours.encoder.state_dict(), CONFIG) | head)
    batch = random_batch()
    starts, ends = batch.starts.clone(), batch.ends.clone()
    if outside:
        starts[3], ends[3] = 12, 40
    theirs.eval()
    found = theirs(batch.input_ids, batch.valid.long(), batch.segment_ids)
    # Row by row without padding, which counts as a candidate in their loss and not in ours.
    losses = [
        theirs(ids[None, valid], token_type_ids=segments[None, valid], start_positions=start, end_positions=end).loss
        for ids, valid, segments, start, end in zip(
            batch.input_ids, batch.valid, batch.segment_ids, starts[:, None], ends[:, None], strict=True
        )
    ]
    start, end = ours.logits(batch)
    torch.testing.assert_close(start[batch.valid], found.start_logits[batch.valid])
    torch.testing.assert_close(end[batch.valid], found.end_logits[batch.valid])
    moved = QuestionBatch(batch.input_ids, batch.segment_ids, batch.valid, starts, ends)
    loss, _ = ours(moved, {"windows": 3.0 if outside else 4.0})
    # Theirs is nan where both positions are left out.
    torch.testing.assert_close(loss, torch.stack(losses).nan_to_num().sum() / (3 if outside else 4))


def test_micro_batches_add_up() -> None:
    for model in (SimpleQuestionModel(CONFIG).eval(), JointQuestionModel(CONFIG).eval()):
        batch = random_batch()
        whole, _ = model(batch, {"windows": 4.0})
        parts = [
            QuestionBatch(*(value[rows] for value in (getattr(batch, name) for name in FIELDS)))
            for rows in (slice(0, 1), slice(1, 4))
        ]
        torch.testing.assert_close(sum(model(part, {"windows": 4.0})[0] for part in parts), whole)


FIELDS = ("input_ids", "segment_ids", "valid", "starts", "ends", "impossible")


@torch.no_grad()
def test_padding_changes_no_loss() -> None:
    batch = random_batch()
    tensors = {name: getattr(batch, name) for name in FIELDS}
    padded = QuestionBatch(**tensors | {name: F.pad(tensors[name], (0, 8)) for name in FIELDS[:3]})
    for model in (SimpleQuestionModel(CONFIG).eval(), JointQuestionModel(CONFIG).eval()):
        nn.init.normal_(model.get_parameter("encoder.embeddings.norm.bias"))  # no logit is 0
        torch.testing.assert_close(model(padded, {"windows": 4.0})[0], model(batch, {"windows": 4.0})[0])


@torch.no_grad()
def test_padding_and_the_beam() -> None:
    """More padding changes nothing, and a beam wider than a row is as wide as the row."""
    torch.manual_seed(0)
    model = JointQuestionModel(CONFIG, beam_size=3).eval()
    batch = random_batch()
    padded = QuestionBatch(*(F.pad(getattr(batch, name), (0, 8)) for name in FIELDS[:3]))
    short, long = model.beam(batch), model.beam(padded)
    torch.testing.assert_close(short.start_scores, long.start_scores)
    torch.testing.assert_close(short.end_scores, long.end_scores)
    assert torch.equal(short.end_index, long.end_index)
    model.beam_size = 20
    assert model.beam(batch).end_index.shape == (4, 12, 12)


def test_end_logits_are_those_of_the_concatenation() -> None:
    torch.manual_seed(0)
    head = JointHead(16)
    states, starts = torch.randn(2, 9, 16), torch.tensor([[0, 4], [8, 3]])
    found = head.end_logits(states, starts, torch.ones(2, 9, dtype=torch.bool))
    for row in range(2):
        for number in range(2):
            pairs = torch.cat([states[row, starts[row, number]].expand(9, 16), states[row]], -1)
            expected = head.end(F.gelu(head.end_hidden(pairs)))[:, 0]
            torch.testing.assert_close(found[row, number], expected)
