#!/usr/bin/env bash
# The plan of the SageMaker system: ELECTRA-Small, 125,000 steps of 1,024 rows of 512, on 8 machines with 8 GPUs each.
#
#   FSX=fsx://fs-0123456789abcdef0/fsx BUCKET=s3://bucket/electra ROLE=arn:aws:iam::...:role/... IMAGE=....amazonaws.com/... \
#   SUBNETS=subnet-... SECURITY_GROUPS=sg-... bash recipes/sagemaker-small.sh [--dry-run] [--wait]
#
# The token store (electra build) lies in store/ of the file system, in which the folder runs/ exists. Theirs were
# ml.p3dn.24xlarge, 64 V100s, which took 11 h 40 min and which today's torch wheels no longer serve.
set -euo pipefail
: "${FSX:?}" "${BUCKET:?}" "${ROLE:?}" "${IMAGE:?}" "${SUBNETS:?}" "${SECURITY_GROUPS:?}"

# shellcheck disable=SC2086  # subnets and groups are several words
electra launch sagemaker sagemaker-small --data "$FSX/store" --out "$FSX/runs/electra-small" \
    --s3-output "$BUCKET" --image "$IMAGE" --role "$ROLE" --subnets $SUBNETS --security-groups $SECURITY_GROUPS \
    --instance-type "${INSTANCE:-ml.p4d.24xlarge}" --instances 8 --max-hours 24 "$@"
