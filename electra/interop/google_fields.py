"""Every hyper-parameter of google-research/electra, and what becomes of it here: the one table behind code and docs.

The rows are the attributes of `PretrainingConfig` (configure_pretraining.py, with the Electric fields of its last
version), of `FinetuningConfig` (configure_finetuning.py) and of `modeling.BertConfig`, whose fields may stand in
`model_hparam_overrides`. google_config.py acts on them; `table` prints them for docs/google-hparams.md.

    mapped    the value goes unchanged to the field of ours that is named
    derived   it decides fields of ours in the way described
    checked   ours comes from elsewhere; a value that disagrees is an error
    ignored   it has no meaning here or is given in another place; accepted, and said when it is given
    refused   only Google's default is accepted, for the reason given
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Literal


class Rule(str):
    """A default that follows from other fields, in words."""


@dataclass(frozen=True)
class Field:
    """One of Google's hyper-parameters."""

    name: str
    kind: type  # of its JSON value: bool, int, float (which whole numbers are too), str, list (of texts), dict
    default: Any  # Google's, JSON's null as None; a Rule where it is not one value
    action: Literal["mapped", "derived", "checked", "ignored", "refused"]
    text: str  # mapped: our field; otherwise a phrase that says what happens, or why it does not
    or_null: bool = False  # null is accepted although it is not the default

    @property
    def nullable(self) -> bool:
        return self.or_null or self.default is None


DEVICES = "devices are chosen with --device and torchrun"
PATHS = "files are named on the command line"

TPU = (
    Field("use_tpu", bool, False, "ignored", DEVICES),
    Field("num_tpu_cores", int, 1, "ignored", DEVICES),
    Field("tpu_job_name", str, None, "ignored", DEVICES),
    Field("tpu_name", str, None, "ignored", DEVICES),
    Field("tpu_zone", str, None, "ignored", DEVICES),
    Field("gcp_project", str, None, "ignored", DEVICES),
    Field(
        "iterations_per_loop",
        int,
        Rule("200; 1000 in fine-tuning"),
        "ignored",
        "only a TPU runs steps in bundles",
    ),
)

SHAPE = (
    Field(
        "model_size",
        str,
        "small",
        "derived",
        "`small` 12 layers of 256, `base` 12 of 768, `large` 24 of 1024; heads of 64, feed-forward four times as wide",
    ),
    Field("model_hparam_overrides", dict, {}, "derived", "fields of `BertConfig`, in the third table"),
    Field(
        "embedding_size",
        int,
        None,
        "derived",
        "`model.embedding_size`: 128 for `small`, otherwise, and when null, hidden size",
    ),
    Field("vocab_size", int, 30522, "checked", "the vocabulary comes from the store or the model"),
    Field("do_lower_case", bool, True, "checked", "the casing comes from the store or the model"),
)

OVERRIDES = (
    Field("hidden_size", int, Rule("by model_size"), "mapped", "model.hidden_size"),
    Field("num_hidden_layers", int, Rule("by model_size"), "mapped", "model.num_layers"),
    Field("num_attention_heads", int, Rule("hidden_size // 64, at least 1"), "mapped", "model.num_heads"),
    Field("intermediate_size", int, Rule("4 * hidden_size"), "mapped", "model.intermediate_size"),
    Field("hidden_dropout_prob", float, 0.1, "mapped", "model.dropout"),
    Field("attention_probs_dropout_prob", float, 0.1, "mapped", "model.attention_dropout"),
    Field("max_position_embeddings", int, 512, "mapped", "model.max_positions"),
    Field("vocab_size", int, Rule("vocab_size above"), "checked", "the vocabulary comes from the store or the model"),
    Field("hidden_act", str, "gelu", "refused", "the layers have the exact GELU"),
    Field("type_vocab_size", int, 2, "refused", "rows have the segments A and B"),
    Field("initializer_range", float, 0.02, "refused", "weights begin with a deviation of 0.02"),
)

PRETRAINING = (
    Field("model_name", str, Rule("given"), "ignored", PATHS),
    Field("debug", bool, False, "derived", "3 layers of 144, 20 steps of 8 rows, as Google's debug mode"),
    Field("do_train", bool, True, "refused", "held-out metrics of a finished run come from `electra evaluate RUN`"),
    Field("do_eval", bool, False, "refused", "held-out metrics of a finished run come from `electra evaluate RUN`"),
    Field(
        "electra_objective",
        bool,
        True,
        "derived",
        "`objective.objective`: `masked-lm` when false; the fields of the generator and of sampling then do nothing",
    ),
    Field(
        "electric_objective",
        bool,
        False,
        "derived",
        "`objective.objective`: `electric` when true, whatever electra_objective is",
    ),
    Field("gen_weight", float, 1.0, "mapped", "objective.generator_weight"),
    Field("disc_weight", float, 50.0, "mapped", "objective.discriminator_weight"),
    Field("mask_prob", float, 0.15, "mapped", "objective.mask_prob"),
    Field(
        "max_predictions_per_seq",
        int,
        Rule("int((mask_prob + .005) * max_seq_length)"),
        "checked",
        "computed from the two fields as Google's code does, which does not let it be given",
    ),
    Field("learning_rate", float, 5e-4, "mapped", "optimizer.learning_rate"),
    Field("lr_decay_power", float, 1.0, "mapped", "optimizer.decay_power"),
    Field("weight_decay_rate", float, 0.01, "mapped", "optimizer.weight_decay"),
    Field("num_warmup_steps", int, 10_000, "mapped", "optimizer.warmup_steps"),
    Field("save_checkpoints_steps", int, 1000, "mapped", "loop.save_every"),
    Field("num_train_steps", int, 1_000_000, "mapped", "loop.steps"),
    Field("num_eval_steps", int, 100, "derived", "`loop.eval_rows` = num_eval_steps * eval_batch_size"),
    Field("keep_checkpoint_max", int, 5, "mapped", "loop.keep", or_null=True),
    *SHAPE,
    Field("uniform_generator", bool, False, "derived", "`objective.generator`: `uniform` when true"),
    Field(
        "two_tower_generator",
        bool,
        Rule("as electric_objective"),
        "derived",
        "`objective.generator`: `two-tower` when true, with shared embeddings",
    ),
    Field(
        "untied_generator_embeddings",
        bool,
        False,
        "derived",
        "`objective.generator`: `own-embeddings` when true, unless one of the fields around it decides otherwise",
    ),
    Field(
        "untied_generator",
        bool,
        True,
        "derived",
        "`objective.generator`: `same-network` when false, of the discriminator's size",
    ),
    Field("generator_layers", float, 1.0, "mapped", "model.generator_depth"),
    Field("generator_hidden_size", float, 0.25, "mapped", "model.generator_width"),
    Field("disallow_correct", bool, False, "mapped", "objective.disallow_correct"),
    Field("temperature", float, 1.0, "mapped", "objective.temperature"),
    Field("max_seq_length", int, 128, "mapped", "rows.seq_len"),
    Field("train_batch_size", int, 128, "mapped", "loop.batch_size"),
    Field("eval_batch_size", int, 128, "derived", "see num_eval_steps"),
    *TPU,
    Field("data_dir", str, Rule("given"), "ignored", PATHS),
    Field("pretrain_tfrecords", str, Rule("below data_dir"), "ignored", PATHS),
    Field("vocab_file", str, Rule("below data_dir"), "ignored", PATHS),
    Field("model_dir", str, Rule("below data_dir"), "ignored", PATHS),
    Field("results_txt", str, Rule("below model_dir"), "ignored", PATHS),
    Field("results_pkl", str, Rule("below model_dir"), "ignored", PATHS),
)

FINETUNING = (
    Field("model_name", str, Rule("given"), "ignored", PATHS),
    Field("debug", bool, False, "refused", "a random model of 3 layers is `--from-scratch` with a small one"),
    Field("log_examples", bool, False, "ignored", "counts of labels, lengths and unknown tokens are always printed"),
    Field("num_trials", int, 1, "derived", "`seeds` 0, 1, ... num_trials - 1"),
    Field("do_train", bool, True, "derived", "`mode`: `eval` when false, for a fine-tuned model"),
    Field("do_eval", bool, True, "derived", "`mode`: `train` when false, `predict` when do_train is false too"),
    Field("keep_all_models", bool, True, "ignored", "the model of the best seed is kept"),
    Field(
        "task_names",
        list,
        ["chunk"],
        "derived",
        "`task`; several are refused: Google's code trains one model on all, a run here has one task",
    ),
    *SHAPE,
    Field("learning_rate", float, Rule("1e-4, large 5e-5"), "derived", "`learning_rate`"),
    Field("weight_decay_rate", float, 0.01, "mapped", "weight_decay"),
    Field(
        "layerwise_lr_decay",
        float,
        Rule("0.8, large 0.9"),
        "derived",
        "`layer_decay`, where 0 becomes 1, which turns it off",
    ),
    Field("num_train_epochs", float, Rule("3, rte and sts 10"), "derived", "`epochs`"),
    Field("warmup_proportion", float, 0.1, "mapped", "warmup"),
    Field("save_checkpoints_steps", int, 1_000_000, "mapped", "save_every"),
    Field("use_tfrecords_if_existing", bool, True, "ignored", "texts are encoded when the run starts"),
    Field("write_test_outputs", bool, False, "ignored", "the answers for test files are always written"),
    Field("n_writes_test", int, 5, "ignored", "the answers of every seed are written"),
    Field("max_seq_length", int, Rule("128; 256 for chunk, 512 for questions"), "derived", "`max_length`"),
    Field("train_batch_size", int, 32, "mapped", "batch_size"),
    Field("eval_batch_size", int, 32, "ignored", "it changes no result"),
    Field("predict_batch_size", int, 32, "ignored", "it changes no result"),
    Field("double_unordered", bool, True, "refused", "mrpc and stsb always train on each pair in both orders"),
    Field("max_query_length", int, 64, "mapped", "questions.max_query_length"),
    Field("doc_stride", int, 128, "mapped", "questions.doc_stride"),
    Field("n_best_size", int, 20, "mapped", "questions.n_best"),
    Field("max_answer_length", int, 30, "mapped", "questions.max_answer_length"),
    Field("answerable_classifier", bool, True, "derived", "`questions.head`: the joint head has one, the simple none"),
    Field("answerable_uses_start_logits", bool, True, "refused", "the classifier of the joint head uses them"),
    Field("answerable_weight", float, 0.5, "mapped", "questions.answerable_weight"),
    Field(
        "joint_prediction",
        bool,
        True,
        "derived",
        "`questions.head`: `joint`; `simple` when it and answerable_classifier are false; one alone is refused",
    ),
    Field("beam_size", int, 20, "mapped", "questions.beam_size"),
    Field("qa_na_threshold", float, -2.75, "mapped", "questions.null_threshold"),
    *TPU,
    Field("data_dir", str, Rule("given"), "ignored", PATHS),
    Field("raw_data_dir", str, Rule("below data_dir"), "ignored", PATHS),
    Field("vocab_file", str, Rule("below data_dir"), "ignored", PATHS),
    Field("init_checkpoint", str, Rule("the pre-trained model"), "ignored", PATHS, or_null=True),
    Field("model_dir", str, Rule("below data_dir"), "ignored", PATHS),
    Field("results_txt", str, Rule("below model_dir"), "ignored", PATHS),
    Field("results_pkl", str, Rule("below model_dir"), "ignored", PATHS),
    Field("qa_eval_file", str, Rule("below model_dir"), "ignored", PATHS),
    Field("qa_preds_file", str, Rule("below model_dir"), "ignored", PATHS),
    Field("qa_na_file", str, Rule("below model_dir"), "ignored", PATHS),
    Field("preprocessed_data_dir", str, Rule("below model_dir"), "ignored", PATHS),
    Field("test_predictions", str, Rule("below model_dir"), "ignored", PATHS),
)


def table(fields: tuple[Field, ...]) -> str:
    """The rows as a Markdown table, as docs/google-hparams.md shows them."""
    lines = ["| field | Google's default | here | |", "|---|---|---|---|"]
    for field in fields:
        default = field.default if isinstance(field.default, Rule) else f"`{json.dumps(field.default)}`"
        text = f"`{field.text}`" if field.action == "mapped" else field.text
        lines.append(f"| `{field.name}` | {default} | {field.action} | {text} |")
    return "\n".join(lines)
