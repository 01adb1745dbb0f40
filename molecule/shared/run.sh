#!/bin/sh
# Runs a scenario, from anywhere, with the tools on the PATH:
#   run.sh test single    make the hosts, converge, verify, take everything away, also when interrupted
#   run.sh up single      make the hosts and converge; leave them running and tell how to log in
#   run.sh down single    take them away
# LAB_NAME tells labs apart that run at the same time on one machine; without it a lab is named after its scenario.
set -eu

usage() {
    sed -n '2,5s/^# \{0,1\}//p' "$0" >&2
    exit 2
}

[ $# -eq 2 ] || usage
verb=$1
scenario=$2
shared=$(cd "$(dirname "$0")" && pwd)
cd "$shared/../.."
[ -e "molecule/$scenario/molecule.yml" ] || usage

export LAB_NAME="${LAB_NAME:-$scenario}"
# The log of the run, and Molecule's own files with the lab's inventory; git ignores the folder.
run="$PWD/var/lab/$LAB_NAME"
export MOLECULE_EPHEMERAL_DIRECTORY="$run/molecule"
export MOLECULE_PROJECT_DIRECTORY="$PWD"
export PYTHONPATH="$shared"
# Output as it is, without a frame around every line.
export MOLECULE_COMMAND_BORDERS=false
export ANSIBLE_FORCE_COLOR="${ANSIBLE_FORCE_COLOR:-$([ -t 1 ] && echo 1 || echo 0)}"

lab() {
    python3 -m lab "$@"
}

forget() {
    lab down
    # The log stays for reading; what Molecule believes to be there does not.
    rm -rf "$MOLECULE_EPHEMERAL_DIRECTORY"
}

stop() {
    trap '' HUP INT TERM
    if [ -n "$running" ]; then
        kill -TERM "-$running" 2>/dev/null || true
        wait "$running" || true
    fi
    exit "$1"
}

start() {
    lab check
    forget
    mkdir -p "$MOLECULE_EPHEMERAL_DIRECTORY"
    rm -f "$run/ansible.log"
}

case $verb in
test)
    start
    # Whatever happens: the end, an error, a signal. In a session of its own, so that a signal to this script alone ends
    # at once all that Molecule has started.
    running=
    trap forget EXIT
    trap 'stop 129' HUP
    trap 'stop 130' INT
    trap 'stop 143' TERM
    if [ -x "molecule/$scenario/after.sh" ]; then
        # shellcheck disable=SC2016 # it is the inner shell's
        setsid sh -ec 'molecule test --scenario-name "$1" --destroy never; "molecule/$1/after.sh"' sh "$scenario" &
    else
        setsid molecule test --scenario-name "$scenario" --destroy always &
    fi
    running=$!
    wait "$running"
    ;;
up)
    start
    molecule converge --scenario-name "$scenario"
    echo
    lab status
    if [ -x "molecule/$scenario/welcome.sh" ]; then
        "molecule/$scenario/welcome.sh"
    fi
    ;;
down)
    forget
    ;;
*)
    usage
    ;;
esac
