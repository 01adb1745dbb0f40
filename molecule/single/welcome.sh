#!/bin/sh
# Makes two accounts on the host that is up, and tells how to log in and chat. run.sh calls it.
set -eu

domain=xmpp-svil.monksoftware.it
authority="$PWD/var/lab/$LAB_NAME/ca.cer"

on_host() {
    python3 -m lab ssh xmpp-be-svil "$1"
}

on_host 'cat /etc/mongooseim/ca.cer' >"$authority"
address=$(python3 -m lab inventory | sed -n 's/.*"ansible_host": "\(.*\)".*/\1/p')

echo
echo "The XMPP server is at $address: port 5222 and port 80, STARTTLS and direct TLS on both."
for name in alice bob; do
    password=$(od -An -N12 -tx1 /dev/urandom | tr -d ' \n')
    on_host "cd / && runuser -u mongooseim -- psql -qX -v ON_ERROR_STOP=1 xmppsvil" <<SQL
delete from web_users where node = '$name' and domain = '$domain';
insert into web_users (node, token, domain) values ('$name', '$password', '$domain');
SQL
    echo "  $name@$domain   password $password"
done
cat <<TEXT

Log in with any client: connect it to that address, and have it trust $authority. For example,
in Profanity:
  /tls certpath $(dirname "$authority")
  /connect alice@$domain server $address port 5222
  /msg bob@$domain Hello
or without a client:
  openssl s_client -connect $address:80 -servername $domain -CAfile $authority -verify_return_error -brief </dev/null

On the host: mongooseimctl connected_users, journalctl -fu mongooseim, systemctl status mongooseim.
TEXT
