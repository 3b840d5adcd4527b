#!/bin/sh
# A throw-away NAT gateway made of network namespaces, with nattrail logging on it: what `make run` shows.
#
#   client 10.1.2.3 ── lan 10.1.2.1 [gateway] wan 203.0.113.9 ── 203.0.113.7 server
#
# nattrail runs with its built-in configuration: events as text on its standard output. Its database is in a directory of
# this run. It touches nothing outside the namespaces and removes everything at the end, even when interrupted.
#
# Usage: tests/demo.sh PROGRAM      (as root)
# Exits 0 when every session had its create and its delete record, 1 when one is missing.
set -eu

[ $# -eq 1 ] || { echo "usage: $0 PROGRAM" >&2; exit 64; }
program=$(realpath -- "$1")
[ -x "$program" ] || { echo "$0: cannot execute \"$1\": build it first, with make build" >&2; exit 66; }
[ "$(id -u)" -eq 0 ] || { echo "$0: making network namespaces needs root: use make run, or sudo" >&2; exit 77; }
PATH=$PATH:/usr/sbin:/sbin
for tool in ip nft conntrack socat ping; do
  command -v "$tool" >/dev/null || { echo "$0: the program \"$tool\" is missing: make run installs it" >&2; exit 69; }
done

name=nattrail-demo-$$
client=$name-client
gateway=$name-gateway
server=$name-server
directory=
shown=0

clean_up() {
  status=$?
  trap '' HUP INT PIPE TERM
  trap - EXIT
  for namespace in "$client" "$gateway" "$server"; do
    [ -e "/run/netns/$namespace" ] || continue
    # All processes in these namespaces were started here.
    for pid in $(ip netns pids "$namespace"); do
      kill -KILL "$pid" 2>/dev/null || :
    done
    ip netns delete "$namespace" || status=1
  done
  [ -z "$directory" ] || rm -rf -- "$directory"
  exit "$status"
}
trap clean_up EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 141' PIPE
trap 'exit 143' TERM

if [ -t 1 ]; then
  bold=$(printf '\033[1m')
  plain=$(printf '\033[0m')
else
  bold=
  plain=
fi

say() {
  printf '\n%s%s%s\n' "$bold" "$*" "$plain"
}

fail() {
  printf '\n%s: %s\n' "$0" "$*" >&2
  if [ -s "$directory/log" ]; then
    echo "nattrail logged:" >&2
    cat "$directory/log" >&2
  fi
  exit 1
}

# wait_for WHAT COMMAND…: until the command succeeds, for ten seconds at most.
wait_for() {
  what=$1
  shift
  tries=0
  until "$@"; do
    tries=$((tries + 1))
    [ "$tries" -lt 100 ] || fail "waited in vain for $what"
    sleep 0.1
  done
}

make_network() {
  ip netns add "$client"
  ip netns add "$gateway"
  ip netns add "$server"
  ip -n "$gateway" -batch - <<EOF
link set lo up
link add lan type veth peer name eth0 netns $client
link add wan type veth peer name eth0 netns $server
link set lan up
link set wan up
addr add 10.1.2.1/24 dev lan
addr add 203.0.113.9/24 dev wan
EOF
  ip -n "$client" -batch - <<EOF
link set lo up
link set eth0 up
addr add 10.1.2.3/24 dev eth0
route add default via 10.1.2.1
EOF
  ip -n "$server" -batch - <<EOF
link set lo up
link set eth0 up
addr add 203.0.113.7/24 dev eth0
EOF
  in_gateway sh -c 'echo 1 >/proc/sys/net/ipv4/ip_forward'
  in_gateway nft -f - <<EOF
table ip nat {
  chain prerouting {
    type nat hook prerouting priority dstnat
    iifname wan tcp dport 8080 dnat to 10.1.2.3:80
  }
  chain postrouting {
    type nat hook postrouting priority srcnat
    oifname wan meta l4proto { tcp, udp } masquerade to :20000-29999
    oifname wan masquerade
  }
}
EOF
  # Left to their usual timeouts, sessions would end in minutes.
  for timeout in tcp_timeout_time_wait tcp_timeout_close udp_timeout udp_timeout_stream icmp_timeout; do
    in_gateway sh -c "echo 1 >/proc/sys/net/netfilter/nf_conntrack_$timeout"
  done
}

in_client() { ip netns exec "$client" "$@"; }
in_gateway() { ip netns exec "$gateway" "$@"; }
in_server() { ip netns exec "$server" "$@"; }

# Every server echoes what it receives.
start_servers() {
  ip netns exec "$server" socat TCP-LISTEN:443,fork,reuseaddr PIPE &
  ip netns exec "$server" socat UDP-RECVFROM:53,fork PIPE &
  ip netns exec "$client" socat TCP-LISTEN:80,fork,reuseaddr PIPE &
  wait_for "the servers" servers_listen
}

servers_listen() {
  [ -n "$(in_server ss -Hltn sport = :443)" ] &&
    [ -n "$(in_server ss -Hlun sport = :53)" ] &&
    [ -n "$(in_client ss -Hltn sport = :80)" ]
}

start_nattrail() {
  mkdir "$directory/state"
  # An empty file and a bare environment keep this machine's own configuration out.
  : >"$directory/nattrail.toml"
  env -i PATH="$PATH" STATE_DIRECTORY="$directory/state" RUNTIME_DIRECTORY="$directory/run" \
    NATTRAIL_CAPTURE_SET_SYSCTLS=true ip netns exec "$gateway" "$program" run --config "$directory/nattrail.toml" \
    >"$directory/records" 2>"$directory/log" &
  nattrail=$!
  wait_for "nattrail to listen to the kernel" nattrail_listens
}

# Whether a netfilter netlink socket (12) of the gateway has joined a group.
nattrail_listens() {
  kill -0 "$nattrail" 2>/dev/null || fail "nattrail ended"
  # shellcheck disable=SC2016 # awk's own fields
  in_gateway awk '$2 == 12 && $4 != "00000000" { found = 1 } END { exit !found }' /proc/net/netlink
}

# Prints the records that have come since, each with its meaning.
show_records() {
  total=$(wc -l <"$directory/records")
  [ "$total" -gt "$shown" ] || return 0
  tail -n "+$((shown + 1))" "$directory/records" | head -n "$((total - shown))" | explain
  shown=$total
}

explain() {
  awk '
    function end_point(side, way) {
      port = side "_" substr(way, 1, 1) "port"
      return field[side "_" way] (port in field ? ":" field[port] : "")
    }
    {
      print
      delete field
      for (i = 1; i <= NF; i++) {
        at = index($i, "=")
        field[substr($i, 1, at - 1)] = substr($i, at + 1)
      }
      id = "post_id" in field ? " (query id " field["post_id"] ")" : ""
      if (field["event"] == "create" && field["nat"] == "snat")
        printf "    from now on %s is behind %s%s in what it sends to %s\n", end_point("pre", "src"),
          end_point("post", "src"), id, end_point("post", "dst")
      else if (field["event"] == "create")
        printf "    from now on what %s sends to %s goes to %s\n", end_point("pre", "src"), end_point("pre", "dst"),
          end_point("post", "dst")
      else if (field["event"] == "delete")
        printf "    until now: %s seconds, %s packets (%s octets) there and %s (%s) back\n", field["duration"],
          field["orig_packets"], field["orig_octets"], field["reply_packets"], field["reply_octets"]
    }'
}

# expect EVENT NAT PROTOCOL: whether there is exactly one such record.
expect() {
  [ "$(grep -c "event=$1 nat=$2 proto=$3 " "$directory/records")" -eq 1 ]
}

expect_each() {
  for session in "snat tcp" "snat udp" "snat icmp" "dnat tcp"; do
    # shellcheck disable=SC2086 # two words
    expect "$1" $session || return 1
  done
}

# The kernel reports an expired session when it comes across it, which may take its garbage collector a minute. Reading
# the table makes it look.
all_ended() {
  in_gateway conntrack -L >/dev/null 2>&1 || :
  show_records
  expect_each delete
}

report_missing() {
  for session in "snat tcp" "snat udp" "snat icmp" "dnat tcp"; do
    for event in create delete; do
      # shellcheck disable=SC2086 # two words
      expect "$event" $session || echo "not once: event=$event of $session" >&2
    done
  done
}

directory=$(mktemp -d /tmp/nattrail-demo.XXXXXX)
# Where connection tracking is a module, its settings exist only once it is loaded.
modprobe -aq nf_conntrack nf_conntrack_netlink 2>/dev/null || :

say "A gateway between 10.1.2.3 (client) and 203.0.113.7 (server), and nattrail on it"
make_network
in_gateway nft list ruleset
start_servers
start_nattrail

say "TCP: the client asks 203.0.113.7:443, masqueraded"
echo "a request over TCP" | in_client socat -t 2 - TCP:203.0.113.7:443 >/dev/null
wait_for "the record of TCP" expect create snat tcp
show_records

say "UDP: the client asks 203.0.113.7:53, masqueraded"
echo "a request over UDP" | in_client socat -t 0.2 - UDP:203.0.113.7:53 >/dev/null
wait_for "the record of UDP" expect create snat udp
show_records

say "ICMP: the client pings 203.0.113.7, masqueraded"
in_client ping -q -c 1 -W 2 203.0.113.7 >/dev/null
wait_for "the record of ICMP" expect create snat icmp
show_records

say "DNAT: the server asks 203.0.113.9:8080, which is 10.1.2.3:80"
echo "a request from outside" | in_server socat -t 2 - TCP:203.0.113.9:8080 >/dev/null
wait_for "the record of DNAT" expect create dnat tcp
show_records

say "The ends, one second after the last packet of each (the timeouts are short here)"
tries=0
until all_ended; do
  tries=$((tries + 1))
  [ "$tries" -lt 50 ] || { report_missing; fail "not every session has its create and its delete record"; }
  sleep 0.2
done

kill -TERM "$nattrail"
wait "$nattrail" || fail "nattrail exited with status $?"
show_records
if ! expect_each create || ! expect_each delete || [ "$shown" -ne 8 ]; then
  report_missing
  fail "four sessions should make eight records; there are $shown"
fi

say "Four sessions, eight records: every create has its delete"
