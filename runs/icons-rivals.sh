#!/usr/bin/env bash
# Three ways to a one-step painter of one shape, from nothing, for the same time on one core each (about 8 minutes on an EPYC
# 9004 with AVX512-BF16): the stages of runs/icons.sh, flow teacher + pairs + student (runs/icons-student.sh), and the
# adversary alone (runs/icons-gan.sh). None has a text match. Needs the captions and text vectors of runs/icons.sh.
# The same command resumes. Afterwards: limner evaluate OUT/stages OUT/student OUT/gan --data DATA --judges JUDGES
set -euo pipefail
data=${1:-../shared/data/icons}
runs=${2:-out/runs}
way=${3:-all} # or stages, flow, gan
out=$runs/rivals
common=(--data "$data" --set "data.captions=$runs/icons-captions.jsonl" --set "text.cache=$runs/text-vectors.sqlite")
common+=(--set train.precision=bf16-mixed --set train.checkpoint_every=8000 --set train.sample_every=100000)
shape=(--set painter.kind=dense --set painter.expansion=1 --set painter.cell=2 --set 'painter.widths=[32,64,128,256]')
shape+=(--set 'painter.down=[0,0,0]' --set 'painter.up=[2,2,2]' --set painter.middle=1 --set 'painter.attention=[2]')
shape+=(--set painter.memory=1024 --set painter.pyramid=true --set painter.head_kernel=3 --set painter.noise=16)
emoji='data.styles=["fluent-3d","fluent-color","fluent-flat","fluent-high-contrast","noto","twemoji"]'
critic=(--set adversarial.cell=2 --set adversarial.width=48 --set adversarial.lr=8e-4)

stages() {
  local small=(--set painter.middle=1 --set painter.thoughts=1)
  limner train icons-code --out "$out/code" "${common[@]}" "${small[@]}" --set train.images=16000 --set train.lr=1e-3 \
    --set train.optimizer=adamw
  limner train icons-recall --out "$out/recall" "${common[@]}" "${small[@]}" --set "code.run=$out/code" \
    --set "train.init=$out/code" --set train.images=160000
  limner train icons-vivid --out "$out/vivid" "${common[@]}" "${small[@]}" --set "train.init=$out/recall" \
    --set train.images=10000 --set train.lr=5e-4 --set loss.best_of=1 --set adversarial.versions=0 \
    --set adversarial.head_start=0 --set adversarial.start_share=0.01 --set adversarial.weight=2 --set adversarial.lr=8e-4
  limner pack "$out/vivid" --out "$out/stages" --set name=stages --set pack.max_gap=20 --set pack.alpha_gain=7 --set pack.variety=0
}

flow() {
  limner train icons-teacher --out "$out/teacher" "${common[@]}" "${shape[@]}" --set "$emoji" --set train.batch=64 \
    --set train.lr=1e-3 --set train.images=16000
  limner train icons-pairs --out "$out/pairs" "${common[@]}" "${shape[@]}" --set "$emoji" \
    --set "pairs.teacher=$out/teacher" --set pairs.count=1500
  limner train icons --out "$out/taught" "${common[@]}" "${shape[@]}" "${critic[@]}" --set "$emoji" --set train.lr=5e-4 \
    --set "train.init=$out/teacher" --set "pairs.folder=$out/pairs" --set train.images=8000
  limner pack "$out/taught" --out "$out/student" --set name=student --set pack.max_gap=20
}

gan() {
  limner train icons-gan --out "$out/alone" "${common[@]}" "${shape[@]}" "${critic[@]}" --set "$emoji" --set train.images=24000
  limner pack "$out/alone" --out "$out/gan" --set name=gan --set pack.max_gap=20
}

mkdir -p "$out"
if [ "$way" = all ]; then stages && flow && gan; else "$way"; fi
