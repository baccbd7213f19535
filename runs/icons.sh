#!/usr/bin/env bash
# icons, the painter of 64 px icons, in three stages: its trunk learns to decode pictures from codes; the layers between the
# text and the code learn to recall the codes of pictures; then all of it learns end to end, with an adversary.
# Expected, on one core with AVX512-BF16 (an EPYC 9004; leave precision out on others): 7 minutes of text vectors, 12 of
# icons-code at 90 pictures/s, 7 of icons-recall at 1,600, 30 of icons-vivid at 45. The same command resumes.
# What ships went another way at one place: its first 57,600 pictures of icons-vivid came in batches of 64, with
# adversarial.lr=2e-4 and adversarial.weight=1.5, and taught the critic nothing.
# Expected scores: those of the README, `limner evaluate icons`.
# Pictures: six emoji styles; no share-alike sets. Captions and text vectors lie with the runs, and other runs share them.
set -euo pipefail
data=${1:-../shared/data/icons}
runs=${2:-out/runs}
mkdir -p "$runs"
common=(--data "$data" --set "data.captions=$runs/icons-captions.jsonl" --set "text.cache=$runs/text-vectors.sqlite")
precision=(--set train.precision=bf16-mixed)
limner data caption "$data" --variants 4 --out "$runs/icons-captions.jsonl"
limner train icons-code --out "$runs/icons-code" "${common[@]}" "${precision[@]}"
limner train icons-recall --out "$runs/icons-recall" "${common[@]}" "${precision[@]}" \
  --set "code.run=$runs/icons-code" --set "train.init=$runs/icons-code"
limner train icons-vivid --out "$runs/icons-vivid" "${common[@]}" "${precision[@]}" --set "train.init=$runs/icons-recall"
# The middle block is dead (4 % of its channels live, docs/log.md): without it the pictures are the same, in fewer bytes.
# 32 pictures at the foot of a warm-up change nothing.
limner train icons-vivid --out "$runs/icons-slim" "${common[@]}" "${precision[@]}" --set "train.init=$runs/icons-vivid" \
  --set painter.middle=0 --set train.images=32 --set adversarial.weight=0
limner pack "$runs/icons-slim" --out src/limner/zoo/icons --data "$data"
