#!/usr/bin/env bash
# icons, the painter of 64 px icons, in three stages: its trunk learns to decode pictures from codes; the layers between the
# text and the code learn to recall the codes of pictures; then all of it learns end to end, with an adversary.
#
#     bash runs/icons.sh [DATA] [RUNS] [BEGIN]
#
# BEGIN: a painter (bundle or run) that the first stage begins with, its trunk and its reading of the text. What ships began
# with the painter before it, and that one with nothing; from nothing it was not run at these lengths.
# PROCESSES=2: that many processes, for machines with more cores or GPUs than one.
# Expected on two cores with AVX512-BF16 (an EPYC 9004; leave precision out on others), with PROCESSES=2: 8 minutes of text
# vectors, 33 of icons-code at 160 pictures/s, 21 of icons-recall at 1,170, 29 of icons-vivid at 83. On one core 45, 29 and
# 40. The same command resumes.
# The first 19,200 pictures of icons-vivid had adversarial.lr=5e-4 where that painter was trained.
# Expected scores: docs/log.md, 2026-11-28. What ships went on from there with runs/icons-on.sh.
# Pictures: six emoji styles; no share-alike sets. Captions and text vectors lie with the runs, and other runs share them.
set -euo pipefail
data=${1:-../shared/data/icons}
runs=${2:-out/runs}
begin=${3:-}
mkdir -p "$runs"
common=(--data "$data" --set "data.captions=$runs/icons-captions.jsonl" --set "text.cache=$runs/text-vectors.sqlite")
common+=(--set train.precision=bf16-mixed)
warm=()
if [ -n "$begin" ]; then warm=(--set "train.init=$begin"); fi
train=(limner train)
if [ "${PROCESSES:-1}" -gt 1 ]; then train=(torchrun --nproc-per-node "$PROCESSES" -m limner.cli train); fi
limner data caption "$data" --variants 8 --out "$runs/icons-captions.jsonl"
"${train[@]}" icons-code --out "$runs/icons-code" "${common[@]}" "${warm[@]}"
"${train[@]}" icons-recall --out "$runs/icons-recall" "${common[@]}" \
  --set "code.run=$runs/icons-code" --set "train.init=$runs/icons-code"
"${train[@]}" icons-vivid --out "$runs/icons-vivid" "${common[@]}" --set "train.init=$runs/icons-recall"
limner pack "$runs/icons-vivid" --out src/limner/zoo/icons --data "$data"
