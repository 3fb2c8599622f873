#!/usr/bin/env bash
# A small English and Korean encoder from some 200 MB of text, and its tasks beside random weights.
#
#   DATA=data OUT=two bash recipes/two-languages.sh
#
# DATA: a folder with corpus/ (English and Korean text, an empty line between articles) and the tasks' files as
# benchmarks/tasks.py lists them. What these commands, given one by one, gave on two cores is in
# benchmarks/results/tasks.md, as far as tasks were run.
set -euo pipefail
: "${DATA:?}" "${OUT:?}"
cd "$(dirname "$0")/.."

mkdir -p "$OUT/text"
while read -r name megabytes; do
    # Whole lines: the last one may be cut.
    head -c "${megabytes}000000" "$DATA/corpus/$name.txt" | sed '$d' >"$OUT/text/$name.txt"
done <<<"enwiki_part1 80
novels98_en 12
kowiki_part1 45
nsmc_reviews_notest_ko 60"

electra vocab "$OUT/text" --out "$OUT/vocab" --size 16384 --strip-accents False
electra build "$OUT/text" --vocab "$OUT/vocab" --out "$OUT/store"

# Four layers of 256. At such a budget a discriminator from random weights hardly leaves the majority's answer
# (benchmarks/results/chunk-rate.txt), so a masked language model comes first, on short rows, and the discriminator
# begins with its layers (docs/pretraining.md, "Short budgets").
shape=(--hidden-size 256 --num-heads 4 --intermediate-size 1024 --warmup-steps 200)
electra pretrain tiny --data "$OUT/store" --out "$OUT/first" "${shape[@]}" --objective masked-lm --seq-len 32 \
    --batch-size 64 --steps 6000 --learning-rate 1e-3 --muon-learning-rate 2e-3 --log-every 100 --eval-every 1000
electra pretrain tiny --data "$OUT/store" --out "$OUT/run" "${shape[@]}" --init "$OUT/first" \
    --batch-size 32 --steps 7000 --learning-rate 5e-4 --muon-learning-rate 1e-3 --log-every 100 --eval-every 500
electra evaluate "$OUT/run"

python benchmarks/tasks.py "$OUT/run" --data "$DATA" --out "$OUT/tasks" --results benchmarks/results
