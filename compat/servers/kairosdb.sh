#!/bin/bash
# KairosDB 1.3 on its embedded H2 (JDK 17; jars from Maven Central), on loopback with throw-away data.
#   kairosdb.sh start | stop | restart | kill | boot      restart: the process on the same data; kill: SIGKILL; boot: start it again after that
#   kairosdb.sh address | url | version | fetch
#   kairosdb.sh query METRIC [KEY,KEY…]                   read points back (JSON, times in milliseconds), one group for each combination of these tags
# KAIROSDB_PORT: telnet put. KAIROSDB_HTTP_PORT: queries.
NAME=kairosdb PORT=${KAIROSDB_PORT:-14245} HTTP_PORT=${KAIROSDB_HTTP_PORT:-18280}
# shellcheck source=compat/lib.sh
source "$(dirname "$0")/../lib.sh"

fetch() {
  { dependency org.kairosdb:kairosdb:1.3.0-1
    dependency com.sun.jersey.contribs:jersey-guice:1.19.4 '*:*'
    dependency com.sun.xml.bind:jaxb-core:2.3.0; } | jars kairosdb
}
boot() {
  mkdir -p "$DIR/webroot" # it will not start without one
  cat >"$DIR/kairosdb.conf" <<CONF
include classpath("kairosdb.conf")
kairosdb: {
  telnetserver: { port: $PORT, address: "127.0.0.1" }
  jetty: { port: $HTTP_PORT, address: "127.0.0.1", static_web_root: "$DIR/webroot" }
  service.reporter: "<disabled>"
  datastore.h2.database_path: "$DIR/h2"
  query_cache.cache_dir: "$DIR/cache"
  queue_processor: { queue_path: "$DIR/queue", min_batch_wait: 50 }
}
CONF
  cat >"$DIR/logback.xml" <<'XML'
<configuration><appender name="OUT" class="ch.qos.logback.core.ConsoleAppender"><encoder><pattern>%d{ISO8601} %-5level %logger{0}: %msg%n</pattern></encoder></appender>
<root level="WARN"><appender-ref ref="OUT"/></root></configuration>
XML
  local doors; mapfile -t doors < <(opens java.lang java.lang.reflect java.util java.nio sun.nio.ch)
  cd "$DIR"
  launch server java "${doors[@]}" -Xmx1g -Djava.net.preferIPv4Stack=true -Dlogback.configurationFile="$DIR/logback.xml" \
    -cp "$CACHE/jars/kairosdb/*" org.kairosdb.core.Main -c run -p "$DIR/kairosdb.conf"
  await server 60 answers "http://127.0.0.1:$HTTP_PORT/api/v1/version"
  await server 60 listens "$PORT"
}
version() { curl -sf "http://127.0.0.1:$HTTP_PORT/api/v1/version" | sed 's/.*"KairosDB \([^"]*\)".*/\1/'; }
query() {
  local tags=; [ -z "${2:-}" ] || tags=",\"group_by\":[{\"name\":\"tag\",\"tags\":[\"${2//,/\",\"}\"]}]"
  curl -sf "http://127.0.0.1:$HTTP_PORT/api/v1/datapoints/query" -d "{\"start_absolute\":1,\"metrics\":[{\"name\":\"$1\"$tags}]}"
}
main "$@"
