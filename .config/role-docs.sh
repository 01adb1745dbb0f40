#!/bin/sh
# Writes the tables of variables in roles/*/README.md from the roles' meta/argument_specs.yml, between the markers
# <!-- BEGIN_ANSIBLE_DOCS --> and <!-- END_ANSIBLE_DOCS -->. Names of roles as arguments limit it to these; --check changes
# nothing and fails when a table is not what it would be. Needs aar-doc on the PATH.
set -eu
cd "$(dirname "$0")/.."

check=false
if [ "${1:-}" = --check ]; then
    check=true
    shift
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
old=
for role in ${*:-$(ls roles)}; do
    readme=roles/$role/README.md
    if ! [ -e "$readme" ]; then
        echo "There is no $readme. Write one with the two markers, and run this again." >&2
        exit 1
    fi
    # On a copy, so that a check changes nothing and a failure leaves no half-written page.
    mkdir "$work/$role"
    cp -R "roles/$role/meta" "roles/$role/defaults" "$readme" "$work/$role/"
    aar-doc --output-template .config/role-variables.md.j2 "$work/$role" markdown >/dev/null
    if ! cmp -s "$work/$role/README.md" "$readme"; then
        if $check; then
            old="$old $readme"
        else
            cp "$work/$role/README.md" "$readme"
        fi
    fi
done
if [ -n "$old" ]; then
    echo "Not up to date:$old. Run \`make docs\`." >&2
    exit 1
fi
