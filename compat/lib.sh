# shellcheck shell=bash
# Sourced by everything in this folder: where things are kept, what is fetched, and processes known by their pid file.
#
# COMPAT_CACHE  downloads, kept between runs (default: .cache beside this file)
# COMPAT_DATA   data, logs and pid files, thrown away (default: a folder under TMPDIR)
set -euo pipefail
COMPAT=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
CACHE=${COMPAT_CACHE:-$COMPAT/.cache}
DATA=${COMPAT_DATA:-${TMPDIR:-/tmp}/metrics-exporter-opentsdb}

die() { echo "${0##*/}: $*" >&2; exit 1; }

as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi; }

apt_install() { # package …
  as_root apt-get install -qq -y --no-install-recommends "$@" >&2 ||
    { as_root apt-get update -qq >&2; as_root apt-get install -qq -y --no-install-recommends "$@" >&2; }
}

# Prints the path of a command: the machine's own, or out of its Debian package, unpacked into the cache and not installed, so that no service starts with it.
from_debian() { # command package
  local dir=$CACHE/debian/$2
  if ! command -v "$1"; then
    if [ ! -e "$dir/usr" ]; then
      mkdir -p "$dir"
      ( cd "$dir"
        apt-get download -qq "$2" >&2 || { as_root apt-get update -qq >&2; apt-get download -qq "$2" >&2; }
        dpkg -x ./"$2"_*.deb . )
    fi
    (PATH=$dir/usr/bin:$dir/usr/sbin command -v "$1")
  fi
}

# The version of a Debian package that from_debian took a command from.
debian_version() { # command package
  if command -v "$1" >/dev/null; then dpkg-query -W -f '${Version}' "$2"; else basename "$CACHE/debian/$2/$2"_*.deb | cut -d_ -f2; fi
}

dependency() { # group:artifact:version [excluded group:artifact …]
  local g a v x
  IFS=: read -r g a v <<<"$1"; shift
  printf '<dependency><groupId>%s</groupId><artifactId>%s</artifactId><version>%s</version><exclusions>' "$g" "$a" "$v"
  for x in "$@"; do printf '<exclusion><groupId>%s</groupId><artifactId>%s</artifactId></exclusion>' "${x%:*}" "${x#*:}"; done
  printf '</exclusions></dependency>\n'
}

# Maven's jars of the dependencies on standard input, once, into the cache.
jars() { # name
  local dir=$CACHE/jars/$1 wanted; wanted=$(cat)
  if ! command -v java >/dev/null || ! command -v mvn >/dev/null; then apt_install openjdk-17-jdk-headless maven; fi
  [ ! -e "$dir/.complete" ] || return 0
  mkdir -p "$dir"
  { echo '<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion><groupId>compat</groupId>'
    echo "<artifactId>$1</artifactId><version>1</version><packaging>pom</packaging><dependencies>"
    echo "$wanted</dependencies></project>"; } >"$dir/pom.xml"
  mvn -B -q -f "$dir/pom.xml" dependency:copy-dependencies -DoutputDirectory="$dir" >&2
  touch "$dir/.complete"
}

# Each package as `--add-opens PACKAGE=ALL-UNNAMED`, for Java programs older than the modules of their JDK.
opens() { local p; for p in "$@"; do printf -- '--add-opens=java.base/%s=ALL-UNNAMED\n' "$p"; done; }

listens() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; } # port
answers() { curl -sf -o /dev/null "$1"; }                    # url

launch() { # name command …: in the background, its log and pid file in $DIR
  local name=$1; shift
  "$@" >>"$DIR/$name.log" 2>&1 </dev/null &
  echo $! >"$DIR/$name.pid"
}

await() { # name seconds test …: until the test holds, while the process lives
  local name=$1 tries=$(($2 * 10)); shift 2
  until "$@"; do
    if ! kill -0 "$(cat "$DIR/$name.pid")" 2>/dev/null || ((tries-- == 0)); then
      tail -n 20 "$DIR/$name.log" >&2
      die "$name is not ready: see $DIR/$name.log"
    fi
    sleep 0.1
  done
}

end() { # name [signal]: by its pid, hard after 15 s
  local file=$DIR/$1.pid pid tries=150
  [ -e "$file" ] || return 0
  pid=$(cat "$file")
  kill -CONT "$pid" 2>/dev/null || true # a frozen process takes no other signal
  kill "-${2:-TERM}" "$pid" 2>/dev/null || true
  while kill -0 "$pid" 2>/dev/null && ((tries-- > 0)); do sleep 0.1; done
  kill -KILL "$pid" 2>/dev/null || true
  rm -f "$file"
}

# The words of a server's script. Each defines NAME, PORT (telnet `put`) and HTTP_PORT, below 32768 where the kernel picks none for others, fetch, boot (the process alone, on the data that is there),
# version and query, and redefines what is special to it.
prepare() { :; } # what has to run before the server
cleanup() { :; } # … and to end after it
http_address() { echo "http://127.0.0.1:$PORT"; } # of /api/put
free() { ! listens "$1" || die "port $1 is taken"; }

main() {
  local word=${1:-}; [ $# = 0 ] || shift
  # shellcheck disable=SC2153 # NAME is the server's
  DIR=$DATA/$NAME
  case $word in
  fetch) fetch ;;
  start) fetch; free "$PORT"; free "$HTTP_PORT"; rm -rf "$DIR"; mkdir -p "$DIR"; prepare; boot ;;
  stop) end server; cleanup ;;
  restart) end server; boot ;;
  kill) end server KILL ;;
  boot) boot ;;
  address) echo "127.0.0.1:$PORT" ;;
  http-address) http_address ;;
  url) echo "http://127.0.0.1:$HTTP_PORT" ;;
  version | query | pause | resume | connections | ca) declare -F "$word" >/dev/null || die "$NAME has no $word"; "$word" "$@" ;;
  *) sed -n 's/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
  esac
}
