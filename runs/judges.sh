#!/usr/bin/env bash
# The judges that measure painters: three feature encoders (own-KID, own-FD, style words) and a matcher (R-precision).
# Expected on one core of an EPYC 7003: 10 minutes and 12 minutes for 150,000 pictures each, after about 5 minutes that
# read pictures and captions once. The same command resumes. They measure; they do not ship.
# The matcher learns from share-alike pictures too, and from the half of the others that no training loss learns from.
set -euo pipefail
data=${1:-../shared/data/icons}
text=${2:-text-minilm}
out=${3:-out/runs/judges}
for judge in features matcher; do
  python -m limner.cli.judging "$judge" --data "$data" --text "$text" --exclude-license by-sa --out "$out/$judge"
done
