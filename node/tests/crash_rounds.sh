#!/usr/bin/env bash
# Kills nodes while files are written, and proves that nothing acknowledged is lost.
#
#   node/tests/crash_rounds.sh TREE [ROUNDS] [WORK_DIR]
#
# Starts three real processes (`cdb dev`), then in each round copies one share
# of TREE into a volume while random nodes are killed with `kill -9` (all three
# at once in every fifth round) and started again. A copy that ends with 0 has
# acknowledged all its files. At the end the volume is copied back and the
# SHA-256 of every acknowledged file is compared.
#
# Environment: CDB (the binary; default: target/release/cdb of this checkout),
# SEED (of the choice of victims; printed).
set -euo pipefail

tree=$(cd "$1" && pwd)
rounds=${2:-20}
work=${3:-$(mktemp -d)}
here=$(cd "$(dirname "$0")/../.." && pwd)
cdb=${CDB:-$here/target/release/cdb}
RANDOM=${SEED:=$$}
export CDB_PROFILE=$work/cluster/client.yaml NO_COLOR=1
errors=0

say() { printf '%s  %s\n' "$(date +%T)" "$*"; }
pid_of() { "$cdb" node ls -o json | python3 -c '
import json, sys
print(next(n["pid"] for n in json.load(sys.stdin) if n["id"] == sys.argv[1]))' "n$1"; }

mkdir -p "$work"
say "seed $SEED, $rounds rounds, work in $work"
"$cdb" dev --nodes 3 --data "$work/cluster" >"$work/dev.log" 2>&1 &
dev=$!
trap 'kill $dev 2>/dev/null; wait $dev 2>/dev/null || true' EXIT
until "$cdb" status --wait healthy --timeout 60s >/dev/null 2>&1; do
    kill -0 $dev 2>/dev/null || { cat "$work/dev.log"; exit 1; }
    sleep 0.2
done
"$cdb" volume create crash --replicas 3 --shards 8

# One share of the tree per round, as links: the files themselves are read.
mkdir -p "$work/shares"
find "$tree" -type f -size -4097k -printf '%P\n' | sort >"$work/files"
total=$(wc -l <"$work/files")
share=$(((total + rounds - 1) / rounds))
split -l "$share" -d -a 4 "$work/files" "$work/shares/list."

round=0
for list in "$work"/shares/list.*; do
    round=$((round + 1))
    from=$work/shares/$round
    mkdir -p "$from"
    (cd "$tree" && xargs -d '\n' cp --parents -t "$from" <"$list")
    "$cdb" sync --deadline 60s "$from/" crash/tree/ >"$work/sync.$round.log" 2>&1 &
    copy=$!
    if [ $((round % 5)) = 0 ]; then victims="1 2 3"; else victims=$((RANDOM % 3 + 1)); fi
    pids=()
    for victim in $victims; do pids+=("$(pid_of "$victim")"); done
    sleep "0.$((RANDOM % 9))"
    kill -9 "${pids[@]}"
    sleep "0.$((RANDOM % 9))"
    for victim in $victims; do
        "$cdb" node start "$victim" >/dev/null || { say "n$victim did not start"; errors=$((errors + 1)); }
    done
    if wait $copy; then
        cat "$list" >>"$work/acknowledged"
        say "round $round: killed $victims, $(wc -l <"$list") files acknowledged: $(tail -n 1 "$work/sync.$round.log")"
    else
        errors=$((errors + 1))
        say "round $round: killed $victims, the copy FAILED:"
        cat "$work/sync.$round.log"
    fi
    "$cdb" status --wait healthy --timeout 60s >/dev/null || { say "not healthy again"; "$cdb" status || true; errors=$((errors + 1)); }
done

say "all nodes are killed at once a last time"
pids=()
for victim in 1 2 3; do pids+=("$(pid_of $victim)"); done
kill -9 "${pids[@]}"
for victim in 1 2 3; do "$cdb" node start $victim >/dev/null; done
"$cdb" status --wait healthy --timeout 60s >/dev/null
"$cdb" sync --deadline 60s crash/tree/ "$work/copy" | tail -n 1

sort "$work/acknowledged" >"$work/expected"
(cd "$tree" && xargs -d '\n' sha256sum <"$work/expected") >"$work/want.sha256"
(cd "$work/copy" && xargs -d '\n' sha256sum <"$work/expected") >"$work/got.sha256" 2>"$work/missing" || true
lost=$(diff "$work/want.sha256" "$work/got.sha256" | grep -c '^<' || true)
say "$(wc -l <"$work/expected") acknowledged files of $total, $lost lost or changed, $errors errors"
[ "$lost" = 0 ] && [ "$errors" = 0 ]
