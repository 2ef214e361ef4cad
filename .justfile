# `just -f .justfile RECIPE`; `verify` reads only, `fix` writes.

# List the recipes.
default:
    @just -f {{justfile()}} --list

# Everything a change must pass; changes no file.
verify:
    .ci/run

# Format, and take what clippy can mend by itself.
fix:
    cargo clippy --workspace --all-targets --fix --allow-dirty --allow-staged
    cargo fmt --all

# Replay one seed of the simulation.
sim SEED:
    cargo run --release -p simulation -- replay --seed {{SEED}}

# Three nodes on this machine.
dev *ARGS:
    cargo run --release -- dev {{ARGS}}

# Kill nodes during writes, ROUNDS times, and ask for every acknowledged file.
crash ROUNDS="20":
    cargo build --release
    node/tests/scripts/crash_rounds {{ROUNDS}}
