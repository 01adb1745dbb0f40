#!/bin/sh
# Faults under load, on the lab that is up. run.sh calls it after Molecule; by hand, with LAB_NAME and
# MOLECULE_EPHEMERAL_DIRECTORY as docs/lab.md says, and RUNS and FAULTS as docs/faults.md says.
set -eu

cd "$(dirname "$0")/../.."
export PYTHONPATH="$PWD/molecule/shared:$PWD/molecule/cluster:$PWD/app"
exec python3 -m faults --runs "${RUNS:-1}" ${FAULTS:+--faults "$FAULTS"}
