#!/usr/bin/env bash
# photo-x4-hq, the better photo upscaler (separable, 128 channels, 16 blocks, 5x5 kernels). It grows twice, each time
# beginning as the same function: from photo-x4 to 96 channels and 16 blocks, then to 128 channels and larger kernels.
# Expected on one core with AVX512-BF16 (an EPYC 9004; leave precision out on others): 60 and 90 minutes, then 9 minutes of
# quantization-aware training.
# Expected score (int8, Set5 / Set14 / BSD100): 31.61 / 28.24 / 27.33; the manifest of the bundle holds what `pack` measured.
# What ships went on from there with runs/photo-x4-hq-on.sh.
# The same command resumes. Pictures: photographs whose terms allow commercial use without share-alike.
set -euo pipefail
data=${1:-../shared/data/sr}
common=(--data "$data/train" --set train.precision=bf16-mixed)
limner train photo-x4-hq --out out/runs/photo-x4-96 "${common[@]}" --set train.init=photo-x4 \
  --set model.width=96 --set model.kernel=3 --set train.images=140000 --set train.lr=2.5e-3
limner train photo-x4-hq --out out/runs/photo-x4-hq "${common[@]}" --set train.init=out/runs/photo-x4-96
limner pack out/runs/photo-x4-hq --out src/limner/zoo/photo-x4-hq --data "$data/train" \
  --eval "$data/test/Set5" --eval "$data/test/Set14" --eval "$data/test/BSD100"
