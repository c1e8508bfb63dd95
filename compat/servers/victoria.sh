#!/bin/bash
# VictoriaMetrics, single node (Debian's package), on loopback with throw-away data.
#   victoria.sh start | stop | restart | kill | boot     restart: the process on the same data; kill: SIGKILL; boot: start it again after that
#   victoria.sh address | http-address | url | version | fetch
#   victoria.sh query '{__name__!=""}'                    read points back, one JSON object a series
# VICTORIA_PORT: telnet put. VICTORIA_PUT_PORT: HTTP put. VICTORIA_HTTP_PORT: queries and vmui.
NAME=victoria PORT=${VICTORIA_PORT:-14243} HTTP_PORT=${VICTORIA_HTTP_PORT:-18428} PUT_PORT=${VICTORIA_PUT_PORT:-14248}
# shellcheck source=compat/lib.sh
source "$(dirname "$0")/../lib.sh"

fetch() { from_debian victoria-metrics victoria-metrics >/dev/null; }
boot() {
  launch server "$(from_debian victoria-metrics victoria-metrics)" -storageDataPath="$DIR/data" -retentionPeriod=100y -dedup.minScrapeInterval=0 \
    -httpListenAddr="127.0.0.1:$HTTP_PORT" -opentsdbListenAddr="127.0.0.1:$PORT" -opentsdbHTTPListenAddr="127.0.0.1:$PUT_PORT" \
    -search.latencyOffset=1s -loggerErrorsPerSecondLimit=0
  await server 20 answers "http://127.0.0.1:$HTTP_PORT/health"
  await server 20 put
}
http_address() { echo "http://127.0.0.1:$PUT_PORT"; }
# This version reads a connection's first byte before it accepts the next: a probe has to say something.
put() { (exec 3<>"/dev/tcp/127.0.0.1/$PORT"; printf 'put\n' >&3) 2>/dev/null; }
version() { # Debian builds it without one
  local told
  told=$(curl -sf "http://127.0.0.1:$HTTP_PORT/metrics" | sed -n 's/^vm_app_version{.*short_version="\([^"]*\)".*/\1/p')
  echo "${told:-tells none; package $(debian_version victoria-metrics victoria-metrics)}"
}
query() {
  curl -sf "http://127.0.0.1:$HTTP_PORT/internal/force_flush" # else the last second is not seen
  curl -sfG "http://127.0.0.1:$HTTP_PORT/api/v1/export" --data-urlencode "match[]=$1" --data-urlencode start=0
}
main "$@"
