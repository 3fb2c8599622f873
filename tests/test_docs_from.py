"""The pages "Coming from ...": every flag of the old scripts stands in a table, beside flags that exist here.

The names are those of the scripts' argument parsers and configuration classes, at the commits that the pages speak of.
"""

import pytest
from pages import ROOT, rows
from test_docs import FLAG, flags, reference  # noqa: F401  (fixtures)

from electra.interop.google_config import FINETUNING, PRETRAINING
from electra.tasks.catalogue import TASKS

BUILDER = (
    "corpus-dir vocab-file output-dir max-seq-length num-processes blanks-separate-docs do-lower-case no-lower-case"
)
SOURCES = {
    "google": f"""
        {BUILDER} do-strip-accents no-strip-accents data-dir model-name hparams
        debug do_train do_eval electra_objective electric_objective gen_weight disc_weight mask_prob learning_rate
        lr_decay_power weight_decay_rate num_warmup_steps iterations_per_loop save_checkpoints_steps num_train_steps
        num_eval_steps keep_checkpoint_max model_size model_hparam_overrides embedding_size vocab_size do_lower_case
        uniform_generator two_tower_generator untied_generator_embeddings untied_generator generator_layers
        generator_hidden_size disallow_correct temperature max_seq_length train_batch_size eval_batch_size use_tpu
        num_tpu_cores tpu_job_name tpu_name tpu_zone gcp_project
        num_trials task_names layerwise_lr_decay warmup_proportion num_train_epochs write_test_outputs n_writes_test
        double_unordered max_query_length doc_stride n_best_size max_answer_length answerable_classifier
        answerable_weight joint_prediction beam_size qa_na_threshold""",
    "nvidia": f"""
        {BUILDER} num-out-files seed
        model_name model_size pretrain_tfrecords phase2 fp16_compression amp xla num_train_steps num_warmup_steps
        learning_rate train_batch_size max_seq_length mask_prob disc_weight generator_hidden_size log_freq
        save_checkpoints_steps steps_this_run keep_checkpoint_max restore_checkpoint load_weights weights_dir optimizer
        skip_adaptive gradient_accumulation_steps lr_decay_power opt_beta_1 opt_beta_2 end_lr log_dir results_dir
        skip_checkpoint json-summary weight_decay_rate shared_embeddings
        electra_model data_dir output_dir init_checkpoint do_train do_predict do_eval train_file predict_file
        predict_batch_size layerwise_lr_decay num_train_epochs max_steps warmup_proportion doc_stride max_query_length
        vocab_file ci joint_head beam_size n_best_size max_answer_length verbose_logging no_cuda
        evaluate_during_training do_lower_case local_rank fp16_all_reduce version_2_with_negative
        null_score_diff_threshold eval_script use_env disable-progress-bar skip_cache cache_dir""",
    "habana": """
        use_hpu hmp TF_BF16_CONVERSION train_batch_size gradient_accumulation_steps learning_rate num_hpu xla
        warmup_steps train_steps save_checkpoint_steps resume_training init_checkpoint optimizer seed vocab_file
        train_iter_per_epoch test_sbs dump_config epochs batch_size layerwise_lr_decay weight_decay_rate
        warmup_proportion beam_size null_score_diff_threshold SQUAD_VERSION""",
    "sagemaker": """
        source_dir entry_point sm_job_name role image_name fsx_id fsx_mount_name fsx_prefix subnet_ids
        security_group_ids instance_type instance_count model_type model_size load_from checkpoint_path
        load_optimizer_state pre_layer_norm hidden_dropout_prob attention_probs_dropout_prob electra_tie_weights
        max_seq_length max_predictions_per_seq train_dir val_dir log_dir checkpoint_dir run_name name seed
        per_gpu_batch_size gradient_accumulation_steps warmup_steps total_steps optimizer learning_rate weight_decay
        end_learning_rate learning_rate_decay_power beta_1 beta_2 epsilon max_grad_norm skip_xla eager skip_sop
        skip_mlm log_frequency validation_frequency checkpoint_frequency evaluate_frequency squad_frequency fast_squad
        dummy_eval squad_version task_name""",
    "korean": """
        task data_dir ckpt_dir train_file dev_file test_file predict_file threads version_2_with_negative
        null_score_diff_threshold max_seq_len max_seq_length doc_stride max_query_length max_answer_length n_best_size
        verbose_logging overwrite_output_dir evaluate_during_training evaluate_test_during_training eval_all_checkpoints
        save_optimizer do_lower_case do_train do_eval num_train_epochs weight_decay gradient_accumulation_steps
        adam_epsilon warmup_proportion max_steps max_grad_norm no_cuda model_type model_name_or_path output_dir seed
        train_batch_size eval_batch_size logging_steps save_steps learning_rate
        model_size vocab_size pretrained-checkpoint output-dir amp xla model_name
        no-lower-case num-processes num-out-files max-seq-length""",
}


@pytest.mark.parametrize("system", SOURCES)
def test_each_flag_of_the_old_scripts_has_a_row(system: str) -> None:
    told = {code.lstrip("-") for row in rows(ROOT / "docs" / f"from-{system}.md") for code in row[0]}
    assert set(SOURCES[system].split()) <= told, set(SOURCES[system].split()) - told


def test_each_field_of_google_stands_in_a_table() -> None:
    told = {code for row in rows(ROOT / "docs" / "google-hparams.md") for code in row[0]}
    assert {field.name for field in (*PRETRAINING, *FINETUNING)} <= told


@pytest.mark.parametrize("system", SOURCES)
def test_the_flags_beside_them_exist(system: str, flags) -> None:  # noqa: F811
    every = set().union(*flags.values()) | {"--nproc-per-node"}
    given = [code for row in rows(ROOT / "docs" / f"from-{system}.md") for code in row[-1]]
    found = {flag for code in given for flag in FLAG.findall(code)}
    assert found <= every, found - every
    assert len(found) > 15
    for code in given:
        if code.startswith("--task "):
            assert code.split()[1] in {*TASKS, "korean"}, code
