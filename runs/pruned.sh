#!/usr/bin/env bash
# Pruned versions of four bundles, for the rungs `pruned` and `pruned int8` of runs/ladder.sh; none of them ships.
# $1: test sets' parent. $2: the run folders the bundles were packed from; runs that begin with train.init=BUNDLE do too.
# $3: where the pruned runs and bundles go. $4: captioned pictures, for icons, which is also packed with its float graph, as
# OUT/whole/icons. Expected: about 10 minutes on one core of an EPYC 9004. The training that follows is short (640 and 2,560
# pictures); a quarter of the run's, the default, repairs more.
set -euo pipefail
data=${1:-../shared/data/sr}
runs=${2:-out/runs}
out=${3:-out/pruned}
free=(--set quantize.images=0 --set pack.max_drop=9 --set pack.max_gap=9 --set pack.int8_tolerance=1.5 --set pack.tolerance=0.0005)
for asked in photo-x4:0.08 photo-x4-hq:0.06 photo-x2:0.06; do
  name=${asked%:*}
  limner prune "$runs/$name" --out "$out/runs/$name" --ratio "${asked#*:}" --images 640 --data "$data/train"
  limner pack "$out/runs/$name" --out "$out/$name" --data "$data/train" --eval "$data/test/Set5" "${free[@]}"
done
if [ $# -ge 4 ]; then
  limner pack "$runs/icons" --out "$out/whole/icons" --data "$4" --set pack.float_graph=true "${free[@]}"
  limner prune "$runs/icons" --out "$out/runs/icons" --ratio 0.1 --images 2560 --data "$4"
  limner pack "$out/runs/icons" --out "$out/icons" --data "$4" --set pack.float_graph=true "${free[@]}"
fi
