#!/usr/bin/env bash
# The three-stage way to a one-step painter: flow teacher, pairs, student. Needs the captions and text
# vectors of runs/icons.sh. Every command resumes where it stopped.
# Expected on one core of an EPYC 7003: teacher 2.5 hours, 20,000 pairs 1.5 hours, student 3 hours.
set -euo pipefail
data=${1:-../shared/data/icons}
runs=${2:-out/runs}
common=(--set "data.captions=$runs/icons-captions.jsonl" --set "text.cache=$runs/text-vectors.sqlite")
limner train icons-match --data "$data" --out "$runs/icons-match" "${common[@]}"
limner train icons-teacher --data "$data" --out "$runs/icons-teacher" "${common[@]}"
limner train icons-pairs --data "$data" --out "$runs/icons-pairs" "${common[@]}" \
  --set "pairs.teacher=$runs/icons-teacher" --set pairs.count=20000
limner train icons --data "$data" --out "$runs/icons-student" "${common[@]}" \
  --set "train.init=$runs/icons-teacher" --set "pairs.folder=$runs/icons-pairs" \
  --set "match.run=$runs/icons-match" --set match.weight=0.02
limner pack "$runs/icons-student" --out "$runs/icons-student-bundle"
