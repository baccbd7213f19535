#!/usr/bin/env bash
# photo-x4-hq, the better photo upscaler (separable, 96 channels, 16 blocks). It begins as the same function as photo-x4.
# Expected on one core with AVX512-BF16 (an EPYC 9004; leave precision out on others): 65 minutes, then 8 minutes of
# quantization-aware training.
# Expected score (int8, Set5 / Set14 / BSD100): 31.43 / 28.14 / 27.29; the manifest of the bundle holds what `pack` measured.
# The same command resumes. Pictures: photographs whose terms allow commercial use without share-alike.
set -euo pipefail
data=${1:-../shared/data/sr}
limner train photo-x4-hq --data "$data/train" --out out/runs/photo-x4-hq --set train.precision=bf16-mixed \
  --set train.init=photo-x4
limner pack out/runs/photo-x4-hq --out src/limner/zoo/photo-x4-hq --data "$data/train" \
  --eval "$data/test/Set5" --eval "$data/test/Set14" --eval "$data/test/BSD100"
