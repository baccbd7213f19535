#!/usr/bin/env bash
# icons, the painter of 64 px icons, in three stages: its trunk learns to decode pictures from codes; the layers between the
# text and the code learn to recall the codes of pictures; then all of it learns end to end, with an adversary.
#
#     bash runs/icons.sh [DATA] [RUNS] [BEGIN]
#
# BEGIN: a painter (bundle or run) whose trunk the first stage begins with. What ships began with the `icons` that shipped
# before it, and that one with nothing; from nothing, give the first stage its 64,000 pictures and the second the same time.
# The first 38,400 pictures of icons-vivid had adversarial.weight=0.6 where what ships was trained.
# Expected with BEGIN, on one core with AVX512-BF16 (an EPYC 9004; leave precision out on others): 5 minutes of text vectors,
# 6 of icons-code at 115 pictures/s, 29 of icons-recall at 1,030, 20 of icons-vivid at 60. The same command resumes.
# Expected scores: those of the README, `limner evaluate icons`.
# Pictures: six emoji styles; no share-alike sets. Captions and text vectors lie with the runs, and other runs share them.
set -euo pipefail
data=${1:-../shared/data/icons}
runs=${2:-out/runs}
begin=${3:-}
mkdir -p "$runs"
common=(--data "$data" --set "data.captions=$runs/icons-captions.jsonl" --set "text.cache=$runs/text-vectors.sqlite")
common+=(--set train.precision=bf16-mixed)
warm=()
if [ -n "$begin" ]; then warm=(--set "train.init=$begin" --set train.images=40000 --set train.lr=2e-3); fi
limner data caption "$data" --variants 4 --out "$runs/icons-captions.jsonl"
limner train icons-code --out "$runs/icons-code" "${common[@]}" "${warm[@]}"
limner train icons-recall --out "$runs/icons-recall" "${common[@]}" \
  --set "code.run=$runs/icons-code" --set "train.init=$runs/icons-code"
limner train icons-vivid --out "$runs/icons-vivid" "${common[@]}" --set "train.init=$runs/icons-recall"
limner pack "$runs/icons-vivid" --out src/limner/zoo/icons --data "$data"
