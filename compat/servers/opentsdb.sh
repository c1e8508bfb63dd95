#!/bin/bash
# OpenTSDB 2.4.1 on a one-process HBase 2.5 (JDK 17; jars from Maven Central), on loopback with throw-away data.
#   opentsdb.sh start | stop              HBase, its tables, then the TSD
#   opentsdb.sh restart | kill | boot     the TSD alone, on the same tables; kill: SIGKILL; boot: start it again after that
#   opentsdb.sh pause | resume            freeze and thaw HBase under the running TSD
#   opentsdb.sh connections           how many connections the TSD has taken since it started, the one of this question included; not while HBase is frozen
#   opentsdb.sh address | http-address | url | version | fetch
#   opentsdb.sh query METRIC [START]      read points back (JSON, times in milliseconds), every series of METRIC since START
# OPENTSDB_PORT: put by telnet and HTTP, and queries, all on one port. ZK_PORT: ZooKeeper. TSD_OPTIONS: further lines for the TSD's configuration, as `tsd.mode = ro`.
NAME=opentsdb PORT=${OPENTSDB_PORT:-14242} ZK_PORT=${ZK_PORT:-12181}
HTTP_PORT=$PORT
# shellcheck source=compat/lib.sh
source "$(dirname "$0")/../lib.sh"

fetch() {
  { dependency net.opentsdb:opentsdb:2.4.1 'com.google.gwt:*' net.opentsdb:opentsdb_gwt_theme
    dependency org.hbase:asynchbase:1.8.2
    dependency com.google.protobuf:protobuf-java:2.5.0
    dependency org.apache.zookeeper:zookeeper:3.6.4 'log4j:*' 'org.slf4j:*' 'io.netty:*' # 3.4 cannot resolve its server on a JDK 17
    dependency javax.xml.bind:jaxb-api:2.3.1; } | jars tsd
  { dependency org.apache.hbase:hbase-server:2.5.13-hadoop3 org.slf4j:slf4j-reload4j
    dependency org.apache.hbase:hbase-zookeeper:2.5.13-hadoop3 org.slf4j:slf4j-reload4j
    dependency org.slf4j:slf4j-simple:1.7.36; } | jars hbase
}

property() { printf '<property><name>%s</name><value>%s</value></property>\n' "$1" "$2"; }
hbase_java() { # heap, log level, main class or source …
  local heap=$1 level=$2 doors; shift 2
  mapfile -t doors < <(opens java.io java.nio sun.nio.ch java.lang jdk.internal.ref java.lang.reflect java.util java.util.concurrent)
  exec java "${doors[@]}" --add-modules jdk.unsupported --add-exports java.base/jdk.internal.misc=ALL-UNNAMED \
    --add-exports java.security.jgss/sun.security.krb5=ALL-UNNAMED -Dorg.apache.hbase.thirdparty.io.netty.tryReflectionSetAccessible=true \
    "-Xmx$heap" "-Dorg.slf4j.simpleLogger.defaultLogLevel=$level" -cp "$DIR/conf:$CACHE/jars/hbase/*" "$@"
}
prepare() {
  local server
  mkdir -p "$DIR/conf"
  { echo '<configuration>'
    property hbase.cluster.distributed false
    property hbase.rootdir "file://$DIR/data"
    property hbase.tmp.dir "$DIR/tmp"
    property hbase.zookeeper.property.dataDir "$DIR/zk"
    property hbase.zookeeper.property.clientPort "$ZK_PORT"
    property hbase.zookeeper.property.clientPortAddress 127.0.0.1
    property hbase.zookeeper.quorum 127.0.0.1
    property zookeeper.session.timeout.localHBaseCluster 120000 # or a pause of 40 s ends HBase
    property hbase.zookeeper.property.tickTime 6000
    property hbase.unsafe.stream.capability.enforce false
    property hbase.wal.provider filesystem
    for server in master regionserver; do
      property "hbase.$server.info.port" -1; property "hbase.$server.port" 0
      property "hbase.$server.hostname" localhost; property "hbase.$server.ipc.address" 127.0.0.1
    done
    echo '</configuration>'; } >"$DIR/conf/hbase-site.xml"
  free "$ZK_PORT"
  launch hbase hbase_java 1g warn org.apache.hadoop.hbase.master.HMaster start
  cat >"$DIR/Tables.java" <<'JAVA'
import org.apache.hadoop.hbase.*;
import org.apache.hadoop.hbase.client.*;

class Tables {
  public static void main(String[] args) throws Exception {
    try (Connection connection = ConnectionFactory.createConnection(HBaseConfiguration.create()); Admin admin = connection.getAdmin()) {
      for (String row : new String[] {"tsdb-uid id name", "tsdb t", "tsdb-tree t", "tsdb-meta name"}) {
        String[] words = row.split(" ");
        var table = TableDescriptorBuilder.newBuilder(TableName.valueOf(words[0]));
        for (int i = 1; i < words.length; i++) table.setColumnFamily(ColumnFamilyDescriptorBuilder.of(words[i]));
        admin.createTable(table.build());
      }
    }
  }
}
JAVA
  (hbase_java 256m error "$DIR/Tables.java") >"$DIR/tables.log" 2>&1 || { tail -n 20 "$DIR/tables.log" "$DIR/hbase.log" >&2; die "no tables: see $DIR/tables.log"; }
}
boot() {
  mkdir -p "$DIR/static" "$DIR/cache" "$DIR/tsd"
  cat >"$DIR/tsd/opentsdb.conf" <<CONF
tsd.network.port = $PORT
tsd.network.bind = 127.0.0.1
tsd.http.staticroot = $DIR/static/
tsd.http.cachedir = $DIR/cache/
tsd.core.auto_create_metrics = true
tsd.core.enable_api = true
tsd.storage.hbase.zk_quorum = 127.0.0.1:$ZK_PORT
${TSD_OPTIONS:-}
CONF
  cat >"$DIR/tsd/logback.xml" <<'XML'
<configuration><appender name="OUT" class="ch.qos.logback.core.ConsoleAppender"><encoder><pattern>%d{ISO8601} %-5level %logger{0}: %msg%n</pattern></encoder></appender>
<logger name="QueryLog" level="OFF"/><root level="WARN"><appender-ref ref="OUT"/></root></configuration>
XML
  launch server java --add-exports java.base/sun.reflect.generics.reflectiveObjects=ALL-UNNAMED -Xmx1g -cp "$DIR/tsd:$CACHE/jars/tsd/*" \
    net.opentsdb.tools.TSDMain "--config=$DIR/tsd/opentsdb.conf"
  await server 60 answers "http://127.0.0.1:$PORT/api/version"
}
cleanup() { end hbase; }
pause() { kill -STOP "$(cat "$DIR/hbase.pid")"; }
resume() { kill -CONT "$(cat "$DIR/hbase.pid")"; }
connections() { curl -sf "http://127.0.0.1:$PORT/api/stats" | python3 -c '
import json, sys
print(*(stat["value"] for stat in json.load(sys.stdin) if stat["metric"] == "tsd.connectionmgr.connections" and stat["tags"]["type"] == "total"))'; }
version() { # the jars of 2.4.1 call themselves BuildData
  curl -sf "http://127.0.0.1:$PORT/api/version" |
    sed 's/.*"short_revision":"\([^"]*\)".*"version":"\([^"]*\)".*/2.4.1 (tells \2, revision \1)/'
}
query() { curl -sfG "http://127.0.0.1:$PORT/api/query" --data-urlencode "start=${2:-1}" --data ms=true --data-urlencode "m=none:$1"; }
main "$@"
