# Sourced by the run scripts of photo-x4-hq: rounds of two runs side by side, each beginning as the mean of the weights
# of the round before. Wants $runs, the folder of the runs, and $name, what the runs are called after.

# Large pages, and freed memory is kept: a step asks for a gigabyte and gives it back.
keep=trim_threshold=16000000000:glibc.malloc.mmap_max=0:glibc.malloc.top_pad=1000000000
export GLIBC_TUNABLES=glibc.malloc.hugetlb=1:glibc.malloc.$keep

learn() { # RUN BEGIN PICTURES CROPS RATE LAST LEAST SEED [SETTINGS...]
  limner train photo-x4-hq --data "$3" --out "$runs/$1" --set "train.init=$2" --set train.images="$4" \
    --set train.lr="$5" --set train.lr_final="$6" --set loss.least="$7" --set train.seed="$8" \
    --set loss.pixel=log_l2 --set loss.l2_share=0 --set model.levels=1 --set "loss.alphas=[1.0]" --set train.batch=8 \
    --set train.warmup=160 --set train.ema=0.998 --set train.threads=1 --set train.checkpoint_every=2000 "${@:9}"
}
mean() { # RUN FIRST SECOND SHARE
  [ -e "$runs/$1" ] || limner blend "$2" "$3" --share "$4" --out "$runs/$1"
}
turn() { # NUMBER BEGIN PICTURES CROPS RATE LAST LEASTS [SETTINGS...]
  local run="$name-$1"
  learn "$run-a" "$2" "$3" "$4" "$5" "$6" "${7% *}" "$1" "${@:8}" &
  learn "$run-b" "$2" "$3" "$4" "$5" "$6" "${7#* }" "100$1" "${@:8}"
  wait $!
  mean "$run" "$runs/$run-a" "$runs/$run-b" 0.5
}
