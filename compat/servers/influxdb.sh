#!/bin/bash
# InfluxDB 1.x (Debian's package) with an OpenTSDB listener, on loopback with throw-away data.
#   influxdb.sh start | stop | restart | kill | boot      restart: the process on the same data; kill: SIGKILL; boot: start it again after that
#   influxdb.sh address | http-address | url | version | fetch
#   influxdb.sh query 'SELECT * FROM /.*/ GROUP BY *'     read points back (JSON, times in seconds)
# INFLUXDB_PORT: put by telnet and HTTP. INFLUXDB_HTTP_PORT: queries. INFLUXDB_RPC_PORT: its backup service, unused.
NAME=influxdb PORT=${INFLUXDB_PORT:-14244} HTTP_PORT=${INFLUXDB_HTTP_PORT:-18086}
# shellcheck source=compat/lib.sh
source "$(dirname "$0")/../lib.sh"

fetch() { from_debian influxd influxdb >/dev/null; }
boot() {
  cat >"$DIR/influxdb.conf" <<CONF
reporting-disabled = true
bind-address = "127.0.0.1:${INFLUXDB_RPC_PORT:-18088}"
[meta]
  dir = "$DIR/meta"
[data]
  dir = "$DIR/data"
  wal-dir = "$DIR/wal"
[monitor]
  store-enabled = false
[http]
  bind-address = "127.0.0.1:$HTTP_PORT"
  log-enabled = false
[[opentsdb]]
  enabled = true
  bind-address = "127.0.0.1:$PORT"
  database = "opentsdb"
  batch-size = 1000
  batch-pending = 5
  batch-timeout = "100ms"
  log-point-errors = true
CONF
  launch server "$(from_debian influxd influxdb)" run -config "$DIR/influxdb.conf"
  await server 20 answers "http://127.0.0.1:$HTTP_PORT/ping"
  await server 20 listens "$PORT"
  # Telnet's first batch makes the database; HTTP put answers 500 without it.
  curl -sf -o /dev/null "http://127.0.0.1:$HTTP_PORT/query" --data-urlencode 'q=CREATE DATABASE opentsdb'
}
version() { curl -sf -o /dev/null -D - "http://127.0.0.1:$HTTP_PORT/ping" | tr -d '\r' | sed -n 's/^X-Influxdb-Version: //p'; }
query() { curl -sfG "http://127.0.0.1:$HTTP_PORT/query" --data-urlencode db=opentsdb --data-urlencode epoch=s --data-urlencode "q=$1"; }
main "$@"
