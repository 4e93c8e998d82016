# curl, in a loop. Arguments: address, user, and `once` for no loop.
url=$1 user=$2 once=$3
delay=1 id=

read_events() {
    while IFS= read -r line; do
        case $line in
            "retry: "*) delay=$(awk "BEGIN { print ${line#retry: } / 1000 }") ;;
            "id: "*) id=${line#id: } ;;
            "event: "*) event=${line#event: } ;;
            "data: "*) printf '{"event":"%s","id":"%s","data":%s}\n' "$event" "$id" "${line#data: }" ;;
        esac
    done
}

while :; do
    # --retry obeys Retry-After; -f keeps the body of a refusal out of the events.
    exec 3< <(exec curl -sfN --compressed --retry 10 --retry-connrefused \
        -H "X-User-ID: $user" ${id:+-H "Last-Event-ID: $id"} "$url")
    read_events <&3
    [ -n "$once" ] && break
    sleep "$delay"
done
