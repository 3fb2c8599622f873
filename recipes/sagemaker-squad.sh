#!/usr/bin/env bash
# SQuAD 2.0 as the SageMaker system fine-tuned its ELECTRA-Small: 48 rows a step, 4e-4, a tenth of warm-up.
#
#   BUCKET=s3://bucket/electra ROLE=... IMAGE=... bash recipes/sagemaker-squad.sh [--dry-run] [--wait]
#
# BUCKET holds model/ (the export of the pre-training) and squad/ (train-v2.0.json, dev-v2.0.json). Their 5,430 steps were
# two epochs of 130,319 questions. An epoch here has every window of long passages, 131,754 rows with BERT's uncased
# vocabulary, of which 1.978 epochs are 5,430 steps; with another, the run says before it trains how many they are.
set -euo pipefail
: "${BUCKET:?}" "${ROLE:?}" "${IMAGE:?}"

electra launch sagemaker finetune "$BUCKET/model" --task squad --data "$BUCKET/squad" --out "$BUCKET/runs/squad" \
    --batch-size 48 --learning-rate 4e-4 --warmup 0.1 --epochs "${EPOCHS:-1.978}" --seeds 0 \
    --image "$IMAGE" --role "$ROLE" --instance-type "${INSTANCE:-ml.g5.2xlarge}" --spot "$@"
