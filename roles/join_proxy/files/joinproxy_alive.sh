#!/bin/bash
# Whether HAProxy answers. keepalived asks, as a user who may do nothing else; bash can open a connection by itself.
exec 3<>"/dev/tcp/127.0.0.1/${1:?port}" || exit 1
printf 'GET /alive HTTP/1.0\r\n\r\n' >&3
read -r -t 1 answer <&3 && [[ $answer == HTTP/1.?' 200 '* ]]
