#!/usr/bin/env bash
# The painter that ships, trained on with a seed that also decides direction and shade (data.vary): from the bundle itself, whose
# integers are enough, to a bundle. An experiment (docs/log.md): better faces and seeds that differ, worse figures;
# it does not ship. It was tried without the head start and in two parts, as the log says. A fresh middle block comes first, that begins by passing what it gets.
# Expected, on one core with AVX512-BF16: 70 minutes, after the captions and text vectors of runs/icons.sh. The same
# command resumes.
set -euo pipefail
data=${1:-../shared/data/icons}
runs=${2:-out/runs}
begin=${3:-icons} # a bundle's name or folder
common=(--data "$data" --set "data.captions=$runs/icons-captions.jsonl" --set "text.cache=$runs/text-vectors.sqlite")
common+=(--set train.precision=bf16-mixed --set data.vary=true --set painter.middle=1
  --set loss.best_of=1 --set adversarial.versions=0)
limner train icons-vivid --out "$runs/icons-further" "${common[@]}" --set "train.init=$begin" \
  --set train.images=200000 --set train.lr=3e-4 --set adversarial.weight=1 --set adversarial.lr=4e-4 \
  --set adversarial.start_share=0.05 --set adversarial.head_start=0.05
# The adversary leaves a grain; a few minutes without it take that away, and half of both keeps edges without it.
limner train icons-vivid --out "$runs/icons-further-settled" "${common[@]}" --set "train.init=$runs/icons-further" \
  --set train.images=8000 --set train.lr=1e-4 --set adversarial.weight=0
[ -e "$runs/icons-blend" ] ||
  limner blend "$runs/icons-further-settled" "$runs/icons-further" --share 0.5 --out "$runs/icons-blend"
limner pack "$runs/icons-blend" --out "$runs/icons-blend-bundle" --data "$data" \
  --set pack.alpha_gain=7 --set pack.variety=0
