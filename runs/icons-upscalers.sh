#!/usr/bin/env bash
# icons-x4 and icons-x2, which enlarge what the painter paints: RGBA with premultiplied alpha, learned
# from the 256 px icons. Expected on one core of an EPYC 7003: 25 minutes. Resumes.
# What ships began as the photo-x4 of its day (32 x 12), which is no longer in the zoo; the default goes on from what ships.
# The validation splits gate the bundles; the test splits are not touched.
set -euo pipefail
data=${1:-../shared/data/icons256}
runs=${2:-out/runs}
start=${3:-icons-x4}
zoo=${4:-src/limner/zoo}
held=()
for zip in "$data"/*/validation.zip; do
  style=$(basename "$(dirname "$zip")")
  python -m zipfile -e "$zip" "$runs/icons256-validation/$style"
  held+=(--eval "$runs/icons256-validation/$style")
done
for name in icons-x4 icons-x2; do
  limner train "$name" --data "$data" --out "$runs/$name" --set "train.init=$start"
  limner pack "$runs/$name" --out "$zoo/$name" --data "$data" "${held[@]}"
done
