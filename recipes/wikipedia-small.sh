#!/usr/bin/env bash
# ELECTRA-Small in about an hour of CPU time, half an hour on two cores: text -> store -> pre-training -> fine-tuning
# beside random weights.
#
#   TEXT=enwiki.txt VOCAB=vocab.txt GLUE=glue OUT=wikipedia bash recipes/wikipedia-small.sh
#
# TEXT: one paragraph a line, an empty line between articles. VOCAB: BERT's uncased vocabulary (or one of electra vocab).
# GLUE: a folder with SST-2/ and MRPC/. What it gave on two cores is in benchmarks/results/wikipedia-small.md.
set -euo pipefail
: "${TEXT:?}" "${VOCAB:?}" "${GLUE:?}" "${OUT:?}"
cd "$(dirname "$0")/.."

electra build "$TEXT" --vocab "$VOCAB" --out "$OUT/store"

# The paper's network and objective; a short budget's recipe: Muon on the matrices at a low rate, many small batches, no
# dropout since no text is seen twice. With Google's first positions, as the paper has them, 7 M tokens end near word
# frequencies; recipes/two-languages.sh begins them otherwise (docs/pretraining.md, "Short budgets").
electra pretrain electra-small --data "$OUT/store" --out "$OUT/run" \
    --optimizer muon --learning-rate 2e-3 --muon-learning-rate 5e-4 --bias-correction --warmup-steps 200 \
    --dropout 0 --attention-dropout 0 --batch-size 16 --steps 3600 \
    --log-every 50 --eval-every 300 --eval-rows 256 --save-every 600
electra evaluate "$OUT/run" | tee "$OUT/wikipedia-small-evaluate.txt"

# Both starts get the same data, steps, rates and seeds.
for task in "sst2 SST-2 --epochs 2 --max-train 16000" "mrpc MRPC --epochs 3"; do
    read -r name folder flags <<<"$task"
    # shellcheck disable=SC2086  # flags are several words
    common=(--task "$name" --data "$GLUE/$folder" --seeds 0 1 --layer-decay 1 $flags)
    electra finetune "$OUT/run" "${common[@]}" --out "$OUT/$name-pretrained"
    electra finetune "$OUT/run" "${common[@]}" --out "$OUT/$name-random" --from-scratch
done

python benchmarks/summarise_wikipedia.py "$OUT" --results "$OUT"
