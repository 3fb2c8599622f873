"""Electric and the two-tower generator: against the paper's formulas on Hugging Face's modules, and as runs.

The reference reads each piece by itself: causal ELECTRA encoders of transformers in fp64, one on the piece and one on
the piece backwards, then a loop over its tokens.
"""

import copy
import dataclasses
import math
import shutil
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from stores import make_store, random_documents
from test_objectives import config_for, shape_for
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounterWithBackend
from transformers import AutoTokenizer, ElectraConfig, ElectraForPreTraining, ElectraModel

from electra.announcement import describe, flops_per_token, memory_bytes, parameters
from electra.checkpoint import load_model
from electra.compiled import compile_forward
from electra.config import ObjectiveConfig, PretrainConfig, RowsConfig
from electra.electric import TwoTowerDetection
from electra.encoder import Body, Embeddings, EncoderConfig
from electra.evaluate import evaluate_run
from electra.export import networks_of, read_run
from electra.interop.hf import encoder_to_hf, hf_config, load_pretrained
from electra.interop.run_folder import check_objective
from electra.log import read_metrics
from electra.objectives import make_model
from electra.pretrain import pretrain
from electra.rtd import RTDBatch

V = 100
OBJECTIVES = {
    "electric": ObjectiveConfig(objective="electric", generator="two-tower"),
    "electric-warm": ObjectiveConfig(objective="electric", generator="two-tower", temperature=2.0, mask_prob=0.25),
    "electra": ObjectiveConfig(generator="two-tower"),
    "electra-wrong": ObjectiveConfig(generator="two-tower", disallow_correct=True, generator_weight=3.0),
}


def model_for(name: str) -> TwoTowerDetection:
    torch.manual_seed(0)
    model = make_model(shape_for("shared"), OBJECTIVES[name], V)
    assert isinstance(model, TwoTowerDetection)
    with torch.no_grad():  # biases and norms that are not the same everywhere, so that a swapped one shows
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    return model


def packed_batch() -> RTDBatch:
    """Three rows: two pieces, three pieces and padding, one full piece. Slots of both kinds, some unused."""
    draw = torch.Generator().manual_seed(3)
    pieces = torch.tensor([[1] * 9 + [2] * 11, [1] * 4 + [2] * 8 + [3] * 6 + [0] * 2, [1] * 20])
    ids = torch.randint(5, V, pieces.shape, generator=draw) * (pieces > 0)
    candidates = pieces > 0
    positions_in_piece = torch.zeros_like(pieces)
    for row, numbers in enumerate(pieces):
        for place in range(len(numbers)):
            joined = place > 0 and numbers[place] == numbers[place - 1]
            positions_in_piece[row, place] = positions_in_piece[row, place - 1] + 1 if joined else 0
            if numbers[place] and not joined:
                ids[row, place], candidates[row, place] = 2, False
            if numbers[place] and (place == 19 or numbers[place] != numbers[place + 1]):
                ids[row, place], candidates[row, place] = 3, False
    positions = torch.tensor([[1, 7, 10, 18], [2, 5, 13, 0], [4, 11, 0, 0]])
    weights = (positions > 0).float()
    return RTDBatch(
        input_ids=ids,
        masked_input_ids=ids.scatter(1, positions, 4),
        segment_ids=(positions_in_piece > 4).long(),
        position_ids=positions_in_piece,
        piece_ids=pieces,
        positions=positions,
        weights=weights,
        token_ids=ids.gather(1, positions) * (positions > 0),
        uniforms=torch.rand(3, 4, generator=draw),
        candidates=candidates,
    )


def spans(pieces: Tensor) -> list[tuple[int, slice]]:
    """(row, where) of each piece."""
    found = []
    for row, numbers in enumerate(pieces.tolist()):
        for number in sorted(set(numbers) - {0}):
            begin = numbers.index(number)
            found.append((row, slice(begin, begin + numbers.count(number))))
    return found


# --------------------------------------------------------------------------------------------- reference


def hf_encoder(embeddings: Embeddings, body: Body, config: EncoderConfig, causal: bool) -> nn.Module:
    """Our modules as an encoder of transformers in fp64, with copied weights."""
    state = {f"embeddings.{name}": value for name, value in embeddings.state_dict().items()}
    state |= {f"body.{name}": value for name, value in body.state_dict().items()}
    tensors = {name.removeprefix("electra."): value.clone() for name, value in encoder_to_hf(state, config).items()}
    theirs = ElectraModel(ElectraConfig(**hf_config(config, "ElectraModel"), is_decoder=causal, use_cache=False))
    theirs.load_state_dict(tensors)
    return theirs.double().eval()


class Reference:
    """The two towers and the discriminator as separate modules in fp64."""

    def __init__(self, model: TwoTowerDetection) -> None:
        towers, shape = model.generator, model.generator_config
        self.encoders = {
            "left": hf_encoder(model.embeddings, towers.left_to_right, shape, causal=True),
            "right": hf_encoder(model.embeddings, towers.right_to_left, shape, causal=True),
            "discriminator": hf_encoder(model.embeddings, model.discriminator, model.config, causal=False),
        }
        self.head = copy.deepcopy(towers.head)
        self.discriminator_head = copy.deepcopy(model.discriminator_head).double()

    def states(self, network: str, batch: RTDBatch, row: int, where: slice, ids: Tensor, step: int = 1) -> Tensor:
        """States (tokens, H) of a piece, which is read backwards when `step` is -1."""
        order = torch.arange(where.start, where.stop)
        order = order if step == 1 else order.flip(0)
        read = self.encoders[network](
            input_ids=ids[row, order][None],
            token_type_ids=batch.segment_ids[row, order][None],
            position_ids=batch.position_ids[row, order][None],
        ).last_hidden_state[0]
        return read if step == 1 else read.flip(0)

    def cloze(self, batch: RTDBatch) -> Tensor:
        """Logits (B, L, V) of each token from those around it, NaN at padding."""
        out = torch.full((*batch.input_ids.shape, V), math.nan, dtype=torch.float64)
        table = self.encoders["left"].embeddings.word_embeddings.weight
        head = self.head
        for row, where in spans(batch.piece_ids):
            left = self.states("left", batch, row, where, batch.input_ids)
            right = self.states("right", batch, row, where, batch.input_ids, step=-1)
            nothing, length = torch.zeros(left.shape[1], dtype=torch.float64), len(left)
            for place in range(length):
                before = left[place - 1] if place > 0 else nothing
                behind = right[place + 1] if place < length - 1 else nothing
                features = F.linear(torch.cat([before, behind]), head.dense.weight.double(), head.dense.bias.double())
                features = F.layer_norm(
                    F.gelu(features), features.shape, head.norm.weight.double(), head.norm.bias.double(), 1e-12
                )
                out[row, where.start + place] = F.linear(features, table, head.bias[:V].double())
        return out

    def energies(self, batch: RTDBatch, ids: Tensor) -> Tensor:
        """(B, L), NaN at padding."""
        out = torch.full(ids.shape, math.nan, dtype=torch.float64)
        head = self.discriminator_head
        for row, where in spans(batch.piece_ids):
            states = self.states("discriminator", batch, row, where, ids)
            out[row, where] = (F.gelu(head.dense(states)) @ head.classifier.weight[0]) + head.classifier.bias
        return out

    def loss(self, objective: ObjectiveConfig, batch: RTDBatch, corrupted: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The paper's losses, token by token: total, generator, discriminator."""
        cloze, energies = self.cloze(batch), self.energies(batch, corrupted)
        generator, count, detection, tokens = torch.zeros(()), 0, torch.zeros(()), 0
        for row, length in enumerate((batch.piece_ids > 0).sum(1).tolist()):
            for place in range(length):
                true, shown = int(batch.input_ids[row, place]), int(corrupted[row, place])
                if true not in (2, 3):
                    generator = generator - torch.log_softmax(cloze[row, place], -1)[true]
                    count += 1
                drawn = place in batch.positions[row].tolist() and place > 0
                if objective.objective == "electric":  # k / (n - k) = share / (1 - share); Z(x) = 1
                    noise = torch.softmax(cloze[row, place].detach() / objective.temperature, -1)[shown]
                    noise = objective.mask_prob * noise
                    data = (1 - objective.mask_prob) * torch.exp(-energies[row, place])
                    detection = detection - torch.log((noise if drawn else data) / (noise + data))
                else:
                    right = torch.sigmoid(energies[row, place] * (1 if shown != true else -1))
                    detection = detection - torch.log(right)
                tokens += 1
        generator, detection = generator / count, detection / tokens
        total = objective.generator_weight * generator + objective.discriminator_weight * detection
        return total, generator, detection


def totals_of(batch: RTDBatch) -> dict[str, float]:
    return {
        "predictions": float(batch.weights.sum()),
        "candidates": float(batch.candidates.sum()),
        "tokens": float((batch.piece_ids > 0).sum()),
    }


# ------------------------------------------------------------------------------------------------- model


@torch.no_grad()
def test_the_generator_equals_a_loop_over_tokens():
    model, batch = model_for("electric"), packed_batch()
    ours = model.generator(
        model.embeddings(batch.input_ids, batch.segment_ids, batch.position_ids),
        batch.piece_ids,
        model.embeddings.word.weight,
    )
    valid = batch.piece_ids > 0
    torch.testing.assert_close(ours[valid].double(), Reference(model).cloze(batch)[valid], rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_no_tower_sees_the_token_or_another_piece():
    """Change one token: its own logits and those of other pieces keep their bits, all others of its piece change."""
    model, batch = model_for("electric"), packed_batch()

    def logits(ids: Tensor) -> Tensor:
        embedded = model.embeddings(ids, batch.segment_ids, batch.position_ids)
        return model.generator(embedded, batch.piece_ids, model.embeddings.word.weight)

    before = logits(batch.input_ids)
    for row, where in spans(batch.piece_ids):
        for place in range(where.start, where.stop):
            ids = batch.input_ids.clone()
            ids[row, place] = (ids[row, place] + 1) % V
            changed = (logits(ids) != before).any(-1)
            expected = torch.zeros_like(changed)
            expected[row, where] = True
            expected[row, place] = False
            assert torch.equal(changed, expected), (row, place)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_losses_and_gradients_equal_the_formulas(name):
    """The gradient of the embeddings is the sum over the three networks'; none flows through the noise."""
    model, batch, objective = model_for(name), packed_batch(), OBJECTIVES[name]
    loss, sums = model(batch, totals_of(batch))
    loss.backward()
    corrupted = model.run(batch).corrupted_ids
    assert bool((corrupted != batch.input_ids).any())

    reference = Reference(model)
    expected, generator, detection = reference.loss(objective, batch, corrupted)
    torch.testing.assert_close(sums["generator_loss"].double(), generator, rtol=1e-5, atol=1e-5, check_dtype=False)
    torch.testing.assert_close(sums["discriminator_loss"].double(), detection, rtol=1e-5, atol=1e-5, check_dtype=False)
    torch.testing.assert_close(loss.double(), expected, rtol=1e-5, atol=1e-5, check_dtype=False)
    expected.backward()

    gradients = copy.deepcopy(model)
    with torch.no_grad():
        for mine, source in zip(gradients.parameters(), model.parameters(), strict=True):
            mine.copy_(source.grad)
    ours = Reference(gradients)
    shared = {name: 0.0 for name, _ in reference.encoders["left"].embeddings.named_parameters()}
    for network, theirs in reference.encoders.items():
        for key, parameter in theirs.named_parameters():
            if key.startswith("embeddings."):
                shared[key.removeprefix("embeddings.")] += parameter.grad
            else:
                close(ours.encoders[network].get_parameter(key), parameter.grad)
    for key, total in shared.items():
        close(ours.encoders["left"].embeddings.get_parameter(key), total)
    for mine, theirs in ((ours.head, reference.head), (ours.discriminator_head, reference.discriminator_head)):
        for key, parameter in theirs.named_parameters():
            close(mine.get_parameter(key), parameter.grad)


def close(ours: Tensor, theirs: Tensor) -> None:
    torch.testing.assert_close(ours.detach().double(), theirs.double(), rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("name", ["electric", "electra"])
def test_no_gradient_flows_between_the_networks(name):
    """Each loss alone reaches its own network and the shared embeddings, and nothing of the other network."""
    for weights, silent, heard in (
        ({"generator_weight": 0.0}, "generator.", "discriminator."),
        ({"discriminator_weight": 0.0}, "discriminator", "generator."),
    ):
        torch.manual_seed(0)
        model = make_model(shape_for("shared"), dataclasses.replace(OBJECTIVES[name], **weights), V)
        batch = packed_batch()
        loss, _ = model(batch, totals_of(batch))
        loss.backward()
        for key, parameter in model.named_parameters():
            norm = 0.0 if parameter.grad is None else float(parameter.grad.norm())
            assert not key.startswith(silent) or norm == 0.0, key
        assert sum(float(p.grad.norm()) for key, p in model.named_parameters() if key.startswith(heard)) > 0


@torch.no_grad()
def test_labels_say_where_a_token_was_drawn():
    """Electric: also where the true one was drawn. ELECTRA: where another one was."""
    batch = packed_batch()
    drawn = torch.zeros_like(batch.input_ids).scatter(1, batch.positions, 1)
    drawn[:, 0] = 0
    for name, expected in (("electric", drawn), ("electra", torch.zeros_like(drawn))):
        out = model_for(name).run(batch, sampled_ids=batch.token_ids)
        assert torch.equal(out.corrupted_ids, batch.input_ids)
        assert torch.equal(out.labels, expected.float())


def test_a_step_is_one_graph():
    model, batch = model_for("electric").train(), packed_batch()
    whole, _ = model(batch, totals_of(batch))
    counter = CompileCounterWithBackend("eager")
    torch._dynamo.reset()
    compile_forward(model, torch.device("cpu"), backend=counter)
    for seed in range(3):
        order = torch.arange(3).roll(seed)
        again = dataclasses.replace(batch.part(order), seed=seed)
        torch.testing.assert_close(model(again, totals_of(batch))[0], whole)
    assert counter.frame_count == 1


def test_micro_batches_add_up():
    model, batch = model_for("electric"), packed_batch()
    whole, sums = model(batch, totals_of(batch))
    parts = [model(batch.part(rows), totals_of(batch)) for rows in (slice(0, 1), slice(1, 3))]
    torch.testing.assert_close(parts[0][0] + parts[1][0], whole)
    for key in sums:
        torch.testing.assert_close(parts[0][1][key] + parts[1][1][key], sums[key])


def test_parameters_flops_and_words():
    model = model_for("electric")
    tower = sum(p.numel() for p in model.generator.left_to_right.parameters())
    head = sum(p.numel() for p in model.generator.head.parameters())
    assert parameters(model)["generator"] == 2 * tower + head
    assert describe(model).startswith("Electric: discriminator ")
    assert "from either side; embeddings shared)" in describe(model)
    assert describe(model_for("electra")).startswith("discriminator ")

    def config(name: str) -> PretrainConfig:
        objective = ObjectiveConfig() if name == "shared" else OBJECTIVES[name]
        return PretrainConfig(model=shape_for("shared"), objective=objective, rows=RowsConfig(seq_len=64))

    def flops(name: str) -> float:
        return flops_per_token(config(name), 0)

    none = dataclasses.replace(config("shared"), objective=ObjectiveConfig(generator="uniform"))
    one = flops("shared") - flops_per_token(none, 0)
    assert flops("electric") == pytest.approx(flops("shared") + one)  # a tower more
    projection = flops_per_token(config("electric"), V) - flops("electric")
    assert projection == pytest.approx(6 * 24 * V)  # at every token
    assert memory_bytes(config("electric"), model, 8, "fp32") > memory_bytes(config("shared"), model, 8, "fp32")


# -------------------------------------------------------------------------------------------------- runs


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Path:
    return make_store(tmp_path_factory.mktemp("data") / "store", random_documents(60), held_out=0.1).folder


@pytest.mark.parametrize("name", ["electric", "electra"])
@torch.no_grad()
def test_from_store_to_export(store, tmp_path, name):
    said: list[str] = []
    config = dataclasses.replace(config_for(store, tmp_path / "run", "shared"), objective=OBJECTIVES[name])
    with torch.enable_grad():
        assert pretrain(config, say=said.append).step == 3
    train, evaluation = read_metrics(config.out, "train"), read_metrics(config.out, "eval")[-1]
    assert train[-1]["loss"] != train[0]["loss"] and "generator_accuracy" in train[-1]
    assert {"generator_loss", "discriminator_loss", "discriminator_auc"} <= evaluation.keys()
    assert train[-1]["generator_loss"] == pytest.approx(evaluation["generator_loss"], rel=0.1)
    found = evaluate_run(config.out, None, 0, "cpu")
    assert found["generator_loss"] == pytest.approx(evaluation["generator_loss"])

    # the bits of an uninterrupted run, from the step before the last
    checkpoint = config.out / "checkpoints" / "step-3"
    before = read_run(config.out)
    assert before.networks.keys() == {"discriminator"}
    shutil.rmtree(checkpoint)
    shutil.rmtree(config.out / "export")
    with torch.enable_grad():
        assert pretrain(config, say=said.append).step == 3
    for key, value in read_run(config.out).networks["discriminator"].tensors.items():
        assert torch.equal(value, before.networks["discriminator"].tensors[key]), key

    export = config.out / "export"
    assert [path.name for path in export.iterdir()] == ["discriminator"]
    card = (export / "discriminator" / "README.md").read_text()
    assert ("energy-based cloze modelling" in card) == ("pseudo-log-likelihood" in card) == (name == "electric")
    assert load_pretrained(str(config.out)).network.architecture == "ElectraForPreTraining"


@torch.no_grad()
def test_the_scores_of_the_model_card_are_ours(store, tmp_path):
    """The card's code, run as it stands, gives minus the sum of our energies over the text."""
    config = dataclasses.replace(config_for(store, tmp_path / "run", "shared"), objective=OBJECTIVES["electric"])
    config = dataclasses.replace(config, loop=dataclasses.replace(config.loop, steps=1))
    with torch.enable_grad():
        pretrain(config, say=lambda line: None)
    folder = config.out / "export" / "discriminator"
    code = (folder / "README.md").read_text().split("## Scores")[1].split("```python")[1].split("```")[0]
    tokenizer = AutoTokenizer.from_pretrained(folder)
    code = code.replace('"discriminator"', repr(str(folder))).replace('"a text"', '"a b c d e f"')
    names = {"tokenizer": tokenizer, "ElectraForPreTraining": ElectraForPreTraining}
    exec(code, names)

    model = make_model(config.model, config.objective, len(tokenizer)).eval()
    load_model(config.out, model)
    ids = torch.tensor([tokenizer("a b c d e f")["input_ids"]])
    encoded = model.encoder()(ids, torch.zeros_like(ids))
    torch.testing.assert_close(names["score"], -model.discriminator_head(encoded)[0, 1:-1].sum())


@pytest.mark.parametrize("name", ["electric", "electra"])
def test_towers_have_no_folder(name):
    assert networks_of(model_for(name), "test").keys() == {"discriminator"}


@pytest.mark.parametrize("name", ["electric", "electra"])
def test_runs_do_not_go_on_from_weights_made_elsewhere(name):
    with pytest.raises(ValueError, match="only runs with"):
        check_objective(OBJECTIVES[name])


# --------------------------------------------------------------------------------------------- mistakes


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"objective": "electric"}, "electric has the probabilities of the two-tower generator.*: set objective.gener"),
        ({"objective": "electric", "generator": "uniform"}, "set objective.generator to two-tower"),
        (
            {"objective": "electric", "generator": "two-tower", "disallow_correct": True},
            "objective.disallow_correct cannot go with objective.objective electric",
        ),
        ({"objective": "masked-lm", "generator": "two-tower"}, "objective.generator has no meaning when .* masked-lm"),
    ],
)
def test_settings_that_exclude_each_other(fields, sentence):
    with pytest.raises(ValueError, match=sentence):
        ObjectiveConfig(**fields)
