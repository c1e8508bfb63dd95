#!/bin/bash
# nginx (Debian's package) in front of a server's HTTP put: TLS by a certificate of its own authority, and Basic credentials.
#   nginx.sh start URL                   URL: what is behind it, as `victoria.sh http-address` tells
#   nginx.sh stop | restart | kill | boot
#   nginx.sh http-address | ca | version | fetch    ca: the authority's certificate, for SSL_CERT_FILE
# NGINX_PORT: TLS, with the user `load` and the password `secret/word`.
NAME=nginx PORT=${NGINX_PORT:-14443}
HTTP_PORT=$PORT
# shellcheck source=compat/lib.sh
source "$(dirname "$0")/../lib.sh"

fetch() { from_debian nginx nginx >/dev/null; }
prepare() {
  cd "$DIR"
  echo "${BACKEND:?nginx.sh start URL}" >backend
  printf 'load:%s\n' "$(openssl passwd -apr1 secret/word)" >users
  openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -keyout ca.key -out ca.pem -subj '/CN=compat authority' \
    -addext basicConstraints=critical,CA:TRUE -addext keyUsage=keyCertSign 2>/dev/null
  openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout server.key -out server.csr -subj '/CN=compat server' 2>/dev/null
  openssl x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -out server.pem \
    -extfile <(echo 'subjectAltName = DNS:localhost, IP:127.0.0.1') 2>/dev/null
}
boot() {
  cat >"$DIR/nginx.conf" <<CONF
daemon off;
$([ "$(id -u)" != 0 ] || echo "user root;") # or its workers cannot read what a root keeps
pid $DIR/nginx.own.pid;
error_log stderr warn;
events {}
http {
  access_log off;
  client_body_temp_path $DIR/bodies;
  proxy_temp_path $DIR/proxied;
  fastcgi_temp_path $DIR/fastcgi;
  uwsgi_temp_path $DIR/uwsgi;
  scgi_temp_path $DIR/scgi;
  upstream backend { server $(sed 's|^http://||' "$DIR/backend"); keepalive 4; }
  server {
    listen 127.0.0.1:$PORT ssl;
    ssl_certificate $DIR/server.pem;
    ssl_certificate_key $DIR/server.key;
    auth_basic compat;
    auth_basic_user_file $DIR/users;
    client_max_body_size 2m;
    location / {
      proxy_pass http://backend;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_set_header Authorization "";
    }
  }
}
CONF
  launch server "$(from_debian nginx nginx)" -p "$DIR" -e stderr -c "$DIR/nginx.conf"
  await server 20 listens "$PORT"
}
http_address() { echo "https://load:secret%2Fword@localhost:$PORT"; }
ca() { echo "$DIR/ca.pem"; }
version() { "$(from_debian nginx nginx)" -v 2>&1 | sed 's|.*nginx/||'; }
BACKEND=${2:-}
main "$@"
