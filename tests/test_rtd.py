"""The ELECTRA model against values computed with Google's own code, and against Hugging Face's modules."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy import stats
from sklearn.metrics import roc_auc_score
from transformers.models.distilbert.modeling_distilbert import create_sinusoidal_embeddings

from electra.config import ModelConfig, ObjectiveConfig, OptimizerConfig
from electra.encoder import block_mask, key_mask
from electra.metrics import histogram_auc
from electra.optim import global_norm, make_optimizers, scale_gradients, set_learning_rate
from electra.rtd import (
    ReplacedTokenDetection,
    RTDBatch,
    discriminator_config,
    generator_config,
    logit_histogram,
    sample_tokens,
    scatter_tokens,
    step_metrics,
)
from electra.runtime import Runtime
from electra.schedules import warmup_decay
from electra.train import Window

# Google's names (with | for /) -> ours; LAYER is filled in for generator and discriminator
SHARED = {
    "electra|embeddings|word_embeddings": "embeddings.word.weight",
    "electra|embeddings|token_type_embeddings": "embeddings.segment.weight",
    "electra|embeddings|position_embeddings": "embeddings.position.weight",
    "electra|embeddings|LayerNorm": "embeddings.norm",
    "generator|embeddings_project": "generator.project",
    "electra|embeddings_project": "discriminator.project",
    "generator_predictions|dense": "generator_head.dense",
    "generator_predictions|LayerNorm": "generator_head.norm",
    "generator_predictions|output_bias": "generator_head.bias",
    "discriminator_predictions|dense": "discriminator_head.dense",
    "discriminator_predictions|dense_1": "discriminator_head.classifier",
}
LAYER = {
    "attention|output|dense": "out",
    "attention|output|LayerNorm": "attention_norm",
    "intermediate|dense": "up",
    "output|dense": "down",
    "output|LayerNorm": "output_norm",
}
TWO_LAYERS = ModelConfig(hidden_size=64, num_layers=2, num_heads=4)
KINDS = {"kernel": "weight", "bias": "bias", "gamma": "weight", "beta": "bias"}


def our_name(google: str) -> tuple[str, slice | None, bool]:
    """(our parameter, rows of it when it is fused, whether it is a kernel to transpose)."""
    if google in SHARED:
        return SHARED[google], None, False
    scope, _, kind = google.rpartition("|")
    if scope in SHARED:
        return f"{SHARED[scope]}.{KINDS[kind]}", None, kind == "kernel"
    network, _, layer, place = scope.split("|", 3)
    prefix = f"{'generator' if network == 'generator' else 'discriminator'}.layers.{layer.removeprefix('layer_')}"
    if place.startswith("attention|self|"):
        third = ("query", "key", "value").index(place.rpartition("|")[2])
        return f"{prefix}.qkv.{KINDS[kind]}", third, kind == "kernel"
    return f"{prefix}.{LAYER[place]}.{KINDS[kind]}", None, kind == "kernel"


def read(tensors: dict[str, torch.Tensor], google: str) -> torch.Tensor:
    """Our tensor in Google's layout."""
    name, third, transpose = our_name(google)
    value = tensors[name].detach()
    if third is not None:
        value = value.chunk(3)[third]
    return value.T if transpose else value


@pytest.fixture(scope="module", params=["a", "b"])
def fixture(request, golden: Path):
    """(model with the golden weights, batch, io arrays, meta, grad/after arrays)."""
    tag = request.param
    init, io = np.load(golden / f"pre_{tag}_init.npz"), np.load(golden / f"pre_{tag}_io.npz")
    meta = json.loads((golden / f"pre_{tag}_meta.json").read_text())
    steps = np.load(golden / f"pre_{tag}_grad1_and_after2.npz")
    shape = ModelConfig(
        hidden_size=32,
        num_layers=2,
        num_heads=4,
        intermediate_size=64,
        embedding_size=meta["config"]["embedding_size"] or 32,
        max_positions=128,
        generator_width=0.25,
        dropout=0.0,
        attention_dropout=0.0,
    )
    model = ReplacedTokenDetection(shape, ObjectiveConfig(), 512)
    state = model.state_dict()
    with torch.no_grad():
        for name in init.files:
            read(state, name).copy_(torch.from_numpy(init[name]))

    def ids(name: str) -> torch.Tensor:
        return torch.from_numpy(io[name]).long()

    batch = RTDBatch(
        input_ids=ids("in_input_ids"),
        masked_input_ids=ids("masked_input_ids"),
        segment_ids=ids("in_segment_ids"),
        position_ids=torch.arange(32).expand(4, 32),
        piece_ids=ids("in_input_mask"),
        positions=ids("masked_masked_lm_positions"),
        weights=torch.from_numpy(io["masked_masked_lm_weights"]),
        token_ids=ids("masked_masked_lm_ids"),
        uniforms=torch.zeros(4, 4),
    )
    return model, batch, io, meta, steps, ids("sampled_ids")


def close(ours: torch.Tensor, theirs: np.ndarray, tolerance: float = 1e-5) -> None:
    torch.testing.assert_close(ours.detach(), torch.from_numpy(np.array(theirs)), rtol=tolerance, atol=tolerance)


def test_activations_logits_and_losses_equal_google(fixture):
    model, batch, io, _, _, sampled = fixture
    model.eval()
    mask = key_mask(batch.piece_ids > 0)  # Google lets padding queries see the real tokens
    layers: list[torch.Tensor] = []
    embedded = model.embeddings(batch.masked_input_ids, batch.segment_ids, batch.position_ids)
    model.generator(embedded, mask, every_layer=layers)
    close(layers[0], io["gen_embedding_output"])
    for ours, theirs in zip(layers[1:], io["gen_layers"], strict=True):
        close(ours, theirs)

    out = model.run(batch, mask, sampled)
    close(out.generator_logits, io["gen_logits"])
    close(out.token_losses, io["gen_per_token_loss"])
    assert np.array_equal(out.corrupted_ids.numpy(), io["disc_input_ids"])
    assert np.array_equal(out.labels.numpy(), io["disc_labels"])
    close(out.logits, io["disc_logits"])

    layers = []
    model.discriminator(
        model.embeddings(out.corrupted_ids, batch.segment_ids, batch.position_ids), mask, every_layer=layers
    )
    close(layers[0], io["disc_embedding_output"])
    for ours, theirs in zip(layers[1:], io["disc_layers"], strict=True):
        close(ours, theirs)

    loss, parts = losses(model, batch, sampled)
    close(parts[0], io["gen_loss"])
    close(parts[1], io["disc_loss"])
    close(loss, io["total_loss"])


def losses(model, batch, sampled):
    """Total, generator and discriminator loss with the golden samples in place of the model's own."""
    original, model.run = model.run, lambda b: original(b, sampled_ids=sampled)
    try:
        totals = {"predictions": float(batch.weights.sum()), "tokens": float((batch.piece_ids > 0).sum())}
        loss, sums = model(batch, totals)
    finally:
        del model.run
    return loss, (sums["generator_loss"], sums["discriminator_loss"])


def test_gradients_equal_google(fixture):
    model, batch, _, meta, steps, sampled = fixture
    model.zero_grad()
    losses(model, batch, sampled)[0].backward()
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    names = [name for name in steps.files if name.startswith("grad1|")]
    for name in names:
        close(read(gradients, name.removeprefix("grad1|")), steps[name])
    for name, checks in meta["variables"].items():
        value = read(gradients, name.replace("/", "|")).double()
        ours = [value.sum(), value.abs().sum(), value.square().sum()]
        np.testing.assert_allclose(ours, checks["grad1"], rtol=1e-4, atol=1e-4)
    assert float(global_norm(model)) == pytest.approx(meta["global_norm_before_clip"][0], rel=1e-5)


def test_ten_optimizer_steps_equal_google(fixture):
    model, batch, _, meta, steps, sampled = fixture
    start = {name: value.clone() for name, value in model.state_dict().items()}
    optimizers = make_optimizers(model, OptimizerConfig())
    try:
        for step in range(10):
            loss, _ = losses(model, batch, sampled)
            assert loss.item() == pytest.approx(meta["total_loss_before_update"][step], rel=1e-5)
            model.zero_grad()
            loss.backward()
            norm = global_norm(model)
            assert float(norm) == pytest.approx(meta["global_norm_before_clip"][step], rel=1e-5)
            scale_gradients(model, (1.0 / norm).clamp(max=1.0))
            rate = warmup_decay(step, peak=1e-3, steps=20, warmup_steps=4)
            assert rate == pytest.approx(meta["lr_used_per_step"][step], rel=1e-6, abs=1e-12)
            set_learning_rate(optimizers, rate)
            for optimizer in optimizers:
                optimizer.step()
            state = model.state_dict()
            if step == 0:  # the first step has a rate of 0
                assert all(torch.equal(start[name], state[name]) for name in start)
            if step == 1:
                for name in (name for name in steps.files if name.startswith("after2|")):
                    close(read(state, name.removeprefix("after2|")), steps[name], 1e-6)
            if step in (1, 9):
                for name, checks in meta["variables"].items():
                    value = read(state, name.replace("/", "|")).double()
                    ours = [value.sum(), value.abs().sum(), value.square().sum()]
                    np.testing.assert_allclose(ours, checks[f"after{step + 1}"], rtol=1e-6, atol=2e-5)
        moments = {
            key: {name: optimizers[-1].state[parameter][key] for name, parameter in model.named_parameters()}
            for key in ("exp_avg", "exp_avg_sq")
        }
        for name, checks in meta["variables"].items():
            for key, golden_key in (("exp_avg", "adam_m_after10"), ("exp_avg_sq", "adam_v_after10")):
                value = read(moments[key], name.replace("/", "|")).double()
                assert float(value.abs().sum()) == pytest.approx(checks[golden_key][1], rel=1e-4, abs=1e-8)
    finally:
        model.load_state_dict(start)


def test_weight_decay_applies_where_google_applies_it(fixture):
    model, *_, meta, _, _ = fixture
    (optimizer,) = make_optimizers(model, OptimizerConfig())
    decays = {p: group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    parameters = dict(model.named_parameters())
    for name, checks in meta["variables"].items():
        assert (decays[parameters[our_name(name.replace("/", "|"))[0]]] > 0) == checks["weight_decay"], name


def test_scatter_equals_google_where_positions_repeat(golden):
    case = json.loads((golden / "scatter_update_duplicates.json").read_text())
    tensors = [torch.tensor(case[key]) for key in ("sequence", "updates", "positions")]
    assert scatter_tokens(*tensors).tolist() == case["updated"]


def random_batch(vocab: int, B: int = 3, L: int = 24, K: int = 4, seed: int = 0) -> RTDBatch:
    draw = torch.Generator().manual_seed(seed)
    ids = torch.randint(5, vocab, (B, L), generator=draw)
    positions = torch.stack([torch.randperm(L - 2, generator=draw)[:K] + 1 for _ in range(B)])
    masked = ids.scatter(1, positions, 4)
    return RTDBatch(
        input_ids=ids,
        masked_input_ids=masked,
        segment_ids=(torch.arange(L) > L // 2).long().expand(B, L),
        position_ids=torch.arange(L).expand(B, L),
        piece_ids=torch.ones(B, L, dtype=torch.long),
        positions=positions,
        weights=torch.ones(B, K),
        token_ids=ids.gather(1, positions),
        uniforms=torch.rand(B, K, generator=draw),
    )


def test_sampling_draws_from_the_softmax():
    """A chi-square test against the exact probabilities, with temperature and with the true token forbidden."""
    logits = torch.tensor([2.0, 0.5, -1.0, 0.0, 1.0, -3.0])
    draws = 40_000
    uniforms = torch.rand(1, draws, generator=torch.Generator().manual_seed(1))
    for temperature, forbidden in ((1.0, None), (2.0, None), (1.0, 4)):
        expected = logits / temperature
        blocked = None if forbidden is None else torch.full((1, draws), forbidden)
        if forbidden is not None:
            expected = expected.clone()
            expected[forbidden] = float("-inf")
        sampled = sample_tokens(logits.expand(1, draws, 6), uniforms, temperature, blocked)
        counts = np.bincount(sampled.flatten().numpy(), minlength=6)
        probabilities = torch.softmax(expected, 0).double().numpy()
        keep = probabilities > 0
        assert counts[~keep].sum() == 0
        result = stats.chisquare(counts[keep], probabilities[keep] / probabilities[keep].sum() * draws)
        assert result.pvalue > 1e-3


def test_sampling_never_leaves_the_vocabulary():
    logits = torch.randn(2, 3, 30_522)
    for value in (0.0, 1 - 2**-24):
        sampled = sample_tokens(logits, torch.full((2, 3), value))
        assert int(sampled.min()) >= 0 and int(sampled.max()) < 30_522


def test_packed_pieces_do_not_see_each_other():
    """A row of two pieces gives the logits of two rows of one piece each."""
    model = ReplacedTokenDetection(TWO_LAYERS, ObjectiveConfig(), 100).eval()
    batch = random_batch(100, B=1)
    split = 10
    pieces = torch.cat([torch.ones(1, split), torch.full((1, 24 - split), 2)], 1).long()
    positions = torch.cat([torch.arange(split), torch.arange(24 - split)])[None]
    embedded = model.embeddings(batch.input_ids, batch.segment_ids, positions)
    together = model.discriminator(embedded, block_mask(pieces))
    for part in (slice(0, split), slice(split, 24)):
        alone = model.discriminator(embedded[:, part])
        torch.testing.assert_close(together[:, part], alone, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("hidden", "layers", "heads", "ffn", "embedding", "width"),
    [(256, 12, 4, 1024, 128, 0.25), (768, 12, 12, 3072, 768, 1 / 3), (1024, 24, 16, 4096, 1024, 0.25)],
    ids=["small", "base", "large"],
)
def test_both_networks_equal_hugging_face(hidden, layers, heads, ffn, embedding, width):
    """Logits of random weights at the released shapes (a short vocabulary keeps the test small)."""
    from transformers import ElectraConfig, ElectraForMaskedLM, ElectraForPreTraining

    from electra.export import networks_of
    from electra.interop.hf import hf_config

    shape = ModelConfig(hidden, layers, heads, ffn, embedding, generator_width=width)
    model = ReplacedTokenDetection(shape, ObjectiveConfig(), 1000).eval()
    batch = random_batch(1000, B=2)
    for network, kind, config in (
        ("generator", ElectraForMaskedLM, model.generator_config),
        ("discriminator", ElectraForPreTraining, model.config),
    ):
        theirs = kind(ElectraConfig(**hf_config(config, kind.__name__))).eval()
        result = theirs.load_state_dict(networks_of(model, "test")[network].tensors, strict=False)
        assert result.missing_keys in ([], ["generator_lm_head.weight"]) and not result.unexpected_keys
        theirs.tie_weights()
        with torch.no_grad():
            expected = theirs(input_ids=batch.masked_input_ids, token_type_ids=batch.segment_ids).logits
            embedded = model.embeddings(batch.masked_input_ids, batch.segment_ids)
            hidden_states = getattr(model, network)(embedded)
            if network == "generator":
                ours = model.generator_head(hidden_states, model.embeddings.word.weight)
            else:
                ours = model.discriminator_head(hidden_states)
        torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-5)


def test_initialisation_is_googles():
    model = ReplacedTokenDetection(ModelConfig(), ObjectiveConfig(), 3000)
    for name, parameter in model.state_dict().items():
        if parameter.ndim < 2:
            assert parameter.unique().numel() == 1, name
        elif "project" in name or "classifier" in name:
            limit = (6 / sum(parameter.shape)) ** 0.5
            assert float(parameter.abs().max()) <= limit and float(parameter.std()) == pytest.approx(
                limit / 3**0.5, rel=0.1
            )
        else:
            assert float(parameter.abs().max()) <= 0.04, name
            assert float(parameter.std()) == pytest.approx(0.0176, rel=0.1), name  # .02 cut at two sigma


@pytest.mark.parametrize("generator", ["shared-embeddings", "own-embeddings"])
def test_sinusoidal_positions_are_those_of_hugging_face_and_all_else_is_googles(generator):
    objective, models = ObjectiveConfig(generator=generator), {}
    for position_init in ("normal", "sinusoidal"):
        torch.manual_seed(1)
        models[position_init] = ReplacedTokenDetection(ModelConfig(position_init=position_init), objective, 300)
    normal, sinusoidal = models["normal"].state_dict(), models["sinusoidal"].state_dict()
    for name, values in sinusoidal.items():
        if name.endswith("position.weight"):
            expected = torch.zeros_like(values)
            create_sinusoidal_embeddings(*expected.shape, expected)  # sines and cosines by turns; ours: first all sines
            torch.testing.assert_close(values, torch.cat([expected[:, 0::2], expected[:, 1::2]], 1) * 0.06 * 2**0.5)
        else:
            assert values.equal(normal[name]), name
    assert all(parameter.requires_grad for parameter in models["sinusoidal"].parameters())


def test_generator_shapes_of_the_paper():
    small = generator_config(ModelConfig(), 30522)
    assert (small.hidden_size, small.num_heads, small.intermediate_size, small.embedding_size) == (64, 1, 256, 128)
    base = generator_config(ModelConfig(768, 12, 12, 3072, 768, generator_width=1 / 3), 30522)
    assert (base.hidden_size, base.num_heads, base.intermediate_size) == (256, 4, 1024)


def test_losses_add_up_over_micro_batches():
    """Two halves normalised by the counts of the whole give the whole."""
    model = ReplacedTokenDetection(TWO_LAYERS, ObjectiveConfig(), 100).eval()
    batch = random_batch(100, B=4)
    totals = {"predictions": 16.0, "tokens": 96.0}
    whole = model(batch, totals)[0]
    fields = {name: value for name, value in vars(batch).items() if isinstance(value, torch.Tensor)}
    halves = [RTDBatch(**{n: v[part] for n, v in fields.items()}) for part in (slice(0, 2), slice(2, 4))]
    torch.testing.assert_close(sum(model(half, totals)[0] for half in halves), whole)


def test_embedding_table_is_padded_inside_and_never_sampled():
    config = discriminator_config(ModelConfig(), 1001)
    assert config.padded_vocab_size == 1024
    model = ReplacedTokenDetection(ModelConfig(num_layers=1), ObjectiveConfig(), 1001).eval()
    out = model.run(random_batch(1001))
    assert out.generator_logits.shape[-1] == 1001
    expected = F.cross_entropy(out.generator_logits.flatten(0, 1), random_batch(1001).token_ids.flatten())
    torch.testing.assert_close(out.token_losses.mean(), expected)


@pytest.mark.parametrize(("spread", "gap"), [(0.2, 0.04), (1.0, 1.0), (3.0, 8.0), (0.0, 0.0)])
def test_training_auc_from_a_histogram_is_scikit_learns(spread, gap):
    """Logits of a discriminator that knows hardly anything, something, nearly all, and nothing; padding left out."""
    draw = torch.Generator().manual_seed(0)
    replaced = torch.rand(256, 128, generator=draw) < 0.14
    valid = torch.rand(256, 128, generator=draw) < 0.9
    logits = -1.9 + spread * torch.randn(256, 128, generator=draw) + gap * replaced
    parts = zip(logits.chunk(4), replaced.chunk(4), valid.chunk(4), strict=True)
    counts = sum(logit_histogram(*part) for part in parts)
    assert int(counts.sum()) == int(valid.sum())
    expected = roc_auc_score(replaced[valid], logits[valid])
    assert histogram_auc(*counts.double().chunk(2)) == pytest.approx(expected, abs=3e-4)


def test_a_histogram_takes_any_logit():
    """What is beyond the ends is counted there, and nan somewhere, so that the loss can say what is wrong."""
    logits = torch.tensor([[-1e9, 1e9, float("inf"), float("-inf"), float("nan")]])
    replaced = torch.tensor([[False, True, True, False, True]])
    counts = logit_histogram(logits, replaced, torch.ones_like(replaced))
    assert counts.sum() == 5 and counts[0] == 2 and counts[-1] == 2
    assert histogram_auc(np.array([3.0, 0.0]), np.array([0.0, 0.0])) == 0.5  # nothing was replaced


def test_a_log_line_has_the_metrics_of_its_steps():
    """Sums over two steps through the loop's window, and over a checkpoint between them, against single tokens."""
    model = ReplacedTokenDetection(TWO_LAYERS, ObjectiveConfig(), 100).eval()
    runtime = Runtime(torch.device("cpu"), "fp32", "")
    window = Window({})
    logits, labels, drawn = [], [], []
    for seed in (0, 1):
        batch = random_batch(100, B=8, seed=seed)
        with torch.no_grad():
            out = model.run(batch)
            _, sums = model(batch, {"predictions": 64.0, "tokens": 8.0 * 24})
        logits.append(out.logits.flatten())
        labels.append(out.labels.flatten())
        drawn.append((out.sampled_ids == batch.token_ids).float().flatten())
        window.add({name: value.double() for name, value in sums.items()}, 0)
        window = Window(json.loads(json.dumps(window.total(runtime) | {"steps": window.steps})))
    found = step_metrics(window.total(runtime), window.steps)
    assert window.steps == 2
    assert found["discriminator_auc"] == pytest.approx(roc_auc_score(torch.cat(labels), torch.cat(logits)), abs=0.02)
    assert found["generator_sampled_accuracy"] == pytest.approx(float(torch.cat(drawn).mean()), abs=1e-9)
