#!/bin/sh
# Makes the virtual environment $1 with the first suitable Python, or says what to install.
set -eu

venv=$1

suitable() {
    "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null
}

python=
for candidate in ${PYTHON:-python3 python3.13 python3.12 python3.11}; do
    if command -v "$candidate" >/dev/null && suitable "$candidate"; then
        python=$candidate
        break
    fi
done
if [ -z "$python" ]; then
    echo "MonkTalk needs Python 3.11 or newer, and ${PYTHON:-python3} is not one. Install it:" >&2
    echo "    apt install python3 python3-venv        (Debian 12 and newer)" >&2
    echo "or name the one to use: make PYTHON=/path/to/python3.12 run" >&2
    exit 1
fi
if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
    version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
    echo "Python $version is here, but not the part of it that makes virtual environments. Install it:" >&2
    echo "    apt install python3-venv        (Debian and Ubuntu; for a Python beside the system's: python$version-venv)" >&2
    exit 1
fi

# One that is left unfinished would look as if it were there.
trap 'rm -rf "$venv"; exit 1' INT TERM HUP
"$python" -m venv "$venv" || { rm -rf "$venv"; exit 1; }
