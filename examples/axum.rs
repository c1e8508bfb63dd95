//! An HTTP service: requests counted, their seconds as a histogram, those in flight as a gauge, and
//! an end on SIGTERM that answers what was begun and delivers the last snapshot.
//!
//! `cargo run --example axum` sends itself a few requests and ends. With `LISTEN=127.0.0.1:8080` it
//! serves until SIGTERM or Ctrl-C. Points go to a TSD inside the process, with `TSD=host:port` to a
//! real one.
//!
//! In a crate of your own leave the `FakeTsd` out; axum needs its feature `matched-path`, tokio
//! `macros`, `net`, `rt-multi-thread`, `signal` and `time`.
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::{MatchedPath, Request};
use axum::middleware::{Next, from_fn};
use axum::response::Response;
use axum::routing::get;
use metrics::{Gauge, counter, gauge, histogram};
use metrics_exporter_opentsdb::testing::FakeTsd;
use metrics_exporter_opentsdb::{ConnectivityCheck, OpenTsdbBuilder};
use tokio::net::TcpListener;
use tokio::task::spawn_blocking;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let fake = FakeTsd::start();
    let exporter = OpenTsdbBuilder::new(std::env::var("TSD").unwrap_or_else(|_| fake.address()))
        // A service has other work to do while the TSD is away.
        .with_connectivity_check(ConnectivityCheck::Off)
        .add_global_label("service", "shop")
        .with_telemetry(false)
        .install()?;

    let app = Router::new()
        .route("/", get(async || "hello\n"))
        .route("/slow", get(slow))
        // Of the routes only: a series for each path that a stranger makes up would have no end.
        .route_layer(from_fn(track));
    let listen = std::env::var("LISTEN").ok();
    let listener = TcpListener::bind(listen.as_deref().unwrap_or("127.0.0.1:0")).await?;
    let address = listener.local_addr()?;
    println!("http://{address}/ and /slow");

    let serving = axum::serve(listener, app);
    match listen {
        Some(_) => serving.with_graceful_shutdown(terminated()).await?,
        None => serving.with_graceful_shutdown(requests(address)).await?,
    }

    // It waits for the server's confirmation, and a runtime's thread is not to wait.
    let report = spawn_blocking(move || exporter.shutdown(Duration::from_secs(5))).await??;
    println!("{}\nlast flush: {report:?}", fake.lines().join("\n"));
    Ok(())
}

async fn slow() -> &'static str {
    tokio::time::sleep(Duration::from_millis(20)).await;
    "done\n"
}

/// Measures a request. The label holds the route as it is declared: `/users/{id}` and not
/// `/users/4711`.
async fn track(request: Request, next: Next) -> Response {
    let route = request.extensions().get::<MatchedPath>();
    let route = route.map_or_else(|| "none".to_owned(), |route| route.as_str().to_owned());
    let _in_flight = InFlight::new();
    let start = Instant::now();

    let response = next.run(request).await;

    let code = response.status().as_u16().to_string();
    counter!("http.requests", "path" => route.clone(), "code" => code).increment(1);
    histogram!("http.seconds", "path" => route).record(start.elapsed().as_secs_f64());
    response
}

/// A request being answered; it ends too when the client goes away and the handler is dropped.
struct InFlight(Gauge);

impl InFlight {
    fn new() -> Self {
        let gauge = gauge!("http.in_flight");
        gauge.increment(1.0);
        InFlight(gauge)
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.decrement(1.0);
    }
}

/// Until SIGTERM, which is how systemd, Docker and Kubernetes end a service, or Ctrl-C.
async fn terminated() {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        if let Ok(mut term) = signal(SignalKind::terminate()) {
            tokio::select! {
                _ = term.recv() => {}
                _ = tokio::signal::ctrl_c() => {}
            }
            return;
        }
    }
    let _ = tokio::signal::ctrl_c().await;
}

/// A few requests, so that there is something to see.
async fn requests(address: SocketAddr) {
    let ask = move || {
        for path in ["/", "/slow", "/nothing-here", "/", "/slow"] {
            let mut stream = TcpStream::connect(address)?;
            write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
            stream.read_to_end(&mut Vec::new())?;
        }
        std::io::Result::Ok(())
    };
    if let Ok(Err(error)) = spawn_blocking(ask).await {
        println!("{error}");
    }
}
