"""Model cards against the files of their run and against huggingface_hub, which reads them on the Hub."""

import json
from pathlib import Path

import pytest
from huggingface_hub import ModelCard
from stores import make_store, random_documents

from electra.cli import main
from electra.config import CardConfig, LoopConfig, ModelConfig, OptimizerConfig, PretrainConfig, RowsConfig
from electra.export import read_run
from electra.files import write_json
from electra.front_matter import check_card
from electra.pretrain import pretrain


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four steps on two stores, the first of which was built as Korean text."""
    folder = tmp_path_factory.mktemp("card")
    stores = [make_store(folder / name, random_documents(40), held_out=0.1) for name in ("first", "second")]
    out = folder / "run"
    pretrain(
        PretrainConfig(
            data=tuple(str(store.folder) for store in stores),
            out=out,
            model=ModelConfig(64, 2, 1, 256, 32, generator_width=0.5, max_positions=64),
            rows=RowsConfig(seq_len=32),
            optimizer=OptimizerConfig(warmup_steps=1),
            loop=LoopConfig(steps=4, batch_size=8, eval_rows=16, precision="fp32", device="cpu", log_every=2),
        )
    )
    receipt = json.loads((out / "store.json").read_text())
    receipt |= {"sources": [{"path": "/home/someone/ko.txt"}], "options": {"cleaning": {"languages": ["ko"]}}}
    write_json(out / "store.json", receipt)
    return out


def test_a_card_says_all_that_the_run_knows(run: Path) -> None:
    cards = read_run(run).cards
    for card in cards.values():
        assert check_card(card) == []
        data = ModelCard(card).data
        assert data.language == ["ko"] and data.library_name == "transformers" and data.license is None
        for word in ("from ko.txt", "Languages: ko", "4 steps of 8 x 32", "in fp32, torch", "discriminator auc"):
            assert word in card
        assert "takes 64, but the positions beyond 32" in card and "not finished" not in card
        assert "/home" not in card and str(run.parent) not in card
    assert ModelCard(cards["discriminator"]).data.pipeline_tag == "feature-extraction"
    assert "ElectraForMaskedLM.from_pretrained" in cards["generator"]


def test_what_the_user_adds(run: Path, tmp_path: Path) -> None:
    words = ["--language", "en", "ko", "--license", "cc-by-4.0", "--carbon", "400", "--watts", "250"]
    assert main(["export", str(run), "--out", str(tmp_path / "out"), *words]) == 0
    card = (tmp_path / "out" / "discriminator" / "README.md").read_text()
    assert check_card(card) == []
    data = ModelCard(card).data.to_dict()
    assert data["language"] == ["en", "ko"] and data["license"] == "cc-by-4.0"
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    seconds = sum(2 * 8 * 32 / row["tokens_per_second"] for row in rows if row["kind"] == "train")
    emissions = data["co2_eq_emissions"]
    assert emissions["emissions"] == pytest.approx(seconds / 3600 * 0.250 * 400, rel=1e-3)
    assert "250 W as stated" in emissions["source"] and "400 g per kWh as stated" in emissions["source"]
    assert emissions["source"] in card.split("## Training")[1]


def test_steps_of_another_system_cost_nothing_here(run: Path) -> None:
    """As of a converted checkpoint of step 2, with which the run began."""
    starts = (run / "starts.jsonl").read_text()
    (run / "starts.jsonl").write_text(json.dumps(json.loads(starts) | {"step": 2}) + "\n")
    card = read_run(run, card=CardConfig(carbon=400, watts=250)).cards["discriminator"]
    (run / "starts.jsonl").write_text(starts)
    row = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines() if '"train"' in line][-1]
    expected = 2 * 8 * 32 / row["tokens_per_second"] / 3600 * 0.250 * 400
    assert ModelCard(card).data.to_dict()["co2_eq_emissions"]["emissions"] == pytest.approx(expected, rel=1e-3)


def test_other_formats_say_how_they_load(run: Path, tmp_path: Path) -> None:
    assert main(["export", str(run), "--format", "tf-h5", "--out", str(tmp_path / "h5")]) == 0
    card = (tmp_path / "h5" / "generator" / "README.md").read_text()
    assert check_card(card) == [] and "TFElectraForMaskedLM.from_pretrained" in card
    card = read_run(run, "onnx").cards["generator"]
    assert check_card(card) == [] and "InferenceSession" in card and "onnx" in ModelCard(card).data.tags


def test_carbon_needs_hours_and_watts(run: Path) -> None:
    with pytest.raises(ValueError, match="--watts go together"):
        CardConfig(carbon=400)
    with pytest.raises(ValueError, match="--language english is no code"):
        CardConfig(language=("english",))
    before = (run / "metrics.jsonl").read_text()
    (run / "metrics.jsonl").write_text("")
    with pytest.raises(ValueError, match="no speed of training"):
        read_run(run, card=CardConfig(carbon=400, watts=250))
    (run / "metrics.jsonl").write_text(before)


@pytest.mark.parametrize(
    ("head", "fault"),
    [
        ("", "no front matter"),
        ("---\ntags: [a\n---\n", "cannot be read"),
        ("---\n- a\n---\n", "cannot be read"),
        ("---\nlanguage: English\n---\n", "ISO 639"),
        ("---\nlicense: Apache 2.0!\n---\n", "no identifier"),
        ("---\npipeline_tag: [fill-mask]\n---\n", "must be a word"),
        ("---\nmodel-index:\n- name: a\n  results:\n  - task: 3\n---\n", "cannot be read"),
    ],
)
def test_faults_of_front_matter(head: str, fault: str) -> None:
    (found,) = check_card(head + "# A model\n")
    assert fault in found
