//! What a recorder of the `metrics` facade is told. One test, as there is one recorder for the process.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a test fails by panicking, and prints what a recorder has"
)]

mod support;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use metrics::{
    Counter, CounterFn, Gauge, GaugeFn, Histogram, HistogramFn, Key, KeyName, Metadata, Recorder,
    SharedString, Unit,
};
use support::*;
use webrtc_mesh::{DisconnectReason, MeshEvent, TransferMode};

/// Keeps the figure of each series by its name and labels: of a histogram, how many were recorded.
#[derive(Default, Clone)]
struct Figures(Arc<Mutex<BTreeMap<String, Arc<Figure>>>>, Arc<Mutex<Vec<String>>>);

#[derive(Debug, Default)]
struct Figure(AtomicU64);

impl Figures {
    fn of(&self, key: &Key) -> Arc<Figure> {
        let mut labels: Vec<String> = key.labels().map(|l| format!("{}={}", l.key(), l.value())).collect();
        labels.sort();
        let name = format!("{}{{{}}}", key.name(), labels.join(","));
        self.0.lock().unwrap().entry(name).or_default().clone()
    }

    fn get(&self, series: &str) -> u64 {
        let figure = self.0.lock().unwrap().get(&format!("webrtc_mesh_{series}")).cloned();
        figure.map_or(0, |figure| figure.0.load(Ordering::Relaxed))
    }
}

impl Recorder for Figures {
    fn describe_counter(&self, name: KeyName, _: Option<Unit>, _: SharedString) {
        self.1.lock().unwrap().push(name.as_str().to_owned());
    }

    fn describe_gauge(&self, name: KeyName, _: Option<Unit>, _: SharedString) {
        self.1.lock().unwrap().push(name.as_str().to_owned());
    }

    fn describe_histogram(&self, name: KeyName, _: Option<Unit>, _: SharedString) {
        self.1.lock().unwrap().push(name.as_str().to_owned());
    }

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        Counter::from_arc(self.of(key))
    }

    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::from_arc(self.of(key))
    }

    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::from_arc(self.of(key))
    }
}

impl CounterFn for Figure {
    fn increment(&self, value: u64) {
        self.0.fetch_add(value, Ordering::Relaxed);
    }

    fn absolute(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }
}

impl GaugeFn for Figure {
    fn increment(&self, value: f64) {
        self.0.fetch_add(value as u64, Ordering::Relaxed);
    }

    fn decrement(&self, value: f64) {
        self.0.fetch_sub(value as u64, Ordering::Relaxed);
    }

    fn set(&self, value: f64) {
        self.0.store(value as u64, Ordering::Relaxed);
    }
}

impl HistogramFn for Figure {
    fn record(&self, _: f64) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn a_recorder_is_told_who_comes_and_goes_and_what_is_carried() {
    let figures = Figures::default();
    metrics::set_global_recorder(figures.clone()).unwrap();
    webrtc_mesh::metrics::describe();
    let figures = &figures;
    // The recorder is told beside the events, a moment earlier or later.
    promise(async move {
        let (one, mut two) = pair().await;
        until(async || figures.get("peers_connected{}") == 2).await;
        until(async || figures.get("peer_connects_total{}") == 2).await;
        until(async || figures.get("connection_attempts_total{}") >= 2).await;
        until(async || figures.get("connect_seconds{}") == 2).await;
        until(async || figures.get("stage_seconds{stage=dtls}") == 2).await;
        for mode in TransferMode::ALL {
            for _ in 0..10 {
                one.handle().send(of(mode, 2, vec![0; 100])).await.unwrap();
                packet(&mut two).await;
            }
        }
        let carried = |name: &str, direction: &str| {
            ["reliable", "unreliable_ordered", "unreliable"]
                .map(|mode| figures.get(&format!("{name}{{direction={direction},mode={mode}}}")))
        };
        until(async || carried("packets_total", "received") == [10; 3]).await;
        // Told while they are connected.
        until(async || carried("payload_bytes_total", "sent") == [1000; 3]).await;
        until(async || figures.get("round_trip_seconds{}") > 0).await;
        in_time(one.handle().send(of(TransferMode::Reliable, 2, vec![0; 100]))).await.unwrap();
        in_time(one.handle().close()).await;
        packet(&mut two).await;
        assert_eq!(next(&mut two).await, left(1, DisconnectReason::RemoteClose));
        // What came last is told at the end.
        until(async || carried("packets_total", "sent")[0] == 11).await;
        until(async || carried("packets_total", "received")[0] == 11).await;
        until(async || figures.get("peers_connected{}") == 0).await;
        until(async || figures.get("peer_disconnects_total{reason=remote_close}") == 1).await;
        until(async || figures.get("peer_disconnects_total{reason=local_close}") == 1).await;
        close_all(vec![two]).await;

        let mut mesh = builder().handshake_limit(Duration::from_millis(50)).build(id(1));
        add(&mesh, &connection().await, 2).await.unwrap();
        assert!(matches!(next(&mut mesh).await, MeshEvent::PeerFailed(..)));
        until(async || figures.get("peer_failures_total{reason=timed_out,stage=signaling}") == 1).await;
        close_all(vec![mesh]).await;

        // Every name stands in the table, and is described.
        let table = include_str!("../src/metrics.rs");
        for series in figures.0.lock().unwrap().keys() {
            let name = series.split('{').next().unwrap();
            assert!(table.contains(&format!("//! | `{name}`")), "{name}");
            assert!(figures.1.lock().unwrap().iter().any(|described| described == name), "{name}");
            println!("{series}");
        }
    });
}
