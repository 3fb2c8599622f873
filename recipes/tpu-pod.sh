#!/usr/bin/env bash
# Pre-training on a TPU slice, from a token store in a bucket. Run it on every VM of the slice at once:
#
#   STORE=gs://bucket/store RUN=/mnt/shared/run TOPOLOGY=4,4,1 \
#   TPU_WORKER_HOSTNAMES=10.0.0.2,10.0.0.3,10.0.0.4,10.0.0.5 TPU_WORKER_ID=0 bash recipes/tpu-pod.sh electra-base [...]
#
# TOPOLOGY is the slice's, in chips (4,4,1: a v6e-16; 2,2,1: one VM of 4). GKE sets TPU_WORKER_HOSTNAMES and TPU_WORKER_ID;
# elsewhere they are the VMs' addresses in one order, and the place of this VM among them, from 0. RUN is a folder that
# all VMs see (Filestore); of one VM any folder will do. What follows the preset goes to electra pretrain.
#
# Needs torch_tpu, pip install 'electra-toolkit[storage]' gcsfs, and the store, which any machine can make from a bucket:
#
#   electra vocab 'gs://bucket/text/*.txt.gz' --out gs://bucket/vocab
#   electra build 'gs://bucket/text/*.txt.gz' --vocab gs://bucket/vocab --out gs://bucket/store
#
# Each VM copies it into its cache (ELECTRA_CACHE) once. The same command goes on after an interruption.
set -euo pipefail
: "${STORE:?}" "${RUN:?}" "${TOPOLOGY:?}" "${CHIPS:=4}" "${TPU_WORKER_HOSTNAMES:=localhost}" "${TPU_WORKER_ID:=0}"

IFS=, read -ra hosts <<<"$TPU_WORKER_HOSTNAMES"
addresses=()
for host in "${hosts[@]}"; do
    for ((chip = 0; chip < CHIPS; chip++)); do
        addresses+=("$host:$((8471 + chip))")
    done
done

# torch_tpu reads these before anything else: where the processes meet, one a chip, and how their chips lie.
TORCH_TPU_SLICEBUILDER_ADDRESSES=$(IFS=, && echo "${addresses[*]}")
export TORCH_TPU_SLICEBUILDER_ADDRESSES TORCH_TPU_TOPOLOGY=$TOPOLOGY

exec torchrun --nnodes "${#hosts[@]}" --node-rank "$TPU_WORKER_ID" --nproc-per-node "$CHIPS" \
    --master-addr "${hosts[0]}" --master-port "${PORT:-29500}" \
    -m electra pretrain "$@" --data "$STORE" --out "$RUN" --device tpu
