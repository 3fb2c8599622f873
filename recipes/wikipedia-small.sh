#!/usr/bin/env bash
# ELECTRA-Small on a CPU in about half an hour of CPU time: text -> store -> pre-training -> fine-tuning beside random weights.
#
#   TEXT=enwiki.txt VOCAB=vocab.txt GLUE=glue OUT=wikipedia bash recipes/wikipedia-small.sh
#
# TEXT: one paragraph a line, an empty line between articles. VOCAB: BERT's uncased vocabulary (or one of electra vocab).
# GLUE: a folder with SST-2/ and MRPC/. What it gave on two cores is in benchmarks/results/wikipedia-small.md.
set -euo pipefail
: "${TEXT:?}" "${VOCAB:?}" "${GLUE:?}" "${OUT:?}"
cd "$(dirname "$0")/.."

electra build "$TEXT" --vocab "$VOCAB" --out "$OUT/store"

# The paper's network; a short budget's recipe: Muon on the matrices, batches of 4,096 tokens, and no dropout, since no
# text is seen twice.
electra pretrain electra-small --data "$OUT/store" --out "$OUT/run" \
    --optimizer muon --learning-rate 2e-3 --muon-learning-rate 1.5e-3 --bias-correction --warmup-steps 50 \
    --dropout 0 --attention-dropout 0 --batch-size 32 --steps 1200 \
    --log-every 25 --eval-every 100 --eval-rows 256 --save-every 100
electra evaluate "$OUT/run"

# Random weights get the same data, steps and rate, and full rates in all layers: there is nothing to spare.
for task in "sst2 SST-2 --epochs 1 --max-train 16000" "mrpc MRPC --epochs 3"; do
    read -r name folder flags <<<"$task"
    # shellcheck disable=SC2086  # flags are several words
    common=(--task "$name" --data "$GLUE/$folder" --seeds 0 1 $flags)
    electra finetune "$OUT/run" "${common[@]}" --out "$OUT/$name-pretrained"
    electra finetune "$OUT/run" "${common[@]}" --out "$OUT/$name-random" --from-scratch --layer-decay 1
done

python benchmarks/summarise_wikipedia.py "$OUT" --results "$OUT"
