#!/bin/sh
# Writes the tables of variables in roles/*/README.md from the roles' meta/argument_specs.yml, between the markers
# <!-- BEGIN_ANSIBLE_DOCS --> and <!-- END_ANSIBLE_DOCS -->. Names of roles as arguments limit it to these. Needs aar-doc
# on the PATH.
set -eu
cd "$(dirname "$0")/.."

for role in ${*:-$(ls roles)}; do
    readme=roles/$role/README.md
    if ! [ -e "$readme" ]; then
        echo "There is no $readme. Write one with the two markers, and run this again." >&2
        exit 1
    fi
    aar-doc --output-template .config/role-variables.md.j2 "roles/$role" markdown
done
